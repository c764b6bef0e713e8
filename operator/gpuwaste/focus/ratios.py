"""Exact ratios and exact products, a whole column at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.focus.columns import AMOUNT_TYPE

if TYPE_CHECKING:
    from collections.abc import Callable
    from decimal import Decimal

    from numpy.typing import NDArray

__all__ = [
    "AMOUNT_DECIMALS",
    "AMOUNT_DIGITS",
    "MAX_ORIGIN_DIGITS",
    "MAX_RATIO_DECIMALS",
    "MIN_RATIO_DECIMALS",
    "decimals_used",
    "digits_used",
    "largest_remainder_units",
    "multiply_exact",
    "ratio_decimals",
    "ratio_units",
    "scaled_decimal",
]

AMOUNT_DECIMALS: Final = 28
AMOUNT_DIGITS: Final = 38
MAX_RATIO_DECIMALS: Final = 12
MIN_RATIO_DECIMALS: Final = 6
"""An origin whose amounts leave less room for the decimals of ratios is not divided."""
MAX_ORIGIN_DIGITS: Final = 10
_MAX_TOTAL: Final = (1 << 63) // 10


def largest_remainder_units(
    weight: NDArray[np.int64], group: NDArray[np.int64], decimals: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Ratios of each group's members as whole units of 10⁻ᵈ that add up to exactly 10ᵈ (Hamilton's method).

    The quotient is formed digit by digit, as in long division by hand, so that nothing leaves int64.

    Args:
        weight: int64[n_members], ≥ 0.
        group: int64[n_members], rising, from 0 to n_groups − 1.
        decimals: int64[n_groups], the decimals of each group's ratios, 0 to 12.

    Returns:
        int64[n_members]; among equal remainders the member that comes first gets the unit.

    Raises:
        ValueError: a group without a positive weight, or a negative weight.
        OverflowError: the weights of a group add up to 2⁶³/10 or more.
    """
    total = np.zeros(len(decimals), np.int64)
    np.add.at(total, group, weight)
    if (weight < 0).any() or (total <= 0).any():
        raise ValueError("ratios need non-negative weights, at least one of them positive in every group")
    if (total >= _MAX_TOTAL).any():
        raise OverflowError(f"the weights of one group must stay below {_MAX_TOTAL}")
    divisor = total[group]
    units, remainder = np.divmod(weight, divisor)
    for digit in range(int(decimals.max(initial=0))):
        live = decimals[group] > digit
        step, rest = np.divmod(remainder * 10, divisor)
        units = np.where(live, units * 10 + step, units)
        remainder = np.where(live, rest, remainder)
    given = np.zeros(len(decimals), np.int64)
    np.add.at(given, group, units)
    left = 10**decimals - given
    order = np.lexsort((-remainder, group))
    of = group[order]
    rank = np.arange(len(order)) - np.searchsorted(of, of, side="left")
    units[order] += rank < left[of]
    return units


def ratio_units(weight: NDArray[np.int64], group: NDArray[np.int64], decimals: NDArray[np.int64]) -> NDArray[np.int64]:
    """As `largest_remainder_units`, but all in units of 10⁻¹²; the digits behind a group's decimals are zeros."""
    units: NDArray[np.int64] = largest_remainder_units(weight, group, decimals) * 10 ** (
        MAX_RATIO_DECIMALS - decimals[group]
    )
    return units


def scaled_decimal(units: NDArray[np.int64], decimals: int) -> pa.Array:
    """int64 units of 10⁻ᵈ as decimal128(38, d), without a division."""
    whole = pa.array(units).cast(pa.decimal128(19, 0))
    return pa.Array.from_buffers(pa.decimal128(38, decimals), len(whole), whole.buffers())


def multiply_exact(amount: pa.Array, factor: pa.Array, kind: pa.DataType = AMOUNT_TYPE) -> pa.Array:
    """The product of two decimal columns as another, DECIMAL(38,28) unless said otherwise.

    Raises:
        pyarrow.ArrowInvalid: a product has more digits than that; nothing is rounded.
    """
    # 38 + 37 + 1 digits are what DECIMAL(76) holds.
    product = pc.multiply(
        amount.cast(pa.decimal256(38, amount.type.scale)), factor.cast(pa.decimal256(37, factor.type.scale))
    )
    return product.cast(kind)


def decimals_used(amounts: pa.Array) -> NDArray[np.int64]:
    """How many decimals each value needs, trailing zeros left out; 0 for null."""
    return _per_value(amounts, lambda value: len(f"{value:f}".partition(".")[2].rstrip("0")))


def digits_used(amounts: pa.Array) -> NDArray[np.int64]:
    """How many digits each value has before the point; 0 for null."""
    return _per_value(amounts, lambda value: max(value.adjusted() + 1, 1) if value else 1)


def _per_value(amounts: pa.Array, measure: Callable[[Decimal], int]) -> NDArray[np.int64]:
    coded = pc.dictionary_encode(amounts)
    found = [measure(value) for value in coded.dictionary.to_pylist()]
    indices = pc.fill_null(coded.indices, len(found)).to_numpy(zero_copy_only=False)
    per_value: NDArray[np.int64] = np.array([*found, 0], np.int64)[indices]
    return per_value


def ratio_decimals(origin_decimals: NDArray[np.int64]) -> NDArray[np.int64]:
    """The decimals that the ratios of a charge may have: min(12, 28 − decimals of the charge's amounts)."""
    return np.minimum(MAX_RATIO_DECIMALS, AMOUNT_DECIMALS - origin_decimals)
