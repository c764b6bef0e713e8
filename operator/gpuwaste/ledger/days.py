"""Hours of closed days, put together into one file a day: a tenth of the bytes, and the same rows.

See docs/design for why it is safe to be killed, and what readers see in between.
"""

from __future__ import annotations

import io
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from gpuwaste.ledger.catalog import HourPlace, day_file, find_hours, hour_file, hour_footers, place_of, write_day_footer
from gpuwaste.ledger.read import read_hours
from gpuwaste.ledger.schema import LEDGER_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from gpuwaste.ledger.store import Store

__all__ = ["CompactedDay", "compact_days", "put_hours", "remove_days"]

_GROUP_ROWS: Final = 131_072
"""A row group takes whole hours up to so many rows: the more rows, the smaller the file; and all lie in memory once."""
_DAY: Final = timedelta(days=1)
_SCHEMA_KEY: Final = "gpuwaste_schema"


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactedDay:
    """A day of a cluster whose hours were put together.

    Attributes:
        cluster: the cluster.
        day: the day.
        hours: how many hours the day's file holds now.
        files: how many files held them before.
        bytes_before: size of those.
        bytes_after: size of the day's file.
    """

    cluster: str
    day: date
    hours: int
    files: int
    bytes_before: int
    bytes_after: int


def put_hours(store: Store, cluster: str, rows: Mapping[datetime, pa.Table]) -> None:
    """Store the rows of hours in place of those that are stored: each in its own file, or all in that of their day.

    Args:
        store: where the ledger lies.
        cluster: the cluster.
        rows: by hour, hours of one day; rows of LEDGER_SCHEMA, whose metadata becomes the footer.
    """
    there = {hour: place_of(store, cluster, hour) for hour in rows}
    of_day = {hour: found[0] for hour, found in there.items() if found is not None and found[0].of_day}
    for hour, table in rows.items():
        if hour not in of_day:
            store.write_table(hour_file(cluster, hour), table)
    if of_day:
        name = next(iter(of_day.values())).name
        held = {place.hour: place for place in _held_by(store, cluster, name)} | of_day
        given = {hour: rows[hour] for hour in of_day}
        store.write(name, _day_bytes(store, [held[hour] for hour in sorted(held)], given))


def _held_by(store: Store, cluster: str, name: str) -> list[HourPlace]:
    """The hours that count from the file of a day."""
    day = str(PurePosixPath(name).parent.parent)
    return [place for place in find_hours(store, day).get(cluster, {}).values() if place.of_day]


def compact_days(store: Store, *, cluster: str, before: datetime) -> Iterator[CompactedDay]:
    """Put the hours of each day that ended by a time into the day's file, and remove their own; oldest day first.

    Nobody else may write the ledger of the cluster meanwhile; reading is fine.

    Args:
        store: where the ledger lies.
        cluster: the cluster.
        before: the time.

    Yields:
        Each day that is done.

    Raises:
        InputError: a file is no ledger; its day stays as it is.
        UnreachableError: the store did not answer. What was done stands, and another run goes on.
    """
    days: dict[date, list[HourPlace]] = defaultdict(list)
    for place in find_hours(store, end=before).get(cluster, {}).values():
        days[place.hour.date()].append(place)
    for day, places in sorted(days.items()):
        own = [place for place in places if not place.of_day]
        if own and len(places) > 1 and datetime(day.year, day.month, day.day, tzinfo=UTC) + _DAY <= before:
            yield _compact(store, day, places, own)


def _compact(store: Store, day: date, places: Sequence[HourPlace], own: Sequence[HourPlace]) -> CompactedDay:
    folder = str(PurePosixPath(own[0].name).parent.parent)
    sizes = store.sizes(folder)
    merged = {place.hour: footer for place, footer in hour_footers(store, own)}
    name = day_file(own[0].cluster, own[0].hour)
    data = _day_bytes(store, places, {})
    store.write(name, data)  # from here on each hour stands in two files, and counts from its own
    for place in own:
        found = place_of(store, place.cluster, place.hour)
        if found is not None and not found[0].of_day and found[1] == merged[place.hour]:
            store.delete_folder(str(PurePosixPath(place.name).parent))
    return CompactedDay(
        cluster=own[0].cluster,
        day=day,
        hours=len(places),
        files=len({place.name for place in places}),
        bytes_before=sum(sizes.get(one, 0) for one in {place.name for place in places}),
        bytes_after=len(data),
    )


def _day_bytes(store: Store, places: Sequence[HourPlace], given: Mapping[datetime, pa.Table]) -> bytes:
    """A day's file with these hours; the same hours always give the same bytes.

    Args:
        store: where the hours lie.
        places: the hours, in order.
        given: rows of some of them, with their footers, instead of those that are stored.
    """
    footers = {place.hour: footer for place, footer in hour_footers(store, places) if place.hour not in given}
    hours: list[tuple[datetime, int, Mapping[str, str]]] = []
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, LEDGER_SCHEMA, compression="zstd", version="2.6", store_schema=True) as writer:
        group: list[pa.Table] = []
        for hour, rows in _rows_by_hour(store, places, given):
            if group and sum(map(len, group)) + len(rows) > _GROUP_ROWS:
                writer.write_table(pa.concat_tables(group), row_group_size=_GROUP_ROWS)
                group.clear()
            footer = _text(rows.schema.metadata) if hour in given else footers[hour]
            hours.append((hour, len(rows), {key: text for key, text in footer.items() if key != _SCHEMA_KEY}))
            group.append(rows.cast(LEDGER_SCHEMA))
        writer.write_table(pa.concat_tables(group), row_group_size=max(_GROUP_ROWS, sum(map(len, group))))
        writer.add_key_value_metadata(write_day_footer(hours))
    return sink.getvalue()


def _rows_by_hour(
    store: Store, places: Sequence[HourPlace], given: Mapping[datetime, pa.Table]
) -> Iterator[tuple[datetime, pa.Table]]:
    """The rows of each hour; texts stay encoded, so that a day lies in memory in a quarter of its size."""
    stored = read_hours(store, [one for one in places if one.hour not in given], columns=LEDGER_SCHEMA.names)
    for place in places:
        yield place.hour, given[place.hour] if place.hour in given else next(stored)[1]


def _text(metadata: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    return {key.decode(): value.decode() for key, value in (metadata or {}).items()}


def remove_days(store: Store, *, cluster: str, before: datetime, keep: Iterable[datetime]) -> list[date]:
    """Remove the days of a ledger that ended by a time, oldest first.

    Args:
        store: where the ledger lies.
        cluster: the cluster.
        before: the time.
        keep: hours whose days stay.

    Returns:
        The days.

    Raises:
        UnreachableError: the store did not answer.
    """
    kept = {hour.date() for hour in keep}
    found = find_hours(store, end=before).get(cluster, {})
    folders: dict[date, set[str]] = defaultdict(set)
    for place in found.values():
        folders[place.hour.date()].add(str(PurePosixPath(place.name).parent.parent))
    removed = []
    for day, of_day in sorted(folders.items()):
        if day in kept or datetime(day.year, day.month, day.day, tzinfo=UTC) + _DAY > before:
            continue
        for folder in sorted(of_day):
            store.delete_folder(folder)
        removed.append(day)
    return removed
