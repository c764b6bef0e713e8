"""How long a large ledger hour takes to join, price and write, and a month of a smaller one to sum by team; and how
many writes ten thousand workloads cost the API server.

Prints one line a figure (`name value unit target ok|missed`), writes the same as JSON with `--out`, and exits 1 when a
target is missed. The baselines are of the same run: reading the same stored windows without computing anything, and
DuckDB reading the same month and summing one column. `--quick` takes a tenth of the hour and of
the month, and holds only ratios and memory against targets: a busy machine says nothing of seconds.
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

import duckdb
import numpy as np
import pyarrow as pa
from tests.perf.ledger.world import HOUR, MINUTES, make_facts, make_slices, store_windows
from tests.perf.ledger.writes import measure_writes

from gpuwaste.ledger.days import compact_days
from gpuwaste.ledger.hour import HourRules
from gpuwaste.ledger.inputs import InputStore
from gpuwaste.ledger.schema import LEDGER_SCHEMA
from gpuwaste.ledger.store import open_store
from gpuwaste.ledger.write import hour_file, read_ledger
from gpuwaste.report.summary import group_rows, summed_columns
from gpuwaste.runtime.books import Books
from gpuwaste.settings.teams import TeamRule, TeamRules

_LARGE, _SMALL = 1_000_000, 100_000
_LARGE_SECONDS, _SMALL_SECONDS, _MONTH_SECONDS = 10.0, 2.0, 2.0
_HOUR_RATIO, _MONTH_RATIO = 12.0, 40.0
_COMPACT_RATIO, _DAYS_RATIO = 0.5, 4.0
_GIBIBYTES = 1.5
_MONTH_HOURS = 720
_WORKLOADS = 10_000
_CLUSTER = "bench"
_RULES = HourRules(teams=TeamRules(rules=(TeamRule(source="namespaceLabel", key="team"),)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured value; `target` is the most it may be, None where it is a baseline."""

    name: str
    value: float
    unit: str
    target: float | None = None

    @property
    def met(self) -> bool:
        """Whether the target is kept."""
        return self.target is None or self.value <= self.target

    def __str__(self) -> str:
        target = "-" if self.target is None else f"{self.target:g}"
        return f"{self.name} {self.value:.3f} {self.unit} {target} {'ok' if self.met else 'missed'}"


