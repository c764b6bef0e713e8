"""The GPUs and MIG instances NVML lists, with the handles to ask them by."""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pynvml

from gpuwaste_agent.gpm import GpmReader
from gpuwaste_agent.products import find_product
from gpuwaste_agent.telemetry import GpuInfo, ParentInfo

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpuwaste_agent.products import GpuProduct

__all__ = ["REFUSED", "DriverGpu", "DriverParent", "describe", "present_parents", "text_of"]

# Answers that stay as they are until product, driver or privilege change.
REFUSED = (
    pynvml.NVML_ERROR_NOT_SUPPORTED,
    pynvml.NVML_ERROR_NO_PERMISSION,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    pynvml.NVML_ERROR_INVALID_ARGUMENT,
    pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
)
_MIG_NAME = re.compile(r"MIG (\S+)$")


@dataclass(slots=True)
class DriverParent:
    """A GPU or MIG instance, and how far its process samples were read."""

    info: ParentInfo
    handle: Any
    gpm: GpmReader | None
    read_us: int = 0
    sampled_us: int = 0
    owed_us: dict[int, tuple[float, ...]] = field(default_factory=dict)


@dataclass(slots=True)
class DriverGpu:
    """A GPU.

    Attributes:
        refused: Figures the driver refuses, and why.
        left_out: UUIDs of instances that are there and that the driver does not describe to us.
    """

    info: GpuInfo
    handle: Any
    parents: list[DriverParent]
    device_since_us: int = 0
    hardware_xid: bool = False
    lost: bool = False
    refused: dict[str, str] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)

    @property
    def known_parents(self) -> set[str]:
        """UUIDs of what was there when it was listed."""
        return {parent.info.parent_id for parent in self.parents} | self.left_out

    def close(self) -> None:
        """Free its samples; it is not to be read any more."""
        for parent in self.parents:
            if parent.gpm is not None:
                parent.gpm.close()
                parent.gpm = None


def text_of(value: str | bytes) -> str:
    """Text of NVML, which older bindings give as bytes."""
    return value.decode() if isinstance(value, bytes) else value


def describe(index: int, handle: Any) -> DriverGpu:
    """Ask everything that stays as it is about one GPU.

    In MIG mode the driver tells the whole GPU's memory and the places of instances only to the privileged. Without
    them the GPU is as large as its product, and an instance weighs what its profile weighs there.

    Raises:
        pynvml.NVMLError: The GPU is lost, or nothing of it may be read.
    """
    model = text_of(pynvml.nvmlDeviceGetName(handle))
    uuid = text_of(pynvml.nvmlDeviceGetUUID(handle))
    product = find_product(model)
    refused: dict[str, str] = {}
    left_out: set[str] = set()
    mode = _asked(refused, "mig", pynvml.nvmlDeviceGetMigMode, handle)
    mig = mode is not None and mode[0] == pynvml.NVML_DEVICE_MIG_ENABLE
    memory = _asked(refused, "memory total", pynvml.nvmlDeviceGetMemoryInfo, handle)
    nominal_bytes = product.memory_mib << 20 if product else 0
    gpm = _has_gpm(handle)
    parents = _instances(handle, product, refused, left_out, gpm=gpm) if mig else []
    if not mig:
        reader = GpmReader(handle, None) if gpm else None
        parents = [DriverParent(ParentInfo(parent_id=uuid), handle, reader)]
    info = GpuInfo(
        uuid=uuid,
        index=index,
        minor=pynvml.nvmlDeviceGetMinorNumber(handle),
        model=model,
        product=product.name if product else "",
        memory_bytes=nominal_bytes if memory is None else memory.total,
        pci_bus_id=text_of(pynvml.nvmlDeviceGetPciInfo(handle).busId),
        architecture=product.architecture if product else "",
        mig_enabled=mig,
        idle_watts=product.idle_watts if product else 0,
        parents=tuple(parent.info for parent in parents),
    )
    return DriverGpu(info, handle, parents, refused=refused, left_out=left_out)


