"""The mig-manager stand-in with a real kubelet, scheduler and DaemonSet controller."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from tests.cluster.nodes.example import example_scenario
from tests.cluster.nodes.gpus import LOAD_IMAGE, GpuNodes
from tests.cluster.nodes.pods import container_environment, pod, wait_for_pod
from tests.sim.migmanager.manager import CONFIG_LABEL, PAUSED, STATE_LABEL, WEDGE_ANNOTATION

from gpuwaste_agent.simulate.scenario import ScenarioLoad, ScenarioProcess
from gpuwaste_agent.simulate.scenario_file import dump_scenario, load_scenario

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cluster.access import ControlPlane
    from tests.cluster.nodes.cluster import NodeCluster

_NODE = "gpu-node-0"

_CONFIG = """
version: v1
mig-configs:
  as-before: &before
  - {devices: [0], mig-enabled: false}
  - {devices: [1], mig-enabled: true, mig-devices: {3g.40gb: 1, 2g.20gb: 1, 1g.10gb: 1}}
  as-before-again: *before
  sevenths:
  - {devices: all, device-filter: "0x20B210DE", mig-enabled: true, mig-devices: {1g.10gb: 7}}
  too-much:
  - {devices: [1], mig-enabled: true, mig-devices: {4g.40gb: 2}}
