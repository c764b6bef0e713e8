"""The device-plugin stand-in and a real kubelet: sharing, changes, faults and restarts."""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from tests.cluster.nodes.example import example_scenario
from tests.cluster.nodes.gpus import CONFIG_MAP, GpuNodes
from tests.cluster.nodes.pods import container_environment, pod, wait_for_pod

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cluster.access import ControlPlane
    from tests.cluster.nodes.cluster import NodeCluster

_T4_NODE = "gpu-node-1"
_LABEL = "nvidia.com/device-plugin.config"

_CONFIGS = {
    "shared-4": """
version: v1
flags: {migStrategy: mixed}
sharing:
  timeSlicing:
    renameByDefault: true
    failRequestsGreaterThanOne: true
    resources: [{name: nvidia.com/gpu, replicas: 4}]
""",
    "same-name-2": """
version: v1
sharing: {timeSlicing: {resources: [{name: gpu, replicas: 2}]}}
""",
    "broken": "version: v1\nsharing: {timeSlicing: {resources: [{name: nvidia.com/gpu, replicas: 1}]}}\n",
}


@pytest.fixture(scope="module")
def gpus(node_cluster: NodeCluster) -> GpuNodes:
    nodes = GpuNodes(node_cluster, example_scenario(), _CONFIGS)
    nodes.start()
    return nodes


@pytest.fixture(autouse=True)
def _as_before(node_cluster: NodeCluster, gpus: GpuNodes) -> Iterator[None]:
    yield
    access = node_cluster.access
    access.kubectl("delete", "deployments,pods", "--all", "--now", "--wait", timeout_seconds=60)
    flip(access, None)
    offered(gpus, {"nvidia.com/gpu": 4})


def flip(access: ControlPlane, key: str | None) -> None:
    access.kubectl("label", "node", _T4_NODE, "--overwrite", f"{_LABEL}-" if key is None else f"{_LABEL}={key}")


def offered(gpus: GpuNodes, wanted: dict[str, int], *, deadline_seconds: float = 20.0) -> None:
    """Wait until the T4 node offers just that."""
    eventually(lambda: gpus.allocatable(_T4_NODE), wanted, deadline_seconds=deadline_seconds)


def eventually(look: Callable[[], object], wanted: object, *, deadline_seconds: float = 20.0) -> None:
    deadline = time.monotonic() + deadline_seconds
    while (found := look()) != wanted and time.monotonic() < deadline:
        time.sleep(0.1)
    assert found == wanted


@pytest.mark.smoke
def test_sharing_under_another_name(gpus: GpuNodes, node_cluster: NodeCluster) -> None:
    access = node_cluster.access
    flip(access, "shared-4")
    offered(gpus, {"nvidia.com/gpu.shared": 16})
    for n in range(5):
        access.apply(pod(f"p{n}", limits={"nvidia.com/gpu.shared": 1}))
    visible = [container_environment(wait_for_pod(access, f"p{n}"))["NVIDIA_VISIBLE_DEVICES"] for n in range(5)]
    assert len(set(visible)) == 4, "five pods are spread over the four GPUs"
    assert not any("::" in device for device in visible)
    labels = access.get("node", _T4_NODE)["metadata"]["labels"]
    assert labels["nvidia.com/gpu.replicas"] == "4"
    assert labels["nvidia.com/gpu.sharing-strategy"] == "time-slicing"
    assert labels["nvidia.com/gpu.product"] == "Tesla-T4"


def test_sharing_under_the_same_name_marks_the_product(gpus: GpuNodes, node_cluster: NodeCluster) -> None:
    flip(node_cluster.access, "same-name-2")
    offered(gpus, {"nvidia.com/gpu": 8})
    eventually(
        lambda: node_cluster.access.get("node", _T4_NODE)["metadata"]["labels"]["nvidia.com/gpu.product"],
        "Tesla-T4-SHARED",
    )


def test_two_shared_devices_for_one_container_are_refused(gpus: GpuNodes, node_cluster: NodeCluster) -> None:
    access = node_cluster.access
    flip(access, "shared-4")
    offered(gpus, {"nvidia.com/gpu.shared": 16})
    access.apply(pod("greedy", limits={"nvidia.com/gpu.shared": 2}))
    failed = wait_for_pod(access, "greedy", phase="Failed")
    assert failed["status"]["reason"] == "UnexpectedAdmissionError"
    assert "too large" in failed["status"]["message"]


