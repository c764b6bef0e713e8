"""The GPUs of a simulated node, as its programs find and change them: the agent's scenario file."""

from __future__ import annotations

import os
import tempfile
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from gpuwaste_agent.simulate.scenario_file import dump_scenario, load_scenario
from gpuwaste_agent.telemetry import APPLICATION_XIDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpuwaste_agent.simulate.scenario import ScenarioGpu, ScenarioInstance, ScenarioNode, ScenarioProcess

__all__ = ["Hardware", "InUseError", "new_mig_uuid"]


class InUseError(Exception):
    """A process keeps an instance or a GPU from being changed; the message names it."""


def new_mig_uuid() -> str:
    """A name for a MIG instance, which like the driver's is new each time."""
    return f"MIG-{uuid.uuid4()}"


class Hardware:
    """One node of a scenario file, which other processes may read and change at the same time.

    Args:
        path: the scenario file.
        node: the node's name in it.
        now: tells the time, for faults that begin and end.
    """

    def __init__(self, path: Path, node: str, *, now: Callable[[], datetime]) -> None:
        self._path = path
        self._node = node
        self._now = now
        self._begun = now()

    def gpus(self) -> tuple[ScenarioGpu, ...]:
        """The node's GPUs, in NVML's order."""
        return self._read().gpus

    def unhealthy(self) -> frozenset[str]:
        """UUIDs of the GPUs that are lost or have had a hardware XID."""
        scenario = load_scenario(self._path)
        begun = datetime.fromisoformat(scenario.start).astimezone(UTC) if scenario.start else self._begun
        seconds = (self._now() - begun).total_seconds()
        return frozenset(
            fault.gpu
            for fault in scenario.node(self._node).faults
            if fault.kind in {"lost", "xid"} and fault.xid not in APPLICATION_XIDS
            if fault.from_s <= seconds < fault.until_s
        )

    def set_layout(self, gpu_uuid: str, layout: tuple[ScenarioInstance, ...] | None) -> None:
        """Give a GPU other MIG instances; None turns its MIG mode off.

        Instances that stay keep their UUID. Containers that held one that goes hold it no more.

        Raises:
            InUseError: a process runs on an instance that would go, or, where the mode changes, on the GPU.
        """
        scenario = load_scenario(self._path)
        node = scenario.node(self._node)
        gpu = next(gpu for gpu in node.gpus if gpu.uuid == gpu_uuid)
        changed = replace(gpu, mig=layout)
        gone = set(gpu.parent_ids) - set(changed.parent_ids)
        for process in _processes(node):
            if process.parent in gone:
                raise InUseError(f"process {process.pid} runs on {process.parent} of {gpu_uuid}")
        slices = set(gpu.slice_ids()) - set(changed.slice_ids())
        containers = tuple(
            replace(container, devices=tuple(device for device in container.devices if device not in slices))
            for container in node.containers
        )
        gpus = tuple(changed if other.uuid == gpu_uuid else other for other in node.gpus)
        new = replace(node, gpus=gpus, containers=containers)
        self._write(
            dump_scenario(replace(scenario, nodes=tuple(new if n.name == node.name else n for n in scenario.nodes)))
        )

    def _read(self) -> ScenarioNode:
        return load_scenario(self._path).node(self._node)

    def _write(self, text: str) -> None:
        descriptor, draft = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}-")
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        Path(draft).rename(self._path)


def _processes(node: ScenarioNode) -> list[ScenarioProcess]:
    return [*node.processes, *(process for container in node.containers for process in container.processes)]
