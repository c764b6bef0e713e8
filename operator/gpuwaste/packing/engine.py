"""Solves a packing: a feasible answer at once, then column generation, an integer master and repair."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.packing.answer import Answer, count_gpus, materialise
from gpuwaste.packing.baselines import decreasing_order, place_in_order, scarcest_order
from gpuwaste.packing.bound import next_attainable
from gpuwaste.packing.columns import Filling
from gpuwaste.packing.shapes import group
from gpuwaste.packing.state import SolveState
from gpuwaste.packing.verifier import check

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpuwaste.packing.instance import Instance
    from gpuwaste.packing.shapes import Objective, Problem

__all__ = ["solve"]

_SAMPLE_PODS = 8_000


def solve(
    instance: Instance,
    *,
    time_limit_seconds: float,
    objective: Objective,
    clock: Callable[[], float],
    started_seconds: float = 0.0,
) -> Answer:
    """Pack the pods on the nodes.

    Least first: unplaced GPU-milli, unplaced pods, objective. The answer is checked by the verifier before it
    is returned.

    Args:
        instance: pods, nodes, prices.
        time_limit_seconds: wall time, at least 0; 0 gives the first feasible answer and its first bound.
        objective: `cost` or `gpus`.
        clock: monotonic seconds.
        started_seconds: how long the process had run before; added to `first_feasible_seconds`.

    Raises:
        InvariantError: the verifier found the answer wrong.
    """
    problem = group(instance, objective=objective)
    placeable = np.where(problem.fits.any(axis=1), problem.demand, 0)
    state = SolveState(replace(problem, demand=placeable), clock=clock, limit_seconds=time_limit_seconds)
    if placeable.any():
        _start(state, once=time_limit_seconds == 0)
        if time_limit_seconds > 0:
            # OR-Tools takes half a second to load; the first placement is known before.
            from gpuwaste.packing.improve import improve  # noqa: PLC0415

            improve(state)
    answer = _answer(problem, state, objective=objective, started_seconds=started_seconds)
    check(instance, answer)
    return answer


def _start(state: SolveState, *, once: bool) -> None:
    """First placements by first fit on the cheapest nodes, of a sample if there are very many pods."""
    problem = state.problem
    scale = max(-(-int(problem.demand.sum()) // _SAMPLE_PODS), 1)
    small = replace(problem, demand=-(-problem.demand // scale), supply=problem.supply // scale)
    dearness = problem.cost / np.maximum(problem.type_gpus, 1)
    kinds = np.repeat(np.arange(len(problem.supply)), small.supply)
    kinds = kinds[np.argsort(dearness[kinds], kind="stable")]
    scarcest = scarcest_order(small, small.demand)
    shuffled = np.random.default_rng(1).permutation(scarcest)
    for order in (scarcest,) if once else (scarcest, shuffled, decreasing_order(small, small.demand)):
        filling = Filling.of_nodes(kinds, place_in_order(small, order, kinds, rule="first"))
        state.pool.add_filling(filling)
        state.offer(replace(filling, copies=filling.copies * scale), method="first fit")


def _answer(problem: Problem, state: SolveState, *, objective: Objective, started_seconds: float) -> Answer:
    """The best placement pod by pod; counts the pods that fit on no node as unplaced."""
    best = state.best
    placement = materialise(problem, best.filling)
    nowhere = problem.demand - state.problem.demand
    cost = problem.cost_unit * best.cost_units
    return Answer(
        objective=objective,
        placement=placement,
        cost=cost,
        bound=min(next_attainable(problem, state.bound), cost),
        unplaced_milli=best.unplaced_milli + int(nowhere @ problem.total_milli),
        unplaced_pods=best.unplaced_pods + int(nowhere.sum()),
        nodes_used=int(best.filling.copies.sum()),
        gpus_used=count_gpus(problem, best.filling),
        first_feasible_seconds=state.first_feasible_seconds + started_seconds,
        method=best.method,
    )