def _asked(refused: dict[str, str], figure: str, call: Callable[..., Any], *args: Any) -> Any:
    """The driver's answer; None where it refuses, which is noted under the figure's name."""
    try:
        return call(*args)
    except pynvml.NVMLError as error:
        if error.value not in REFUSED:
            raise
        refused[figure] = str(error)
        return None


def _has_gpm(handle: Any) -> bool:
    try:
        return bool(pynvml.nvmlGpmQueryDeviceSupport(handle).isSupportedDevice)
    except pynvml.NVMLError:
        return False


def _instances(
    handle: Any, product: GpuProduct | None, refused: dict[str, str], left_out: set[str], *, gpm: bool
) -> list[DriverParent]:
    """MIG instances of a GPU; one that vanishes while it is asked is left out, and one whose size nobody tells."""
    found = []
    for number in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            mig = _asked(refused, "instances", pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, number)
            if mig is None:
                continue
            gi_id = pynvml.nvmlDeviceGetGpuInstanceId(mig)
            ci_id = pynvml.nvmlDeviceGetComputeInstanceId(mig)
            uuid = text_of(pynvml.nvmlDeviceGetUUID(mig))
            named = _MIG_NAME.search(text_of(pynvml.nvmlDeviceGetName(mig)))
            placed = _asked(refused, "places", _placement, handle, gi_id)
        except pynvml.NVMLError:
            continue
        profile = named[1] if named else ""
        shape = next((shape for shape in product.profiles if shape.name == profile), None) if product else None
        if placed is None and shape is None:
            refused["instances"] = f"{refused['places']}, and the product table does not know {profile or uuid}"
            left_out.add(uuid)
            continue
        start, size, axis = placed or (None, shape.memory_units if shape else 0, 0)
        info = ParentInfo(
            parent_id=uuid,
            weight_num=size,
            weight_den=product.axis_units if product and product.mig_capable else axis,
            profile=profile,
            start=start,
            gi_id=gi_id,
            ci_id=ci_id,
        )
        found.append(DriverParent(info, mig, GpmReader(handle, gi_id) if gpm else None))
    return found


def _placement(handle: Any, gi_id: int) -> tuple[int, int, int]:
    """Start and size of an instance on the memory axis, and the axis' length: that of the largest placement."""
    instance = pynvml.nvmlDeviceGetGpuInstanceById(handle, gi_id)
    placement = pynvml.nvmlGpuInstanceGetInfo(instance).placement
    axis = placement.start + placement.size
    for number in range(pynvml.NVML_GPU_INSTANCE_PROFILE_COUNT):
        try:
            profile = pynvml.nvmlDeviceGetGpuInstanceProfileInfo(handle, number)
            count = ctypes.c_uint(0)
            pynvml.nvmlDeviceGetGpuInstancePossiblePlacements(handle, profile.id, None, ctypes.byref(count))
            places = (pynvml.c_nvmlGpuInstancePlacement_t * count.value)()
            pynvml.nvmlDeviceGetGpuInstancePossiblePlacements(handle, profile.id, places, ctypes.byref(count))
        except pynvml.NVMLError:
            continue
        axis = max([axis, *(place.start + place.size for place in places)])
    return placement.start, placement.size, axis


def present_parents(gpu: DriverGpu) -> set[str]:
    """UUIDs of the instances a GPU has now, or its own where MIG is off."""
    if "mig" in gpu.refused:
        return {gpu.info.uuid}
    if pynvml.nvmlDeviceGetMigMode(gpu.handle)[0] != pynvml.NVML_DEVICE_MIG_ENABLE:
        return {gpu.info.uuid}
    found = set()
    for number in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(gpu.handle)):
        try:
            mig = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu.handle, number)
            found.add(text_of(pynvml.nvmlDeviceGetUUID(mig)))
        except pynvml.NVMLError:
            continue
    return found
