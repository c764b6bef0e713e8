"""The ledger a UTC day at a time: what an export reads at once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from gpuwaste.focus.charges import CARRIED
from gpuwaste.focus.node_hours import NODE_COLUMNS
from gpuwaste.ledger.catalog import find_hours
from gpuwaste.ledger.read import read_hours

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpuwaste.ledger.catalog import HourPlace
    from gpuwaste.ledger.store import Store

__all__ = ["LedgerDay", "ledger_days"]

_HOURS_PER_DAY: Final = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerDay:
    """The ledger of one UTC day; `complete` where every cluster in it has all 24 hours."""

    store: Store
    day: date
    clusters: tuple[str, ...]
    places: tuple[HourPlace, ...]
    complete: bool

    def read(self) -> pa.Table:
        """All rows of the day.

        Raises:
            InputError: a file has other columns than the ledger.
        """
        return self._read(CARRIED)

    def read_names(self) -> pa.Table:
        """The rows of the day in the columns that name nodes.

        Raises:
            InputError: a file has other columns than the ledger.
        """
        return self._read(NODE_COLUMNS)

    def _read(self, columns: tuple[str, ...]) -> pa.Table:
        hours = read_hours(self.store, self.places, columns=columns, encoded=False)
        return pa.concat_tables([rows for _, rows in hours])


def ledger_days(store: Store, first: date | None = None, last: date | None = None) -> Iterator[LedgerDay]:
    """Find the days of a ledger, oldest first; days without any hour are skipped.

    Args:
        store: the root of the ledger, or the folder above it.
        first: the first day; None for the oldest.
        last: the last day, included; None for the newest.
    """
    wanted: dict[str, datetime] = {}
    if first is not None:
        wanted["start"] = datetime(first.year, first.month, first.day, tzinfo=UTC)
    if last is not None:
        wanted["end"] = datetime(last.year, last.month, last.day, tzinfo=UTC) + timedelta(days=1)
    found = [place for hours in find_hours(store, "", **wanted).values() for place in hours.values()]
    by_time = sorted(found, key=lambda place: (place.hour, place.cluster))
    for day, hours in groupby(by_time, key=lambda place: place.hour.date()):
        places = tuple(hours)
        clusters = tuple(sorted({place.cluster for place in places}))
        complete = len(places) == _HOURS_PER_DAY * len(clusters)
        yield LedgerDay(store=store, day=day, clusters=clusters, places=places, complete=complete)
