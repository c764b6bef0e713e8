"""What the kubelet and /proc of a simulated node would say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuwaste_agent.holdings import ContainerKey, Holding, HoldingsSnapshot, Join, ProcessOwner
from gpuwaste_agent.simulate.scenario import FOREVER, STRATEGIES

if TYPE_CHECKING:
    from gpuwaste_agent.clock import Clock
    from gpuwaste_agent.simulate.scenario import ScenarioNode

__all__ = ["SimulatedHoldings", "SimulatedOwners"]

_SECOND = 1_000_000_000


class SimulatedHoldings:
    """The slices held at the clock's time; the same object again while nothing changed."""

    def __init__(self, node: ScenarioNode, clock: Clock, start_ns: int) -> None:
        self._node = node
        self._clock = clock
        self._start_ns = start_ns
        changes = {t for c in node.containers for t in (c.from_s, c.until_s)}
        faults = [fault for fault in node.faults if fault.kind in ("lost", "xid")]
        changes |= {t for fault in faults for t in (fault.from_s, fault.until_s)}
        self._changes = sorted(changes | {FOREVER})
        self._faults = faults
        self._valid_until = -FOREVER
        self._snapshot: HoldingsSnapshot | None = None

    def poll(self) -> HoldingsSnapshot:
        """Return who holds what at the clock's time."""
        now = (self._clock.monotonic_ns() - self._start_ns) / _SECOND
        if self._snapshot is None or now >= self._valid_until:
            self._snapshot = self._build(now)
            self._valid_until = next(change for change in self._changes if change > now or change == FOREVER)
        return self._snapshot

    def hint(self) -> None:
        """Nothing can be missed: every poll looks at the scenario."""

    def _build(self, now: float) -> HoldingsSnapshot:
        holdings = [
            Holding(
                container=ContainerKey(c.namespace, c.pod, c.pod_uid, c.container),
                parent_id=device.split("::", maxsplit=1)[0],
                slice_id=device,
                resource_name=c.resource,
                claim=c.claim,
                join=Join.LOG_DIR,
            )
            for c in self._node.containers
            if c.from_s <= now < c.until_s
            for device in c.devices
        ]
        bad = {fault.gpu for fault in self._faults if fault.from_s <= now < fault.until_s}
        replicas, sharing = {}, {}
        for gpu in self._node.gpus:
            for parent in gpu.parent_ids:
                sharing[parent] = STRATEGIES[gpu.strategy]
                if gpu.uuid not in bad:
                    replicas[parent] = gpu.replicas
        return HoldingsSnapshot(holdings=tuple(holdings), replicas=replicas, sharing=sharing)


class SimulatedOwners:
    """Containers of a scenario's processes by PID."""

    def __init__(self, node: ScenarioNode) -> None:
        self._owners = {
            process.pid: ProcessOwner(c.pod_uid, c.container_id, c.container)
            for c in node.containers
            for process in c.processes
        }

    def owner(self, pid: int) -> ProcessOwner | None:
        """Return the container of a PID; None for a process of the host."""
        return self._owners.get(pid)

    def forget(self, pid: int) -> None:
        """Nothing is remembered that could grow old."""
