"""A drain in the making: nodes emptied so far, and the exact place of every pod that had to leave."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from decimal import Decimal

    from gpuwaste.packing.drain_question import DrainQuestion
    from gpuwaste.packing.free_room import FreeRoom, Spot
    from gpuwaste.packing.instance import Bools, Floats, Ints

_LEAST_FLOW = 0.3

__all__ = ["DrainState", "Guide", "sizes_of_pods"]


def sizes_of_pods(question: DrainQuestion) -> Floats:
    """float64[P, 3]: GPU, CPU and memory of each pod as parts of all there is: how hard it is to find room for."""
    instance = question.instance
    total = instance.pod_total_milli
    whole = 1000 * max(int(instance.node_gpus.sum()), 1)
    return np.stack(
        [
            total / whole,
            instance.pod_cpu / max(int(instance.node_cpu.sum()), 1),
            instance.pod_memory / max(int(instance.node_memory.sum()), 1),
        ],
        axis=1,
    )


class Guide:
    """Which pool a relaxation sends each pod to.

    Args:
        pool: int64[N] of each node.
        used: bool[K]; the pool's nodes are in use now.
        shape_of_pod: int64[P].
        flow: float64[S, K] pods of each shape that go into each pool.
    """

    def __init__(self, *, pool: Ints, used: Bools, shape_of_pod: Ints, flow: Floats) -> None:
        self._pool, self._shape = pool, shape_of_pod
        self._left = np.where(used, flow, 0.0)
        self._new = np.where(used, 0.0, flow).sum(axis=1)

    def choose(self, pod: int, able: Ints) -> Ints:
        """Of nodes in use that have room, those to take: none where the pod shall go to a new node.

        They are those of the pool for which most pods of its shape are left. Where the relaxation has nothing more to
        say, any of them is better than a new node.
        """
        shape = self._shape[pod]
        left = self._left[shape]
        pools = self._pool[able]
        if len(able) and left[pools].max() > _LEAST_FLOW:
            best = pools[left[pools].argmax()]
            left[best] -= 1.0
            able = able[pools == best]
        elif self._new[shape] > _LEAST_FLOW:
            self._new[shape] -= 1.0
            able = able[:0]
        return able


class DrainState:
    """Nodes emptied, opened and kept, with pods at exact places.

    Attributes:
        emptied: bool[N].
        usable: bool[N]; in use and not emptied, or opened.
        spots: pod -> where it went.
    """

    def __init__(self, question: DrainQuestion, room: FreeRoom, on: Sequence[Sequence[int]]) -> None:
        self._question, self._on = question, on
        self.room = room.copy()
        self.emptied = np.zeros(len(question.node_cost), dtype=np.bool_)
        self.opened = np.zeros(len(question.node_cost), dtype=np.bool_)
        self.usable: Bools = np.array([bool(pods) for pods in on], dtype=np.bool_)
        self.spots: dict[int, Spot] = {}
        size = sizes_of_pods(question)
        instance = question.instance
        # Wide pods first, then big shares, then by the dimension that is largest.
        self._rank = np.lexsort((-size.max(axis=1), -instance.pod_total_milli)).argsort()
        self._size = size

    def copy(self) -> DrainState:
        """An independent state with the same content."""
        other = object.__new__(DrainState)
        other._question, other._on, other._rank, other._size = self._question, self._on, self._rank, self._size
        other.room = self.room.copy()
        other.emptied, other.opened, other.usable = self.emptied.copy(), self.opened.copy(), self.usable.copy()
        other.spots = dict(self.spots)
        return other

    @property
    def saved(self) -> Decimal:
        """Price of the emptied nodes less that of the opened ones."""
        cost = self._question.node_cost
        gone = sum((cost[node] for node in np.flatnonzero(self.emptied).tolist()), 0 * cost[0])
        return gone - sum((cost[node] for node in np.flatnonzero(self.opened).tolist()), 0 * cost[0])

    def close(self, node: int) -> bool:
        """Leave alone a node that was opened, if all that went there has room elsewhere."""
        before = {pod: spot for pod, spot in self.spots.items() if spot[0] == node}
        for pod, spot in before.items():
            self.room.give(pod, spot)
            del self.spots[pod]
        self.opened[node] = self.usable[node] = False
        if all(self._place(pod, None) for pod in sorted(before, key=lambda pod: int(self._rank[pod]))):
            return True
        for pod in before:
            if pod in self.spots:
                self.room.give(pod, self.spots.pop(pod))
        self.opened[node] = self.usable[node] = True
        for pod, spot in before.items():
            self.room.take(pod, spot)
            self.spots[pod] = spot
        return False

    def pods_of(self, nodes: Iterable[int]) -> list[int]:
        """Pods that stand there from the beginning, those that are hardest to place first."""
        pods = [pod for node in nodes for pod in self._on[node]]
        return sorted(pods, key=lambda pod: int(self._rank[pod]))

    def empty(self, nodes: Sequence[int]) -> list[int]:
        """Empty nodes at once; the pods for which no room was found, in which case nothing has changed.

        A node to which something went stays: it cannot be emptied any more, for no pod moves twice.
        """
        received = {node for node, _ in self.spots.values()}
        if received & set(nodes):
            return self.pods_of(node for node in nodes if node in received)
        self.usable[list(nodes)] = False
        pods = self.pods_of(nodes)
        failed = [pod for pod in pods if not self._place(pod, None)]
        if failed:
            for pod in pods:
                if pod in self.spots:
                    self.room.give(pod, self.spots.pop(pod))
            self.usable[list(nodes)] = True
            return failed
        self.emptied[list(nodes)] = True
        return []

    def evict(self, nodes: Sequence[int], guide: Guide) -> list[int]:
        """Empty nodes of a state without moves so far, as a guide says; the pods that go to nodes not in use yet."""
        self.usable[list(nodes)] = False
        self.emptied[list(nodes)] = True
        return [pod for pod in self.pods_of(nodes) if not self._place(pod, guide)]

    def restore(self, nodes: Iterable[int]) -> None:
        """Leave nodes as they were, whose pods did not all find room."""
        for node in nodes:
            for pod in self._on[node]:
                if pod in self.spots:
                    self.room.give(pod, self.spots.pop(pod))
            self.emptied[node] = False
            self.usable[node] = True

    def settle(self, pod: int, spot: Spot) -> None:
        """Put an evicted pod on a node, which is opened if need be."""
        node = spot[0]
        if not self.usable[node]:
            self.opened[node] = self.usable[node] = True
        self.room.take(pod, spot)
        self.spots[pod] = spot

    def _place(self, pod: int, guide: Guide | None) -> bool:
        nodes = np.flatnonzero(self.usable)
        able = nodes[self.room.able(pod, nodes)]
        if guide is not None:
            able = guide.choose(pod, able)
        if not len(able):
            return False
        node = self._best(pod, able)
        spot = (node, self.room.gpus_for(pod, node))
        self.room.take(pod, spot)
        self.spots[pod] = spot
        return True

    def _best(self, pod: int, able: Ints) -> int:
        """The node on which least room is lost: GPU first, then CPU and memory."""
        instance = self._question.instance
        left = self.room.cpu[able] / max(int(instance.node_cpu.max()), 1)
        left = left + self.room.memory[able] / max(int(instance.node_memory.max()), 1)
        return int(able[np.lexsort((able, left, self.room.tightness(pod, able)))[0]])
