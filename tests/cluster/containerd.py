"""containerd v2.4.2, built once from the Go module in `binaries/containerd/`.

Debian's is too old for the Container Device Interface: it accepts the names of CDI devices and gives a container
nothing, so what a DRA driver prepares would never arrive.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cluster.cache import cache_folder, digest_of, made_once
from tests.cluster.errors import MissingToolsError
from tests.cluster.programs import build_go

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
        go = shutil.which("go", path=environment.get("PATH"))
        if go is None:
            raise MissingToolsError("containerd needs Go 1.26 or newer: install it")
        report("building containerd once, about a minute on two cores …")
        flags = ["-mod=readonly", "-trimpath", "-buildvcs=false", "-tags", _TAGS, "-ldflags", "-s -w"]
        # `tool` stands for the programs that go.mod names.
        build_go(
            [go, "build", *flags, "-o", f"{draft}/", "tool"], module=_MODULE, environment=environment, report=report
        )

    return made_once(cache_folder(environment) / f"containerd-{CONTAINERD_VERSION}-{key}", make)
