"""Makes an incumbent better: column generation, then rounding by diving and integer masters. Loads OR-Tools."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.packing.bound import Allowance, Relaxed, lagrangian_bound
from gpuwaste.packing.coarse import classes_of, rounded
from gpuwaste.packing.columns import ColumnPool, Filling
from gpuwaste.packing.compact import solve_compact
from gpuwaste.packing.diving import chosen_fillings, dive
from gpuwaste.packing.generation import generate
from gpuwaste.packing.instance import WHOLE_GPU_MILLI
from gpuwaste.packing.master import choose_fillings
from gpuwaste.packing.node_counts import NodeCounts, raise_bound
from gpuwaste.packing.pricing import TypePricer
from gpuwaste.packing.recreate import Prices, recreate
from gpuwaste.packing.relax_and_fix import fix_all_but_the_last
from gpuwaste.packing.slots import Slots
from gpuwaste.packing.state import SolveState

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpuwaste.packing.generation import Generated
    from gpuwaste.packing.instance import Ints
    from gpuwaste.packing.master import Duals
    from gpuwaste.packing.shapes import Problem

__all__ = ["bound_only", "improve", "refine"]

_POD_PENALTY = 1e-4
"""Objective of an unplaced pod beside 1 for an unplaced GPU, while as little as possible is left out."""
_COST_TIEBREAK = 1e-3
_CLOSE_ENOUGH = 5e-4
_UNPLACED_TIMES = 3.0
_LOWER_PRIORITY = 1e-2
"""What is left out of lower priorities, beside 1 for the same of the one that is looked at."""
_DEARER, _MOST_DEARER = 2.0, 8
"""How much dearer it is, while rounding, to leave out a pod of the next higher priority, and for how many of them."""
_PRICINGS = 3
_STEP_PART = 0.1
"""Least part of the fractional fillings that one step of a dive rounds up."""
# Parts of the time limit at which column generation, first for what is left out, and everything must have ended.
_PLACE_COLUMNS, _COLUMNS, _ALL = 0.5, 0.7, 0.93
# Parts of the time left then that one step may take.
_PLACE_PART, _MASTER_PART, _DIVING_PART, _COUNTS_PART = 0.4, 0.85, 0.7, 0.25
_MODELS_PART, _MODELS_MASTER_PART = 0.5, 0.6
_RECREATE_PART = 0.9
_MANY_SWEEPS, _SWEEPS = 12_000, 4_000
"""Most sweeps of ruin and recreate: for a rough placement, and for one of whole fillings."""
_SWEEPS_A_POD = 4
_HEAT = 0.1
_PRICED, _SHAPES_A_SHARE = ((6_000, 0.5), (500, 0.8)), 25
"""Shapes that get a price each, and the part of the time left by which it must be known; shapes for each share."""


def improve(state: SolveState) -> None:
    """Leave out less, if anything is left out; then lower the objective and raise the bound."""
    search = _Search(state)
    if state.best.unplaced_pods:
        search.place_more()
    search.minimise()


def bound_only(
    problem: Problem,
    allowance: Allowance,
    *,
    seeds: ColumnPool,
    clock: Callable[[], float],
    limit_seconds: float,
) -> float:
    """A proven bound of every placement that leaves out no more than the allowance.

    Args:
        problem: shapes and types.
        allowance: what may stay unplaced.
        seeds: fillings of the problem's nodes that hold all but the allowance.
        clock: monotonic seconds.
        limit_seconds: wall time at most; the bound is weaker, perhaps 0, where it ends the search.
    """
    state = SolveState(problem, clock=clock, limit_seconds=limit_seconds)
    state.pool = seeds
    return _Search(state).linear_optimum(allowance, ends=1.0).generated.bound


def refine(state: SolveState, *, bound: float) -> None:
    """Raise the bound of a problem of very many shapes, and lower the objective of the best placement known.

    Args:
        state: with a placement.
        bound: proven by other means of every placement that leaves out no more than the best one does.
    """
    allowance = state.best.allowance
    state.raise_bound(bound, allowance=allowance)
    prices = _first_prices(state, allowance)
    if prices is None:
        return
    _recreate(state, prices, sweeps=_MANY_SWEEPS, heat=1.0, part=1.0)


def _first_prices(state: SolveState, allowance: Allowance) -> Prices | None:
    """The optimum in which pods may be cut in pieces, and its bound; shapes alike together where they are too many.

    Where time is too short for the prices of all of them, fewer are told apart.
    """
    for most, ends in _PRICED:
        problem, class_of_shape = state.problem, np.arange(len(state.problem.demand))
        if len(problem.demand) > most:
            class_of_shape = classes_of(problem, most=most, most_shares=max(most // _SHAPES_A_SHARE, 1))
            problem = rounded(problem, class_of_shape, up=False)
        slots = Slots.of(problem)
        task = Relaxed(
            slots=slots,
            node_cost=problem.cost,
            penalty=np.zeros(len(slots.problem.demand)),
            allowance=allowance,
        )
        compact = solve_compact(task, seconds=state.seconds_left(ends))
        if compact is not None:
            duals = compact.duals
            bound = lagrangian_bound(
                task,
                worth=duals.worth,
                filling_bound=compact.filling_bound,
                milli_price=duals.milli_price,
                pod_price=duals.pod_price,
            )
            state.raise_bound(bound, allowance=allowance)
            return Prices(worth=duals.worth[class_of_shape], node_price=duals.node_price)
    return None


def _recreate(state: SolveState, prices: Prices, *, sweeps: int, heat: float, part: float) -> None:
    """Ruin and recreate until a part of the time left or a small gap is reached."""
    ends = (1 - part) * state.seconds_left(_ALL)
    enough = state.bound * (1 + _CLOSE_ENOUGH)
    found = recreate(
        state.problem,
        state.best.filling,
        prices,
        sweeps=min(sweeps, _SWEEPS_A_POD * int(state.problem.demand.sum())),
        heat=heat,
        time_left=lambda: state.seconds_left(_ALL) - ends,
        enough=enough,
    )
    state.offer(found, method="ruin and recreate")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Optimum:
    """What column generation found of a task, and what it proved of the numbers of nodes."""

    task: Relaxed
    generated: Generated
    counts: NodeCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rounding:
    """What the steps after column generation start from.

    Attributes:
        task: what is minimised.
        loose: the same, with pods left out at a price.
        duals: the linear optimum.
        counts: what is proven of the numbers of nodes.
    """

    task: Relaxed
    loose: Relaxed
    duals: Duals
    counts: NodeCounts


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
        """Leave out as few GPU-milli, then as few pods, as possible; of one priority after the other."""
        levels = len(self._state.best.left)
        for level in range(levels):
            if self._state.best.left[level][1]:
                ends = _PLACE_COLUMNS * (level + 1) / levels
                self._place_more_of(level, ends=ends, part=_PLACE_PART / (levels - level))

    def _place_more_of(self, level: int, *, ends: float, part: float) -> None:
        """Leave out less of one priority; what is left out of higher ones does not grow, of lower ones it may."""
        problem, left = self._slots.problem, self._state.best.left
        milli, pods = int(problem.total_milli @ problem.demand), int(problem.demand.sum())
        higher = Allowance(milli=milli, pods=pods, by_level=(*left[:level], *((milli, pods) for _ in left[level:])))
        task = Relaxed(
            slots=self._slots,
            node_cost=_COST_TIEBREAK * problem.cost / max(float(problem.cost.max()), 1e-9),
            penalty=(problem.total_milli / WHOLE_GPU_MILLI + _POD_PENALTY)
            * np.where(problem.level <= level, 1.0, _LOWER_PRIORITY),
            allowance=higher if level else None,
        )
        generated = generate(
            task,
            self._pool,
            self._pricers,
            time_left=lambda: self._state.seconds_left(ends),
            on_bound=lambda _: None,
        )
        if generated.duals is None:
            return
        self._round_by_diving(task, pricings=0, part=part)
        self._round_by_master(task, np.arange(len(self._pool)), part=part)

    def linear_optimum(self, allowance: Allowance, *, ends: float) -> _Optimum:
        """Generate fillings for least cost, and note every bound, until a part of the time limit."""
        state, problem = self._state, self._slots.problem
        task = Relaxed(
            slots=self._slots,
            node_cost=problem.cost,
            penalty=np.zeros(len(problem.demand)),
            allowance=allowance,
        )
        counts = NodeCounts()
        generated = generate(
            task,
            self._pool,
            self._pricers,
            time_left=lambda: state.seconds_left(ends),
            on_bound=lambda bound: state.raise_bound(bound, allowance=allowance),
            on_priced=lambda duals, filling_bound: counts.learn(task, duals, filling_bound),
        )
        return _Optimum(task=task, generated=generated, counts=counts)

    def minimise(self) -> None:
        """Lower the objective of placements that leave out no more, and raise its bound."""
        optimum = self.linear_optimum(self._state.best.allowance, ends=_COLUMNS)
        state, task, generated = self._state, optimum.task, optimum.generated
        if generated.duals is None:
            return
        # What the fillings fixed first leave no room for may stay unplaced on the way, at a price; a dive that
        # may not would have to stop there.
        dear = _UNPLACED_TIMES * (generated.duals.worth + float(task.node_cost.max()))
        dear *= _DEARER ** np.minimum(task.problem.level.max(initial=0) - task.problem.level, _MOST_DEARER)
        loose = replace(task, allowance=None, penalty=dear)
        search = _Rounding(task=task, loose=loose, duals=generated.duals, counts=optimum.counts)
        self._round_by_diving(loose, pricings=0, part=1.0)
        tied = (
            (self._finish_model_by_model, self._finish_by_recreation, self._finish_by_counts, self._finish_by_diving)
            if len(self._slots.source)
            else ()
        )
        for step in (
            *tied,
            self._finish_by_master,
            self._finish_by_counts,
            self._finish_by_diving,
            self._finish_by_master,
        ):
            if state.gap > _CLOSE_ENOUGH:
                step(search)

    def _finish_by_counts(self, search: _Rounding) -> None:
        state, task = self._state, search.task
        allowance = state.best.allowance

        def learnt(bound: float) -> bool:
            state.raise_bound(bound, allowance=allowance)
            return state.gap > _CLOSE_ENOUGH

        if task.allowance == allowance:
            ends = (1 - _COUNTS_PART) * state.seconds_left(_ALL)
            raise_bound(
                task,
                search.counts,
                self._pool,
                self._pricers,
                on_bound=learnt,
                time_left=lambda: state.seconds_left(_ALL) - ends,
            )

    def _finish_model_by_model(self, search: _Rounding) -> None:
        state, task = self._state, search.loose
        ends = (1 - _MODELS_PART) * state.seconds_left(_ALL)
        time_left = lambda: state.seconds_left(_ALL) - ends  # noqa: E731
        fixed, last = fix_all_but_the_last(task, self._pool, self._pricers, search.duals, time_left=time_left)
        for pricer in self._pricers:
            pricer.limit(self._slots.wanted)
        pricers = [self._pricers[kind] for kind in last]
        begin = np.maximum(_as_long_as(self._pool, fixed), 0)
        self._round_by_diving(task, pricings=1, part=_DIVING_PART, begin=begin, pricers=pricers)
        fixed = _as_long_as(self._pool, fixed)
        open_ = np.isin(np.array(self._pool.kinds, dtype=np.int64), last) | (fixed > 0)
        self._round_by_master(search.task, np.flatnonzero(open_), part=_MODELS_MASTER_PART)

    def _finish_by_master(self, search: _Rounding) -> None:
        self._round_by_master(search.task, self._promising(search.duals), part=_MASTER_PART)

    def _finish_by_diving(self, search: _Rounding) -> None:
        self._round_by_diving(search.loose, pricings=_PRICINGS, part=_DIVING_PART)

    def _finish_by_recreation(self, search: _Rounding) -> None:
        duals = search.duals
        prices = Prices(worth=duals.worth[: self._slots.shapes], node_price=duals.node_price)
        _recreate(self._state, prices, sweeps=_SWEEPS, heat=_HEAT, part=_RECREATE_PART)
        self._take_seeds()

    def _offer(self, filling: Filling, handed: Ints, *, method: str) -> None:
        self._state.offer(self._slots.decode(filling, handed), method=method)
        self._take_seeds()

    def _round_by_diving(
        self,
        task: Relaxed,
        *,
        pricings: int,
        part: float,
        begin: Ints | None = None,
        pricers: list[TypePricer] | None = None,
    ) -> None:
        ends = (1 - part) * self._state.seconds_left(_ALL)
        copies, handed = dive(
            task,
            self._pool,
            pricers or self._pricers,
            pricings=pricings,
            step_part=_STEP_PART,
            time_left=lambda: self._state.seconds_left(_ALL) - ends,
            begin=begin,
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


def _as_long_as(pool: ColumnPool, fixed: Ints) -> Ints:
    """The fixed copies with -1, for not fixed, of fillings that came since; int64[len(pool)]."""
    return np.concatenate([fixed, np.full(len(pool) - len(fixed), -1, dtype=np.int64)])
