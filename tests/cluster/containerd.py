"""containerd v2.4.2, built once from the Go module in `binaries/containerd/`.

Debian's is too old for the Container Device Interface: it accepts the names of CDI devices and gives a container
nothing, so what a DRA driver prepares would never arrive.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.cluster.cache import cache_folder, digest_of, made_once
from tests.cluster.programs import build_tools, find_go

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["find_containerd"]

CONTAINERD_VERSION = "v2.4.2"

_MODULE = Path(__file__).parent / "binaries" / "containerd"
_TAGS = "no_btrfs no_devmapper no_zfs"


def find_containerd(*, environment: Mapping[str, str], report: Callable[[str], None]) -> Path:
    """The folder of containerd, its runc shim and ctr: from the cache, or built there.

    Raises:
        MissingToolsError: it is not there, and neither is Go.
        ClusterError: the build failed.
    """
    key = digest_of([_MODULE / "go.mod", _MODULE / "go.sum"], _TAGS)

    def make(draft: Path) -> None:
        go = find_go(environment, what="containerd")
        report("building containerd once, about a minute on two cores …")
        build_tools(go, _MODULE, draft, environment=environment, report=report, tags=_TAGS)

    return made_once(cache_folder(environment) / f"containerd-{CONTAINERD_VERSION}-{key}", make)
