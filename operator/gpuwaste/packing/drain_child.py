"""Runs a drain in a process of its own, so that the caller never loads OR-Tools and can kill it in time.

`python -m gpuwaste.packing.drain_child FOLDER SECONDS` answers the question that lies in FOLDER.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from gpuwaste.packing.answer import Placement
from gpuwaste.packing.arrow_files import read_instance_file, write_instance
from gpuwaste.packing.child import run_child
from gpuwaste.packing.drain_question import DisruptionBudget, DrainAnswer, DrainQuestion, Move
from gpuwaste.packing.drain_verifier import check_drain

__all__ = ["drain_in_child", "main"]

_INSTANCE, _QUESTION, _ANSWER = "instance.arrow", "question.json", "answer.json"


def drain_in_child(question: DrainQuestion, *, time_limit_seconds: float, folder: Path | None = None) -> DrainAnswer:
    """Solve in a fresh interpreter, and check its answer here once more.

    Args:
        question: where pods are, and what may be done to them.
        time_limit_seconds: wall time of the search; the child is killed 10 s after.
        folder: where the files lie while it runs; the system's own if None.

    Raises:
        InvariantError: the child failed, was killed at its deadline, or gave a wrong answer.
    """
    with tempfile.TemporaryDirectory(prefix="gpuwaste-drain-", dir=folder) as name:
        write_instance(Path(name) / _INSTANCE, question.instance)
        (Path(name) / _QUESTION).write_text(json.dumps(_question_body(question)), encoding="utf-8")
        command = [sys.executable, "-m", "gpuwaste.packing.drain_child", name, repr(float(time_limit_seconds))]
        run_child(command, what="the drain", time_limit_seconds=time_limit_seconds)
        answer = _answer(json.loads((Path(name) / _ANSWER).read_text(encoding="utf-8")))
    check_drain(question, answer)
    return answer


def _placement_body(placement: Placement) -> dict[str, Any]:
    return {
        "pod_node": placement.pod_node.tolist(),
        "pod_gpu_set": placement.pod_gpu_set.tolist(),
        "gpu_sets": [list(gpus) for gpus in placement.gpu_sets],
    }


def _placement(body: dict[str, Any]) -> Placement:
    return Placement(
        pod_node=np.array(body["pod_node"], dtype=np.int64),
        pod_gpu_set=np.array(body["pod_gpu_set"], dtype=np.int64),
        gpu_sets=tuple(tuple(gpus) for gpus in body["gpu_sets"]),
    )


def _question_body(question: DrainQuestion) -> dict[str, Any]:
    return {
        "current": _placement_body(question.current),
        "node_cost": [str(cost) for cost in question.node_cost],
        "max_moves": question.max_moves,
        "movable": question.movable.tolist(),
        "keep": None if question.keep is None else question.keep.tolist(),
        "open_nodes": question.open_nodes,
        "budgets": [[budget.name, list(budget.pods), budget.allowed] for budget in question.budgets],
    }


def _question(folder: Path) -> DrainQuestion:
    body = json.loads((folder / _QUESTION).read_text(encoding="utf-8"))
    return DrainQuestion(
        instance=read_instance_file(folder / _INSTANCE),
        current=_placement(body["current"]),
        node_cost=tuple(Decimal(cost) for cost in body["node_cost"]),
        max_moves=body["max_moves"],
        movable=np.array(body["movable"], dtype=np.bool_),
        keep=None if body["keep"] is None else np.array(body["keep"], dtype=np.bool_),
        open_nodes=body["open_nodes"],
        budgets=tuple(
            DisruptionBudget(name=name, pods=tuple(pods), allowed=allowed) for name, pods, allowed in body["budgets"]
        ),
    )


def _answer_body(answer: DrainAnswer) -> dict[str, Any]:
    return {
        "released": answer.released,
        "opened": answer.opened,
        "waves": [[[move.pod, move.source, move.target, list(move.gpus)] for move in wave] for wave in answer.waves],
        "costs": [str(cost) for cost in (answer.current_cost, answer.planned_cost, answer.bound)],
        "final": _placement_body(answer.final),
        "method": answer.method,
    }


def _answer(body: dict[str, Any]) -> DrainAnswer:
    current, planned, bound = (Decimal(cost) for cost in body["costs"])
    return DrainAnswer(
        released=tuple(body["released"]),
        opened=tuple(body["opened"]),
        waves=tuple(
            tuple(Move(pod=pod, source=source, target=target, gpus=tuple(gpus)) for pod, source, target, gpus in wave)
            for wave in body["waves"]
        ),
        current_cost=current,
        planned_cost=planned,
        bound=bound,
        final=_placement(body["final"]),
        method=body["method"],
    )


def main(arguments: list[str]) -> None:
    """Read the question, solve it, write the answer."""
    from gpuwaste.packing.drain import drain  # noqa: PLC0415 - the parent never needs it

    folder, seconds = Path(arguments[0]), float(arguments[1])
    answer = drain(_question(folder), time_limit_seconds=seconds, clock=time.monotonic)
    (folder / _ANSWER).write_text(json.dumps(_answer_body(answer)), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
