"""What a period is made from: the ledger's hours in it, or the rows of a provider's bill, divided by the ledger."""

from __future__ import annotations

import bisect
import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import groupby
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.focus.ahead import ahead
from gpuwaste.focus.bill_files import BillFile, open_bill
from gpuwaste.focus.bill_windows import BillSplitter
from gpuwaste.focus.columns import TIME_TYPE
from gpuwaste.focus.ledger_days import LedgerDay
from gpuwaste.focus.periods import parse_period
from gpuwaste.focus.split import Split, split_ledger
from gpuwaste.ledger.catalog import find_hours, hour_footers
from gpuwaste.ledger.store import hour_folder
from gpuwaste.model.errors import InputError
from gpuwaste.model.units import hours_between

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from hashlib import _Hash as Hash
    from pathlib import Path

    from gpuwaste.focus.options import ExportOptions
    from gpuwaste.focus.periods import Period
    from gpuwaste.ledger.catalog import HourPlace
    from gpuwaste.ledger.store import Store

__all__ = ["BillSource", "Inputs", "LedgerSource", "Source"]

_PERIODS: Final = ("BillingPeriodStart", "ChargeCategory", "ChargePeriodStart", "ChargePeriodEnd")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What a period would be made from now, without making it.

    Attributes:
        sha256: equal for equal ledger hours and bill; team rules are not in it, for a closed period keeps those it
            was closed with.
        rules_sha256: of the team rules that the hours were written by.
        missing_hours: hours of the period, by cluster, that the ledger does not have.
        clusters: names of the clusters in it.
    """

    sha256: str
    rules_sha256: str
    missing_hours: int
    clusters: tuple[str, ...]


class Source(Protocol):
    """Gives the rows of periods."""

    def hours(self) -> list[datetime]:
        """The hours that have something to publish, oldest first."""
        ...

    def inputs(self, period: Period) -> Inputs | None:
        """What a period would be made from, None where there is nothing."""
        ...

    def splits(self, period: Period, options: ExportOptions) -> Iterator[Split]:
        """The rows of a period, in pieces of bounded size; the same inputs give the same rows in the same order."""
        ...


@dataclass(slots=True, kw_only=True)
class LedgerSource:
    """Imputed charges of the ledger, a day at a time.

    Attributes:
        store: the root of the ledger, or the folder above it.
        cluster: the one cluster to publish; empty for all.
    """

    store: Store
    cluster: str = ""
    _places: dict[datetime, list[HourPlace]] | None = field(default=None)

    def _found(self) -> dict[datetime, list[HourPlace]]:
        if self._places is None:
            found: dict[datetime, list[HourPlace]] = defaultdict(list)
            for cluster, hours in find_hours(self.store, "").items():
                if not self.cluster or cluster == self.cluster:
                    for hour, place in hours.items():
                        found[hour].append(place)
            self._places = dict(sorted(found.items()))
        return self._places

    def hours(self) -> list[datetime]:
        """See `Source.hours`."""
        return list(self._found())

    def inputs(self, period: Period) -> Inputs | None:
        """See `Source.inputs`; reads the footers of the ledger's files, no rows."""
        found = [place for hour, places in self._found().items() if period.holds(hour) for place in places]
        if not found:
            return None
        hashes, rules = [], set()
        for place, footer in hour_footers(self.store, found):
            folder = PurePosixPath(hour_folder("", place.cluster, place.hour)).parts[-2:]
            hashes.append([place.cluster, folder, footer.get("input_hash", "")])
            rules.add(footer.get("team_rules_hash", ""))
        clusters = sorted({place.cluster for place in found})
        wanted = len(hours_between(period.start, period.end)) * len(clusters)
        return Inputs(
            sha256=_digest(hashes),
            rules_sha256=_digest(sorted(rules)),
            missing_hours=wanted - len(found),
            clusters=tuple(clusters),
        )

    def days(self, first: datetime, end: datetime) -> Iterator[LedgerDay]:
        """The ledger of [first, end), a day at a time."""
        hours = [hour for hour in self._found() if first <= hour < end]
        for day, of_day in groupby(hours, key=lambda hour: hour.date()):
            places = tuple(place for hour in of_day for place in self._found()[hour])
            yield LedgerDay(
                store=self.store,
                day=day,
                clusters=tuple(sorted({place.cluster for place in places})),
                places=places,
                complete=False,
            )

    def splits(self, period: Period, options: ExportOptions) -> Iterator[Split]:
        """See `Source.splits`."""
        yield from ahead(lambda day: split_ledger(day.read(), options), self.days(period.start, period.end))


