"""Places what an integer master left over, and moves nodes' content to cheaper nodes where it fits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.packing.baselines import Shelf, decreasing_order
from gpuwaste.packing.gpu_patterns import pack_shares

if TYPE_CHECKING:
    from gpuwaste.packing.instance import Ints
    from gpuwaste.packing.shapes import Problem

__all__ = ["downsize", "fleet_left", "place_leftovers"]


def fleet_left(problem: Problem, kind: Ints) -> Ints:
    """int64[K]: nodes of each type that are not used."""
    return problem.supply - np.bincount(kind, minlength=len(problem.supply))


def place_leftovers(problem: Problem, kind: Ints, nodes: Ints) -> tuple[Ints, Ints]:
    """Put pods that are on no node into free space, else on the cheapest unused node that takes them.

    Args:
        problem: shapes and types.
        kind: int64[N] type of each node in use.
        nodes: int64[N, S] pods on it.

    Returns:
        The same two, with more pods and perhaps more nodes.
    """
    left = problem.demand - nodes.sum(axis=0)
    if not (left > 0).any():
        return kind, nodes
    spare = fleet_left(problem, kind)
    most = int(left.sum())
    order = np.argsort(problem.cost / np.maximum(problem.type_gpus, 1), kind="stable")
    unused = np.concatenate([np.full(min(int(spare[k]), most), k) for k in order.tolist()]).astype(np.int64)
    kinds = np.concatenate([kind, unused])
    shelf = Shelf(problem, kinds)
    shelf.load(np.concatenate([nodes, np.zeros((len(unused), nodes.shape[1]), dtype=np.int64)]))
    for shape in decreasing_order(problem, left).tolist():
        able = shelf.able(shape)
        node = int(able.argmax())
        if able[node]:
            shelf.put(shape, node)
    used = shelf.filling.any(axis=1)
    return kinds[used], shelf.filling[used]


def downsize(problem: Problem, kind: Ints, nodes: Ints) -> tuple[Ints, Ints]:
    """Move the whole content of a node to an unused node of a cheaper type, where one takes it."""
    kind = kind.copy()
    spare = fleet_left(problem, kind)
    cost = problem.cost
    cheapest_first = np.argsort(cost, kind="stable").tolist()
    content = nodes @ problem.cpu, nodes @ problem.memory, nodes @ problem.whole
    for node in np.argsort(-cost[kind], kind="stable").tolist():
        shapes = np.flatnonzero(nodes[node])
        for target in cheapest_first:
            if cost[target] >= cost[kind[node]]:
                break
            if (
                spare[target]
                and content[0][node] <= problem.type_cpu[target]
                and content[1][node] <= problem.type_memory[target]
                and content[2][node] <= problem.type_gpus[target]
                and problem.fits[shapes, target].all()
                and _shares_fit(problem, nodes[node], target)
            ):
                spare[kind[node]] += 1
                spare[target] -= 1
                kind[node] = target
                break
    return kind, nodes


def _shares_fit(problem: Problem, pattern: Ints, kind: int) -> bool:
    shares = np.repeat(problem.share, pattern)
    bins = int(problem.type_gpus[kind] - problem.whole @ pattern)
    return pack_shares(shares[shares > 0].tolist(), bins) is not None
