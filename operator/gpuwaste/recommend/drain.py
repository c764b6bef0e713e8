"""Which nodes to empty: direct drains, in which a pod leaves its node only because the node goes.

Every pod lands in room that is free now on a node that stays, so that the drains can be done in any order
and no two pods ever have to trade places.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from gpuwaste.recommend.instance import build_drain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpuwaste.packing.drain_question import DrainAnswer, DrainQuestion
    from gpuwaste.recommend.scope import Scope

__all__ = ["Drain", "Drainer", "drain_nodes"]

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Nodes that are emptied, and where their pods have room.

    Attributes:
        released: indexes of the nodes that end up empty, in the order in which they were chosen.
        target: int64[P], the node of each pod afterwards.
        hourly: money an hour of the released nodes.
        moves: pods that change their node.
        hourly_at_most: money an hour that no direct drain within the moves can free more than; None = not known.
    """

    released: tuple[int, ...]
    target: Ints
    hourly: Decimal
    moves: int
    hourly_at_most: Decimal | None = None


class Drainer(Protocol):
    """Solves a drain; the real one runs in a child process."""

    def __call__(self, question: DrainQuestion, *, time_limit_seconds: float) -> DrainAnswer:
        """The best drain found in the time, with its proven bound."""
        ...


def drain_nodes(
    scope: Scope,
    *,
    empty_hint: Sequence[int] = (),
    max_moves: int | None = None,
    most: Decimal | None = None,
    drainer: Drainer | None = None,
    time_limit_seconds: float = 0.0,
) -> Drain:
    """Empty nodes so that most money an hour is freed, and among equals fewest pods move.

    Several orders are tried, each greedily; doing nothing is always one of them. Unless the best of them frees all that
    can be freed, the drainer is asked, and the better answer is taken.

    Args:
        scope: nodes and pods.
        empty_hint: nodes that a full repack leaves empty; the kinds of nodes worth emptying first.
        max_moves: pods that may be moved in all; None = any number.
        most: money an hour that no packing at all could free more than.
        drainer: solves the drain exactly; None = the greedy answer stands.
        time_limit_seconds: for the drainer.
    """
    greedy = _greedily(scope, empty_hint=empty_hint, max_moves=max_moves)
    if drainer is None or not scope.pods or (most is not None and greedy.hourly >= most):
        return greedy
    question = build_drain(scope, max_moves=len(scope.pods) if max_moves is None else max_moves)
    solved = _drain_of(scope, drainer(question, time_limit_seconds=time_limit_seconds))
    best = min((greedy, solved), key=lambda drain: (-drain.hourly, drain.moves))
    return replace(best, hourly_at_most=solved.hourly_at_most)


def _drain_of(scope: Scope, answer: DrainAnswer) -> Drain:
    """In terms of the scope: nodes that were empty and stay so are released as well, without a move."""
    used = {pod.node for pod in scope.pods}
    opened = set(answer.opened)
    empty = [
        index for index, node in enumerate(scope.nodes) if index not in used and index not in opened and not node.pinned
    ]
    idle = sum((scope.nodes[index].hourly for index in empty), Decimal(0))
    unused = sum(
        (node.hourly for index, node in enumerate(scope.nodes) if index not in used and not node.pinned), Decimal(0)
    )
    return Drain(
        released=(*answer.released, *empty),
        target=answer.final.pod_node,
        hourly=sum((scope.nodes[index].hourly for index in answer.released), Decimal(0)) + idle,
        moves=answer.moves,
        hourly_at_most=answer.saved_at_most + unused,
    )


def _greedily(scope: Scope, *, empty_hint: Sequence[int], max_moves: int | None) -> Drain:
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
    results = [_greedy(scope, order, max_moves=max_moves) for order in (hinted, *(order.tolist() for order in orders))]
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
        need = [[pod.units, pod.cpu_milli, pod.memory_mib] for pod in scope.pods]
        free = [[node.units, node.cpu_milli, node.memory_mib] for node in scope.nodes]
        limits = scope.limits
        self.need = np.hstack([np.array(need, dtype=np.int64).reshape(-1, 3), limits.needs])
        self.free = np.hstack([np.array(free, dtype=np.int64).reshape(-1, 3), limits.rooms])
        self.allowed, self.mask_of = limits.masks, limits.pod_mask
        self.enemies = {pod: np.array(sorted(others), dtype=np.int64) for pod, others in limits.enemies().items()}
        self.target = np.array([pod.node for pod in scope.pods], dtype=np.int64)
        self.home = self.target.copy()
        np.subtract.at(self.free, self.target, self.need)
        groups: dict[str, list[int]] = {}
        self.on: list[list[int]] = [[] for _ in scope.nodes]
        for index, node in enumerate(scope.nodes):
            groups.setdefault(node.group, []).append(index)
        for index, pod in enumerate(scope.pods):
            self.on[pod.node].append(index)
        self.group = [np.array(groups[node.group], dtype=np.int64) for node in scope.nodes]
        self.kept = np.ones(len(scope.nodes), dtype=np.bool_)

    def moves_with(self, node: int) -> int:
        """Pods that will have moved, at most, once this node is emptied too."""
        moved = self.target != self.home
        moved[self.on[node]] = True
        return int(moved.sum())

    def empty(self, node: int) -> bool:
        """Move every pod of a node into room elsewhere; False, and nothing changed, if one finds none."""
        others = self.group[node]
        others = others[self.kept[others] & (others != node)]
        free = self.free[others]
        pods = sorted(self.on[node], key=lambda pod: tuple(-self.need[pod]))
        places = []
        target = self.target.copy()
        for pod in pods:
            fits = (free >= self.need[pod]).all(axis=1) & self.allowed[self.mask_of[pod], others]
            if pod in self.enemies:
                fits &= ~np.isin(others, target[self.enemies[pod]])
            able = np.flatnonzero(fits)
            if not len(able):
                return False
            # Best fit: the fullest node that takes it, so that whole GPUs elsewhere stay free for wide pods.
            best = able[np.lexsort((free[able, 2], free[able, 1], free[able, 0]))[0]]
            free[best] -= self.need[pod]
            places.append(int(others[best]))
            target[pod] = places[-1]
        self.free[others] = free
        for pod, place in zip(pods, places, strict=True):
            self.target[pod] = place
            self.on[place].append(pod)
        self.on[node] = []
        self.kept[node] = False
        return True


def _greedy(scope: Scope, order: Sequence[int], *, max_moves: int | None) -> Drain:
    room = _Room(scope)
    released = []
    for index in order:
        # A node that received pods may be emptied later on: a pod that is moved on counts once.
        over = max_moves is not None and room.moves_with(index) > max_moves
        if not over and not scope.nodes[index].pinned and room.empty(index):
            released.append(index)
    current = np.array([pod.node for pod in scope.pods], dtype=np.int64)
    return Drain(
        released=tuple(released),
        target=room.target,
        hourly=sum((scope.nodes[index].hourly for index in released), Decimal(0)),
        moves=int((room.target != current).sum()),
    )
