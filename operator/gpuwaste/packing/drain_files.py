"""Reads the current placement and the disruption budgets of `gpuwaste drain`, and forms its answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from gpuwaste.model.errors import InputError
from gpuwaste.packing.answer import Placement
from gpuwaste.packing.drain_question import DisruptionBudget
from gpuwaste.packing.instance import WHOLE_GPU_MILLI

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from gpuwaste.packing.drain_question import DrainAnswer, DrainQuestion, Move
    from gpuwaste.packing.instance import Instance
    from gpuwaste.packing.migration import Migration

__all__ = ["drain_body", "migration_body", "read_budgets", "read_placement"]

_PLACEMENT_SHAPE = 'write {"placements": [{"pod": "p", "node": "n", "gpus": [{"index": 0, "milli": 460}]}]}'
_BUDGET_SHAPE = "write a list of {name: web, pods: [web-1, web-2], disruptionsAllowed: 1}"


def read_placement(path: Path, instance: Instance) -> Placement:
    """Where the pods are, from a plan of `gpuwaste pack` or a file with its `placements`.

    A pod that the file does not name is on no node.

    Raises:
        InputError: the file is no such plan, names an unknown pod, node or GPU, or a pod twice, or what it says of
            where the pods are cannot be: something is overfull.
    """
    body = _json(path)
    listed = body.get("placements") if isinstance(body, dict) else None
    if not isinstance(listed, list):
        raise InputError("has no list placements", where=str(path), fix=_PLACEMENT_SHAPE)
    pods = {name: index for index, name in enumerate(instance.pod_names)}
    nodes = {name: index for index, name in enumerate(instance.node_names)}
    node_of = np.full(len(pods), -1, dtype=np.int64)
    set_of = np.zeros(len(pods), dtype=np.int64)
    sets: dict[tuple[int, ...], int] = {(): 0}
    for number, item in enumerate(listed, start=1):
        where = f"{path}, placement {number}"
        if not isinstance(item, dict) or not isinstance(item.get("gpus"), list):
            raise InputError("is no placement", where=where, fix=_PLACEMENT_SHAPE)
        pod, node = _index(item.get("pod"), pods, where, "pod"), _index(item.get("node"), nodes, where, "node")
        if node_of[pod] >= 0:
            raise InputError(f"pod {item['pod']} stands twice", where=where)
        gpus: tuple[Any, ...] = tuple(one.get("index") if isinstance(one, dict) else None for one in item["gpus"])
        _check_gpus(instance, pod, node, gpus, where)
        node_of[pod] = node
        set_of[pod] = sets.setdefault(gpus, len(sets))
    placement = Placement(pod_node=node_of, pod_gpu_set=set_of, gpu_sets=tuple(sets))
    _check_room(instance, placement, path)
    return placement


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read ({error})", where=str(path)) from error
    except ValueError as error:
        raise InputError(f"is no JSON ({error})", where=str(path)) from error


def _index(name: Any, known: Mapping[str, int], where: str, field: str) -> int:
    found = known.get(name) if isinstance(name, str) else None
    if found is None:
        raise InputError(f"{name!r} is no {field} of the lists", where=f"{where}, field {field}")
    return found


def _check_gpus(instance: Instance, pod: int, node: int, gpus: tuple[Any, ...], where: str) -> None:
    have = int(instance.node_gpus[node])
    wrong = [gpu for gpu in gpus if not isinstance(gpu, int) or isinstance(gpu, bool) or not 0 <= gpu < have]
    if wrong:
        raise InputError(f"{wrong[0]!r} is no GPU index of a node with {have}", where=f"{where}, field gpus")
    if len(gpus) != int(instance.pod_gpus[pod]) or len(set(gpus)) != len(gpus):
        raise InputError(f"the pod asks for {int(instance.pod_gpus[pod])} GPUs", where=f"{where}, field gpus")
    if not instance.model_sets[instance.pod_model_set[pod], instance.node_model[node]]:
        raise InputError("the pod may not use this node's GPU model", where=where)


def _check_room(instance: Instance, placement: Placement, path: Path) -> None:
    """Refuse a placement that no cluster can be in."""
    placed = placement.pod_node >= 0
    node = placement.pod_node[placed]
    for field, need, have in (
        ("CPU", instance.pod_cpu, instance.node_cpu),
        ("memory", instance.pod_memory, instance.node_memory),
    ):
        used = np.bincount(node, weights=need[placed], minlength=len(have))
        if (used > have).any():
            name = instance.node_names[int((used > have).argmax())]
            raise InputError(f"node {name} has less {field} than its pods need", where=str(path))
    milli = np.where(instance.pod_gpus == 1, instance.pod_gpu_milli, WHOLE_GPU_MILLI)
    taken: dict[tuple[int, int], int] = {}
    for pod in np.flatnonzero(placed).tolist():
        host = int(placement.pod_node[pod])
        for gpu in placement.gpu_sets[int(placement.pod_gpu_set[pod])]:
            taken[host, gpu] = taken.get((host, gpu), 0) + int(milli[pod])
    over = [key for key, amount in taken.items() if amount > WHOLE_GPU_MILLI]
    if over:
        host, gpu = over[0]
        raise InputError(f"GPU {gpu} of node {instance.node_names[host]} carries more than 1000 milli", where=str(path))


def read_budgets(path: Path, instance: Instance) -> tuple[DisruptionBudget, ...]:
    """Disruption budgets: a YAML or JSON list of `{name, pods: [names], disruptionsAllowed}`.

    Raises:
        InputError: it is no such list, names an unknown pod, or a number makes no sense.
    """
    try:
        body = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read ({error})", where=str(path)) from error
    except yaml.YAMLError as error:
        raise InputError(f"is no YAML ({' '.join(str(error).split())})", where=str(path)) from error
    if not isinstance(body, list):
        raise InputError("is no list of budgets", where=str(path), fix=_BUDGET_SHAPE)
    pods = {name: index for index, name in enumerate(instance.pod_names)}
    return tuple(_budget(item, pods, f"{path}, budget {number}") for number, item in enumerate(body, start=1))


def _budget(item: Any, pods: Mapping[str, int], where: str) -> DisruptionBudget:
    if not isinstance(item, dict) or not isinstance(item.get("pods"), list) or not isinstance(item.get("name"), str):
        raise InputError("has no name and list of pods", where=where, fix=_BUDGET_SHAPE)
    allowed = item.get("disruptionsAllowed")
    if not isinstance(allowed, int) or isinstance(allowed, bool) or allowed < 0:
        raise InputError(f"{allowed!r} is no whole number of 0 or more", where=f"{where}, field disruptionsAllowed")
    members = tuple(_index(name, pods, where, "pod") for name in item["pods"])
    return DisruptionBudget(name=item["name"], pods=members, allowed=allowed)


def drain_body(question: DrainQuestion, answer: DrainAnswer) -> dict[str, Any]:
    """The answer as JSON has it."""
    names = question.instance.node_names
    return {
        "current_cost": float(answer.current_cost),
        "planned_cost": float(answer.planned_cost),
        "bound": float(answer.bound),
        "saved": float(answer.saved),
        "saved_at_most": float(answer.saved_at_most),
        "part_of_bound": answer.part_of_bound,
        "moves": answer.moves,
        "max_moves": question.max_moves,
        "open_nodes": question.open_nodes,
        "released": [names[node] for node in answer.released],
        "opened": [names[node] for node in answer.opened],
        "waves": _waves(question, answer.waves),
    }


def migration_body(question: DrainQuestion, migration: Migration) -> dict[str, Any]:
    """The steps of a full repack as JSON has them."""
    names = question.instance.pod_names
    return {
        "moves": migration.moves,
        "stopped_first": [{"before_wave": wave + 1, "pod": names[pod]} for wave, pod in migration.stopped],
        "stranded": [names[pod] for pod in migration.stranded],
        "waves": _waves(question, migration.waves),
    }


def _waves(question: DrainQuestion, waves: Sequence[Sequence[Move]]) -> list[list[dict[str, Any]]]:
    instance = question.instance
    return [
        [
            {
                "pod": instance.pod_names[move.pod],
                "from": instance.node_names[move.source],
                "to": instance.node_names[move.target],
                "gpus": [
                    {
                        "index": gpu,
                        "milli": int(instance.pod_gpu_milli[move.pod]) if len(move.gpus) == 1 else WHOLE_GPU_MILLI,
                    }
                    for gpu in move.gpus
                ],
            }
            for move in wave
        ]
        for wave in waves
    ]
