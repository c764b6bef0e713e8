"""NVML's GPU performance monitoring: averages between two samples of a device or of one MIG GPU instance.

Two samples must lie more than 100 ms apart (NVML header); closer readings give the earlier answer's None.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import pynvml

from gpuwaste_agent.telemetry import Activity

__all__ = ["GpmReader", "Measured", "activity_of"]

_PERCENT = 100.0
_APART_NS = 100_000_000
_MIB = 1 << 20
# GRAPHICS_UTIL is the time any kernel was resident; SM_UTIL counts the SMs it used.
_METRICS = (
    pynvml.NVML_GPM_METRIC_GRAPHICS_UTIL,
    pynvml.NVML_GPM_METRIC_SM_UTIL,
    pynvml.NVML_GPM_METRIC_ANY_TENSOR_UTIL,
    pynvml.NVML_GPM_METRIC_DRAM_BW_UTIL,
    pynvml.NVML_GPM_METRIC_PCIE_TX_PER_SEC,
    pynvml.NVML_GPM_METRIC_PCIE_RX_PER_SEC,
    pynvml.NVML_GPM_METRIC_NVLINK_TOTAL_TX_PER_SEC,
    pynvml.NVML_GPM_METRIC_NVLINK_TOTAL_RX_PER_SEC,
)


class Measured(NamedTuple):
    """Values in the order of the metrics asked for, and the seconds they cover."""

    values: list[float | None]
    seconds: float


def activity_of(measured: Measured) -> Activity:
    """Turn NVML's percentages and rates into an activity."""
    values, seconds = measured
    duty, sm, tensor, dram = (None if v is None else min(1.0, max(0.0, v / _PERCENT)) for v in values[:4])
    pcie, nvlink = (_bytes(values[index : index + 2], seconds) for index in (4, 6))
    return Activity(duty=duty, sm=sm, tensor=tensor, dram=dram, pcie_bytes=pcie, nvlink_bytes=nvlink)


class GpmReader:
    """Keeps the last sample of one parent."""

    def __init__(self, device: Any, gi_id: int | None) -> None:
        """Watch a device, or the GPU instance `gi_id` of it."""
        self._device = device
        self._gi_id = gi_id
        self._before = pynvml.nvmlGpmSampleAlloc()
        self._now = pynvml.nvmlGpmSampleAlloc()
        self._taken_ns: int | None = None

    def _sample(self) -> None:
        if self._gi_id is None:
            pynvml.nvmlGpmSampleGet(self._device, self._now)
        else:
            pynvml.nvmlGpmMigSampleGet(self._device, self._gi_id, self._now)

    def measure(self) -> Measured | None:
        """Averages since the last call; None on the first one and for calls less than 100 ms apart.

        Raises:
            pynvml.NVMLError: The driver refuses.
        """
        taken = time.monotonic_ns()
        if self._taken_ns is not None and taken - self._taken_ns <= _APART_NS:
            return None
        self._sample()
        before, self._before, self._now = self._before, self._now, self._before
        since, self._taken_ns = self._taken_ns, taken
        if since is None:
            return None
        query = pynvml.c_nvmlGpmMetricsGet_t()
        query.version = pynvml.NVML_GPM_METRICS_GET_VERSION
        query.numMetrics = len(_METRICS)
        query.sample1, query.sample2 = before, self._before
        for index, metric in enumerate(_METRICS):
            query.metrics[index].metricId = metric
        pynvml.nvmlGpmMetricsGet(query)
        values = [
            query.metrics[index].value if query.metrics[index].nvmlReturn == pynvml.NVML_SUCCESS else None
            for index in range(len(_METRICS))
        ]
        return Measured(values, (taken - since) / 1e9)

    def close(self) -> None:
        """Free both samples."""
        pynvml.nvmlGpmSampleFree(self._before)
        pynvml.nvmlGpmSampleFree(self._now)


def _bytes(mib_per_second: list[float | None], seconds: float) -> int | None:
    """Bytes over a time from rates in MiB/s; None where a direction is unmeasured."""
    total = 0.0
    for rate in mib_per_second:
        if rate is None:
            return None
        total += max(0.0, rate)
    return int(total * _MIB * seconds)
