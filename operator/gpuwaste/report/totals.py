"""Sums of GPU time and of its cost: exact, addable, and honest about what has no price or no measurement."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

from gpuwaste.ledger.schema import AMOUNT_COLUMNS, WASTE_CATEGORIES
from gpuwaste.model.money import exact
from gpuwaste.model.units import NS_PER_HOUR

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["CATEGORIES", "MEASURES", "Totals", "amount", "gpu_hours"]

CATEGORIES = (*WASTE_CATEGORIES, "unprovisioned")
"""All parts of net waste; `unprovisioned` is capacity that is paid for and in no cluster."""

MEASURES = (*AMOUNT_COLUMNS, "unprovisioned")
"""Sums in nanoseconds of GPU. Duty and effective are None where nothing was measured."""

_AMOUNT_STEP = Decimal("1e-12")
_HOURS_STEP = Decimal("1e-6")
_ROUNDING = Context(prec=60, rounding=ROUND_HALF_EVEN)
_PPM = 1_000_000


def amount(money_ns: Decimal) -> Decimal:
    """Money from Σ unit cost × nanoseconds, rounded to 12 decimals."""
    return _ROUNDING.divide(money_ns, Decimal(NS_PER_HOUR)).quantize(_AMOUNT_STEP, context=_ROUNDING)


def gpu_hours(ns: int) -> Decimal:
    """GPU-hours of nanoseconds of GPU, rounded to 6 decimals."""
    return _ROUNDING.divide(Decimal(ns), Decimal(NS_PER_HOUR)).quantize(_HOURS_STEP, context=_ROUNDING)


def _plus(left: int | None, right: int | None) -> int | None:
    if left is None or right is None:
        return left if right is None else right
    return left + right


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sums over some rows of the ledger.

    Attributes:
        ns: nanoseconds of GPU of every measure of `MEASURES`.
        money_ns: by currency and measure, Σ unit cost × nanoseconds: exact, see `amount`.
        unpriced_ns: owned nanoseconds for which no price is known; they are in no amount.
        covered_ppm: Σ held × the part of it that readings cover, in millionths.
    """

    ns: Mapping[str, int | None] = field(default_factory=lambda: dict.fromkeys(MEASURES, 0))
    money_ns: Mapping[str, Mapping[str, Decimal]] = field(default_factory=dict)
    unpriced_ns: int = 0
    covered_ppm: int = 0

    @classmethod
    def of_row(cls, row: Mapping[str, Decimal | int | str | None]) -> Totals:
        """The totals of one row of `sums.sql`: one price, or none."""
        ns = {name: None if row[name] is None else int(str(row[name])) for name in MEASURES}
        price, currency = row["unit_cost"], row["currency"]
        priced = isinstance(price, Decimal) and currency is not None
        money: dict[str, Mapping[str, Decimal]] = {}
        if priced:
            with exact():
                money[str(currency)] = {name: Decimal(str(price)) * (value or 0) for name, value in ns.items()}
        return cls(
            ns=ns,
            money_ns=money,
            unpriced_ns=0 if priced else ns["owned"] or 0,
            covered_ppm=int(str(row["covered_ppm"] or 0)),
        )

    @classmethod
    def sum(cls, parts: Iterable[Totals]) -> Totals:
        """All parts together."""
        first, *rest = [*parts] or [cls(ns=dict.fromkeys(MEASURES))]
        total = first
        for part in rest:
            total = total + part
        return cls(
            ns={
                name: value if name.startswith(("duty", "effective")) else value or 0
                for name, value in total.ns.items()
            },
            money_ns=total.money_ns,
            unpriced_ns=total.unpriced_ns,
            covered_ppm=total.covered_ppm,
        )

    def __add__(self, other: Totals) -> Totals:
        """Both together; currencies stay apart, and unmeasured + measured is what was measured."""
        with exact():
            money = {
                currency: {
                    name: self.money_ns.get(currency, {}).get(name, Decimal(0))
                    + other.money_ns.get(currency, {}).get(name, Decimal(0))
                    for name in MEASURES
                }
                for currency in sorted({*self.money_ns, *other.money_ns})
            }
        return Totals(
            ns={name: _plus(self.ns[name], other.ns[name]) for name in MEASURES},
            money_ns=money,
            unpriced_ns=self.unpriced_ns + other.unpriced_ns,
            covered_ppm=self.covered_ppm + other.covered_ppm,
        )

    def time(self, measure: str) -> int:
        """Nanoseconds of a measure, or of `waste`; what is unmeasured counts 0 here."""
        if measure == "waste":
            return sum(self.ns[name] or 0 for name in CATEGORIES)
        return self.ns[measure] or 0

    def cost(self, measure: str = "owned") -> dict[str, Decimal]:
        """Money of a measure, or of `waste`, by currency, rounded to 12 decimals; empty where no price is known."""
        names = CATEGORIES if measure == "waste" else (measure,)
        with exact():
            sums = {currency: sum((by[n] for n in names), Decimal(0)) for currency, by in self.money_ns.items()}
        return {currency: amount(value) for currency, value in sums.items()}

    def share(self, measure: str, *, of: str = "owned") -> Fraction | None:
        """A measure as a part of another; None where the whole is 0."""
        whole = self.time(of)
        return Fraction(self.time(measure), whole) if whole else None

    @property
    def waste_share(self) -> Fraction | None:
        """Net waste as a part of what is owned; None where that is 0, or where nothing of what is held was measured."""
        unknown = self.time("held") and not self.covered_ppm and self.time("unmeasured")
        return None if unknown else self.share("waste")

    @property
    def measured_share(self) -> Fraction | None:
        """The part of held time that readings cover; None where nothing was held."""
        held = self.time("held")
        return Fraction(self.covered_ppm, held * _PPM) if held else None
