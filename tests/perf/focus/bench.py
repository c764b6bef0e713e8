"""How long a million split rows take to export and to verify, and in how much memory.

Prints one line a figure (`name value unit target ok|missed`), writes the same as JSON with `--out`, and exits 1 when a
target is missed. `--quick` divides an eighth of the rows and holds the processor time of both, less the start of the
program, against that of reading and writing the same file with pyarrow alone, in the same run. Without it a longer span
of the same cluster follows (24 days, or `--days 365` for a year), whose peak memory is held against that of the million
rows.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tests.unit.focus.clusters import random_ledger
from tests.unit.focus.ledgers import START

from gpuwaste.ledger.store import Store, hour_folder, open_store

_ROWS = 1_000_000
_SECONDS = 5.0
_GIGABYTES = 1.5
_NODES, _GPUS, _HOLDERS, _NAMESPACES = 125, 8, 5, 1000
_DAYS = 8
_EXPORT_WORK, _VERIFY_WORK = 5.0, 5.0
_LONG_DAYS = 24
_GROWTH = 1.15
"""The most that the memory of a longer span may be, as a multiple of a shorter one's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured value; `target` is the most (or, for rows, the least) it may be; None where it is a baseline."""

    name: str
    value: float
    unit: str
    target: float | None
    met: bool

    def __str__(self) -> str:
        target = "-" if self.target is None else f"{self.target:g}"
        return f"{self.name} {self.value:.3f} {self.unit} {target} {'ok' if self.met else 'missed'}"


def write_ledger(store: Store, days: range) -> None:
    """A cluster of a thousand GPUs, each shared by five workloads of a thousand namespaces, for some days of a year.

    Eight different days follow each other again and again.
    """
    kinds: dict[int, pa.Table] = {}
    for day in days:
        if day % _DAYS not in kinds:
            kinds[day % _DAYS] = random_ledger(
                np.random.default_rng(20261101 + day % _DAYS),
                nodes=_NODES,
                gpus=_GPUS,
                hours=24,
                holders=_HOLDERS,
                namespaces=_NAMESPACES,
                prices=("2.5", "3.123456789012"),
            ).sort_by("hour")
        table = kinds[day % _DAYS]
        shifted = pc.add(table["hour"], pa.scalar(timedelta(days=day), pa.duration("us")))
        table = table.set_column(0, table.schema.field(0), shifted)
        for hour in pc.unique(table["hour"]):
            name = f"{hour_folder('ledger', 'c1', hour.as_py())}/part-0.parquet"
            store.write_table(name, table.filter(pc.equal(table["hour"], hour)))


def run(*arguments: str) -> tuple[float, float, float]:
    """Seconds, peak gigabytes and processor seconds of one call of the command, the start of Python included."""
    before = time.perf_counter()
    child = subprocess.Popen([Path(sys.executable).with_name("gpuwaste"), *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - before
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"gpuwaste {' '.join(arguments)} ended with {child.returncode}")
    return seconds, usage.ru_maxrss * 1024 / 1e9, usage.ru_utime + usage.ru_stime


def at_most(name: str, value: float, unit: str, target: float) -> Figure:
    """A figure that must not exceed its target."""
    return Figure(name=name, value=value, unit=unit, target=target, met=value <= target)


def export_and_verify(folder: Path, days: int) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Seconds, gigabytes and processor seconds of the export of the first days, and of its verification."""
    last = START + timedelta(days=days - 1)
    out = folder / f"focus-{days}.parquet"
    span = ["--ledger", str(folder / "data"), "--from", f"{START:%Y-%m-%d}", "--to", f"{last:%Y-%m-%d}"]
    return (
        run("focus", "export", *span, "--by", "workload", "--out", str(out)),
        run("focus", "verify", str(out)),
    )


def rewriting(path: Path) -> float:
    """Processor seconds of reading a file and writing it again with pyarrow, the least of three times."""
    found = []
    for _ in range(3):
        before = time.process_time()
        pq.write_table(pq.read_table(path), path.with_suffix(".again"), compression="zstd")
        found.append(time.process_time() - before)
    return min(found)


def measure(folder: Path, *, quick: bool, long_days: int) -> list[Figure]:
    """Write a ledger, export it and verify what came out."""
    days = 1 if quick else _DAYS
    store = open_store(str(folder / "data"))
    write_ledger(store, range(days))
    start, _, start_work = run("focus", "export", "--help")
    (export_seconds, export_memory, export_work), (verify_seconds, verify_memory, verify_work) = export_and_verify(
        folder, days
    )
    out = folder / f"focus-{days}.parquet"
    rows = pq.read_metadata(out).num_rows
    wanted = _ROWS * days // _DAYS
    figures = [
        Figure(name="focus_start", value=start, unit="s", target=None, met=True),
        Figure(name="focus_rows", value=rows, unit="rows", target=wanted, met=rows >= wanted),
        at_most("focus_export_memory", export_memory, "GB", _GIGABYTES),
        at_most("focus_verify_memory", verify_memory, "GB", _GIGABYTES),
        Figure(name="focus_file", value=out.stat().st_size / 1e6, unit="MB", target=None, met=True),
    ]
    if quick:
        baseline = rewriting(out)
        return [
            *figures,
            Figure(name="focus_rewriting", value=baseline, unit="s", target=None, met=True),
            at_most("focus_export_work", (export_work - start_work) / baseline, "x", _EXPORT_WORK),
            at_most("focus_verify_work", (verify_work - start_work) / baseline, "x", _VERIFY_WORK),
        ]
    figures += [
        at_most("focus_export", export_seconds, "s", _SECONDS),
        at_most("focus_verify", verify_seconds, "s", _SECONDS),
    ]
    write_ledger(store, range(days, long_days))
    (_, long_export, _), (_, long_verify, _) = export_and_verify(folder, long_days)
    long_rows = pq.read_metadata(folder / f"focus-{long_days}.parquet").num_rows
    return [
        *figures,
        Figure(name="focus_long_days", value=long_days, unit="days", target=None, met=True),
        Figure(name="focus_long_rows", value=long_rows, unit="rows", target=None, met=True),
        at_most("focus_long_export_memory", long_export, "GB", _GROWTH * export_memory),
        at_most("focus_long_verify_memory", long_verify, "GB", _GROWTH * verify_memory),
    ]


def main() -> int:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="an eighth of the rows, at most 30 s")
    parser.add_argument("--days", type=int, default=_LONG_DAYS, help="how long the longer span is")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gpuwaste-bench-") as folder:
        figures = measure(Path(folder), quick=chosen.quick, long_days=chosen.days)
    for figure in figures:
        print(figure)
    if chosen.out:
        chosen.out.write_text(json.dumps([asdict(figure) for figure in figures], indent=2) + "\n")
    return 0 if all(figure.met for figure in figures) else 1


if __name__ == "__main__":
    raise SystemExit(main())
