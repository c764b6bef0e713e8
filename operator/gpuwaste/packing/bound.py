"""Proven limits of what any packing can reach."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gpuwaste.packing.instance import Floats, Ints
    from gpuwaste.packing.shapes import Problem
    from gpuwaste.packing.slots import Slots

__all__ = ["Allowance", "Relaxed", "lagrangian_bound", "next_attainable", "volume_bound"]

_SAFETY = 1e-9
"""Relative slack given away to rounding in floating point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What may stay unplaced: at most so many GPU-milli and at most so many pods.

    Attributes:
        milli: of all priorities.
        pods: of all priorities.
        by_level: the same of each priority, highest first; empty = no more is said.
    """

    milli: int
    pods: int
    by_level: tuple[tuple[int, int], ...] = ()

    def covers(self, other: Allowance) -> bool:
        """Whether all that the other allows is allowed here."""
        if self.milli < other.milli or self.pods < other.pods:
            return False
        if not self.by_level:
            return True
        return len(self.by_level) == len(other.by_level) and all(
            mine[0] >= its[0] and mine[1] >= its[1] for mine, its in zip(self.by_level, other.by_level, strict=True)
        )

    def most(self, problem: Problem) -> Ints:
        """int64[S]: pods of each shape that may stay unplaced."""
        most = np.minimum(problem.demand, self.pods)
        if self.by_level:
            milli, pods = np.array(self.by_level, dtype=np.int64)[problem.level].T
            whole = problem.total_milli > 0
            most = np.minimum(most, pods)
            most[whole] = np.minimum(most[whole], milli[whole] // problem.total_milli[whole])
        return most


@dataclass(frozen=True, slots=True, kw_only=True)
class Relaxed:
    """What a linear or integer master minimises: cost of nodes and penalties of unplaced pods.

    Attributes:
        slots: shapes, slots and types.
        node_cost: float64[K] objective of one node.
        penalty: float64[S + V] objective of one unplaced pod.
        allowance: limit of what stays unplaced; None for no limit.
    """

    slots: Slots
    node_cost: Floats
    penalty: Floats
    allowance: Allowance | None

    @property
    def problem(self) -> Problem:
        """Shapes and slots by types."""
        return self.slots.problem

    @property
    def unplaced_most(self) -> Ints:
        """int64[S + V]: pods of each shape that may stay unplaced."""
        if self.allowance is None:
            return self.problem.demand
        return self.allowance.most(self.problem)

    @property
    def caps(self) -> list[float]:
        """Limits of unplaced GPU-milli and unplaced pods; infinite without an allowance."""
        if self.allowance is None:
            return [math.inf, math.inf]
        return [float(self.allowance.milli), float(self.allowance.pods)]


def lagrangian_bound(
    task: Relaxed, *, worth: Floats, filling_bound: Floats, milli_price: float = 0.0, pod_price: float = 0.0
) -> float:
    """Lower bound of the task's objective over every placement within its allowance.

    The covering rows (every pod is placed or counted as unplaced) and the two rows of the allowance are
    relaxed with the multipliers given; what is left separates by node and by shape. Valid for any
    multipliers >= 0 (Geoffrion 1974, the bound of every round of column generation).

    Args:
        task: what is minimised.
        worth: float64[S + V] multipliers of the covering rows, >= 0; of a slot no less than of a shape it may be
            handed to.
        filling_bound: float64[K], no filling of one node of the type is worth more.
        milli_price: multiplier of the row of unplaced GPU-milli, >= 0; 0 without an allowance.
        pod_price: multiplier of the row of unplaced pods, >= 0; 0 without an allowance.
    """
    problem = task.problem
    covered = float(worth @ problem.demand)
    nodes = float(problem.supply @ np.minimum(task.node_cost - filling_bound, 0.0))
    price = task.penalty + milli_price * problem.total_milli + pod_price - worth
    unplaced = float(task.unplaced_most @ np.minimum(price, 0.0))
    allowed = 0.0
    if task.allowance is not None:
        allowed = milli_price * task.allowance.milli + pod_price * task.allowance.pods
    slack = _SAFETY * (covered + abs(nodes) + abs(unplaced) + allowed)
    return max(covered + nodes + unplaced - allowed - slack, 0.0)


def volume_bound(problem: Problem, *, allowance: Allowance) -> float:
    """First bound, in no time: the cheapest GPU-milli, CPU or memory of the fleet, filled to the brim.

    Each resource alone gives a bound; the largest is taken. With an allowance only GPU-milli counts, because
    pods may be left out.
    """
    placed = problem.demand
    needs = [int(placed @ problem.total_milli) - allowance.milli]
    have = [problem.type_gpus * 1000]
    if allowance.pods == 0:
        needs += [int(placed @ problem.cpu), int(placed @ problem.memory)]
        have += [problem.type_cpu, problem.type_memory]
    return max(
        _cheapest(problem, need, capacity.astype(np.float64)) for need, capacity in zip(needs, have, strict=True)
    )


def _cheapest(problem: Problem, need: float, capacity: Floats) -> float:
    useful = np.flatnonzero(capacity > 0)
    order = useful[np.argsort(problem.cost[useful] / capacity[useful], kind="stable")]
    total = 0.0
    for kind in order.tolist():
        if need <= 0:
            break
        nodes = min(need / capacity[kind], float(problem.supply[kind]))
        total += nodes * float(problem.cost[kind])
        need -= nodes * capacity[kind]
    return total * (1 - _SAFETY)


def next_attainable(problem: Problem, bound: float) -> Decimal:
    """The smallest sum of whole nodes that is no less than a bound.

    Every objective is a whole multiple of the greatest common divisor of the node costs, so the bound may be
    rounded up to one.
    """
    divisor = reduce(math.gcd, problem.unit_cost, 0)
    if divisor == 0:
        return Decimal(0)
    step = problem.cost_unit * divisor
    multiple = math.ceil(bound * (1 - _SAFETY) / float(step) - _SAFETY)
    return step * max(multiple, 0)
