"""Rounds a linear optimum step by step: what is nearly whole is fixed, the rest is optimised again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.packing.columns import Filling
from gpuwaste.packing.master import LpMaster

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpuwaste.packing.bound import Relaxed
    from gpuwaste.packing.columns import ColumnPool
    from gpuwaste.packing.instance import Floats, Ints

__all__ = ["chosen_fillings", "dive"]

_INTEGRAL = 1e-6
_NEARLY_WHOLE = 0.8
_STEP_PART = 0.1
"""Part of the fractional fillings that is rounded up in one step."""


def dive(task: Relaxed, pool: ColumnPool, *, time_left: Callable[[], float]) -> tuple[Ints, Ints]:
    """How often each filling of the pool is used, all whole.

    Args:
        task: what is minimised.
        pool: fillings; those the linear optimum does not use may be needed on the way.
        time_left: seconds until this must return.

    Returns:
        int64[len(pool)] copies within the supply, and int64[E] how often each slot is handed to each shape; some
        demand may be left over where time ran out or the fillings fixed first leave no room.
    """
    master = LpMaster(task)
    master.extend(pool)
    kind = np.array(pool.kinds, dtype=np.int64)
    fixed = np.zeros(len(pool), dtype=np.int64)
    handed = np.zeros(len(task.slots.source), dtype=np.int64)
    while time_left() > 0:
        solved = master.solve(seconds=time_left())
        if solved is None:
            break
        whole = np.floor(solved.copies + _INTEGRAL).astype(np.int64)
        part = solved.copies - whole
        handed = np.ceil(solved.handed - _INTEGRAL).astype(np.int64)
        fractional = np.flatnonzero(part > _INTEGRAL)
        target = np.maximum(fixed, whole)
        free = task.problem.supply - np.bincount(kind, weights=target, minlength=len(task.problem.supply))
        for column in _next_up(part, fractional).tolist():
            if free[kind[column]] >= 1:
                free[kind[column]] -= 1
                target[column] += 1
        for column in np.flatnonzero(target > fixed).tolist():
            master.at_least(column, int(target[column]))
        stuck = not (target > fixed).any()
        fixed = target
        if not len(fractional) or stuck:
            break
    return fixed, handed


def _next_up(part: Floats, fractional: Ints) -> Ints:
    """The fillings to round up: all that are nearly whole, at least a tenth of the fractional ones."""
    order = fractional[np.argsort(-part[fractional], kind="stable")]
    least = max(int(_STEP_PART * len(order)), 1)
    nearly = int((part[order] >= _NEARLY_WHOLE).sum())
    return order[: max(least, nearly)]


def chosen_fillings(pool: ColumnPool, copies: Ints) -> Filling:
    """The fillings that are used; int64[len(pool)] copies."""
    used = np.flatnonzero(copies)
    width = len(pool.patterns[0])
    pattern = np.array([pool.patterns[index] for index in used.tolist()], dtype=np.int64).reshape(-1, width)
    return Filling(kind=np.array(pool.kinds, dtype=np.int64)[used], pattern=pattern, copies=copies[used])
