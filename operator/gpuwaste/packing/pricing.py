"""Pricing: the node filling of one type that is worth most at given prices of the shapes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.packing.gpu_patterns import maximal_patterns, pack_shares, share_weights
from gpuwaste.packing.instance import WHOLE_GPU_MILLI
from gpuwaste.packing.linear import IncrementalLp, Program, solve_mip

if TYPE_CHECKING:
    from gpuwaste.packing.instance import Bools, Floats, Ints
    from gpuwaste.packing.shapes import Problem
    from gpuwaste.packing.slots import Slots

__all__ = ["Effort", "Priced", "TypePricer"]

_MOST_PATTERNS = 4_000
_EPSILON = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Priced:
    """The answer of one pricing.

    Attributes:
        bound: no filling of the type is worth more than this.
        pattern: int64[S], a filling that can really be placed; None if none was found.
    """

    bound: float
    pattern: Ints | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How hard a pricing looks.

    Attributes:
        relative_gap: how close to the best filling is close enough.
        focus: look only at what loses no more than this part of the relaxation's value; 1 looks at everything.
    """

    relative_gap: float
    focus: float


class TypePricer:
    """Knapsack of one node type: CPU, memory, and GPUs by exact share patterns.

    Its linear relaxation is solved first. What it proves to be useless in any filling better than one that is
    known is left out of the integer programme, which is small then: a pod of a shape, or a GPU pattern, whose
    reduced cost is more than the distance to the known filling (patterns are whole in every real filling).
    """

    def __init__(self, slots: Slots, kind: int) -> None:
        problem = self._problem = slots.problem
        self.kind = kind
        self._gpus = int(problem.type_gpus[kind])
        self._items = np.flatnonzero(slots.offered[:, kind])
        self._program = _knapsack(slots, kind, self._items)
        # Which side of an exclusion a node is for is whole, too, and stands last.
        self._switches = len(self._program.cost) - problem.sides.shape[1]
        self._most = self._program.upper[: len(self._items)].copy()
        self._lp = IncrementalLp(self._program)

    def limit(self, wanted: Ints) -> None:
        """From now on put no more pods of each shape or slot on a node than are wanted; int64[S + V]."""
        count = len(self._items)
        upper = self._program.upper.copy()
        upper[:count] = np.minimum(self._most, wanted[self._items])
        for column in np.flatnonzero(upper != self._program.upper).tolist():
            self._lp.set_upper(column, float(upper[column]))
        self._program = replace(self._program, upper=upper)

    def price(self, worth: Floats, *, known: float, seconds: float, effort: Effort) -> Priced:
        """Fill one node.

        Args:
            worth: float64[S], what one pod of each shape is worth, >= 0.
            known: only fillings worth more than this are of interest.
            seconds: wall time at most for each of the two programmes.
            effort: how hard to look.
        """
        if not len(self._items):
            return Priced(bound=0.0, pattern=None)
        cost = np.zeros(len(self._program.cost))
        cost[: len(self._items)] = -np.maximum(worth[self._items], 0.0)
        self._lp.set_cost(cost)
        relaxed = self._lp.solve(seconds=seconds, prices_only=True)
        duals = np.zeros(len(self._program.row_upper)) if relaxed is None else np.maximum(-relaxed.duals, 0.0)
        gain = self._gain(cost, duals)
        # Valid for any duals >= 0, so no tolerance of the solver gets into the bound.
        bound = float(duals @ self._program.row_upper + self._program.upper @ np.maximum(gain, 0.0))
        bound += _EPSILON * abs(bound)
        if bound <= known * (1 + effort.relative_gap) + _EPSILON:
            return Priced(bound=bound, pattern=None)
        return self._integer(cost, gain, bound=bound, known=known, seconds=seconds, effort=effort)

    def _gain(self, cost: Floats, duals: Floats) -> Floats:
        """float64[V]: what one unit of each variable adds beyond the price of what it takes."""
        program = self._program
        taken = np.bincount(program.column, weights=program.value * duals[program.row], minlength=len(program.cost))
        return -cost - taken

    def _integer(
        self, cost: Floats, gain: Floats, *, bound: float, known: float, seconds: float, effort: Effort
    ) -> Priced:
        program, count = self._program, len(self._items)
        # A filling with anything that loses more than this is worth less than the bound minus this.
        slack = min(bound - known, effort.focus * bound)
        loss = np.maximum(-gain, 0.0)
        most = np.minimum(program.upper, np.floor(slack / np.maximum(loss, 1e-12) + _EPSILON))
        keep = np.flatnonzero(most > 0)
        small = _restricted(replace(program, cost=cost, upper=most), keep)
        result = solve_mip(
            small,
            integer=(keep < count) | (keep >= self._switches),
            seconds=seconds,
            relative_gap=effort.relative_gap,
            small=True,
        )
        if result.bound is not None:
            bound = min(bound, max(-result.bound + _EPSILON * bound, bound - slack))
        if result.values is None:
            return Priced(bound=bound, pattern=None)
        counts = np.zeros(count, dtype=np.int64)
        chosen = keep < count
        counts[keep[chosen]] = np.rint(result.values[chosen]).astype(np.int64)
        pattern = np.zeros(len(self._problem.demand), dtype=np.int64)
        pattern[self._items] = self._make_placeable(counts, -cost[:count])
        return Priced(bound=bound, pattern=pattern)

    def _make_placeable(self, counts: Ints, worth: Floats) -> Ints:
        """Take out the least worthy GPU pods until the rest packs on the GPUs."""
        problem, items = self._problem, self._items
        milli = problem.total_milli[items]
        while True:
            bins = self._gpus - int(problem.whole[items] @ counts)
            shares = np.repeat(problem.share[items], counts)
            if bins >= 0 and pack_shares(shares[shares > 0].tolist(), bins) is not None:
                return counts
            taken = np.flatnonzero((counts > 0) & (milli > 0))
            counts[taken[np.argmin(worth[taken] / milli[taken])]] -= 1


