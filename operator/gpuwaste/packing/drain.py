"""Release the dearest set of nodes within a number of moves, in steps that can be carried out, with a proven bound.

A drain is direct: a pod leaves its node only because the node goes, moves once, and lands in room that is free
now on a node that stays or, where the question allows it, on one that nothing is on yet. Steps may therefore be
taken in any order, and no two pods have to trade places.
"""

from __future__ import annotations

import math
from decimal import Decimal
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.packing.drain_question import DrainAnswer, pods_per_node
from gpuwaste.packing.drain_state import DrainState, Guide
from gpuwaste.packing.drain_steps import final_placement, ordered_waves
from gpuwaste.packing.drain_verifier import check_drain
from gpuwaste.packing.engine import solve
from gpuwaste.packing.free_room import FreeRoom

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpuwaste.packing.drain_model import DrainModel, Relaxed
    from gpuwaste.packing.drain_question import DrainQuestion
    from gpuwaste.packing.free_room import Spot
    from gpuwaste.packing.instance import Ints

__all__ = ["drain"]

_CLOSE_ENOUGH = 1e-3
_FINENESS = 3
_CHOOSE_PART = 0.4
_PACK_PART = 0.5
_PACK_SECONDS = 5.0
_VARIATIONS = 100
_LEFT_OUT = (0.1, 0.7)
_SPREAD = 0.5
_HALF = 0.5
_SLACK = 1e-6


def drain(question: DrainQuestion, *, time_limit_seconds: float, clock: Callable[[], float]) -> DrainAnswer:
    """Empty nodes so that those in use cost as little as possible, within the moves there are.

    The answer is checked, step by step, before it is returned. Doing nothing is always one of the answers tried.

    Args:
        question: where pods are, and what may be done to them.
        time_limit_seconds: 0 gives a greedy answer with the bound that the moves alone set.
        clock: monotonic seconds.

    Raises:
        InvariantError: the verifier found the answer wrong.
    """
    search = _Search(question, clock=clock, deadline=clock() + time_limit_seconds)
    search.greedy()
    if time_limit_seconds > 0:
        search.by_model()
        search.by_variation()
    answer = search.answer()
    check_drain(question, answer)
    return answer


