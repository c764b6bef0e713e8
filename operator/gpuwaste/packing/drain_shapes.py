"""Pods that may move, grouped into shapes, and how shapes compare with one another and with free room."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.packing.instance import WHOLE_GPU_MILLI

if TYPE_CHECKING:
    from gpuwaste.packing.drain_question import DrainQuestion
    from gpuwaste.packing.instance import Bools, Ints

__all__ = ["DrainShapes", "Probes"]

_MOST_SHAPES = 300
_LEVELS = (64, 32, 16, 10, 6, 4, 2, 1)
_ANY = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainShapes:
    """S shapes; K GPU models, N nodes.

    Where pods are of more than a few hundred sizes, a shape stands for pods of similar size and is as small as the
    smallest of each of their needs: whatever holds for the pods holds for it.

    Attributes:
        cpu: int64[S].
        memory: int64[S].
        whole: int64[S] whole GPUs.
        share: int64[S] milli of one GPU, 0 for none.
        allowed: bool[S, K].
        on_node: int64[N, S] pods of each shape on nodes that may be emptied.
        shape_of_pod: int64[P]; -1 = the pod stays.
    """

    cpu: Ints
    memory: Ints
    whole: Ints
    share: Ints
    allowed: Bools
    on_node: Ints
    shape_of_pod: Ints

    @property
    def total_milli(self) -> Ints:
        """int64[S]: GPU-milli of one pod."""
        return self.whole * WHOLE_GPU_MILLI + self.share

    @classmethod
    def of(cls, question: DrainQuestion) -> DrainShapes:
        """Shapes of the pods on nodes that may be emptied."""
        instance = question.instance
        node = question.current.pod_node
        pods = np.flatnonzero((node >= 0) & question.releasable()[node])
        one = instance.pod_gpus[pods] == 1
        milli = instance.pod_gpu_milli[pods]
        share = np.where(one & (milli < WHOLE_GPU_MILLI), milli, 0)
        whole = np.where(share > 0, 0, instance.pod_gpus[pods])
        sets, pod_set = np.unique(instance.model_sets[instance.pod_model_set[pods]], axis=0, return_inverse=True)
        need = np.stack([instance.pod_cpu[pods], instance.pod_memory[pods], whole, share], axis=1)
        rows, shape = _grouped(need, pod_set.reshape(-1).astype(np.int64))
        on_node = np.zeros((len(question.node_cost), len(rows)), dtype=np.int64)
        np.add.at(on_node, (node[pods], shape), 1)
        shape_of_pod = np.full(len(node), -1, dtype=np.int64)
        shape_of_pod[pods] = shape
        return cls(
            cpu=rows[:, 0],
            memory=rows[:, 1],
            whole=rows[:, 2],
            share=rows[:, 3],
            allowed=sets[rows[:, 4]].astype(np.bool_),
            on_node=on_node,
            shape_of_pod=shape_of_pod,
        )


def _grouped(need: Ints, pod_set: Ints) -> tuple[Ints, Ints]:
    """Distinct rows of (cpu, memory, whole, share, set) and the row of each pod, coarser if there are too many."""
    exact = np.column_stack([need, pod_set])
    rows, shape = np.unique(exact, axis=0, return_inverse=True)
    for levels in _LEVELS:
        if len(rows) <= _MOST_SHAPES:
            break
        coarse = exact.copy()
        for column in (0, 1, 3):
            coarse[:, column] = _lowered(exact[:, column], levels)
        rows, shape = np.unique(coarse, axis=0, return_inverse=True)
    return rows, shape.reshape(-1)


def _lowered(values: Ints, levels: int) -> Ints:
    """Each value lowered to one of so many quantiles; 0 stays apart, for it is no small amount but none."""
    some = values[values > 0]
    if not len(some):
        return values
    edges = np.unique(np.quantile(some, np.arange(levels) / levels, method="lower"))
    lowered: Ints = np.where(values > 0, edges[np.searchsorted(edges, values, side="right") - 1], 0)
    return lowered


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """Sizes by which room is measured, Q of them: every shape, and what it needs of one resource alone.

    Attributes:
        cpu: int64[Q].
        memory: int64[Q].
        whole: int64[Q].
        share: int64[Q].
    """

    cpu: Ints
    memory: Ints
    whole: Ints
    share: Ints

    @classmethod
    def of(cls, shapes: DrainShapes) -> Probes:
        """Sizes that shapes have, together, and each alone."""
        rows = np.stack([shapes.cpu, shapes.memory, shapes.whole, shapes.share], axis=1)
        alone = [
            rows * np.array(kept) for kept in ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 1), (1, 0, 1, 1), (0, 1, 1, 1))
        ]
        sizes = np.unique(np.concatenate([rows, *alone]), axis=0)
        sizes = sizes[sizes.any(axis=1)]
        return cls(cpu=sizes[:, 0], memory=sizes[:, 1], whole=sizes[:, 2], share=sizes[:, 3])

    def fit(self, *, cpu: Ints, memory: Ints, gpu: Ints) -> Ints:
        """int64[N, Q]: how many of each size alone the free room of each node takes; GPU models do not matter here."""
        most = np.full((len(cpu), len(self.cpu)), _ANY, dtype=np.int64)
        for need, free in ((self.cpu, cpu), (self.memory, memory)):
            some = need > 0
            most[:, some] = np.minimum(most[:, some], free[:, None] // need[some])
        for size in np.unique(self.share[self.share > 0]).tolist():
            taken = (gpu // size).sum(axis=1)
            columns = self.share == size
            most[:, columns] = np.minimum(most[:, columns], taken[:, None])
        wide = self.whole > 0
        free_gpus = (gpu == WHOLE_GPU_MILLI).sum(axis=1)
        most[:, wide] = np.minimum(most[:, wide], free_gpus[:, None] // self.whole[wide])
        return most

    def ratio(self, shapes: DrainShapes) -> Ints:
        """int64[Q, S]: how many of each size fit into the very room that one pod of each shape takes."""
        ratio = np.full((len(self.cpu), len(shapes.cpu)), _ANY, dtype=np.int64)
        for size, need in ((self.cpu, shapes.cpu), (self.memory, shapes.memory)):
            some = size > 0
            ratio[some] = np.minimum(ratio[some], need[None, :] // size[some][:, None])
        for row in np.flatnonzero(self.share).tolist():
            milli = int(self.share[row])
            ratio[row] = np.minimum(ratio[row], shapes.share // milli + shapes.whole * (WHOLE_GPU_MILLI // milli))
        wide = self.whole > 0
        ratio[wide] = np.minimum(ratio[wide], shapes.whole[None, :] // self.whole[wide][:, None])
        return ratio
