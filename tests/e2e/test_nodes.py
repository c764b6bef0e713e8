"""Two real nodes on this machine: pods are scheduled, run, and reach each other and the API server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from tests.cluster.control_plane import SERVICE_ADDRESS
from tests.cluster.nodes.pods import container_environment, container_pid, pod, wait_for_pod

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.access import ControlPlane
    from tests.cluster.nodes.cluster import NodeCluster
    from tests.cluster.nodes.gpus import GpuNodes


@pytest.fixture(autouse=True)
def _no_pods_left(node_cluster: NodeCluster) -> Iterator[None]:
    yield
    node_cluster.access.kubectl("delete", "pods", "--all", "--now", "--wait", timeout_seconds=60)


def in_network_of(pid: int, script: str, *args: str) -> str:
    """Run Python in the network namespace of a process."""
    argv = ["nsenter", "--target", str(pid), "--net", "--", sys.executable, "-c", script, *args]
    return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=True).stdout


def started(
    access: ControlPlane, name: str, *, limits: dict[str, int] | None = None, node: str | None = None
) -> dict[str, Any]:
    """Create a pod and return it when it runs."""
    access.apply(pod(name, limits=limits, node=node))
    return wait_for_pod(access, name)


@pytest.mark.smoke
def test_a_pod_gets_a_gpu(gpu_nodes: GpuNodes, node_cluster: NodeCluster) -> None:
    assert gpu_nodes.allocatable("gpu-node-0") == {
        "nvidia.com/gpu": 1,
        "nvidia.com/mig-3g.40gb": 1,
        "nvidia.com/mig-2g.20gb": 1,
        "nvidia.com/mig-1g.10gb": 1,
    }
    assert gpu_nodes.allocatable("gpu-node-1") == {"nvidia.com/gpu": 4}
    running = started(node_cluster.access, "trainer", limits={"nvidia.com/gpu": 2})
    assert running["spec"]["nodeName"] == "gpu-node-1"
    visible = container_environment(running)["NVIDIA_VISIBLE_DEVICES"].split(",")
    assert len(set(visible)) == 2
    assert all(device.startswith("GPU-00000001-") for device in visible)


def test_a_node_with_mig_tells_which_layouts_it_knows(gpu_nodes: GpuNodes, node_cluster: NodeCluster) -> None:
    found = node_cluster.access.get("configmaps", "-n", "gpu-operator", "-l", "nvidia.com/node-name")["items"]
    assert [each["metadata"]["name"] for each in found] == ["gpu-node-0-mig-config"]
    layouts = yaml.safe_load(found[0]["data"]["config.yaml"])["mig-configs"]
    assert {"all-disabled", "all-enabled", "all-balanced", "all-1g.10gb", "all-1g.10gb.me", "all-7g.80gb"} <= set(
        layouts
    )


def test_a_pod_gets_a_mig_instance(gpu_nodes: GpuNodes, node_cluster: NodeCluster) -> None:
    running = started(node_cluster.access, "small", limits={"nvidia.com/mig-1g.10gb": 1})
    assert container_environment(running)["NVIDIA_VISIBLE_DEVICES"].startswith("MIG-00000000-")


def test_a_pod_without_a_free_gpu_waits(gpu_nodes: GpuNodes, node_cluster: NodeCluster) -> None:
    access = node_cluster.access
    started(access, "first", limits={"nvidia.com/mig-3g.40gb": 1})
    access.apply(pod("second", limits={"nvidia.com/mig-3g.40gb": 1}))
    waiting = access.kubectl("wait", "pod/second", "--for=condition=PodScheduled=False", "--timeout=20s")
    assert "condition met" in waiting
    access.kubectl("delete", "pod", "first", "--now")
    wait_for_pod(access, "second")


def test_the_process_of_a_pod_lies_in_its_cgroup(node_cluster: NodeCluster) -> None:
    running = started(node_cluster.access, "p", node="gpu-node-1")
    groups = Path(f"/proc/{container_pid(running)}/cgroup").read_text()
    assert f"/gpuwaste-node-1/kubepods/besteffort/pod{running['metadata']['uid']}/" in groups


def test_pods_on_two_nodes_reach_each_other(node_cluster: NodeCluster) -> None:
    pods = [started(node_cluster.access, f"p{n}", node=f"gpu-node-{n}") for n in range(2)]
    address = pods[0]["status"]["podIP"]
    serve = (
        "import socket,sys; s=socket.create_server((sys.argv[1], 0)); print(s.getsockname()[1], flush=True);"
        "s.settimeout(15); c,a=s.accept(); c.sendall(a[0].encode()); c.close()"
    )
    ask = (
        "import socket,sys; s=socket.create_connection((sys.argv[1], int(sys.argv[2])), 10);print(s.recv(99).decode())"
    )
    argv = ["nsenter", "--target", str(container_pid(pods[0])), "--net", "--", sys.executable, "-c", serve, address]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        seen = in_network_of(container_pid(pods[1]), ask, address, port).strip()
    # Not translated: the server sees the other pod's own address.
    assert seen == pods[1]["status"]["podIP"]


def test_a_pod_reaches_the_api_server_by_its_service_account(node_cluster: NodeCluster) -> None:
    running = started(node_cluster.access, "p")
    secrets = Path(f"/proc/{container_pid(running)}/root/var/run/secrets/kubernetes.io/serviceaccount")
    ask = (
        "import ssl,sys,urllib.request as r; c=ssl.create_default_context(cafile=sys.argv[2]+'/ca.crt');"
        "q=r.Request(sys.argv[1], headers={'Authorization': 'Bearer '+open(sys.argv[2]+'/token').read()});"
        "print(r.urlopen(q, timeout=10, context=c).read().decode())"
    )
    url = f"https://{SERVICE_ADDRESS}/apis"
    assert '"APIGroupList"' in in_network_of(container_pid(running), ask, url, str(secrets))


def test_nothing_outside_the_cluster_can_be_reached(node_cluster: NodeCluster) -> None:
    running = started(node_cluster.access, "p")
    # An unroutable packet fails at once; it is never sent.
    ask = (
        "import socket\ntry:\n socket.create_connection(('192.0.2.250', 9), 5)\n"
        "except OSError as error: print(error.strerror)"
    )
    answer = in_network_of(container_pid(running), ask)
    assert "unreachable" in answer or "No route" in answer


def test_the_api_server_reaches_the_kubelets(node_cluster: NodeCluster) -> None:
    access = node_cluster.access
    for node in node_cluster.nodes:
        assert access.kubectl("get", "--raw", f"/api/v1/nodes/{node.name}/proxy/healthz") == "ok"
    started(access, "p")
    assert access.kubectl("logs", "p") == ""
