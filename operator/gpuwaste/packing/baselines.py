"""The rules schedulers use: first fit, best fit, dot product, least fragmentation; in any order of the pods.

Each places one pod after the other and never moves one. They are the comparison of the benchmark, the first
feasible answer, and the seed of the column generation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from gpuwaste.model.errors import InvariantError
from gpuwaste.packing.gpu_patterns import pack_shares
from gpuwaste.packing.instance import WHOLE_GPU_MILLI

if TYPE_CHECKING:
    from gpuwaste.packing.instance import Bools, Floats, Ints
    from gpuwaste.packing.shapes import Problem

__all__ = ["Rule", "Shelf", "decreasing_order", "place_in_order", "scarcest_order"]

Rule = Literal["first", "best", "dot", "fragmentation"]

_TYPICAL_SHAPES = 16


class Shelf:
    """Nodes being filled: what is free on each, down to the single GPU.

    Attributes:
        kind: int64[N] type of each node.
        filling: int64[N, S] pods of each shape on each node.
    """

    def __init__(self, problem: Problem, kinds: Ints) -> None:
        self._problem = problem
        self.kind = kinds
        gpus = problem.type_gpus[kinds]
        self._cpu = problem.type_cpu[kinds].copy()
        self._memory = problem.type_memory[kinds].copy()
        self._extra = problem.type_extra[kinds].copy()
        widest = max(int(gpus.max(initial=0)), 1)
        self._gpu = np.where(np.arange(widest) < gpus[:, None], WHOLE_GPU_MILLI, 0)
        self._most = self._gpu.max(axis=1)
        self._empty = (self._gpu == WHOLE_GPU_MILLI).sum(axis=1)
        self._sides = np.zeros((len(kinds), problem.sides.shape[1], 3), dtype=np.bool_)
        self.filling = np.zeros((len(kinds), len(problem.demand)), dtype=np.int64)

    def copy(self) -> Shelf:
        """The same nodes, to try something on."""
        other = object.__new__(Shelf)
        other._problem, other.kind = self._problem, self.kind
        other.become(self)
        return other

    def become(self, other: Shelf) -> None:
        """Take over what is on the nodes of another."""
        self._cpu, self._memory, self._extra = other._cpu.copy(), other._memory.copy(), other._extra.copy()
        self._gpu, self._most, self._empty = other._gpu.copy(), other._most.copy(), other._empty.copy()
        self._sides, self.filling = other._sides.copy(), other.filling.copy()

    def load(self, filling: Ints) -> None:
        """Put a whole filling on the empty nodes, shares packed exactly; int64[N, S].

        Raises:
            InvariantError: a filling does not fit on its node.
        """
        problem = self._problem
        self.filling = filling.copy()
        self._cpu -= filling @ problem.cpu
        self._memory -= filling @ problem.memory
        self._extra -= filling @ problem.extra
        for side in (1, 2):
            self._sides[:, :, side] = filling @ (problem.sides == side) > 0
        rows: dict[tuple[int, bytes], Ints] = {}
        for node, kind in enumerate(self.kind.tolist()):
            if not filling[node].any():
                continue
            key = (kind, filling[node].tobytes())
            if key not in rows:
                rows[key] = self._free_after(kind, filling[node])
            self._gpu[node] = rows[key]
        if (self._cpu < 0).any() or (self._memory < 0).any() or (self._extra < 0).any():
            raise InvariantError("a filling does not fit on the CPU, memory or other resources of its node")
        self._most = self._gpu.max(axis=1)
        self._empty = (self._gpu == WHOLE_GPU_MILLI).sum(axis=1)

    def _free_after(self, kind: int, pattern: Ints) -> Ints:
        """Free milli of each GPU of an empty node of the type once the filling is on it."""
        problem = self._problem
        bins = int(problem.type_gpus[kind] - problem.whole @ pattern)
        shares = np.repeat(problem.share, pattern)
        shares = shares[shares > 0]
        packed = pack_shares(shares.tolist(), bins) if bins >= 0 else None
        if packed is None:
            raise InvariantError(f"a filling does not fit on the GPUs of node type {kind}")
        free = np.zeros(self._gpu.shape[1], dtype=np.int64)
        free[:bins] = [WHOLE_GPU_MILLI - int(shares[gpu].sum()) for gpu in packed]
        return free

    def able(self, shape: int) -> Bools:
        """bool[N]: the nodes on which one more pod of the shape fits."""
        problem = self._problem
        able: Bools = problem.fits[shape][self.kind]
        able &= self._cpu >= problem.cpu[shape]
        able &= self._memory >= problem.memory[shape]
        if problem.extra.shape[1]:
            able &= (self._extra >= problem.extra[shape]).all(axis=1)
        if problem.sides.shape[1]:
            for rule in np.flatnonzero(problem.sides[shape]).tolist():
                able &= ~self._sides[:, rule, 3 - problem.sides[shape, rule]]
        if problem.whole[shape]:
            able &= self._empty >= problem.whole[shape]
        elif problem.share[shape]:
            able &= self._most >= problem.share[shape]
        return able

    def put(self, shape: int, node: int) -> None:
        """Put one pod on a node that is able; a share goes to the fullest GPU that takes it."""
        problem = self._problem
        self.filling[node, shape] += 1
        self._cpu[node] -= problem.cpu[shape]
        self._memory[node] -= problem.memory[shape]
        self._extra[node] -= problem.extra[shape]
        if problem.sides.shape[1]:
            self._sides[node, np.arange(problem.sides.shape[1]), problem.sides[shape]] = True
        whole, share = int(problem.whole[shape]), int(problem.share[shape])
        row = self._gpu[node]
        if whole:
            row[np.flatnonzero(row == WHOLE_GPU_MILLI)[:whole]] = 0
        elif share:
            row[np.where(row >= share, row, 2 * WHOLE_GPU_MILLI).argmin()] -= share
        else:
            return
        self._most[node] = row.max()
        self._empty[node] = (row == WHOLE_GPU_MILLI).sum()

    def free(self, nodes: Ints) -> tuple[Ints, Ints, Ints]:
        """Free CPU int64[n], memory int64[n] and milli of each GPU int64[n, G] of some nodes."""
        return self._cpu[nodes], self._memory[nodes], self._gpu[nodes]

    def after(self, shape: int, gpu: Ints) -> Ints:
        """int64[n, G]: free milli of each GPU once a pod of the shape is there, on nodes that are able."""
        whole, share = int(self._problem.whole[shape]), int(self._problem.share[shape])
        if share:
            fullest = np.where(gpu >= share, gpu, 2 * WHOLE_GPU_MILLI).argmin(axis=1)
            gpu = gpu.copy()
            gpu[np.arange(len(gpu)), fullest] -= share
        elif whole:
            full = gpu == WHOLE_GPU_MILLI
            gpu = np.where(full & (full.cumsum(axis=1) <= whole), 0, gpu)
        return gpu

    def leftover(self) -> Floats:
        """float64[N, 3]: free CPU, memory and GPU as parts of the node."""
        problem = self._problem
        gpu_milli = np.maximum(problem.type_gpus[self.kind] * WHOLE_GPU_MILLI, 1)
        return np.stack(
            [
                self._cpu / np.maximum(problem.type_cpu[self.kind], 1),
                self._memory / np.maximum(problem.type_memory[self.kind], 1),
                self._gpu.sum(axis=1) / gpu_milli,
            ],
            axis=1,
        )


def decreasing_order(problem: Problem, pods: Ints) -> Ints:
    """The shape of each pod, highest priority first, then largest GPU need, then CPU, then memory.

    Args:
        problem: shapes and types.
        pods: int64[S], how many pods of each shape; negative counts as none.
    """
    order = np.lexsort((-problem.memory, -problem.cpu, -problem.total_milli, problem.level))
    return np.repeat(order, np.maximum(pods[order], 0))


def scarcest_order(problem: Problem, pods: Ints) -> Ints:
    """The shape of each pod; of one priority those that the fewest nodes can take, then as in `decreasing_order`.

    Args:
        problem: shapes and types.
        pods: int64[S], how many pods of each shape; negative counts as none.
    """
    nodes = problem.fits @ problem.supply
    order = np.lexsort((-problem.memory, -problem.cpu, -problem.total_milli, nodes, problem.level))
    return np.repeat(order, np.maximum(pods[order], 0))


def place_in_order(problem: Problem, shapes: Ints, kinds: Ints, *, rule: Rule) -> Ints:
    """Place pods one after the other.

    An empty node is opened only where no node in use takes the pod: the first in the order of the fleet.

    Args:
        problem: shapes and types.
        shapes: int64[P], the shape of each pod in the order of arrival.
        kinds: int64[N], the type of each node in the order of the fleet.
        rule: which of the able nodes in use is taken. `first` in order; `best` with least left; `dot` with the
            largest product of what the pod needs and the node has free (Panigrahy et al. 2011);
            `fragmentation` where what typical pods cannot use grows least (Weng et al., FGD, ATC 2023).

    Returns:
        int64[N, S] pods of each shape on each node; what fits nowhere is left out.
    """
    shelf = Shelf(problem, kinds)
    score = _Score(problem, shelf, rule)
    in_use = np.zeros(len(kinds), dtype=np.bool_)
    for shape in shapes.tolist():
        able = shelf.able(shape)
        used = np.flatnonzero(able & in_use) if rule != "first" else np.flatnonzero(able)[:1]
        if len(used):
            node = int(used[score.of(shape, used).argmin()]) if len(used) > 1 else int(used[0])
        else:
            node = int(able.argmax())
            if not able[node]:
                continue
        shelf.put(shape, node)
        in_use[node] = True
        score.changed(node)
    return shelf.filling


class _Score:
    """How good a node is for a pod under a rule; the smallest is taken."""

    def __init__(self, problem: Problem, shelf: Shelf, rule: Rule) -> None:
        self._problem, self._shelf, self._rule = problem, shelf, rule
        typical = np.argsort(-problem.demand, kind="stable")[:_TYPICAL_SHAPES]
        self._typical = typical[problem.total_milli[typical] > 0]
        weight = problem.demand[self._typical].astype(np.float64)
        self._weight = weight / max(float(weight.sum()), 1.0)
        self._fragments = np.zeros(len(shelf.kind))
        if rule == "fragmentation":
            self._fragments = self._fragmentation(*shelf.free(np.arange(len(shelf.kind))))

    def of(self, shape: int, nodes: Ints) -> Floats:
        """float64[len(nodes)]."""
        problem, shelf = self._problem, self._shelf
        if self._rule == "fragmentation":
            cpu, memory, gpu = shelf.free(nodes)
            after = shelf.after(shape, gpu)
            return (
                self._fragmentation(cpu - problem.cpu[shape], memory - problem.memory[shape], after)
                - self._fragments[nodes]
            )
        left = shelf.leftover()[nodes]
        if self._rule == "best":
            best: Floats = left.sum(axis=1)
            return best
        kind = shelf.kind[nodes]
        need = np.stack(
            [
                problem.cpu[shape] / np.maximum(problem.type_cpu[kind], 1),
                problem.memory[shape] / np.maximum(problem.type_memory[kind], 1),
                problem.total_milli[shape] / np.maximum(problem.type_gpus[kind] * WHOLE_GPU_MILLI, 1),
            ],
            axis=1,
        )
        dot: Floats = -(need * left).sum(axis=1)
        return dot

    def changed(self, node: int) -> None:
        """A pod was put on the node."""
        if self._rule == "fragmentation":
            self._fragments[node] = self._fragmentation(*self._shelf.free(np.array([node])))[0]

    def _fragmentation(self, cpu: Ints, memory: Ints, gpu: Ints) -> Floats:
        """float64[n]: free GPU-milli that a typical pod cannot use, over the typical pods."""
        problem, typical = self._problem, self._typical
        free = gpu.sum(axis=1)[:, None]
        share, whole = problem.share[typical], problem.whole[typical]
        full = np.where(gpu == WHOLE_GPU_MILLI, gpu, 0).sum(axis=1)[:, None]
        usable = np.stack([np.where(gpu >= size, gpu, 0).sum(axis=1) for size in share.tolist()], axis=1)
        usable = np.where(whole > 0, np.where(full >= whole * WHOLE_GPU_MILLI, full, 0), usable)
        runs = (cpu[:, None] >= problem.cpu[typical]) & (memory[:, None] >= problem.memory[typical])
        fragments: Floats = (free - np.where(runs, usable, 0)) @ self._weight
        return fragments
