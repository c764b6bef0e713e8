"""Running the system's own programs."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from tests.cluster.errors import ClusterError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["command"]


def command(*argv: str | Path, timeout_seconds: float = 30.0) -> str:
    """Run a program and return what it prints.

    Raises:
        ClusterError: it failed or took too long; the message holds its words.
    """
    words = " ".join(map(str, argv))
    try:
        done = subprocess.run(
            list(map(str, argv)), capture_output=True, text=True, timeout=timeout_seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise ClusterError(f"{words} took over {timeout_seconds:.0f} s") from None
    if done.returncode != 0:
        raise ClusterError(f"{words} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
