"""Makes a placement cheaper by ruin and recreate: small groups of nodes, all of them at once.

Every sweep cuts the nodes at random into groups of a few. In each group one node is emptied, some pods are taken off
the others, and all of these are put back in one by one, the large ones first, where they fit best under weights drawn
for the group (Schrimpf et al. 2000; Christiaens and Vanden Berghe 2020). A group keeps what is better, and early on
sometimes what is worse. Groups share nothing, so one numpy call puts a pod into each of them: two hundred trials cost
as much as a few.

What is made less is the cost of the nodes in use, minus a part of the square of what their pods are worth at the
prices of the linear master. The square is what makes full nodes fuller and empty ones emptier until they can go.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gpuwaste.packing.answer import gpu_slots
from gpuwaste.packing.columns import Filling
from gpuwaste.packing.instance import WHOLE_GPU_MILLI

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpuwaste.packing.instance import Bools, Floats, Ints
    from gpuwaste.packing.shapes import Problem

__all__ = ["Prices", "recreate"]

Shorts = NDArray[np.int16]

_MOST_ENTRIES = 50_000_000
_GROUP_NODES = 5
_SPARE_NODES = 4
"""Unused nodes of each type that take part."""
_MOST_RUINED_PART = 0.3
_SQUARE_PART = 0.5
_TEMPERATURE = 0.08
"""At the beginning, as a part of the mean cost of a node in use."""
_ORDER_NOISE = 0.3
_PLACE_NOISE = 0.05
_OPENING = 100.0
"""What opening a node counts beside what is left on nodes in use, each resource at most about 1."""
_NEVER = 1e9
_WHOLE, _NONE = np.int16(WHOLE_GPU_MILLI), np.int16(0)
_EPSILON = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Prices of the linear master, by which nodes are judged.

    Attributes:
        worth: float64[S] of one pod of each shape.
        node_price: float64[K] what one more node of a type would save.
    """

    worth: Floats
    node_price: Floats


@dataclass(slots=True, kw_only=True)
class _Room:
    """What is free on nodes and what their pods are worth; arrays of the same leading dimensions.

    Attributes:
        cpu: int64[...] free.
        memory: int64[...] free.
        extra: int64[..., R] free.
        gpu: int16[..., W] free milli of each GPU.
        load: float64[...] worth of the pods.
        pods: int64[...] how many pods.
    """

    cpu: Ints
    memory: Ints
    extra: Ints
    gpu: Shorts
    load: Floats
    pods: Ints

    def of(self, nodes: Ints) -> _Room:
        """A copy of some nodes."""
        return _Room(**{field.name: getattr(self, field.name)[nodes] for field in fields(self)})

    def put(self, nodes: Ints, room: _Room, chosen: Ints) -> None:
        """Take over the nodes of the groups chosen."""
        for field in fields(self):
            getattr(self, field.name)[nodes] = getattr(room, field.name)[chosen]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pods:
    """What pods need; first dimension P.

    Attributes:
        shape: int64[P].
        cpu: int64[P].
        memory: int64[P].
        extra: int64[P, R].
        share: int16[P] milli on one GPU.
        whole: int16[P] whole GPUs.
        worth: float64[P].
        size: float64[P] GPUs, with as much CPU as makes pods without GPU comparable.
    """

    shape: Ints
    cpu: Ints
    memory: Ints
    extra: Ints
    share: Shorts
    whole: Shorts
    worth: Floats
    size: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """Pods taken off and where they are put back; G groups of g nodes, the most pods first, L the most pods of a group.

    Attributes:
        nodes: int64[G, g].
        pods: int64[G, L]; -1 beyond the last of a group.
        count: int64[G] pods of each group.
        weights: float64[G, 3] of CPU, memory and GPU left free.
    """

    nodes: Ints
    pods: Ints
    count: Ints
    weights: Floats


