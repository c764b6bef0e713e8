"""Divide a bill a week at a time: neither the bill nor the ledger of its time is ever whole in memory.

The bill is read once to learn the sizes of its amounts and the weeks of its pieces, and then, for each week, the pieces
that have rows of it. Rows keep their order within a week.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.focus.ahead import ahead
from gpuwaste.focus.bill import (
    AmountSizes,
    BillRows,
    Receivers,
    broken_before,
    broken_texts,
    sample_of,
    split_rows,
)
from gpuwaste.focus.bill_columns import renamed_columns
from gpuwaste.focus.bill_plan import BillPlanner, asked_rows, timed_rows
from gpuwaste.focus.node_hours import collect_hours, find_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from gpuwaste.focus.bill_files import BillFile
    from gpuwaste.focus.bill_plan import BillPlan, Span
    from gpuwaste.focus.columns import Version
    from gpuwaste.focus.ledger_days import LedgerDay
    from gpuwaste.focus.node_hours import NodeHours
    from gpuwaste.focus.options import ExportOptions, Finding

    Int64s = NDArray[np.int64]

__all__ = ["BillSplitter"]

_WEEK_DAYS: Final = 7
_NO_WEEK: Final = -1
_CHUNK_ROWS: Final = 1024
"""Rows of a bill divided at once: with a hundred receivers a node, a hundred thousand rows."""
_MAX_SAMPLE_ROWS: Final = 65_536


@dataclass(slots=True)
class _Scan:
    """What the first reading of a bill learns.

    Attributes:
        sizes: of all amounts.
        first_row: piece of the bill -> the number of its first row.
        weeks: piece of the bill -> the weeks of its rows.
        spans: week -> the first start and the last end of its rows that are billed by time.
    """

    sizes: AmountSizes = field(default_factory=AmountSizes)
    first_row: dict[int, int] = field(default_factory=dict)
    weeks: dict[int, set[int]] = field(default_factory=dict)
    spans: dict[int, tuple[datetime, datetime]] = field(default_factory=dict)

    def add(self, piece: int, first_row: int, table: pa.Table, version: Version, asked: Span | None) -> None:
        """Take in the next rows of a piece; outside of what is asked for no ledger is needed."""
        self.sizes.add(table, version)
        self.first_row.setdefault(piece, first_row)
        weeks = _weeks(table)
        self.weeks.setdefault(piece, set()).update(np.unique(weeks).tolist())
        columns = {name: table[name].combine_chunks() for name in table.column_names}
        timed = timed_rows(columns)
        timed = timed[asked_rows(columns, timed, asked)]
        for week in np.unique(weeks[timed]).tolist():
            rows = pa.array(timed[weeks[timed] == week])
            start = pc.min(table["ChargePeriodStart"].take(rows)).as_py()
            end = pc.max(table["ChargePeriodEnd"].take(rows)).as_py()
            known = self.spans.get(week, (start, end))
            self.spans[week] = min(known[0], start), max(known[1], end)


@dataclass(slots=True)
class BillSplitter:
    """A bill on its way: `splits` answers the rows to write, and after it `charges` and `findings` are known.

    Where a time is `asked` for, rows outside of it pass through, except Corrections of an earlier time.
    """

    bill: BillFile
    days: Sequence[LedgerDay]
    options: ExportOptions
    asked: Span | None = None
    charges: int = 0
    _broken: list[Finding] = field(default_factory=list)
    _found: tuple[Finding, ...] = ()

    def findings(self) -> tuple[Finding, ...]:
        """What a reader of the export must know; after `splits` has ended."""
        return tuple(dict.fromkeys((*renamed_columns(self.bill.names), *self._found, *self._broken)))

    def splits(self) -> Iterator[pa.Table]:
        """The rows of the export, piece by piece, all of one schema; none for a bill without rows.

        Raises:
            InputError: the bill cannot be read, or an amount fits into no column.
        """
        scan = self._scan()
        planner = BillPlanner(find_nodes(day.read_names() for day in self._needed(scan)), self.asked)
        kinds = scan.sizes.kinds()
        samples: list[pa.Table] = []
        for week in sorted(set().union(*scan.weeks.values())):
            hours = self._hours(scan, week)
            receivers = Receivers.of(hours, self.options) if hours else None

            def planned(week: int = week, hours: NodeHours | None = hours) -> Iterator[tuple[BillRows, BillPlan]]:
                for table, number in self._rows(scan, week):
                    rows = BillRows.of(table, number, kinds, self.options.version)
                    yield rows, planner.plan(rows.columns, rows.amounts, hours, number)

            def divided(
                item: tuple[BillRows, BillPlan], receivers: Receivers | None = receivers
            ) -> tuple[pa.Table, int, pa.Table, tuple[Finding, ...]]:
                rows, plan = item
                table = split_rows(rows, plan, receivers, self.options)
                return table, len(plan.row), sample_of(rows, self.options.version), broken_texts(rows)

            for table, charges, sample, broken in ahead(divided, planned()):
                self.charges += charges
                self._broken += broken
                samples.append(sample)
                if sum(map(len, samples)) > _MAX_SAMPLE_ROWS:
                    self._broken += broken_before(samples, self.options.version)
                    samples = []
                yield table
        self._broken += broken_before(samples, self.options.version)
        self._found = planner.findings()

    def _scan(self) -> _Scan:
        scan, start = _Scan(), 0
        for piece, table in self.bill.batches():
            scan.add(piece, start, table, self.options.version, self.asked)
            start += len(table)
        return scan

    def _needed(self, scan: _Scan) -> Iterator[LedgerDay]:
        """The days that are asked for, and those that any row of the bill is divided by."""
        for day in self.days:
            wanted = self.asked is None or _reaches(day.day, *self.asked)
            if wanted or any(_reaches(day.day, first, last) for first, last in scan.spans.values()):
                yield day

    def _rows(self, scan: _Scan, week: int) -> Iterator[tuple[pa.Table, Int64s]]:
        """Rows of a week, in small tables, with their numbers in the bill."""
        start = last = -1
        for piece, table in self.bill.batches(lambda piece: week in scan.weeks.get(piece, ())):
            start = scan.first_row[piece] if piece != last else start
            at = np.flatnonzero(_weeks(table) == week)
            for first in range(0, len(at), _CHUNK_ROWS):
                some = at[first : first + _CHUNK_ROWS]
                yield table.take(pa.array(some)), start + some
            start, last = start + len(table), piece

    def _hours(self, scan: _Scan, week: int) -> NodeHours | None:
        """The ledger of the time of a week's rows, which may reach beyond the week."""
        if week not in scan.spans:
            return None
        first, last = scan.spans[week]
        return collect_hours((day.read() for day in self.days if _reaches(day.day, first, last)), self.options)


def _reaches(day: date, first: datetime, last: datetime) -> bool:
    start = datetime.combine(day, datetime.min.time(), tzinfo=UTC)
    return start < last and start + timedelta(days=1) > first


def _weeks(table: pa.Table) -> Int64s:
    """int64[n], the week in which each row begins, counted from 1970; −1 where it has no beginning."""
    if "ChargePeriodStart" not in table.column_names:
        return np.full(len(table), _NO_WEEK, np.int64)
    seconds = pc.fill_null(
        table["ChargePeriodStart"].cast(pa.timestamp("s", tz="UTC"), safe=False).cast(pa.int64()), -1
    )
    weeks: Int64s = np.where(seconds.to_numpy() < 0, _NO_WEEK, seconds.to_numpy() // (_WEEK_DAYS * 86_400))
    return weeks
