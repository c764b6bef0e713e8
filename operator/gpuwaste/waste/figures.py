"""Sums of ledger rows: time in nanoseconds of GPU, money exact."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.ledger.schema import AMOUNT_COLUMNS, WASTE_CATEGORIES
from gpuwaste.model.money import exact
from gpuwaste.model.units import NS_PER_HOUR

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["FIGURE_COLUMNS", "Figures", "gpu_hours", "gpu_rows", "money_of", "summarise", "total"]

_PRICE = ("effective_unit_cost", "currency", "price_source", "price_date", "origin")
FIGURE_COLUMNS = (*AMOUNT_COLUMNS, "coverage_ppm", *_PRICE)
"""What of LEDGER_SCHEMA `summarise` reads besides the columns that it sums by."""

_HOURS_DECIMALS = Decimal(1).scaleb(-6)
_PPM = 1_000_000


def gpu_hours(amount_ns: int) -> Decimal:
    """Nanoseconds of GPU as GPU-hours with six decimals."""
    return (Decimal(amount_ns) / NS_PER_HOUR).quantize(_HOURS_DECIMALS).normalize() + 0


@dataclass(slots=True)
class Figures:
    """What a group of ledger rows adds up to.

    Attributes:
        amounts: by column of AMOUNT_COLUMNS, nanoseconds of GPU; None where no row was measured.
        measured: nanoseconds held whose activity was measured.
        cost: of owned time, by currency.
        waste_cost: of net waste, by currency.
        unpriced: nanoseconds owned without a known price.
        origins: nanoseconds held by the origin of the activity.
        prices: (source, date) of the prices in it.
    """

    amounts: dict[str, int | None] = field(default_factory=lambda: dict.fromkeys(AMOUNT_COLUMNS))
    measured: int = 0
    cost: dict[str, Decimal] = field(default_factory=dict)
    waste_cost: dict[str, Decimal] = field(default_factory=dict)
    unpriced: int = 0
    origins: dict[str, int] = field(default_factory=dict)
    prices: set[tuple[str, str]] = field(default_factory=set)

    def __getitem__(self, column: str) -> int:
        """The sum of a column, 0 where nothing was measured; ask `amounts` where that matters."""
        return self.amounts[column] or 0

    @property
    def waste(self) -> int:
        """Net waste of all categories."""
        return sum(self[name] for name in WASTE_CATEGORIES)

    @property
    def known_cost(self) -> tuple[Decimal, Decimal, str] | None:
        """Cost, cost of the waste and currency, where every part has a price in one currency; else None."""
        if self.unpriced or len(self.cost) != 1:
            return None
        ((currency, cost),) = self.cost.items()
        return cost, self.waste_cost[currency], currency


def gpu_rows(rows: pa.Table) -> pa.Table:
    """The rows of GPUs: those of the CPU and memory of their nodes are in other units, and in no sum with them."""
    return rows.filter(pc.equal(rows["resource"], "gpu"))


def summarise(rows: pa.Table, by: Sequence[str]) -> dict[tuple[str, ...], Figures]:
    """Sum ledger rows by label columns.

    Args:
        rows: rows of LEDGER_SCHEMA, of one resource (see `gpu_rows`).
        by: label or key columns.

    Returns:
        Figures by the values of `by`, in sorted order.
    """
    waste = pa.array(sum((rows[name].to_numpy() for name in WASTE_CATEGORIES), np.zeros(rows.num_rows, np.int64)))
    held = pc.fill_null(rows["held"], 0).to_numpy()
    ppm = pc.fill_null(rows["coverage_ppm"], 0).to_numpy().astype(np.int64)
    covered = held // _PPM * ppm + held % _PPM * ppm // _PPM
    prepared = rows.append_column("waste", waste).append_column("covered", pa.array(covered))
    grouped = prepared.group_by([*by, *_PRICE], use_threads=False).aggregate(
        [(name, "sum") for name in (*AMOUNT_COLUMNS, "waste", "covered")]
    )
    found: dict[tuple[str, ...], Figures] = defaultdict(Figures)
    for row in grouped.to_pylist():
        _add(found[tuple(row[name] for name in by)], row)
    return dict(sorted(found.items()))


def _add(figures: Figures, row: dict[str, object]) -> None:
    for name in AMOUNT_COLUMNS:
        value = row[f"{name}_sum"]
        if isinstance(value, int):
            figures.amounts[name] = (figures.amounts[name] or 0) + value
    owned, held, waste = (_int(row[f"{name}_sum"]) for name in ("owned", "held", "waste"))
    figures.measured += _int(row["covered_sum"])
    origin = row["origin"]
    if held:
        label = origin if isinstance(origin, str) else "unmeasured"
        figures.origins[label] = figures.origins.get(label, 0) + held
    cost, currency = row["effective_unit_cost"], row["currency"]
    if not isinstance(cost, Decimal) or not isinstance(currency, str):
        figures.unpriced += owned
        return
    figures.prices.add((str(row["price_source"]), str(row["price_date"])))
    with exact():
        # unit cost × ns is exact; the one division by an hour is left to whoever shows the amount
        figures.cost[currency] = figures.cost.get(currency, Decimal(0)) + cost * owned
        figures.waste_cost[currency] = figures.waste_cost.get(currency, Decimal(0)) + cost * waste


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0


def money_of(unit_cost_ns: Decimal, *, decimals: int = 6) -> Decimal:
    """An amount kept as unit cost × nanoseconds, in money rounded to `decimals`."""
    return (unit_cost_ns / NS_PER_HOUR).quantize(Decimal(1).scaleb(-decimals))


def total(figures: Iterable[Figures]) -> Figures:
    """The sum of several."""
    whole = Figures()
    for one in figures:
        for name, value in one.amounts.items():
            if value is not None:
                whole.amounts[name] = (whole.amounts[name] or 0) + value
        whole.measured += one.measured
        whole.unpriced += one.unpriced
        whole.prices |= one.prices
        for mine, theirs in ((whole.cost, one.cost), (whole.waste_cost, one.waste_cost)):
            for currency, amount in theirs.items():
                with exact():
                    mine[currency] = mine.get(currency, Decimal(0)) + amount
        for origin, held in one.origins.items():
            whole.origins[origin] = whole.origins.get(origin, 0) + held
    return whole
