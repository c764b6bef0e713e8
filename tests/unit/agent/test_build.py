"""The made-up cluster: the same for a seed, and its Kubernetes objects agree with its scenario."""

from __future__ import annotations

from collections import Counter

import pytest

from gpuwaste_agent.simulate.build import build_cluster
from gpuwaste_agent.simulate.objects import kubernetes_objects
from gpuwaste_agent.simulate.scenario import FOREVER
from gpuwaste_agent.simulate.truth import true_parents

START, DAY = 1_767_225_600, 86_400


@pytest.fixture(scope="module")
def cluster():
    return build_cluster(nodes=12, start_unix_s=START, length_s=DAY, seed=1)


@pytest.fixture(scope="module")
def objects(cluster):
    return list(kubernetes_objects(cluster))


def test_a_seed_gives_the_same_cluster_and_another_gives_another(cluster, objects):
    again = build_cluster(nodes=12, start_unix_s=START, length_s=DAY, seed=1)
    assert again == cluster
    assert list(kubernetes_objects(again)) == objects
    assert build_cluster(nodes=12, start_unix_s=START, length_s=DAY, seed=2) != cluster


def test_it_is_mixed_and_about_as_large_as_promised(cluster):
    gpus = [gpu for node in cluster.scenario.nodes for gpu in node.gpus]
    pods = [pod for workload in cluster.workloads for pod in workload.pods]
    assert 45 <= len(gpus) <= 55
    assert 70 <= len(pods) <= 130
    assert {gpu.strategy for gpu in gpus} == {"none", "time-slicing"}
    assert any(gpu.mig for gpu in gpus)
    assert len({gpu.product for gpu in gpus}) >= 6
    assert {workload.kind for workload in cluster.workloads} == {"Deployment", "StatefulSet", "Job"}


@pytest.mark.parametrize("seed", range(1, 6))
def test_load_is_as_studies_report_it(seed):
    """Most GPUs idle or lightly used, a few busy; some free; something begins and something ends in the day."""
    cluster = build_cluster(nodes=12, start_unix_s=START, length_s=DAY, seed=seed)
    truths = {}
    for node in cluster.scenario.nodes:
        truths |= true_parents(node, 0, DAY)
    duties = sorted(truth.duty_s / DAY for truth in truths.values())
    assert sum(duty < 0.3 for duty in duties) > len(duties) / 2
    assert sum(duty > 0.6 for duty in duties) >= 3
    pods = [pod for workload in cluster.workloads for pod in workload.pods]
    held = {device for pod in pods for device in pod.devices}
    slices = {s for node in cluster.scenario.nodes for gpu in node.gpus for s in gpu.slice_ids()}
    assert 0.05 < 1 - len(held) / len(slices) < 0.3
    assert any(pod.from_s > 0 for pod in pods)
    assert any(pod.until_s < FOREVER for pod in pods)


def test_pods_hold_what_they_ask_for_on_their_node(cluster, objects):
    containers = {(c.namespace, c.pod): (node.name, c) for node in cluster.scenario.nodes for c in node.containers}
    pods = [value for value in objects if value["kind"] == "Pod"]
    assert len(pods) == len(containers)
    for pod in pods:
        node, container = containers[pod["metadata"]["namespace"], pod["metadata"]["name"]]
        assert pod["metadata"]["uid"] == container.pod_uid
        assert pod["spec"]["nodeName"] == node
        limits = pod["spec"]["containers"][0]["resources"]["limits"]
        assert limits == {container.resource: str(len(container.devices))}
        status = pod["status"]["containerStatuses"][0]
        assert status["containerID"] == f"containerd://{container.container_id}"
        assert pod["status"]["phase"] == ("Succeeded" if container.until_s < FOREVER else "Running")


def test_owners_lead_to_a_workload_and_names_are_unique(objects):
    uids = {value["metadata"]["uid"]: value for value in objects}
    assert len(uids) == len(objects)
    names = Counter((v["kind"], v["metadata"].get("namespace"), v["metadata"]["name"]) for v in objects)
    assert max(names.values()) == 1
    for value in objects:
        for owner in value["metadata"].get("ownerReferences", ()):
            assert uids[owner["uid"]]["metadata"]["name"] == owner["name"]
            assert uids[owner["uid"]]["kind"] == owner["kind"]


def test_nodes_advertise_their_slices(cluster, objects):
    nodes = {value["metadata"]["name"]: value for value in objects if value["kind"] == "Node"}
    for planned in cluster.nodes:
        node = nodes[planned.scenario.name]
        advertised = sum(int(v) for k, v in node["status"]["allocatable"].items() if k.startswith("nvidia.com/"))
        assert advertised == sum(len(gpu.slice_ids()) for gpu in planned.scenario.gpus)
        assert node["metadata"]["labels"]["nvidia.com/gpu.count"] == str(len(planned.scenario.gpus))
        assert node["spec"]["providerID"]


def test_requests_fit_the_nodes(cluster, objects):
    """The scheduler could have placed the pods where they are."""
    used: Counter[str] = Counter()
    for value in objects:
        if value["kind"] == "Pod" and value["status"]["phase"] == "Running":
            cpu = value["spec"]["containers"][0]["resources"]["requests"]["cpu"]
            used[value["spec"]["nodeName"]] += int(cpu.removesuffix("m"))
    for node in cluster.nodes:
        assert used[node.scenario.name] <= node.kind.cpus * 1000 - 200
