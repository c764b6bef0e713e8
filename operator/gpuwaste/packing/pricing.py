"""Pricing: the node filling of one type that is worth most at given prices of the shapes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.packing.gpu_patterns import maximal_patterns, pack_shares
from gpuwaste.packing.instance import WHOLE_GPU_MILLI
from gpuwaste.packing.linear import Mip, Rows

if TYPE_CHECKING:
    from gpuwaste.packing.instance import Floats, Ints
    from gpuwaste.packing.shapes import Problem

__all__ = ["Priced", "TypePricer"]

_MOST_PATTERNS = 4_000
_EPSILON = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Priced:
    """The answer of one pricing.

    Attributes:
        bound: no filling of the type is worth more than this.
        pattern: int64[S], a filling that can really be placed; None if none was found.
        value: what the pattern is worth.
    """

    bound: float
    pattern: Ints | None
    value: float


class TypePricer:
    """Knapsack of one node type: CPU, memory, and GPUs by exact share patterns.

    The share patterns are continuous in the programme, so its bound is a bound of the true knapsack; a
    filling is handed out only after its shares were packed on whole GPUs exactly.
    """

    def __init__(self, problem: Problem, kind: int) -> None:
        self._problem = problem
        self.kind = kind
        self._gpus = int(problem.type_gpus[kind])
        self._items = np.flatnonzero(problem.fits[:, kind] & (problem.demand > 0))
        self._most = _most_per_node(problem, kind, self._items)
        self._mip = self._build()

    def _build(self) -> Mip:
        problem, items = self._problem, self._items
        share = problem.share[items]
        sizes = np.unique(share[share > 0])
        patterns = maximal_patterns(sizes.tolist(), limit=_MOST_PATTERNS) if len(sizes) else None
        count = len(items)
        rows: list[Ints] = []
        columns: list[Ints] = []
        values: list[Floats] = []
        upper: list[float] = []

        def add(column: Ints, value: Floats, limit: float) -> None:
            rows.append(np.full(len(column), len(upper), dtype=np.int64))
            columns.append(column.astype(np.int64))
            values.append(value.astype(np.float64))
            upper.append(limit)

        every = np.arange(count)
        for need, have in (
            (problem.cpu[items], problem.type_cpu[self.kind]),
            (problem.memory[items], problem.type_memory[self.kind]),
        ):
            add(every, need / max(float(have), 1.0), 1.0)
        whole = problem.whole[items]
        if patterns is None:
            extra = 0
            for limit, weights in _share_cuts(share, whole):
                add(every, weights, limit * self._gpus)
        else:
            extra = len(patterns)
            pattern_columns = count + np.arange(extra)
            add(
                np.concatenate([every, pattern_columns]),
                np.concatenate([whole.astype(np.float64), np.ones(extra)]),
                float(self._gpus),
            )
            for position, size in enumerate(sizes.tolist()):
                having = np.flatnonzero(patterns[:, position])
                users = np.flatnonzero(share == size)
                add(
                    np.concatenate([users, pattern_columns[having]]),
                    np.concatenate([np.ones(len(users)), -patterns[having, position].astype(np.float64)]),
                    0.0,
                )
        total = count + extra
        return Mip(
            cost=np.zeros(total),
            lower=np.zeros(total),
            upper=np.concatenate([self._most.astype(np.float64), np.full(extra, float(self._gpus))]),
            integer=np.arange(total) < count,
            rows=Rows(
                row=np.concatenate(rows),
                column=np.concatenate(columns),
                value=np.concatenate(values),
                lower=np.full(len(upper), -np.inf),
                upper=np.array(upper),
            ),
            maximise=True,
            small=True,
        )

    def price(self, worth: Floats, *, seconds: float, relative_gap: float = 1e-4) -> Priced:
        """Fill one node.

        Args:
            worth: float64[S], what one pod of each shape is worth, >= 0.
            seconds: wall time at most.
            relative_gap: how close to the best is close enough.
        """
        problem, items = self._problem, self._items
        if not len(items):
            return Priced(bound=0.0, pattern=np.zeros(len(problem.demand), dtype=np.int64), value=0.0)
        cost = np.zeros(self._mip.variables)
        cost[: len(items)] = np.maximum(worth[items], 0.0)
        self._mip.set_cost(cost)
        result = self._mip.solve(seconds=seconds, relative_gap=relative_gap)
        bound = float(cost[: len(items)] @ self._most) if result.bound is None else result.bound
        if result.values is None:
            return Priced(bound=bound, pattern=None, value=0.0)
        counts = np.rint(result.values[: len(items)]).astype(np.int64)
        counts = self._make_placeable(counts, worth[items])
        pattern = np.zeros(len(problem.demand), dtype=np.int64)
        pattern[items] = counts
        return Priced(bound=bound + _EPSILON * abs(bound), pattern=pattern, value=float(worth @ pattern))

    def _make_placeable(self, counts: Ints, worth: Floats) -> Ints:
        """Take out the least worthy shares until the rest packs on the GPUs."""
        problem, items = self._problem, self._items
        counts = counts.copy()
        while True:
            bins = self._gpus - int(problem.whole[items] @ counts)
            shares = np.repeat(problem.share[items], counts)
            shares = shares[shares > 0]
            if bins >= 0 and pack_shares(shares.tolist(), bins) is not None:
                return counts
            taken = np.flatnonzero((counts > 0) & ((problem.share[items] > 0) | (problem.whole[items] > 0)))
            milli = np.maximum(problem.total_milli[items][taken], 1)
            counts[taken[np.argmin(worth[taken] / milli)]] -= 1


def _most_per_node(problem: Problem, kind: int, items: Ints) -> Ints:
    """int64[len(items)]: how many pods of each shape alone fit on one node, at most its demand."""
    most = problem.demand[items].copy()
    for need, have in (
        (problem.cpu[items], problem.type_cpu[kind]),
        (problem.memory[items], problem.type_memory[kind]),
        (problem.whole[items], problem.type_gpus[kind]),
    ):
        needed = need > 0
        most[needed] = np.minimum(most[needed], have // need[needed])
    share = problem.share[items]
    shared = share > 0
    most[shared] = np.minimum(most[shared], problem.type_gpus[kind] * (WHOLE_GPU_MILLI // share[shared]))
    return most


def _share_cuts(share: Ints, whole: Ints) -> list[tuple[float, Floats]]:
    """Dual feasible functions of one GPU: (limit of one GPU, weight of each item).

    Volume, and Martello and Toth's family: a share above 1000 - e weighs a whole GPU if shares below e
    weigh nothing. Each is valid, so the programme stays a relaxation.
    """
    full = WHOLE_GPU_MILLI * whole.astype(np.float64)
    cuts = [(float(WHOLE_GPU_MILLI), full + share)]
    for edge in (100, 150, 200, 250, 300, 334, 400, 450, 501):
        weight = np.where(share > WHOLE_GPU_MILLI - edge, WHOLE_GPU_MILLI, np.where(share < edge, 0, share))
        if edge > WHOLE_GPU_MILLI // 2:
            weight = np.where(share > WHOLE_GPU_MILLI // 2, WHOLE_GPU_MILLI, 0)
        cuts.append((float(WHOLE_GPU_MILLI), full + weight))
    for parts in (2, 3, 4, 5):
        # floor((parts + 1) x) / parts, with x = share / 1000; the exact multiples keep their own value.
        scaled = (parts + 1) * share
        exact = scaled % WHOLE_GPU_MILLI == 0
        weight = np.where(exact, share * parts, (scaled // WHOLE_GPU_MILLI) * WHOLE_GPU_MILLI)
        cuts.append((float(WHOLE_GPU_MILLI * parts), full * parts + weight))
    return cuts
