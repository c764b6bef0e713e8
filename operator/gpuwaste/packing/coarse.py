"""Requests of nearly the same size as one class: rounded up they can be placed, rounded down they give a bound."""

from __future__ import annotations

import heapq
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.packing.instance import WHOLE_GPU_MILLI
from gpuwaste.packing.shapes import distinct_rows

if TYPE_CHECKING:
    from gpuwaste.packing.instance import Floats, Ints
    from gpuwaste.packing.shapes import Problem

__all__ = ["classes_of", "rounded"]

_MOST_SHARES = 24
"""Distinct shares of a GPU that are told apart: a GPU can be filled with so many sizes in some thousand ways."""


def classes_of(problem: Problem, *, most: int, most_shares: int = _MOST_SHARES) -> Ints:
    """int64[S]: the class of each shape.

    Shapes of one class may run on the same types, beside the same pods, have one priority, and ask for as many whole
    GPUs and as much of every further resource. A class is split where that takes most off what rounding up adds, each
    resource as a part of what the fleet has of it.

    Args:
        problem: shapes and types.
        most: how many classes there are at most, if the shapes' types and GPUs allow it.
        most_shares: how many shares of a GPU are told apart at most.
    """
    shares = _share_bucket(problem, most=most_shares)
    _, row, _ = distinct_rows(problem.fits.astype(np.int64))
    keys = np.column_stack(
        [
            problem.whole,
            shares,
            row,
            problem.demand > 0,
            problem.level,
            problem.island,
            problem.sides,
            problem.extra,
        ]
    )
    _, key, _ = distinct_rows(keys)
    fleet = problem.supply
    sizes = np.stack(
        [
            problem.cpu / max(int(fleet @ problem.type_cpu), 1),
            problem.memory / max(int(fleet @ problem.type_memory), 1),
        ]
    )
    return _split(sizes, problem.demand, key, most=most)


def _share_bucket(problem: Problem, *, most: int) -> Ints:
    """int64[S]: shares that are rounded together; each alone where there are few."""
    distinct, position = np.unique(problem.share, return_inverse=True)
    if len(distinct) <= most:
        return position.reshape(-1)
    size = problem.share[None, :] / WHOLE_GPU_MILLI
    # A share up to a half must not be counted with one above: two of them fit on a GPU.
    half = (2 * problem.share > WHOLE_GPU_MILLI).astype(np.int64) + (problem.share > 0)
    return _split(size, problem.demand, half, most=most)


def _split(sizes: Floats, weight: Ints, start: Ints, *, most: int) -> Ints:
    """Split groups until there are enough or rounding costs nothing; float64[dimensions, n], int64[n], int64[n]."""
    order = np.argsort(start, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(start[order])) + 1)
    heap: list[tuple[float, int, Ints]] = []
    for group in groups:
        heapq.heappush(heap, (-_loss(sizes[:, group], weight[group]), len(heap), group))
    number = len(heap)
    while len(heap) < most and heap[0][0] < 0:
        _, _, group = heapq.heappop(heap)
        for part in _halves(sizes[:, group], weight[group], group):
            number += 1
            heapq.heappush(heap, (-_loss(sizes[:, part], weight[part]), number, part))
    label = np.zeros(len(start), dtype=np.int64)
    for index, (_, _, group) in enumerate(sorted(heap, key=lambda entry: int(entry[2][0]))):
        label[group] = index
    return label


def _loss(sizes: Floats, weight: Ints) -> float:
    """What rounding a group up adds."""
    return float(((sizes.max(axis=1, keepdims=True) - sizes) @ weight).sum())


def _halves(sizes: Floats, weight: Ints, group: Ints) -> tuple[Ints, Ints]:
    """The two parts, along the resource that rounding adds most to, that lose least together."""
    resource = int(((sizes.max(axis=1, keepdims=True) - sizes) @ weight).argmax())
    order = np.argsort(sizes[resource], kind="stable")
    ordered, count = sizes[resource][order], np.cumsum(weight[order])
    added = ordered[:-1] * count[:-1] + ordered[-1] * (count[-1] - count[:-1])
    added[ordered[1:] == ordered[:-1]] = np.inf
    cut = int(added.argmin()) + 1
    return group[np.sort(order[:cut])], group[np.sort(order[cut:])]


def rounded(problem: Problem, class_of_shape: Ints, *, up: bool) -> Problem:
    """The problem with one shape for each class, as large as the largest of it in every resource, or as the smallest.

    A placement of the first is one of the pods themselves; a bound of the second bounds them.
    """
    count = int(class_of_shape.max(initial=-1)) + 1

    def extreme(values: Ints) -> Ints:
        result = np.full(count, 0 if up else np.iinfo(np.int64).max, dtype=np.int64)
        (np.maximum if up else np.minimum).at(result, class_of_shape, values)
        return result

    _, member = np.unique(class_of_shape, return_index=True)
    demand = np.zeros(count, dtype=np.int64)
    np.add.at(demand, class_of_shape, problem.demand)
    share = extreme(problem.share)
    whole = problem.whole[member]
    return replace(
        problem,
        cpu=extreme(problem.cpu),
        memory=extreme(problem.memory),
        whole=whole,
        share=share,
        total_milli=whole * WHOLE_GPU_MILLI + share,
        extra=problem.extra[member],
        level=problem.level[member],
        sides=problem.sides[member],
        island=problem.island[member],
        demand=demand,
        fits=problem.fits[member],
        shape_of_pod=class_of_shape[problem.shape_of_pod],
    )
