"""The text of PLAN.json, what `gpuwaste pack` answers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.model.errors import InputError
from gpuwaste.packing.instance import WHOLE_GPU_MILLI

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from decimal import Decimal
    from pathlib import Path

    from gpuwaste.packing.answer import Answer
    from gpuwaste.packing.instance import Instance, Ints

__all__ = ["plan_text", "start_nodes"]


def plan_text(
    instance: Instance, answer: Answer, *, prices: Mapping[str, Decimal], elapsed: Callable[[], float]
) -> list[str]:
    """The plan as JSON, in pieces to be written one after the other.

    Args:
        instance: names the pods and nodes.
        answer: a verified answer.
        prices: repeated in the plan.
        elapsed: wall seconds of the process so far; read last, so that the plan tells the whole run.
    """
    placements = _placements(instance, answer)
    names = instance.pod_names
    unplaced = [names[pod] for pod in np.flatnonzero(answer.placement.pod_node < 0).tolist()]
    head = {
        "objective": answer.objective,
        "cost": float(answer.cost),
        "bound": float(answer.bound),
        "gap": answer.gap,
        "nodes_used": answer.nodes_used,
        "gpus_used": answer.gpus_used,
        "seconds": round(elapsed(), 3),
        "first_feasible_seconds": round(answer.first_feasible_seconds, 3),
        "unplaced": unplaced,
        "unplaced_gpu_milli": answer.unplaced_milli,
        "prices": {model: float(price) for model, price in prices.items()},
    }
    text = json.dumps(head, ensure_ascii=False)
    return [text[:-1], ', "placements": [\n', ",\n".join(placements), "\n]}\n"]


def _placements(instance: Instance, answer: Answer) -> list[str]:
    """One JSON object a placed pod; made by hand because there may be half a million."""
    placement = answer.placement
    pods = np.flatnonzero(placement.pod_node >= 0)
    milli = np.where(instance.pod_gpus == 1, instance.pod_gpu_milli, WHOLE_GPU_MILLI)[pods]
    width = WHOLE_GPU_MILLI + 1
    keys, member = np.unique(placement.pod_gpu_set[pods] * width + milli, return_inverse=True)
    gpus = [
        json.dumps([{"index": gpu, "milli": share} for gpu in placement.gpu_sets[index]])
        for index, share in (divmod(key, width) for key in keys.tolist())
    ]
    nodes, names = _quoted(instance.node_names), _quoted(instance.pod_names)
    return [
        f'{{"pod": {names[pod]}, "node": {nodes[node]}, "gpus": {gpus[key]}}}'
        for pod, node, key in zip(pods.tolist(), placement.pod_node[pods].tolist(), member.tolist(), strict=True)
    ]


def _quoted(names: Sequence[str]) -> list[str]:
    """Names as JSON strings; quick where, as nearly always, none has anything to be escaped."""
    together = "".join(names)
    if json.dumps(together, ensure_ascii=False) == f'"{together}"':
        return [f'"{name}"' for name in names]
    return [json.dumps(name, ensure_ascii=False) for name in names]


def start_nodes(path: Path, instance: Instance) -> Ints:
    """Where an earlier plan put the pods.

    Args:
        path: PLAN.json of `gpuwaste pack`; pods and nodes that there are no more are passed over.
        instance: the pods and nodes of today.

    Returns:
        int64[P] index of the node, -1 where the plan has none.

    Raises:
        InputError: the file is no plan, or names a pod twice.
    """
    fix = "give a file that 'gpuwaste pack --out' wrote"
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot be read ({error})", where=str(path), fix=fix) from error
    rows = plan.get("placements") if isinstance(plan, dict) else None
    if not isinstance(rows, list):
        raise InputError("has no list 'placements'", where=str(path), fix=fix)
    pod_index = {name: index for index, name in enumerate(instance.pod_names)}
    node_index = {name: index for index, name in enumerate(instance.node_names)}
    nodes = np.full(len(instance.pod_names), -1, dtype=np.int64)
    seen: set[str] = set()
    for number, row in enumerate(rows):
        pod, node = (row.get("pod"), row.get("node")) if isinstance(row, dict) else (None, None)
        where = f"{path}, placements[{number}]"
        if not (isinstance(pod, str) and isinstance(node, str)):
            raise InputError("names no pod and node", where=where, fix=fix)
        if pod in seen:
            raise InputError(f"pod '{pod}' stands twice", where=where, fix=fix)
        seen.add(pod)
        if pod in pod_index:
            nodes[pod_index[pod]] = node_index.get(node, -1)
    return nodes
