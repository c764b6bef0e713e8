"""What kube-state-metrics tells of nodes and pods that the API server no longer knows."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from tests.unit.ingest.prometheus.fakes import START

from gpuwaste.ingest.prometheus.kube_state import KUBE_STATE_METRICS, kube_state_facts
from gpuwaste.ingest.prometheus.store import Sample
from gpuwaste.model.units import HOUR
from gpuwaste.pricing.capacity import Capacity, capacity_of

END = START + 24 * HOUR
_METRIC = re.compile(r"(kube_\w+)\{")
METRICS = frozenset({*KUBE_STATE_METRICS, "kube_node_labels", "kube_node_created", "kube_node_info", "kube_pod_labels"})


class Told:
    """Answers of a store to instant queries: the last value of every series, and when it was last seen."""

    address = "http://prometheus.test"
    warnings = ()
    clock_skew_seconds = 0.0

    def __init__(self):
        self.series = []

    def tell(self, metric, labels, value=1.0, *, until=END):
        self.series.append((metric, labels, value, until))
        return self

    def instant(self, query, *, at):
        text = query.text()
        name = _METRIC.search(text)[1]
        when = "timestamp(" in text
        return [
            Sample(labels=labels, value=until.timestamp() if when else value)
            for metric, labels, value, until in self.series
            if metric == name and until > at - timedelta(hours=6)
        ]

    def facts(self, kind):
        found = kube_state_facts(self, start=START, end=END, metrics=METRICS)
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
