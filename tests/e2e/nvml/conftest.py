"""Fixtures of the tests of the simulated driver: the built library, and nodes on it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.cluster.pytest_support import skip_or_fail
from tests.e2e.nvml.nodes import Node, make_node
from tests.sim.nvml.build import SANITIZE, BuildError, built

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CAP_SYS_ADMIN = 21


def _library(sanitize: str = "") -> Path:
    if not shutil.which("gcc") or not shutil.which("make"):
        skip_or_fail("the simulated driver needs gcc and make: install both")
    try:
        return built(sanitize)
    except BuildError as error:
        skip_or_fail(f"the simulated driver cannot be built: {error}")
        raise


@pytest.fixture(scope="session", autouse=True)
def _privileged() -> None:
    """MIG answers the privileged only."""
    status = Path("/proc/self/status").read_text()
    effective = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:"))
    if not effective >> CAP_SYS_ADMIN & 1:
        skip_or_fail("the simulated driver's tests need CAP_SYS_ADMIN: run them as root")


@pytest.fixture(scope="session")
def library() -> Path:
    """Folder of the simulated libnvidia-ml.so.1."""
    return _library()


@pytest.fixture(scope="session")
def sanitized_library() -> Path:
    """The same, built with the address and the undefined-behaviour sanitizer."""
    return _library(SANITIZE)


@pytest.fixture
def node_of(library: Path, tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """Makes a node from a scenario; its programs end with the test."""
    made: list[Node] = []

    def make(node: Any, *, at: float = 10.0, **environment: str) -> Node:
        made.append(make_node(tmp_path / str(len(made)), library, node, at=at, **environment))
        return made[-1]

    yield make
    for node in made:
        node.close()
