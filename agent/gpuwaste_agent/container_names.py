"""Names of containers by id, from the links of `/var/log/containers`.

The kubelet names each link `<pod>_<namespace>_<container>-<container id>.log`. A cgroup tells a container's id and not
its name, PodResources its name and not its id: where several containers of a pod share a GPU they meet here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ContainerNames"]

_LINK = re.compile(r"^[^_]+_[^_]+_(.+)-([0-9a-f]{64})\.log$")


class ContainerNames:
    """The directory, read again only for an id it did not have, and only where it changed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stamp = -1
        self._names: dict[str, str] = {}

    def name(self, container_id: str) -> str:
        """Return the container's name, or an empty string where no link tells it."""
        if container_id not in self._names:
            self._refresh()
        return self._names.get(container_id, "")

    def _refresh(self) -> None:
        try:
            stamp = self._directory.stat().st_mtime_ns
            if stamp == self._stamp:
                return
            links = [_LINK.match(entry.name) for entry in self._directory.iterdir()]
        except FileNotFoundError:
            self._stamp, self._names = -1, {}
            return
        self._stamp = stamp
        self._names = {link[2]: link[1] for link in links if link}
