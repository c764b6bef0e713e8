"""Which file holds an hour of the ledger: its own, or that of its day, into which closed hours are put together.

An hour's own file counts before its day's. So while hours are put together, and after a kill in between, each hour
counts once: from its own file until that is removed, and from the file of its day afterwards.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from gpuwaste.ledger.store import hour_folder, parse_hour_folder
from gpuwaste.model.errors import InputError
from gpuwaste.model.units import format_time, parse_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from gpuwaste.ledger.store import Store

__all__ = [
    "DAY_HOURS_KEY",
    "HourInDay",
    "HourPlace",
    "day_file",
    "find_hours",
    "hour_file",
    "hour_footers",
    "hours_in_day",
    "ledger_hours",
    "place_of",
    "write_day_footer",
]

DAY_HOURS_KEY: Final = b"gpuwaste_hours"
"""In the footer of a day's file: its hours in order, each with its rows and with what its own footer said."""
_FILE: Final = "part-0.parquet"
_DAY_FOLDER: Final = "hour=all"
_DAY: Final = timedelta(days=1)
_READERS: Final = 8
_BEGIN: Final = datetime(1970, 1, 1, tzinfo=UTC)
_END: Final = datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class HourPlace:
    """Where an hour of the ledger is: a file of its own, or its day's."""

    cluster: str
    hour: datetime
    name: str
    of_day: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HourInDay:
    """Which rows of a day's file are an hour, from `first` on, and what the hour's own footer said."""

    hour: datetime
    first: int
    rows: int
    footer: Mapping[str, str]


def hour_file(cluster: str, hour: datetime) -> str:
    """The file of an hour of its own, relative to the store's root."""
    return f"{hour_folder('ledger', cluster, hour)}/{_FILE}"


def day_file(cluster: str, hour: datetime) -> str:
    """The file of the day of an hour, relative to the store's root."""
    return f"{PurePosixPath(hour_folder('ledger', cluster, hour)).parent}/{_DAY_FOLDER}/{_FILE}"


def find_hours(
    store: Store, folder: str = "ledger", *, start: datetime = _BEGIN, end: datetime = _END
) -> dict[str, dict[datetime, HourPlace]]:
    """Every cluster of a ledger with the places of its hours, oldest first.

    Args:
        store: where the ledger lies.
        folder: where in it; below another than `ledger`, inputs are left out.
        start: the first hour that is wanted.
        end: the first hour that is not.

    Raises:
        InputError: the file of a day does not say which hours it holds.
        UnreachableError: the store did not answer.
    """
    own: dict[str, dict[datetime, HourPlace]] = defaultdict(dict)
    days: list[tuple[str, datetime, str]] = []
    for name in store.files(folder):
        if not name.endswith(".parquet") or "inputs" in PurePosixPath(name).parts:
            continue
        place, day = parse_hour_folder(name), _parse_day_folder(name)
        if place is not None and start <= place[1] < end:
            own[place[0]][place[1]] = HourPlace(cluster=place[0], hour=place[1], name=name, of_day=False)
        if day is not None and day[1] < end and start < day[1] + _DAY:
            days.append((*day, name))
    for (cluster, _, name), held in zip(days, _footers(store, [name for _, _, name in days]), strict=True):
        for one in held:
            if start <= one.hour < end:
                place_in_day = HourPlace(cluster=cluster, hour=one.hour, name=name, of_day=True)
                own[cluster].setdefault(one.hour, place_in_day)
    return {cluster: dict(sorted(places.items())) for cluster, places in sorted(own.items())}


def ledger_hours(store: Store) -> dict[str, list[datetime]]:
    """Every cluster of the ledger with its hours, oldest first."""
    return {cluster: list(places) for cluster, places in find_hours(store).items()}