class _Search:
    """The best drain found so far, and what none can do better than."""

    def __init__(self, question: DrainQuestion, *, clock: Callable[[], float], deadline: float) -> None:
        self._question, self._clock, self._deadline = question, clock, deadline
        self._counts = pods_per_node(question)
        self._room = FreeRoom(question.instance, question.current)
        self._on: list[list[int]] = [[] for _ in question.node_cost]
        for pod, node in enumerate(question.current.pod_node.tolist()):
            if node >= 0:
                self._on[node].append(pod)
        cost = np.array([float(price) for price in question.node_cost], dtype=np.float64)
        able = np.flatnonzero(question.releasable() & (self._counts <= question.max_moves))
        # Most money a move first, and of equals the one with fewer pods.
        self._candidates = able[np.lexsort((self._counts[able], -cost[able] / self._counts[able]))]
        self._dearest = able[np.lexsort((self._counts[able], -cost[able]))]
        self._cost = cost
        self._best = DrainState(question, self._room, self._on)
        self._method = "nothing"
        self._saved_at_most = self._knapsack()

    def _knapsack(self) -> float:
        """Nodes in the order of money for a move, the last in part: no drain saves more."""
        counts, cost = self._counts[self._candidates], self._cost[self._candidates]
        moves = np.cumsum(counts)
        whole = moves <= self._question.max_moves
        total = float(cost[whole].sum())
        if not whole.all():
            first = int(whole.argmin())
            left = self._question.max_moves - (int(moves[first - 1]) if first else 0)
            total += float(cost[first]) * left / int(counts[first])
        return total

    def _done(self) -> bool:
        """Whether time is over, or nothing can be much better than the best known."""
        close = float(self._best.saved) >= self._saved_at_most * (1 - _CLOSE_ENOUGH)
        return close or self._clock() >= self._deadline

    def _offer(self, state: DrainState, method: str) -> None:
        if state.saved > self._best.saved:
            self._best, self._method = state, method

    def greedy(self) -> None:
        """Node after node in two orders, each as long as moves are left."""
        for order in (self._candidates, self._dearest):
            state = DrainState(self._question, self._room, self._on)
            self._top_up(state, order)
            self._offer(state, "greedy")
            if self._done():
                break

    def _top_up(self, state: DrainState, order: Ints) -> None:
        """Empty more nodes as long as moves are left; a node that received pods stays."""
        left = self._question.max_moves - int(self._counts[state.emptied].sum())
        for node in order.tolist():
            if not state.emptied[node] and self._counts[node] <= left and not state.empty([node]):
                left -= int(self._counts[node])

    def by_model(self) -> None:
        """The dearest set by the relaxation, carried out exactly; with finer pools while time and a gap are left."""
        # OR-Tools takes half a second to load; a first answer is known before.
        from gpuwaste.packing.drain_model import DrainModel  # noqa: PLC0415

        for fine in range(_FINENESS):
            if self._done():
                return
            model = DrainModel(self._question, self._room, fine=fine, clock=self._clock, deadline=self._deadline)
            relaxed = model.relax()
            if relaxed is None:
                return
            self._saved_at_most = min(self._saved_at_most, relaxed.saved_at_most)
            seconds = _CHOOSE_PART * (self._deadline - self._clock())
            chosen = model.choose(seconds=seconds, relative_gap=_CLOSE_ENOUGH)
            if chosen is not None:
                self._saved_at_most = min(self._saved_at_most, chosen.saved_at_most)
                self._carry_out(model, chosen)

    def by_variation(self) -> None:
        """The best drain with some nodes left out and others taken in, in orders drawn at random, over and over.

        Where nodes may be opened this finds nothing: there the order in which pods leave decides little.
        """
        if self._question.open_nodes:
            return
        base = DrainState(self._question, self._room, self._on)
        able = np.array([node for node in self._candidates.tolist() if base.copy().empty([node]) == []], dtype=np.int64)
        random = np.random.default_rng(1)
        worth = self._cost / np.maximum(self._counts, 1)
        for _ in range(_VARIATIONS):
            if self._done():
                return
            # Those of the best drain first, but for a part; a node's place is its money a move, more or less.
            kept = self._best.emptied[able] & (random.random(len(able)) > random.uniform(*_LEFT_OUT))
            drawn = worth[able] * random.lognormal(sigma=_SPREAD, size=len(able))
            state = base.copy()
            self._top_up(state, able[np.lexsort((-drawn, ~kept))])
            self._offer(state, "variation")

    def _carry_out(self, model: DrainModel, chosen: Relaxed) -> None:
        """Place every pod of the chosen nodes exactly: first in room of nodes in use, the others on new nodes."""
        state = DrainState(self._question, self._room, self._on)
        guide = Guide(pool=model.pool, used=model.used, shape_of_pod=model.shapes.shape_of_pod, flow=chosen.flow)
        left = state.evict(np.flatnonzero(chosen.empty > _HALF).tolist(), guide)
        seconds = min(max(_PACK_PART * (self._deadline - self._clock()), 0.0), _PACK_SECONDS)
        spots = _pack_on_unused(self._question, left, seconds=seconds, clock=self._clock)
        for pod, spot in spots.items():
            state.settle(pod, spot)
        state.restore({int(self._question.current.pod_node[pod]) for pod in left if pod not in spots})
        opened = np.flatnonzero(state.opened)
        for node in opened[np.argsort(-self._cost[opened], kind="stable")].tolist():
            state.close(node)
        self._top_up(state, self._candidates)
        self._offer(state, "model")

    def answer(self) -> DrainAnswer:
        """The best drain as steps."""
        question, state = self._question, self._best
        current = sum((question.node_cost[node] for node in np.flatnonzero(self._counts).tolist()), Decimal(0))
        # Most money a move first, so that a drain that is stopped half-way has brought the most.
        released = tuple(node for node in self._candidates.tolist() if state.emptied[node])
        return DrainAnswer(
            released=released,
            opened=tuple(np.flatnonzero(state.opened).tolist()),
            waves=ordered_waves(question, released, state.spots),
            current_cost=current,
            planned_cost=current - state.saved,
            bound=min(self._bound(current), current - state.saved),
            final=final_placement(question, state.spots),
            method=self._method,
        )

    def _bound(self, current: Decimal) -> Decimal:
        """What is left at least, rounded up to what whole nodes can cost."""
        places = max((-int(cost.as_tuple().exponent) for cost in self._question.node_cost), default=0)
        scale = int(10 ** max(places, 0))
        divisor = reduce(math.gcd, (int(cost * scale) for cost in self._question.node_cost), 0)
        if not divisor:
            return Decimal(0)
        least = (float(current) - self._saved_at_most) * scale / divisor
        multiple = max(math.ceil(least - _SLACK * max(1.0, abs(least) * _SLACK)), 0)
        return Decimal(multiple * divisor) / Decimal(scale)


def _pack_on_unused(
    question: DrainQuestion, pods: list[int], *, seconds: float, clock: Callable[[], float]
) -> dict[int, Spot]:
    """Put pods on as cheap nodes as possible of those with no pod on them; those left out found none."""
    unused = np.flatnonzero(question.openable())
    if not pods or not len(unused):
        return {}
    moving = sorted(pods)
    answer = solve(
        question.instance.part(np.array(moving, dtype=np.int64), unused),
        time_limit_seconds=seconds,
        objective="cost",
        clock=clock,
    )
    placement = answer.placement
    places = zip(moving, placement.pod_node.tolist(), placement.pod_gpu_set.tolist(), strict=True)
    return {pod: (int(unused[node]), placement.gpu_sets[gpus]) for pod, node, gpus in places if node >= 0}
