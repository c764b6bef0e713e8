"""Figures as the short texts that kubectl's columns print."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from gpuwaste.api import (
    UNKNOWN,
    UNMEASURED,
    ActivitySource,
    Amount,
    PriceSource,
    SourceShare,
    UnitPrice,
    WindowFigures,
)
from gpuwaste.model.money import plain
from gpuwaste.model.units import HOUR, HOURS_PER_MONTH, NS_PER_HOUR
from gpuwaste.waste.figures import gpu_hours, money_of

if TYPE_CHECKING:
    from decimal import Decimal
    from typing import Any

    from gpuwaste.waste.figures import Figures
    from gpuwaste.waste.windows import LedgerWindow

__all__ = [
    "cost_per_month",
    "hours_text",
    "measured_percent",
    "month_amounts",
    "percent_text",
    "unit_price",
    "waste_percent",
    "window_values",
]

_PROJECTION_NEEDS = 24
_SOURCES = {
    "gpm": ActivitySource.GPM,
    "dcgm_prof": ActivitySource.DCGM_PROFILING,
    "process": ActivitySource.PROCESS,
    "device": ActivitySource.DEVICE,
    "apportioned": ActivitySource.APPORTIONED,
}


def hours_text(amount_ns: int | None) -> str:
    """GPU-hours with two decimals, `<unmeasured>` for None."""
    return UNMEASURED if amount_ns is None else f"{gpu_hours(amount_ns):.2f}"


def percent_text(percent: int | None) -> str:
    """A whole percentage, `<unmeasured>` for None."""
    return UNMEASURED if percent is None else str(percent)


def waste_percent(figures: Figures, *, of: str) -> int | None:
    """Net waste in percent of a column; None where nothing of it was measured."""
    whole = figures[of]
    if not whole or (figures["held"] and not figures.measured and figures["unmeasured"]):
        return None
    return min(100, round(100 * figures.waste / whole))


def measured_percent(figures: Figures) -> int | None:
    """The part of the held time whose activity was measured."""
    held = figures["held"]
    return min(100, round(100 * figures.measured / held)) if held else None


def month_amounts(figures: Figures, window: LedgerWindow) -> tuple[Amount, Amount] | None:
    """Cost and waste cost projected to 730 hours; None under 24 hours of data or without a price."""
    known = figures.known_cost
    if known is None or window.hours < _PROJECTION_NEEDS:
        return None
    cost, waste, currency = known
    seconds = round((window.to_time - window.from_time).total_seconds())

    def month(amount: Decimal) -> Amount:
        projected = amount * HOURS_PER_MONTH * round(HOUR.total_seconds()) / seconds
        return Amount(amount=money_of(projected, decimals=2), currency=currency)

    return month(cost), month(waste)


def cost_per_month(figures: Figures, window: LedgerWindow) -> str:
    """The projected month, for a column: `<unknown>` without a price, `collecting` under a day of data."""
    if figures.known_cost is None:
        return UNKNOWN
    month = month_amounts(figures, window)
    return "collecting" if month is None else f"{plain(month[0].amount)} {month[0].currency}"


def window_values(figures: Figures, window: LedgerWindow, *, of: str) -> dict[str, Any]:
    """The fields that `WindowFigures` shares between workloads and pools.

    Args:
        figures: of the holders, or of the pool.
        window: the time.
        of: the column that waste is a part of: `held` or `owned`.
    """
    hours = {
        name: None if figures.amounts[name] is None else gpu_hours(figures[name])
        for name in ("duty", "effective", "effective_low", "effective_high", "borrowed", "lent")
    }
    known = figures.known_cost
    fields: dict[str, Any] = {
        "window": window.length,
        "from_time": window.from_time,
        "to_time": window.to_time,
        "held_gpu_hours": gpu_hours(figures["held"]),
        **{f"{name}_gpu_hours": value for name, value in hours.items()},
        "waste_percent": waste_percent(figures, of=of),
        "measured_percent": measured_percent(figures),
        "sources": sources(figures),
    }
    if known is not None:
        cost, waste, currency = known
        fields["cost"] = Amount(amount=money_of(cost), currency=currency)
        fields["waste_cost"] = Amount(amount=money_of(waste), currency=currency)
    return {name: value for name, value in fields.items() if name in WindowFigures.model_fields}


def sources(figures: Figures) -> tuple[SourceShare, ...]:
    """What the activity was read from, the largest part first."""
    held = sum(figures.origins.values())
    by_source: dict[ActivitySource, int] = {}
    for origin, amount in figures.origins.items():
        source = _SOURCES.get(origin, ActivitySource.UNMEASURED)
        by_source[source] = by_source.get(source, 0) + amount
    ordered = sorted(by_source.items(), key=lambda item: (-item[1], item[0]))
    return tuple(SourceShare(source=source, percent=round(100 * amount / held)) for source, amount in ordered)


def unit_price(figures: Figures) -> UnitPrice | None:
    """The price of a GPU-hour, where all of the time has one price from one source."""
    known, owned = figures.known_cost, figures["owned"]
    if known is None or not owned or len(figures.prices) != 1:
        return None
    ((source, day),) = figures.prices
    amount = money_of(known[0] * NS_PER_HOUR / owned)
    return UnitPrice(amount=amount, currency=known[2], source=PriceSource(source), date=date.fromisoformat(day))