def place_of(store: Store, cluster: str, hour: datetime) -> tuple[HourPlace, Mapping[str, str]] | None:
    """Where an hour is and what its footer says, or None where the ledger does not have it."""
    name = hour_file(cluster, hour)
    try:
        footer = _own_footer(store, name)
        return HourPlace(cluster=cluster, hour=hour, name=name, of_day=False), footer
    except FileNotFoundError:
        name = day_file(cluster, hour)
    try:
        held = {one.hour: one.footer for one in _footer_of(store, name)}
    except FileNotFoundError:
        return None
    if hour not in held:
        return None
    return HourPlace(cluster=cluster, hour=hour, name=name, of_day=True), held[hour]


def hour_footers(store: Store, places: Iterable[HourPlace]) -> Iterator[tuple[HourPlace, Mapping[str, str]]]:
    """What the footer of each hour says; no rows are read.

    Raises:
        InputError: a file is no ledger.
    """
    days: dict[str, dict[datetime, Mapping[str, str]]] = {}
    for place in places:
        if not place.of_day:
            try:
                yield place, _own_footer(store, place.name)
                continue
            except FileNotFoundError:  # put into its day's file since it was found
                days.pop(place.name, None)
        name = place.name if place.of_day else f"{PurePosixPath(place.name).parent.parent}/{_DAY_FOLDER}/{_FILE}"
        if name not in days:
            days = {name: {one.hour: one.footer for one in _footer_of(store, name)}}
        yield place, days[name].get(place.hour, {})


def _own_footer(store: Store, name: str) -> dict[str, str]:
    found = store.table_metadata(name)
    return {key.decode(): value.decode() for key, value in found.items()}


def _footers(store: Store, names: Sequence[str]) -> list[list[HourInDay]]:
    """What each day's file holds; nothing, where it was removed since it was listed."""

    def read(name: str) -> list[HourInDay]:
        try:
            return _footer_of(store, name)
        except FileNotFoundError:
            return []

    if store.is_local:
        return [read(name) for name in names]
    with ThreadPoolExecutor(_READERS, thread_name_prefix="ledger-find") as readers:
        return list(readers.map(read, names))


def _footer_of(store: Store, name: str) -> list[HourInDay]:
    return hours_in_day(store.table_metadata(name), where=f"{store.root}/{name}")


def hours_in_day(metadata: Mapping[bytes, bytes] | None, *, where: str) -> list[HourInDay]:
    """The hours of a day's file, in order, from its footer.

    Raises:
        InputError: the footer does not say.
    """
    try:
        listed = json.loads((metadata or {})[DAY_HOURS_KEY])
        hours, first = [], 0
        for one in listed:
            hour, rows = parse_time(one["hour"]), int(one["rows"])
            hours.append(HourInDay(hour=hour, first=first, rows=rows, footer=dict(one["footer"])))
            first += rows
    except (KeyError, TypeError, ValueError):
        raise InputError("does not say which hours it holds", where=where) from None
    return hours


def write_day_footer(hours: Sequence[tuple[datetime, int, Mapping[str, str]]]) -> dict[bytes, bytes]:
    """The footer of a day's file.

    Args:
        hours: by hour, in order: its start, its rows, and what its own footer said.
    """
    listed = [(format_time(hour), rows, dict(sorted(footer.items()))) for hour, rows, footer in hours]
    objects = [{"hour": hour, "rows": rows, "footer": footer} for hour, rows, footer in listed]
    rules = sorted({footer.get("team_rules_hash", "") for _, _, footer in listed})
    return {
        DAY_HOURS_KEY: json.dumps(objects, separators=(",", ":")).encode(),
        b"input_hash": _digest([[hour, footer.get("input_hash", "")] for hour, _, footer in listed]),
        b"team_rules_hash": rules[0].encode() if len(rules) == 1 else _digest(rules),
    }


def _digest(value: object) -> bytes:
    return hashlib.sha256(json.dumps(value, separators=(",", ":")).encode()).hexdigest().encode()


def _parse_day_folder(path: str) -> tuple[str, datetime] | None:
    values = dict(part.split("=", 1) for part in PurePosixPath(path).parts if "=" in part)
    try:
        if values["hour"] != "all":
            return None
        return values["cluster"], parse_time(f"{values['date']}T00:00:00Z")
    except (KeyError, ValueError):
        return None
