"""Facts from kube-state-metrics: pods, nodes and namespaces, also those that the API server no longer knows.

Owners have no UID there; `name:<namespace>/<kind>/<name>` stands for it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from gpuwaste.ingest.prometheus.kube_ask import POD, Asker, key_of, pod_of
from gpuwaste.ingest.prometheus.kube_requests import (
    GPU_RESOURCES,
    REQUESTS,
    matchers_of,
    offered,
    read_requests,
    resource_of,
)
from gpuwaste.model.facts import Fact, NamespaceData, NodeData, OwnerData, OwnerRef, PodData
from gpuwaste.model.printed import printed_label
from gpuwaste.model.resources import counts_gpus
from gpuwaste.model.units import from_unix_ns

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from gpuwaste.ingest.prometheus.kube_ask import Key, PodName
    from gpuwaste.ingest.prometheus.kube_requests import PodRequests
    from gpuwaste.ingest.prometheus.store import MetricStore

__all__ = ["KUBE_STATE_METRICS", "kube_state_facts"]

KUBE_STATE_METRICS: dict[str, str] = {
    REQUESTS: "which pods hold GPUs, CPU and memory",
    "kube_pod_info": "UID and node of pods that are gone",
    "kube_pod_owner": "the workload of pods that are gone",
    "kube_pod_start_time": "since when pods hold",
    "kube_node_status_capacity": "how many GPUs and slices nodes offer",
}
"""What is needed of kube-state-metrics, and what for."""

_API = {
    "ReplicaSet": "apps/v1",
    "Deployment": "apps/v1",
    "StatefulSet": "apps/v1",
    "DaemonSet": "apps/v1",
    "Job": "batch/v1",
    "CronJob": "batch/v1",
    "ReplicationController": "v1",
}
_SEEN_SLACK = timedelta(minutes=3)
_MANY_NAMESPACES = 40


def kube_state_facts(
    store: MetricStore, *, start: datetime, end: datetime, metrics: frozenset[str], known: Iterable[Fact] = ()
) -> list[Fact]:
    """Facts of a stretch of time that the API server does not tell any more, sorted by key.

    Pods are those that ask for GPUs, and on nodes with GPUs those that ask for CPU or memory. Of these two a node
    offers something only where the store has requests of it: without them everything would seem free.

    Args:
        store: where to ask.
        start: of the stretch.
        end: of the stretch; a day at most, for stores limit how much one query reads.
        metrics: names of the metrics that the store has.
        known: facts that are known already, better; what they tell is not said again.
    """
    asker = Asker(store, start, end, metrics)
    have = _Known.of(known)
    capacity = _capacity(asker)
    requests = read_requests(asker, capacity.keys() | have.gpu_nodes)
    nodes = _nodes(
        asker, start, end, {name: gpus for name, gpus in capacity.items() if name not in have.nodes}, requests
    )
    pods = _pods(asker, end, requests.without(have.pods), have)
    owners = _owners(asker, start, pods, have)
    spaces = _namespaces(asker, start, {fact.data.namespace for fact in pods if isinstance(fact.data, PodData)}, have)
    return sorted([*nodes, *pods, *owners, *spaces], key=lambda fact: fact.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What need not be said again: UIDs of pods, names of the rest, and UIDs of owners by name."""

    pods: frozenset[str]
    nodes: frozenset[str]
    gpu_nodes: frozenset[str]
    namespaces: frozenset[str]
    owners: Mapping[tuple[str, str, str], str]

    @classmethod
    def of(cls, facts: Iterable[Fact]) -> _Known:
        facts = list(facts)
        owners = {
            (fact.data.namespace, fact.data.kind, fact.data.name): fact.uid
            for fact in facts
            if isinstance(fact.data, OwnerData)
        }
        return cls(
            pods=frozenset(fact.uid for fact in facts if isinstance(fact.data, PodData)),
            nodes=frozenset(fact.data.name for fact in facts if isinstance(fact.data, NodeData)),
            gpu_nodes=frozenset(
                f.data.name for f in facts if isinstance(f.data, NodeData) and any(f.data.gpus.values())
            ),
            namespaces=frozenset(fact.data.name for fact in facts if isinstance(fact.data, NamespaceData)),
            owners=owners,
        )

    def owner(self, namespace: str, kind: str, name: str) -> OwnerRef:
        uid = self.owners.get((namespace, kind, name)) or f"name:{namespace}/{kind}/{name}"
        return OwnerRef(api_version=_API.get(kind, "v1"), kind=kind, name=name, uid=uid)


