"""Makes an incumbent better: column generation, then the integer master. Loads OR-Tools."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.packing.generation import generate
from gpuwaste.packing.master import choose_fillings
from gpuwaste.packing.pricing import TypePricer

if TYPE_CHECKING:
    from gpuwaste.packing.master import Duals
    from gpuwaste.packing.state import SolveState

__all__ = ["improve"]

_METHOD = "column generation"
_POD_PENALTY = 1e-4
"""Objective of an unplaced pod beside 1 for an unplaced GPU, while as little as possible is left out."""
_COST_TIEBREAK = 1e-3
_MASTER_GAP = 2e-4
# Parts of the time limit at which each step must have ended.
_PLACE_COLUMNS_PART, _PLACE_MASTER_PART, _COLUMNS_PART, _MASTER_PART = 0.2, 0.35, 0.65, 0.95


def improve(state: SolveState) -> None:
    """Leave out less, if anything is left out; then lower the objective and raise the bound."""
    pricers = [TypePricer(state.problem, kind) for kind in range(len(state.problem.supply))]
    if state.best.unplaced_pods:
        _place_more(state, pricers)
    _minimise(state, pricers)


def _place_more(state: SolveState, pricers: list[TypePricer]) -> None:
    problem = state.problem
    penalty = problem.total_milli / 1000 + _POD_PENALTY
    node_cost = _COST_TIEBREAK * problem.cost / max(float(problem.cost.max()), 1e-9)
    generate(
        problem,
        state.pool,
        pricers,
        node_cost=node_cost,
        penalty=penalty,
        allowance=None,
        time_left=lambda: state.seconds_left(_PLACE_COLUMNS_PART),
        on_bound=lambda _: None,
    )
    chosen = choose_fillings(
        problem,
        state.pool,
        node_cost=node_cost,
        penalty=penalty,
        allowance=None,
        seconds=state.seconds_left(_PLACE_MASTER_PART),
        relative_gap=_MASTER_GAP,
    )
    if chosen is not None:
        state.offer(chosen, method=_METHOD)


def _minimise(state: SolveState, pricers: list[TypePricer]) -> None:
    problem, allowance = state.problem, state.best.allowance
    no_penalty = np.zeros(len(problem.demand))
    generated = generate(
        problem,
        state.pool,
        pricers,
        node_cost=problem.cost,
        penalty=no_penalty,
        allowance=allowance,
        time_left=lambda: state.seconds_left(_COLUMNS_PART),
        on_bound=lambda bound: state.raise_bound(bound, allowance=allowance),
    )
    seconds = state.seconds_left(_MASTER_PART)
    if seconds <= 0 or generated.duals is None:
        return
    chosen = choose_fillings(
        problem,
        state.pool,
        node_cost=problem.cost,
        penalty=no_penalty,
        allowance=allowance,
        seconds=seconds,
        relative_gap=_MASTER_GAP,
        columns=_promising(state, generated.duals),
    )
    if chosen is not None:
        state.offer(chosen, method=_METHOD)


def _promising(state: SolveState, duals: Duals) -> list[int]:
    """Columns whose reduced cost does not rule them out of a placement better than the best one."""
    problem = state.problem
    slack = float(problem.cost_unit * state.best.cost_units) - state.bound
    kind = np.array(state.pool.kinds, dtype=np.int64)
    reduced = problem.cost[kind] + duals.node_price[kind] - np.stack(state.pool.patterns) @ duals.worth
    positions: list[int] = np.flatnonzero(reduced <= slack).tolist()
    return positions
