"""Rounds the master one GPU model after the other: whole numbers for its nodes, the rest still relaxed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.packing.diving import fix, optimum
from gpuwaste.packing.linear import solve_mip
from gpuwaste.packing.master import LpMaster, master_program

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpuwaste.packing.bound import Relaxed
    from gpuwaste.packing.columns import ColumnPool
    from gpuwaste.packing.instance import Bools, Floats, Ints
    from gpuwaste.packing.master import Duals
    from gpuwaste.packing.pricing import TypePricer

__all__ = ["RoundedMaster", "fix_all_but_the_last", "round_the_rest"]

_PRICINGS = 5
_STEP_SECONDS = 3.0
_RELATIVE_GAP = 2e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundedMaster:
    """A master solved with whole copies of some types.

    Attributes:
        copies: float64[columns].
        handed: int64[E], how often each slot is handed to each shape.
    """

    copies: Floats
    handed: Ints


def fix_all_but_the_last(
    task: Relaxed, pool: ColumnPool, pricers: list[TypePricer], duals: Duals, *, time_left: Callable[[], float]
) -> tuple[Ints, list[int]]:
    """Fix how often each filling of every model but one is used (relax and fix, Wolsey 1998, 12.5).

    Pods tied to few models make the linear optimum fractional in hundreds of fillings, and rounding these one by
    one loses several per cent. Here the nodes of one model are whole numbers and those of the models after it stay
    relaxed, so each step still sees what it costs elsewhere. How many nodes of each type are used is whole in every
    step. The dearest nodes come first; the model that most of the money goes to, of which more nodes are free, comes
    last and takes what is left. Each model gets its part of the time left; where one finds nothing in it, those before
    it stay fixed, and it and those after it are left to the caller.

    Args:
        task: what is minimised; pods may stay unplaced at a price.
        pool: fillings; gets those that suit what is left after each step.
        pricers: one for each type.
        duals: the linear optimum.
        time_left: seconds until this must return.

    Returns:
        int64[len(pool)] copies of the fillings fixed, -1 for those that are not; and the types that are not fixed.
    """
    models = _order(task, pool, duals)
    fixed = np.full(len(pool), -1, dtype=np.int64)
    for done, types in enumerate(models[:-1]):
        whole = np.zeros(len(task.node_cost), dtype=np.bool_)
        whole[types] = True
        if (fixed > 0).any():
            _price_what_is_left(task, pool, pricers, np.maximum(fixed, 0), time_left=time_left)
            fixed = np.concatenate([fixed, np.full(len(pool) - len(fixed), -1, dtype=np.int64)])
        seconds = min(_STEP_SECONDS, time_left() / (len(models) - done))
        rounded = round_the_rest(task, pool, fixed, whole=whole, seconds=seconds) if seconds > 0 else None
        if rounded is None:
            return fixed, [kind for left in models[done:] for kind in left]
        mine = whole[np.array(pool.kinds, dtype=np.int64)]
        fixed[mine] = np.rint(rounded.copies[mine]).astype(np.int64)
    return fixed, models[-1]


def _order(task: Relaxed, pool: ColumnPool, duals: Duals) -> list[list[int]]:
    """Types with the same price of a GPU together; the group with the most unused worth last."""
    problem = task.problem
    kinds = np.array(pool.kinds, dtype=np.int64)[: len(duals.copies)]
    used = np.bincount(kinds, weights=duals.copies, minlength=len(problem.supply))
    groups: dict[float, list[int]] = {}
    for kind, price in enumerate((task.node_cost / np.maximum(problem.type_gpus, 1)).round(9).tolist()):
        groups.setdefault(price, []).append(kind)
    spare = (problem.supply - used) * used * task.node_cost
    ordered = sorted(groups.values(), key=lambda types: -float(task.node_cost[types].max()))
    last = max(ordered, key=lambda types: float(spare[types].sum()))
    return [*(types for types in ordered if types is not last), last]


def _price_what_is_left(
    task: Relaxed, pool: ColumnPool, pricers: list[TypePricer], fixed: Ints, *, time_left: Callable[[], float]
) -> None:
    master = LpMaster(task)
    master.extend(pool)
    fix(master, fixed)
    optimum(task, pool, pricers, master, fixed=fixed, rounds=_PRICINGS, time_left=time_left)


def round_the_rest(
    task: Relaxed, pool: ColumnPool, fixed: Ints, *, whole: Bools, seconds: float
) -> RoundedMaster | None:
    """Solve the master with the fixed copies, whole copies of some types, and a whole number of nodes of each.

    Args:
        task: what is minimised.
        pool: fillings.
        fixed: int64[len(pool)] copies, -1 where the master may choose.
        whole: bool[K]; with all of them the result is a placement.
        seconds: wall time at most.
    """
    kind = np.array(pool.kinds, dtype=np.int64)
    master = master_program(task, kind, np.stack(pool.patterns))
    program, count, types = master.program, len(kind), len(whole)
    known = np.flatnonzero(fixed >= 0)
    lower = np.concatenate([program.lower, np.zeros(types)])
    upper = np.concatenate([program.upper, task.problem.supply.astype(np.float64)])
    lower[known] = upper[known] = fixed[known]
    nodes_at, rows = len(program.cost) + np.arange(types), len(program.row_lower)
    integer = np.zeros(len(lower), dtype=np.bool_)
    integer[:count] = whole[kind]
    integer[nodes_at] = True
    integer[count : nodes_at[0]] = whole.all()
    result = solve_mip(
        replace(
            program,
            cost=np.concatenate([program.cost, np.zeros(types)]),
            lower=lower,
            upper=upper,
            row=np.concatenate([program.row, rows + kind, rows + np.arange(types)]),
            column=np.concatenate([program.column, np.arange(count), nodes_at]),
            value=np.concatenate([program.value, np.ones(count), -np.ones(types)]),
            row_lower=np.concatenate([program.row_lower, np.zeros(types)]),
            row_upper=np.concatenate([program.row_upper, np.zeros(types)]),
        ),
        integer=integer,
        seconds=seconds,
        relative_gap=_RELATIVE_GAP,
        presolve=True,
    )
    if result.values is None:
        return None
    return RoundedMaster(copies=result.values[:count], handed=np.rint(result.values[master.way_at]).astype(np.int64))
