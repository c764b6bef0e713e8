"""Inputs of the ledger as two files of JSON lines: what `export-inputs` writes and `replay` reads.

A fact holds in every hour that it overlaps. Where the stored inputs knew it in other hours than that (it was
learned late, or its end was not yet known), its line names them in `hours`, so that a replay computes every hour
from exactly what that hour was computed from. Each line names the `cluster` as well: agents need not know theirs.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from gpuwaste.ingest.decode import read_jsonl_lines
from gpuwaste.ingest.encode import write_jsonl_lines
from gpuwaste.ledger.inputs import HourInputs, deduplicate
from gpuwaste.model.errors import InputError
from gpuwaste.model.facts import Fact, merge_facts, parse_fact
from gpuwaste.model.units import HOUR, NS_PER_HOUR, format_time, from_unix_ns, hours_between, parse_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from gpuwaste.ledger.inputs import InputStore

__all__ = ["read_inputs", "write_facts", "write_windows"]


@dataclass(frozen=True, slots=True)
class _Stated:
    """A fact, in which hours it was known (None: all that it overlaps), and of which cluster (None: not said)."""

    fact: Fact
    hours: frozenset[datetime] | None
    cluster: str | None

    def holds(self, hour: datetime) -> bool:
        return self.fact.overlaps(hour, hour + HOUR) if self.hours is None else hour in self.hours


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"is no UTF-8 text (byte {error.start})", where=str(path)) from None


def _stated(line: str, where: str) -> _Stated:
    fact = parse_fact(line, where=where)
    raw = json.loads(line)
    named, cluster = raw.get("hours"), raw.get("cluster")
    if cluster is not None and not isinstance(cluster, str):
        raise InputError("field `cluster` must be text", where=where)
    if named is None:
        return _Stated(fact, None, cluster)
    try:
        hours = frozenset(parse_time(hour) for hour in named)
    except (TypeError, ValueError) as error:
        raise InputError(f"field `hours` must be a list of times: {error}", where=where) from None
    if any(hour.minute or hour.second or hour.microsecond for hour in hours):
        raise InputError("field `hours` must hold full hours", where=where)
    return _Stated(fact, hours, cluster)


def read_inputs(windows: Path, facts: Path, *, cluster: str | None) -> list[HourInputs]:
    """Read both files whole and check every line.

    Args:
        windows: `Record` or `Batch` messages as JSON lines.
        facts: lines as in `facts.jsonl`.
        cluster: whose they are; None takes the one that the facts name, else the windows, else `default`.

    Returns:
        One `HourInputs` an hour from the first to the last for which there is anything, oldest first.

    Raises:
        InputError: names file, line and field.
    """
    table = deduplicate(read_jsonl_lines(_lines(windows), where=str(windows)))
    stated = [
        _stated(line, f"{facts}, line {number}") for number, line in enumerate(_lines(facts), start=1) if line.strip()
    ]
    in_facts = {s.cluster for s in stated if s.cluster}
    name = cluster or _only(in_facts, facts) or _only(pc.unique(table["cluster"]).to_pylist(), windows) or "default"
    numbers = pc.floor(pc.divide(table["window_start_ns"], NS_PER_HOUR))
    present = sorted(pc.unique(numbers).to_pylist())
    hours: set[datetime] = set().union(*(s.hours for s in stated if s.hours is not None))
    if present:
        hours |= set(
            hours_between(from_unix_ns(present[0] * NS_PER_HOUR), from_unix_ns((present[-1] + 1) * NS_PER_HOUR))
        )
    if not hours:
        raise InputError("holds no usage window", where=str(windows), fix="there is no hour to compute")
    found = []
    for hour in sorted(hours):
        known = merge_facts([s.fact for s in stated if s.holds(hour)])
        part = table.filter(pc.equal(numbers, _hour_number(hour))).combine_chunks()
        if known or part.num_rows:
            found.append(HourInputs(cluster=name, hour=hour, windows=part, facts=tuple(known)))
    return found


def _hour_number(hour: datetime) -> int:
    return int((hour - datetime(1970, 1, 1, tzinfo=UTC)) // HOUR)


def _only(clusters: Iterable[str], path: Path) -> str | None:
    named = [name for name in sorted(clusters) if name]
    if len(named) > 1:
        raise InputError(
            f"field `cluster` names several clusters ({', '.join(named)})",
            where=str(path),
            fix="say with --cluster whose windows these are, or replay each by itself",
        )
    return named[0] if named else None


def write_windows(inputs: InputStore, hours: Sequence[datetime]) -> Iterator[str]:
    """All windows of some hours as JSON lines, oldest hour first."""
    for hour in hours:
        yield from write_jsonl_lines(inputs.load(hour).windows)


def write_facts(inputs: InputStore, hours: Sequence[datetime]) -> Iterator[str]:
    """All facts of some hours as JSON lines, each once."""
    known: dict[str, set[datetime]] = defaultdict(set)
    by_line: dict[str, Fact] = {}
    with_windows = []
    for hour in hours:
        loaded = inputs.load(hour)
        if loaded.windows.num_rows:
            with_windows.append(hour)
        for fact in loaded.facts:
            line = fact.to_json()
            by_line[line] = fact
            known[line].add(hour)
    implied = hours_between(with_windows[0], with_windows[-1] + HOUR) if with_windows else []
    for line in sorted(by_line):
        fact, mine = by_line[line], known[line]
        more: dict[str, Any] = {"cluster": inputs.cluster}
        if mine != {hour for hour in implied if fact.overlaps(hour, hour + HOUR)}:
            more["hours"] = [format_time(hour) for hour in sorted(mine)]
        yield f"{line[:-1]},{json.dumps(more, separators=(',', ':'), ensure_ascii=False)[1:]}\n"
