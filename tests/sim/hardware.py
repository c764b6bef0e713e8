"""A node's GPUs through NVML, as NVIDIA's own daemons find, watch and cut them.

`python -m tests.sim.hardware` prints them as JSON.
"""

from __future__ import annotations

import ctypes
import json
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

import pynvml as nvml

from gpuwaste_agent.products import find_product
from gpuwaste_agent.simulate.scenario import ScenarioGpu, ScenarioInstance
from gpuwaste_agent.telemetry import APPLICATION_XIDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Hardware", "InUseError"]

_MOST_INSTANCES = 16


class InUseError(Exception):
    """A process or a program keeps an instance or a GPU from being changed; the message names what."""


class Hardware:
    """The GPUs that `libnvidia-ml.so.1` of this process's library path knows.

    `open` before anything else; while it is open, the driver counts this process among its clients, and no other
    can change a GPU's MIG mode.
    """

    def __init__(self) -> None:
        self._handles: dict[str, object] = {}
        self._known: dict[str, ScenarioGpu] = {}
        self._events: object = None
        self._unhealthy: set[str] = set()

    def open(self) -> None:
        """Connect to the driver and begin to listen for XIDs; harmless where that is done."""
        if self._handles:
            return
        nvml.nvmlInit()
        self._events = nvml.nvmlEventSetCreate()
        for index in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            name = nvml.nvmlDeviceGetName(handle)
            product = find_product(name)
            if product is None:
                raise LookupError(f"GPU {index} is a `{name}`, which is not in the table of products")
            uuid = nvml.nvmlDeviceGetUUID(handle)
            self._handles[uuid] = handle
            self._known[uuid] = ScenarioGpu(uuid=uuid, product=product.name)
            nvml.nvmlDeviceRegisterEvents(handle, nvml.nvmlEventTypeXidCriticalError, self._events)

    def close(self) -> None:
        """Let the driver go; harmless where that is done. What was unhealthy is forgotten."""
        if self._handles:
            nvml.nvmlEventSetFree(self._events)
            nvml.nvmlShutdown()
        self._handles.clear()
        self._unhealthy.clear()

    @contextmanager
    def opened(self) -> Iterator[Hardware]:
        """Open for one block."""
        self.open()
        try:
            yield self
        finally:
            self.close()

    def gpus(self) -> tuple[ScenarioGpu, ...]:
        """The node's GPUs with their MIG instances, in NVML's order; a lost one is as it was last seen."""
        for uuid, handle in self._handles.items():
            try:
                layout = self._layout(handle, self._known[uuid])
            except nvml.NVMLError_GpuIsLost:
                self._unhealthy.add(uuid)
            else:
                self._known[uuid] = ScenarioGpu(uuid=uuid, product=self._known[uuid].product, mig=layout)
        return tuple(self._known[uuid] for uuid in self._handles)

    def unhealthy(self) -> frozenset[str]:
        """UUIDs of the GPUs that were lost or had a hardware XID since `open`; they do not recover."""
        while True:
            try:
                event = nvml.nvmlEventSetWait_v2(self._events, 0)
            except nvml.NVMLError_Timeout:
                return frozenset(self._unhealthy)
            if event.eventData not in APPLICATION_XIDS:
                self._unhealthy.add(nvml.nvmlDeviceGetUUID(event.device))

    def set_mode(self, uuid: str, *, enabled: bool) -> None:
        """Turn MIG mode on or off.

        Raises:
            InUseError: a program holds the driver open, or the GPU has instances or processes.
        """
        mode = nvml.NVML_DEVICE_MIG_ENABLE if enabled else nvml.NVML_DEVICE_MIG_DISABLE
        status = nvml.nvmlDeviceSetMigMode(self._handles[uuid], mode)
        if status != nvml.NVML_SUCCESS:
            raise InUseError(f"MIG mode of {uuid} cannot be changed: {nvml.NVMLError(status)}")

    def clear(self, uuid: str) -> None:
        """Destroy all MIG instances of a GPU.

        Raises:
            InUseError: a process runs on one; those before it are gone.
        """
        for instance in self._instances(uuid):
            try:
                for compute in _compute_instances(instance):
                    nvml.nvmlComputeInstanceDestroy(compute)
                nvml.nvmlGpuInstanceDestroy(instance)
            except nvml.NVMLError_InUse:
                raise InUseError(f"an instance of {uuid} is in use") from None

    def create(self, uuid: str, profiles: Sequence[str]) -> bool:
        """Create MIG instances one after the other, where the driver puts them; False where one does not fit.

        Raises:
            KeyError: the product has no such profile.
        """
        facts = self._known[uuid].facts
        for profile in [facts.profile(name) for name in profiles]:
            try:
                instance = nvml.nvmlDeviceCreateGpuInstance(self._handles[uuid], profile.gi_profile_id)
            except nvml.NVMLError_InsufficientResources:
                return False
            nvml.nvmlGpuInstanceCreateComputeInstance(instance, _whole(instance))
        return True

    def _layout(self, handle: object, gpu: ScenarioGpu) -> tuple[ScenarioInstance, ...] | None:
        if not gpu.facts.mig_capable or not nvml.nvmlDeviceGetMigMode(handle)[0]:
            return None
        names = {profile.gi_profile_id: profile.name for profile in gpu.facts.profiles}
        found = []
        for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
            try:
                device = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
            except nvml.NVMLError_NotFound:
                continue
            instance = nvml.nvmlDeviceGetGpuInstanceById(handle, nvml.nvmlDeviceGetGpuInstanceId(device))
            info = nvml.nvmlGpuInstanceGetInfo(instance)
            uuid, profile = nvml.nvmlDeviceGetUUID(device), names[info.profileId]
            found.append(ScenarioInstance(uuid=uuid, profile=profile, start=info.placement.start))
        return tuple(sorted(found, key=lambda instance: instance.start))

    def _instances(self, uuid: str) -> list[object]:
        found: list[object] = []
        for profile in self._known[uuid].facts.profiles:
            listed, count = (nvml.c_nvmlGpuInstance_t * _MOST_INSTANCES)(), ctypes.c_uint(_MOST_INSTANCES)
            nvml.nvmlDeviceGetGpuInstances(self._handles[uuid], profile.gi_profile_id, listed, ctypes.byref(count))
            found += listed[: count.value]
        return found


def _profiles(instance: object) -> list[int]:
    """Ids of the compute-instance profiles that a GPU instance has, smallest first."""
    found = []
    for index in range(nvml.NVML_COMPUTE_INSTANCE_PROFILE_COUNT):
        try:
            info = nvml.nvmlGpuInstanceGetComputeInstanceProfileInfo(
                instance, index, nvml.NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED
            )
        except (nvml.NVMLError_NotSupported, nvml.NVMLError_InvalidArgument):
            continue
        found.append((info.sliceCount, info.id))
    return [identity for _, identity in sorted(found)]


def _whole(instance: object) -> int:
    """The profile of a compute instance that fills its GPU instance."""
    return _profiles(instance)[-1]


def _compute_instances(instance: object) -> list[object]:
    found: list[object] = []
    for profile in _profiles(instance):
        listed, count = (nvml.c_nvmlComputeInstance_t * _MOST_INSTANCES)(), ctypes.c_uint(_MOST_INSTANCES)
        nvml.nvmlGpuInstanceGetComputeInstances(instance, profile, listed, ctypes.byref(count))
        found += listed[: count.value]
    return found


if __name__ == "__main__":
    with Hardware().opened() as hardware:
        print(json.dumps([asdict(gpu) for gpu in hardware.gpus()]))
