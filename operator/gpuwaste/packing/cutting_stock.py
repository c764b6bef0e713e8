"""The best dual feasible function for the shares there are, from the cutting stock programme of one GPU.

The dual prices of its linear programme, over the value of the dearest filling of a GPU at these prices, are weights of
shares of which no GPU carries more than 1; no other weights make the shares heavier in all (Gilmore and Gomory 1961).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.packing.instance import WHOLE_GPU_MILLI
from gpuwaste.packing.linear import IncrementalLp, Program

if TYPE_CHECKING:
    from gpuwaste.packing.instance import Floats, Ints

__all__ = ["cutting_stock_weights", "dearest_filling"]

_MOST_SIZES = 120
_MOST_ROUNDS = 300
_LP_SECONDS = 1.0
_CLOSE_ENOUGH = 1e-3
_EPSILON = 1e-12
_SAFETY = 1e-9
"""Relative slack given away to rounding in floating point."""


def cutting_stock_weights(share: Ints, demand: Ints) -> Floats:
    """Weights of shares such that one GPU carries at most 1, however it is filled.

    Args:
        share: int64[n] milli of each share, 0 for none.
        demand: int64[n] how many there are of each.

    Returns:
        float64[n]; 0 where there is no share. Shares of the same size weigh the same.
    """
    weights = np.zeros(len(share))
    shared = np.flatnonzero((share > 0) & (demand > 0))
    if not len(shared):
        return weights
    sizes, count = _buckets(share[shared], demand[shared])
    best, most = np.zeros(len(sizes)), 0.0
    programme = _Programme(sizes, count)
    for _ in range(_MOST_ROUNDS):
        solved = programme.solve()
        if solved is None:
            break
        needed, price = solved
        worth, filling = dearest_filling(sizes, price)
        found = price / max(worth * (1 + _SAFETY), 1.0)
        if found @ count > most:
            best, most = found, float(found @ count)
        if needed - most <= _CLOSE_ENOUGH * needed:
            break
        programme.add(filling)
    # A share that nobody asks for weighs as the next smaller one that somebody does.
    position = np.searchsorted(sizes, share, side="right") - 1
    weights[:] = np.where((share > 0) & (position >= 0), best[np.maximum(position, 0)], 0.0)
    return weights


def _buckets(share: Ints, demand: Ints) -> tuple[Ints, Ints]:
    """Sizes in ascending order, each the smallest of its bucket, and how many shares the bucket has."""
    distinct, position = np.unique(share, return_inverse=True)
    count = np.bincount(position, weights=demand).astype(np.int64)
    if len(distinct) <= _MOST_SIZES:
        return distinct, count
    load = np.cumsum(distinct * count)
    bucket = load * _MOST_SIZES // (load[-1] + 1)
    # A half is the end of a bucket: two shares up to it fit on a GPU, and none above it do.
    _, first, bucket = np.unique(2 * bucket + (2 * distinct > WHOLE_GPU_MILLI), return_index=True, return_inverse=True)
    return distinct[first], np.bincount(bucket, weights=count).astype(np.int64)


class _Programme:
    """Fewest GPUs, in pieces, for the shares: its columns are ways to fill one GPU."""

    def __init__(self, sizes: Ints, count: Ints) -> None:
        alone = np.arange(len(sizes))
        self._lp = IncrementalLp(
            Program(
                cost=np.ones(len(sizes)),
                lower=np.zeros(len(sizes)),
                upper=np.full(len(sizes), np.inf),
                row=alone,
                column=alone,
                value=(WHOLE_GPU_MILLI // sizes).astype(np.float64),
                row_lower=count.astype(np.float64),
                row_upper=np.full(len(sizes), np.inf),
            )
        )

    def solve(self) -> tuple[float, Floats] | None:
        solved = self._lp.solve(seconds=_LP_SECONDS, prices_only=True)
        return None if solved is None else (solved.objective, np.maximum(solved.duals, 0.0))

    def add(self, filling: Ints) -> None:
        held = np.flatnonzero(filling)
        self._lp.add_column(cost=1.0, rows=held.tolist(), values=filling[held].astype(np.float64).tolist())


def dearest_filling(sizes: Ints, price: Floats) -> tuple[float, Ints]:
    """The filling of one GPU that is worth most, by dynamic programming over its 1000 milli.

    Args:
        sizes: int64[n] distinct shares, 1 to 1000.
        price: float64[n] of each, >= 0.

    Returns:
        Its worth, and int64[n] how often it holds each size.
    """
    best = np.zeros(WHOLE_GPU_MILLI + 1)
    last = np.full(WHOLE_GPU_MILLI + 1, -1, dtype=np.int64)
    for index, (size, worth) in enumerate(zip(sizes.tolist(), price.tolist(), strict=True)):
        if worth <= 0.0:
            continue
        # Rows are one more share of the size each: best[c] = max over m of best[c - m size] + m worth.
        rows = -(-len(best) // size)
        table = np.full(rows * size, -np.inf)
        table[: len(best)] = best
        shares = worth * np.arange(rows)[:, None]
        table = (np.maximum.accumulate(table.reshape(rows, size) - shares, axis=0) + shares).reshape(-1)[: len(best)]
        better = table > best + _EPSILON
        best[better] = table[better]
        last[better] = index
    filling = np.zeros(len(sizes), dtype=np.int64)
    free = WHOLE_GPU_MILLI
    while free > 0:
        if last[free] < 0:
            free -= 1
            continue
        filling[last[free]] += 1
        free -= int(sizes[last[free]])
    return float(best[WHOLE_GPU_MILLI]), filling
