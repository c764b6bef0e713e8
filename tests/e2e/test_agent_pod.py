"""The product as people run it: helm, real pods on real nodes, and what they do with simulated GPUs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.cluster.errors import MissingToolsError
from tests.cluster.nodes.gpus import LOAD_IMAGE, GpuNodes
from tests.cluster.nodes.pods import claim_template, pod, wait_for_pod
from tests.cluster.pytest_support import reporter, skip_or_fail
from tests.e2e.product import NAMESPACE, WINDOW_SECONDS, agent_pod, install, product_scenario, usage
from tests.sim.dra.slices import DRIVER
from tests.sim.migmanager.manager import CONFIG_LABEL, STATE_LABEL

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

_LAYOUTS = """
version: v1
mig-configs:
  as-before:
  - {devices: [0], mig-enabled: false}
  - {devices: [1], mig-enabled: true, mig-devices: {3g.40gb: 1, 2g.20gb: 1, 1g.10gb: 1}}
  sevenths:
  - {devices: all, mig-enabled: true, mig-devices: {1g.10gb: 7}}
"""


@pytest.fixture(scope="module")
def product(node_cluster: NodeCluster, pytestconfig: pytest.Config) -> GpuNodes:
    """Two nodes with GPUs, operator and agents."""
    gpus = GpuNodes(node_cluster, product_scenario(), {"shared": _SHARED}, mig_config=_LAYOUTS)
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
    windows = usage(node_cluster, "gpu-node-0", "trainer", since_ns=time.time_ns())
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
    since_ns = time.time_ns()
    for profile, (duty, width) in loads.items():
        windows = usage(node_cluster, "gpu-node-0", f"p-{profile.replace('.', '-')}", since_ns=since_ns)
        assert seconds(windows, "sm") == pytest.approx(duty * width, rel=0.02), profile
        # Its own activity tells the instance's duty.
        assert seconds(windows, "duty") == pytest.approx(duty, rel=0.02), profile


@pytest.mark.timeout(240, func_only=True)
def test_pods_with_resource_claims(node_cluster: NodeCluster, product: GpuNodes) -> None:
    access, node = node_cluster.access, "gpu-node-0"
    # Names that tell nothing: only the ResourceSlices say what is claimed.
    product.start_dra(node_cluster.node(node), named="accelerator")
    try:
        loads = {"claims-gpu": ("gpu", 0.8, 0.25), "claims-slice": ("mig", 0.4, 0.75)}
        for name, (kind, duty, width) in loads.items():
            chosen = f"device.attributes['{DRIVER}'].profile == '2g.20gb'" if kind == "mig" else None
            access.apply(claim_template(kind, device_class=f"{kind}.nvidia.com", expression=chosen))
            load = [f"{duty}:{width}:500"]
            access.apply(pod(name, claims={"device": kind}, image=LOAD_IMAGE, args=load, node=node))
        pods = {name: wait_for_pod(access, name) for name in loads}
        since_ns = time.time_ns()
        for name, (_, duty, width) in loads.items():
            running = pods[name]
            windows = usage(node_cluster, node, name, since_ns=since_ns)
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
    total_duty = sum(duty for duty, _ in loads.values())
    together = sum(duty * width for duty, width in loads.values())  # of the SMs, as GPM counts them on the whole GPU
    for name, (duty, width) in loads.items():
        started(node_cluster, name, f"{duty}:{width}:1000", resource="nvidia.com/gpu", node=_SHARED_NODE)
    since_ns = time.time_ns()
    for name, (duty, width) in loads.items():
        windows = usage(node_cluster, _SHARED_NODE, name, since_ns=since_ns)
        assert seconds(windows, "duty") == pytest.approx(duty, rel=0.02), name
        for each in windows:
            quality = each["figures"]["sm_quality"]
            low, high = (quality[end] / (WINDOW_SECONDS * _NS) for end in ("low", "high"))
            assert low <= duty * width <= high, name
            # What one cannot have done while the other was not resident, and what its own duty allows.
            assert low == pytest.approx(max(0.0, together - (total_duty - duty)), rel=0.02, abs=0.01), name
            assert high == pytest.approx(min(together, duty), rel=0.02), name


def lay_out(cluster: NodeCluster, gpus: GpuNodes, name: str, offered: dict[str, int]) -> None:
    """Have mig-manager cut up the GPUs of the first node, and wait until they are offered and the agent is back."""
    access = cluster.access
    access.kubectl("label", "node", "gpu-node-0", "--overwrite", f"{CONFIG_LABEL}={name}", f"{STATE_LABEL}=none")
    deadline = time.monotonic() + 90
    while True:
        labels = access.get("node", "gpu-node-0")["metadata"]["labels"]
        if labels[STATE_LABEL] == "success" and gpus.allocatable("gpu-node-0") == offered:
            break
        assert labels[STATE_LABEL] != "failed", labels
        assert time.monotonic() < deadline, (labels, gpus.allocatable("gpu-node-0"))
        time.sleep(0.3)
    access.kubectl(
        "rollout", "status", "daemonset/gpuwaste-agent", "-n", NAMESPACE, "--timeout=60s", timeout_seconds=70
    )


@pytest.mark.timeout(300, func_only=True)
def test_the_agent_makes_way_for_a_new_layout_and_measures_it(node_cluster: NodeCluster, product: GpuNodes) -> None:
    before = agent_pod(node_cluster, "gpu-node-0")["metadata"]["uid"]
    try:
        # MIG mode of the first GPU changes too, which no client of the driver survives: it would fail with the agent.
        lay_out(node_cluster, product, "sevenths", {"nvidia.com/mig-1g.10gb": 14})
        assert agent_pod(node_cluster, "gpu-node-0")["metadata"]["uid"] != before
        started(node_cluster, "small", "0.5:0.6:300", resource="nvidia.com/mig-1g.10gb", node="gpu-node-0")
        windows = usage(node_cluster, "gpu-node-0", "small", since_ns=time.time_ns())
        assert seconds(windows, "duty") == pytest.approx(0.5, rel=0.02)
        assert seconds(windows, "sm") == pytest.approx(0.3, rel=0.02)
    finally:
        node_cluster.access.kubectl("delete", "pods", "--all", "--now", "--wait", timeout_seconds=60)
        whole = {"nvidia.com/gpu": 1, **{f"nvidia.com/mig-{each}": 1 for each in ("3g.40gb", "2g.20gb", "1g.10gb")}}
        lay_out(node_cluster, product, "as-before", whole)
