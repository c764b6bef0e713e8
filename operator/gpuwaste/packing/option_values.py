"""Workloads, the ways to run them as they were profiled, and which of these can serve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpuwaste.model.gpu_products import GpuProduct, MigProfile
    from gpuwaste.packing.mig import Layout

__all__ = [
    "CONTEXT_MEMORY_GIB",
    "Chosen",
    "Option",
    "OptionsAnswer",
    "Unusable",
    "Workload",
    "usable_memory_gib",
    "why_unusable",
]

CONTEXT_MEMORY_GIB = 0.5
"""What a CUDA context takes beside what its process allocates."""
_EXACT = 1e-9
_REASON_NO_THROUGHPUT = "throughput was not measured"
_REASON_NO_LATENCY = "latency was not measured, and there is an objective for it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What has to be served.

    Attributes:
        name: distinct.
        rate: requests (or steps) a second, > 0.
        latency_seconds: no option may be slower; None = no objective.
    """

    name: str
    rate: float
    latency_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One way to run a workload, as it was profiled.

    Attributes:
        workload: its name.
        profile: MIG profile as NVIDIA prints it.
        processes: that share the instance by MPS, >= 1.
        batch: requests a step; told, not read.
        throughput: requests a second of one process beside the others; None = not measured.
        latency_seconds: of one request; None = not measured.
        memory_gib: peak of one process; None = not measured, where running at all is taken as proof that it fits.
    """

    workload: str
    profile: str
    processes: int = 1
    batch: int | None = None
    throughput: float | None = None
    latency_seconds: float | None = None
    memory_gib: float | None = None

    @property
    def total_throughput(self) -> float:
        """Of all processes of one instance; 0 where it was not measured."""
        return (self.throughput or 0.0) * self.processes


@dataclass(frozen=True, slots=True, kw_only=True)
class Unusable:
    """An option that is not in the programme, and why."""

    option: Option
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """So many instances of an option."""

    option: Option
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionsAnswer:
    """Layouts and what runs on them.

    Attributes:
        gpus: how many GPUs.
        bound: no choice of the usable options takes fewer.
        layouts: every instance that is used, and none more.
        chosen: what runs on them.
        refused: workloads without a usable option, which are not served, and why.
        unusable: options left out.
    """

    gpus: int
    bound: int
    layouts: tuple[Layout, ...]
    chosen: tuple[Chosen, ...]
    refused: tuple[tuple[str, str], ...]
    unusable: tuple[Unusable, ...]


def usable_memory_gib(product: GpuProduct, profile: MigProfile) -> float:
    """Memory of one instance: its part of the GPU's."""
    return product.memory_mib / 1024 * profile.memory_units / profile.axis_units


def why_unusable(product: GpuProduct, workload: Workload, option: Option, *, context_memory_gib: float) -> str:
    """Why an option cannot serve a workload; empty if it can."""
    profile = next((one for one in product.profiles if one.name == option.profile), None)
    if profile is None:
        return f"{product.name} has no profile {option.profile}"
    if not option.throughput:
        return _REASON_NO_THROUGHPUT
    if workload.latency_seconds is not None:
        if option.latency_seconds is None:
            return _REASON_NO_LATENCY
        if option.latency_seconds > workload.latency_seconds:
            return f"latency of {option.latency_seconds:g} s is above {workload.latency_seconds:g} s"
    if option.memory_gib is not None:
        need = (option.memory_gib + context_memory_gib) * option.processes
        have = usable_memory_gib(product, profile)
        if need > have + _EXACT:
            return f"peak memory of {need:.2f} GiB with contexts is more than the {have:.2f} GiB of {profile.name}"
    return ""
