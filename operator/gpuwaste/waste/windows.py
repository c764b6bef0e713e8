"""The lengths of time that objects show, cut out of the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.model.grouping import only
from gpuwaste.model.units import HOUR, NS_PER_HOUR

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LENGTHS", "LedgerWindow", "cut_windows", "newest_hour"]

LENGTHS: tuple[tuple[str, timedelta], ...] = (
    ("1h", timedelta(hours=1)),
    ("24h", timedelta(hours=24)),
    ("7d", timedelta(days=7)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerWindow:
    """Ledger rows of the newest hours.

    Attributes:
        length: `1h`, `24h` or `7d`.
        rows: rows of LEDGER_SCHEMA, those of GPUs only.
        from_time: start of the oldest hour in it that has data.
        to_time: up to when there is data.
    """

    length: str
    rows: pa.Table
    from_time: datetime
    to_time: datetime

    @property
    def hours(self) -> float:
        """Hours of data, the running one as far as it has come."""
        return (self.to_time - self.from_time) / HOUR


def cut_windows(
    rows: pa.Table, *, through: datetime, lengths: Sequence[tuple[str, timedelta]] = LENGTHS
) -> list[LedgerWindow]:
    """The newest 1 h, 24 h and 7 d of the ledger, in whole ledger hours up to the running one.

    Args:
        rows: rows of LEDGER_SCHEMA.
        through: up to when data has come in; the hour it lies in is the newest one.
        lengths: names and lengths.

    Returns:
        Windows, shortest first; one that holds no more than a shorter one is left out.
    """
    newest = (through - timedelta(microseconds=1)).replace(minute=0, second=0, microsecond=0)
    # A purchase that is all there has a row that says so, and no part in any sum.
    something = pc.or_(pc.not_equal(rows["row_kind"], "unprovisioned"), pc.greater(rows["owned"], 0))
    rows = only(rows, pc.and_(pc.equal(rows["resource"], "gpu"), something))
    windows: list[LedgerWindow] = []
    for length, span in lengths:
        start = newest + HOUR - span
        hours = rows["hour"]
        inside = only(rows, pc.and_(pc.greater_equal(hours, start), pc.less_equal(hours, newest)))
        if not inside.num_rows:
            continue
        first: datetime = pc.min(inside["hour"]).as_py()
        if windows and first == windows[-1].from_time:
            continue
        windows.append(LedgerWindow(length=length, rows=inside, from_time=first, to_time=through))
    return windows


def newest_hour(rows: pa.Table) -> tuple[pa.Table, int]:
    """The rows of the newest hour, and how long it is so far, in nanoseconds: the most that any GPU was owned."""
    newest = rows.filter(pc.equal(rows["hour"], pc.max(rows["hour"])))
    there = newest.filter(pc.not_equal(newest["gpu_uuid"], ""))
    owned = there.group_by(["gpu_uuid"], use_threads=False).aggregate([("owned", "sum")])
    return newest, pc.max(owned["owned_sum"]).as_py() or NS_PER_HOUR
