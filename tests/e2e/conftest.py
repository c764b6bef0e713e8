"""Fixtures of the tests with real nodes: a real kubelet, real containers, simulated GPUs."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from tests.cluster.errors import MissingToolsError
from tests.cluster.nodes.cluster import NodeCluster, running_nodes
from tests.cluster.nodes.example import example_scenario
from tests.cluster.nodes.gpus import GpuNodes
from tests.cluster.pytest_support import no_other_cluster, reporter, skip_or_fail

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session", autouse=True)
def _only_own_clusters() -> Iterator[None]:
    """No test here can reach a cluster that the harness did not start."""
    with no_other_cluster():
        yield


@pytest.fixture(scope="module")
def node_cluster(pytestconfig: pytest.Config) -> Iterator[NodeCluster]:
    """Two nodes, of a module's own: a machine runs one such cluster at a time."""
    with ExitStack() as stack:
        try:
            cluster = stack.enter_context(running_nodes(count=2, report=reporter(pytestconfig)))
        except MissingToolsError as error:
            skip_or_fail(str(error))
        yield cluster


@pytest.fixture(scope="module")
def gpu_nodes(node_cluster: NodeCluster) -> GpuNodes:
    """The two nodes with the GPUs of the example: two A100, one of them cut up, and four T4."""
    gpus = GpuNodes(node_cluster, example_scenario(), {})
    gpus.start()
    return gpus
