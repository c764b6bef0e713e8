"""The GPUs and MIG instances NVML lists, with the handles to ask them by."""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass, field
from typing import Any

import pynvml

from gpuwaste_agent.gpm import GpmReader
from gpuwaste_agent.products import find_product
from gpuwaste_agent.telemetry import GpuInfo, ParentInfo

__all__ = ["DriverGpu", "DriverParent", "describe", "present_parents", "text_of"]

_MIG_NAME = re.compile(r"MIG (\S+)$")


@dataclass(slots=True)
class DriverParent:
    """A GPU or MIG instance, and how far its process samples were read."""

    info: ParentInfo
    handle: Any
    gpm: GpmReader | None
    processes_since_us: int = 0


@dataclass(slots=True)
class DriverGpu:
    """A GPU; `refused` says which figures the driver refuses, and why."""

    info: GpuInfo
    handle: Any
    parents: list[DriverParent]
    device_since_us: int = 0
    hardware_xid: bool = False
    lost: bool = False
    refused: dict[str, str] = field(default_factory=dict)


def text_of(value: str | bytes) -> str:
    """Text of NVML, which older bindings give as bytes."""
    return value.decode() if isinstance(value, bytes) else value


def describe(index: int, handle: Any) -> DriverGpu:
    """Ask everything that stays as it is about one GPU."""
    model = text_of(pynvml.nvmlDeviceGetName(handle))
    uuid = text_of(pynvml.nvmlDeviceGetUUID(handle))
    product = find_product(model)
    mig = False
    refused: dict[str, str] = {}
    try:
        mig = pynvml.nvmlDeviceGetMigMode(handle)[0] == pynvml.NVML_DEVICE_MIG_ENABLE
    except pynvml.NVMLError as error:
        refused["mig"] = str(error)
    gpm = _has_gpm(handle)
    parents = _instances(handle, model, gpm=gpm) if mig else []
    if not mig:
        reader = GpmReader(handle, None) if gpm else None
        parents = [DriverParent(ParentInfo(parent_id=uuid), handle, reader)]
    info = GpuInfo(
        uuid=uuid,
        index=index,
        minor=pynvml.nvmlDeviceGetMinorNumber(handle),
        model=model,
        product=product.name if product else "",
        memory_bytes=pynvml.nvmlDeviceGetMemoryInfo(handle).total,
        pci_bus_id=text_of(pynvml.nvmlDeviceGetPciInfo(handle).busId),
        architecture=product.architecture if product else "",
        mig_enabled=mig,
        idle_watts=product.idle_watts if product else 0,
        parents=tuple(parent.info for parent in parents),
    )
    return DriverGpu(info, handle, parents, refused=refused)


def _has_gpm(handle: Any) -> bool:
    try:
        return bool(pynvml.nvmlGpmQueryDeviceSupport(handle).isSupportedDevice)
    except pynvml.NVMLError:
        return False


def _instances(handle: Any, model: str, *, gpm: bool) -> list[DriverParent]:
    """MIG instances of a GPU; one that vanishes while it is asked is left out."""
    found = []
    product = find_product(model)
    for number in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            mig = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
            gi_id = pynvml.nvmlDeviceGetGpuInstanceId(mig)
            ci_id = pynvml.nvmlDeviceGetComputeInstanceId(mig)
            named = _MIG_NAME.search(text_of(pynvml.nvmlDeviceGetName(mig)))
            profile = named[1] if named else ""
            start, size, axis = _placement(handle, gi_id)
        except pynvml.NVMLError:
            continue
        info = ParentInfo(
            parent_id=text_of(pynvml.nvmlDeviceGetUUID(mig)),
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