"""

_BEFORE = {"nvidia.com/gpu": 1, "nvidia.com/mig-3g.40gb": 1, "nvidia.com/mig-2g.20gb": 1, "nvidia.com/mig-1g.10gb": 1}


@pytest.fixture(scope="module")
def gpus(node_cluster: NodeCluster) -> GpuNodes:
    nodes = GpuNodes(node_cluster, example_scenario(), {}, mig_config=_CONFIG)
    nodes.start()
    return nodes


@pytest.fixture(autouse=True)
def _as_before(node_cluster: NodeCluster, gpus: GpuNodes) -> Iterator[None]:
    yield
    access = node_cluster.access
    access.kubectl("delete", "daemonsets,pods", "--all", "--now", "--wait", timeout_seconds=60)
    # A mig-manager that is still starting applies the label that it finds. So it is given the layout of before
    # (under another name, because only a change of the label starts anything), and only then the file goes back.
    choose(access, "as-before-again" if labels(access).get(CONFIG_LABEL) == "as-before" else "as-before")
    state(access, "success")
    gpus.scenario.write_text(dump_scenario(example_scenario()))
    node = node_cluster.node(_NODE)
    eventually(lambda: gpus.gpus(node), example_scenario().node(_NODE).gpus)
    eventually(lambda: gpus.allocatable(_NODE), _BEFORE)


def labels(access: ControlPlane) -> dict[str, str]:
    found: dict[str, str] = access.get("node", _NODE)["metadata"]["labels"]
    return found


def eventually(look: Callable[[], object], wanted: object, *, deadline_seconds: float = 60.0) -> None:
    deadline = time.monotonic() + deadline_seconds
    while (found := look()) != wanted and time.monotonic() < deadline:
        time.sleep(0.1)
    assert found == wanted


def state(access: ControlPlane, wanted: str) -> None:
    eventually(lambda: labels(access).get(STATE_LABEL), wanted)


def choose(access: ControlPlane, name: str) -> None:
    access.kubectl("label", "node", _NODE, "--overwrite", f"{CONFIG_LABEL}={name}", f"{STATE_LABEL}=none")


def run_on_whole_gpu(gpus: GpuNodes) -> None:
    """Put a process of the host on the GPU with MIG mode off."""
    scenario = load_scenario(gpus.scenario)
    load = (ScenarioLoad(at_s=0, duty=0.5, sm_width=0.5, memory_mib=100),)
    process = ScenarioProcess(pid=4_000_000, parent=scenario.node(_NODE).gpus[0].uuid, load=load)
    nodes = tuple(replace(node, processes=(process,)) if node.name == _NODE else node for node in scenario.nodes)
    gpus.scenario.write_text(dump_scenario(replace(scenario, nodes=nodes)))
    time.sleep(0.5)  # the driver looks at the file five times a second


def daemon_set(name: str, *, app: str, avoids_changes: bool) -> dict[str, Any]:
    """A DaemonSet on the node; with `avoids_changes` it leaves while mig-manager works."""
    template = pod(name, node=_NODE)
    template = {"metadata": {"labels": {"app": app}}, "spec": template["spec"]}
    if avoids_changes:
        expression = {"key": "nvidia.com/gpu.deploy.dcgm-exporter", "operator": "NotIn", "values": [PAUSED]}
        required = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
        template["spec"]["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    spec = {"selector": {"matchLabels": {"app": app}}, "template": template}
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": metadata, "spec": spec}


def daemon_running(access: ControlPlane, app: str) -> bool:
    pods = access.get("pods", "-l", f"app={app}")["items"]
    return [found["status"]["phase"] for found in pods] == ["Running"]


@pytest.mark.smoke
def test_a_layout_is_applied_and_offered(gpus: GpuNodes, node_cluster: NodeCluster) -> None:
    access = node_cluster.access
    choose(access, "sevenths")
    state(access, "success")
    eventually(lambda: gpus.allocatable(_NODE), {"nvidia.com/mig-1g.10gb": 14})
    access.apply(pod("small", limits={"nvidia.com/mig-1g.10gb": 1}))
    held = container_environment(wait_for_pod(access, "small"))["NVIDIA_VISIBLE_DEVICES"]
    instances = {i.uuid for gpu in gpus.gpus(node_cluster.node(_NODE)) for i in gpu.mig or ()}
    assert held in instances
    found = labels(access)
    assert {value for name, value in found.items() if name.startswith("nvidia.com/gpu.deploy.")} == {"true"}
    assert found["nvidia.com/mig-1g.10gb.count"] == "14"
    assert "nvidia.com/mig-3g.40gb.count" not in found


def test_a_layout_that_does_not_fit_leaves_the_gpu_cleared(gpus: GpuNodes, node_cluster: NodeCluster) -> None:
    choose(node_cluster.access, "too-much")
    state(node_cluster.access, "failed")
    eventually(lambda: gpus.allocatable(_NODE), {"nvidia.com/gpu": 1})
    assert gpus.gpus(node_cluster.node(_NODE))[1].mig == ()


def test_pods_are_not_drained_and_a_process_keeps_its_instance(gpus: GpuNodes, node_cluster: NodeCluster) -> None:
    access = node_cluster.access
    gpus.import_load_image()
    access.apply(pod("holder", limits={"nvidia.com/mig-3g.40gb": 1}, image=LOAD_IMAGE, args=["0.5:0.5:100"]))
    wait_for_pod(access, "holder")
    choose(access, "sevenths")
    state(access, "failed")
    assert access.get("pod", "holder")["status"]["phase"] == "Running"
    # Those that nothing used are gone all the same.
    assert [i.profile for i in gpus.gpus(node_cluster.node(_NODE))[1].mig or ()] == ["3g.40gb"]


def test_the_mode_of_a_gpu_in_use_is_not_changed_without_a_reboot(gpus: GpuNodes, node_cluster: NodeCluster) -> None:
    access, node = node_cluster.access, node_cluster.node(_NODE)
    run_on_whole_gpu(gpus)
    choose(access, "sevenths")
    state(access, "failed")
    gpus.stop("migmanager", node)
    gpus.start_mig_manager(node, with_reboot=True)
    try:
        choose(access, "as-before")
        state(access, "success")
        choose(access, "sevenths")
        state(access, "rebooting")
        gpus.scenario.write_text(dump_scenario(example_scenario()))  # the reboot ends the process
        state(access, "success")
    finally:
        gpus.stop("migmanager", node)
        gpus.start_mig_manager(node)


def test_an_unknown_name_fails(gpus: GpuNodes, node_cluster: NodeCluster) -> None:
    choose(node_cluster.access, "no-such-layout")
    state(node_cluster.access, "failed")
    assert gpus.allocatable(_NODE) == _BEFORE


def test_a_wedged_change_stays_pending_until_the_label_changes(gpus: GpuNodes, node_cluster: NodeCluster) -> None:
    access = node_cluster.access
    access.kubectl("annotate", "node", _NODE, f"{WEDGE_ANNOTATION}=true")
    try:
        choose(access, "sevenths")
        state(access, "pending")
        eventually(lambda: gpus.allocatable(_NODE), {})
        time.sleep(2)
        assert labels(access)[STATE_LABEL] == "pending"
        assert labels(access)["nvidia.com/gpu.deploy.device-plugin"] == PAUSED
    finally:
        access.kubectl("annotate", "node", _NODE, f"{WEDGE_ANNOTATION}-")
    # The way out: the old labels and the old name.
    deployed = [f"{name}=true" for name in labels(access) if name.startswith("nvidia.com/gpu.deploy.")]
    access.kubectl("label", "node", _NODE, "--overwrite", *deployed)
    choose(access, "as-before")
    state(access, "success")
    eventually(lambda: gpus.allocatable(_NODE), _BEFORE)


def test_it_waits_for_nvidias_daemons_but_for_no_other(gpus: GpuNodes, node_cluster: NodeCluster) -> None:
    access, node = node_cluster.access, node_cluster.node(_NODE)
    gpus.stop("migmanager", node)
    gpus.start_mig_manager(node, wait_seconds=3)
    try:
        # One that does not leave makes the change fail, and nothing is cut.
        access.apply(daemon_set("stubborn", app="nvidia-dcgm-exporter", avoids_changes=False))
        eventually(lambda: daemon_running(access, "nvidia-dcgm-exporter"), wanted=True)
        choose(access, "sevenths")
        state(access, "failed")
        assert gpus.gpus(node_cluster.node(_NODE))[0].mig is None
        access.kubectl("delete", "daemonset", "stubborn", "--wait")
        # Another's daemon stays and nobody minds.
        access.apply(daemon_set("other", app="other", avoids_changes=False))
        eventually(lambda: daemon_running(access, "other"), wanted=True)
        choose(access, "as-before")
        state(access, "success")
        choose(access, "sevenths")
        state(access, "success")
        assert daemon_running(access, "other")
    finally:
        gpus.stop("migmanager", node)
        gpus.start_mig_manager(node)


def test_a_daemon_that_avoids_the_paused_label_leaves_and_returns(gpus: GpuNodes, node_cluster: NodeCluster) -> None:
    access = node_cluster.access
    access.apply(daemon_set("agent", app="agent", avoids_changes=True))
    eventually(lambda: daemon_running(access, "agent"), wanted=True)
    access.kubectl("annotate", "node", _NODE, f"{WEDGE_ANNOTATION}=true")
    try:
        choose(access, "sevenths")
        eventually(lambda: access.get("pods", "-l", "app=agent")["items"], [])
    finally:
        access.kubectl("annotate", "node", _NODE, f"{WEDGE_ANNOTATION}-")
    choose(access, "as-before")
    deployed = [f"{name}=true" for name in labels(access) if name.startswith("nvidia.com/gpu.deploy.")]
    access.kubectl("label", "node", _NODE, "--overwrite", *deployed)
    eventually(lambda: daemon_running(access, "agent"), wanted=True)
