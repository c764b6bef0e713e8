"""Rows of a summary as flat tables with stable column names, for commands and for other programs."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from gpuwaste.report.totals import CATEGORIES, gpu_hours

if TYPE_CHECKING:
    from collections.abc import Iterable
    from fractions import Fraction

    from gpuwaste.report.summary import Group
    from gpuwaste.report.totals import Totals

__all__ = ["flat_row", "flat_rows", "percent"]

_PERCENT_STEP = Decimal("0.01")


def percent(share: Fraction | None) -> Decimal | None:
    """A share as percent with two decimals; None stays None."""
    if share is None:
        return None
    return (Decimal(share.numerator * 100) / Decimal(share.denominator)).quantize(_PERCENT_STEP)


def _only_cost(totals: Totals, measure: str) -> Decimal | None:
    cost = totals.cost(measure)
    return next(iter(cost.values())) if len(cost) == 1 else None


def flat_row(group: Group) -> dict[str, Any]:
    """One group as flat values: GPU-hours with 6 decimals, money with 12, None for what is not known.

    `cost`, `used_cost` and `waste_cost` are None where no price is known or where there are several currencies;
    `costs` then holds each currency by itself. Where nothing was measured, what was used and the percentage of waste
    are not known, either.
    """
    totals = group.totals
    row: dict[str, Any] = dict(group.key)
    for measure in ("owned", "held", "duty", "effective", "borrowed", "lent"):
        value = totals.ns[measure]
        row[f"{measure}_gpu_hours"] = None if value is None else gpu_hours(value)
    row["waste_gpu_hours"] = gpu_hours(totals.time("waste"))
    for category in CATEGORIES:
        row[f"{category}_gpu_hours"] = gpu_hours(totals.time(category))
    row["waste_percent"] = percent(totals.waste_share)
    row["measured_percent"] = percent(totals.measured_share)
    row["currency"] = next(iter(totals.money_ns)) if len(totals.money_ns) == 1 else None
    row["cost"] = _only_cost(totals, "owned")
    used = {} if totals.ns["effective"] is None else totals.cost("effective")
    row["used_cost"] = next(iter(used.values())) if len(used) == 1 else None
    row["waste_cost"] = _only_cost(totals, "waste")
    row["unpriced_gpu_hours"] = gpu_hours(totals.unpriced_ns)
    row["costs"] = {
        currency: {"cost": cost, "used_cost": used.get(currency), "waste_cost": waste}
        for (currency, cost), waste in zip(totals.cost().items(), totals.cost("waste").values(), strict=True)
    }
    return row


def flat_rows(groups: Iterable[Group]) -> list[dict[str, Any]]:
    """All groups, in their order."""
    return [flat_row(group) for group in groups]
