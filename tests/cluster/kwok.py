"""Thousands of nodes that are only objects: kwok v0.8.0 plays their kubelets.

Their pods start and end, but nothing runs in them. For benchmarks of whatever talks to the API server.
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.cluster.cache import cache_folder, digest_of, made_once
from tests.cluster.processes import Supervisor
from tests.cluster.programs import build_tools, find_go, module_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.cluster.access import ControlPlane

__all__ = ["Kwok", "fake_node", "find_kwok", "running_kwok"]

KWOK_VERSION = "v0.8.0"

_MODULE = Path(__file__).parent / "binaries" / "kwok"
_PACKAGE = "sigs.k8s.io/kwok"
_STAGES = ("node/fast", "node/heartbeat-with-lease", "pod/fast")
_ANNOTATION = "kwok.x-k8s.io/node"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kwok:
    """The program, and the files that say how its nodes and pods behave."""

    program: Path
    stages: tuple[Path, ...]


def find_kwok(*, environment: Mapping[str, str], report: Callable[[str], None]) -> Kwok:
    """Find kwok in the cache, or build it there.

    Raises:
        MissingToolsError: it is not there, and neither is Go.
        ClusterError: the build failed.
    """
    key = digest_of([_MODULE / "go.mod", _MODULE / "go.sum"], *_STAGES)
    target = cache_folder(environment) / f"kwok-{KWOK_VERSION}-{key}"

    def make(draft: Path) -> None:
        go = find_go(environment, what="kwok")
        report("building kwok once, about two minutes on two cores …")
        build_tools(go, _MODULE, draft, environment=environment, report=report)
        source = module_folder(go, _MODULE, _PACKAGE, environment)
        for stage in _STAGES:
            for file in sorted((source / "kustomize" / "stage" / stage).glob("*-*.yaml")):
                shutil.copyfile(file, draft / f"{stage.replace('/', '-')}-{file.name}")

    folder = made_once(target, make)
    return Kwok(program=folder / "kwok", stages=tuple(sorted(folder.glob("*.yaml"))))


@contextmanager
def running_kwok(access: ControlPlane, kwok: Kwok) -> Iterator[None]:
    """Play the kubelets of all nodes made by `fake_node`, as long as the block runs."""
    supervisor = Supervisor(logs=access.folder / "logs")
    argv = [str(kwok.program), f"--kubeconfig={access.kubeconfig}", "--manage-all-nodes=false"]
    argv += [f"--manage-nodes-with-annotation-selector={_ANNOTATION}=fake", "--server-address=127.0.0.1:0"]
    for stage in kwok.stages:
        argv += ["--config", str(stage)]
    try:
        supervisor.start(
            "kwok", argv, environment={"PATH": os.defpath, "HOME": str(access.folder / "home")}, folder=access.folder
        )
        yield
        supervisor.check_alive()
    finally:
        supervisor.stop()


def fake_node(name: str, *, capacity: Mapping[str, str], labels: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A node for kwok. `capacity` is also what it offers; `pods` defaults to 110."""
    offered = {"pods": "110", **capacity}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "annotations": {_ANNOTATION: "fake"}, "labels": dict(labels or {})},
        "status": {"capacity": offered, "allocatable": offered},
    }
