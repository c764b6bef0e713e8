"""Loads of real pods on the simulated driver, asked by an unmodified pynvml."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.cluster.nodes.gpus import LOAD_IMAGE
from tests.cluster.nodes.pods import container_pid, pod, wait_for_pod

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.nodes.cluster import NodeCluster
    from tests.cluster.nodes.gpus import GpuNodes
    from tests.cluster.nodes.node import Node

# Every process on every GPU and MIG device of the node: its PID, its parent and the memory it holds.
_ASK = """
import json, pynvml as n
n.nvmlInit()
found = []
for i in range(n.nvmlDeviceGetCount()):
    gpu = n.nvmlDeviceGetHandleByIndex(i)
    parents = [gpu]
    try:
        if n.nvmlDeviceGetMigMode(gpu)[0]:
            parents = []
            for j in range(n.nvmlDeviceGetMaxMigDeviceCount(gpu)):
                try:
                    parents.append(n.nvmlDeviceGetMigDeviceHandleByIndex(gpu, j))
                except n.NVMLError_NotFound:
                    pass
    except n.NVMLError_NotSupported:
        pass
    for parent in parents:
        for process in n.nvmlDeviceGetComputeRunningProcesses(parent):
            found.append([process.pid, n.nvmlDeviceGetUUID(parent), process.usedGpuMemory >> 20])
print(json.dumps(sorted(found)))
"""


@pytest.fixture(autouse=True)
def _no_pods_left(node_cluster: NodeCluster) -> Iterator[None]:
    yield
    node_cluster.access.kubectl("delete", "pods", "--all", "--now", "--wait", timeout_seconds=60)


def processes(gpus: GpuNodes, node: Node) -> list[list[Any]]:
    """What NVML answers on the host of a node."""
    environment = {**os.environ, **gpus.driver_environment(node)}
    argv = [sys.executable, "-c", _ASK]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=30, check=True)
    return list(json.loads(done.stdout))


def eventually_on(gpus: GpuNodes, node: Node, wanted: list[list[Any]]) -> None:
    deadline = time.monotonic() + 15
    while (found := processes(gpus, node)) != wanted and time.monotonic() < deadline:
        time.sleep(0.2)
    assert found == wanted


@pytest.mark.smoke
def test_the_load_of_a_pod_is_seen_under_its_real_pid(gpu_nodes: GpuNodes, node_cluster: NodeCluster) -> None:
    access = node_cluster.access
    gpu_nodes.import_load_image()
    wanted = [("whole", {"nvidia.com/gpu": 1}, 2000), ("slice", {"nvidia.com/mig-2g.20gb": 1}, 500)]
    running = {}
    for name, limits, memory_mib in wanted:
        args = [f"0.7:0.5:{memory_mib}"]
        access.apply(pod(name, limits=limits, image=LOAD_IMAGE, args=args, node="gpu-node-0"))
        running[name] = wait_for_pod(access, name)
    node = node_cluster.node("gpu-node-0")
    whole, cut = example_gpus = gpu_nodes.gpus(node)
    assert len(example_gpus) == 2
    instance = next(i.uuid for i in cut.mig or () if i.profile == "2g.20gb")
    pids = {name: container_pid(found) for name, found in running.items()}
    eventually_on(gpu_nodes, node, sorted([[pids["whole"], whole.uuid, 2000], [pids["slice"], instance, 500]]))
    # However it ends, the driver sees it go.
    access.kubectl("delete", "pod", "whole", "--now", "--wait")
    eventually_on(gpu_nodes, node, [[pids["slice"], instance, 500]])


def test_only_containers_with_a_gpu_find_the_driver(gpu_nodes: GpuNodes, node_cluster: NodeCluster) -> None:
    access = node_cluster.access
    access.apply(pod("with", limits={"nvidia.com/gpu": 1}), pod("without"))
    library = "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1"
    roots = {name: Path(f"/proc/{container_pid(wait_for_pod(access, name))}/root") for name in ("with", "without")}
    assert (roots["with"] / library).stat().st_size == (gpu_nodes.driver / "libnvidia-ml.so.1").stat().st_size
    assert (roots["with"] / "run/gpuwaste-sim/nvml.state").exists()
    assert not (roots["without"] / library).exists()
