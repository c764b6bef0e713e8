"""Rows of the ledger, from the files of hours and of days alike."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.ledger.catalog import find_hours, hours_in_day
from gpuwaste.ledger.schema import LEDGER_SCHEMA
from gpuwaste.ledger.unprovisioned import once_over_clusters
from gpuwaste.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from gpuwaste.ledger.catalog import HourPlace
    from gpuwaste.ledger.store import Store

__all__ = ["read_hours", "read_ledger"]

_PURCHASES: Final = ("hour", "cluster", "row_kind", "parent_id", "slice_id", "owned")
_READERS: Final = 8
"""Files of an object store read at once: it answers each after a while. A folder answers at once, and reading takes
the interpreter's lock most of the time."""
_AHEAD: Final = 4 * _READERS
_ATTEMPTS: Final = 3


def read_ledger(
    store: Store,
    *,
    start: datetime,
    end: datetime,
    clusters: Iterable[str] | None = None,
    columns: Sequence[str] | None = None,
    resource: str = "",
) -> pa.Table:
    """All rows of the hours in [start, end), of all clusters or those named, by cluster in the order of the key.

    A purchase that several of the clusters know is counted once.

    Args:
        store: where the ledger lies.
        start: the first hour.
        end: the first hour that is not read.
        clusters: whose rows; None for all.
        columns: which columns, their texts encoded as dictionaries; None for all, as LEDGER_SCHEMA has them.
        resource: rows of this resource alone, where `columns` has it; empty for all.

    Raises:
        InputError: a file has other columns than the ledger.
    """
    wanted = None if clusters is None else set(clusters)
    found = find_hours(store, start=start, end=end)
    places = [place for name, hours in found.items() if wanted is None or name in wanted for place in hours.values()]
    wanted_columns = list(columns or LEDGER_SCHEMA.names)
    if not places:
        return LEDGER_SCHEMA.empty_table().select(wanted_columns)
    several = len({place.cluster for place in places}) > 1
    read = () if columns is None else tuple(dict.fromkeys([*columns, *(_PURCHASES if several else ())]))
    tables = [rows for _, rows in read_hours(store, places, columns=read, resource=resource)]
    table = pa.concat_tables(tables)
    return once_over_clusters(table).select(wanted_columns) if several else table


def read_hours(
    store: Store,
    places: Iterable[HourPlace],
    *,
    columns: Sequence[str] = (),
    resource: str = "",
    encoded: bool = True,
) -> Iterator[tuple[HourPlace, pa.Table]]:
    """Each hour with its rows, in the order given; hours that follow each other in one file are read at once.

    An hour that is put into the file of its day while this reads is found there.

    Args:
        store: where the ledger lies.
        places: the hours.
        columns: which columns; none for all, as LEDGER_SCHEMA has them.
        resource: rows of this resource alone, where `columns` has it; empty for all.
        encoded: whether the texts of chosen columns come as dictionaries, in a quarter of the memory.

    Raises:
        InputError: a file has other columns than the ledger, or an hour was removed.
    """
    wanted = _Wanted(columns=tuple(columns), resource=resource, texts=_texts(columns) if encoded else ())
    runs = [tuple(run) for _, run in groupby(places, key=lambda place: place.name)]
    if store.is_local:
        for run in runs:
            yield from zip(run, _read_run(store, run, wanted), strict=True)
        return
    with ThreadPoolExecutor(_READERS, thread_name_prefix="ledger-read") as readers:
        for first in range(0, len(runs), _AHEAD):
            part = runs[first : first + _AHEAD]
            for run, tables in zip(part, readers.map(lambda run: _read_run(store, run, wanted), part), strict=True):
                yield from zip(run, tables, strict=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What is read of each hour; `texts` stay encoded."""

    columns: tuple[str, ...]
    resource: str
    texts: tuple[str, ...]


def _texts(columns: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name in columns if pa.types.is_string(LEDGER_SCHEMA.field(name).type))


def _read_run(store: Store, run: Sequence[HourPlace], wanted: _Wanted) -> list[pa.Table]:
    """The rows of each of some hours of one file."""
    for _ in range(_ATTEMPTS):
        try:
            return [_of_resource(rows, wanted.resource) for rows in _read_file(store, run, wanted)]
        except FileNotFoundError:  # put together with its day, or removed, since it was found
            moved = _found_again(store, run)
            if len({place.name for place in moved}) > 1:
                return [_read_run(store, [place], wanted)[0] for place in moved]
            run = moved
    raise InputError("changes while it is read", where=f"{store.root}/{run[0].name}", fix="try it again")


def _found_again(store: Store, run: Sequence[HourPlace]) -> list[HourPlace]:
    day = run[0].name.rpartition("/hour=")[0]
    places = find_hours(store, day).get(run[0].cluster, {})
    gone = [place for place in run if place.hour not in places]
    if gone:
        raise InputError("was removed while it was read", where=f"{store.root}/{gone[0].name}", fix="try it again")
    return [places[place.hour] for place in run]


def _read_file(store: Store, run: Sequence[HourPlace], wanted: _Wanted) -> list[pa.Table]:
    name = run[0].name
    columns = wanted.columns or None
    table, schema = store.read_columns(name, columns, dictionaries=wanted.texts, threads=run[0].of_day)
    if schema != LEDGER_SCHEMA:
        raise InputError("its columns are not those of the ledger", where=f"{store.root}/{name}")
    table = table.replace_schema_metadata(LEDGER_SCHEMA.metadata)
    if not run[0].of_day:
        return [table]
    held = {one.hour: one for one in hours_in_day(schema.metadata, where=f"{store.root}/{name}")}
    if any(place.hour not in held for place in run):
        raise FileNotFoundError(name)
    return [table.slice(held[place.hour].first, held[place.hour].rows) for place in run]


def _of_resource(table: pa.Table, resource: str) -> pa.Table:
    """Dropped file by file: the CPU and memory of nodes have more rows than their GPUs."""
    if not resource or "resource" not in table.schema.names:
        return table
    return table.filter(pc.equal(table["resource"], resource)).combine_chunks()
