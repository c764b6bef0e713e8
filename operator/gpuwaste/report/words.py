"""How figures and names look to people: the same in every table and on the page."""

from __future__ import annotations

from decimal import ROUND_FLOOR, Decimal
from typing import TYPE_CHECKING

from gpuwaste.model.money import plain
from gpuwaste.report.totals import CATEGORIES, gpu_hours

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from fractions import Fraction

    from gpuwaste.report.totals import Totals

__all__ = [
    "CATEGORY_TEXT",
    "ORIGIN_TEXT",
    "count_text",
    "day_text",
    "headline_money",
    "hours_text",
    "money_text",
    "percent_text",
    "price_text",
    "shown_parts",
    "time_text",
    "waterfall_money",
]

CATEGORY_TEXT: dict[str, tuple[str, str]] = {
    "effective": ("Did work", "SM time: how much of the GPU's multiprocessors worked, and for how long."),
    "idle": ("Idle", "Held, and every engine that is measured stood at zero."),
    "underused": ("Underused", "Held and busy, but part of the multiprocessors had nothing to do."),
    "starting": ("Starting", "Held, and not yet used for the first time; counted apart for 15 minutes at most."),
    "unallocated": ("Unallocated", "Healthy, free, and fit for a pod; nobody asked for it."),
    "stranded": ("Stranded", "Free, but CPU, memory or MIG geometry keep every pod away from it."),
    "unhealthy": ("Unhealthy", "Lost, with a hardware error, or on a node that is not ready."),
    "unmeasured": ("Unmeasured", "Held, and what was done with it is not known. It is not called used."),
    "unprovisioned": ("Unprovisioned", "Paid for, and in no cluster yet or any more."),
    "lent": ("Lent", "Held by one, used by another who shares the GPU. It is no waste."),
}
"""Title and one sentence for every part into which paid GPU time is divided, in the order in which they stand."""

ORIGIN_TEXT: dict[str, tuple[str, str]] = {
    "gpm": ("NVML GPM counters", "SM time, measured"),
    "dcgm_prof": ("DCGM profiling fields", "SM time, measured"),
    "apportioned": ("Measured total, apportioned", "SM time of a shared GPU, divided by its holders' own activity"),
    "process": ("NVML process utilization", "busy time only: an upper end, the lower end is zero"),
    "device": ("NVML device utilization", "busy time of the whole device only: an upper end"),
}
"""What a reading is, and what it can say."""

_SYMBOLS = {"USD": "$", "EUR": "€", "GBP": "£"}
_LARGE = Decimal(10_000)
_NEARLY = Decimal("0.995")


