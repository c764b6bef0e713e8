"""Makes an incumbent better: column generation, then rounding by integer masters. Loads OR-Tools."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.packing.bound import Relaxed
from gpuwaste.packing.diving import chosen_fillings, dive
from gpuwaste.packing.generation import generate
from gpuwaste.packing.instance import WHOLE_GPU_MILLI
from gpuwaste.packing.master import choose_fillings
from gpuwaste.packing.pricing import TypePricer

if TYPE_CHECKING:
    from gpuwaste.packing.instance import Ints
    from gpuwaste.packing.master import Duals
    from gpuwaste.packing.state import SolveState

__all__ = ["improve"]

_POD_PENALTY = 1e-4
"""Objective of an unplaced pod beside 1 for an unplaced GPU, while as little as possible is left out."""
_COST_TIEBREAK = 1e-3
_CLOSE_ENOUGH = 5e-4
# Parts of the time limit at which each step must have ended.
_PLACE_COLUMNS, _PLACE_ROUNDING, _COLUMNS, _REST, _ALL = 0.5, 0.7, 0.75, 0.8, 0.9


def improve(state: SolveState) -> None:
    """Leave out less, if anything is left out; then lower the objective and raise the bound."""
    pricers = [TypePricer(state.problem, kind) for kind in range(len(state.problem.supply))]
    if state.best.unplaced_pods:
        _place_more(state, pricers)
    _minimise(state, pricers)


def _place_more(state: SolveState, pricers: list[TypePricer]) -> None:
    problem = state.problem
    task = Relaxed(
        problem=problem,
        node_cost=_COST_TIEBREAK * problem.cost / max(float(problem.cost.max()), 1e-9),
        penalty=problem.total_milli / WHOLE_GPU_MILLI + _POD_PENALTY,
        allowance=None,
    )
    generated = generate(
        task,
        state.pool,
        pricers,
        time_left=lambda: state.seconds_left(_PLACE_COLUMNS),
        on_bound=lambda _: None,
    )
    if generated.duals is None:
        return
    _round_by_diving(state, task, until=_PLACE_ROUNDING)
    everything = np.arange(len(state.pool))
    _round_all(state, task, everything, until=_PLACE_ROUNDING)


def _minimise(state: SolveState, pricers: list[TypePricer]) -> None:
    problem, allowance = state.problem, state.best.allowance
    task = Relaxed(problem=problem, node_cost=problem.cost, penalty=np.zeros(len(problem.demand)), allowance=allowance)
    generated = generate(
        task,
        state.pool,
        pricers,
        time_left=lambda: state.seconds_left(_COLUMNS),
        on_bound=lambda bound: state.raise_bound(bound, allowance=allowance),
    )
    if generated.duals is None:
        return
    _round_by_diving(state, task, until=_REST)
    if state.gap > _CLOSE_ENOUGH:
        _round_all(state, task, _promising(state, generated.duals), until=_ALL)


def _round_by_diving(state: SolveState, task: Relaxed, *, until: float) -> None:
    copies = dive(task, state.pool, time_left=lambda: state.seconds_left(until))
    state.offer(chosen_fillings(state.pool, copies), method="rounded column generation")


def _round_all(state: SolveState, task: Relaxed, columns: Ints, *, until: float) -> None:
    seconds = state.seconds_left(until)
    if seconds <= 0:
        return
    chosen = choose_fillings(
        task,
        state.pool,
        columns=columns,
        seconds=seconds,
        relative_gap=_CLOSE_ENOUGH,
        start=state.best.filling,
    )
    if chosen is not None:
        state.offer(chosen, method="column generation")


def _promising(state: SolveState, duals: Duals) -> Ints:
    """Columns whose reduced cost does not rule them out of a placement better than the best one."""
    problem = state.problem
    slack = float(problem.cost_unit * state.best.cost_units) - state.bound
    kind = np.array(state.pool.kinds, dtype=np.int64)
    reduced = problem.cost[kind] + duals.node_price[kind] - np.stack(state.pool.patterns) @ duals.worth
    return np.flatnonzero(reduced <= slack)
