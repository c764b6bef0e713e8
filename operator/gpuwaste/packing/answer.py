"""The answer of a packing, pod by pod and GPU by GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.model.errors import InvariantError
from gpuwaste.packing.gpu_patterns import pack_shares
from gpuwaste.packing.islands import whole_gpus

if TYPE_CHECKING:
    from decimal import Decimal

    from gpuwaste.packing.columns import Filling
    from gpuwaste.packing.instance import Ints
    from gpuwaste.packing.shapes import Objective, Problem

__all__ = ["Answer", "Placement", "count_gpus", "gpu_slots", "materialise"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where every pod goes.

    Attributes:
        pod_node: int64[P] index of the node, -1 = unplaced.
        pod_gpu_set: int64[P] index into `gpu_sets`.
        gpu_sets: distinct tuples of GPU indexes; the first is empty.
    """

    pod_node: Ints
    pod_gpu_set: Ints
    gpu_sets: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A verified placement with its proven bound.

    Attributes:
        objective: what was minimised after unplaced GPU-milli and unplaced pods.
        placement: where every pod goes.
        cost: objective of the placement, exact.
        bound: no placement that leaves no more GPU-milli and no more pods unplaced has a smaller objective.
        unplaced_milli: GPU-milli of the pods left out.
        unplaced_pods: how many were left out.
        nodes_used: nodes with a pod.
        gpus_used: GPUs with a pod.
        first_feasible_seconds: when the first placement was known, on the clock given, from the start.
        method: which step gave the placement.
    """

    objective: Objective
    placement: Placement
    cost: Decimal
    bound: Decimal
    unplaced_milli: int
    unplaced_pods: int
    nodes_used: int
    gpus_used: int
    first_feasible_seconds: float
    method: str

    @property
    def gap(self) -> float:
        """(cost - bound) / max(bound, 1e-9)."""
        return float(self.cost - self.bound) / max(float(self.bound), 1e-9)


def materialise(problem: Problem, filling: Filling) -> Placement:
    """Name the node and the GPUs of every pod.

    Args:
        problem: shapes and types.
        filling: nodes in use, no more of a type than there are, with no more pods of a shape than there are.

    Raises:
        InvariantError: the shares of a node do not fit on its GPUs.
    """
    pods = len(problem.shape_of_pod)
    pod_node = np.full(pods, -1, dtype=np.int64)
    pod_gpu_set = np.zeros(pods, dtype=np.int64)
    sets: dict[tuple[int, ...], int] = {(): 0}
    pods_of = _members(problem.shape_of_pod, len(problem.demand))
    nodes_of = _members(problem.type_of_node, len(problem.supply))
    next_pod = np.zeros(len(problem.demand), dtype=np.int64)
    next_node = np.zeros(len(problem.supply), dtype=np.int64)
    for k, pattern, copies in zip(filling.kind.tolist(), filling.pattern, filling.copies.tolist(), strict=True):
        names = nodes_of[k][next_node[k] : next_node[k] + copies]
        next_node[k] += copies
        for shape, gpus in gpu_slots(problem, k, pattern):
            taken = pods_of[shape][next_pod[shape] : next_pod[shape] + copies]
            next_pod[shape] += copies
            pod_node[taken] = names
            pod_gpu_set[taken] = sets.setdefault(gpus, len(sets))
    return Placement(pod_node=pod_node, pod_gpu_set=pod_gpu_set, gpu_sets=tuple(sets))


def _members(group_of: Ints, groups: int) -> list[Ints]:
    """The positions of each group, ascending."""
    order = np.argsort(group_of, kind="stable")
    ends = np.cumsum(np.bincount(group_of, minlength=groups))
    return np.split(order, ends[:-1])


def gpu_slots(problem: Problem, kind: int, pattern: Ints) -> list[tuple[int, tuple[int, ...]]]:
    """(shape, GPU indexes) of every pod of one node: shares on the first GPUs, whole GPUs after them."""
    shapes = np.flatnonzero(pattern)
    sharing = [shape for shape in shapes.tolist() if problem.share[shape] for _ in range(pattern[shape])]
    whole = [shape for shape in shapes.tolist() if not problem.share[shape] for _ in range(pattern[shape])]
    gpus = int(problem.type_gpus[kind])
    held = whole_gpus(
        problem.whole[whole].tolist(),
        problem.island[whole].tolist(),
        gpus=gpus,
        island=int(problem.type_island[kind]),
    )
    taken = {gpu for one in held or () for gpu in one}
    left = [gpu for gpu in range(gpus) if gpu not in taken]
    packed = None if held is None else pack_shares(problem.share[sharing].tolist(), len(left))
    if held is None or packed is None:
        raise InvariantError(f"a filling does not fit on the GPUs of node type {kind}")
    slots: list[tuple[int, tuple[int, ...]]] = [
        (sharing[position], (gpu,)) for gpu, members in zip(left, packed, strict=True) for position in members
    ]
    slots += zip(whole, held, strict=True)
    return slots


def count_gpus(placement: Placement) -> int:
    """How many GPUs carry a pod."""
    width = np.array([len(gpus) for gpus in placement.gpu_sets], dtype=np.int64)
    keys = np.unique(np.stack([placement.pod_node, placement.pod_gpu_set], axis=1)[placement.pod_node >= 0], axis=0)
    sets = keys[:, 1]
    host = np.repeat(keys[:, 0], width[sets])
    gpu = np.array([gpu for index in sets.tolist() for gpu in placement.gpu_sets[index]], dtype=np.int64)
    most = int(gpu.max(initial=0)) + 1
    return len(np.unique(host * most + gpu))
