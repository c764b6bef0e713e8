"""The real driver, through NVIDIA's own Python bindings (nvidia-ml-py, module `pynvml`).

Activity comes from GPM on products that have it (Hopper and newer, also under MIG); else duty comes from the samples
of device utilization kept by the driver since the last reading. Process utilization is the driver's average since
the last reading. Under MIG there is neither process nor device utilization. A call that the product, the driver or
our privilege refuses is not asked again until the GPUs are listed anew; `refusals` says which.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time
from typing import TYPE_CHECKING, Any

import pynvml

from gpuwaste_agent.gpm import activity_of
from gpuwaste_agent.health import read_health, read_topology
from gpuwaste_agent.nvml_devices import REFUSED, DriverGpu, DriverParent, describe, present_parents, text_of
from gpuwaste_agent.nvml_processes import ProcessReader
from gpuwaste_agent.telemetry import (
    APPLICATION_XIDS,
    Activity,
    DriverFacts,
    GpuHealth,
    GpuInfo,
    GpuReading,
    NvmlUnavailableError,
    Origin,
    ParentReading,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

__all__ = ["RealNvml"]

_PERCENT = 100.0
_ENERGY_FIELD = pynvml.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION
_NO_PERMISSION = str(pynvml.NVMLError(pynvml.NVML_ERROR_NO_PERMISSION))
_PRIVILEGE = "give the agent CAP_SYS_ADMIN (value `agent.migMonitoring` of the chart)"
_MOST_XIDS = 64
# The GPU itself is gone; or the driver is, as while it is reloaded, which says nothing of the GPU.
_LOST = (pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED)
_AWAY = (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, pynvml.NVML_ERROR_UNINITIALIZED)


class _SilentError(Exception):
    """The GPU does not answer any more; `lost` says that it is the GPU's own fault."""

    def __init__(self, error: pynvml.NVMLError) -> None:
        super().__init__(str(error))
        self.lost = error.value in _LOST


def _answers(gpu: DriverGpu) -> bool:
    """Whether a GPU that was lost is back."""
    try:
        pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(gpu.info.index))
    except pynvml.NVMLError as error:
        return error.value not in _LOST
    return True


def _memory_info_v2(handle: Any) -> Any:
    return pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)