@dataclass(frozen=True, slots=True, kw_only=True)
class _PodTimes:
    """Unix seconds by pod and UID; old versions of kube-state-metrics print the UID on `kube_pod_info` alone."""

    started: Mapping[Key, float]
    completed: Mapping[Key, float]
    last_seen: Mapping[Key, float]

    def start(self, pod: PodName, uid: str) -> datetime | None:
        seconds = self.started.get((pod, uid)) or self.started.get((pod, ""))
        return None if seconds is None else _time(seconds)

    def end(self, pod: PodName, uid: str, *, read_to: datetime) -> datetime | None:
        """Its completion, else its last sample; a pod that was seen to the end of the stretch runs on."""
        completed = self.completed.get((pod, uid)) or self.completed.get((pod, ""))
        if completed:
            return _time(completed)
        seconds = self.last_seen.get((pod, uid)) or self.last_seen.get((pod, ""))
        last = None if seconds is None else _time(seconds)
        return None if last is None or last >= read_to - _SEEN_SLACK else last


def _pods(asker: Asker, end: datetime, requests: PodRequests, have: _Known) -> list[Fact]:
    if not requests.containers:
        return []
    there = _namespace_matcher({requests.label_of[key] for key in requests.containers})
    info = [sample.labels for sample in asker.last("kube_pod_info", f"{POD}, uid, node", there)]
    uid_of = {pod: uid for pod, uid in map(key_of, info) if uid}
    node_of = {key_of(labels): labels["node"] for labels in info if labels.get("node")}
    completed = {key_of(s.labels): s.value for s in asker.last("kube_pod_completion_time", f"{POD}, uid", there)}
    running = {(pod, said or uid_of.get(pod, "")) for pod, said in requests.containers} - completed.keys()
    times = _PodTimes(
        started={key_of(s.labels): s.value for s in asker.last("kube_pod_start_time", f"{POD}, uid", there)},
        completed=completed,
        last_seen=_last_seen(asker, running, there),
    )
    owner_of = _pod_owners(asker, have, there)
    labels_of = {pod_of(s.labels): _prefixed(s.labels) for s in asker.whole("kube_pod_labels", there)}
    facts = []
    for pod, said in sorted(requests.containers):
        uid = said or uid_of.get(pod, "")
        start, stop = times.start(pod, uid), times.end(pod, uid, read_to=end)
        if uid in have.pods or start is None or (stop is not None and stop <= start):
            continue
        data = PodData(
            namespace=pod.namespace,
            name=pod.name,
            node=requests.node_of[pod, said] or node_of.get((pod, uid), ""),
            labels=labels_of.get(pod, {}),
            owner=owner_of.get(pod),
            containers=requests.of((pod, said)),
        )
        unique = uid or f"name:{pod.namespace}/{pod.name}"
        facts.append(Fact(kind="pod", uid=unique, valid_from=start, valid_to=stop, data=data))
    return facts


def _last_seen(asker: Asker, pods: set[Key], there: str) -> dict[Key, float]:
    """When pods had their last sample; only of those that are gone every minute is looked at."""
    by = f"{POD}, uid"
    # One series a pod; a store that lacks it has at least several of each.
    name = "kube_pod_info" if "kube_pod_info" in asker.metrics else REQUESTS
    found = {key_of(s.labels): s.value for s in asker.newest(name, by, there)}
    gone = {uid for pod, uid in pods - found.keys() if (pod, "") not in found}
    for matcher in [there] if "" in gone else matchers_of("uid", gone):
        found |= {key_of(s.labels): s.value for s in asker.last_seen(name, by, matcher)}
    return found


def _namespace_matcher(namespaces: set[str]) -> str:
    """Only the namespaces with pods that count, as their series name them, where they are few."""
    if len(namespaces) > _MANY_NAMESPACES:
        return ""
    names = "|".join(re.escape(name).replace("\\", "\\\\") for name in sorted(namespaces))
    return f'namespace=~"{names}"'


def _time(seconds: float) -> datetime:
    return from_unix_ns(round(seconds) * 10**9)


def _prefixed(labels: Mapping[str, str]) -> dict[str, str]:
    """Labels of an object as kube-state-metrics prints them: `label_…`, with `_` for whatever it does not print."""
    return {name.removeprefix("label_"): value for name, value in sorted(labels.items()) if name.startswith("label_")}


def _pod_owners(asker: Asker, have: _Known, there: str) -> dict[PodName, OwnerRef]:
    found = {}
    for sample in asker.last("kube_pod_owner", f"{POD}, owner_kind, owner_name", there):
        pod, kind = pod_of(sample.labels), sample.labels.get("owner_kind", "")
        # A node owns the mirrors of its static pods: that says where they run, and not what they belong to.
        if kind and kind not in ("<none>", "Node"):
            found[pod] = have.owner(pod.namespace, kind, sample.labels.get("owner_name", ""))
    return found


