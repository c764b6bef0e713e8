"""Exact money: one decimal context in which rounding by accident is an error."""

from __future__ import annotations

from contextlib import contextmanager
from decimal import Context, Decimal, Inexact, InvalidOperation, localcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["EXACT", "PRICE_DECIMALS", "exact", "parse_price", "plain"]

PRICE_DECIMALS = 12
EXACT = Context(prec=60, traps=[Inexact, InvalidOperation])
"""Precision 60: DECIMAL(38,28) × DECIMAL(38,18) fits, so that any rounding at all is a mistake."""


@contextmanager
def exact() -> Iterator[None]:
    """Calculate with `EXACT` inside the block."""
    with localcontext(EXACT):
        yield


def parse_price(text: str | int | Decimal, *, what: str) -> Decimal:
    """Read an amount of money a unit: not negative, finite, at most 12 decimals; never a binary float.

    Args:
        text: as a file holds it.
        what: name of the field, for the message.

    Raises:
        ValueError: one sentence that names the field and what is wrong.
    """
    try:
        price = Decimal(str(text).strip())
    except InvalidOperation:
        raise ValueError(f"{what} must be a number like 2.50, not {text!r}") from None
    if not price.is_finite():
        raise ValueError(f"{what} must be finite, not {text!r}")
    if price < 0:
        raise ValueError(f"{what} must not be negative, and is {text}")
    exponent = price.normalize().as_tuple().exponent
    if isinstance(exponent, int) and -exponent > PRICE_DECIMALS:
        raise ValueError(f"{what} must not have more than {PRICE_DECIMALS} decimals, and is {text}")
    return price


def plain(amount: Decimal, *, decimals: int = 2) -> str:
    """An amount for people: `decimals` places, thousands apart, no exponent."""
    return f"{amount:,.{decimals}f}"
