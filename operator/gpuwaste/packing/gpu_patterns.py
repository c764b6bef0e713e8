"""Exact structure of shared GPUs: which shares fill one GPU, and whether shares fit on several."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.packing.instance import WHOLE_GPU_MILLI

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpuwaste.packing.instance import Floats, Ints

__all__ = ["maximal_patterns", "pack_shares", "share_weights"]

_SEARCH_LIMIT = 20_000


def maximal_patterns(sizes: Sequence[int], *, limit: int) -> Ints | None:
    """All ways to fill one GPU to which no further share can be added.

    Args:
        sizes: distinct share sizes in milli, 1 to 999.
        limit: give up above this many patterns.

    Returns:
        int64[Q, len(sizes)] of counts, or None if there are more than `limit`.
    """
    order = sorted(range(len(sizes)), key=lambda index: -sizes[index])
    descending = [sizes[index] for index in order]
    smallest = descending[-1] if descending else WHOLE_GPU_MILLI + 1
    found: list[list[int]] = []
    counts = [0] * len(descending)

    def fill(position: int, free: int) -> bool:
        if position == len(descending):
            # Maximal: nothing that was left out still fits.
            if free < smallest:
                found.append(counts.copy())
            return len(found) <= limit
        for count in range(free // descending[position], -1, -1):
            counts[position] = count
            if not fill(position + 1, free - count * descending[position]):
                return False
        counts[position] = 0
        return True

    if not fill(0, WHOLE_GPU_MILLI):
        return None
    patterns = np.zeros((len(found), len(sizes)), dtype=np.int64)
    if found:
        patterns[:, order] = np.array(found, dtype=np.int64)
    return patterns


def pack_shares(shares: Sequence[int], gpus: int) -> list[list[int]] | None:
    """Put shares on GPUs, exactly.

    Args:
        shares: milli of each share.
        gpus: how many empty GPUs there are.

    Returns:
        For each GPU the positions in `shares` it takes; None if no packing exists or the search, which is
        exhaustive up to a limit, found none.
    """
    order = sorted(range(len(shares)), key=lambda index: -shares[index])
    packed = _first_fit_decreasing(shares, order, gpus)
    if packed is not None or sum(shares) > gpus * WHOLE_GPU_MILLI:
        return packed
    return _search(shares, order, gpus)


def _first_fit_decreasing(shares: Sequence[int], order: list[int], gpus: int) -> list[list[int]] | None:
    free = [WHOLE_GPU_MILLI] * gpus
    packed: list[list[int]] = [[] for _ in range(gpus)]
    for index in order:
        for gpu in range(gpus):
            if shares[index] <= free[gpu]:
                free[gpu] -= shares[index]
                packed[gpu].append(index)
                break
        else:
            return None
    return packed


def _search(shares: Sequence[int], order: list[int], gpus: int) -> list[list[int]] | None:
    """Fill GPU after GPU around the largest share left; remember what was found impossible."""
    sizes = sorted(set(shares), reverse=True)
    pools = {size: [index for index in order if shares[index] == size] for size in sizes}
    dead: set[tuple[tuple[int, ...], int]] = set()
    steps = 0

    def solve(left: tuple[int, ...], bins: int) -> list[tuple[int, ...]] | None:
        nonlocal steps
        steps += 1
        volume = sum(size * count for size, count in zip(sizes, left, strict=True))
        if volume == 0:
            return []
        if volume > bins * WHOLE_GPU_MILLI or (left, bins) in dead or steps > _SEARCH_LIMIT:
            return None
        first = next(position for position, count in enumerate(left) if count)
        for taken in _fillings(sizes, left, first):
            rest = tuple(have - take for have, take in zip(left, taken, strict=True))
            tail = solve(rest, bins - 1)
            if tail is not None:
                return [taken, *tail]
        dead.add((left, bins))
        return None

    fillings = solve(tuple(len(pools[size]) for size in sizes), gpus)
    if fillings is None:
        return None
    packed = [
        [pools[size].pop() for size, count in zip(sizes, taken, strict=True) for _ in range(count)]
        for taken in fillings
    ]
    return packed + [[] for _ in range(gpus - len(packed))]


def _fillings(sizes: list[int], left: tuple[int, ...], first: int) -> list[tuple[int, ...]]:
    """Maximal fillings of one GPU that hold at least one share of size `first`, fullest first."""
    found: list[tuple[int, tuple[int, ...]]] = []
    counts = [0] * len(sizes)

    def fill(position: int, free: int) -> None:
        if position == len(sizes):
            if all(counts[index] == left[index] or size > free for index, size in enumerate(sizes)):
                found.append((free, tuple(counts)))
            return
        most = min(left[position], free // sizes[position])
        for count in range(most, (0 if position == first else -1), -1):
            counts[position] = count
            fill(position + 1, free - count * sizes[position])
        counts[position] = 0

    fill(first, WHOLE_GPU_MILLI)
    return [taken for _, taken in sorted(found)]


def share_weights(share: Ints, whole: Ints) -> list[Floats]:
    """Dual feasible functions: weights of pods such that one GPU carries at most 1, however it is filled.

    Volume, Martello and Toth's family (a share above 1 - e weighs 1 if shares below e weigh nothing) and the
    rounding of (k + 1) x by Fekete and Schepers.

    Args:
        share: int64[n] milli of each pod's share, 0 for none.
        whole: int64[n] whole GPUs of each pod; each weighs 1.
    """
    full = whole.astype(np.float64)
    weights = [full + share / WHOLE_GPU_MILLI]
    for edge in (100, 150, 200, 250, 300, 334, 400, 450, 500):
        weight = np.where(share > WHOLE_GPU_MILLI - edge, 1.0, np.where(share < edge, 0.0, share / WHOLE_GPU_MILLI))
        weights.append(full + weight)
    weights.append(full + (2 * share > WHOLE_GPU_MILLI))
    for parts in (2, 3, 4, 5):
        scaled = (parts + 1) * share
        exact = scaled % WHOLE_GPU_MILLI == 0
        weights.append(full + np.where(exact, share / WHOLE_GPU_MILLI, (scaled // WHOLE_GPU_MILLI) / parts))
    return weights
