"""The restricted master: which fillings of the pool are used, and how often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.packing.columns import Filling
from gpuwaste.packing.linear import IncrementalLp, Program, solve_mip

if TYPE_CHECKING:
    from gpuwaste.packing.bound import Relaxed
    from gpuwaste.packing.columns import ColumnPool
    from gpuwaste.packing.instance import Floats, Ints

__all__ = ["Duals", "LpMaster", "MasterProgram", "choose_fillings", "master_program"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Duals:
    """An optimum of the linear master.

    Attributes:
        objective: of the optimum.
        worth: float64[S + V] price of one pod of each shape, >= 0.
        node_price: float64[K] what one more node of a type would save, >= 0.
        milli_price: price of one unplaced GPU-milli, >= 0.
        pod_price: price of one unplaced pod, >= 0.
        copies: float64[columns taken over], how often each filling is used.
        handed: float64[E], how often each slot is handed to each shape.
    """

    objective: float
    worth: Floats
    node_price: Floats
    milli_price: float
    pod_price: float
    copies: Floats
    handed: Floats


class LpMaster:
    """The linear master of a task; columns are added as they are found."""

    def __init__(self, task: Relaxed) -> None:
        problem = task.problem
        shapes, kinds = problem.fits.shape
        self._shapes = shapes
        self._node_cost = task.node_cost
        self._taken = 0
        self._slots = task.slots
        unplaced = np.flatnonzero(task.unplaced_most)
        count, ways = len(unplaced), len(task.slots.source)
        self._unplaced, self._ways = count, ways
        way = count + np.arange(ways)
        self._lp = IncrementalLp(
            Program(
                cost=np.concatenate([task.penalty[unplaced], np.zeros(ways)]),
                lower=np.zeros(count + ways),
                upper=np.concatenate([task.unplaced_most[unplaced].astype(np.float64), np.full(ways, np.inf)]),
                row=np.concatenate(
                    [
                        unplaced,
                        np.repeat([shapes + kinds, shapes + kinds + 1], count),
                        task.slots.source,
                        task.slots.target,
                    ]
                ),
                column=np.concatenate([np.tile(np.arange(count), 3), way, way]),
                value=np.concatenate(
                    [
                        np.ones(count),
                        problem.total_milli[unplaced],
                        np.ones(count),
                        -np.ones(ways),
                        np.ones(ways),
                    ]
                ),
                row_lower=np.concatenate([problem.demand, np.full(kinds + 2, -np.inf)]),
                row_upper=np.concatenate([np.full(shapes, np.inf), problem.supply, task.caps]),
            )
        )

    def extend(self, pool: ColumnPool) -> None:
        """Take over what was added to the pool since the last call."""
        for index in range(self._taken, len(pool)):
            pattern, kind = pool.patterns[index], pool.kinds[index]
            shapes = np.flatnonzero(pattern)
            self._lp.add_column(
                cost=float(self._node_cost[kind]),
                rows=[*shapes.tolist(), self._shapes + kind],
                values=[*pattern[shapes].astype(np.float64).tolist(), 1.0],
            )
        self._taken = len(pool)

    def at_least(self, column: int, copies: int) -> None:
        """Use a filling of the pool at least so often from now on."""
        self._lp.set_lower(self._unplaced + self._ways + column, float(copies))

    def solve(self, *, seconds: float) -> Duals | None:
        """The optimum over the columns taken over, or None if time ran out."""
        solved = self._lp.solve(seconds=seconds)
        if solved is None:
            return None
        duals = solved.duals
        return Duals(
            objective=solved.objective,
            worth=self._slots.worth(duals),
            node_price=np.maximum(-duals[self._shapes : -2], 0.0),
            milli_price=max(-float(duals[-2]), 0.0),
            pod_price=max(-float(duals[-1]), 0.0),
            copies=solved.values[self._unplaced + self._ways :],
            handed=solved.values[self._unplaced : self._unplaced + self._ways],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterProgram:
    """The integer master over some fillings: variables are their copies, what stays unplaced, and slots handed out.

    Attributes:
        program: rows are shapes, then types, then the two limits of what stays unplaced.
        left_at: where the unplaced pods of `unplaced` stand among the variables.
        way_at: where the ways to hand out a slot stand.
        unplaced: shapes of which some may stay unplaced.
    """

    program: Program
    left_at: Ints
    way_at: Ints
    unplaced: Ints


def master_program(task: Relaxed, kind: Ints, pattern: Ints) -> MasterProgram:
    """Build the master; int64[columns] and int64[columns, S + V]."""
    problem = task.problem
    shapes, kinds = problem.fits.shape
    count = len(kind)
    position, shape = np.nonzero(pattern)
    unplaced = np.flatnonzero(task.unplaced_most)
    left = len(unplaced)
    ways = len(task.slots.source)
    left_at = count + np.arange(left)
    way_at = count + left + np.arange(ways)
    program = Program(
        cost=np.concatenate([task.node_cost[kind], task.penalty[unplaced], np.zeros(ways)]),
        lower=np.zeros(count + left + ways),
        upper=np.concatenate(
            [problem.supply[kind], task.unplaced_most[unplaced], problem.demand[task.slots.target]]
        ).astype(np.float64),
        row=np.concatenate(
            [
                shape,
                unplaced,
                shapes + kind,
                np.repeat([shapes + kinds, shapes + kinds + 1], left),
                task.slots.source,
                task.slots.target,
            ]
        ),
        column=np.concatenate([position, left_at, np.arange(count), left_at, left_at, way_at, way_at]),
        value=np.concatenate(
            [
                pattern[position, shape],
                np.ones(left + count),
                problem.total_milli[unplaced],
                np.ones(left),
                -np.ones(ways),
                np.ones(ways),
            ]
        ).astype(np.float64),
        row_lower=np.concatenate([problem.demand, np.full(kinds + 2, -np.inf)]),
        row_upper=np.concatenate([np.full(shapes, np.inf), problem.supply, task.caps]),
    )
    return MasterProgram(program=program, left_at=left_at, way_at=way_at, unplaced=unplaced)


def choose_fillings(
    task: Relaxed,
    pool: ColumnPool,
    *,
    columns: Ints,
    seconds: float,
    relative_gap: float,
    start: Filling,
    handed: Ints,
) -> tuple[Filling, Ints] | None:
    """Solve the master as an integer programme.

    Args:
        task: what is minimised.
        pool: fillings.
        columns: int64, positions in the pool to choose from.
        seconds: wall time at most.
        relative_gap: how close to the best of the pool is close enough.
        start: a placement to begin from, with its slots; its fillings are in the pool.
        handed: int64[E], how it hands them out.

    Returns:
        Fillings that cover the demand, some of it perhaps more than once, and how often each slot is handed to
        each shape; None if nothing was found.
    """
    started = [pool.position(k, row) for k, row in zip(start.kind.tolist(), start.pattern, strict=True)]
    begun = np.array([index for index in started if index is not None], dtype=np.int64)
    columns = np.union1d(columns, begun)
    kind = np.array(pool.kinds, dtype=np.int64)[columns]
    pattern = np.stack([pool.patterns[index] for index in columns.tolist()])
    master = master_program(task, kind, pattern)
    count = len(columns)
    first = np.zeros(len(master.program.cost))
    if len(begun) == len(started):
        np.add.at(first, np.searchsorted(columns, begun), start.copies)
        placed = start.placed
        np.add.at(placed, task.slots.target, handed)
        first[master.left_at] = (task.problem.demand - placed)[master.unplaced]
        first[master.way_at] = handed
    result = solve_mip(
        master.program,
        integer=np.ones(len(first), dtype=np.bool_),
        seconds=seconds,
        relative_gap=relative_gap,
        start=first if len(begun) == len(started) else None,
    )
    if result.values is None:
        return None
    copies = np.rint(result.values[:count]).astype(np.int64)
    used = copies > 0
    chosen = Filling(kind=kind[used], pattern=pattern[used], copies=copies[used])
    return chosen, np.rint(result.values[master.way_at]).astype(np.int64)
