"""Raises a bound by what the linear master cannot see: that the number of nodes of each type is whole.

Every pricing at prices w of the pods proves that no filling of type k is worth more than v_k(w). The fillings of any
placement together are worth what its pods are, so sum_k v_k(w) n_k >= w d for the numbers n_k of nodes it uses. All
these inequalities with whole n_k are an integer programme of a dozen variables whose optimum bounds the cost. Where
its n_k cannot hold the pods even relaxed, pricing at the prices that prove so gives the next inequality (Benders 1962).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.packing.bound import Relaxed
from gpuwaste.packing.generation import COARSE, FINE, keep_improving, price_all
from gpuwaste.packing.instance import WHOLE_GPU_MILLI
from gpuwaste.packing.linear import Program, solve_mip
from gpuwaste.packing.master import LpMaster

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpuwaste.packing.columns import ColumnPool
    from gpuwaste.packing.instance import Floats, Ints
    from gpuwaste.packing.master import Duals
    from gpuwaste.packing.pricing import TypePricer

__all__ = ["NodeCounts", "raise_bound"]

_SAFETY = 1e-7
"""Relative slack given away to the tolerances of the integer programme."""
_PROGRAM_SECONDS = 2.0
_MOST_CUTS = 400
_PRICINGS, _COARSE_PRICINGS = 12, 3
_VIOLATED = 1e-3
_NOTHING_LEFT = 1e-6
_POD_PENALTY = 0.05
_PATIENCE = 5
"""Ends where the same numbers come out so often in a row."""


@dataclass(slots=True)
class NodeCounts:
    """What is proven of the numbers of nodes: filling_bounds @ n >= need, for every placement within the allowance.

    Attributes:
        filling_bounds: one float64[K] an inequality.
        needs: its right hand side.
    """

    filling_bounds: list[Floats] = field(default_factory=list)
    needs: list[float] = field(default_factory=list)

    def learn(self, task: Relaxed, duals: Duals, filling_bound: Floats) -> None:
        """Add what one pricing of a task without penalties proves; `filling_bound` float64[K]."""
        problem = task.problem
        price = duals.milli_price * problem.total_milli + duals.pod_price - duals.worth
        left_out = float(task.unplaced_most @ np.minimum(price, 0.0))
        if task.allowance is not None:
            left_out -= duals.milli_price * task.allowance.milli + duals.pod_price * task.allowance.pods
        self.add(filling_bound, float(duals.worth @ problem.demand) + left_out)

    def add(self, filling_bound: Floats, need: float) -> None:
        """Add an inequality; one that says nothing is dropped."""
        if need > 0:
            self.filling_bounds.append(filling_bound.copy())
            self.needs.append(need)

    def cheapest(self, task: Relaxed, *, seconds: float) -> tuple[float, Ints] | None:
        """Proven least cost of numbers of nodes that no inequality rules out, and such numbers; None if unknown."""
        if not self.needs:
            return None
        kept = slice(-_MOST_CUTS, None)
        matrix = np.stack(self.filling_bounds[kept]) / np.array(self.needs[kept])[:, None]
        row, column = np.nonzero(matrix)
        count = len(task.node_cost)
        result = solve_mip(
            Program(
                cost=task.node_cost,
                lower=np.zeros(count),
                upper=task.problem.supply.astype(np.float64),
                row=row,
                column=column,
                value=matrix[row, column],
                row_lower=np.full(len(matrix), 1 - _SAFETY),
                row_upper=np.full(len(matrix), np.inf),
            ),
            integer=np.ones(count, dtype=np.bool_),
            seconds=seconds,
            small=True,
        )
        if result.values is None or result.bound is None:
            return None
        return result.bound * (1 - _SAFETY), np.rint(result.values).astype(np.int64)


def raise_bound(
    task: Relaxed,
    counts: NodeCounts,
    pool: ColumnPool,
    pricers: list[TypePricer],
    *,
    on_bound: Callable[[float], bool],
    time_left: Callable[[], float],
) -> None:
    """Raise the bound until the cheapest numbers of nodes could hold the pods, or time is up.

    Args:
        task: what is minimised, without penalties.
        counts: what is proven so far; gets what is found.
        pool: fillings; gets new ones.
        pricers: one for each type.
        on_bound: told of every bound; says whether to go on.
        time_left: seconds until this must return.
    """
    stuck, last = 0, np.zeros(0, dtype=np.int64)
    while time_left() > 0 and stuck < _PATIENCE:
        found = counts.cheapest(task, seconds=min(_PROGRAM_SECONDS, time_left()))
        if found is None or not on_bound(found[0]) or task.allowance is None or task.allowance.pods:
            return
        stuck = stuck + 1 if np.array_equal(found[1], last) else 0
        last = found[1]
        if not _rule_out(task, counts, last, pool, pricers, time_left=time_left):
            return


def _rule_out(
    task: Relaxed,
    counts: NodeCounts,
    nodes: Ints,
    pool: ColumnPool,
    pricers: list[TypePricer],
    *,
    time_left: Callable[[], float],
) -> bool:
    """Look for a proof that so many nodes cannot hold all pods; False if they can, relaxed, or time is up."""
    problem = task.problem
    tried = Relaxed(
        slots=replace(task.slots, problem=replace(problem, supply=nodes)),
        node_cost=np.zeros(len(nodes)),
        penalty=np.where(problem.demand > 0, problem.total_milli / WHOLE_GPU_MILLI + _POD_PENALTY, 0.0),
        allowance=None,
    )
    master = LpMaster(tried)
    for round_ in range(_PRICINGS):
        master.extend(pool)
        duals = master.solve(seconds=time_left())
        if duals is None or duals.objective < _NOTHING_LEFT:
            return False
        effort = COARSE if round_ < _COARSE_PRICINGS else FINE
        priced = price_all(pricers, duals, tried.node_cost, effort=effort, time_left=time_left)
        if priced is None:
            return False
        filling_bound = np.array([found.bound for found in priced])
        need = float(duals.worth @ problem.demand)
        counts.add(filling_bound, need)
        if need - filling_bound @ nodes > _VIOLATED * max(1.0, 1e-3 * need):
            return True
        if not keep_improving(pool, pricers, priced, duals, tried.node_cost) and effort is FINE:
            break
    return True
