"""The rules schedulers use: first fit and best fit, in any order of the pods.

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

Rule = Literal["first", "best"]


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
        widest = max(int(gpus.max(initial=0)), 1)
        self._gpu = np.where(np.arange(widest) < gpus[:, None], WHOLE_GPU_MILLI, 0)
        self._most = self._gpu.max(axis=1)
        self._empty = (self._gpu == WHOLE_GPU_MILLI).sum(axis=1)
        self.filling = np.zeros((len(kinds), len(problem.demand)), dtype=np.int64)

    def load(self, filling: Ints) -> None:
        """Put a whole filling on the empty nodes, shares packed exactly; int64[N, S].

        Raises:
            InvariantError: a filling does not fit on its node.
        """
        problem = self._problem
        self.filling = filling.copy()
        self._cpu -= filling @ problem.cpu
        self._memory -= filling @ problem.memory
        rows: dict[tuple[int, bytes], Ints] = {}
        for node, kind in enumerate(self.kind.tolist()):
            if not filling[node].any():
                continue
            key = (kind, filling[node].tobytes())
            if key not in rows:
                rows[key] = self._free_after(kind, filling[node])
            self._gpu[node] = rows[key]
        if (self._cpu < 0).any() or (self._memory < 0).any():
            raise InvariantError("a filling does not fit on the CPU or memory of its node")
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
    """The shape of each pod, largest GPU need first, then CPU, then memory.

    Args:
        problem: shapes and types.
        pods: int64[S], how many pods of each shape; negative counts as none.
    """
    order = np.lexsort((-problem.memory, -problem.cpu, -problem.total_milli))
    return np.repeat(order, np.maximum(pods[order], 0))


def scarcest_order(problem: Problem, pods: Ints) -> Ints:
    """The shape of each pod, those that the fewest nodes can take first, then as in `decreasing_order`.

    Args:
        problem: shapes and types.
        pods: int64[S], how many pods of each shape; negative counts as none.
    """
    nodes = problem.fits @ problem.supply
    order = np.lexsort((-problem.memory, -problem.cpu, -problem.total_milli, nodes))
    return np.repeat(order, np.maximum(pods[order], 0))


def place_in_order(problem: Problem, shapes: Ints, kinds: Ints, *, rule: Rule) -> Ints:
    """Place pods one after the other.

    Args:
        problem: shapes and types.
        shapes: int64[P], the shape of each pod in the order of arrival.
        kinds: int64[N], the type of each node in the order of the fleet.
        rule: which of the able nodes is taken.

    Returns:
        int64[N, S] pods of each shape on each node; what fits nowhere is left out.
    """
    shelf = Shelf(problem, kinds)
    for shape in shapes.tolist():
        able = shelf.able(shape)
        if rule == "first":
            node = int(able.argmax())
            if able[node]:
                shelf.put(shape, node)
            continue
        candidates = np.flatnonzero(able)
        if len(candidates):
            shelf.put(shape, int(candidates[shelf.leftover()[candidates].sum(axis=1).argmin()]))
    return shelf.filling
