"""What kube-state-metrics tells of nodes and pods that the API server no longer knows."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import quote

import pytest
from tests.helpers import facts as make
from tests.unit.ingest.prometheus.fakes import END, INIT_REQUESTS, REQUESTS, START, KubeState, matches

from gpuwaste.ingest.prometheus.kube_requests import matchers_of
from gpuwaste.ingest.prometheus.kube_state import KUBE_STATE_METRICS, kube_state_facts
from gpuwaste.model.facts import Requests, requested
from gpuwaste.model.units import HOUR
from gpuwaste.pricing.capacity import Capacity, capacity_of

METRICS = frozenset(
    {
        *KUBE_STATE_METRICS,
        "kube_node_created",
        "kube_node_info",
        "kube_node_labels",
        "kube_node_status_allocatable",
        "kube_pod_init_container_info",
        "kube_pod_init_container_resource_requests",
        "kube_pod_labels",
    }
)


class Told(KubeState):
    def facts(self, kind, known=()):
        found = kube_state_facts(self, start=START, end=END, metrics=METRICS, known=known)
        return [fact for fact in found if fact.kind == kind]


def test_a_node_that_went_ends_when_it_was_last_seen():
    store = Told()
    went = START + timedelta(hours=7, minutes=20)
    for name, until in (("stays", END), ("went", went)):
        store.tell("kube_node_status_capacity", {"node": name, "resource": "nvidia_com_gpu"}, 8, until=until)
    facts = {fact.data.name: fact for fact in store.facts("node")}
    assert (facts["stays"].valid_to, facts["went"].valid_to) == (None, went)
    assert facts["went"].data.gpus == {"nvidia.com/gpu": 8}


def test_amounts_beside_a_gpu_are_no_gpus():
    store = Told()
    for resource, count in (("nvidia_com_gpu", 2), ("nvidia_com_gpumem", 81_920), ("gpu_intel_com_millicores", 1000)):
        store.tell("kube_node_status_capacity", {"node": "a", "resource": resource}, count)
        labels = {"namespace": "ml", "pod": "web", "container": "main", "node": "a", "uid": "u", "resource": resource}
        store.tell("kube_pod_container_resource_requests", labels, count)
    store.tell("kube_pod_start_time", {"namespace": "ml", "pod": "web", "uid": "u"}, START.timestamp())
    (node,), (pod,) = store.facts("node"), store.facts("pod")
    assert node.data.gpus == {"nvidia.com/gpu": 2}
    assert pod.data.containers[0].gpus == {"nvidia.com/gpu": 2}


@pytest.mark.parametrize(
    ("label", "value", "bought"),
    [
        ("label_karpenter_sh_capacity_type", "spot", Capacity.SPOT),
        ("label_eks_amazonaws_com_capacity_type", "SPOT", Capacity.SPOT),
        ("label_cloud_google_com_gke_spot", "true", Capacity.SPOT),
        ("label_kubernetes_azure_com_scalesetpriority", "spot", Capacity.SPOT),
        ("label_cloud_google_com_reservation_name", "r", Capacity.RESERVED),
        ("label_team", "ml", Capacity.UNKNOWN),
    ],
)
def test_how_a_node_is_bought_is_read_from_its_printed_labels(label, value, bought):
    store = Told().tell("kube_node_status_capacity", {"node": "a", "resource": "nvidia_com_gpu"}, 1)
    store.tell("kube_node_labels", {"node": "a", label: value, "label_nvidia_com_gpu_product": "Tesla-T4"})
    (node,) = store.facts("node")
    assert capacity_of(node.data.labels) is bought
    assert node.data.labels["nvidia.com/gpu.product"] == "Tesla-T4"


def test_cpu_and_memory_are_those_of_nodes_with_gpus_and_of_all_pods_there():
    store = Told().node("gpu.a", gpus=8, cores=63.77, memory=2**38).node("gpu-a", cores=64, memory=2**38)
    store.pod("train", "gpu.a", nvidia_com_gpu=2, cpu=1.001, memory=2**33)
    store.pod("logs", "gpu.a", cpu=0.1, memory=64e6)
    store.pod("web", "gpu-a", cpu=4, memory=2**30)
    (node,) = store.facts("node")
    assert (node.data.cpu_milli, node.data.memory_bytes) == (63_770, 2**38)
    asked = {fact.data.name: (fact.data.node, requested(fact.data)) for fact in store.facts("pod")}
    assert asked == {
        "train": ("gpu.a", Requests(cpu_milli=1001, memory_bytes=2**33, gpus={"nvidia.com/gpu": 2})),
        "logs": ("gpu.a", Requests(cpu_milli=100, memory_bytes=64_000_000, gpus={})),
    }


def test_init_containers_run_one_at_a_time_before_the_others_and_sidecars_beside_them():
    store = Told().node("a", gpus=8, cores=64, memory=2**38)
    store.pod("train", "a", cpu=2, memory=1000)
    store.pod("train", "a", metric=INIT_REQUESTS, container="load", cpu=5, memory=100)
    store.pod("train", "a", metric=INIT_REQUESTS, container="check", cpu=1, memory=200)
    store.pod("train", "a", metric=INIT_REQUESTS, container="proxy", cpu=0.5, memory=50)
    for container, policy in (("load", ""), ("check", ""), ("proxy", "Always")):
        labels = {"namespace": "ml", "pod": "train", "uid": "uid-train", "container": container}
        store.tell("kube_pod_init_container_info", {**labels, "restart_policy": policy})
    (pod,) = store.facts("pod")
    assert requested(pod.data) == Requests(cpu_milli=5000, memory_bytes=1050, gpus={})


@pytest.mark.parametrize(
    ("asked", "offered"),
    [({}, (0, 0)), ({"cpu": 1}, (64_000, 0)), ({"memory": 1}, (0, 2**38)), ({"cpu": 1, "memory": 1}, (64_000, 2**38))],
)
def test_a_node_offers_nothing_of_what_no_pod_in_the_store_asks_for(asked, offered):
    """A store that drops these series would else show everything as free."""
    store = Told().node("a", gpus=8, cores=64, memory=2**38).pod("train", "a", nvidia_com_gpu=1, **asked)
    (node,) = store.facts("node")
    assert (node.data.cpu_milli, node.data.memory_bytes) == offered


def test_capacity_stands_for_what_is_not_printed_as_allocatable():
    store = Told().node("a", gpus=8).pod("train", "a", cpu=1)
    store.tell("kube_node_status_capacity", {"node": "a", "resource": "cpu"}, 64)
    (node,) = store.facts("node")
    assert node.data.cpu_milli == 64_000


def test_what_the_api_server_tells_is_not_said_again_and_what_went_on_its_nodes_is():
    store = Told().pod("here", "a", cpu=1).pod("went", "a", cpu=2, until=START + HOUR)
    known = [make.node("a", gpus=8), make.pod("here", on="a", uid="uid-here")]
    (pod,) = store.facts("pod", known=known)
    assert (pod.data.name, pod.valid_to, requested(pod.data).cpu_milli) == ("went", START + HOUR, 2000)
    assert store.facts("node", known=known) == []


def test_a_static_pod_belongs_to_no_workload():
    store = Told().node("a", gpus=8).pod("proxy", "a", cpu=1)
    labels = {"namespace": "ml", "pod": "proxy", "uid": "uid-proxy", "owner_kind": "Node", "owner_name": "a"}
    store.tell("kube_pod_owner", labels)
    assert [fact.data.owner for fact in store.facts("pod")] == [None]
    assert store.facts("owner") == []


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_matchers_of_nodes_fit_into_an_address_and_have_every_node_once(count):
    names = {f"ip-10-0-{number // 250}-{number % 250}.us-west-2.compute.internal" for number in range(count)}
    found = list(matchers_of("node", names))
    assert all(len(quote(one, safe="")) < 5000 for one in found)
    for name in names:
        assert sum(matches({"node": name}, one) for one in found) == 1
    assert not any(matches({"node": "ip-10-0-0-0xus-west-2.compute.internal"}, one) for one in found)


def test_only_of_pods_that_went_every_minute_is_asked_for():
    class Counted(Told):
        asked = ()

        def instant(self, query, *, at):
            self.asked = (*self.asked, *([query.matchers] if "max_over_time" in query.text() else []))
            return super().instant(query, at=at)

    store = Counted().pod("here", "a", cpu=1).pod("went", "a", cpu=2, until=START + 7 * HOUR)
    known = [make.node("a", gpus=8)]
    ends = {fact.data.name: fact.valid_to for fact in store.facts("pod", known=known)}
    assert ends == {"here": None, "went": START + 7 * HOUR}
    assert set(store.asked) == {('uid=~"uid-went"',)}


def test_ends_are_told_by_requests_where_the_store_has_nothing_else():
    store = Told().node("a", gpus=8)
    for name, until in (("here", END), ("went", START + 7 * HOUR)):
        labels = {"namespace": "ml", "pod": name, "uid": f"uid-{name}"}
        store.tell("kube_pod_start_time", labels, START.timestamp())
        store.tell(REQUESTS, {**labels, "container": "main", "node": "a", "resource": "cpu"}, 1, until=until)
    found = kube_state_facts(store, start=START, end=END, metrics=METRICS - {"kube_pod_info"})
    ends = {fact.data.name: fact.valid_to for fact in found if fact.kind == "pod"}
    assert ends == {"here": None, "went": START + 7 * HOUR}


def test_pods_are_found_where_a_scrape_renamed_their_labels():
    """Without `honor_labels` the names of kube-state-metrics' own pod stand in their place."""
    store = Told().node("a", gpus=8).pod("train", "a", nvidia_com_gpu=1, cpu=1)
    store.pod("went", "a", cpu=2, until=START + 7 * HOUR)
    own = {"namespace": "monitoring", "pod": "kube-state-metrics-0", "container": "kube-state-metrics"}
    for number, (metric, labels, value, until) in enumerate(store.series):
        moved = {f"exported_{name}": labels[name] for name in own if name in labels}
        store.series[number] = (metric, {**labels, **moved, **own}, value, until)
    pods = {(fact.data.namespace, fact.data.name): fact for fact in store.facts("pod")}
    assert set(pods) == {("ml", "train"), ("ml", "went")}
    assert pods["ml", "went"].valid_to == START + 7 * HOUR
    assert requested(pods["ml", "train"].data) == Requests(cpu_milli=1000, memory_bytes=0, gpus={"nvidia.com/gpu": 1})


@pytest.mark.parametrize("nodes", [("", "a"), ("a", "")])
def test_a_pod_is_on_its_node_although_it_waited_for_one(nodes):
    """While it waits its series name no node; a store answers with both, in any order."""
    store = Told().node("a", gpus=8)
    for node in nodes:
        store.pod("train", node, nvidia_com_gpu=1)
    assert [fact.data.node for fact in store.facts("pod")] == ["a"]
