"""Which container a process belongs to, from one line of `/proc/<pid>/cgroup`.

The path of a pod's cgroup names the pod's UID, with dashes (cgroupfs driver) or underscores (systemd driver), and
ends in the container's id, bare or with the runtime's prefix. cgroup v1 repeats it for every controller, v2 has it
once; nested cgroups (a container runtime inside a pod) add more behind it. The pod's is the first match.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gpuwaste_agent.holdings import ProcessOwner

if TYPE_CHECKING:
    from pathlib import Path

    from gpuwaste_agent.container_names import ContainerNames

__all__ = ["CgroupOwners", "NoOwners", "parse_cgroup"]

_UID = r"[0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}"
# Static pods of old kubelets have a hash of 32 digits for a UID.
_POD = re.compile(rf"pod({_UID}|[0-9a-f]{{32}})(?:\.slice)?(?:[/:]|$)")
_CONTAINER = re.compile(r"^(?:[a-z0-9-]+?[-:])?([0-9a-f]{64})(?:\.scope)?$")


def parse_cgroup(text: str) -> ProcessOwner | None:
    """Return the owner named by the content of a cgroup file, or None for a process in no pod."""
    best: ProcessOwner | None = None
    for line in text.splitlines():
        path = line.split(":", 2)[-1]
        pod = _POD.search(path)
        if pod is None:
            continue
        uid = pod[1].replace("_", "-")
        for part in path[pod.end() :].split("/"):
            container = _CONTAINER.match(part)
            if container:
                return ProcessOwner(uid, container[1])
        best = best or ProcessOwner(uid, "")
    return best


class CgroupOwners:
    """Resolves PIDs by the host's /proc; each new PID costs one read, whatever it says."""

    def __init__(self, proc: Path, names: ContainerNames | None = None) -> None:
        """Take the host's /proc, and who knows the names of containers."""
        self._proc = proc
        self._names = names
        self._known: dict[int, ProcessOwner | None] = {}
        self.reads = 0

    def owner(self, pid: int) -> ProcessOwner | None:
        """Return the owner of a process, or None for one in no pod or already gone."""
        if pid not in self._known:
            self.reads += 1
            try:
                text = (self._proc / str(pid) / "cgroup").read_text()
            except (FileNotFoundError, ProcessLookupError):
                text = ""
            self._known[pid] = parse_cgroup(text)
        owner = self._known[pid]
        if owner is None or self._names is None or not owner.container_id:
            return owner
        return owner._replace(container=self._names.name(owner.container_id))

    def forget(self, pid: int) -> None:
        """Drop a PID that ended: the kernel may use it again."""
        self._known.pop(pid, None)


class NoOwners:
    """Attribution by process is switched off: no process has a known owner."""

    def owner(self, pid: int) -> ProcessOwner | None:
        """Return None."""
        del pid
        return None

    def forget(self, pid: int) -> None:
        """Nothing is remembered."""
