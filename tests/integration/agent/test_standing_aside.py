"""The agent's DaemonSet leaves a node to mig-manager, by the DaemonSet controller alone: no operator of ours runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from tests.integration.agent.test_processes import wait_for

if TYPE_CHECKING:
    from tests.cluster.access import ControlPlane

CHART = Path(__file__).parents[3] / "charts" / "gpuwaste"
NODES = ("gpu-a", "gpu-b")
LABEL = "nvidia.com/gpu.deploy.dcgm-exporter"


def node(name: str) -> dict:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"nvidia.com/gpu.present": "true"}},
    }


def ready(access: ControlPlane, name: str) -> None:
    """Stand for the kubelet: the node takes pods."""
    room = {"cpu": "8", "memory": "16Gi", "pods": "20"}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "stand-in"}
    status = {"capacity": room, "allocatable": room, "conditions": [ready]}
    access.api().merge(f"/api/v1/nodes/{name}/status", {"status": status})


def agents(access: ControlPlane) -> set[str]:
    """Nodes with an agent that is to stay; what is to end there ends, as the kubelet would end it."""
    names = set()
    for pod in access.get("pods", "-n", "aside", "-l", "app.kubernetes.io/component=agent")["items"]:
        if "deletionTimestamp" in pod["metadata"]:
            access.kubectl("delete", "pod", "-n", "aside", pod["metadata"]["name"], "--force", "--grace-period=0")
        else:
            names.add(pod["spec"].get("nodeName", ""))
    return names


def test_a_paused_label_takes_the_agent_away_and_its_end_brings_it_back(managed_control_plane: ControlPlane) -> None:
    access = managed_control_plane
    access.kubectl("create", "namespace", "aside")
    drawn = access.helm("template", "gw", str(CHART), "--namespace", "aside", "--set", "crds.enabled=false")
    wanted = [
        each
        for each in yaml.safe_load_all(drawn)
        if each and each["kind"] in ("DaemonSet", "ServiceAccount") and "agent" in each["metadata"]["name"]
    ]
    try:
        access.apply(*(node(name) for name in NODES), *wanted)
        for name in NODES:
            ready(access, name)
        wait_for(lambda: agents(access) == set(NODES), 60)
        access.kubectl("label", "node", "gpu-a", f"{LABEL}=paused-for-mig-change")
        wait_for(lambda: agents(access) == {"gpu-b"}, 60)
        access.kubectl("label", "node", "gpu-a", "--overwrite", f"{LABEL}=true")
        wait_for(lambda: agents(access) == set(NODES), 60)
    finally:
        access.kubectl("delete", "node", *NODES, "--ignore-not-found")
        access.kubectl("delete", "namespace", "aside", "--wait=false")
