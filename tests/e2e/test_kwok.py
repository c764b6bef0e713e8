"""Many nodes that are only objects, for benchmarks."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest
from tests.cluster.errors import MissingToolsError
from tests.cluster.kwok import Kwok, fake_node, find_kwok, running_kwok
from tests.cluster.pytest_support import control_plane_or_skip, reporter, skip_or_fail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cluster.access import ControlPlane

_NODES = 100


@pytest.fixture(scope="module")
def kwok(pytestconfig: pytest.Config) -> Kwok:
    try:
        return find_kwok(environment=os.environ, report=reporter(pytestconfig))
    except MissingToolsError as error:
        skip_or_fail(str(error))


@pytest.fixture(scope="module")
def control_plane(pytestconfig: pytest.Config) -> Iterator[ControlPlane]:
    with control_plane_or_skip(pytestconfig, controllers=True) as access:
        yield access


def eventually(look: Callable[[], object], wanted: object, *, deadline_seconds: float = 60.0) -> None:
    deadline = time.monotonic() + deadline_seconds
    while (found := look()) != wanted and time.monotonic() < deadline:
        time.sleep(0.2)
    assert found == wanted


def test_a_hundred_gpu_nodes_take_pods(kwok: Kwok, control_plane: ControlPlane) -> None:
    access, api = control_plane, control_plane.api()
    capacity = {"cpu": "64", "memory": "512Gi", "nvidia.com/gpu": "8"}
    access.apply(*(fake_node(f"fake-{n}", capacity=capacity, labels={"type": "fake"}) for n in range(_NODES)))
    container = {"name": "main", "image": "none", "resources": {"limits": {"nvidia.com/gpu": "4"}}}
    template = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [container]}}
    spec = {"replicas": 150, "selector": {"matchLabels": {"app": "a"}}, "template": template}
    metadata = {"name": "a", "namespace": "default"}

    def ready_nodes() -> int:
        conditions = (c for node in api.get("/api/v1/nodes")["items"] for c in node["status"].get("conditions", ()))
        return sum(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)

    def running_pods() -> int:
        pods = api.get("/api/v1/namespaces/default/pods")["items"]
        return sum(pod["status"].get("phase") == "Running" for pod in pods)

    with running_kwok(access, kwok):
        eventually(ready_nodes, _NODES)
        access.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec})
        eventually(running_pods, 150)
    node = api.get("/api/v1/nodes/fake-7")
    assert node["status"]["allocatable"]["nvidia.com/gpu"] == "8"
