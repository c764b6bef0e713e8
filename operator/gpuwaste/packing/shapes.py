"""Pods grouped into shapes and nodes into types: the size of a packing follows these, not the pods."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

import numpy as np

from gpuwaste.packing.instance import WHOLE_GPU_MILLI
from gpuwaste.packing.islands import island_resources

if TYPE_CHECKING:
    from gpuwaste.packing.instance import Bools, Floats, Instance, Ints

__all__ = ["Objective", "Problem", "distinct_rows", "group"]

Objective = Literal["cost", "gpus"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """S shapes of equal pods to be put on K types of equal nodes.

    Attributes:
        cpu: int64[S] of one pod.
        memory: int64[S].
        whole: int64[S]; whole GPUs of one pod (a share of 1000 milli is one).
        share: int64[S]; milli on one GPU, 0 for pods without GPU or with whole ones.
        total_milli: int64[S]; GPU-milli of one pod.
        extra: int64[S, R]; what one pod takes of each further resource, NVLink islands among them.
        level: int64[S]; rank of the priority, 0 = highest.
        sides: int64[S, C]; 1 and 2 of an exclusion may not be on one node, 0 has no part in it.
        island: bool[S]; the GPUs of a pod must be in one island.
        demand: int64[S]; how many pods have the shape.
        fits: bool[S, K]; the model is allowed and one pod fits on an empty node.
        type_cpu: int64[K] of one node.
        type_memory: int64[K].
        type_gpus: int64[K].
        type_extra: int64[K, R].
        type_island: int64[K]; GPUs of each island of one node.
        supply: int64[K]; how many nodes have the type.
        unit_cost: Python integers [K]; objective of one used node in units of `cost_unit`, exact.
        cost_unit: what one unit is worth in the objective.
        shape_of_pod: int64[P].
        type_of_node: int64[N].
    """

    cpu: Ints
    memory: Ints
    whole: Ints
    share: Ints
    total_milli: Ints
    extra: Ints
    level: Ints
    sides: Ints
    island: Bools
    demand: Ints
    fits: Bools
    type_cpu: Ints
    type_memory: Ints
    type_gpus: Ints
    type_extra: Ints
    type_island: Ints
    supply: Ints
    unit_cost: tuple[int, ...]
    cost_unit: Decimal
    shape_of_pod: Ints
    type_of_node: Ints

    @property
    def cost(self) -> Floats:
        """float64[K]: objective of one used node of each type."""
        unit = float(self.cost_unit)
        return np.array([unit * units for units in self.unit_cost], dtype=np.float64)


def group(instance: Instance, *, objective: Objective) -> Problem:
    """Group equal pods and equal nodes.

    Args:
        instance: pods and nodes.
        objective: `cost` prices a used node at price x GPUs, `gpus` counts its GPUs.
    """
    whole = np.where((instance.pod_gpus > 1) | (instance.pod_gpu_milli == WHOLE_GPU_MILLI), instance.pod_gpus, 0)
    share = np.where((instance.pod_gpus == 1) & (whole == 0), instance.pod_gpu_milli, 0)
    needs, rooms = (
        np.hstack(pair) for pair in zip((instance.needs, instance.rooms), island_resources(instance), strict=True)
    )
    pods = np.column_stack(
        [
            instance.pod_cpu,
            instance.pod_memory,
            whole,
            share,
            instance.pod_model_set,
            instance.level,
            instance.in_island,
            instance.sides,
            needs,
        ]
    )
    shapes, shape_of_pod, demand = distinct_rows(pods)
    nodes = np.column_stack(
        [instance.node_model, instance.node_gpus, instance.node_cpu, instance.node_memory, instance.islands, rooms]
    )
    types, type_of_node, supply = distinct_rows(nodes)
    cpu, memory, whole, share, model_set, level, island = shapes.T[:7]
    model, type_gpus, type_cpu, type_memory, type_island = types.T[:5]
    sides, extra = np.split(shapes[:, 7:], [instance.sides.shape[1]], axis=1)
    type_extra = types[:, 5:]
    fits = (
        instance.model_sets[model_set][:, model]
        & (cpu[:, None] <= type_cpu)
        & (memory[:, None] <= type_memory)
        & (np.maximum(whole, share > 0)[:, None] <= type_gpus)
        & (extra[:, None, :] <= type_extra[None, :, :]).all(axis=2)
    )
    unit_cost, cost_unit = _exact_costs(instance.prices, model, type_gpus, objective)
    return Problem(
        cpu=cpu,
        memory=memory,
        whole=whole,
        share=share,
        total_milli=whole * WHOLE_GPU_MILLI + share,
        extra=extra,
        level=level,
        sides=sides,
        island=island.astype(np.bool_),
        demand=demand,
        fits=fits,
        type_cpu=type_cpu,
        type_memory=type_memory,
        type_gpus=type_gpus,
        type_extra=type_extra,
        type_island=type_island,
        supply=supply,
        unit_cost=unit_cost,
        cost_unit=cost_unit,
        shape_of_pod=shape_of_pod,
        type_of_node=type_of_node,
    )


def distinct_rows(rows: Ints) -> tuple[Ints, Ints, Ints]:
    """The distinct rows in ascending order, the number of each row, and how often each occurs.

    Column by column: sorting whole rows takes ten times as long when there are half a million.
    """
    code = np.zeros(len(rows), dtype=np.int64)
    for column in rows.T:
        values, position = np.unique(column, return_inverse=True)
        _, code = np.unique(code * max(len(values), 1) + position, return_inverse=True)
    _, first, counts = np.unique(code, return_index=True, return_counts=True)
    return rows[first], code.astype(np.int64), counts.astype(np.int64)


def _exact_costs(
    prices: tuple[Decimal, ...], model: Ints, gpus: Ints, objective: Objective
) -> tuple[tuple[int, ...], Decimal]:
    """Cost of one node of each type as whole multiples of one decimal unit."""
    if objective == "gpus":
        return tuple(int(count) for count in gpus), Decimal(1)
    places = max((-int(price.as_tuple().exponent) for price in prices), default=0)
    scale = 10 ** max(places, 0)
    units = tuple(int(prices[m] * scale) * int(count) for m, count in zip(model.tolist(), gpus.tolist(), strict=True))
    return units, Decimal(1) / scale
