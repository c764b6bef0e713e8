"""What a period is made from: the ledger's hours in it, or the rows of a provider's bill, divided by the ledger."""

from __future__ import annotations

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
from gpuwaste.focus.archive import file_sha256
from gpuwaste.focus.bill_files import BillFile, open_bill
from gpuwaste.focus.bill_windows import BillSplitter
from gpuwaste.focus.columns import TIME_TYPE
from gpuwaste.focus.export import LedgerDay
from gpuwaste.focus.periods import parse_period
from gpuwaste.focus.split import Split, split_ledger
from gpuwaste.ledger.store import parse_hour_folder
from gpuwaste.model.errors import InputError
from gpuwaste.model.units import hours_between

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gpuwaste.focus.options import ExportOptions
    from gpuwaste.focus.periods import Period
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
    _names: dict[datetime, list[tuple[str, str]]] | None = field(default=None)

    def _found(self) -> dict[datetime, list[tuple[str, str]]]:
        if self._names is None:
            found: dict[datetime, list[tuple[str, str]]] = {}
            for name in self.store.files(""):
                place = parse_hour_folder(name)
                parts = PurePosixPath(name).parts
                if not place or "inputs" in parts or not name.endswith(".parquet"):
                    continue
                if not self.cluster or place[0] == self.cluster:
                    found.setdefault(place[1], []).append((place[0], name))
            self._names = {hour: sorted(names) for hour, names in sorted(found.items())}
        return self._names

    def hours(self) -> list[datetime]:
        """See `Source.hours`."""
        return list(self._found())

    def inputs(self, period: Period) -> Inputs | None:
        """See `Source.inputs`; reads the footers of the ledger's files, no rows."""
        found = {hour: names for hour, names in self._found().items() if period.holds(hour)}
        if not found:
            return None
        hashes, rules = [], set()
        for names in found.values():
            for cluster, name in names:
                footer = self.store.table_metadata(name)
                hashes.append([cluster, name.rpartition("/")[0], footer.get(b"input_hash", b"").decode()])
                rules.add(footer.get(b"team_rules_hash", b"").decode())
        clusters = sorted({cluster for names in found.values() for cluster, _ in names})
        wanted = len(hours_between(period.start, period.end)) * len(clusters)
        return Inputs(
            sha256=_digest([[cluster, PurePosixPath(name).parts[-2:], text] for cluster, name, text in hashes]),
            rules_sha256=_digest(sorted(rules)),
            missing_hours=wanted - sum(len({cluster for cluster, _ in names}) for names in found.values()),
            clusters=tuple(clusters),
        )

    def days(self, first: datetime, end: datetime) -> Iterator[LedgerDay]:
        """The ledger of [first, end), a day at a time."""
        hours = [hour for hour in self._found() if first <= hour < end]
        for day, of_day in groupby(hours, key=lambda hour: hour.date()):
            names = [item for hour in of_day for item in self._found()[hour]]
            yield LedgerDay(
                store=self.store,
                day=day,
                clusters=tuple(sorted({cluster for cluster, _ in names})),
                names=tuple(name for _, name in names),
                complete=False,
            )

    def splits(self, period: Period, options: ExportOptions) -> Iterator[Split]:
        """See `Source.splits`."""
        yield from ahead(lambda day: split_ledger(day.read(), options), self.days(period.start, period.end))


@dataclass(slots=True, kw_only=True)
class BillSource:
    """A provider's own bill, by billing period; its nodes' rows are divided by the ledger of the time they charge.

    A Correction of an earlier period is in the bill of the period that made it, and is divided by the ratios of the
    period that it corrects: those hours of the ledger are read, however old they are. The bill, a file or a folder of
    files, is read in pieces.
    """

    ledger: LedgerSource
    bill: Path
    _charged: dict[datetime, list[date]] | None = field(default=None)

    def _days_by_start(self) -> dict[datetime, list[date]]:
        """The days that usage was charged in, by the start of the billing period that charges it."""
        if self._charged is None:
            found: dict[datetime, set[date]] = defaultdict(set)
            for _, rows in open_bill(self.bill).batches():
                missing = [name for name in _PERIODS if name not in rows.column_names]
                if missing:
                    raise InputError(f"column {missing[0]} is missing", where=str(self.bill))
                distinct = rows.select(list(_PERIODS)).group_by(list(_PERIODS)).aggregate([])
                for row in distinct.to_pylist():
                    if row["BillingPeriodStart"] is not None:
                        found[row["BillingPeriodStart"]] |= _days_of(row)
            self._charged = {start: sorted(days) for start, days in sorted(found.items())}
        return self._charged

    def hours(self) -> list[datetime]:
        """See `Source.hours`: the starts of the bill's billing periods."""
        return list(self._days_by_start())

    def _days(self, period: Period) -> list[Period] | None:
        """The days whose ledger divides the bill of a period, None where the bill has no row of it."""
        found = [days for start, days in self._days_by_start().items() if period.holds(start)]
        if not found:
            return None
        return [parse_period(day.isoformat(), "day") for day in sorted({day for days in found for day in days})]

    def inputs(self, period: Period) -> Inputs | None:
        """See `Source.inputs`."""
        days = self._days(period)
        if days is None:
            return None
        known = [one for one in map(self.ledger.inputs, days) if one is not None]
        return Inputs(
            sha256=_digest([*map(file_sha256, open_bill(self.bill).files), *(one.sha256 for one in known)]),
            rules_sha256=_digest(sorted({one.rules_sha256 for one in known})),
            missing_hours=sum(one.missing_hours for one in known),
            clusters=tuple(sorted({name for one in known for name in one.clusters})),
        )

    def splits(self, period: Period, options: ExportOptions) -> Iterator[Split]:
        """See `Source.splits`; what is said of the whole comes with the last piece."""
        days = [day for one in self._days(period) or () for day in self.ledger.days(one.start, one.end)]
        if not days:
            raise InputError(f"the ledger has no hour that the bill of {period.name} charges", where=str(self.bill))
        open_bill(self.bill)
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


def _days_of(row: dict[str, Any]) -> set[date]:
    start, end = row["ChargePeriodStart"], row["ChargePeriodEnd"]
    if row["ChargeCategory"] != "Usage" or start is None or end is None:
        return set()
    last = (end - timedelta(microseconds=1)).date()
    return {start.date() + timedelta(days=n) for n in range((last - start.date()).days + 1)}


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, separators=(",", ":")).encode()).hexdigest()
