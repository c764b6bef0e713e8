"""Reads the series of `gpuwaste share`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.model.errors import InputError
from gpuwaste.packing.csv_table import CsvTable
from gpuwaste.packing.headroom import Series

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_series"]

_COLUMNS = ("t_s", "pod", "gpu_duty_pct", "gpu_mem_gib")
_MOST_PCT = 100.0
_MOST_CELLS = 500_000_000


def read_series(path: Path) -> Series:
    """Simultaneous samples of pods from a CSV with `t_s, pod, gpu_duty_pct, gpu_mem_gib`.

    The step is the usual distance of two samples of a pod; samples are put on that grid, and of two in one
    cell the higher counts; an empty field is no sample.

    Raises:
        InputError: a column is missing, or a value is no number, negative or above 100 %.
    """
    table = CsvTable(path, _COLUMNS)
    time, duty, memory = table.numbers("t_s"), table.measured("gpu_duty_pct"), table.measured("gpu_mem_gib")
    if np.fmax.reduce(duty, initial=0.0) > _MOST_PCT:
        row = int((duty > _MOST_PCT).argmax())
        raise InputError(f"{duty[row]:g} is more than 100 %", where=table.where(row, "gpu_duty_pct"))
    encoded = table.text("pod").dictionary_encode()
    names: list[str] = encoded.dictionary.to_pylist()
    pod = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    if "" in names:
        raise InputError("is empty", where=table.where(int((pod == names.index("")).argmax()), "pod"))
    order = np.lexsort((time, pod))
    steps = np.diff(time[order])[(np.diff(pod[order]) == 0) & (np.diff(time[order]) > 0)]
    step = float(np.median(steps)) if len(steps) else 1.0
    column = np.rint((time - time.min(initial=np.inf)) / step).astype(np.int64) if len(time) else pod
    times = int(column.max(initial=-1)) + 1
    if len(names) * times > _MOST_CELLS:
        raise InputError(f"{len(names)} pods at {times} times are too many", where=str(path), fix="use a longer step")
    grid = np.full(len(names) * times, -1.0, dtype=np.float32)
    np.fmax.at(grid, pod * times + column, duty.astype(np.float32))
    grid[grid < 0] = np.nan
    peak = np.zeros(len(names))
    np.fmax.at(peak, pod, memory)
    return Series(pods=names, duty_pct=grid.reshape(len(names), times), peak_memory_gib=peak, step_seconds=step)
