"""Makes an incumbent better: column generation, then rounding by diving and integer masters. Loads OR-Tools."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.packing.bound import Relaxed
from gpuwaste.packing.columns import ColumnPool, Filling
from gpuwaste.packing.diving import chosen_fillings, dive
from gpuwaste.packing.generation import generate
from gpuwaste.packing.instance import WHOLE_GPU_MILLI
from gpuwaste.packing.master import choose_fillings
from gpuwaste.packing.pricing import TypePricer
from gpuwaste.packing.slots import Slots

if TYPE_CHECKING:
    from gpuwaste.packing.instance import Ints
    from gpuwaste.packing.master import Duals
    from gpuwaste.packing.state import SolveState

__all__ = ["improve"]

_POD_PENALTY = 1e-4
"""Objective of an unplaced pod beside 1 for an unplaced GPU, while as little as possible is left out."""
_COST_TIEBREAK = 1e-3
_CLOSE_ENOUGH = 5e-4
_UNPLACED_TIMES = 3.0
_PRICINGS = 3
# Parts of the time limit at which column generation, first for what is left out, and everything must have ended.
_PLACE_COLUMNS, _COLUMNS, _ALL = 0.5, 0.7, 0.93
# Parts of the time left then that one step may take.
_PLACE_PART, _MASTER_PART, _DIVING_PART = 0.4, 0.85, 0.7


def improve(state: SolveState) -> None:
    """Leave out less, if anything is left out; then lower the objective and raise the bound."""
    search = _Search(state)
    if state.best.unplaced_pods:
        search.place_more()
    search.minimise()


class _Search:
    """Column generation and rounding over the slots of a problem."""

    def __init__(self, state: SolveState) -> None:
        self._state = state
        self._slots = Slots.of(state.problem)
        self._pool = ColumnPool()
        self._seeds_taken = 0
        self._pricers = [TypePricer(self._slots, kind) for kind in range(len(state.problem.supply))]
        self._take_seeds()

    def _take_seeds(self) -> None:
        """Fillings of the placements offered since the last call."""
        pool = self._state.pool
        fresh = slice(self._seeds_taken, len(pool))
        kind = np.array(pool.kinds[fresh], dtype=np.int64)
        if len(kind):
            pattern = np.stack(pool.patterns[fresh])
            filling = Filling(kind=kind, pattern=pattern, copies=np.ones(len(kind), dtype=np.int64))
            self._pool.add_filling(self._slots.encode(filling)[0])
        self._seeds_taken = len(pool)

    def place_more(self) -> None:
        """Leave out as few GPU-milli, then as few pods, as possible."""
        problem = self._slots.problem
        task = Relaxed(
            slots=self._slots,
            node_cost=_COST_TIEBREAK * problem.cost / max(float(problem.cost.max()), 1e-9),
            penalty=problem.total_milli / WHOLE_GPU_MILLI + _POD_PENALTY,
            allowance=None,
        )
        generated = generate(
            task,
            self._pool,
            self._pricers,
            time_left=lambda: self._state.seconds_left(_PLACE_COLUMNS),
            on_bound=lambda _: None,
        )
        if generated.duals is None:
            return
        self._round_by_diving(task, pricings=0, part=_PLACE_PART)
        self._round_by_master(task, np.arange(len(self._pool)), part=_PLACE_PART)

    def minimise(self) -> None:
        """Lower the objective of placements that leave out no more, and raise its bound."""
        state, problem = self._state, self._slots.problem
        allowance = state.best.allowance
        task = Relaxed(
            slots=self._slots,
            node_cost=problem.cost,
            penalty=np.zeros(len(problem.demand)),
            allowance=allowance,
        )
        generated = generate(
            task,
            self._pool,
            self._pricers,
            time_left=lambda: state.seconds_left(_COLUMNS),
            on_bound=lambda bound: state.raise_bound(bound, allowance=allowance),
        )
        if generated.duals is None:
            return
        # What the fillings fixed first leave no room for may stay unplaced on the way, at a price; a dive that
        # may not would have to stop there.
        dear = _UNPLACED_TIMES * (generated.duals.worth + float(problem.cost.max()))
        loose = replace(task, allowance=None, penalty=dear)
        self._round_by_diving(loose, pricings=0, part=1.0)
        for step in (self._finish_by_master, self._finish_by_diving, self._finish_by_master):
            if state.gap > _CLOSE_ENOUGH:
                step(task, loose, generated.duals)

    def _finish_by_master(self, task: Relaxed, _: Relaxed, duals: Duals) -> None:
        self._round_by_master(task, self._promising(duals), part=_MASTER_PART)

    def _finish_by_diving(self, _: Relaxed, loose: Relaxed, __: Duals) -> None:
        self._round_by_diving(loose, pricings=_PRICINGS, part=_DIVING_PART)

    def _offer(self, filling: Filling, handed: Ints, *, method: str) -> None:
        self._state.offer(self._slots.decode(filling, handed), method=method)
        self._take_seeds()

    def _round_by_diving(self, task: Relaxed, *, pricings: int, part: float) -> None:
        ends = (1 - part) * self._state.seconds_left(_ALL)
        copies, handed = dive(
            task,
            self._pool,
            self._pricers,
            pricings=pricings,
            time_left=lambda: self._state.seconds_left(_ALL) - ends,
        )
        self._offer(chosen_fillings(self._pool, copies), handed, method="rounded column generation")

    def _round_by_master(self, task: Relaxed, columns: Ints, *, part: float) -> None:
        seconds = part * self._state.seconds_left(_ALL)
        if seconds <= 0:
            return
        start, handed = self._slots.encode(self._state.best.filling)
        chosen = choose_fillings(
            task,
            self._pool,
            columns=columns,
            seconds=seconds,
            relative_gap=_CLOSE_ENOUGH,
            start=start,
            handed=handed,
        )
        if chosen is not None:
            self._offer(*chosen, method="column generation")

    def _promising(self, duals: Duals) -> Ints:
        """Columns whose reduced cost does not rule them out of a placement better than the best one."""
        state, problem = self._state, self._slots.problem
        slack = float(problem.cost_unit * state.best.cost_units) - state.bound
        kind = np.array(self._pool.kinds, dtype=np.int64)
        reduced = problem.cost[kind] + duals.node_price[kind] - np.stack(self._pool.patterns) @ duals.worth
        return np.flatnonzero(reduced <= slack)
