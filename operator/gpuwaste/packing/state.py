"""State of one solve: the best placement and the best bound, both known at every moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.packing.bound import Allowance, volume_bound
from gpuwaste.packing.columns import ColumnPool, Filling
from gpuwaste.packing.repair import downsize, place_leftovers
from gpuwaste.packing.rounding import trim

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpuwaste.packing.shapes import Problem

__all__ = ["Incumbent", "SolveState"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Incumbent:
    """A placement by node.

    Attributes:
        filling: the nodes in use.
        left: GPU-milli and pods left out of each priority, highest first.
        cost_units: objective in the problem's `cost_unit`.
        method: which step found it.
    """

    filling: Filling
    left: tuple[tuple[int, int], ...]
    cost_units: int
    method: str

    @property
    def unplaced_pods(self) -> int:
        """Pods left out."""
        return sum(pods for _, pods in self.left)

    @property
    def score(self) -> tuple[tuple[tuple[int, int], ...], int]:
        """Compares as the objective does; less is better."""
        return self.left, self.cost_units

    @property
    def allowance(self) -> Allowance:
        """What it leaves out, as the allowance a bound is computed for."""
        return Allowance(milli=sum(milli for milli, _ in self.left), pods=self.unplaced_pods, by_level=self.left)


class SolveState:
    """What a solve has reached.

    Attributes:
        problem: shapes and types; every shape with demand fits on some type.
        pool: fillings seen so far.
        best: the best placement; set by the first `offer`.
    """

    def __init__(self, problem: Problem, *, clock: Callable[[], float], limit_seconds: float) -> None:
        self.problem = problem
        self.pool = ColumnPool()
        self._clock = clock
        self._started = clock()
        self._limit_seconds = limit_seconds
        none = np.zeros(0, dtype=np.int64)
        nothing = Filling(kind=none, pattern=none.reshape(0, len(problem.demand)), copies=none)
        self.best = self._judge(nothing, method="nothing placed")
        self._first_feasible_seconds = 0.0
        self._bound, self._bound_for = 0.0, Allowance(milli=-1, pods=-1)

    def seconds_left(self, part: float) -> float:
        """Seconds until this part of the time limit is used up."""
        return self._started + part * self._limit_seconds - self._clock()

    @property
    def first_feasible_seconds(self) -> float:
        """When the first placement was offered, from the start."""
        return self._first_feasible_seconds

    def offer(self, filling: Filling, *, method: str) -> None:
        """Make a placement of fillings, repair it, and keep it if it is the best."""
        problem = self.problem
        found = self._judge(downsize(problem, place_leftovers(problem, trim(problem, filling))), method=method)
        if self._first_feasible_seconds == 0.0:
            self._first_feasible_seconds = self._clock() - self._started
        if found.score < self.best.score:
            self.best = found
            self.pool.add_filling(found.filling)

    def _judge(self, filling: Filling, *, method: str) -> Incumbent:
        problem = self.problem
        left = problem.demand - filling.placed
        counts = filling.nodes_of_kinds(len(problem.supply)).tolist()
        levels = int(problem.level.max(initial=0)) + 1
        of_level = np.zeros((levels, 2), dtype=np.int64)
        np.add.at(of_level, problem.level, np.stack([left * problem.total_milli, left], axis=1))
        return Incumbent(
            filling=filling,
            left=tuple((milli, pods) for milli, pods in of_level.tolist()),
            cost_units=sum(units * count for units, count in zip(problem.unit_cost, counts, strict=True)),
            method=method,
        )

    def raise_bound(self, bound: float, *, allowance: Allowance) -> None:
        """Note a proven bound of the placements that leave out no more than the allowance."""
        if allowance != self._bound_for or bound > self._bound:
            self._bound, self._bound_for = bound, allowance

    @property
    def bound(self) -> float:
        """Best proven bound of every placement that leaves out no more than the best one does."""
        allowance, noted = self.best.allowance, self._bound_for
        first = volume_bound(self.problem, allowance=allowance)
        # What holds for an allowance holds for a smaller one: it allows fewer placements.
        if noted.covers(allowance):
            return max(first, self._bound)
        return first

    @property
    def gap(self) -> float:
        """Distance of the best placement's objective to the bound, as a part of the bound."""
        cost = float(self.problem.cost_unit * self.best.cost_units)
        return (cost - self.bound) / max(self.bound, 1e-9)
