"""What any drain within a number of moves can save at most: pods move as amounts, nodes are emptied or not.

A pool is all unused nodes of one kind, or all nodes in use of one GPU model, or those of them with alike room. A
node is emptied (y = 1) or kept, an unused one opened; f[i, k] pods of shape i move into pool k. Every row holds for
each drain that can be carried out:

- moves: the pods of the emptied nodes are at most the budget;
- cover: what stands on emptied nodes moves into some pool;
- room: what moves into a pool takes no more CPU, memory and GPU-milli than its kept and opened nodes have free;
- dominance: a pod j that is m[i, j] times as large as a size i in everything takes the place of m such pods, so that
  sum_j m[i, j] f[j, k] <= sum of how many of size i the free room of the pool's nodes takes. Sizes are the shapes
  themselves and what they need of one resource alone;
- GPUs: dual feasible functions, by which one GPU carries at most 1 (see `share_weights` and `cutting_stock_weights`).

Of the last two there are sizes x pools rows; those that a solution breaks are added, the others never.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.packing.cutting_stock import cutting_stock_weights
from gpuwaste.packing.drain_shapes import DrainShapes, Probes
from gpuwaste.packing.gpu_patterns import share_weights
from gpuwaste.packing.instance import WHOLE_GPU_MILLI
from gpuwaste.packing.linear import IncrementalLp, Program, solve_mip

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpuwaste.packing.drain_question import DrainQuestion
    from gpuwaste.packing.free_room import FreeRoom
    from gpuwaste.packing.instance import Bools, Floats, Ints

__all__ = ["DrainModel", "Relaxed"]

_ROUNDS = 12
_ROWS_A_ROUND = 150
_VIOLATED = 1e-6
_SAFETY = 1e-7


@dataclass(frozen=True, slots=True, kw_only=True)
class Relaxed:
    """A solution of the relaxation.

    Attributes:
        empty: float64[N]; 1 = the node is emptied.
        open: float64[N]; 1 = the unused node is opened.
        flow: float64[S, K] pods of each shape that move into each pool.
        saved: of this solution.
        saved_at_most: no drain saves more.
    """

    empty: Floats
    open: Floats
    flow: Floats
    saved: float
    saved_at_most: float


class DrainModel:
    """The relaxation of one question, with the rows found so far.

    Attributes:
        shapes: of the pods that may move.
        pool: int64[N] of each node.
        pools: how many.
        used: bool[pools]; the pool's nodes are in use now.
    """

    def __init__(
        self, question: DrainQuestion, room: FreeRoom, *, fine: int, clock: Callable[[], float], deadline: float
    ) -> None:
        self._clock, self._deadline = clock, deadline
        self.shapes = shapes = DrainShapes.of(question)
        instance = question.instance
        releasable = question.releasable()
        self._nodes = len(question.node_cost)
        self._empty = np.flatnonzero(releasable)
        cost = np.array([float(price) for price in question.node_cost], dtype=np.float64)
        used = np.bincount(question.current.pod_node[question.current.pod_node >= 0], minlength=self._nodes) > 0
        self._kinds, self._members = _unused_kinds(question)
        # Room of every node that is in use, of one node of every unused kind, for shapes and as amounts.
        probes = Probes.of(shapes)
        self._fit = probes.fit(cpu=room.cpu, memory=room.memory, gpu=room.gpu)
        self._amount = np.stack([room.cpu, room.memory, room.gpu.sum(axis=1)], axis=1).astype(np.float64)
        self._ratio = probes.ratio(shapes)
        self.pool, pool_model = _pools(instance.node_model, used, self._members, room, fine=fine)
        self.pools = len(pool_model)
        self.used = np.zeros(self.pools, dtype=np.bool_)
        self.used[self.pool[used]] = True
        fits = Probes(cpu=shapes.cpu, memory=shapes.memory, whole=shapes.whole, share=shapes.share).fit(
            cpu=room.cpu, memory=room.memory, gpu=room.gpu
        )
        fits[~used & ~question.openable()] = 0
        useful = np.stack([fits[self.pool == pool].max(axis=0) > 0 for pool in range(self.pools)], axis=1)
        self._gpu_rows(room)
        self._need = np.stack([shapes.cpu, shapes.memory, shapes.total_milli], axis=1).astype(np.float64)
        self._used = used
        self._cost = cost
        pairs = np.argwhere(shapes.allowed[:, pool_model] & useful)
        self._flow_shape, self._flow_pool = pairs[:, 0], pairs[:, 1]
        self._first_open = len(self._empty)
        self._first_flow = self._first_open + len(self._kinds)
        self._width = self._first_flow + len(pairs)
        self._rows: list[tuple[float, float, Ints, Floats]] = []
        self._known: set[tuple[int, int]] = set()
        self._base_rows(question)
        self._lp = IncrementalLp(self._program())

    def _base_rows(self, question: DrainQuestion) -> None:
        counts = self.shapes.on_node[self._empty]
        columns = np.arange(len(self._empty))
        self._rows.append((-np.inf, float(question.max_moves), columns, counts.sum(axis=1).astype(np.float64)))
        for shape in range(len(self.shapes.cpu)):
            flows = self._first_flow + np.flatnonzero(self._flow_shape == shape)
            hosts = np.flatnonzero(counts[:, shape])
            self._rows.append(
                (
                    0.0,
                    np.inf,
                    np.concatenate([flows, columns[hosts]]),
                    np.concatenate([np.ones(len(flows)), -counts[hosts, shape].astype(np.float64)]),
                )
            )
        for pool in range(self.pools):
            for kind in range(self._amount.shape[1]):
                self._rows.append(self._pool_row(pool, self._need[:, kind], self._amount[:, kind]))

    def _gpu_rows(self, room: FreeRoom) -> None:
        """Weights of which one GPU carries at most 1, however it is filled, as further probes of room."""
        shapes = self.shapes
        dearest = shapes.whole + cutting_stock_weights(shapes.share, shapes.on_node.sum(axis=0))
        weights = np.array([*share_weights(shapes.share, shapes.whole), dearest])
        gpus = np.broadcast_to((room.gpu > 0).sum(axis=1)[:, None], (len(room.gpu), len(weights)))
        self._ratio = np.concatenate([self._ratio, weights])
        self._fit = np.concatenate([self._fit, gpus], axis=1)

    def _pool_row(self, pool: int, weight: Floats, room: Floats) -> tuple[float, float, Ints, Floats]:
        """What moves into a pool, by weight of a shape, is at most the room of its nodes that are not emptied."""
        flows = np.flatnonzero((self._flow_pool == pool) & (weight[self._flow_shape] > 0))
        emptied = np.flatnonzero((self.pool[self._empty] == pool) & (room[self._empty] > 0))
        opened = np.flatnonzero((self.pool[self._kinds] == pool) & (room[self._kinds] > 0))
        total = float(room[(self.pool == pool) & self._used].sum())
        values = np.concatenate(
            [room[self._empty[emptied]], -room[self._kinds[opened]], weight[self._flow_shape[flows]]]
        )
        scale = max(float(np.abs(values).max(initial=0.0)), 1.0)
        columns = np.concatenate([emptied, self._first_open + opened, self._first_flow + flows])
        return -np.inf, total / scale, columns, values / scale

    def _program(self) -> Program:
        lengths = [len(columns) for _, _, columns, _ in self._rows]
        return Program(
            cost=np.concatenate([-self._cost[self._empty], self._cost[self._kinds], np.zeros(len(self._flow_shape))]),
            lower=np.zeros(self._width),
            upper=np.concatenate(
                [
                    np.ones(len(self._empty)),
                    np.array([len(members) for members in self._members], dtype=np.float64),
                    np.full(len(self._flow_shape), np.inf),
                ]
            ),
            row=np.repeat(np.arange(len(self._rows)), lengths),
            column=np.concatenate([columns for _, _, columns, _ in self._rows]),
            value=np.concatenate([values for _, _, _, values in self._rows]),
            row_lower=np.array([lower for lower, _, _, _ in self._rows]),
            row_upper=np.array([upper for _, upper, _, _ in self._rows]),
        )

    def _violated(self, values: Floats) -> list[tuple[int, int]]:
        """(pool, probe) of the dominance rows that a solution breaks most."""
        pools = self.pools
        flow = np.zeros((pools, len(self.shapes.cpu)))
        flow[self._flow_pool, self._flow_shape] = values[self._first_flow :]
        kept = self._used.astype(np.float64)
        kept[self._empty] -= values[: self._first_open]
        kept[self._kinds] += values[self._first_open : self._first_flow]
        found: list[tuple[float, int, int]] = []
        for pool in range(pools):
            nodes = np.flatnonzero((self.pool == pool) & (kept > 0))
            over = self._ratio @ flow[pool] - kept[nodes] @ self._fit[nodes]
            found += [
                (float(over[probe]), pool, probe)
                for probe in np.flatnonzero(over > _VIOLATED).tolist()
                if (pool, probe) not in self._known
            ]
        found.sort(key=lambda one: (-one[0], one[1], one[2]))
        return [(pool, probe) for _, pool, probe in found[:_ROWS_A_ROUND]]

    def _add(self, pairs: list[tuple[int, int]]) -> None:
        for pool, probe in pairs:
            row = self._pool_row(pool, self._ratio[probe].astype(np.float64), self._fit[:, probe].astype(np.float64))
            self._rows.append(row)
            self._known.add((pool, probe))
            lower, upper, columns, values = row
            self._lp.add_row(lower=lower, upper=upper, columns=columns.tolist(), values=values.tolist())

    def relax(self) -> Relaxed | None:
        """The optimum of the linear relaxation with all dominance rows it breaks; None if time ran out before one."""
        best: Relaxed | None = None
        for _ in range(_ROUNDS):
            left = self._deadline - self._clock()
            result = self._lp.solve(seconds=left) if left > 0 else None
            if result is None:
                break
            best = self._relaxed(result.values, result.objective, result.objective)
            pairs = self._violated(result.values)
            if not pairs:
                break
            self._add(pairs)
        return best

    def choose(self, *, seconds: float, relative_gap: float) -> Relaxed | None:
        """The best whole nodes found in the time; its bound holds for every drain."""
        integer = np.zeros(self._width, dtype=np.bool_)
        integer[: self._first_flow] = True
        best: Relaxed | None = None
        until = self._clock() + seconds
        at_most = np.inf
        while (left := until - self._clock()) > 0:
            result = solve_mip(self._program(), integer=integer, seconds=left, relative_gap=relative_gap)
            if result.bound is not None:
                at_most = min(at_most, -result.bound)
            if result.values is None:
                break
            values = result.values
            values[: self._first_flow] = np.rint(values[: self._first_flow])
            objective = float(self._program().cost @ values)
            best = self._relaxed(values, objective, -at_most)
            pairs = self._violated(values)
            if not pairs:
                break
            self._add(pairs)
        return best

    def _relaxed(self, values: Floats, objective: float, bound: float) -> Relaxed:
        empty, opened = np.zeros(self._nodes), np.zeros(self._nodes)
        empty[self._empty] = values[: self._first_open]
        for members, count in zip(self._members, values[self._first_open : self._first_flow].tolist(), strict=True):
            opened[members[: round(count)]] = 1.0
        flow = np.zeros((len(self.shapes.cpu), self.pools))
        flow[self._flow_shape, self._flow_pool] = values[self._first_flow :]
        at_most = -bound + _SAFETY * max(1.0, abs(bound))
        return Relaxed(empty=empty, open=opened, flow=flow, saved=-objective, saved_at_most=at_most)


def _pools(model: Ints, used: Bools, kinds: list[Ints], room: FreeRoom, *, fine: int) -> tuple[Ints, Ints]:
    """The pool of every node and the GPU model of every pool: unused nodes by kind, others by what is free on them."""
    gpu = np.sort(room.gpu, axis=1)
    free = [(gpu == WHOLE_GPU_MILLI).sum(axis=1), gpu.max(axis=1) // 250]
    amounts = [gpu.max(axis=1) // 100, np.minimum(room.cpu // 8000, 4), np.minimum(room.memory // 32768, 4)]
    key = np.stack([model, used, *(free if fine > 0 else []), *(amounts if fine > 1 else [])], axis=1)
    for number, members in enumerate(kinds):
        key[members] = -1
        key[members, 0] = -2 - number
    _, first, pool = np.unique(key, axis=0, return_index=True, return_inverse=True)
    return pool.reshape(-1), model[first]


def _unused_kinds(question: DrainQuestion) -> tuple[Ints, list[Ints]]:
    """The first node of every kind of nodes that may be opened, and the nodes of each kind."""
    instance = question.instance
    kinds: dict[tuple[object, ...], list[int]] = {}
    for node in np.flatnonzero(question.openable()).tolist():
        key = (
            int(instance.node_model[node]),
            int(instance.node_gpus[node]),
            int(instance.node_cpu[node]),
            int(instance.node_memory[node]),
            question.node_cost[node],
        )
        kinds.setdefault(key, []).append(node)
    members = [np.array(nodes, dtype=np.int64) for nodes in kinds.values()]
    return np.array([nodes[0] for nodes in members], dtype=np.int64), members