def recreate(
    problem: Problem,
    filling: Filling,
    prices: Prices,
    *,
    sweeps: int,
    heat: float,
    time_left: Callable[[], float],
    enough: float,
) -> Filling:
    """The placement, or a cheaper one that places as many pods of each shape.

    Where some pods may not share a node, or need GPUs that are joined, the placement stays as it is.

    Args:
        problem: shapes and types.
        filling: nodes in use.
        prices: of pods and nodes.
        sweeps: how many at most; one takes some milliseconds.
        heat: how much that is worse is accepted at first; 1 is right for a rough placement, 0 accepts nothing worse.
        time_left: seconds until this must return.
        enough: a cost that need not be made less.
    """
    kinds = _nodes(problem, filling)
    if len(kinds) * len(problem.demand) > _MOST_ENTRIES or not len(filling.kind):
        return filling
    # Here nothing knows who may not share a node, nor which GPUs are joined.
    if problem.sides.any() or problem.island.any():
        return filling
    crowd = _Crowd(problem, filling, kinds, prices)
    random = np.random.default_rng(1)
    began = max(time_left(), _EPSILON)
    best, nodes = crowd.cost, crowd.node.copy()
    temperature = heat * _TEMPERATURE * best / max(int((crowd.room.pods > 0).sum()), 1)
    for sweep in range(sweeps):
        left = time_left()
        if left <= 0 or best <= enough:
            break
        cooled = min(1 - sweep / sweeps, left / began) ** 2
        crowd.sweep(random, temperature=temperature * cooled)
        if crowd.cost < best - _EPSILON:
            best, nodes = crowd.cost, crowd.node.copy()
    rows = np.zeros((len(kinds), len(problem.demand)), dtype=np.int64)
    np.add.at(rows, (nodes, crowd.pods.shape), 1)
    return Filling.of_nodes(kinds, rows)


def _nodes(problem: Problem, filling: Filling) -> Ints:
    """int64[N]: the type of every node in use, then of some that are not."""
    spare = problem.supply - filling.nodes_of_kinds(len(problem.supply))
    return np.concatenate(
        [
            np.repeat(filling.kind, filling.copies),
            np.repeat(np.arange(len(spare)), np.minimum(spare, _SPARE_NODES)),
        ]
    )


