"""Why a node has no agent, and who owns sharing."""

import pytest

from gpuwaste.ledger.store import open_store
from gpuwaste.runtime.doctor.checks import check_store
from gpuwaste.runtime.doctor.nodes import agent_findings, why_no_agent
from gpuwaste.runtime.doctor.sharing import sharing_findings


def node(name="gpu-a", *, labels=None, taints=()):
    return {"metadata": {"name": name, "labels": labels or {}}, "spec": {"taints": list(taints)}}


def daemon_set(name="gpuwaste-agent", image="gpuwaste-agent:1", **spec):
    template = {"spec": {"containers": [{"name": "main", "image": image}], **spec}}
    return {"metadata": {"name": name, "namespace": "gpuwaste"}, "spec": {"template": template}}


def pod(node_name="gpu-a", *, phase="Running", ready="True", **status):
    conditions = [{"type": "Ready", "status": ready}, *status.pop("conditions", ())]
    return {
        "metadata": {"name": "agent-x", "namespace": "gpuwaste"},
        "spec": {"nodeName": node_name},
        "status": {"phase": phase, "conditions": conditions, **status},
    }


TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
AFFINITY = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [
                {"matchExpressions": [{"key": "pool", "operator": "In", "values": ["gpu"]}]},
            ]
        }
    }
}
WAITING = {"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such\nimage"}}}]}
UNSCHEDULED = {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes: Insufficient cpu"}]}


@pytest.mark.parametrize(
    ("node_", "daemon_set_", "pod_", "why"),
    [
        (node(), daemon_set(), pod(), None),
        (node(), daemon_set(nodeSelector={"gpu": "yes"}), None, "its nodeSelector wants gpu=yes"),
        (node(taints=[TAINT]), daemon_set(), None, "does not tolerate the taint nvidia.com/gpu=present:NoSchedule"),
        (node(taints=[TAINT]), daemon_set(tolerations=[{"operator": "Exists"}]), None, "has made no pod yet"),
        (node(), daemon_set(affinity=AFFINITY), None, "node affinity leaves the node out"),
        (node(labels={"pool": "gpu"}), daemon_set(affinity=AFFINITY), None, "has made no pod yet"),
        (
            node(labels={"nvidia.com/gpu.deploy.dcgm-exporter": "paused-for-mig-change"}),
            daemon_set(),
            None,
            "mig-manager changes the node's layout",
        ),
        (node(), daemon_set(), pod(ready="False", **WAITING), "is in ImagePullBackOff: no such image"),
        (node(), daemon_set(), pod(phase="Pending", ready="False", **UNSCHEDULED), "not scheduled: 0/3 nodes"),
        (node(), daemon_set(), pod(ready="False"), "is Running and not ready"),
    ],
)
def test_why_a_node_has_no_agent(node_, daemon_set_, pod_, why):
    found = why_no_agent(node_, daemon_set_, pod_)
    if why is None:
        assert found is None
    else:
        assert why in found[0]
        assert found[1]


def test_nodes_with_the_same_reason_are_one_finding():
    nodes = [node(f"gpu-{i}", taints=[TAINT]) for i in range(5)] + [node("gpu-9")]
    good, bad = agent_findings(nodes, [daemon_set()], [pod("gpu-9")])
    assert (good.state, good.message) == ("ok", "an agent runs on 1 of 6 nodes")
    assert bad.state == "failed"
    assert "gpu-0, gpu-1, gpu-2 and 2 more" in bad.message


def test_a_pod_that_runs_counts_before_those_that_ended():
    evicted = pod(phase="Failed", ready="False")
    for pods in ([evicted, pod()], [pod(), evicted]):
        (found,) = agent_findings([node()], [daemon_set()], pods)
        assert (found.state, found.message) == ("ok", "an agent runs on 1 of 1 nodes")


def test_a_pod_that_finds_no_room_is_found_by_the_node_it_was_made_for():
    waiting = pod("", phase="Pending", ready="False", **UNSCHEDULED)
    field = {"key": "metadata.name", "operator": "In", "values": ["gpu-a"]}
    required = {"nodeSelectorTerms": [{"matchFields": [field]}]}
    waiting["spec"]["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    (found,) = agent_findings([node()], [daemon_set()], [waiting])
    assert found.message == "no agent on gpu-a: its pod is not scheduled: 0/3 nodes: Insufficient cpu"


def test_of_two_daemon_sets_that_counts_which_the_node_is_meant_for():
    other = daemon_set("agent-arm", nodeSelector={"kubernetes.io/arch": "arm64"})
    for both in ([other, daemon_set()], [daemon_set(), other]):
        (found,) = agent_findings([node()], both, [])
        assert "has made no pod yet" in found.message


def test_without_a_daemon_set_there_is_a_way_to_begin():
    (found,) = agent_findings([node()], [], [])
    assert (found.state, "gpuwaste scan" in found.fix) == ("warning", True)
    assert agent_findings([], [], [])[0].state == "info"


def test_owners_of_sharing_and_mig_are_named():
    policy = {"spec": {"mig": {"strategy": "mixed"}, "devicePlugin": {"config": {"name": "plugin-configs"}}}}
    nodes = [
        node("a", labels={"nvidia.com/device-plugin.config": "ts4", "nvidia.com/mig.config": "all-balanced"}),
        node("b", labels={"cloud.google.com/gke-gpu-sharing-strategy": "time-sharing"}),
        node("c", labels={"nvidia.com/mig.config.state": "failed"}),
    ]
    daemons = [
        daemon_set("nvidia-device-plugin-daemonset", "images.invalid/nvidia/k8s-device-plugin:v0.20"),
        daemon_set("hami-device-plugin", "hami:2"),
    ]
    owners = {"NVIDIA's gpu-operator": [policy], "KAI Scheduler": []}
    found = sharing_findings(nodes, daemons, owners)
    text = " | ".join(one.message for one in found)
    for words in (
        "MIG strategy mixed, device plugin configured by ConfigMap plugin-configs",
        "KAI Scheduler is installed",
        "NVIDIA's device plugin",
        "HAMi",
        "GKE owns sharing and MIG on 1 nodes",
        "ts4 on 1",
        "all-balanced on 1",
        "the MIG layout of c is failed",
        "KAI Scheduler and HAMi share GPUs",
    ):
        assert words in text
    assert {one.state for one in found} == {"info", "failed", "warning"}


def test_a_store_is_tried_and_left_as_it_was(tmp_path):
    found = check_store(open_store(str(tmp_path)), str(tmp_path))
    assert found[0].state == "ok"
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_cannot_be_written_is_a_failure(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    (found,) = check_store(open_store(f"{blocked}/store"), f"{blocked}/store")
    assert (found.check, found.state) == ("storage", "failed")
    assert found.fix
