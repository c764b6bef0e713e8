"""The restricted master: which fillings of the pool are used, and how often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.packing.columns import Filling
from gpuwaste.packing.linear import IncrementalLp, Mip, Rows

if TYPE_CHECKING:
    from gpuwaste.packing.bound import Allowance
    from gpuwaste.packing.columns import ColumnPool
    from gpuwaste.packing.instance import Floats
    from gpuwaste.packing.shapes import Problem

__all__ = ["Duals", "LpMaster", "choose_fillings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Duals:
    """An optimum of the linear master.

    Attributes:
        objective: of the optimum.
        worth: float64[S] price of one pod of each shape, >= 0.
        node_price: float64[K] what one more node of a type would save, >= 0.
        milli_price: price of one unplaced GPU-milli, >= 0.
        pod_price: price of one unplaced pod, >= 0.
    """

    objective: float
    worth: Floats
    node_price: Floats
    milli_price: float
    pod_price: float


class LpMaster:
    """The linear master; columns are added as they are found.

    Args:
        problem: shapes and types.
        node_cost: float64[K] objective of one node.
        penalty: float64[S] objective of one unplaced pod.
        allowance: rows that limit what stays unplaced; None for no limit.
    """

    def __init__(self, problem: Problem, *, node_cost: Floats, penalty: Floats, allowance: Allowance | None) -> None:
        shapes, kinds = problem.fits.shape
        self._shapes = shapes
        self._node_cost = node_cost
        self._taken = 0
        caps = [np.inf, np.inf] if allowance is None else [float(allowance.milli), float(allowance.pods)]
        self._lp = IncrementalLp(
            lower=np.concatenate([problem.demand, np.full(kinds + 2, -np.inf)]),
            upper=np.concatenate([np.full(shapes, np.inf), problem.supply, caps]),
        )
        if caps[1] == 0:
            return
        for shape in range(shapes):
            self._lp.add_column(
                cost=float(penalty[shape]),
                rows=[shape, shapes + kinds, shapes + kinds + 1],
                values=[1.0, float(problem.total_milli[shape]), 1.0],
                upper=float(problem.demand[shape]),
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

    def solve(self, *, seconds: float) -> Duals | None:
        """The optimum over the columns taken over, or None if time ran out."""
        solved = self._lp.solve(seconds=seconds)
        if solved is None:
            return None
        objective, _, duals = solved
        return Duals(
            objective=objective,
            worth=np.maximum(duals[: self._shapes], 0.0),
            node_price=np.maximum(-duals[self._shapes : -2], 0.0),
            milli_price=max(-float(duals[-2]), 0.0),
            pod_price=max(-float(duals[-1]), 0.0),
        )


def choose_fillings(
    problem: Problem,
    pool: ColumnPool,
    *,
    node_cost: Floats,
    penalty: Floats,
    allowance: Allowance | None,
    seconds: float,
    relative_gap: float,
    columns: list[int] | None = None,
) -> Filling | None:
    """Solve the master as an integer programme.

    Args:
        problem: shapes and types.
        pool: fillings to choose from.
        node_cost: float64[K].
        penalty: float64[S] objective of one unplaced pod.
        allowance: limits of what stays unplaced; None for none.
        seconds: wall time at most.
        relative_gap: how close to the best of the pool is close enough.
        columns: positions in the pool to choose from; None for all.

    Returns:
        Fillings that cover the demand, some of it perhaps more than once; None if none was found.
    """
    chosen = np.arange(len(pool)) if columns is None else np.array(columns, dtype=np.int64)
    shapes, kinds = problem.fits.shape
    kind = np.array(pool.kinds, dtype=np.int64)[chosen]
    pattern = np.stack([pool.patterns[index] for index in chosen.tolist()])
    count = len(chosen)
    position, shape = np.nonzero(pattern)
    unplaced = count + np.arange(shapes)
    every = np.arange(shapes)
    caps = [np.inf, np.inf] if allowance is None else [float(allowance.milli), float(allowance.pods)]
    rows = Rows(
        row=np.concatenate(
            [shape, every, shapes + kind, np.full(shapes, shapes + kinds), np.full(shapes, shapes + kinds + 1)]
        ),
        column=np.concatenate([position, unplaced, np.arange(count), unplaced, unplaced]),
        value=np.concatenate(
            [pattern[position, shape], np.ones(shapes + count), problem.total_milli, np.ones(shapes)]
        ).astype(np.float64),
        lower=np.concatenate([problem.demand, np.full(kinds + 2, -np.inf)]),
        upper=np.concatenate([np.full(shapes, np.inf), problem.supply, caps]),
    )
    no_unplaced = allowance is not None and allowance.pods == 0
    mip = Mip(
        cost=np.concatenate([node_cost[kind], penalty]),
        lower=np.zeros(count + shapes),
        upper=np.concatenate([problem.supply[kind], np.zeros(shapes) if no_unplaced else problem.demand]).astype(
            np.float64
        ),
        integer=np.ones(count + shapes, dtype=np.bool_),
        rows=rows,
    )
    result = mip.solve(seconds=seconds, relative_gap=relative_gap)
    if result.values is None:
        return None
    copies = np.rint(result.values[:count]).astype(np.int64)
    used = copies > 0
    return Filling(kind=kind[used], pattern=pattern[used], copies=copies[used])
