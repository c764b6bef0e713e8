"""The DRA stand-in: slices for the scheduler, claims for the kubelet."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.cluster.nodes.example import example_scenario
from tests.cluster.nodes.gpus import GpuNodes
from tests.cluster.nodes.pods import claim_template, container_environment, container_pid, pod, wait_for_pod
from tests.sim.dra.slices import DRIVER, devices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cluster.access import ControlPlane
    from tests.cluster.nodes.cluster import NodeCluster


@pytest.fixture(scope="module")
def gpus(node_cluster: NodeCluster) -> GpuNodes:
    nodes = GpuNodes(node_cluster, example_scenario(), {})
    for node in node_cluster.nodes:
        nodes.start_dra(node)
    eventually(lambda: len(node_cluster.access.get("resourceslices")["items"]), 2)
    return nodes


@pytest.fixture(autouse=True)
def _no_pods_left(node_cluster: NodeCluster, gpus: GpuNodes) -> Iterator[None]:
    yield
    node_cluster.access.kubectl("delete", "pods,resourceclaims,resourceclaimtemplates", "--all", "--now", "--wait")


def eventually(look: Callable[[], object], wanted: object, *, deadline_seconds: float = 40.0) -> None:
    deadline = time.monotonic() + deadline_seconds
    while (found := look()) != wanted and time.monotonic() < deadline:
        time.sleep(0.1)
    assert found == wanted


def allocated(access: ControlPlane, running: dict[str, Any]) -> list[tuple[str, str]]:
    """Pool and device of each result of a pod's only claim."""
    name = running["status"]["resourceClaimStatuses"][0]["resourceClaimName"]
    results = access.get("resourceclaim", name)["status"]["allocation"]["devices"]["results"]
    return [(result["pool"], result["device"]) for result in results if result["driver"] == DRIVER]


@pytest.mark.smoke
def test_a_claim_gets_the_mig_instance_it_selects(gpus: GpuNodes, node_cluster: NodeCluster) -> None:
    access = node_cluster.access
    chosen = f"device.attributes['{DRIVER}'].profile == '2g.20gb'"
    access.apply(
        claim_template("slice", device_class="mig.nvidia.com", expression=chosen), pod("p", claims={"g": "slice"})
    )
    running = wait_for_pod(access, "p")
    assert allocated(access, running) == [("gpu-node-0", "gpu-1-mig-2g20gb-14-4")]
    instance = example_scenario().node("gpu-node-0").gpus[1].mig[1]
    # What the driver wrote for the container runtime has arrived, and nobody else's is seen.
    assert container_environment(running)["NVIDIA_VISIBLE_DEVICES"] == instance.uuid
    root = Path(f"/proc/{container_pid(running)}/root")
    assert (root / "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1").exists()
    cdi = node_cluster.node("gpu-node-0").cdi_folder
    assert len(list(cdi.glob("*.json"))) == 1
    access.kubectl("delete", "pod", "p", "--now", "--wait")
    eventually(lambda: list(cdi.iterdir()), [])


def test_a_claim_for_several_gpus_gets_different_ones(gpus: GpuNodes, node_cluster: NodeCluster) -> None:
    access = node_cluster.access
    access.apply(claim_template("three", device_class="gpu.nvidia.com", count=3), pod("p", claims={"g": "three"}))
    running = wait_for_pod(access, "p")
    results = allocated(access, running)
    assert len(set(results)) == 3
    assert len(set(container_environment(running)["NVIDIA_VISIBLE_DEVICES"].split(","))) == 3
    assert {pool for pool, _ in results} == {"gpu-node-1"}


def test_slices_tell_what_the_nodes_have(gpus: GpuNodes, node_cluster: NodeCluster) -> None:
    slices = {found["spec"]["nodeName"]: found for found in node_cluster.access.get("resourceslices")["items"]}
    for node in example_scenario().nodes:
        assert slices[node.name]["spec"]["devices"] == devices(node.gpus)
    # The driver takes what it reads back for what it wrote, and publishes nothing twice.
    time.sleep(1.5)
    for found in node_cluster.access.get("resourceslices")["items"]:
        assert found["metadata"]["resourceVersion"] == slices[found["spec"]["nodeName"]]["metadata"]["resourceVersion"]


def test_slices_are_published_again_for_a_new_kubelet(gpus: GpuNodes, node_cluster: NodeCluster) -> None:
    access, node = node_cluster.access, node_cluster.node("gpu-node-1")
    name = f"{node.name}-{DRIVER}"
    before = access.get("resourceslice", name)["metadata"]["uid"]
    subprocess.run(node.inside("pkill", "-9", "-x", "kubelet"), check=True, timeout=10)

    def is_new() -> bool:
        found = access.get("resourceslices")["items"]
        return any(one["metadata"]["name"] == name and one["metadata"]["uid"] != before for one in found)

    eventually(is_new, wanted=True)
    access.apply(claim_template("one", device_class="gpu.nvidia.com"), pod("p", node=node.name, claims={"g": "one"}))
    wait_for_pod(access, "p")
