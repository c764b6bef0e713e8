"""The packing questions of a scope: one a group, replicas as units, pinned nodes at no price."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal, localcontext
from math import lcm
from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.model.money import EXACT
from gpuwaste.packing.answer import Placement
from gpuwaste.packing.drain_question import DisruptionBudget, DrainQuestion
from gpuwaste.packing.instance import WHOLE_GPU_MILLI, Instance, Ints
from gpuwaste.packing.rules import keep_apart, only_on

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gpuwaste.recommend.scope import PlanNode, Scope

__all__ = ["PlanInstance", "build_drain", "build_instance", "build_instances"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanInstance:
    """A packing question and how its objective translates into money.

    Attributes:
        nodes: indexes in the scope of the question's nodes, in the question's order.
        instance: the question. A "GPU" of it is one unit that the scheduler counts (a whole GPU, or one
            replica of a shared one), so that it holds exactly what the scheduler holds, for any number of replicas.
        scale: the objective is money an hour times this whole number, which makes unit prices exact.
        fixed: money an hour of nodes that stay whatever the answer, which are in the question at no price.
    """

    nodes: tuple[int, ...]
    instance: Instance
    scale: int
    fixed: Decimal


def build_instances(scope: Scope) -> list[PlanInstance]:
    """One question a group, in the order of the groups' names.

    Groups share nothing, so the best plan is the best of each; and a bound may be rounded up to what whole nodes of
    one group can cost, which together is much tighter than what nodes of all prices can.
    """
    return [build_instance(scope, group) for group in sorted({node.group for node in scope.nodes})]


def build_instance(scope: Scope, group: str) -> PlanInstance:
    """Turn one group of a scope into arrays; its pods and nodes keep their order.

    The models of the question are unit prices, and every pinned node is a model of its own: its pinned pods may be
    nowhere else, while it costs nothing more to put others beside them.
    """
    places = tuple(index for index, node in enumerate(scope.nodes) if node.group == group)
    local = {index: place for place, index in enumerate(places)}
    nodes = [scope.nodes[index] for index in places]
    pods = [pod for pod in scope.pods if pod.node in local]
    scale = lcm(*(_odd_part(node.units) for node in nodes))
    # A node alone in its group has nowhere to send its pods: it stays like a pinned one, and nothing is asked.
    alone = len(nodes) == 1 and bool(pods)
    stays = [node.pinned or alone for node in nodes]
    keys = [_model(index, node, stays=fixed) for index, node, fixed in zip(places, nodes, stays, strict=True)]
    models = sorted(set(keys))
    number = {key: place for place, key in enumerate(models)}
    prices = {
        key: Decimal(0) if fixed else _unit_price(node, scale)
        for key, node, fixed in zip(keys, nodes, stays, strict=True)
    }
    pinned = sorted({local[pod.node] for pod in pods if pod.pinned})
    own = {place: row for row, place in enumerate(pinned, start=1)}
    rows = [[True] * len(models), *([key == keys[place] for key in models] for place in pinned)]
    instance = Instance(
        pod_names=[f"{pod.namespace}/{pod.name}/{pod.uid}" for pod in pods],
        pod_cpu=_ints(pod.cpu_milli for pod in pods),
        pod_memory=_ints(pod.memory_mib for pod in pods),
        pod_gpus=_ints(pod.units for pod in pods),
        pod_gpu_milli=_ints(WHOLE_GPU_MILLI for _ in pods),
        pod_model_set=_ints(own[local[pod.node]] if pod.pinned else 0 for pod in pods),
        model_sets=np.array(rows, dtype=np.bool_),
        node_names=[node.name for node in nodes],
        node_cpu=_ints(node.cpu_milli for node in nodes),
        node_memory=_ints(node.memory_mib for node in nodes),
        node_gpus=_ints(node.units for node in nodes),
        node_model=_ints(number[key] for key in keys),
        models=tuple("/".join(key) for key in models),
        prices=tuple(prices[key] for key in models),
        current_node=_ints(local[pod.node] for pod in pods),
    )
    hourly = sum((node.hourly for node, fixed in zip(nodes, stays, strict=True) if fixed), Decimal(0))
    instance = _limited(
        instance, scope, nodes=list(places), pods=[i for i, pod in enumerate(scope.pods) if pod.node in local]
    )
    return PlanInstance(nodes=places, instance=instance, scale=scale, fixed=hourly)


_Key = tuple[str, str]


def _model(index: int, node: PlanNode, *, stays: bool) -> _Key:
    if stays:
        return ("pinned", str(index))
    return ("free", f"{node.hourly.normalize():f}/{node.units}")


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


def _ints(values: Iterable[int]) -> Ints:
    return np.fromiter(values, dtype=np.int64)


def build_drain(scope: Scope, *, max_moves: int) -> DrainQuestion:
    """The drain of a whole scope: every group is a GPU model that only its own pods may use.

    Args:
        scope: nodes and pods.
        max_moves: pods that may be moved in all.
    """
    scale = lcm(*(_odd_part(node.units) for node in scope.nodes))
    keys = [(node.group, _unit_price(node, scale)) for node in scope.nodes]
    models = sorted(set(keys))
    number = {name: place for place, name in enumerate(models)}
    groups = sorted({group for group, _ in models})
    row = {group: place for place, group in enumerate(groups)}
    instance = Instance(
        pod_names=[f"{pod.namespace}/{pod.name}/{pod.uid}" for pod in scope.pods],
        pod_cpu=_ints(pod.cpu_milli for pod in scope.pods),
        pod_memory=_ints(pod.memory_mib for pod in scope.pods),
        pod_gpus=_ints(pod.units for pod in scope.pods),
        pod_gpu_milli=_ints(WHOLE_GPU_MILLI for _ in scope.pods),
        pod_model_set=_ints(row[scope.nodes[pod.node].group] for pod in scope.pods),
        model_sets=np.array([[group == key[0] for key in models] for group in groups], dtype=np.bool_),
        node_names=[node.name for node in scope.nodes],
        node_cpu=_ints(node.cpu_milli for node in scope.nodes),
        node_memory=_ints(node.memory_mib for node in scope.nodes),
        node_gpus=_ints(node.units for node in scope.nodes),
        node_model=_ints(number[key] for key in keys),
        models=tuple(f"{group} at {price}" for group, price in models),
        prices=tuple(price for _, price in models),
    )
    instance = _limited(instance, scope, nodes=list(range(len(scope.nodes))), pods=list(range(len(scope.pods))))
    current = _placed_now(scope)
    used = np.bincount(current.pod_node, minlength=len(scope.nodes)) > 0
    return DrainQuestion(
        instance=instance,
        current=current,
        # A pinned node stays whatever is on it, so that pods on it cost nothing more.
        node_cost=tuple(
            Decimal(0) if node.pinned and not used[index] else node.hourly for index, node in enumerate(scope.nodes)
        ),
        max_moves=max_moves,
        movable=np.array([not pod.pinned for pod in scope.pods], dtype=np.bool_),
        budgets=tuple(
            DisruptionBudget(name=one.name, pods=one.pods, allowed=one.allowed) for one in scope.limits.budgets
        ),
        keep=np.array([node.pinned for node in scope.nodes], dtype=np.bool_),
        # Nodes without pods are there and paid for: a pod on one costs what its release would have saved.
        open_nodes=True,
    )


def _limited(instance: Instance, scope: Scope, *, nodes: list[int], pods: list[int]) -> Instance:
    """The instance of some nodes and pods of a scope, with the scope's limits."""
    limits = scope.limits
    place = {pod: index for index, pod in enumerate(pods)}
    limited = replace(
        instance,
        resources=limits.resources,
        pod_resources=limits.needs[pods],
        node_resources=limits.rooms[nodes],
    )
    apart = {}
    for name, (first, second) in limits.apart.items():
        pair = [place[pod] for pod in first if pod in place], [place[pod] for pod in second if pod in place]
        if pair[0] and pair[1]:
            apart[name] = pair
    limited = keep_apart(limited, apart)
    masks = limits.masks[:, nodes]
    if masks.all():
        return limited
    return only_on(limited, masks, limits.pod_mask[pods])


def _placed_now(scope: Scope) -> Placement:
    """Where the pods are; which units of its node a pod has makes no difference, so it gets the first that are free."""
    taken = [0] * len(scope.nodes)
    sets: dict[tuple[int, ...], int] = {(): 0}
    chosen = []
    for pod in scope.pods:
        units = tuple(range(taken[pod.node], taken[pod.node] + pod.units))
        taken[pod.node] += pod.units
        chosen.append(sets.setdefault(units, len(sets)))
    return Placement(pod_node=_ints(pod.node for pod in scope.pods), pod_gpu_set=_ints(chosen), gpu_sets=tuple(sets))