class RealNvml:
    """NVML of this node. One thread reads; any may close it.

    Attributes:
        problem: What of the node may not be read for want of privilege; empty where nothing is refused.
    """

    mode = "nvml"

    def __init__(self, *, library: Path | None, list_processes: bool) -> None:
        """Load and initialise the driver's library.

        Args:
            library: Path of libnvidia-ml.so.1; None leaves the search to the loader.
            list_processes: Ask for process lists and utilization.

        Raises:
            NvmlUnavailableError: There is no library or no driver; the message says what to do.
        """
        self._list_processes = list_processes
        self.cpu_ns = 0
        self.problem = ""
        self._gpus: dict[str, DriverGpu] = {}
        self._unreadable: dict[int, str] = {}
        self._xids: dict[str, list[int]] = {}
        self._listed: tuple[GpuInfo, ...] = ()
        self._events: Any = None
        # Held while the driver is asked, so that nobody closes it under a call.
        self._asking = threading.Lock()
        self._processes = ProcessReader(self._ask)
        self._open = False
        # The driver did not answer since the GPUs were listed.
        self._away = False
        try:
            if library is not None:
                # Loaded under its own name first, so that the bindings' search finds this very copy.
                ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
            pynvml.nvmlInit()
        except (OSError, pynvml.NVMLError) as error:
            raise NvmlUnavailableError(
                f"NVML cannot be used ({error}): is the driver loaded? If libnvidia-ml.so.1 lies where the loader "
                "does not look, name it with --nvml-library"
            ) from error
        self._open = True

    # --- asking -----------------------------------------------------------------------------------------------

    def _ask(self, gpu: DriverGpu, figure: str, call: Callable[..., Any], *args: Any) -> Any:
        """Call NVML; None where it is refused, and then not asked again.

        Raises:
            _SilentError: The GPU or its driver is gone.
        """
        if figure in gpu.refused:
            return None
        began = time.thread_time_ns()
        try:
            return call(*args)
        except pynvml.NVMLError as error:
            if error.value in (*_LOST, *_AWAY):
                raise _SilentError(error) from error
            if error.value in REFUSED:
                gpu.refused[figure] = str(error)
                self._name_denied()
            return None
        finally:
            self.cpu_ns += time.thread_time_ns() - began

    def refusals(self) -> dict[str, dict[str, str]]:
        """What was refused and why, by GPU and figure."""
        return {uuid: dict(gpu.refused) for uuid, gpu in self._gpus.items()}

    # --- listing ----------------------------------------------------------------------------------------------

    def driver(self) -> DriverFacts:
        """Return versions and how the GPUs are connected."""
        version = pynvml.nvmlSystemGetCudaDriverVersion_v2()
        listed = [gpu for gpu in self._gpus.values() if not gpu.lost]
        topology = ""
        with contextlib.suppress(_SilentError):
            topology = read_topology(listed, self._ask)
        return DriverFacts(
            driver_version=text_of(pynvml.nvmlSystemGetDriverVersion()),
            cuda_version=f"{version // 1000}.{version % 1000 // 10}",
            nvml_version=text_of(pynvml.nvmlSystemGetNVMLVersion()),
            topology_json=topology,
        )

    def health(self) -> dict[str, GpuHealth]:
        """Ask every GPU that answers for errors and throttling."""
        found = {}
        with self._asking:
            for uuid, gpu in self._gpus.items():
                if self._open and not gpu.lost:
                    with contextlib.suppress(_SilentError):
                        found[uuid] = read_health(gpu, self._ask)
        return found

    def gpus(self) -> Sequence[GpuInfo]:
        """List the GPUs and their instances anew."""
        with self._asking:
            if not self._open:
                raise NvmlUnavailableError("NVML was closed: the agent is leaving")
            self._list()
        return self.listed()

    def changed(self) -> bool:
        """Whether a GPU was lost at its last reading, or GPUs or MIG instances differ from those listed."""
        with self._asking:
            return self._open and self._changed()

    def _changed(self) -> bool:
        if self._away:
            return True
        try:
            if pynvml.nvmlDeviceGetCount() != len(self._gpus) + len(self._unreadable):
                return True
            return any(
                _answers(gpu) if gpu.lost else present_parents(gpu) != gpu.known_parents for gpu in self._gpus.values()
            )
        except pynvml.NVMLError:
            return True

    def listed(self) -> Sequence[GpuInfo]:
        """Return the GPUs as they were listed last, also while the driver is away: who holds them holds them still."""
        return self._listed

    def _list(self) -> None:
        """List everything anew; a driver that was reloaded meanwhile is initialised again.

        A GPU that is as it was keeps its samples, so that the change of another one costs it no reading. One that is
        lost stays listed as it was last seen: somebody still holds it, and it is bad.
        """
        self._read_xids()
        before, self._gpus, self._unreadable, self._away = self._gpus, {}, {}, False
        try:
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError:
            self._release(before)
            before = {}
            count = self._again()
        for index in range(count):
            try:
                gpu = describe(index, pynvml.nvmlDeviceGetHandleByIndex(index))
            except pynvml.NVMLError as error:
                if error.value in _LOST:
                    self._gpus |= {uuid: gpu for uuid, gpu in before.items() if gpu.info.index == index}
                    continue
                if error.value not in REFUSED:
                    self._release(before)
                    raise NvmlUnavailableError(f"NVML does not describe GPU {index} ({error})") from error
                self._unreadable[index] = str(error)
                continue
            known = before.get(gpu.info.uuid)
            if known is not None and not known.lost and known.info == gpu.info:
                gpu, superfluous = known, gpu
                superfluous.close()
            elif known is not None:
                gpu.hardware_xid = known.hardware_xid and not known.lost
            self._gpus[gpu.info.uuid] = gpu
        self._release({uuid: gpu for uuid, gpu in before.items() if self._gpus.get(uuid) is not gpu})
        if self._unreadable and not self._gpus:
            raise NvmlUnavailableError(f"NVML lets us read none of {count} GPUs ({self._unreadable[0]}): {_PRIVILEGE}")
        self._listed = tuple(gpu.info for gpu in self._gpus.values())
        self._watch_xids()
        self._name_denied()

    def _name_denied(self) -> None:
        """Say in `problem` what we may not read; the GPUs and figures that we may read go on being read."""
        denied = [f"GPU {index} ({why})" for index, why in self._unreadable.items()]
        for gpu in self._gpus.values():
            figures = sorted(figure for figure, why in gpu.refused.items() if why == _NO_PERMISSION)
            if figures:
                denied.append(f"{', '.join(figures)} of {gpu.info.uuid}")
        self.problem = f"the driver refuses {'; '.join(denied)}: {_PRIVILEGE}" if denied else ""

    @staticmethod
    def _again() -> int:
        # The library may have forgotten us already: that is what a reload does.
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()
        try:
            pynvml.nvmlInit()
            return int(pynvml.nvmlDeviceGetCount())
        except pynvml.NVMLError as error:
            raise NvmlUnavailableError(f"NVML does not answer ({error}): is the driver being reloaded?") from error

    # --- XIDs -------------------------------------------------------------------------------------------------

    def _watch_xids(self) -> None:
        self._free_events()
        try:
            self._events = pynvml.nvmlEventSetCreate()
        except pynvml.NVMLError:
            return
        kind = pynvml.nvmlEventTypeXidCriticalError
        for gpu in self._gpus.values():
            with contextlib.suppress(_SilentError):
                self._ask(gpu, "xid", pynvml.nvmlDeviceRegisterEvents, gpu.handle, kind, self._events)

    def _free_events(self) -> None:
        if self._events is not None:
            pynvml.nvmlEventSetFree(self._events)
            self._events = None

    def _read_xids(self) -> None:
        """Keep what happened since the last call for the reading of the GPU it happened to."""
        for _ in range(_MOST_XIDS):
            if self._events is None:
                break
            try:
                event = pynvml.nvmlEventSetWait_v2(self._events, 0)
                uuid = text_of(pynvml.nvmlDeviceGetUUID(event.device))
            except pynvml.NVMLError:
                break
            xid = int(event.eventData)
            self._xids.setdefault(uuid, []).append(xid)
            gpu = self._gpus.get(uuid)
            if gpu is not None and xid not in APPLICATION_XIDS:
                gpu.hardware_xid = True

    # --- reading ----------------------------------------------------------------------------------------------

    def read(self, gpu_uuid: str) -> GpuReading:
        """Read one GPU and its parents; a closed driver answers nothing."""
        with self._asking:
            if not self._open:
                return GpuReading(unhealthy=False, xids=(), energy_mj=None, parents=())
            return self._read(gpu_uuid)

    def _read(self, gpu_uuid: str) -> GpuReading:
        self._read_xids()
        xids = tuple(self._xids.pop(gpu_uuid, ()))
        gpu = self._gpus.get(gpu_uuid)
        if gpu is None or gpu.lost:
            return GpuReading(unhealthy=gpu is not None, xids=xids, energy_mj=None, parents=())
        try:
            now_us, energy = self._clock_and_energy(gpu)
            parents = [self._read_parent(gpu, parent, now_us) for parent in gpu.parents]
        except _SilentError as error:
            gpu.lost = error.lost
            self._away = self._away or not error.lost
            return GpuReading(unhealthy=error.lost or gpu.hardware_xid, xids=xids, energy_mj=None, parents=())
        return GpuReading(unhealthy=gpu.hardware_xid, xids=xids, energy_mj=energy, parents=parents)

    def _clock_and_energy(self, gpu: DriverGpu) -> tuple[int, int | None]:
        """The driver's own time in microseconds since the epoch, and the energy counter, by one call."""
        fields = self._ask(gpu, "field values", pynvml.nvmlDeviceGetFieldValues, gpu.handle, [_ENERGY_FIELD])
        if fields is None:
            counter = self._ask(gpu, "energy", pynvml.nvmlDeviceGetTotalEnergyConsumption, gpu.handle)
            return time.time_ns() // 1000, counter
        field = fields[0]
        if field.nvmlReturn != pynvml.NVML_SUCCESS:
            gpu.refused.setdefault("energy", str(pynvml.NVMLError(field.nvmlReturn)))
        else:
            gpu.refused.pop("energy", None)
        known = field.nvmlReturn == pynvml.NVML_SUCCESS
        return int(field.timestamp), int(field.value.ullVal) if known else None

    def _read_parent(self, gpu: DriverGpu, parent: DriverParent, now_us: int) -> ParentReading:
        mig = gpu.info.mig_enabled
        memory = self._memory(gpu, parent.handle)
        processes, clients = self._processes.read(gpu, parent, now_us) if self._list_processes else (None, set())
        activity = Activity()
        if parent.gpm is not None:
            measured = self._ask(gpu, "gpm", parent.gpm.measure)
            activity = activity if measured is None else activity_of(measured)
        if not mig:
            encoder = self._ask(gpu, "encoder", pynvml.nvmlDeviceGetEncoderUtilization, gpu.handle)
            decoder = self._ask(gpu, "decoder", pynvml.nvmlDeviceGetDecoderUtilization, gpu.handle)
            activity = activity._replace(
                enc=None if encoder is None else encoder[0] / _PERCENT,
                dec=None if decoder is None else decoder[0] / _PERCENT,
            )
            if parent.gpm is None:
                activity = activity._replace(duty=self._device_duty(gpu))
        return ParentReading(
            parent_id=parent.info.parent_id,
            activity=activity,
            origin=Origin.DEVICE if parent.gpm is None else Origin.GPM,
            memory_bytes=None if memory is None else memory.used,
            processes=processes,
            mps=bool(clients),
            mps_servers=self._processes.mps_servers(processes or (), clients),
        )

    def _memory(self, gpu: DriverGpu, handle: Any) -> Any:
        """Memory in use without what the driver keeps for itself, where the driver tells it apart."""
        exact = self._ask(gpu, "memory v2", _memory_info_v2, handle)
        return exact if exact is not None else self._ask(gpu, "memory", pynvml.nvmlDeviceGetMemoryInfo, handle)

    def _device_duty(self, gpu: DriverGpu) -> float | None:
        """Average of the utilization samples the driver kept since the last reading; else its newest value."""
        answer = self._ask(
            gpu,
            "device samples",
            pynvml.nvmlDeviceGetSamples,
            gpu.handle,
            pynvml.NVML_GPU_UTILIZATION_SAMPLES,
            gpu.device_since_us,
        )
        if answer is not None and answer[1]:
            samples = answer[1]
            gpu.device_since_us = max(sample.timeStamp for sample in samples)
            return float(sum(sample.sampleValue.uiVal for sample in samples)) / len(samples) / _PERCENT
        rates = self._ask(gpu, "device utilization", pynvml.nvmlDeviceGetUtilizationRates, gpu.handle)
        return None if rates is None else float(rates.gpu) / _PERCENT

    def close(self, wait_seconds: float = -1) -> bool:
        """Free every sample and event set, and let the driver go; False where a call does not return in time."""
        if not self._asking.acquire(timeout=wait_seconds):
            return False
        try:
            if self._open:
                self._open = False
                self._release(self._gpus)
                self._gpus = {}
                self._free_events()
                pynvml.nvmlShutdown()
        finally:
            self._asking.release()
        return True

    @staticmethod
    def _release(gpus: dict[str, DriverGpu]) -> None:
        """Free the samples of GPUs that are no longer read."""
        for gpu in gpus.values():
            gpu.close()
