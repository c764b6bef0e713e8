"""Rounds a linear optimum step by step: what is nearly whole is fixed, the rest is optimised again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.packing.columns import Filling
from gpuwaste.packing.generation import COARSE, keep_improving, price_all
from gpuwaste.packing.master import LpMaster

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpuwaste.packing.bound import Relaxed
    from gpuwaste.packing.columns import ColumnPool
    from gpuwaste.packing.instance import Floats, Ints
    from gpuwaste.packing.master import Duals
    from gpuwaste.packing.pricing import TypePricer

__all__ = ["chosen_fillings", "dive", "fix", "optimum"]

_INTEGRAL = 1e-6
_NEARLY_WHOLE = 0.8


def dive(
    task: Relaxed,
    pool: ColumnPool,
    pricers: list[TypePricer],
    *,
    pricings: int,
    step_part: float,
    time_left: Callable[[], float],
    begin: Ints | None = None,
) -> tuple[Ints, Ints]:
    """How often each filling of the pool is used, all whole.

    Args:
        task: what is minimised.
        pool: fillings; gets those that suit what is left after each step.
        pricers: one for each type.
        pricings: most pricings after one step. Fillings found for the whole demand waste room when little of it
            is left; looking for new ones takes seconds.
        step_part: least part of the fractional fillings that is rounded up in one step.
        time_left: seconds until this must return.
        begin: int64[len(pool)] copies that are fixed already.

    Returns:
        int64[len(pool)] copies within the supply, and int64[E] how often each slot is handed to each shape; some
        demand may be left over where time ran out or the fillings fixed first leave no room.
    """
    master = LpMaster(task)
    fixed = np.zeros(len(pool), dtype=np.int64) if begin is None else begin
    if begin is not None:
        master.extend(pool)
        fix(master, begin)
    handed = np.zeros(len(task.slots.source), dtype=np.int64)
    supply = task.problem.supply
    while time_left() > 0:
        rounds = pricings if fixed.any() else 0
        solved = optimum(task, pool, pricers, master, fixed=fixed, rounds=rounds, time_left=time_left)
        if solved is None:
            break
        fixed = np.concatenate([fixed, np.zeros(len(pool) - len(fixed), dtype=np.int64)])
        kind = np.array(pool.kinds, dtype=np.int64)
        # An optimum that time cut short knows nothing of the fillings that came last.
        copies: Floats = np.concatenate([solved.copies, np.zeros(len(pool) - len(solved.copies))])
        whole = np.floor(copies + _INTEGRAL).astype(np.int64)
        part: Floats = copies - whole
        handed = np.ceil(solved.handed - _INTEGRAL).astype(np.int64)
        fractional = np.flatnonzero(part > _INTEGRAL)
        target = np.maximum(fixed, whole)
        free = supply - np.bincount(kind, weights=target, minlength=len(supply))
        for column in _next_up(part, fractional, step_part).tolist():
            if free[kind[column]] >= 1:
                free[kind[column]] -= 1
                target[column] += 1
        master.extend(pool)
        for column in np.flatnonzero(target > fixed).tolist():
            master.at_least(column, int(target[column]))
        stuck = not (target > fixed).any()
        fixed = target
        if not len(fractional) or stuck:
            break
    wanted = task.slots.wanted
    for pricer in pricers:
        pricer.limit(wanted)
    return np.concatenate([fixed, np.zeros(len(pool) - len(fixed), dtype=np.int64)]), handed


def fix(master: LpMaster, fixed: Ints) -> None:
    """Use the fillings at least so often from now on; int64, at most the columns the master has."""
    for column in np.flatnonzero(fixed > 0).tolist():
        master.at_least(column, int(fixed[column]))


def optimum(
    task: Relaxed,
    pool: ColumnPool,
    pricers: list[TypePricer],
    master: LpMaster,
    *,
    fixed: Ints,
    rounds: int,
    time_left: Callable[[], float],
) -> Duals | None:
    """The linear optimum beyond what is fixed, with new fillings that suit it.

    Args:
        task: what is minimised.
        pool: fillings; gets the new ones.
        pricers: one for each type.
        master: has the fixed copies as lower limits.
        fixed: int64, copies fixed of the first fillings of the pool.
        rounds: most pricings.
        time_left: seconds until this must return.
    """
    master.extend(pool)
    solved = master.solve(seconds=time_left())
    for _ in range(rounds):
        if solved is None or time_left() <= 0:
            break
        wanted = _left(task, pool, fixed, solved.handed)
        for pricer in pricers:
            pricer.limit(wanted)
        priced = price_all(pricers, solved, task.node_cost, effort=COARSE, time_left=time_left)
        if priced is None or not keep_improving(pool, pricers, priced, solved, task.node_cost):
            break
        master.extend(pool)
        solved = master.solve(seconds=time_left()) or solved
    return solved


def _left(task: Relaxed, pool: ColumnPool, fixed: Ints, handed: Floats) -> Ints:
    """int64[S + V]: pods of each shape or slot that what is fixed does not hold yet."""
    used = np.flatnonzero(fixed)
    held = fixed[used] @ np.stack([pool.patterns[index] for index in used.tolist()])
    need = task.problem.demand.astype(np.float64)
    np.add.at(need, task.slots.source, handed)
    np.add.at(need, task.slots.target, -handed)
    return np.maximum(np.ceil(need - held - _INTEGRAL), 0).astype(np.int64)


def _next_up(part: Floats, fractional: Ints, step_part: float) -> Ints:
    """The fillings to round up: all that are nearly whole, at least a part of the fractional ones."""
    order = fractional[np.argsort(-part[fractional], kind="stable")]
    least = max(int(step_part * len(order)), 1)
    nearly = int((part[order] >= _NEARLY_WHOLE).sum())
    return order[: max(least, nearly)]


def chosen_fillings(pool: ColumnPool, copies: Ints) -> Filling:
    """The fillings that are used; int64[len(pool)] copies."""
    used = np.flatnonzero(copies)
    width = len(pool.patterns[0])
    pattern = np.array([pool.patterns[index] for index in used.tolist()], dtype=np.int64).reshape(-1, width)
    return Filling(kind=np.array(pool.kinds, dtype=np.int64)[used], pattern=pattern, copies=copies[used])
