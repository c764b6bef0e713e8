"""The text of PLAN.json, what `gpuwaste pack` answers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.packing.instance import WHOLE_GPU_MILLI

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from decimal import Decimal

    from gpuwaste.packing.answer import Answer
    from gpuwaste.packing.instance import Instance

__all__ = ["plan_text"]


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
