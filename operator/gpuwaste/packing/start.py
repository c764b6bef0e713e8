"""Where the pods are now: a placement to begin from, never to be worse than, and to stay close to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.packing.answer import Placement, gpu_slots
from gpuwaste.packing.columns import Filling
from gpuwaste.packing.gpu_patterns import pack_shares
from gpuwaste.packing.instance import WHOLE_GPU_MILLI
from gpuwaste.packing.islands import whole_gpus

if TYPE_CHECKING:
    from gpuwaste.packing.instance import Bools, Instance, Ints
    from gpuwaste.packing.shapes import Problem

__all__ = ["current_placement", "filling_of", "materialise_near"]

_MOST_ENTRIES = 50_000_000


def current_placement(instance: Instance) -> Placement | None:
    """Where the pods are, with GPUs; None if the instance does not say.

    What is on a node that cannot hold it (the lists changed since) counts as on no node: a placement that breaks a
    rule is nothing to compare with.
    """
    if instance.current_node is None:
        return None
    node = np.where(_allowed(instance), instance.current_node, -1)
    node = np.where(_within(instance, node), node, -1)
    node = np.where(_shared_with_friends(instance, node), node, -1)
    gpu_set = np.zeros(len(node), dtype=np.int64)
    sets: dict[tuple[int, ...], int] = {(): 0}
    placed = np.flatnonzero(node >= 0)
    order = placed[np.argsort(node[placed], kind="stable")]
    for members in np.split(order, np.flatnonzero(np.diff(node[order])) + 1) if len(order) else []:
        gpus = _gpus(instance, members, int(node[members[0]]))
        if gpus is None:
            node[members] = -1
            continue
        for pod, held in zip(members.tolist(), gpus, strict=True):
            gpu_set[pod] = sets.setdefault(held, len(sets))
    return Placement(pod_node=node, pod_gpu_set=gpu_set, gpu_sets=tuple(sets))


def _allowed(instance: Instance) -> Bools:
    """bool[P]: the pod is on a node of a model that it may run on."""
    current = instance.current_node
    if current is None or not len(instance.node_names):
        return np.zeros(len(instance.pod_names), dtype=np.bool_)
    model = instance.node_model[np.maximum(current, 0)]
    allowed: Bools = (current >= 0) & instance.model_sets[instance.pod_model_set, model]
    return allowed


def _within(instance: Instance, node: Ints) -> Bools:
    """bool[P]: the pod is on a node whose CPU, memory and further resources hold all that is on it."""
    placed = node >= 0
    fits = placed.copy()
    for need, have in (
        (instance.pod_cpu, instance.node_cpu),
        (instance.pod_memory, instance.node_memory),
        *zip(instance.needs.T, instance.rooms.T, strict=True),
    ):
        used = np.zeros(len(have), dtype=np.int64)
        np.add.at(used, node[placed], need[placed])
        fits[placed] &= (used <= have)[node[placed]]
    return fits


def _shared_with_friends(instance: Instance, node: Ints) -> Bools:
    """bool[P]: the pod is on a node where no exclusion is broken."""
    placed = node >= 0
    fits = placed.copy()
    for side in instance.sides.T:
        on = [np.zeros(len(instance.node_names), dtype=np.bool_) for _ in range(2)]
        for number, present in enumerate(on, start=1):
            present[node[placed & (side == number)]] = True
        fits[placed] &= ~((on[0] & on[1])[node[placed]] & (side[placed] > 0))
    return fits


def _gpus(instance: Instance, members: Ints, node: int) -> list[tuple[int, ...]] | None:
    """GPU indexes of each pod of one node: whole ones, shares on what is left; None if they do not fit."""
    counts = instance.pod_gpus[members]
    shared = (counts == 1) & (instance.pod_gpu_milli[members] < WHOLE_GPU_MILLI)
    have = int(instance.node_gpus[node])
    whole = whole_gpus(
        counts[~shared].tolist(),
        instance.in_island[members[~shared]].tolist(),
        gpus=have,
        island=int(instance.islands[node]),
    )
    taken = {gpu for one in whole or () for gpu in one}
    left = [gpu for gpu in range(have) if gpu not in taken]
    packed = None if whole is None else pack_shares(instance.pod_gpu_milli[members[shared]].tolist(), len(left))
    if whole is None or packed is None:
        return None
    of_share = {position: (gpu,) for gpu, positions in zip(left, packed, strict=True) for position in positions}
    shares, wholes = iter(range(len(of_share))), iter(whole)
    return [of_share[next(shares)] if is_share else next(wholes) for is_share in shared.tolist()]


def filling_of(problem: Problem, placement: Placement) -> Filling | None:
    """The nodes in use with the pods of each shape on them; None where that is too large a table."""
    placed = np.flatnonzero(placement.pod_node >= 0)
    nodes, position = np.unique(placement.pod_node[placed], return_inverse=True)
    if len(nodes) * len(problem.demand) > _MOST_ENTRIES:
        return None
    pattern = np.zeros((len(nodes), len(problem.demand)), dtype=np.int64)
    np.add.at(pattern, (position, problem.shape_of_pod[placed]), 1)
    return Filling.of_nodes(problem.type_of_node[nodes], pattern)


def materialise_near(problem: Problem, filling: Filling, current: Ints) -> Placement:
    """Name the node and the GPUs of every pod so that many pods stay on the node they are on.

    Each filling goes to the free nodes of its type that hold most of it already, the largest groups first.

    Args:
        problem: shapes and types.
        filling: nodes in use, as for `materialise`.
        current: int64[P] node of each pod, -1 = on none.
    """
    pod_node = np.full(len(current), -1, dtype=np.int64)
    pod_gpu_set = np.zeros(len(current), dtype=np.int64)
    sets: dict[tuple[int, ...], int] = {(): 0}
    here = _pods_by_node_and_shape(problem, current)
    waiting: list[tuple[int, int, tuple[int, ...]]] = []
    for node, pattern in _nodes_for(problem, filling, current):
        for shape, gpus in gpu_slots(problem, int(problem.type_of_node[node]), pattern):
            stays = here.get((node, shape))
            if stays:
                pod = stays.pop()
                pod_node[pod] = node
                pod_gpu_set[pod] = sets.setdefault(gpus, len(sets))
            else:
                waiting.append((node, shape, gpus))
    left: dict[int, list[int]] = {}
    for pod in np.flatnonzero(pod_node < 0)[::-1].tolist():
        left.setdefault(int(problem.shape_of_pod[pod]), []).append(pod)
    for node, shape, gpus in waiting:
        pod = left[shape].pop()
        pod_node[pod] = node
        pod_gpu_set[pod] = sets.setdefault(gpus, len(sets))
    return Placement(pod_node=pod_node, pod_gpu_set=pod_gpu_set, gpu_sets=tuple(sets))


def _pods_by_node_and_shape(problem: Problem, current: Ints) -> dict[tuple[int, int], list[int]]:
    here: dict[tuple[int, int], list[int]] = {}
    for pod in np.flatnonzero(current >= 0)[::-1].tolist():
        here.setdefault((int(current[pod]), int(problem.shape_of_pod[pod])), []).append(pod)
    return here


def _nodes_for(problem: Problem, filling: Filling, current: Ints) -> list[tuple[int, Ints]]:
    """(node, filling of it) for every node in use."""
    placed = np.flatnonzero(current >= 0)
    content = np.zeros((len(problem.type_of_node), len(problem.demand)), dtype=np.int32)
    if content.size <= _MOST_ENTRIES:
        np.add.at(content, (current[placed], problem.shape_of_pod[placed]), 1)
    else:
        content = np.zeros((len(problem.type_of_node), 0), dtype=np.int32)
    free = [np.flatnonzero(problem.type_of_node == kind) for kind in range(len(problem.supply))]
    named: list[tuple[int, Ints]] = []
    for group in np.argsort(-filling.copies, kind="stable").tolist():
        kind, pattern, copies = int(filling.kind[group]), filling.pattern[group], int(filling.copies[group])
        shapes = np.flatnonzero(pattern) if content.shape[1] else np.zeros(0, dtype=np.int64)
        kept = np.minimum(content[free[kind]][:, shapes], pattern[shapes]).sum(axis=1)
        order = np.argsort(-kept, kind="stable")
        named += [(node, pattern) for node in free[kind][order[:copies]].tolist()]
        free[kind] = np.sort(free[kind][order[copies:]])
    return named