def compute_hour(folder: str, slice_minutes: int) -> None:
    """What an operator does with an hour that ended: facts and prices stored, joined, written. Prints seconds."""
    facts = make_facts(make_slices(slice_minutes // MINUTES))
    store = open_store(folder)
    books = Books(inputs=InputStore.open(store, _CLUSTER), store=store, rules=_RULES)
    books.dirty.add(HOUR)
    before = time.perf_counter()
    books.update(facts, now=HOUR + timedelta(hours=2), through=None)
    print(time.perf_counter() - before)


def read_hour(folder: str) -> None:
    """The baseline: all that is stored of the hour, read and nothing more. Prints seconds."""
    before = time.perf_counter()
    inputs = InputStore(open_store(folder), _CLUSTER)
    for name in inputs.store.files("inputs"):
        if name.endswith(".parquet"):
            inputs.read_windows(name)
        else:
            inputs.read_facts(HOUR)
    print(time.perf_counter() - before)


def sum_month(folder: str) -> None:
    """A month by team, as `gpuwaste report --by team` sums it. Prints seconds."""
    before = time.perf_counter()
    end = HOUR + timedelta(hours=_MONTH_HOURS)
    columns = summed_columns("team")
    month = read_ledger(open_store(folder), start=HOUR, end=end, columns=columns, resource="gpu")
    groups = group_rows(month, "team")
    seconds = time.perf_counter() - before
    if not any(group.is_held and group.totals.cost() for group in groups):
        raise SystemExit("the month has no team with a cost")
    print(seconds)


def scan_month(folder: str) -> None:
    """The baseline: DuckDB's own reader over the same files, one column summed by team. Prints seconds."""
    before = time.perf_counter()
    query = f"select team, sum(owned) from read_parquet('{folder}/ledger/*/*/*/part-0.parquet') group by team"  # noqa: S608
    duckdb.connect().sql(query).fetchall()
    print(time.perf_counter() - before)


def child(task: str, folder: Path, *more: str) -> tuple[float, float]:
    """Seconds that a task says it took, in a process of its own, and the process's peak memory in GiB."""
    command = [sys.executable, "-m", "tests.perf.ledger.bench", "--task", task, str(folder), *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    said = process.stdout.read() if process.stdout else ""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{task} ended with {process.returncode}")
    return float(said.split()[-1]), usage.ru_maxrss * 1024 / 2**30


def measure_hour(name: str, folder: Path, slice_minutes: int, seconds: float | None) -> list[Figure]:
    """Store an hour of windows and compute its ledger."""
    slices = make_slices(slice_minutes // MINUTES)
    records = store_windows(InputStore(open_store(str(folder)), _CLUSTER), slices, np.random.default_rng(20261102))
    baseline, _ = child("read", folder)
    taken, memory = child("hour", folder, str(slice_minutes))
    return [
        Figure(name=f"{name}_records", value=records, unit="records"),
        Figure(name=f"{name}_read", value=baseline, unit="s"),
        Figure(name=name, value=taken, unit="s", target=seconds),
        Figure(name=f"{name}_ratio", value=taken / baseline, unit="of_read", target=_HOUR_RATIO),
        Figure(name=f"{name}_memory", value=memory, unit="GiB", target=_GIBIBYTES),
    ]


def write_month(folder: Path, hours: int) -> None:
    """The hour that was computed, again and again, as a month of the ledger."""
    store = open_store(str(folder))
    table = store.read_table(hour_file(_CLUSTER, HOUR))
    place = table.schema.get_field_index("hour")
    for number in range(1, hours):
        hour = HOUR + timedelta(hours=number)
        times = pa.array([hour] * table.num_rows, LEDGER_SCHEMA.field("hour").type)
        moved = table.set_column(place, table.schema.field("hour"), times)
        store.write_table(hour_file(_CLUSTER, hour), moved)


def measure_month(folder: Path, hours: int, seconds: float | None) -> list[Figure]:
    """Sum a month of the ledger by team."""
    write_month(folder, hours)
    baseline, _ = child("scan", folder)
    taken, memory = child("month", folder)
    return [
        Figure(name="ledger_month_hours", value=hours, unit="hours"),
        Figure(name="ledger_month_scan", value=baseline, unit="s"),
        Figure(name="ledger_month_by_team", value=taken, unit="s", target=seconds),
        Figure(name="ledger_month_ratio", value=taken / baseline, unit="of_scan", target=_MONTH_RATIO),
        Figure(name="ledger_month_memory", value=memory, unit="GiB", target=_GIBIBYTES),
        *measure_days(folder, taken, seconds),
    ]


def measure_days(folder: Path, before: float, seconds: float | None) -> list[Figure]:
    """Put the hours of the month's days together, and sum it once more; `before` are the seconds from hours."""
    store = open_store(str(folder))
    begun = time.perf_counter()
    done = list(compact_days(store, cluster=_CLUSTER, before=HOUR + timedelta(hours=_MONTH_HOURS + 24)))
    compacting = time.perf_counter() - begun
    taken, memory = child("month", folder)
    size = sum(day.bytes_after for day in done) / sum(day.bytes_before for day in done)
    return [
        Figure(name="ledger_compact_day", value=compacting / len(done), unit="s"),
        Figure(name="ledger_compact_size", value=size, unit="of_hours", target=_COMPACT_RATIO),
        Figure(name="ledger_days_by_team", value=taken, unit="s", target=seconds),
        Figure(name="ledger_days_ratio", value=taken / before, unit="of_hours", target=_DAYS_RATIO),
        Figure(name="ledger_days_memory", value=memory, unit="GiB", target=_GIBIBYTES),
    ]


def count_writes() -> list[Figure]:
    """Writes to the API server while ten thousand workloads are shown, once they are all there."""
    writes = measure_writes(_WORKLOADS, passes=3)
    return [
        Figure(name="object_writes_most", value=writes.most_in_a_second, unit="writes_in_a_second", target=20),
        Figure(name="object_writes_mean", value=writes.mean_a_second, unit="writes_a_second", target=20),
    ]


def main() -> int:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the small hour and a tenth of a month, at most 30 s")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--task", nargs="+", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.task:
        task, folder, *more = chosen.task
        {"hour": compute_hour, "read": read_hour, "month": sum_month, "scan": scan_month}[task](folder, *map(int, more))
        return 0
    with tempfile.TemporaryDirectory(prefix="gpuwaste-bench-") as folder:
        small = Path(folder) / "small"
        figures = measure_hour("ledger_hour_small", small, _SMALL, None if chosen.quick else _SMALL_SECONDS)
        if chosen.quick:
            figures += measure_month(small, _MONTH_HOURS // 10, None)
        else:
            figures += measure_month(small, _MONTH_HOURS, _MONTH_SECONDS)
        if not chosen.quick:
            figures += measure_hour("ledger_hour", Path(folder) / "large", _LARGE, _LARGE_SECONDS)
            figures += count_writes()
    for figure in figures:
        print(figure)
    if chosen.out:
        chosen.out.write_text(json.dumps([asdict(figure) | {"met": figure.met} for figure in figures], indent=2) + "\n")
    return 0 if all(figure.met for figure in figures) else 1


if __name__ == "__main__":
    raise SystemExit(main())