@dataclass(slots=True)
class _Issued:
    """What a bill charges in one billing period: the days of the ledger that divide it, and a hash of its rows."""

    days: set[date] = field(default_factory=set)
    sha256: Hash = field(default_factory=hashlib.sha256)

    def add(self, rows: pa.Table, known: list[date]) -> None:
        """Take in the next rows of the period."""
        charged = rows.select(_PERIODS[1:]).group_by(list(_PERIODS[1:])).aggregate([])
        for row in charged.to_pylist():
            self.days.update(_days_of(row, known))
        buffer = pa.BufferOutputStream()
        with pa.ipc.new_stream(buffer, rows.schema) as stream:
            stream.write_table(rows.combine_chunks())
        self.sha256.update(buffer.getvalue())


@dataclass(slots=True, kw_only=True)
class BillSource:
    """A provider's own bill, by billing period; its nodes' rows are divided by the ledger of the time they charge.

    A Correction of an earlier period is in the bill of the period that made it, and is divided by the ratios of the
    period that it corrects: those hours of the ledger are read, however old they are. The bill, a file or a folder of
    files, is read in pieces.
    """

    ledger: LedgerSource
    bill: Path
    _issued: dict[datetime, _Issued] = field(default_factory=dict)
    _read: tuple[tuple[str, int, int], ...] = ()

    def _by_start(self) -> dict[datetime, _Issued]:
        """What the bill charges, by the start of the billing period that charges it; read again if a file changed."""
        bill = open_bill(self.bill)
        now = tuple((str(path), stat.st_size, stat.st_mtime_ns) for path in bill.files for stat in [path.stat()])
        if now == self._read:
            return self._issued
        days = sorted({hour.date() for hour in self.ledger.hours()})
        found: dict[datetime, _Issued] = defaultdict(_Issued)
        for _, rows in bill.batches():
            missing = [name for name in _PERIODS if name not in rows.column_names]
            if missing:
                raise InputError(f"column {missing[0]} is missing", where=str(self.bill))
            for start in pc.unique(rows["BillingPeriodStart"]).drop_null().to_pylist():
                found[start].add(rows.filter(pc.equal(rows["BillingPeriodStart"], start)), days)
        self._issued, self._read = dict(sorted(found.items())), now
        return self._issued

    def hours(self) -> list[datetime]:
        """See `Source.hours`: the starts of the bill's billing periods."""
        return list(self._by_start())

    def _of(self, period: Period) -> list[_Issued]:
        return [issued for start, issued in self._by_start().items() if period.holds(start)]

    def inputs(self, period: Period) -> Inputs | None:
        """See `Source.inputs`; nothing, too, where the ledger has no hour that the bill charges."""
        issued = self._of(period)
        known = [one for one in map(self.ledger.inputs, _days(issued)) if one is not None]
        if not known:
            return None
        return Inputs(
            sha256=_digest([*(one.sha256.hexdigest() for one in issued), *(one.sha256 for one in known)]),
            rules_sha256=_digest(sorted({one.rules_sha256 for one in known})),
            missing_hours=sum(one.missing_hours for one in known),
            clusters=tuple(sorted({name for one in known for name in one.clusters})),
        )

    def splits(self, period: Period, options: ExportOptions) -> Iterator[Split]:
        """See `Source.splits`; what is said of the whole comes with the last piece."""
        days = [day for one in _days(self._of(period)) for day in self.ledger.days(one.start, one.end)]
        splitter = BillSplitter(bill=_IssuedIn(path=self.bill, period=period), days=days, options=options)
        schema = None
        for rows in splitter.splits():
            schema = rows.schema
            yield Split(rows=rows, charges=0, findings=())
        if schema is not None:
            yield Split(rows=schema.empty_table(), charges=splitter.charges, findings=splitter.findings())


@dataclass(frozen=True, slots=True, kw_only=True)
class _IssuedIn(BillFile):
    """The rows of a bill that belong to one billing period."""

    period: Period

    def batches(self, wanted: Callable[[int], bool] = lambda _: True) -> Iterator[tuple[int, pa.Table]]:
        first, end = pa.scalar(self.period.start, TIME_TYPE), pa.scalar(self.period.end, TIME_TYPE)
        for number, rows in BillFile.batches(self, wanted):
            starts = rows["BillingPeriodStart"]
            mine = rows.filter(pc.and_(pc.greater_equal(starts, first), pc.less(starts, end)))
            if len(mine):
                yield number, mine


def _days(issued: list[_Issued]) -> list[Period]:
    """The days whose ledger divides what was issued."""
    return [parse_period(day.isoformat(), "day") for day in sorted({day for one in issued for day in one.days})]


def _days_of(row: dict[str, Any], known: list[date]) -> list[date]:
    """Those of the known days that a charge of usage touches; whatever period a bill claims, no more than there are."""
    start, end = row["ChargePeriodStart"], row["ChargePeriodEnd"]
    if row["ChargeCategory"] != "Usage" or start is None or end is None:
        return []
    last = (end - timedelta(microseconds=1)).date()
    return known[bisect.bisect_left(known, start.date()) : bisect.bisect_right(known, last)]


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, separators=(",", ":")).encode()).hexdigest()
