"""Control groups of each node, in every hierarchy: one for its daemons, and below its root those of the pods.

Tried on version 1, where each controller has a hierarchy of its own.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from tests.cluster.errors import ClusterError

__all__ = ["cgroup_of", "make_cgroups", "remove_cgroups"]

_PREFIX = "gpuwaste-node-"
_DAEMONS = "daemons"
_REMOVE_SECONDS = 20.0
_POLL_SECONDS = 0.05


def cgroup_of(number: int) -> str:
    """Path of the group of node `number` from the root of each hierarchy."""
    return f"/{_PREFIX}{number}"


def make_cgroups(number: int) -> list[Path]:
    """Make the groups of node `number`; return the files by which a process enters that of the daemons."""
    entrances = []
    for root in _hierarchies():
        group = root / f"{_PREFIX}{number}"
        for made in (group, group / _DAEMONS):
            made.mkdir(exist_ok=True)
            for file in ("cpuset.cpus", "cpuset.mems"):
                # Version 1 starts a group without any processor, and nothing can enter it.
                if (made / file).exists() and (root / file).exists():
                    (made / file).write_text((root / file).read_text())
        entrances.append(group / _DAEMONS / "cgroup.procs")
    return entrances


def remove_cgroups() -> None:
    """End what still runs in the groups of nodes, and remove them, also those that a killed run left.

    Raises:
        ClusterError: processes in them do not end.
    """
    deadline = time.monotonic() + _REMOVE_SECONDS
    groups = [group for root in _hierarchies() for group in root.glob(f"{_PREFIX}*")]
    while groups := [group for group in groups if not _removed(group)]:
        if time.monotonic() > deadline:
            raise ClusterError(f"processes of a test node do not end: see cgroup.procs below {groups[0]}")
        time.sleep(_POLL_SECONDS)


def _removed(group: Path) -> bool:
    """Kill what is in a group and remove it with all below it; say whether it is gone."""
    below = sorted((path for path in group.rglob("*") if path.is_dir()), key=lambda path: -len(path.parts))
    for path in [*below, group]:
        with suppress(OSError):  # a group is busy until its last process is reaped
            for process in (path / "cgroup.procs").read_text().split():
                os.kill(int(process), signal.SIGKILL)
            path.rmdir()
    return not group.exists()


def _hierarchies() -> list[Path]:
    """Where control groups are mounted: one place under version 2, one a controller under version 1."""
    fields = (line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return sorted({Path(field[4]) for field in fields if field[field.index("-") + 1] in {"cgroup", "cgroup2"}})
