"""Names of containers by id, from the links of `/var/log/containers`.

The kubelet names each link `<pod>_<namespace>_<container>-<container id>.log`. A cgroup tells a container's id and not
its name, PodResources its name and not its id: where several containers of a pod share a GPU they meet here.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FRESH", "ContainerNames", "directory_stamp"]

_LINK = re.compile(r"^[^_]+_[^_]+_(.+)-([0-9a-f]{64})\.log$")

# A directory's time moves on with the kernel's ticks, of at most ten milliseconds: what comes right after a look may
# not change it. So long after a change another look is needed.
_SETTLED_NS = 1_000_000_000
FRESH = -1


def directory_stamp(directory: Path) -> int:
    """Changes whenever the directory's entries do; FRESH where they changed so lately that they may have once more.

    Raises:
        FileNotFoundError: There is none.
    """
    changed_ns = directory.stat().st_mtime_ns
    return changed_ns if time.time_ns() - changed_ns > _SETTLED_NS else FRESH


class ContainerNames:
    """The directory, read again only for an id it did not have, and only where it changed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stamp = FRESH
        self._names: dict[str, str] = {}

    def name(self, container_id: str) -> str:
        """Return the container's name, or an empty string where no link tells it."""
        if container_id not in self._names:
            self._refresh()
        return self._names.get(container_id, "")

    def _refresh(self) -> None:
        try:
            stamp = directory_stamp(self._directory)
            if stamp == self._stamp != FRESH:
                return
            links = [_LINK.match(entry.name) for entry in self._directory.iterdir()]
        except FileNotFoundError:
            self._stamp, self._names = FRESH, {}
            return
        self._stamp = stamp
        self._names = {link[2]: link[1] for link in links if link}
