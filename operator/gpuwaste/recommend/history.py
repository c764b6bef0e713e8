"""What the ledger says about a pool: how many GPUs were held hour by hour, and how much of that was measured."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from math import sqrt
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from gpuwaste.api.action import Evidence, Risk
from gpuwaste.api.common import Confidence
from gpuwaste.model.units import HOUR, NS_PER_HOUR

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["PoolHistory", "pool_histories"]

_CONFIDENT_HOURS = 24
_QUERY = (  # a text for people to run, with quotes doubled where the pool's name goes in
    "SELECT hour, SUM(held) / 3600000000000.0 AS gpus_held FROM ledger "
    "WHERE resource = 'gpu' AND pool = '{pool}' GROUP BY hour ORDER BY hour"
)
_Z_95 = 1.959964
_PLACES = Decimal("0.000001")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolHistory:
    """GPUs held in one pool.

    Attributes:
        pool: as the ledger names it.
        held_gpus: float64[H], mean GPUs held in each hour with data.
        from_time: start of the first hour.
        to_time: end of the last hour.
        measured: part of the held time whose activity was measured, 0 to 1.
    """

    pool: str
    held_gpus: NDArray[np.float64]
    from_time: datetime
    to_time: datetime
    measured: float

    def risk(self, gpus_left: int) -> Risk:
        """How often, of the hours seen, more GPUs were held than would be left; Wilson's 95 % interval.

        Hours are no independent draws, and a new load is in no history: the interval is the least doubt there is.
        """
        hours = len(self.held_gpus)
        part = float((self.held_gpus > gpus_left).sum()) / hours
        middle = (part + _Z_95**2 / (2 * hours)) / (1 + _Z_95**2 / hours)
        half = _Z_95 * sqrt(part * (1 - part) / hours + _Z_95**2 / (4 * hours**2)) / (1 + _Z_95**2 / hours)
        low, high = min(max(middle - half, 0.0), part), max(min(middle + half, 1.0), part)
        return Risk(probability=_decimal(part), low=_decimal(low), high=_decimal(high))

    def confidence(self) -> Confidence:
        """Medium from a day of hours on, of which half was measured; never High.

        The facts behind a plan hold no volumes, selectors or disruption budgets.
        """
        enough = len(self.held_gpus) >= _CONFIDENT_HOURS and self.measured >= 0.5  # noqa: PLR2004 (half)
        return Confidence.MEDIUM if enough else Confidence.LOW

    def evidence(self) -> Evidence:
        """The query over the ledger that gives `held_gpus`."""
        query = _QUERY.format(pool=self.pool.replace("'", "''"))
        return Evidence(ledger_query=query, from_time=self.from_time, to_time=self.to_time)


def _decimal(value: float) -> Decimal:
    return Decimal(value).quantize(_PLACES)


def pool_histories(ledger: pa.Table | None) -> Mapping[str, PoolHistory]:
    """The history of every pool in a table of ledger rows; empty where there is no ledger."""
    if ledger is None or not ledger.num_rows:
        return {}
    rows = ledger.filter(pc.equal(ledger["resource"], "gpu")).select(["pool", "hour", "held", "unmeasured"])
    hourly = rows.group_by(["pool", "hour"], use_threads=False).aggregate([("held", "sum"), ("unmeasured", "sum")])
    found = {}
    for pool in sorted(set(hourly["pool"].to_pylist())):
        mine = hourly.filter(pc.equal(hourly["pool"], pool)).sort_by("hour")
        held = pc.fill_null(mine["held_sum"], 0).to_numpy()
        unmeasured = pc.fill_null(mine["unmeasured_sum"], 0).to_numpy()
        hours = [hour.astimezone(UTC) for hour in mine["hour"].to_pylist()]
        found[pool] = PoolHistory(
            pool=pool,
            held_gpus=held / NS_PER_HOUR,
            from_time=hours[0],
            to_time=hours[-1] + HOUR,
            measured=1 - float(unmeasured.sum()) / max(float(held.sum()), 1.0),
        )
    return found
