"""Runs a packing in a process of its own, so that the caller never loads OR-Tools and can kill it in time."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from gpuwaste.model.errors import InvariantError
from gpuwaste.packing.arrow_files import read_answer, write_instance
from gpuwaste.packing.verifier import check

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpuwaste.packing.answer import Answer
    from gpuwaste.packing.instance import Instance
    from gpuwaste.packing.shapes import Objective

__all__ = ["pack_in_child", "run_child"]

_GRACE_SECONDS = 10.0
_ERROR_LINES = 5


def run_child(command: Sequence[str], *, what: str, time_limit_seconds: float) -> None:
    """Run a solver's process; it is killed 10 s after its time limit.

    Raises:
        InvariantError: it failed, or was killed.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=time_limit_seconds + _GRACE_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise InvariantError(f"{what} did not end within {error.timeout:.0f} s and was killed") from error
    if done.returncode != 0:
        lines = " | ".join(done.stderr.strip().splitlines()[-_ERROR_LINES:])
        raise InvariantError(f"{what} ended with status {done.returncode}: {lines}")


def pack_in_child(
    instance: Instance,
    *,
    time_limit_seconds: float,
    objective: Objective = "cost",
    folder: Path | None = None,
) -> Answer:
    """Solve in a fresh interpreter, given an Arrow file, and check its answer here once more.

    Args:
        instance: pods, nodes, prices.
        time_limit_seconds: wall time of the child; it is killed 10 s after.
        objective: `cost` or `gpus`.
        folder: where the files lie while it runs; the system's own if None.

    Raises:
        InvariantError: the child failed, was killed at its deadline, or gave a wrong answer.
    """
    with tempfile.TemporaryDirectory(prefix="gpuwaste-pack-", dir=folder) as name:
        question, reply = Path(name) / "question.arrow", Path(name) / "answer.arrow"
        write_instance(question, instance)
        command = [
            sys.executable,
            "-m",
            "gpuwaste.packing.worker",
            str(question),
            str(reply),
            objective,
            repr(float(time_limit_seconds)),
        ]
        run_child(command, what="the packing", time_limit_seconds=time_limit_seconds)
        answer = read_answer(reply)
    check(instance, answer)
    return answer
