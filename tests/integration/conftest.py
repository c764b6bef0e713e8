"""Fixtures of the tests that run against a real Kubernetes API server."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from tests.cluster.pytest_support import control_plane_or_skip, no_other_cluster
from tests.s3.server import s3_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.access import ControlPlane
    from tests.s3.server import S3Server

_numbers = itertools.count(1)


@pytest.fixture(scope="session", autouse=True)
def _only_own_clusters() -> Iterator[None]:
    """No test here can reach a cluster that the harness did not start."""
    with no_other_cluster():
        yield


@pytest.fixture(scope="session")
def control_plane(pytestconfig: pytest.Config) -> Iterator[ControlPlane]:
    """etcd and kube-apiserver, shared by the session.

    Nothing but the tests changes its objects: no controller marks a node without a kubelet as gone, and a
    pod whose `spec.nodeName` and status a test writes stays as written.
    """
    with control_plane_or_skip(pytestconfig, controllers=False) as access:
        yield access


@pytest.fixture(scope="session")
def managed_control_plane(pytestconfig: pytest.Config) -> Iterator[ControlPlane]:
    """A control plane with kube-controller-manager and kube-scheduler, shared by the session."""
    with control_plane_or_skip(pytestconfig, controllers=True) as access:
        yield access


@pytest.fixture
def namespace(control_plane: ControlPlane) -> str:
    """Name of a new, empty namespace on `control_plane`; it goes with the control plane."""
    name = f"test-{next(_numbers)}"
    control_plane.kubectl("create", "namespace", name)
    return name


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A server that speaks the S3 protocol, shared by the session; each test writes below a folder of its own."""
    with s3_server(tmp_path_factory.mktemp("s3") / "server.log") as server:
        yield server
