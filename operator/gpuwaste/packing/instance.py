"""The question a packing answers: pods, nodes, prices, and where the pods are now."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gpuwaste.model.errors import InputError
from gpuwaste.packing.group_rules import check_rule

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal

    from gpuwaste.packing.group_rules import GroupRule

__all__ = ["WHOLE_GPU_MILLI", "Bools", "Floats", "Instance", "Ints"]

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

WHOLE_GPU_MILLI = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """Pods and nodes as arrays; P pods, N nodes, M GPU models, A distinct sets of allowed models.

    CPU and memory may be in any whole unit that pods and nodes share (milli-cores and MiB from the
    command's CSV files).

    Attributes:
        pod_names: P distinct names.
        pod_cpu: int64[P], >= 0.
        pod_memory: int64[P], >= 0.
        pod_gpus: int64[P]; 0 = CPU and memory only, 1 = `pod_gpu_milli` on one GPU, k > 1 = k whole GPUs.
        pod_gpu_milli: int64[P]; 1 to 1000 where `pod_gpus` is 1, read nowhere else.
        pod_model_set: int64[P]; row of `model_sets`.
        model_sets: bool[A, M]; the models that the pods of a set may run on.
        node_names: N distinct names.
        node_cpu: int64[N], >= 0.
        node_memory: int64[N], >= 0.
        node_gpus: int64[N], >= 0.
        node_model: int64[N]; index into `models`.
        models: M names of GPU models.
        prices: M prices in money per GPU-hour.
        resources: R names of further resources that a node has whole numbers of (pods, RDMA or EFA devices,
            hugepages, one host port, one place for pods that may not share a node). What a node carries already is
            taken off by whoever makes the instance.
        pod_resources: int64[P, R], >= 0, what each pod takes; None is the same as no resources.
        node_resources: int64[N, R], >= 0.
        current_node: int64[P] or None; the node a pod is on now, -1 = on none. An answer is never worse
            than a valid current placement.
        pod_priority: int64[P] or None; of a higher priority nothing is left out for one of a lower. None = all equal.
        exclusions: C names of rules that two kinds of pods may not share a node.
        pod_sides: int64[P, C] or None; 1 and 2 may not be on one node, 0 has no part in the rule.
        node_island_gpus: int64[N] or None; the GPUs of a node are joined by NVLink in islands of so many, in the order
            of their indexes; 0 = all are joined.
        pod_island: bool[P] or None; all GPUs of the pod are in one island.
        node_machine: int64[N] or None; nodes of one number are one machine in different modes, of which it has one.
        group_rules: what ties pods on different nodes together.
    """

    pod_names: Sequence[str]
    pod_cpu: Ints
    pod_memory: Ints
    pod_gpus: Ints
    pod_gpu_milli: Ints
    pod_model_set: Ints
    model_sets: Bools
    node_names: Sequence[str]
    node_cpu: Ints
    node_memory: Ints
    node_gpus: Ints
    node_model: Ints
    models: tuple[str, ...]
    prices: tuple[Decimal, ...]
    resources: tuple[str, ...] = ()
    pod_resources: Ints | None = None
    node_resources: Ints | None = None
    current_node: Ints | None = None
    pod_priority: Ints | None = None
    exclusions: tuple[str, ...] = ()
    pod_sides: Ints | None = None
    node_island_gpus: Ints | None = None
    pod_island: Bools | None = None
    node_machine: Ints | None = None
    group_rules: tuple[GroupRule, ...] = ()

    def __post_init__(self) -> None:
        pods, nodes = len(self.pod_names), len(self.node_names)
        for name, length in (
            *((field, pods) for field in _POD_FIELDS),
            *((field, nodes) for field in _NODE_FIELDS),
        ):
            values = getattr(self, name)
            if values.shape != (length,):
                raise InputError(f"has shape {values.shape}, not ({length},)", where=name)
            if length and int(values.min()) < 0:
                raise InputError(f"element {int(values.argmin())} is negative", where=name)
        shares = self.pod_gpus == 1
        wrong = shares & ((self.pod_gpu_milli < 1) | (self.pod_gpu_milli > WHOLE_GPU_MILLI))
        if wrong.any():
            raise InputError(f"element {int(wrong.argmax())} is not 1 to 1000", where="pod_gpu_milli")
        self._check_resources()
        self._check_current()
        self._check_rules()
        if any(not price.is_finite() or price < 0 for price in self.prices):
            raise InputError("a price is negative or not a number", where="prices")

    def _check_resources(self) -> None:
        for name, amounts, rows in (
            ("pod_resources", self.pod_resources, len(self.pod_names)),
            ("node_resources", self.node_resources, len(self.node_names)),
        ):
            if amounts is None and not self.resources:
                continue
            wanted = (rows, len(self.resources))
            if amounts is None or amounts.shape != wanted:
                raise InputError(f"has not the shape {wanted}: a row each, and a column a resource", where=name)
            if amounts.size and int(amounts.min()) < 0:
                raise InputError(f"row {int(amounts.min(axis=1).argmin())} has a negative amount", where=name)

    def _check_current(self) -> None:
        pods, nodes = len(self.pod_names), len(self.node_names)
        current = self.current_node
        if current is not None and current.shape != (pods,):
            raise InputError(f"has shape {current.shape}, not ({pods},)", where="current_node")
        if current is not None and ((current < -1) | (current >= nodes)).any():
            raise InputError("names a node that does not exist", where="current_node")

    def _check_rules(self) -> None:
        pods, nodes = len(self.pod_names), len(self.node_names)
        for name, values, wanted in (
            ("pod_priority", self.pod_priority, (pods,)),
            ("pod_sides", self.pod_sides, (pods, len(self.exclusions))),
            ("node_island_gpus", self.node_island_gpus, (nodes,)),
            ("pod_island", self.pod_island, (pods,)),
            ("node_machine", self.node_machine, (nodes,)),
        ):
            if values is not None and values.shape != wanted:
                raise InputError(f"has shape {values.shape}, not {wanted}", where=name)
        if self.pod_sides is None and self.exclusions:
            raise InputError("is missing: there are exclusions", where="pod_sides")
        if not np.isin(self.sides, (0, 1, 2)).all():
            raise InputError("has a side that is not 0, 1 or 2", where="pod_sides")
        if self.node_island_gpus is not None:
            size = self.node_island_gpus
            wrong = (size < 0) | (size > self.node_gpus) | ((size > 0) & (self.node_gpus % np.maximum(size, 1) > 0))
            if wrong.any():
                node = int(wrong.argmax())
                what = f"{self.node_gpus[node]} GPUs of node {self.node_names[node]} are no islands of {size[node]}"
                raise InputError(what, where="node_island_gpus")
        for rule in self.group_rules:
            check_rule(rule, pods=pods, nodes=nodes)

    def part(self, pods: Ints, nodes: Ints) -> Instance:
        """The instance with some of its pods and nodes only, no group rules, and no word of where the pods are now."""
        arrays = {name: getattr(self, name)[pods] for name in _POD_FIELDS}
        arrays |= {name: getattr(self, name)[nodes] for name in _NODE_FIELDS}
        return replace(
            self,
            pod_names=[self.pod_names[pod] for pod in pods.tolist()],
            node_names=[self.node_names[node] for node in nodes.tolist()],
            pod_resources=self.needs[pods],
            node_resources=self.rooms[nodes],
            current_node=None,
            pod_priority=None if self.pod_priority is None else self.pod_priority[pods],
            pod_sides=self.sides[pods],
            node_island_gpus=None if self.node_island_gpus is None else self.node_island_gpus[nodes],
            pod_island=None if self.pod_island is None else self.pod_island[pods],
            node_machine=None if self.node_machine is None else self.node_machine[nodes],
            group_rules=(),
            **arrays,
        )

    @property
    def ties_nodes(self) -> bool:
        """Whether what one node may hold depends on others."""
        return len(self.node_names) > 0 and (bool(self.group_rules) or self.node_machine is not None)

    def untied(self) -> Instance:
        """The instance without what ties nodes together: every placement of this one is one of that."""
        return replace(self, group_rules=(), node_machine=None)

    @property
    def needs(self) -> Ints:
        """int64[P, R]: what each pod takes of the further resources."""
        none = np.zeros((len(self.pod_names), 0), dtype=np.int64)
        return none if self.pod_resources is None else self.pod_resources

    @property
    def rooms(self) -> Ints:
        """int64[N, R]: what each node has of the further resources."""
        none = np.zeros((len(self.node_names), 0), dtype=np.int64)
        return none if self.node_resources is None else self.node_resources

    @property
    def sides(self) -> Ints:
        """int64[P, C]: which side of each exclusion a pod is on."""
        none = np.zeros((len(self.pod_names), 0), dtype=np.int64)
        return none if self.pod_sides is None else self.pod_sides

    @property
    def level(self) -> Ints:
        """int64[P]: rank of each pod's priority, 0 = highest."""
        if self.pod_priority is None:
            return np.zeros(len(self.pod_names), dtype=np.int64)
        return np.unique(-self.pod_priority, return_inverse=True)[1].reshape(-1).astype(np.int64)

    def left_out(self, left: Bools) -> tuple[tuple[int, int], ...]:
        """GPU-milli and pods left out of each priority, highest first; bool[P] which are left out."""
        level = self.level
        of_level = np.zeros((int(level.max(initial=0)) + 1, 2), dtype=np.int64)
        np.add.at(of_level, level[left], np.stack([self.pod_total_milli, np.ones_like(level)], axis=1)[left])
        return tuple((milli, pods) for milli, pods in of_level.tolist())

    @property
    def islands(self) -> Ints:
        """int64[N]: GPUs of each island of a node; all of the node's where they are joined."""
        if self.node_island_gpus is None:
            return self.node_gpus
        return np.where(self.node_island_gpus > 0, self.node_island_gpus, self.node_gpus)

    @property
    def in_island(self) -> Bools:
        """bool[P]: the pod's GPUs must be in one island."""
        if self.pod_island is None:
            return np.zeros(len(self.pod_names), dtype=np.bool_)
        return self.pod_island & (self.pod_gpus > 1)

    @property
    def pod_total_milli(self) -> Ints:
        """int64[P]: GPU-milli of the whole pod; 0 without GPU, k times 1000 for k whole GPUs."""
        one = np.where(self.pod_gpus == 1, self.pod_gpu_milli, WHOLE_GPU_MILLI)
        return self.pod_gpus * one


_POD_FIELDS = ("pod_cpu", "pod_memory", "pod_gpus", "pod_gpu_milli", "pod_model_set")
_NODE_FIELDS = ("node_cpu", "node_memory", "node_gpus", "node_model")