def _restricted(program: Program, keep: Ints) -> Program:
    """The programme of some of its variables."""
    position = np.full(len(program.cost), -1, dtype=np.int64)
    position[keep] = np.arange(len(keep))
    entry: Bools = position[program.column] >= 0
    return replace(
        program,
        cost=program.cost[keep],
        lower=program.lower[keep],
        upper=program.upper[keep],
        row=program.row[entry],
        column=position[program.column[entry]],
        value=program.value[entry],
    )


def _knapsack(slots: Slots, kind: int, items: Ints) -> Program:
    """Pods of each shape (whole) and GPUs by pattern.

    Rows: CPU, memory, each further resource, GPUs, then one for each share size, then one for each pod of an exclusion.
    """
    problem = slots.problem
    share, whole = problem.share[items], problem.whole[items]
    gpus = float(problem.type_gpus[kind])
    sizes = np.unique(share[share > 0])
    patterns = maximal_patterns(sizes.tolist(), limit=_MOST_PATTERNS) if len(sizes) else None
    needs = [
        problem.cpu[items] / max(float(problem.type_cpu[kind]), 1.0),
        problem.memory[items] / max(float(problem.type_memory[kind]), 1.0),
        *(problem.extra[items] / np.maximum(problem.type_extra[kind], 1)).T,
    ]
    plain = len(needs)
    if patterns is None:
        weights = [*share_weights(share, whole), whole + slots.share_weights[items]]
        needs += [weight / max(gpus, 1.0) for weight in weights]
        matrix = np.stack(needs)
        limits = np.ones(len(needs))
        if gpus == 0:
            limits[plain:] = 0.0
    else:
        of_size = np.where(share == sizes[:, None], 1.0, 0.0)
        matrix = np.block(
            [
                [np.stack(needs), np.zeros((plain, len(patterns)))],
                [whole[None, :].astype(np.float64), np.ones((1, len(patterns)))],
                [of_size, -patterns.T.astype(np.float64)],
            ]
        )
        limits = np.concatenate([np.ones(plain), [gpus], np.zeros(len(sizes))])
    most = _most_per_node(problem, kind, items, slots.wanted[items]).astype(np.float64)
    extra = matrix.shape[1] - len(items)
    matrix, limits = _with_exclusions(matrix, limits, problem.sides[items], most)
    switches = problem.sides.shape[1]
    row, column = np.nonzero(matrix)
    return Program(
        cost=np.zeros(matrix.shape[1]),
        lower=np.zeros(matrix.shape[1]),
        upper=np.concatenate([most, np.full(extra, gpus), np.ones(switches)]),
        row=row,
        column=column,
        value=matrix[row, column],
        row_lower=np.full(len(limits), -np.inf),
        row_upper=limits,
    )


def _with_exclusions(matrix: Floats, limits: Floats, sides: Ints, most: Floats) -> tuple[Floats, Floats]:
    """A switch for each exclusion, 0 or 1: at 0 no pod of side 1 is on the node, at 1 none of side 2."""
    rules = sides.shape[1]
    item, rule = np.nonzero(sides)
    rows = np.zeros((len(item), matrix.shape[1] + rules))
    first = sides[item, rule] == 1
    rows[np.arange(len(item)), item] = 1.0
    rows[np.arange(len(item)), matrix.shape[1] + rule] = np.where(first, -most[item], most[item])
    wider = np.concatenate([np.hstack([matrix, np.zeros((len(matrix), rules))]), rows])
    return wider, np.concatenate([limits, np.where(first, 0.0, most[item])])


def _most_per_node(problem: Problem, kind: int, items: Ints, wanted: Ints) -> Ints:
    """int64[len(items)]: how many pods of each shape alone fit on one node, at most what is wanted."""
    most = wanted.copy()
    for need, have in (
        (problem.cpu[items], problem.type_cpu[kind]),
        (problem.memory[items], problem.type_memory[kind]),
        (problem.whole[items], problem.type_gpus[kind]),
        *zip(problem.extra[items].T, problem.type_extra[kind], strict=True),
    ):
        needed = need > 0
        most[needed] = np.minimum(most[needed], have // need[needed])
    share = problem.share[items]
    shared = share > 0
    most[shared] = np.minimum(most[shared], problem.type_gpus[kind] * (WHOLE_GPU_MILLI // share[shared]))
    return most
