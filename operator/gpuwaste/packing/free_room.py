"""What is free on every node, down to the single GPU, while pods are taken off and put on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.packing.instance import WHOLE_GPU_MILLI

if TYPE_CHECKING:
    from gpuwaste.packing.answer import Placement
    from gpuwaste.packing.instance import Bools, Instance, Ints

__all__ = ["FreeRoom", "Spot"]

Spot = tuple[int, tuple[int, ...]]
"""A node and the GPUs on it."""


class FreeRoom:
    """Free CPU, memory and GPU-milli of N nodes with at most G GPUs.

    Attributes:
        cpu: int64[N].
        memory: int64[N].
        extra: int64[N, R] of the further resources.
        gpu: int64[N, G] free milli; 0 where the node has no such GPU.
    """

    def __init__(self, instance: Instance, placement: Placement) -> None:
        self._instance = instance
        one = instance.pod_gpus == 1
        self._milli = np.where(one, instance.pod_gpu_milli, WHOLE_GPU_MILLI)
        self._share = np.where(one & (instance.pod_gpu_milli < WHOLE_GPU_MILLI), instance.pod_gpu_milli, 0)
        self._whole = np.where(self._share > 0, 0, instance.pod_gpus)
        self.cpu = instance.node_cpu.copy()
        self.memory = instance.node_memory.copy()
        self._joined, self._needs, self._side_of = instance.in_island, instance.needs, instance.sides
        self._rules = np.arange(len(instance.exclusions))
        self.extra = instance.rooms.copy()
        self._sides = np.zeros((len(instance.node_names), len(instance.exclusions), 3), dtype=np.int64)
        widest = max(int(instance.node_gpus.max(initial=0)), 1)
        self.gpu = np.where(np.arange(widest) < instance.node_gpus[:, None], WHOLE_GPU_MILLI, 0)
        pods = np.flatnonzero(placement.pod_node >= 0)
        node = placement.pod_node[pods]
        np.subtract.at(self.cpu, node, instance.pod_cpu[pods])
        np.subtract.at(self.memory, node, instance.pod_memory[pods])
        np.subtract.at(self.extra, node, instance.needs[pods])
        np.add.at(self._sides, (node[:, None], self._rules[None, :], self._side_of[pods]), 1)
        for pod, host, chosen in zip(pods.tolist(), node.tolist(), placement.pod_gpu_set[pods].tolist(), strict=True):
            for gpu in placement.gpu_sets[chosen]:
                self.gpu[host, gpu] -= self._milli[pod]

    def copy(self) -> FreeRoom:
        """A room of its own with the same content."""
        other = object.__new__(FreeRoom)
        other._instance, other._milli = self._instance, self._milli
        other._share, other._whole = self._share, self._whole
        other._joined, other._needs, other._side_of = self._joined, self._needs, self._side_of
        other._rules = self._rules
        other.cpu, other.memory, other.gpu = self.cpu.copy(), self.memory.copy(), self.gpu.copy()
        other.extra, other._sides = self.extra.copy(), self._sides.copy()
        return other

    def take(self, pod: int, spot: Spot) -> None:
        """Put a pod there."""
        self._add(pod, spot, 1)

    def give(self, pod: int, spot: Spot) -> None:
        """Take a pod off there."""
        self._add(pod, spot, -1)

    def _add(self, pod: int, spot: Spot, sign: int) -> None:
        node, gpus = spot
        self.cpu[node] -= sign * self._instance.pod_cpu[pod]
        self.memory[node] -= sign * self._instance.pod_memory[pod]
        if self._needs.shape[1]:
            self.extra[node] -= sign * self._needs[pod]
        if len(self._rules):
            self._sides[node, self._rules, self._side_of[pod]] += sign
        for gpu in gpus:
            self.gpu[node, gpu] -= sign * self._milli[pod]

    def able(self, pod: int, nodes: Ints) -> Bools:
        """bool[len(nodes)]: which of the nodes have room for the pod and a model it may use."""
        instance = self._instance
        allowed = instance.model_sets[instance.pod_model_set[pod]][instance.node_model[nodes]]
        fits: Bools = allowed & (self.cpu[nodes] >= instance.pod_cpu[pod])
        fits &= self.memory[nodes] >= instance.pod_memory[pod]
        if self._needs.shape[1]:
            fits &= (self.extra[nodes] >= self._needs[pod]).all(axis=1)
        if len(self._rules):
            for rule in np.flatnonzero(self._side_of[pod]).tolist():
                fits &= self._sides[nodes, rule, 3 - self._side_of[pod, rule]] == 0
        if self._joined[pod]:
            fits &= np.array([bool(self._island_with(pod, node)) for node in nodes.tolist()], dtype=np.bool_)
        elif self._share[pod]:
            fits &= (self.gpu[nodes] >= self._share[pod]).any(axis=1)
        elif self._whole[pod]:
            fits &= (self.gpu[nodes] == WHOLE_GPU_MILLI).sum(axis=1) >= self._whole[pod]
        return fits

    def gpus_for(self, pod: int, node: int) -> tuple[int, ...]:
        """The GPUs the pod takes on a node that has room: the fullest that holds its share, or the first free ones."""
        row = self.gpu[node]
        if self._joined[pod]:
            return self._island_with(pod, node)
        if self._share[pod]:
            left = np.where(row >= self._share[pod], row, 2 * WHOLE_GPU_MILLI)
            return (int(left.argmin()),)
        return tuple(np.flatnonzero(row == WHOLE_GPU_MILLI)[: int(self._whole[pod])].tolist())

    def _island_with(self, pod: int, node: int) -> tuple[int, ...]:
        """GPUs of the fullest island that has room for the pod; none if no island has."""
        width, size = int(self._whole[pod]), int(self._instance.islands[node])
        free = np.flatnonzero(self.gpu[node] == WHOLE_GPU_MILLI)
        islands = [free[free // size == one] for one in np.unique(free // size).tolist()] if size else []
        able = [gpus for gpus in islands if len(gpus) >= width]
        return tuple(min(able, key=len)[:width].tolist()) if able else ()

    def tightness(self, pod: int, nodes: Ints) -> Ints:
        """int64[len(nodes)]: how much would be left over there; less is a better fit.

        GPU first: a share goes where the least of a GPU is left, whole GPUs where the fewest are; a pod without GPU
        goes where the fewest GPU-milli are free, for CPU beside free GPUs is worth more.
        """
        rows = self.gpu[nodes]
        if self._share[pod]:
            left = np.where(rows >= self._share[pod], rows - self._share[pod], 2 * WHOLE_GPU_MILLI).min(axis=1)
        elif self._whole[pod]:
            left = WHOLE_GPU_MILLI * ((rows == WHOLE_GPU_MILLI).sum(axis=1) - self._whole[pod])
        else:
            left = rows.sum(axis=1)
        result: Ints = left.astype(np.int64)
        return result
