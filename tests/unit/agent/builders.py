"""Builders of small scenarios, and what the agent makes of them."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gpuwaste_agent.clock import SteppedClock
from gpuwaste_agent.records import RecordMaker
from gpuwaste_agent.sampler import Sampler
from gpuwaste_agent.simulate.kubelet import SimulatedHoldings, SimulatedOwners
from gpuwaste_agent.simulate.nvml import SimulatedNvml
from gpuwaste_agent.simulate.scenario import (
    FOREVER,
    ScenarioContainer,
    ScenarioFault,
    ScenarioGpu,
    ScenarioInstance,
    ScenarioLoad,
    ScenarioNode,
    ScenarioProcess,
)

if TYPE_CHECKING:
    from gpuwaste_agent.wire import usage_pb2 as wire

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
# A whole minute, so that windows begin where scenarios do.
START_NS = 1_767_225_600 * SECOND


def name_uid(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, name))


@dataclass
class NodeBuilder:
    """`a_node().gpu("H100-80GB").pod("a", process(1, 0.5, 0.4)).obj()`."""

    gpus: list[ScenarioGpu] = field(default_factory=list)
    containers: list[ScenarioContainer] = field(default_factory=list)
    host: list[ScenarioProcess] = field(default_factory=list)
    faults: list[ScenarioFault] = field(default_factory=list)

    def gpu(self, product: str, *, mig: tuple[tuple[str, int], ...] | None = None, strategy="none", replicas=1):
        number = len(self.gpus)
        instances = None
        if mig is not None:
            instances = tuple(
                ScenarioInstance(uuid=f"MIG-{number}-{i}", profile=profile, start=start)
                for i, (profile, start) in enumerate(mig)
            )
        self.gpus.append(
            ScenarioGpu(uuid=f"GPU-{number}", product=product, mig=instances, strategy=strategy, replicas=replicas)
        )
        return self

    def pod(
        self,
        name: str,
        *processes: ScenarioProcess,
        devices=("GPU-0",),
        from_s=0.0,
        until_s=FOREVER,
        container="c",
        claim="",
    ):
        self.containers.append(
            ScenarioContainer(
                namespace="ns",
                pod=name,
                pod_uid=name_uid(name),
                container=container,
                container_id=name_uid(name + container).replace("-", "") * 2,
                resource="" if claim else "nvidia.com/gpu",
                claim=claim,
                devices=tuple(devices),
                from_s=from_s,
                until_s=until_s,
                processes=processes,
            )
        )
        return self

    def on_host(self, *processes: ScenarioProcess):
        self.host += processes
        return self

    def fault(self, kind: str, **kwargs):
        self.faults.append(ScenarioFault(kind=kind, **kwargs))
        return self

    def obj(self) -> ScenarioNode:
        return ScenarioNode(
            name="n",
            uid=name_uid("n"),
            gpus=tuple(self.gpus),
            containers=tuple(self.containers),
            processes=tuple(self.host),
            faults=tuple(self.faults),
        )


def a_node() -> NodeBuilder:
    return NodeBuilder()


def process(
    pid: int,
    duty: float,
    width: float = 1.0,
    *,
    parent="GPU-0",
    memory_mib=1000.0,
    from_s=0.0,
    until_s=FOREVER,
    load=(),
) -> ScenarioProcess:
    points = load or (ScenarioLoad(from_s, duty, width, memory_mib, 0.2 * width, 0.3 * width),)
    return ScenarioProcess(pid=pid, parent=parent, load=tuple(points), from_s=from_s, until_s=until_s)


class Rig:
    """A sampler on a scenario; `run_to` takes readings at the given seconds and collects records."""

    def __init__(self, node: ScenarioNode, *, window_s: int = 60, hold_limit_s: float = 180):
        self.clock = SteppedClock(START_NS)
        self.window_ns = window_s * SECOND
        self.holdings = SimulatedHoldings(node, self.clock, START_NS)
        self.sampler = Sampler(
            nvml=SimulatedNvml(node, self.clock, START_NS),
            holdings=self.holdings,
            owners=SimulatedOwners(node),
            clock=self.clock,
            window_ns=self.window_ns,
            hold_limit_ns=round(hold_limit_s * SECOND),
        )
        self.maker = RecordMaker()
        self.records: list[wire.Record] = []
        self.sampler.tick()

    def at(self, *seconds: float):
        for second in seconds:
            self.clock.now_ns = START_NS + round(second * SECOND)
            for closed in self.sampler.tick():
                self.records += self.maker.window(closed)
        return self

    def every(self, step: float, until: float):
        return self.at(*(step * (i + 1) for i in range(round(until / step))))

    def flush(self):
        closed = self.sampler.flush()
        if closed is not None:
            self.records += self.maker.window(closed)
        return self

    def usages(self, pod: str | None = None) -> list[wire.Usage]:
        found = [r.usage for r in self.records if r.WhichOneof("body") == "usage"]
        return [u for u in found if pod is None or u.pod == pod or u.pod_uid == name_uid(pod)]

    def devices(self, parent: str | None = None) -> list[wire.Device]:
        found = [r.device for r in self.records if r.WhichOneof("body") == "device"]
        return [d for d in found if parent is None or d.parent_id == parent]

    def total(self, pod: str, figure: str) -> float:
        return sum(getattr(u.figures, figure) for u in self.usages(pod))
