"""The scenario file: GPUs, containers, processes and faults of simulated nodes, with all load known beforehand.

The file is plain JSON on purpose: programs in other languages read the same one. `docs/agent.md` describes it.
All times are seconds after the scenario's start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from gpuwaste_agent.holdings import Sharing
from gpuwaste_agent.products import PRODUCTS

if TYPE_CHECKING:
    from gpuwaste_agent.products import GpuProduct

__all__ = [
    "FAULT_KINDS",
    "FOREVER",
    "STRATEGIES",
    "VERSION",
    "Scenario",
    "ScenarioContainer",
    "ScenarioError",
    "ScenarioFault",
    "ScenarioGpu",
    "ScenarioInstance",
    "ScenarioLoad",
    "ScenarioNode",
    "ScenarioProcess",
]

VERSION = 1
STRATEGIES = {"none": Sharing.EXCLUSIVE, "time-slicing": Sharing.TIME_SLICING, "mps": Sharing.MPS}
FAULT_KINDS = ("lost", "xid", "hang", "driver-reload", "counter-reset", "clock-step")
FOREVER = float("inf")


class ScenarioError(Exception):
    """A scenario that cannot be used; the message says where it is wrong and what to do."""


class ScenarioLoad(NamedTuple):
    """What a process asks of its parent from `at_s` on.

    `duty` is the part of time with a kernel resident, `sm_width` the part of the SMs its kernels fill while they
    run, `tensor` and `dram` parts of duty. Time-sliced processes that ask for more than there is get it in proportion.
    `enc` and `dec` are parts of the encoders' and decoders' time, whatever the duty.
    """

    at_s: float
    duty: float
    sm_width: float
    memory_mib: float
    tensor: float = 0.0
    dram: float = 0.0
    enc: float = 0.0
    dec: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioInstance:
    """A MIG instance: its profile and first memory unit."""

    uuid: str
    profile: str
    start: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioGpu:
    """A GPU; `mig` None is MIG mode off, an empty tuple is MIG mode on without instances."""

    uuid: str
    product: str
    mig: tuple[ScenarioInstance, ...] | None = None
    strategy: str = "none"
    replicas: int = 1

    @property
    def facts(self) -> GpuProduct:
        """The product's facts."""
        return PRODUCTS[self.product]

    @property
    def parent_ids(self) -> tuple[str, ...]:
        """What slices are cut from: the GPU, or its MIG instances."""
        return (self.uuid,) if self.mig is None else tuple(instance.uuid for instance in self.mig)

    def slice_ids(self) -> tuple[str, ...]:
        """Every slice the device plugin would advertise."""
        if self.strategy == "none":
            return self.parent_ids
        return tuple(f"{parent}::{index}" for parent in self.parent_ids for index in range(self.replicas))


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioProcess:
    """A process on one parent. Its load is constant between the points, which are in order of time."""

    pid: int
    parent: str
    load: tuple[ScenarioLoad, ...]
    from_s: float = 0.0
    until_s: float = FOREVER


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioContainer:
    """A container with the slices it holds (none: it uses a GPU without holding one) and its processes."""

    namespace: str
    pod: str
    pod_uid: str
    container: str
    container_id: str
    resource: str = ""
    devices: tuple[str, ...] = ()
    claim: str = ""
    from_s: float = 0.0
    until_s: float = FOREVER
    processes: tuple[ScenarioProcess, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioFault:
    """Something goes wrong from `from_s` on.

    `lost`, `xid`, `hang` (calls do not return) and `driver-reload` (of all GPUs) last until `until_s`;
    `counter-reset` and `clock-step` happen once.
    """

    kind: str
    gpu: str = ""
    from_s: float = 0.0
    until_s: float = FOREVER
    xid: int = 0
    step_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioNode:
    """One node; `processes` are those of the host, in no container."""

    name: str
    uid: str
    gpus: tuple[ScenarioGpu, ...]
    containers: tuple[ScenarioContainer, ...] = ()
    processes: tuple[ScenarioProcess, ...] = ()
    faults: tuple[ScenarioFault, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A whole scenario: when it starts (RFC 3339, empty: said on the command line) and its nodes."""

    nodes: tuple[ScenarioNode, ...]
    start: str = ""

    def node(self, name: str) -> ScenarioNode:
        """Return the node of that name.

        Raises:
            ScenarioError: There is none; the message lists those there are.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        message = f"there is no node `{name}` in the scenario (it has: {', '.join(node.name for node in self.nodes)})"
        raise ScenarioError(message)