def count_text(count: int, thing: str) -> str:
    """`1 node`, `1,000 nodes`."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def money_text(cost: Mapping[str, Decimal], *, short: bool = False) -> str:
    """Amounts of each currency side by side, never added; `unknown` where no price is known."""
    texts = (
        _amount(currency, value, decimals=0 if short and abs(value) >= _LARGE else 2)
        for currency, value in cost.items()
    )
    return " + ".join(texts) or "unknown"


def _amount(currency: str, value: Decimal, *, decimals: int) -> str:
    symbol = _SYMBOLS.get(currency)
    text = plain(abs(value), decimals=decimals)
    sign = "−" if round(value, decimals) < 0 else ""
    return f"{sign}{symbol}{text}" if symbol else f"{sign}{text} {currency}"


def shown_parts(whole: Decimal, parts: Sequence[Decimal], *, decimals: int) -> list[Decimal]:
    """Parts of a whole rounded so that they add up to the whole as it is shown: the largest remainders are rounded up.

    Args:
        whole: the sum of the parts.
        parts: what it is divided into.
        decimals: with how many decimals all are shown.
    """
    step = Decimal(1).scaleb(-decimals)
    floors = [part.quantize(step, rounding=ROUND_FLOOR) for part in parts]
    missing = int((round(whole, decimals) - sum(floors, Decimal(0))) / step)
    largest = sorted(range(len(parts)), key=lambda i: floors[i] - parts[i])
    for i in largest[: max(missing, 0)]:
        floors[i] += step
    return floors


def _shown(totals: Totals, currency: str, *, decimals: int) -> dict[str, Decimal]:
    """Amounts of all measures, rounded so that work and waste add up to what was paid, and its kinds to the waste."""
    whole, effective, waste = (totals.cost(name)[currency] for name in ("owned", "effective", "waste"))
    worked, wasted = shown_parts(whole, (effective, waste), decimals=decimals)
    kinds = shown_parts(wasted, [totals.cost(name)[currency] for name in CATEGORIES], decimals=decimals)
    sums = {"owned": round(whole, decimals), "effective": worked, "waste": wasted}
    return sums | dict(zip(CATEGORIES, kinds, strict=True))


def headline_money(totals: Totals) -> dict[str, str]:
    """What was paid, what of it did work, was wasted and is unmeasured, as texts that add up as they are shown.

    `unmeasured` is a part of `waste`, and empty where there is none.
    """
    shown: dict[str, dict[str, Decimal]] = {name: {} for name in ("owned", "effective", "waste", "unmeasured")}
    for currency, whole in totals.cost().items():
        amounts = _shown(totals, currency, decimals=0 if abs(whole) >= _LARGE else 2)
        for name, by in shown.items():
            by[currency] = amounts[name]
    texts = {name: _money_line(by, whole=totals.cost()) for name, by in shown.items()}
    return texts if any(shown["unmeasured"].values()) else texts | {"unmeasured": ""}


def waterfall_money(totals: Totals) -> dict[str, str]:
    """Texts of what was paid, of each kind of waste and of what did work, in cents that add up."""
    shown = {currency: _shown(totals, currency, decimals=2) for currency in totals.cost()}
    return {
        name: money_text({currency: amounts[name] for currency, amounts in shown.items()})
        for name in ("owned", "effective", *CATEGORIES)
    }


def _money_line(amounts: Mapping[str, Decimal], *, whole: Mapping[str, Decimal]) -> str:
    """Amounts with the decimals of the whole that they are parts of."""
    return " + ".join(
        _amount(currency, value, decimals=0 if abs(whole[currency]) >= _LARGE else 2)
        for currency, value in amounts.items()
    )


def price_text(currency: str | None, unit_cost: Decimal | None) -> str:
    """A price of one GPU-hour, with as many decimals as it has and at least two."""
    if currency is None or unit_cost is None:
        return "unknown"
    exponent = unit_cost.normalize().as_tuple().exponent
    decimals = max(2, -exponent) if isinstance(exponent, int) else 2
    symbol = _SYMBOLS.get(currency)
    text = plain(unit_cost, decimals=decimals)
    return f"{symbol}{text}" if symbol else f"{text} {currency}"


def hours_text(ns: int | None) -> str:
    """GPU-hours, with a decimal below a thousand."""
    if ns is None:
        return "unmeasured"
    value = gpu_hours(ns)
    return plain(value, decimals=1 if value < 1000 else 0)  # noqa: PLR2004 (a thousand, as the sentence above says)


def percent_text(share: Fraction | None) -> str:
    """A share in whole percent; what is not all or nothing is never shown as 100 % or 0 %."""
    if share is None:
        return "–"
    value = Decimal(share.numerator) / Decimal(share.denominator)
    if 0 < value < 1 - _NEARLY:
        return "<1 %"
    if _NEARLY < value < 1:
        return ">99 %"
    return f"{value * 100:.0f} %"


def time_text(time: datetime) -> str:
    """A moment in UTC as people write it."""
    return f"{time.day} {time:%b %Y %H:%M}"


def day_text(time: datetime) -> str:
    """A day as people write it."""
    return f"{time.day} {time:%b}"
