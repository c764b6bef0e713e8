"""The product as people run it: helm, real pods on real nodes, and what they do with simulated GPUs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.cluster.errors import MissingToolsError
from tests.cluster.nodes.gpus import LOAD_IMAGE, GpuNodes
from tests.cluster.nodes.pods import claim_template, pod, wait_for_pod
from tests.cluster.pytest_support import reporter, skip_or_fail
from tests.e2e.product import NAMESPACE, WINDOW_SECONDS, install, product_scenario, usage
from tests.sim.dra.slices import DRIVER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.nodes.cluster import NodeCluster

_NS = 1_000_000_000
_SHARED_NODE = "gpu-node-1"
_SHARED = """
version: v1
flags: {migStrategy: mixed}
sharing: {timeSlicing: {resources: [{name: nvidia.com/gpu, replicas: 2}]}}
"""


@pytest.fixture(scope="module")
def product(node_cluster: NodeCluster, pytestconfig: pytest.Config) -> GpuNodes:
    """Two nodes with GPUs, operator and agents."""
    gpus = GpuNodes(node_cluster, product_scenario(), {"shared": _SHARED})
    gpus.start()
    try:
        install(node_cluster, gpus, report=reporter(pytestconfig))
    except MissingToolsError as error:
        skip_or_fail(str(error))
    return gpus


@pytest.fixture(autouse=True)
def _no_pods_left(node_cluster: NodeCluster, product: GpuNodes) -> Iterator[None]:
    yield
    kinds = "pods,resourceclaims,resourceclaimtemplates"
    node_cluster.access.kubectl("delete", kinds, "--all", "--now", "--wait", timeout_seconds=60)


def started(cluster: NodeCluster, name: str, load: str, *, resource: str, node: str) -> dict[str, Any]:
    cluster.access.apply(pod(name, limits={resource: 1}, image=LOAD_IMAGE, args=[load], node=node))
    return wait_for_pod(cluster.access, name)


def seconds(windows: list[dict[str, Any]], figure: str) -> float:
    """A figure's mean over windows, per second of the window."""
    values = [int(each["figures"][f"{figure}_ns"]) for each in windows]
    return sum(values) / len(values) / (WINDOW_SECONDS * _NS)


@pytest.mark.smoke
@pytest.mark.timeout(240, func_only=True)
def test_a_pod_with_a_whole_gpu(node_cluster: NodeCluster, product: GpuNodes) -> None:
    access = node_cluster.access
    running = started(node_cluster, "trainer", "0.7:0.5:2000", resource="nvidia.com/gpu", node="gpu-node-0")
    windows = usage(node_cluster, "gpu-node-0", "trainer", windows=2)
    assert {each["pod_uid"] for each in windows} == {running["metadata"]["uid"]}
    assert seconds(windows, "duty") == pytest.approx(0.7, rel=0.02)
    assert seconds(windows, "sm") == pytest.approx(0.35, rel=0.02)
    deadline = time.monotonic() + 60
    shown = ""
    while "trainer" not in shown and time.monotonic() < deadline:
        time.sleep(1)
        shown = access.kubectl("get", "gpuwaste", "-A")
    assert "trainer" in shown, access.kubectl("logs", "-n", NAMESPACE, "deploy/gpuwaste-operator", "--tail=20")


@pytest.mark.timeout(240, func_only=True)
def test_pods_with_mig_instances(node_cluster: NodeCluster, product: GpuNodes) -> None:
    loads = {"3g.40gb": (0.9, 0.5), "2g.20gb": (0.6, 0.8), "1g.10gb": (0.3, 1.0)}
    for profile, (duty, width) in loads.items():
        name = f"p-{profile.replace('.', '-')}"
        load = f"{duty}:{width}:500"
        started(node_cluster, name, load, resource=f"nvidia.com/mig-{profile}", node="gpu-node-0")
    for profile, (duty, width) in loads.items():
        windows = usage(node_cluster, "gpu-node-0", f"p-{profile.replace('.', '-')}", windows=2)
        assert seconds(windows, "sm") == pytest.approx(duty * width, rel=0.02), profile
        # Its own activity tells the instance's duty.
        assert seconds(windows, "duty") == pytest.approx(duty, rel=0.02), profile


@pytest.mark.timeout(240, func_only=True)
def test_pods_with_resource_claims(node_cluster: NodeCluster, product: GpuNodes) -> None:
    access, node = node_cluster.access, "gpu-node-0"
    product.start_dra(node_cluster.node(node))
    try:
        loads = {"claims-gpu": ("gpu", 0.8, 0.25), "claims-slice": ("mig", 0.4, 0.75)}
        for name, (kind, duty, width) in loads.items():
            chosen = f"device.attributes['{DRIVER}'].profile == '2g.20gb'" if kind == "mig" else None
            access.apply(claim_template(kind, device_class=f"{kind}.nvidia.com", expression=chosen))
            load = [f"{duty}:{width}:500"]
            access.apply(pod(name, claims={"device": kind}, image=LOAD_IMAGE, args=load, node=node))
        for name, (_, duty, width) in loads.items():
            running = wait_for_pod(access, name)
            windows = usage(node_cluster, node, name, windows=2)
            assert {each["pod_uid"] for each in windows} == {running["metadata"]["uid"]}
            claim = running["status"]["resourceClaimStatuses"][0]["resourceClaimName"]
            assert {each["claim"] for each in windows} == {f"default/{claim}"}
            assert seconds(windows, "duty") == pytest.approx(duty, rel=0.02), name
            assert seconds(windows, "sm") == pytest.approx(duty * width, rel=0.02), name
        # The kubelet has the driver take its claims back: it has to be there still.
        access.kubectl("delete", "pods", "--all", "--now", "--wait", timeout_seconds=60)
    finally:
        product.stop("dra", node_cluster.node(node))


@pytest.mark.timeout(240, func_only=True)
def test_two_pods_on_one_shared_gpu(node_cluster: NodeCluster, product: GpuNodes) -> None:
    access = node_cluster.access
    access.kubectl("label", "node", _SHARED_NODE, "nvidia.com/device-plugin.config=shared")
    deadline = time.monotonic() + 30
    while product.allocatable(_SHARED_NODE) != {"nvidia.com/gpu": 2} and time.monotonic() < deadline:
        time.sleep(0.2)
    loads = {"busy": (0.7, 0.5), "light": (0.2, 0.25)}
    for name, (duty, width) in loads.items():
        started(node_cluster, name, f"{duty}:{width}:1000", resource="nvidia.com/gpu", node=_SHARED_NODE)
    for name, (duty, width) in loads.items():
        windows = usage(node_cluster, _SHARED_NODE, name, windows=2)
        assert seconds(windows, "duty") == pytest.approx(duty, rel=0.02), name
        for each in windows:
            quality = each["figures"]["sm_quality"]
            truth = duty * width * WINDOW_SECONDS * _NS
            assert quality["low"] * 0.98 <= truth <= quality["high"] * 1.02, name
