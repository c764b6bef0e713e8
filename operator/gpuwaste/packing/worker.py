"""The child process of a packing: `python -m gpuwaste.packing.worker QUESTION ANSWER OBJECTIVE SECONDS`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from gpuwaste.packing.arrow_files import read_instance_file, write_answer
from gpuwaste.packing.engine import solve

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Read the question, solve it, write the answer."""
    question, reply, objective, seconds = arguments
    answer = solve(
        read_instance_file(Path(question)),
        time_limit_seconds=float(seconds),
        objective="gpus" if objective == "gpus" else "cost",
        clock=time.monotonic,
    )
    write_answer(Path(reply), answer)


if __name__ == "__main__":
    main(sys.argv[1:])
