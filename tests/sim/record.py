"""Records what a real driver answers, and how long each answer takes, while known loads run.

    python -m tests.sim.record --out h100.jsonl --seconds 120 --load '10:60:./busy --duty 0.5' --load '40:60:./busy'

Every second each reading function of NVML is called for every GPU and MIG device, and one JSON line a call is
written: what was asked, when, for how many nanoseconds, and the answer or NVML's error number. Loads are commands with
the second at which they start and how many they run; their beginnings and ends are lines too. Nothing on the GPU is
changed. `docs/simulation.md` says which answers of the simulated driver rest on a recording.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import pynvml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["FUNCTIONS", "Load", "Recorder", "main", "plain"]

_CLOCKS = (pynvml.NVML_CLOCK_GRAPHICS, pynvml.NVML_CLOCK_SM, pynvml.NVML_CLOCK_MEM, pynvml.NVML_CLOCK_VIDEO)
_SAMPLES = (
    pynvml.NVML_TOTAL_POWER_SAMPLES,
    pynvml.NVML_GPU_UTILIZATION_SAMPLES,
    pynvml.NVML_MEMORY_UTILIZATION_SAMPLES,
    pynvml.NVML_PROCESSOR_CLK_SAMPLES,
)
_FIELDS = (
    pynvml.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION,
    pynvml.NVML_FI_DEV_POWER_AVERAGE,
    pynvml.NVML_FI_DEV_POWER_INSTANT,
    pynvml.NVML_FI_DEV_MEMORY_TEMP,
    pynvml.NVML_FI_DEV_ECC_DBE_VOL_TOTAL,
    pynvml.NVML_FI_DEV_REMAPPED_UNC,
)
_THRESHOLDS = (pynvml.NVML_TEMPERATURE_THRESHOLD_SHUTDOWN, pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN)
# Up to here every metric is a part of time or of a bandwidth; those after are for one link or engine each.
_GPM_METRICS = (*range(1, 14), 20, 21, 60, 61)

# Functions of a GPU or MIG device, with the arguments that follow the handle.
FUNCTIONS: tuple[tuple[str, tuple[Any, ...]], ...] = (
    *((name, ()) for name in (
        "nvmlDeviceGetName", "nvmlDeviceGetUUID", "nvmlDeviceGetIndex", "nvmlDeviceGetMinorNumber",
        "nvmlDeviceGetPciInfo", "nvmlDeviceGetBrand", "nvmlDeviceGetArchitecture",
        "nvmlDeviceGetCudaComputeCapability", "nvmlDeviceGetPersistenceMode", "nvmlDeviceGetVirtualizationMode",
        "nvmlDeviceGetComputeMode", "nvmlDeviceGetMaxPcieLinkGeneration", "nvmlDeviceGetCurrPcieLinkGeneration",
        "nvmlDeviceGetMaxPcieLinkWidth", "nvmlDeviceGetCurrPcieLinkWidth", "nvmlDeviceGetMemoryInfo",
        "nvmlDeviceGetBAR1MemoryInfo", "nvmlDeviceGetUtilizationRates", "nvmlDeviceGetEncoderUtilization",
        "nvmlDeviceGetDecoderUtilization", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetPowerManagementLimit",
        "nvmlDeviceGetPowerManagementDefaultLimit", "nvmlDeviceGetEnforcedPowerLimit",
        "nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetPerformanceState",
        "nvmlDeviceGetCurrentClocksThrottleReasons", "nvmlDeviceGetSupportedClocksThrottleReasons",
        "nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses",
        "nvmlDeviceGetMPSComputeRunningProcesses", "nvmlDeviceGetAccountingMode", "nvmlDeviceGetAccountingPids",
        "nvmlDeviceGetAccountingBufferSize", "nvmlDeviceGetSupportedEventTypes", "nvmlDeviceGetMigMode",
        "nvmlDeviceGetMaxMigDeviceCount", "nvmlDeviceIsMigDeviceHandle", "nvmlDeviceGetGpuInstanceId",
        "nvmlDeviceGetComputeInstanceId", "nvmlDeviceGetAttributes", "nvmlGpmQueryDeviceSupport",
    )),
    ("nvmlDeviceGetMemoryInfo", (pynvml.nvmlMemory_v2,)),
    ("nvmlDeviceGetTemperature", (pynvml.NVML_TEMPERATURE_GPU,)),
    *(("nvmlDeviceGetTemperatureThreshold", (which,)) for which in _THRESHOLDS),
    *(("nvmlDeviceGetClockInfo", (clock,)) for clock in _CLOCKS),
    *(("nvmlDeviceGetMaxClockInfo", (clock,)) for clock in _CLOCKS),
    ("nvmlDeviceGetFieldValues", (_FIELDS,)),
    *(("nvmlDeviceGetGpuInstanceProfileInfo", (profile,)) for profile in range(pynvml.NVML_GPU_INSTANCE_PROFILE_COUNT)),
)  # fmt: skip


def plain(value: Any) -> Any:
    """What JSON can carry of an answer of pynvml."""
    found: Any = repr(value)
    if isinstance(value, str | int | float | None):
        found = value
    elif isinstance(value, bytes):
        found = value.decode(errors="replace")
    elif isinstance(value, pynvml.c_nvmlFieldValue_t):
        kinds = {0: "dVal", 1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal", 5: "siVal"}
        number = getattr(value.value, kinds.get(value.valueType, "ullVal")) if value.nvmlReturn == 0 else None
        found = {"field": value.fieldId, "error": value.nvmlReturn, "value": number, "timestamp": value.timestamp}
    elif isinstance(value, ctypes.Union):
        found = getattr(value, "ullVal", None)
    elif isinstance(value, ctypes.Structure):
        found = {name: plain(getattr(value, name)) for name, *_ in value._fields_}
    elif isinstance(value, ctypes.Array | list | tuple):
        found = [plain(item) for item in value]
    elif hasattr(value, "value"):  # a plain C number
        found = plain(value.value)
    elif hasattr(value, "__dict__") and vars(value):
        found = {name: plain(item) for name, item in vars(value).items()}
    return found


@dataclass(slots=True)
class Load:
    """A command that puts a known load on a GPU, and when."""

    start_s: float
    run_s: float
    command: str
    child: subprocess.Popen[bytes] | None = None
    over: bool = False


@dataclass(slots=True)
class _Target:
    """A GPU or MIG device, with what was seen of it last."""

    name: str
    handle: Any
    processes_since_us: int = 0
    samples_since_us: dict[int, int] = field(default_factory=dict)
    gpm: Any = None


class Recorder:
    """Calls NVML and writes a line for every call.

    Args:
        out: where the lines go.
        clock_ns: a clock that never steps.
    """

    def __init__(self, out: TextIO, clock_ns: Callable[[], int]) -> None:
        self._out = out
        self._clock_ns = clock_ns
        self._begun = clock_ns()

    def seconds(self) -> float:
        """Seconds since the recording began."""
        return (self._clock_ns() - self._begun) / 1e9

    def note(self, **values: Any) -> None:
        """Write a line."""
        self._out.write(json.dumps({"at_s": round(self.seconds(), 6), **values}) + "\n")

    def call(self, target: str, name: str, call: Callable[[], Any], *args: Any) -> Any:
        """Call, and write what was answered; returns the answer, None for an error."""
        begun = self._clock_ns()
        try:
            value, error = call(), None
        except pynvml.NVMLError as refused:
            value, error = None, refused.value
        took = self._clock_ns() - begun
        answer = {"error": error} if error is not None else {"value": plain(value)}
        self.note(target=target, call=name, args=plain(args), took_ns=took, **answer)
        return value

    def targets(self) -> Iterator[_Target]:
        """Every GPU, and every MIG device after its GPU."""
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            yield _Target(name=f"gpu{index}", handle=handle)
            for number in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
                try:
                    mig = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
                except pynvml.NVMLError:
                    break
                yield _Target(name=f"gpu{index}/mig{number}", handle=mig)

    def system(self) -> None:
        """Versions."""
        for name in ("nvmlSystemGetDriverVersion", "nvmlSystemGetNVMLVersion", "nvmlSystemGetCudaDriverVersion"):
            self.call("system", name, getattr(pynvml, name))

    def round(self, target: _Target) -> None:
        """Ask one GPU or MIG device everything."""
        for name, args in FUNCTIONS:
            self.call(target.name, name, partial(getattr(pynvml, name), target.handle, *args), *args)
        since = target.processes_since_us
        ask = partial(pynvml.nvmlDeviceGetProcessUtilization, target.handle, since)
        for sample in self.call(target.name, "nvmlDeviceGetProcessUtilization", ask, since) or ():
            target.processes_since_us = max(target.processes_since_us, sample.timeStamp)
        for kind in _SAMPLES:
            since = target.samples_since_us.get(kind, 0)
            ask = partial(pynvml.nvmlDeviceGetSamples, target.handle, kind, since)
            answer = self.call(target.name, "nvmlDeviceGetSamples", ask, kind, since)
            if answer is not None and answer[1]:
                target.samples_since_us[kind] = max(sample.timeStamp for sample in answer[1])
        self._gpm(target)

    def _gpm(self, target: _Target) -> None:
        sample = pynvml.nvmlGpmSampleAlloc()
        taken = self.call(target.name, "nvmlGpmSampleGet", partial(pynvml.nvmlGpmSampleGet, target.handle, sample))
        if taken is None:
            pynvml.nvmlGpmSampleFree(sample)
            return
        before, target.gpm = target.gpm, sample
        if before is None:
            return
        query = pynvml.c_nvmlGpmMetricsGet_t()
        query.version, query.numMetrics = pynvml.NVML_GPM_METRICS_GET_VERSION, len(_GPM_METRICS)
        query.sample1, query.sample2 = before, sample
        for index, metric in enumerate(_GPM_METRICS):
            query.metrics[index].metricId = metric

        def metrics() -> list[Any]:
            pynvml.nvmlGpmMetricsGet(query)
            found = query.metrics[: len(_GPM_METRICS)]
            return [[metric.metricId, metric.nvmlReturn, metric.value] for metric in found]

        self.call(target.name, "nvmlGpmMetricsGet", metrics)
        pynvml.nvmlGpmSampleFree(before)

    def loads(self, loads: Sequence[Load]) -> None:
        """Start those whose time has come, and end those whose time is over."""
        now = self.seconds()
        for load in loads:
            if load.child is None and now >= load.start_s:
                load.child = subprocess.Popen(shlex.split(load.command), stdout=subprocess.DEVNULL)
                self.note(load=load.command, event="begins", pid=load.child.pid)
            elif load.child is not None and not load.over:
                ended = load.child.poll()
                if ended is None and now < load.start_s + load.run_s:
                    continue
                if ended is None:
                    load.child.terminate()
                load.over = True
                self.note(load=load.command, event="ends", pid=load.child.pid, status=load.child.wait())


def _load(text: str) -> Load:
    start, _, rest = text.partition(":")
    run, _, command = rest.partition(":")
    try:
        return Load(start_s=float(start), run_s=float(run), command=command)
    except ValueError:
        raise argparse.ArgumentTypeError(f"`{text}` is no load: write START_SECOND:SECONDS:COMMAND") from None


def _record(recorder: Recorder, seconds: float, interval: float, loads: Sequence[Load]) -> None:
    recorder.system()
    targets = list(recorder.targets())
    due = 0.0
    try:
        while recorder.seconds() < seconds:
            recorder.loads(loads)
            for target in targets:
                recorder.round(target)
            due += interval
            time.sleep(max(0.0, due - recorder.seconds()))
    finally:
        for load in loads:
            load.run_s = 0.0
        recorder.loads([load for load in loads if load.child is not None])
        for target in targets:
            if target.gpm is not None:
                pynvml.nvmlGpmSampleFree(target.gpm)


def main(argv: Sequence[str]) -> int:
    """Record; returns 0, or 3 where there is no driver."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim.record", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="file for the lines; renamed into place at the end")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between rounds")
    parser.add_argument("--load", type=_load, action="append", default=[], metavar="START:SECONDS:COMMAND")
    args = parser.parse_args(argv)
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        sys.stderr.write(f"NVML cannot be used ({error}): run this where a GPU's driver is loaded\n")
        return 3
    draft = args.out.with_name(f".{args.out.name}.part")
    try:
        with draft.open("w", encoding="utf-8") as out:
            _record(Recorder(out, time.monotonic_ns), args.seconds, args.interval, args.load)
        draft.rename(args.out)
    finally:
        draft.unlink(missing_ok=True)
        pynvml.nvmlShutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
