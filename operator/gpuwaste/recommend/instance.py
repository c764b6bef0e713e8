"""The packing question of a scope: groups as models, replicas as units, pinned nodes at no price."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, localcontext
from math import lcm
from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.model.money import EXACT
from gpuwaste.packing.instance import WHOLE_GPU_MILLI, Instance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpuwaste.recommend.scope import PlanNode, Scope

__all__ = ["PlanInstance", "build_instance"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanInstance:
    """A packing question and how its objective translates into money.

    Attributes:
        instance: the question. A "GPU" of it is one unit that the scheduler counts (a whole GPU, or one
            replica of a shared one), so that it holds exactly what the scheduler holds, for any number of replicas.
        scale: the objective is money an hour times this whole number, which makes unit prices exact.
        fixed: money an hour of pinned nodes, which are in the question at no price.
    """

    instance: Instance
    scale: int
    fixed: Decimal


def build_instance(scope: Scope) -> PlanInstance:
    """Turn a scope into arrays; pods and nodes keep their order.

    The models of the question are (group, unit price) pairs, and every pinned node is a model of its own:
    its pinned pods may be nowhere else, while it costs nothing more to put others beside them.
    """
    scale = lcm(*(_odd_part(node.units) for node in scope.nodes)) if scope.nodes else 1
    keys = [_model(index, node) for index, node in enumerate(scope.nodes)]
    models = sorted(set(keys))
    node_model = np.array([models.index(key) for key in keys], dtype=np.int64)
    prices = {
        key: Decimal(0) if node.pinned else _unit_price(node, scale)
        for key, node in zip(keys, scope.nodes, strict=True)
    }
    rows, sets = _model_sets(scope, keys, models)
    instance = Instance(
        pod_names=[f"{pod.namespace}/{pod.name}/{pod.uid}" for pod in scope.pods],
        pod_cpu=_ints(pod.cpu_milli for pod in scope.pods),
        pod_memory=_ints(pod.memory_mib for pod in scope.pods),
        pod_gpus=_ints(pod.units for pod in scope.pods),
        pod_gpu_milli=_ints(WHOLE_GPU_MILLI for _ in scope.pods),
        pod_model_set=_ints(sets),
        model_sets=rows,
        node_names=[node.name for node in scope.nodes],
        node_cpu=_ints(node.cpu_milli for node in scope.nodes),
        node_memory=_ints(node.memory_mib for node in scope.nodes),
        node_gpus=_ints(node.units for node in scope.nodes),
        node_model=node_model,
        models=tuple("|".join(key) for key in models),
        prices=tuple(prices[key] for key in models),
        current_node=_ints(pod.node for pod in scope.pods),
    )
    fixed = sum((node.hourly for node in scope.nodes if node.pinned), Decimal(0))
    return PlanInstance(instance=instance, scale=scale, fixed=fixed)


_Key = tuple[str, str, str]


def _model(index: int, node: PlanNode) -> _Key:
    if node.pinned:
        return (node.group, "pinned", str(index))
    return (node.group, "free", f"{node.hourly.normalize():f}/{node.units}")


def _odd_part(units: int) -> int:
    """What is left of a count without the factors that a decimal fraction divides by exactly."""
    for factor in (2, 5):
        while units and units % factor == 0:
            units //= factor
    return max(units, 1)


def _unit_price(node: PlanNode, scale: int) -> Decimal:
    """Price of one unit times `scale`: `scale` holds every factor of `units` besides 2 and 5, so it is exact."""
    with localcontext(EXACT):
        return node.hourly * scale / max(node.units, 1)


def _model_sets(scope: Scope, keys: list[_Key], models: list[_Key]) -> tuple[np.ndarray, list[int]]:
    """bool[A, M] and the row of every pod: the pod's group, or the one pinned node that it must stay on."""
    groups = sorted({node.group for node in scope.nodes})
    pinned = sorted({pod.node for pod in scope.pods if pod.pinned})
    rows = [[key[0] == group for key in models] for group in groups]
    rows += [[key == keys[node] for key in models] for node in pinned]
    own = {node: len(groups) + place for place, node in enumerate(pinned)}
    number = {group: place for place, group in enumerate(groups)}
    sets = [own[pod.node] if pod.pinned else number[scope.nodes[pod.node].group] for pod in scope.pods]
    return np.array(rows, dtype=np.bool_).reshape(len(rows), len(models)), sets


def _ints(values: object) -> np.ndarray:
    listed: Sequence[int] = list(values)  # type: ignore[call-overload]
    return np.array(listed, dtype=np.int64)