def _owners(asker: Asker, start: datetime, pods: list[Fact], have: _Known) -> list[Fact]:
    """Owners of the pods, and theirs: Deployments above ReplicaSets, CronJobs above Jobs."""
    above: dict[tuple[str, str, str], OwnerRef] = {}
    for metric, label, kind in (
        ("kube_replicaset_owner", "replicaset", "ReplicaSet"),
        ("kube_job_owner", "job_name", "Job"),
    ):
        for sample in asker.last(metric, f"namespace, exported_namespace, {label}, owner_kind, owner_name"):
            labels = sample.labels
            namespace = labels.get("exported_namespace") or labels.get("namespace", "")
            owner_kind = labels.get("owner_kind", "")
            if owner_kind and owner_kind != "<none>":
                name = labels.get(label, "")
                above[namespace, kind, name] = have.owner(namespace, owner_kind, labels.get("owner_name", ""))
    facts: dict[str, Fact] = {}
    for fact in pods:
        reference = fact.data.owner if isinstance(fact.data, PodData) else None
        namespace = fact.data.namespace if isinstance(fact.data, PodData) else ""
        while reference is not None and reference.uid not in facts:
            owner = above.get((namespace, reference.kind, reference.name))
            if (namespace, reference.kind, reference.name) not in have.owners:
                facts[reference.uid] = Fact(
                    kind="owner",
                    uid=reference.uid,
                    valid_from=start,
                    valid_to=None,
                    data=OwnerData(
                        api_version=reference.api_version,
                        kind=reference.kind,
                        namespace=namespace,
                        name=reference.name,
                        owner=owner,
                    ),
                )
            reference = owner
    return list(facts.values())


def _capacity(asker: Asker) -> dict[str, dict[str, int]]:
    """By node the GPUs that it has; nodes without any are left out."""
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for sample in asker.last("kube_node_status_capacity", "node, resource", GPU_RESOURCES):
        name, resource = sample.labels.get("node", ""), resource_of(sample.labels.get("resource", ""))
        if name and sample.value >= 1 and counts_gpus(resource):
            found[name][resource] = round(sample.value)
    return dict(found)


def _nodes(
    asker: Asker, start: datetime, end: datetime, capacity: Mapping[str, dict[str, int]], requests: PodRequests
) -> list[Fact]:
    if not capacity:
        return []
    cpu_memory = offered(asker) if requests.resources else {}
    labels = {s.labels.get("node", ""): _node_labels(s.labels) for s in asker.whole("kube_node_labels")}
    info = {s.labels.get("node", ""): s.labels for s in asker.last("kube_node_info", "node, provider_id, system_uuid")}
    created = {s.labels.get("node", ""): s.value for s in asker.last("kube_node_created", "node")}
    seen = {
        s.labels.get("node", ""): s.value for s in asker.last_seen("kube_node_status_capacity", "node", GPU_RESOURCES)
    }
    facts = []
    for name, gpus in sorted(capacity.items()):
        since = _time(created[name]) if name in created else start
        last = _time(seen[name]) if name in seen else end
        # One that was seen to the end of the stretch goes on.
        until = None if last >= end - _SEEN_SLACK else max(last, since)
        offers = {r: amount for r, amount in cpu_memory.get(name, {}).items() if r in requests.resources}
        data = NodeData(
            name=name,
            labels=labels.get(name, {}),
            provider_id=info.get(name, {}).get("provider_id", ""),
            cpu_milli=offers.get("cpu", 0),
            memory_bytes=offers.get("memory", 0),
            gpus=dict(sorted(gpus.items())),
        )
        facts.append(Fact(kind="node", uid=f"name:{name}", valid_from=since, valid_to=until, data=data))
    return facts


_SPELLED: tuple[str, ...] = (
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/lifecycle",
    "nvidia.com/gpu.product",
    "nvidia.com/gpu.count",
    "nvidia.com/gpu.replicas",
    "nvidia.com/gpu.sharing-strategy",
    "amd.com/gpu.product-name",
    "beta.amd.com/gpu.product-name",
    "gpu.intel.com/product",
    "karpenter.sh/nodepool",
    "karpenter.sh/capacity-type",
    "karpenter.k8s.aws/capacity-reservation-id",
    "cloud.google.com/gke-nodepool",
    "cloud.google.com/gke-provisioning",
    "cloud.google.com/gke-spot",
    "cloud.google.com/gke-preemptible",
    "cloud.google.com/reservation-name",
    "eks.amazonaws.com/nodegroup",
    "eks.amazonaws.com/capacityType",
    "kubernetes.azure.com/agentpool",
    "kubernetes.azure.com/scalesetpriority",
)


_NODE_LABELS = {printed_label(label): label for label in _SPELLED}
"""Labels by which prices and pools are found, by the name under which they are printed."""


def _node_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels that prices and pools read, in their own spelling."""
    return {_NODE_LABELS.get(name, name): value for name, value in _prefixed(labels).items()}


def _namespaces(asker: Asker, start: datetime, names: set[str], have: _Known) -> list[Fact]:
    labels = {
        s.labels.get("exported_namespace") or s.labels.get("namespace", ""): _prefixed(s.labels)
        for s in asker.whole("kube_namespace_labels")
    }
    return [
        Fact(
            kind="namespace",
            uid=f"name:{name}",
            valid_from=start,
            valid_to=None,
            data=NamespaceData(name=name, labels=labels.get(name, {})),
        )
        for name in sorted(names - have.namespaces)
    ]