def test_an_unknown_key_and_an_edit_in_place_change_nothing(gpus: GpuNodes, node_cluster: NodeCluster) -> None:
    access = node_cluster.access
    flip(access, "shared-4")
    offered(gpus, {"nvidia.com/gpu.shared": 16})
    namespace, name = CONFIG_MAP
    patch = json.dumps({"data": {"shared-4": _CONFIGS["same-name-2"]}})
    access.kubectl("patch", "configmap", name, "-n", namespace, "--type=merge", "-p", patch)
    try:
        flip(access, "no-such-key")
        # Longer than the plugin's step and the kubelet's report together.
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            assert gpus.allocatable(_T4_NODE) == {"nvidia.com/gpu.shared": 16}
            time.sleep(0.3)
        flip(access, "shared-4")
        offered(gpus, {"nvidia.com/gpu": 8})
    finally:
        patch = json.dumps({"data": {"shared-4": _CONFIGS["shared-4"]}})
        access.kubectl("patch", "configmap", name, "-n", namespace, "--type=merge", "-p", patch)


def test_a_broken_configuration_offers_nothing(gpus: GpuNodes, node_cluster: NodeCluster) -> None:
    flip(node_cluster.access, "shared-4")
    offered(gpus, {"nvidia.com/gpu.shared": 16})
    flip(node_cluster.access, "broken")
    offered(gpus, {})


def test_a_lost_gpu_is_not_offered_and_its_pod_runs_on(gpus: GpuNodes, node_cluster: NodeCluster) -> None:
    access = node_cluster.access
    access.apply(pod("holder", limits={"nvidia.com/gpu": 4}))
    held = container_environment(wait_for_pod(access, "holder"))["NVIDIA_VISIBLE_DEVICES"].split(",")[0]
    node = node_cluster.node(_T4_NODE)
    gpus.control_driver(node, "fault", "xid", "--gpu", held, "--xid", "31")
    time.sleep(2)
    assert gpus.allocatable(_T4_NODE) == {"nvidia.com/gpu": 4}, "a program's own mistake"
    gpus.control_driver(node, "fault", "xid", "--gpu", held, "--xid", "79")
    offered(gpus, {"nvidia.com/gpu": 3})
    assert access.get("pod", "holder")["status"]["phase"] == "Running"
    assert access.get("node", _T4_NODE)["status"]["capacity"]["nvidia.com/gpu"] == "4"
    # As with NVIDIA's plugin, a GPU that was bad stays so until the plugin starts anew.
    gpus.control_driver(node, "clear")
    gpus.stop("deviceplugin", node)
    gpus.start_plugin(node)


def test_a_paused_plugin_offers_nothing(gpus: GpuNodes, node_cluster: NodeCluster) -> None:
    access = node_cluster.access
    label = "nvidia.com/gpu.deploy.device-plugin"
    access.kubectl("label", "node", _T4_NODE, "--overwrite", f"{label}=paused-for-mig-change")
    offered(gpus, {})
    access.kubectl("label", "node", _T4_NODE, "--overwrite", f"{label}=true")
    offered(gpus, {"nvidia.com/gpu": 4})


def test_the_plugin_registers_again_with_a_new_kubelet(gpus: GpuNodes, node_cluster: NodeCluster) -> None:
    node = node_cluster.node(_T4_NODE)
    socket = node.kubelet_folder / "device-plugins" / "kubelet.sock"
    before = socket.stat().st_ctime_ns
    subprocess.run(node.inside("pkill", "-9", "-x", "kubelet"), check=True, timeout=10)
    eventually(lambda: socket.exists() and socket.stat().st_ctime_ns != before, wanted=True)
    # A pod that comes before the plugin is refused for good; a Deployment tries again.
    wanted = pod("after", limits={"nvidia.com/gpu": 1}, node=_T4_NODE)["spec"]
    template = {"metadata": {"labels": {"app": "after"}}, "spec": wanted}
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": "after"}}, "template": template}
    metadata = {"name": "after", "namespace": "default"}
    access = node_cluster.access
    access.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec})
    access.kubectl("wait", "deployment/after", "--for=condition=Available", "--timeout=25s")
    offered(gpus, {"nvidia.com/gpu": 4})
