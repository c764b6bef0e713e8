"""Reads the workloads and profiles of `gpuwaste mig --workloads`, and the layouts of `--current`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuwaste.model.errors import InputError
from gpuwaste.packing.csv_table import CsvTable
from gpuwaste.packing.mig_current import CurrentGpu
from gpuwaste.packing.option_values import Option, Workload

if TYPE_CHECKING:
    from pathlib import Path

    from gpuwaste.packing.instance import Floats

__all__ = ["read_current", "read_options", "read_workloads"]

_OPTION_COLUMNS = ("workload", "profile", "processes", "batch", "throughput", "latency_s", "memory_gib")
_WORKLOAD_COLUMNS = ("workload", "rate", "slo_s")


def read_workloads(path: Path) -> list[Workload]:
    """A CSV with `workload, rate, slo_s`; an empty slo_s is no objective.

    Raises:
        InputError: a column is missing, a name stands twice or is empty, or a number makes no sense.
    """
    table = CsvTable(path, _WORKLOAD_COLUMNS)
    rate, slo = table.numbers("rate"), table.measured("slo_s")
    found: list[Workload] = []
    seen: set[str] = set()
    for row, name in enumerate(table.text("workload").to_pylist()):
        if not name or name in seen:
            what = f"'{name}' stands twice" if name else "is empty"
            raise InputError(what, where=table.where(row, "workload"), fix="give every workload a name of its own")
        if rate[row] <= 0:
            raise InputError("is not above 0", where=table.where(row, "rate"), fix="write requests a second")
        seen.add(name)
        found.append(Workload(name=name, rate=float(rate[row]), latency_seconds=_number(slo, row)))
    if not found:
        raise InputError("has no workload", where=str(path))
    return found


def read_options(path: Path, *, known: set[str]) -> list[Option]:
    """A CSV with `workload, profile, processes, batch, throughput, latency_s, memory_gib`, one row an option.

    throughput and memory_gib are of one process. An empty field is not measured; empty processes is 1.

    Args:
        path: the file.
        known: names of workloads; a row of another is left out.

    Raises:
        InputError: a column is missing, or a number makes no sense.
    """
    table = CsvTable(path, _OPTION_COLUMNS)
    processes, batch = table.whole("processes", empty_as="1"), table.measured("batch")
    throughput, latency, memory = (table.measured(name) for name in ("throughput", "latency_s", "memory_gib"))
    if len(processes) and processes.min() < 1:
        raise InputError("is below 1", where=table.where(int(processes.argmin()), "processes"))
    names = table.text("workload").to_pylist()
    found: list[Option] = []
    for row, (name, profile) in enumerate(zip(names, table.text("profile").to_pylist(), strict=True)):
        if not name or not profile:
            raise InputError("is empty", where=table.where(row, "workload" if not name else "profile"))
        if name in known:
            size = _number(batch, row)
            found.append(
                Option(
                    workload=name,
                    profile=profile,
                    processes=int(processes[row]),
                    batch=None if size is None else int(size),
                    throughput=_number(throughput, row),
                    latency_seconds=_number(latency, row),
                    memory_gib=_number(memory, row),
                )
            )
    return found


def _number(values: Floats, row: int) -> float | None:
    return None if np.isnan(values[row]) else float(values[row])


def read_current(path: Path) -> list[CurrentGpu]:
    """JSON, a list of `{"gpu": name, "held": false, "instances": [{"profile": "1g.10gb", "start": 0}]}`.

    Raises:
        InputError: it is no such list.
    """
    try:
        body = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read ({error})", where=str(path)) from error
    except ValueError as error:
        raise InputError(f"is no JSON ({error})", where=str(path)) from error
    if not isinstance(body, list):
        raise InputError("is no list of GPUs", where=str(path), fix=_SHAPE)
    return [_gpu(item, f"{path}, GPU {number}") for number, item in enumerate(body, start=1)]


_SHAPE = 'write [{"gpu": "g0", "held": false, "instances": [{"profile": "1g.10gb", "start": 0}]}]'


def _gpu(item: Any, where: str) -> CurrentGpu:
    if not isinstance(item, dict) or not isinstance(item.get("gpu"), str) or not item["gpu"]:
        raise InputError("has no name in field gpu", where=where, fix=_SHAPE)
    held, instances = item.get("held", False), item.get("instances")
    if not isinstance(held, bool):
        raise InputError("is not true or false", where=f"{where}, field held", fix=_SHAPE)
    if not isinstance(instances, list):
        raise InputError("is no list", where=f"{where}, field instances", fix=_SHAPE)
    placed = []
    for one in instances:
        start = one.get("start") if isinstance(one, dict) else None
        if not isinstance(start, int) or isinstance(start, bool) or not isinstance(one.get("profile"), str):
            raise InputError("an instance has no profile and start", where=f"{where}, field instances", fix=_SHAPE)
        placed.append((one["profile"], start))
    return CurrentGpu(name=item["gpu"], instances=tuple(sorted(placed, key=lambda pair: pair[1])), held=held)
