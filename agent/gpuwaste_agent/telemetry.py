"""What a driver tells about GPUs: the protocol every source speaks, and its values.

A source answers with averages since its own previous answer (activity), running counters (energy) and
instantaneous values (memory, process list). What a product cannot measure is None, never zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "APPLICATION_XIDS",
    "NO_ACTIVITY",
    "Activity",
    "DriverFacts",
    "GpuHealth",
    "GpuInfo",
    "GpuReading",
    "Nvml",
    "NvmlUnavailableError",
    "Origin",
    "ParentInfo",
    "ParentReading",
    "ProcessSample",
]

# XIDs an application causes; NVIDIA's device plugin ignores the same ones.
APPLICATION_XIDS = frozenset({13, 31, 43, 45, 68, 109})


class Origin(IntEnum):
    """Where a figure comes from; the numbers are those of the usage message."""

    GPM = 1
    DCGM_PROF = 2
    PROCESS = 3
    DEVICE = 4
    APPORTIONED = 5


class NvmlUnavailableError(Exception):
    """The driver's library cannot be loaded or initialised; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentInfo:
    """A whole GPU or a MIG instance: what slices are cut from.

    Attributes:
        parent_id: UUID of the GPU or of the MIG instance.
        weight_num: The parent's part of its GPU is `weight_num / weight_den`.
        weight_den: Units of the MIG memory axis; 1 on a whole GPU.
        profile: MIG profile, empty on a whole GPU.
        start: First memory unit of a MIG instance; None where the driver does not tell it.
        gi_id: NVML's GPU instance id, -1 on a whole GPU.
        ci_id: NVML's compute instance id, -1 on a whole GPU.
    """

    parent_id: str
    weight_num: int = 1
    weight_den: int = 1
    profile: str = ""
    start: int | None = 0
    gi_id: int = -1
    ci_id: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuInfo:
    """One physical GPU and its parents; `product` is empty where the table does not know the model.

    `minor` is the number of its device file, which DRA device names use.
    """

    uuid: str
    index: int
    minor: int
    model: str
    product: str
    memory_bytes: int
    pci_bus_id: str
    architecture: str
    mig_enabled: bool
    idle_watts: int
    parents: tuple[ParentInfo, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverFacts:
    """Versions and topology of a node's driver."""

    driver_version: str
    cuda_version: str
    nvml_version: str
    topology_json: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuHealth:
    """What a GPU is like beside its work; None is not told.

    Attributes:
        ecc_corrected: Memory errors since the driver was loaded; so `ecc_uncorrected`.
        remap_pending: Rows wait for a reset of the GPU to be replaced.
        remap_failed: No row is left to replace another: the board is to be replaced.
        throttle: What slows its clocks now.
    """

    ecc_enabled: bool | None = None
    ecc_corrected: int | None = None
    ecc_uncorrected: int | None = None
    remapped_rows_corrected: int | None = None
    remapped_rows_uncorrected: int | None = None
    remap_pending: bool | None = None
    remap_failed: bool | None = None
    throttle: tuple[str, ...] | None = None

    @property
    def serious(self) -> tuple[object, ...]:
        """What is worth telling at once when it changes."""
        errors = (self.ecc_uncorrected, self.remapped_rows_uncorrected)
        return (self.ecc_enabled, *errors, self.remap_pending, self.remap_failed)


class Activity(NamedTuple):
    """Averages over the time since the source's previous answer, 0 to 1; None is unmeasured.

    `pcie_bytes` and `nvlink_bytes` are totals over that time.
    """

    duty: float | None = None
    sm: float | None = None
    tensor: float | None = None
    dram: float | None = None
    enc: float | None = None
    dec: float | None = None
    copy: float | None = None
    pcie_bytes: int | None = None
    nvlink_bytes: int | None = None


NO_ACTIVITY = Activity()


class ProcessSample(NamedTuple):
    """One process on a parent: averages since the previous answer, and its memory now."""

    pid: int
    duty: float | None
    enc: float | None
    dec: float | None
    memory_bytes: int | None


class ParentReading(NamedTuple):
    """One parent now.

    Attributes:
        parent_id: Which one.
        activity: What it did since the previous answer.
        origin: Source of the activity: GPM, DCGM_PROF or DEVICE.
        memory_bytes: Memory in use.
        processes: Who runs on it; None where the list is not readable.
        resolution_ns: Distance between the source's own readings where they are further apart than ours, else 0.
        mps: Clients of an MPS server run there: processes may overlap in time.
        mps_servers: PIDs among `processes` that are MPS servers, which work for their clients.
    """

    parent_id: str
    activity: Activity
    origin: Origin
    memory_bytes: int | None
    processes: Sequence[ProcessSample] | None
    resolution_ns: int = 0
    mps: bool = False
    mps_servers: frozenset[int] = frozenset()


class GpuReading(NamedTuple):
    """One GPU now. A lost GPU has no parents; `energy_mj` is a running counter."""

    unhealthy: bool
    xids: tuple[int, ...]
    energy_mj: int | None
    parents: Sequence[ParentReading]


class Nvml(Protocol):
    """A source of readings: the real driver or the simulator."""

    @property
    def mode(self) -> str:
        """What NodeFacts call this source: `nvml`, `dcgm-exporter` or `simulated`."""

    @property
    def cpu_ns(self) -> int:
        """CPU time spent inside the driver's calls so far."""

    def driver(self) -> DriverFacts:
        """Return versions and topology."""

    def gpus(self) -> Sequence[GpuInfo]:
        """List GPUs and their parents as they are now.

        Raises:
            NvmlUnavailableError: The driver does not answer now.
        """

    def health(self) -> Mapping[str, GpuHealth]:
        """Return what each GPU is like beside its work, by UUID; one that does not answer is absent."""

    def changed(self) -> bool:
        """Whether the GPUs should be listed again: one was lost, or MIG instances came or went."""

    def read(self, gpu_uuid: str) -> GpuReading:
        """Read one GPU; a lost one answers with `unhealthy` set and without parents."""

    def close(self, wait_seconds: float = -1) -> bool:
        """Let the driver go; may be called twice, and by another thread than the one that reads.

        Args:
            wait_seconds: How long to wait for a call that is under way; negative is for ever.

        Returns:
            False where a call did not return in time: the driver is let go when the process ends.
        """
