"""The processes on a parent as NVML tells of them: who they are, what each did since the last reading, and MPS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pynvml

from gpuwaste_agent.nvml_devices import text_of
from gpuwaste_agent.telemetry import ProcessSample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gpuwaste_agent.nvml_devices import DriverGpu, DriverParent

__all__ = ["ProcessReader"]

_PERCENT = 100.0
_MPS_SERVER = "nvidia-cuda-mps-server"
_NOTHING = (0.0, 0.0, 0.0)
_OLDEST_SAMPLE_US = 2_000_000


def _process_samples(handle: Any, since_us: int) -> list[Any]:
    """Utilization by process since a time; NOT_FOUND is the driver's word for nothing."""
    try:
        return list(pynvml.nvmlDeviceGetProcessUtilization(handle, since_us))
    except pynvml.NVMLError as error:
        if error.value != pynvml.NVML_ERROR_NOT_FOUND:
            raise
        return []


class ProcessReader:
    """Reads the processes of one parent after the other."""

    def __init__(self, ask: Callable[..., Any]) -> None:
        """Take how NVML is called: with the GPU, the figure's name, the function and its arguments."""
        self._ask = ask
        # Whether a PID is an MPS server, of those that may be one.
        self._servers: dict[int, bool] = {}

    def read(self, gpu: DriverGpu, parent: DriverParent, now_us: int) -> tuple[list[ProcessSample] | None, set[int]]:
        """Processes on a parent (None where their list is refused), and which of them are MPS clients."""
        running = self._ask(gpu, "processes", pynvml.nvmlDeviceGetComputeRunningProcesses, parent.handle)
        if running is None:
            return None, set()
        graphics = self._ask(gpu, "graphics processes", pynvml.nvmlDeviceGetGraphicsRunningProcesses, parent.handle)
        clients = self._ask(gpu, "mps processes", pynvml.nvmlDeviceGetMPSComputeRunningProcesses, parent.handle) or []
        listed = [*running, *(graphics or []), *clients]
        mps = {process.pid for process in clients}
        memory: dict[int, int | None] = {}
        for process in listed:
            known = memory.get(process.pid)
            used = process.usedGpuMemory
            memory[process.pid] = used if known is None else max(known, used or 0)
        rates = None if gpu.info.mig_enabled else self._rates(gpu, parent, now_us, memory.keys())
        if rates is None:
            return [ProcessSample(pid, None, None, None, used) for pid, used in memory.items()], mps
        return [ProcessSample(pid, *rates.get(pid, _NOTHING), used) for pid, used in memory.items()], mps

    def mps_servers(self, processes: Sequence[ProcessSample], clients: set[int]) -> frozenset[int]:
        """MPS servers among the processes: those that are no clients and have the server's name."""
        if not clients:
            return frozenset()
        others = {sample.pid for sample in processes} - clients
        self._servers = {pid: known for pid, known in self._servers.items() if pid in others}
        for pid in others - self._servers.keys():
            try:
                name = text_of(pynvml.nvmlSystemGetProcessName(pid))
            except pynvml.NVMLError:
                name = ""
            self._servers[pid] = _MPS_SERVER in name
        return frozenset(pid for pid, is_server in self._servers.items() if is_server)

    def _rates(
        self, gpu: DriverGpu, parent: DriverParent, now_us: int, pids: Iterable[int]
    ) -> dict[int, tuple[float, float, float]] | None:
        """Duty, encoder and decoder by PID, averages over the time since the last reading; None where refused.

        The driver's own samples come as often as it likes: its average reaches from the newest sample we knew to its
        newest one now, which may be none (NOT_FOUND, as if nobody did anything) or reach further than our reading.
        What a process did is therefore counted by the samples' times, and what does not fit into the time since the
        last reading is owed to the next one.
        """
        before_us, parent.read_us = parent.read_us, now_us
        if not before_us:
            parent.sampled_us = now_us
        samples = self._ask(gpu, "process utilization", _process_samples, parent.handle, parent.sampled_us)
        if samples is None:
            return None
        span_us = now_us - before_us
        if not before_us or span_us <= 0:
            return {}
        done = {pid: parent.owed_us[pid] for pid in pids if pid in parent.owed_us}
        newest = parent.sampled_us
        for sample in samples:
            length_us = sample.timeStamp - parent.sampled_us
            if length_us > 0:
                newest = max(newest, sample.timeStamp)
                parts = (sample.smUtil, sample.encUtil, sample.decUtil)
                owed = done.get(sample.pid, _NOTHING)
                done[sample.pid] = tuple(a + part * length_us / _PERCENT for a, part in zip(owed, parts, strict=True))
        # Without a sample nobody did anything up to the driver's newest one, which is no older than that.
        parent.sampled_us = max(newest, now_us - _OLDEST_SAMPLE_US)
        given = {pid: tuple(min(part, span_us) for part in parts) for pid, parts in done.items()}
        parent.owed_us = {
            pid: tuple(a - b for a, b in zip(parts, given[pid], strict=True)) for pid, parts in done.items()
        }
        return {pid: (duty / span_us, enc / span_us, dec / span_us) for pid, (duty, enc, dec) in given.items()}