class _Crowd:
    """Pods on nodes, down to the single GPU.

    Attributes:
        pods: what each needs.
        room: what is free on each node.
        node: int64[P] node of each pod.
        cost: of the nodes in use.
    """

    def __init__(self, problem: Problem, filling: Filling, kinds: Ints, prices: Prices) -> None:
        self._kind = kinds
        self._fits = problem.fits
        shape, self.node, self._held = _one_by_one(problem, filling)
        cpu_most = max(float(problem.type_cpu.max()), 1.0)
        self.pods = _Pods(
            shape=shape,
            cpu=problem.cpu[shape],
            memory=problem.memory[shape],
            extra=problem.extra[shape],
            share=problem.share[shape].astype(np.int16),
            whole=problem.whole[shape].astype(np.int16),
            worth=prices.worth[shape],
            size=problem.total_milli[shape] / WHOLE_GPU_MILLI + problem.cpu[shape] / cpu_most,
        )
        self._node_cost = problem.cost[kinds]
        self._dear = np.maximum(self._node_cost + prices.node_price[kinds], _EPSILON)
        # One over what a node has: free resources as parts of the node.
        have = np.stack(
            [problem.type_cpu[kinds], problem.type_memory[kinds], problem.type_gpus[kinds] * WHOLE_GPU_MILLI], axis=-1
        )
        self._per_node = 1.0 / np.maximum(have, 1)
        self.room = self._free(problem)
        self.cost = float(self._node_cost[self.room.pods > 0].sum())

    def _free(self, problem: Problem) -> _Room:
        kinds, pods, count = self._kind, self.pods, len(self._kind)
        widest = self._held.shape[1]
        room = _Room(
            cpu=problem.type_cpu[kinds],
            memory=problem.type_memory[kinds],
            extra=problem.type_extra[kinds],
            gpu=np.where(np.arange(widest) < problem.type_gpus[kinds][:, None], _WHOLE, _NONE),
            load=np.bincount(self.node, weights=pods.worth, minlength=count).astype(np.float64),
            pods=np.bincount(self.node, minlength=count),
        )
        for free, need in ((room.cpu, pods.cpu), (room.memory, pods.memory), (room.extra, pods.extra)):
            np.subtract.at(free, self.node, need)
        np.subtract.at(room.gpu, self.node, self._held)
        return room

    def sweep(self, random: np.random.Generator, *, temperature: float) -> None:
        """Ruin and recreate every group of nodes once."""
        trial = self._draw(random)
        if not trial.pods.size:
            return
        room = self.room.of(trial.nodes)
        before = self._judge(trial.nodes, room).sum(axis=1)
        self._take_off(trial, room)
        placed, places, held = self._put_back(trial, room, random)
        worse = self._judge(trial.nodes, room).sum(axis=1) - before
        luck = np.exp(-np.maximum(worse, 0.0) / max(temperature, _EPSILON))
        kept = np.flatnonzero(placed & ((worse <= 0) | (random.random(len(worse)) < luck)))
        self.room.put(trial.nodes[kept], room, kept)
        moved = trial.pods[kept] >= 0
        pods = trial.pods[kept][moved]
        self.node[pods] = places[kept][moved]
        self._held[pods] = held[kept][moved]
        self.cost = float(self._node_cost[self.room.pods > 0].sum())

    def _judge(self, nodes: Ints, room: _Room) -> Floats:
        """What is made less, node by node."""
        cost = np.where(room.pods > 0, self._node_cost[nodes], 0.0)
        judged: Floats = cost - _SQUARE_PART * room.load**2 / self._dear[nodes]
        return judged

    def _draw(self, random: np.random.Generator) -> _Trial:
        """Groups of nodes, and the pods that are taken off: all of the first node, some of the others."""
        size = min(_GROUP_NODES, len(self._kind))
        groups = len(self._kind) // size
        nodes = random.permutation(len(self._kind))[: groups * size].reshape(groups, size)
        group = np.full(len(self._kind), -1)
        group[nodes] = np.arange(groups)[:, None]
        first = np.zeros(len(self._kind), dtype=np.bool_)
        first[nodes[:, 0]] = True
        ruined = np.append(random.random(groups) * _MOST_RUINED_PART, 0.0)
        of_pod = group[self.node]
        off: Bools = first[self.node] | (random.random(len(self.node)) < ruined[of_pod])
        pods = np.flatnonzero(off & (of_pod >= 0))
        key = self.pods.size if random.integers(2) else self.pods.worth
        noisy = key[pods] * random.uniform(1 - _ORDER_NOISE, 1 + _ORDER_NOISE, len(pods))
        pods = pods[np.lexsort((-noisy, of_pod[pods]))]
        count = np.bincount(of_pod[pods], minlength=groups)
        order = np.argsort(-count, kind="stable")
        rank = np.empty(groups, dtype=np.int64)
        rank[order] = np.arange(groups)
        table = np.full((groups, int(count.max(initial=0))), -1)
        place = np.arange(len(pods)) - (np.cumsum(count) - count)[of_pod[pods]]
        table[rank[of_pod[pods]], place] = pods
        return _Trial(nodes=nodes[order], pods=table, count=count[order], weights=random.exponential(1.0, (groups, 3)))

    def _take_off(self, trial: _Trial, room: _Room) -> None:
        row, column = np.nonzero(trial.pods >= 0)
        pods, needs = trial.pods[row, column], self.pods
        at = (row, (trial.nodes[row] == self.node[pods][:, None]).argmax(axis=1))
        for free, need in ((room.cpu, needs.cpu), (room.memory, needs.memory), (room.extra, needs.extra)):
            np.add.at(free, at, need[pods])
        np.add.at(room.gpu, at, self._held[pods])
        np.subtract.at(room.load, at, needs.worth[pods])
        np.subtract.at(room.pods, at, 1)

    def _put_back(self, trial: _Trial, room: _Room, random: np.random.Generator) -> tuple[Bools, Ints, Shorts]:
        """Whether each group has placed all its pods, the node of each pod, and the milli it holds of each GPU."""
        groups, most = trial.pods.shape
        placed = np.ones(groups, dtype=np.bool_)
        places = np.full((groups, most), -1)
        held = np.zeros((groups, most, self._held.shape[1]), dtype=self._held.dtype)
        per_node = self._per_node[trial.nodes] * trial.weights[:, None, :]
        opening = _OPENING + self._dear[trial.nodes]
        for turn in range(most):
            rows = int((trial.count > turn).sum())
            pods = trial.pods[:rows, turn]
            able = self._able(trial.nodes[:rows], room, pods, rows)
            left = per_node[:rows, :, 0] * room.cpu[:rows] + per_node[:rows, :, 1] * room.memory[:rows]
            left += per_node[:rows, :, 2] * room.gpu[:rows].sum(axis=2)
            left += np.where(room.pods[:rows] > 0, _PLACE_NOISE * random.random(left.shape), opening[:rows])
            left[~able] = _NEVER
            node = left.argmin(axis=1)
            row = np.flatnonzero(left[np.arange(rows), node] < _NEVER)
            placed[:rows] &= left[np.arange(rows), node] < _NEVER
            at = (row, node[row])
            places[row, turn] = trial.nodes[at]
            held[row, turn] = self._place(room, at, pods[row])
        return placed, places, held

    def _able(self, nodes: Ints, room: _Room, pods: Ints, rows: int) -> Bools:
        """bool[rows, g]: the nodes of each group that take its pod."""
        needs = self.pods
        able: Bools = self._fits[needs.shape[pods][:, None], self._kind[nodes]]
        able &= (room.cpu[:rows] >= needs.cpu[pods][:, None]) & (room.memory[:rows] >= needs.memory[pods][:, None])
        if needs.extra.shape[1]:
            able &= (room.extra[:rows] >= needs.extra[pods][:, None, :]).all(axis=2)
        gpu = room.gpu[:rows]
        able &= gpu.max(axis=2) >= needs.share[pods][:, None]
        able &= (gpu == WHOLE_GPU_MILLI).sum(axis=2) >= needs.whole[pods][:, None]
        return able

    def _place(self, room: _Room, at: tuple[Ints, Ints], pods: Ints) -> Shorts:
        """Put one pod on a node of each group; a share goes to the fullest GPU that takes it. Milli held of each."""
        needs = self.pods
        for free, need in ((room.cpu, needs.cpu), (room.memory, needs.memory), (room.extra, needs.extra)):
            free[at] -= need[pods]
        room.load[at] += needs.worth[pods]
        room.pods[at] += 1
        gpu = room.gpu[at]
        share, whole = needs.share[pods][:, None], needs.whole[pods][:, None]
        empty = gpu == WHOLE_GPU_MILLI
        held = np.where(empty & (empty.cumsum(axis=1) <= whole), _WHOLE, _NONE)
        shared = np.flatnonzero(share[:, 0])
        fullest = np.where(gpu[shared] >= share[shared], gpu[shared], 2 * _WHOLE).argmin(axis=1)
        held[shared, fullest] = share[shared, 0]
        room.gpu[at] = gpu - held
        return held


def _one_by_one(problem: Problem, filling: Filling) -> tuple[Ints, Ints, Shorts]:
    """Shape and node of every pod, int64[P], and the milli it holds of each GPU of its node, int16[P, W]."""
    widest = max(int(problem.type_gpus.max(initial=0)), 1)
    shapes: list[int] = []
    nodes: list[int] = []
    held: list[Shorts] = []
    first = 0
    for kind, pattern, copies in zip(filling.kind.tolist(), filling.pattern, filling.copies.tolist(), strict=True):
        for shape, gpus in gpu_slots(problem, kind, pattern):
            row = np.zeros(widest, dtype=np.int16)
            row[list(gpus)] = problem.share[shape] or WHOLE_GPU_MILLI
            shapes += [shape] * copies
            nodes += range(first, first + copies)
            held += [row] * copies
        first += copies
    return np.array(shapes), np.array(nodes), np.array(held)
