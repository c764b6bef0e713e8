"""Rules of a scheduler as parts of a packing instance: each becomes sets of models, resources or placeholder pods.

What they become is in the bound, in every step of the search and in the verifier, without a special case anywhere.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.model.errors import InputError
from gpuwaste.packing.instance import WHOLE_GPU_MILLI
from gpuwaste.packing.shapes import distinct_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gpuwaste.packing.instance import Bools, Instance, Ints

__all__ = ["KEPT_FREE", "at_most_per_node", "keep_apart", "keep_free", "only_on"]

KEPT_FREE = "kept-free/"
"""How the names of the placeholder pods of `keep_free` begin."""


def only_on(instance: Instance, allowed: Bools, pod_rule: Ints) -> Instance:
    """Let pods run on some nodes only: node selectors, required node affinity, taints, zones of volumes.

    Args:
        instance: pods and nodes.
        allowed: bool[A, N]; the nodes that a rule leaves.
        pod_rule: int64[P]; row of `allowed`.

    Returns:
        The instance with its models split where a rule tells nodes of one model apart.

    Raises:
        InputError: the shapes do not match, or a rule does not exist.
    """
    pods, nodes = len(instance.pod_names), len(instance.node_names)
    if allowed.ndim != 2 or allowed.shape[1] != nodes:  # noqa: PLR2004 - rules by nodes
        raise InputError(f"has shape {allowed.shape}, not (rules, {nodes})", where="allowed")
    if pod_rule.shape != (pods,) or ((pod_rule < 0) | (pod_rule >= len(allowed))).any():
        raise InputError(f"is not a row of 'allowed' for each of {pods} pods", where="pod_rule")
    classes, node_class, _ = distinct_rows(np.column_stack([instance.node_model, allowed.T.astype(np.int64)]))
    model, by_rule = classes[:, 0], classes[:, 1:].T.astype(np.bool_)
    pairs, pod_set, _ = distinct_rows(np.column_stack([instance.pod_model_set, pod_rule]))
    number: dict[int, int] = {}
    names = []
    for index in model.tolist():
        number[index] = number.get(index, -1) + 1
        names.append(f"{instance.models[index]}#{number[index]}" if number[index] else instance.models[index])
    return replace(
        instance,
        models=tuple(names),
        prices=tuple(instance.prices[index] for index in model.tolist()),
        node_model=node_class,
        model_sets=instance.model_sets[pairs[:, 0]][:, model] & by_rule[pairs[:, 1]],
        pod_model_set=pod_set,
    )


def at_most_per_node(instance: Instance, limits: Mapping[str, tuple[Sequence[int], int]]) -> Instance:
    """Let no node have more than so many pods of a group: 1 is anti-affinity, or a host port that they all want.

    Args:
        instance: pods and nodes.
        limits: name of the group to the indexes of its pods and the most of them on one node.

    Raises:
        InputError: a limit is negative, or a pod does not exist.
    """
    takes, has = [instance.needs], [instance.rooms]
    for name, (members, most) in limits.items():
        index = np.array(members, dtype=np.int64)
        if most < 0:
            raise InputError(f"{most} is negative", where=f"limit of {name}")
        if ((index < 0) | (index >= len(instance.pod_names))).any():
            raise InputError("names a pod that does not exist", where=f"limit of {name}")
        mine = np.zeros((len(instance.pod_names), 1), dtype=np.int64)
        mine[index] = 1
        takes.append(mine)
        has.append(np.full((len(instance.node_names), 1), most, dtype=np.int64))
    return replace(
        instance,
        resources=(*instance.resources, *limits),
        pod_resources=np.concatenate(takes, axis=1),
        node_resources=np.concatenate(has, axis=1),
    )


def keep_apart(instance: Instance, groups: Mapping[str, tuple[Sequence[int], Sequence[int]]]) -> Instance:
    """Let no node have a pod of a group beside another pod of a second one: anti-affinity on single nodes.

    Args:
        instance: pods and nodes.
        groups: name of the rule to the indexes of the pods of either group; a pod may be in both.

    Raises:
        InputError: a pod does not exist.
    """
    sides, names, alone = [instance.sides], list(instance.exclusions), {}
    for name, (first, second) in groups.items():
        if any(not 0 <= pod < len(instance.pod_names) for pod in (*first, *second)):
            raise InputError("names a pod that does not exist", where=f"rule {name}")
        both, only = set(first) & set(second), set(second) - set(first)
        # A pod of both groups keeps away from all of them, others of its kind among them.
        for suffix, left, right in (("", set(first), only), (" (in both)", both, set(first) - both)):
            if left and right:
                side = np.zeros((len(instance.pod_names), 1), dtype=np.int64)
                side[sorted(left)], side[sorted(right)] = 1, 2
                sides.append(side)
                names.append(name + suffix)
        if both:
            alone[name] = (sorted(both), 1)
    kept = replace(instance, exclusions=tuple(names), pod_sides=np.concatenate(sides, axis=1))
    return at_most_per_node(kept, alone)


def keep_free(instance: Instance, gpus: Mapping[str, int]) -> Instance:
    """Keep so many whole GPUs of a model free, by placeholder pods of one GPU each.

    They need no CPU and no memory, and their priority is that of the most important pods. A node that is kept only for
    them counts as used: it cannot be given back.

    Args:
        instance: pods and nodes; `only_on` comes after this, if both are wanted, and says on which nodes of the model.
        gpus: model to the number of GPUs.

    Raises:
        InputError: a model is unknown, or a number negative.
    """
    for model, count in gpus.items():
        if model not in instance.models:
            raise InputError(f"no node has the model '{model}'", where="keepFree")
        if count < 0:
            raise InputError(f"{count} GPUs of {model} is negative", where="keepFree")
    models = [model for model, count in gpus.items() for _ in range(count)]
    added = len(models)
    rows = np.array([[model == one for model in instance.models] for one in gpus], dtype=np.bool_)
    own = {model: len(instance.model_sets) + row for row, model in enumerate(gpus)}
    nothing = np.zeros(added, dtype=np.int64)
    current = instance.current_node
    return replace(
        instance,
        pod_names=[*instance.pod_names, *(f"{KEPT_FREE}{model}/{i}" for i, model in enumerate(models))],
        pod_cpu=np.concatenate([instance.pod_cpu, nothing]),
        pod_memory=np.concatenate([instance.pod_memory, nothing]),
        pod_gpus=np.concatenate([instance.pod_gpus, nothing + 1]),
        pod_gpu_milli=np.concatenate([instance.pod_gpu_milli, nothing + WHOLE_GPU_MILLI]),
        pod_model_set=np.concatenate([instance.pod_model_set, [own[model] for model in models]]).astype(np.int64),
        model_sets=np.concatenate([instance.model_sets, rows.reshape(-1, len(instance.models))]),
        pod_resources=np.concatenate([instance.needs, np.zeros((added, len(instance.resources)), dtype=np.int64)]),
        node_resources=instance.rooms,
        current_node=None if current is None else np.concatenate([current, nothing - 1]),
        pod_priority=_as_important(instance.pod_priority, added),
        pod_sides=np.concatenate([instance.sides, np.zeros((added, len(instance.exclusions)), dtype=np.int64)]),
        pod_island=None if instance.pod_island is None else np.concatenate([instance.pod_island, nothing > 0]),
    )


def _as_important(priority: Ints | None, added: int) -> Ints | None:
    """The priorities with so many more of the highest."""
    if priority is None:
        return None
    return np.concatenate([priority, np.full(added, priority.max(initial=0), dtype=np.int64)])
