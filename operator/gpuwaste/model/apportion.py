"""Divide whole amounts into whole parts that add up exactly (largest remainder, Hamilton's method)."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["apportion_exact", "apportion_groups", "apportion_ratios", "mul_div", "share_of"]

_NARROW, _WIDE = (36, 44, 18), (42, 48, 14)
"""Bits of the factors, bits of the divisor, bits of a piece: for windows of a minute, and for those of an hour."""


def mul_div(
    a: NDArray[np.int64], b: NDArray[np.int64], c: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Quotient and remainder of a × b / c without leaving int64.

    The product of two minute-long nanosecond counts needs 72 bits, so b is taken in pieces: two of 18 bits where all
    factors are below 2³⁶ and divisors below 2⁴⁴, else three of 14 bits.

    Args:
        a: int64, 0 ≤ a < 2⁴² (an hour has 1.6 × 2⁴¹ nanoseconds).
        b: int64, 0 ≤ b < 2⁴².
        c: int64, 0 < c < 2⁴⁸, and not below both a and b: the quotient then fits.

    Returns:
        Floor of the quotient and the remainder, int64 each.

    Raises:
        OverflowError: an argument lies outside these ranges.
    """
    if not a.size:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    if int(a.min()) < 0 or int(b.min()) < 0 or int(c.min()) <= 0:
        raise OverflowError("mul_div takes no negative factors and only positive divisors")
    factor, divisor = max(int(a.max()), int(b.max())).bit_length(), int(c.max()).bit_length()
    if factor > _WIDE[0] or divisor > _WIDE[1]:
        raise OverflowError(f"mul_div takes factors below 2**{_WIDE[0]} and divisors below 2**{_WIDE[1]}")
    if (np.minimum(a, b) > c).any():
        raise OverflowError("mul_div takes a divisor that is not below both factors")
    factor_bits, _, bits = _NARROW if factor <= _NARROW[0] and divisor <= _NARROW[1] else _WIDE
    mask = (1 << bits) - 1
    quotient, rest = np.divmod(a * (b >> (factor_bits - bits)), c)
    for shift in range(factor_bits - 2 * bits, -1, -bits):
        low_quotient, rest = np.divmod((rest << bits) + a * ((b >> shift) & mask), c)
        quotient = (quotient << bits) + low_quotient
    return quotient, rest


def apportion_groups(
    amount: NDArray[np.int64], weight: NDArray[np.int64], group: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Divide each group's amount among its members in proportion to their weights.

    Each member gets the floor of its quota; what is left goes, one by one, to the largest remainders and,
    among equals, to the member that comes first. A group whose weights are all zero gets nothing.

    Args:
        amount: int64[n_groups], what is to be divided, ≥ 0.
        weight: int64[n_members], ≥ 0.
        group: int64[n_members], the group of each member.

    Returns:
        int64[n_members]; for every group with a positive weight the parts add up to its amount exactly.
    """
    total = np.zeros(len(amount), np.int64)
    np.add.at(total, group, weight)
    parts = np.zeros(len(weight), np.int64)
    live = np.flatnonzero((weight > 0) & (amount[group] > 0))
    if not live.size:
        return parts
    of = group[live]
    quota, remainder = mul_div(amount[of], weight[live], total[of])
    given = np.zeros(len(amount), np.int64)
    np.add.at(given, of, quota)
    left = amount - given
    # Rank inside the group: remainder downwards, then position. lexsort's last key is its first.
    order = np.lexsort((live, -remainder, of))
    sorted_of = of[order]
    first = np.searchsorted(sorted_of, sorted_of, side="left")
    rank = np.arange(len(order)) - first
    quota[order] += rank < left[sorted_of]
    parts[live] = quota
    return parts


def share_of(part: NDArray[np.int64], whole: NDArray[np.int64], scale: int) -> NDArray[np.int64]:
    """⌊part × scale / whole⌋ without leaving int64, 0 where the whole is 0.

    Args:
        part: int64, 0 ≤ part.
        whole: int64, 0 ≤ whole < 2⁶³ / scale.
        scale: such as 1 000 000 for millionths.
    """
    divisor = np.maximum(whole, 1)
    quotient, rest = np.divmod(part, divisor)
    share: NDArray[np.int64] = np.where(whole > 0, quotient * scale + rest * scale // divisor, 0)
    return share


def apportion_exact(amount: int, weights: Sequence[int]) -> list[int]:
    """Divide a whole number of any size in proportion to weights of any size; the parts add up to it exactly.

    Raises:
        ValueError: no weight is positive, or one is negative.
    """
    total = sum(weights)
    if total <= 0 or min(weights) < 0:
        raise ValueError("parts need non-negative weights, at least one of them positive")
    quotas = [divmod(weight * amount, total) for weight in weights]
    left = amount - sum(quota for quota, _ in quotas)
    order = sorted(range(len(weights)), key=lambda i: (-quotas[i][1], i))
    parts = [quota for quota, _ in quotas]
    for i in order[:left]:
        parts[i] += 1
    return parts


def apportion_ratios(weights: Sequence[int], *, scale: int) -> list[Decimal]:
    """Ratios of `scale` decimals that stand for the weights and add up to exactly 1.

    Args:
        weights: non-negative integers of any size, at least one of them positive.
        scale: decimals of each ratio.

    Raises:
        ValueError: no weight is positive, or one is negative.
    """
    return [Decimal(unit).scaleb(-scale) for unit in apportion_exact(10**scale, weights)]
