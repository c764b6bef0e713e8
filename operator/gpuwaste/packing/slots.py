"""Slots: places for pods of one size on nodes of some types, whichever of several shapes takes them.

Pods of one size that may run on different GPU models are different shapes, but on a given node they are
interchangeable. A filling then holds slots instead of shapes, and the master hands slots out to shapes. Without
this, a third of the pods tied to one or two models makes six times as many shapes, and the column generation
has to find every mixture of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.packing.columns import Filling
from gpuwaste.packing.cutting_stock import cutting_stock_weights

if TYPE_CHECKING:
    from gpuwaste.packing.instance import Bools, Floats, Ints
    from gpuwaste.packing.shapes import Problem

__all__ = ["Slots"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """A problem with slots added as shapes without demand; S shapes, V slots, E ways to hand one out.

    Attributes:
        problem: shapes first, then slots, S + V in all.
        shapes: S.
        source: int64[E] slot that is handed out.
        target: int64[E] shape that takes it.
        offered: bool[S + V, K]; a filling of the type may hold it (a shape that has a slot there may not).
        wanted: int64[S + V] how many pods can take it at most.
        share_weights: float64[S + V] weight of each share; no GPU carries more than 1, however it is filled.
    """

    problem: Problem
    shapes: int
    source: Ints
    target: Ints
    offered: Bools
    wanted: Ints
    share_weights: Floats

    @classmethod
    def of(cls, problem: Problem) -> Slots:
        """A slot for every size and every set of types on which the same two or more shapes of it may run."""
        shapes = len(problem.demand)
        sizes: dict[tuple[int, ...], list[int]] = {}
        for shape, key in enumerate(
            np.column_stack(
                [
                    problem.cpu,
                    problem.memory,
                    problem.whole,
                    problem.share,
                    problem.island,
                    problem.sides,
                    problem.extra,
                ]
            ).tolist()
        ):
            if problem.demand[shape]:
                sizes.setdefault(tuple(key), []).append(shape)
        model: list[int] = []
        source: list[int] = []
        target: list[int] = []
        offered = problem.fits & (problem.demand > 0)[:, None]
        rows: list[Bools] = []
        for members in sizes.values():
            if len(members) == 1:
                continue
            fits = problem.fits[members]
            for taken in {tuple(column) for column in fits.T.tolist()}:
                if sum(taken) > 1:
                    types = (np.array(taken) == fits.T).all(axis=1)
                    takers = [shape for shape, yes in zip(members, taken, strict=True) if yes]
                    offered[np.array(takers)[:, None], np.flatnonzero(types)] = False
                    source += [shapes + len(rows)] * len(takers)
                    target += takers
                    model.append(members[0])
                    rows.append(types)
        return cls._build(problem, model=model, rows=rows, offered=offered, source=source, target=target)

    @classmethod
    def _build(
        cls,
        problem: Problem,
        *,
        model: list[int],
        rows: list[Bools],
        offered: Bools,
        source: list[int],
        target: list[int],
    ) -> Slots:
        shapes, kinds = problem.fits.shape
        types = np.array(rows, dtype=np.bool_).reshape(-1, kinds)
        like = np.concatenate([np.arange(shapes), np.array(model, dtype=np.int64)])
        wanted = np.concatenate([problem.demand, np.zeros(len(model), dtype=np.int64)])
        np.add.at(wanted, source, problem.demand[target])
        return cls(
            problem=replace(
                problem,
                cpu=problem.cpu[like],
                memory=problem.memory[like],
                whole=problem.whole[like],
                share=problem.share[like],
                total_milli=problem.total_milli[like],
                extra=problem.extra[like],
                level=problem.level[like],
                sides=problem.sides[like],
                island=problem.island[like],
                demand=np.concatenate([problem.demand, np.zeros(len(model), dtype=np.int64)]),
                fits=np.concatenate([problem.fits, types]),
            ),
            shapes=shapes,
            source=np.array(source, dtype=np.int64),
            target=np.array(target, dtype=np.int64),
            offered=np.concatenate([offered, types]),
            wanted=wanted,
            share_weights=cutting_stock_weights(problem.share, problem.demand)[like],
        )

    def worth(self, duals: Floats) -> Floats:
        """A slot is worth no less than the dearest shape it may be handed to; float64[S + V] or more in."""
        worth = np.maximum(duals[: len(self.wanted)], 0.0)
        np.maximum.at(worth, self.source, worth[self.target])
        return worth

    def encode(self, filling: Filling) -> tuple[Filling, Ints]:
        """The same nodes with slots, and how often each way of handing out is used; int64[E]."""
        pattern = np.concatenate(
            [filling.pattern, np.zeros((len(filling.kind), len(self.wanted) - self.shapes), dtype=np.int64)],
            axis=1,
        )
        flow = np.zeros(len(self.source), dtype=np.int64)
        for way, (slot, shape) in enumerate(zip(self.source.tolist(), self.target.tolist(), strict=True)):
            moved = np.where(self.problem.fits[slot, filling.kind], filling.pattern[:, shape], 0)
            pattern[:, slot] += moved
            pattern[:, shape] -= moved
            flow[way] = int(moved @ filling.copies)
        return replace(filling, pattern=pattern), flow

    def decode(self, filling: Filling, flow: Ints) -> Filling:
        """Shapes in their slots again; slots that nobody takes stay empty."""
        if not len(self.source):
            return filling
        kinds: list[int] = filling.kind.tolist()
        rows: list[Ints] = list(filling.pattern.copy())
        copies: list[int] = filling.copies.tolist()
        for slot in np.unique(self.source).tolist():
            ways = np.flatnonzero(self.source == slot)
            queue = [[int(self.target[way]), int(flow[way])] for way in ways.tolist() if flow[way]]
            group = 0
            while group < len(rows):
                each, count = int(rows[group][slot]), copies[group]
                if each == 0 or count == 0:
                    group += 1
                    continue
                row = rows[group].copy()
                row[slot] = 0
                times = _take(queue, row, each, count)
                # Equal nodes are filled equally as long as one shape lasts for all their slots.
                rows.append(row)
                kinds.append(kinds[group])
                copies.append(times)
                copies[group] -= times
        return Filling.joined(
            np.array(kinds, dtype=np.int64),
            np.array(rows, dtype=np.int64).reshape(-1, len(self.wanted))[:, : self.shapes],
            np.array(copies, dtype=np.int64),
        )


def _take(queue: list[list[int]], row: Ints, each: int, count: int) -> int:
    """Fill the slots of one node from the queue of (shape, how many); how many nodes can be filled so."""
    if not queue:
        return count
    shape, left = queue[0]
    if left >= each:
        times = min(left // each, count)
        row[shape] += each
        queue[0][1] -= each * times
        if queue[0][1] == 0:
            queue.pop(0)
        return times
    free = each
    while free and queue:
        taken = min(free, queue[0][1])
        row[queue[0][0]] += taken
        queue[0][1] -= taken
        free -= taken
        if queue[0][1] == 0:
            queue.pop(0)
    return 1
