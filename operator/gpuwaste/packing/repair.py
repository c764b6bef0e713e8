"""Places what an integer master left over, and moves nodes' content to cheaper nodes where it fits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.packing.baselines import Shelf, decreasing_order
from gpuwaste.packing.columns import Filling
from gpuwaste.packing.gpu_patterns import pack_shares

if TYPE_CHECKING:
    from gpuwaste.packing.instance import Ints
    from gpuwaste.packing.shapes import Problem

__all__ = ["downsize", "place_leftovers"]

_MOST_PODS = 3_000
_MOST_COPIES = 50


def place_leftovers(problem: Problem, filling: Filling) -> Filling:
    """Put pods that are on no node into free space, else on the cheapest unused node that takes them."""
    left = np.maximum(problem.demand - filling.placed, 0)
    if not left.any():
        return filling
    spare = problem.supply - filling.nodes_of_kinds(len(problem.supply))
    order = np.argsort(problem.cost / np.maximum(problem.type_gpus, 1), kind="stable")
    pods = decreasing_order(problem, left)[:_MOST_PODS]
    # Of many equal nodes only some need to be looked at one by one.
    few = np.minimum(filling.copies, min(len(pods), _MOST_COPIES))
    unused = np.repeat(order, np.minimum(spare[order], len(pods)))
    kinds = np.concatenate([np.repeat(filling.kind, few), unused])
    shelf = Shelf(problem, kinds)
    shelf.load(
        np.concatenate([np.repeat(filling.pattern, few, axis=0), np.zeros((len(unused), len(left)), dtype=np.int64)])
    )
    nowhere: set[int] = set()
    for shape in pods.tolist():
        if shape in nowhere:
            continue
        able = shelf.able(shape)
        node = int(able.argmax())
        if able[node]:
            shelf.put(shape, node)
        else:
            nowhere.add(shape)
    return Filling.joined(
        np.concatenate([filling.kind, kinds]),
        np.concatenate([filling.pattern, shelf.filling]),
        np.concatenate([filling.copies - few, np.ones(len(kinds), dtype=np.int64)]),
    )


def downsize(problem: Problem, filling: Filling) -> Filling:
    """Move the whole content of a node to an unused node of a cheaper type, where one takes it."""
    kind, copies = filling.kind.copy(), filling.copies.copy()
    spare = problem.supply - filling.nodes_of_kinds(len(problem.supply))
    cost = problem.cost
    cheapest_first = np.argsort(cost, kind="stable").tolist()
    moved: list[tuple[int, int, int]] = []
    for group in np.argsort(-cost[kind], kind="stable").tolist():
        for target in cheapest_first:
            if cost[target] >= cost[kind[group]] or not copies[group]:
                break
            if spare[target] and _holds(problem, filling.pattern[group], target):
                count = int(min(spare[target], copies[group]))
                spare[target] -= count
                spare[kind[group]] += count
                copies[group] -= count
                moved.append((group, target, count))
    groups = [group for group, _, _ in moved]
    return Filling.joined(
        np.concatenate([kind, np.array([target for _, target, _ in moved], dtype=np.int64)]),
        np.concatenate([filling.pattern, filling.pattern[groups]]),
        np.concatenate([copies, np.array([count for _, _, count in moved], dtype=np.int64)]),
    )


def _holds(problem: Problem, pattern: Ints, kind: int) -> bool:
    """Whether a node of a type can hold a filling."""
    bins = int(problem.type_gpus[kind] - problem.whole @ pattern)
    if (
        bins < 0
        or pattern @ problem.cpu > problem.type_cpu[kind]
        or pattern @ problem.memory > problem.type_memory[kind]
        or (pattern @ problem.extra > problem.type_extra[kind]).any()
        or not problem.fits[pattern > 0, kind].all()
    ):
        return False
    shares = np.repeat(problem.share, pattern)
    return pack_shares(shares[shares > 0].tolist(), bins) is not None
