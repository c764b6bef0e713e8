"""Checks an answer against the question alone; shares no code and no intermediate with the solver."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.model.errors import InvariantError
from gpuwaste.packing.group_verifier import group_violations

if TYPE_CHECKING:
    from gpuwaste.packing.answer import Answer, Placement
    from gpuwaste.packing.instance import Bools, Instance, Ints

__all__ = ["check", "node_violations", "violations"]

_GPU_MILLI = 1000
_SHOWN = 3


def check(instance: Instance, answer: Answer) -> None:
    """Refuse an answer that breaks any rule.

    Raises:
        InvariantError: with the first violations.
    """
    found = violations(instance, answer)
    if found:
        raise InvariantError("the packing is wrong and was not written: " + "; ".join(found[:_SHOWN]))


def violations(instance: Instance, answer: Answer) -> list[str]:
    """Every rule the answer breaks, each with the first pod, node or GPU concerned; empty if it is right."""
    placement = answer.placement
    pods, nodes = len(instance.pod_names), len(instance.node_names)
    node = placement.pod_node
    if node.shape != (pods,) or placement.pod_gpu_set.shape != (pods,):
        return ["the answer does not speak of every pod exactly once"]
    if ((node < -1) | (node >= nodes)).any():
        return [f"pod {_first_pod(instance, (node < -1) | (node >= nodes))} is on a node that does not exist"]
    known = (placement.pod_gpu_set >= 0) & (placement.pod_gpu_set < len(placement.gpu_sets))
    if not known.all():
        return [f"pod {_first_pod(instance, ~known)} has GPUs that the answer does not name"]
    placed = node >= 0
    return [
        *node_violations(instance, placement),
        *_gpu_violations(instance, answer, placed),
        *group_violations(instance, node),
        *_figure_violations(instance, answer, placed),
    ]


def node_violations(instance: Instance, placement: Placement) -> list[str]:
    """What a placement that names existing nodes and GPUs breaks of the rules of single nodes."""
    node = placement.pod_node
    placed = node >= 0
    return [
        *_node_violations(instance, node, placed),
        *_exclusion_violations(instance, node, placed),
        *_island_violations(instance, placement, placed),
    ]


def _first_pod(instance: Instance, wrong: Bools) -> str:
    return instance.pod_names[int(wrong.argmax())]


def _node_violations(instance: Instance, node: Ints, placed: Bools) -> list[str]:
    found = []
    where = node[placed]
    for field, need, have in (
        ("CPU", instance.pod_cpu, instance.node_cpu),
        ("memory", instance.pod_memory, instance.node_memory),
        *zip(instance.resources, instance.needs.T, instance.rooms.T, strict=True),
    ):
        used = np.zeros(len(have), dtype=np.int64)
        np.add.at(used, where, need[placed])
        over = used > have
        if over.any():
            found.append(f"node {instance.node_names[int(over.argmax())]} has less {field} than its pods need")
    allowed = instance.model_sets[instance.pod_model_set[placed], instance.node_model[where]]
    if not allowed.all():
        wrong = np.flatnonzero(placed)[~allowed]
        found.append(f"pod {instance.pod_names[int(wrong[0])]} is on a GPU model it may not use")
    return found


def _exclusion_violations(instance: Instance, node: Ints, placed: Bools) -> list[str]:
    found = []
    for name, side in zip(instance.exclusions, instance.sides.T, strict=True):
        first, second = (set(node[placed & (side == number)].tolist()) for number in (1, 2))
        both = first & second
        if both:
            found.append(f"node {instance.node_names[min(both)]} has pods of both sides of {name}")
    return found


def _island_violations(instance: Instance, placement: Placement, placed: Bools) -> list[str]:
    if instance.node_island_gpus is None or instance.pod_island is None:
        return []
    found = []
    for pod in np.flatnonzero(placed & instance.pod_island).tolist():
        size = int(instance.node_island_gpus[placement.pod_node[pod]])
        gpus = placement.gpu_sets[placement.pod_gpu_set[pod]]
        if size and len({gpu // size for gpu in gpus}) > 1:
            found.append(f"pod {instance.pod_names[pod]} has GPUs of several NVLink islands")
    return found


def _gpu_violations(instance: Instance, answer: Answer, placed: Bools) -> list[str]:
    placement = answer.placement
    sets = placement.gpu_sets
    found = []
    width = np.array([len(gpus) for gpus in sets], dtype=np.int64)
    if any(len(set(gpus)) != len(gpus) for gpus in sets):
        found.append("a pod names one GPU twice")
    wrong = width[placement.pod_gpu_set] != np.where(placed, instance.pod_gpus, 0)
    if wrong.any():
        found.append(f"pod {_first_pod(instance, wrong)} has another number of GPUs than it asks for")
    pods = np.flatnonzero(placed)
    widths = width[placement.pod_gpu_set[pods]]
    starts = np.cumsum(width) - width
    flat = np.array([gpu for gpus in sets for gpu in gpus], dtype=np.int64)
    offset = np.arange(int(widths.sum())) - np.repeat(np.cumsum(widths) - widths, widths)
    gpu = flat[np.repeat(starts[placement.pod_gpu_set[pods]], widths) + offset]
    pod = np.repeat(pods, widths)
    host = placement.pod_node[pod]
    outside = (gpu < 0) | (gpu >= instance.node_gpus[host])
    if outside.any():
        found.append(f"pod {instance.pod_names[int(pod[outside][0])]} is on a GPU that its node does not have")
        return found
    one = instance.pod_gpus[pod] == 1
    milli = np.where(one, instance.pod_gpu_milli[pod], _GPU_MILLI)
    first_gpu = np.cumsum(instance.node_gpus) - instance.node_gpus
    used = np.zeros(int(instance.node_gpus.sum()), dtype=np.int64)
    np.add.at(used, first_gpu[host] + gpu, milli)
    if (used > _GPU_MILLI).any():
        device = int((used > _GPU_MILLI).argmax())
        owner = int(np.searchsorted(first_gpu, device, side="right")) - 1
        while instance.node_gpus[owner] == 0:
            owner -= 1
        name = instance.node_names[owner]
        found.append(f"GPU {device - int(first_gpu[owner])} of node {name} carries more than 1000 milli")
    if int((used > 0).sum()) != answer.gpus_used:
        found.append(f"gpus_used is {answer.gpus_used}, counted is {int((used > 0).sum())}")
    return found


def _figure_violations(instance: Instance, answer: Answer, placed: Bools) -> list[str]:
    found = []
    used = np.zeros(len(instance.node_names), dtype=np.bool_)
    used[answer.placement.pod_node[placed]] = True
    gpus_of_model = np.zeros(len(instance.models), dtype=np.int64)
    np.add.at(gpus_of_model, instance.node_model[used], instance.node_gpus[used])
    cost = Decimal(int(gpus_of_model.sum()))
    if answer.objective == "cost":
        pairs = zip(gpus_of_model.tolist(), instance.prices, strict=True)
        cost = sum((count * price for count, price in pairs), Decimal(0))
    if cost != answer.cost:
        found.append(f"cost is {answer.cost}, counted is {cost}")
    if answer.bound > answer.cost:
        found.append(f"the bound {answer.bound} is above the cost {answer.cost}")
    per_gpu = np.where(instance.pod_gpus == 1, instance.pod_gpu_milli, _GPU_MILLI)
    left = int((instance.pod_gpus * per_gpu)[~placed].sum())
    for name, told, counted in (
        ("unplaced_gpu_milli", answer.unplaced_milli, left),
        ("unplaced pods", answer.unplaced_pods, int((~placed).sum())),
        ("nodes_used", answer.nodes_used, int(used.sum())),
    ):
        if told != counted:
            found.append(f"{name} is {told}, counted is {counted}")
    return found
