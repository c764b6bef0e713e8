"""Which nodes to empty: direct drains, in which a pod leaves its node only because the node goes.

Every pod lands in room that is free now on a node that stays, so that the drains can be done in any order
and no two pods ever have to trade places.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpuwaste.recommend.scope import Scope

__all__ = ["Drain", "drain_nodes"]

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Nodes that are emptied, and where their pods have room.

    Attributes:
        released: indexes of the nodes that end up empty, in the order in which they were chosen.
        target: int64[P], the node of each pod afterwards.
        hourly: money an hour of the released nodes.
        moves: pods that change their node.
    """

    released: tuple[int, ...]
    target: Ints
    hourly: Decimal
    moves: int


def drain_nodes(scope: Scope, *, empty_hint: Sequence[int] = ()) -> Drain:
    """Empty nodes so that most money an hour is freed, and among equals fewest pods move.

    Several orders are tried, each greedily; the best result is taken. Doing nothing is always one of them.

    Args:
        scope: nodes and pods.
        empty_hint: nodes that a full repack leaves empty; the kinds of nodes worth emptying first.
    """
    load = np.zeros(len(scope.nodes), dtype=np.int64)
    pods = np.zeros(len(scope.nodes), dtype=np.int64)
    for pod in scope.pods:
        load[pod.node] += pod.units
        pods[pod.node] += 1
    units = np.array([max(node.units, 1) for node in scope.nodes], dtype=np.int64)
    price = np.array([float(node.hourly) for node in scope.nodes])
    orders = [
        np.lexsort((pods, -price, load / units)),
        np.lexsort((load / units, -price / (1 + pods))),
        np.lexsort((pods, load / units, -price)),
    ]
    hinted = _hinted(scope, empty_hint, orders[0].tolist())
    results = [_greedy(scope, order) for order in (hinted, *(order.tolist() for order in orders))]
    return min(results, key=lambda drain: (-drain.hourly, drain.moves))


def _hinted(scope: Scope, empty: Sequence[int], order: list[int]) -> list[int]:
    """The order with as many nodes of each kind moved to its front as the repack leaves empty of that kind.

    A repack does not tell equal nodes apart: which of them to empty is for the load on them to say.
    """
    quota: dict[tuple[object, ...], int] = {}
    for index in empty:
        quota[_kind(scope, index)] = quota.get(_kind(scope, index), 0) + 1
    front = []
    for index in order:
        if quota.get(_kind(scope, index), 0) and not scope.nodes[index].pinned:
            quota[_kind(scope, index)] -= 1
            front.append(index)
    chosen = set(front)
    return [*front, *(index for index in order if index not in chosen)]


def _kind(scope: Scope, index: int) -> tuple[object, ...]:
    node = scope.nodes[index]
    return (node.group, node.units, node.cpu_milli, node.memory_mib, node.hourly)


class _Room:
    """What is free on every node while nodes are being emptied."""

    def __init__(self, scope: Scope) -> None:
        self.need = np.array(
            [[pod.units, pod.cpu_milli, pod.memory_mib] for pod in scope.pods], dtype=np.int64
        ).reshape(len(scope.pods), 3)
        self.free = np.array(
            [[node.units, node.cpu_milli, node.memory_mib] for node in scope.nodes], dtype=np.int64
        ).reshape(len(scope.nodes), 3)
        self.target = np.array([pod.node for pod in scope.pods], dtype=np.int64)
        np.subtract.at(self.free, self.target, self.need)
        groups: dict[str, list[int]] = {}
        self.on: list[list[int]] = [[] for _ in scope.nodes]
        for index, node in enumerate(scope.nodes):
            groups.setdefault(node.group, []).append(index)
        for index, pod in enumerate(scope.pods):
            self.on[pod.node].append(index)
        self.group = [np.array(groups[node.group], dtype=np.int64) for node in scope.nodes]
        self.kept = np.ones(len(scope.nodes), dtype=np.bool_)

    def empty(self, node: int) -> bool:
        """Move every pod of a node into room elsewhere; False, and nothing changed, if one finds none."""
        others = self.group[node]
        others = others[self.kept[others] & (others != node)]
        free = self.free[others]
        pods = sorted(self.on[node], key=lambda pod: tuple(-self.need[pod]))
        places = []
        for pod in pods:
            able = np.flatnonzero((free >= self.need[pod]).all(axis=1))
            if not len(able):
                return False
            # Best fit: the fullest node that takes it, so that whole GPUs elsewhere stay free for wide pods.
            best = able[np.lexsort((free[able, 2], free[able, 1], free[able, 0]))[0]]
            free[best] -= self.need[pod]
            places.append(int(others[best]))
        self.free[others] = free
        for pod, place in zip(pods, places, strict=True):
            self.target[pod] = place
            self.on[place].append(pod)
        self.on[node] = []
        self.kept[node] = False
        return True


def _greedy(scope: Scope, order: Sequence[int]) -> Drain:
    room = _Room(scope)
    released = tuple(index for index in order if not scope.nodes[index].pinned and room.empty(index))
    current = np.array([pod.node for pod in scope.pods], dtype=np.int64)
    return Drain(
        released=released,
        target=room.target,
        hourly=sum((scope.nodes[index].hourly for index in released), Decimal(0)),
        moves=int((room.target != current).sum()),
    )
