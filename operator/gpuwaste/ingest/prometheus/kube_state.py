"""Facts from kube-state-metrics: pods, nodes and namespaces, also those that the API server no longer knows.

Owners have no UID there; `name:<namespace>/<kind>/<name>` stands for it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from gpuwaste.ingest.prometheus.store import Query
from gpuwaste.model.facts import ContainerRequest, Fact, NamespaceData, NodeData, OwnerData, OwnerRef, PodData
from gpuwaste.model.printed import printed_label
from gpuwaste.model.resources import counts_gpus
from gpuwaste.model.units import from_unix_ns

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from gpuwaste.ingest.prometheus.store import MetricStore, Sample

__all__ = ["KUBE_STATE_METRICS", "kube_state_facts", "resource_of"]

KUBE_STATE_METRICS: dict[str, str] = {
    "kube_pod_container_resource_requests": "which pods hold GPUs",
    "kube_pod_info": "UID and node of pods that are gone",
    "kube_pod_owner": "the workload of pods that are gone",
    "kube_pod_start_time": "since when pods hold",
    "kube_node_status_capacity": "how many GPUs and slices nodes offer",
}
"""What is needed of kube-state-metrics, and what for."""

_GPU = "nvidia_com_.*|amd_com_.*|gpu_intel_com_.*|habana_ai_.*"
_MIG = re.compile(r"^nvidia_com_mig_(\d+g)_(\d+gb)((?:_(?:me|gfx|all))*)(_shared)?$")
_API = {
    "ReplicaSet": "apps/v1",
    "Deployment": "apps/v1",
    "StatefulSet": "apps/v1",
    "DaemonSet": "apps/v1",
    "Job": "batch/v1",
    "CronJob": "batch/v1",
    "ReplicationController": "v1",
    "Node": "v1",
}
_SEEN_STEP = timedelta(minutes=1)
_SEEN_SLACK = timedelta(minutes=3)
_MANY_NAMESPACES = 40
_PIECE = timedelta(hours=6)
_HOLDER = "namespace, exported_namespace, pod, exported_pod, container, exported_container, node, resource, uid"
_POD = "namespace, exported_namespace, pod, exported_pod"


def resource_of(label: str) -> str:
    """The extended resource behind kube-state-metrics' spelling: `nvidia_com_mig_1g_10gb_me` is `mig-1g.10gb.me`."""
    found = _MIG.match(label)
    if found:
        suffix = found[3].replace("_", ".") + (".shared" if found[4] else "")
        return f"nvidia.com/mig-{found[1]}.{found[2]}{suffix}"
    known = {"nvidia_com_gpu": "nvidia.com/gpu", "nvidia_com_gpu_shared": "nvidia.com/gpu.shared"}
    if label in known:
        return known[label]
    for domain in ("nvidia_com_", "amd_com_", "gpu_intel_com_", "habana_ai_"):
        if label.startswith(domain):
            return f"{domain[:-1].replace('_', '.')}/{label.removeprefix(domain)}"
    return label


@dataclass(frozen=True, slots=True, order=True)
class _PodName:
    namespace: str
    name: str


def _pod(labels: Mapping[str, str]) -> _PodName:
    """The pod that a series is about: with `honor_labels: false` its names got a prefix."""
    return _PodName(
        labels.get("exported_namespace") or labels.get("namespace", ""),
        labels.get("exported_pod") or labels.get("pod", ""),
    )


class _Asker:
    """Asks for the last value of metrics within a stretch of time, in pieces that a store with low limits answers."""

    def __init__(self, store: MetricStore, start: datetime, end: datetime, metrics: frozenset[str]) -> None:
        self._store, self._metrics = store, metrics
        self._pieces: list[tuple[datetime, str]] = []
        at = end
        while at > start:
            length = min(_PIECE, at - start)
            self._pieces.insert(0, (at, f"{max(int(length.total_seconds()), 1)}s"))
            at -= length

    def last(self, name: str, by: str, *matchers: str) -> list[Sample]:
        return self._ask(name, f"max by ({by}) (last_over_time({name}{{$selector}}[$window]))", matchers)

    def whole(self, name: str, *matchers: str) -> list[Sample]:
        """With all labels: for metrics whose labels are what they tell."""
        return self._ask(name, f"last_over_time({name}{{$selector}}[$window])", matchers)

    def last_seen(self, name: str, by: str, *matchers: str) -> list[Sample]:
        """The time of the last sample, in Unix seconds."""
        step = f"{int(_SEEN_STEP.total_seconds())}s"
        inner = f"timestamp({name}{{$selector}})[$window:{step}]"
        return self._ask(name, f"max by ({by}) (max_over_time({inner}))", matchers)

    def _ask(self, name: str, template: str, matchers: tuple[str, ...]) -> list[Sample]:
        """One sample a set of labels: what a later piece says replaces what an earlier one did."""
        if name not in self._metrics:
            return []
        found: dict[tuple[tuple[str, str], ...], Sample] = {}
        for at, window in self._pieces:
            query = Query(template=template.replace("$window", window), matchers=matchers)
            for sample in self._store.instant(query, at=at):
                found[tuple(sorted(sample.labels.items()))] = sample
        return list(found.values())


def kube_state_facts(
    store: MetricStore, *, start: datetime, end: datetime, metrics: frozenset[str], known: Iterable[Fact] = ()
) -> list[Fact]:
    """Facts of a stretch of time that the API server does not tell any more, sorted by key.

    Args:
        store: where to ask.
        start: of the stretch.
        end: of the stretch; a day at most, for stores limit how much one query reads.
        metrics: names of the metrics that the store has.
        known: facts that are known already, better; what they tell is not said again.
    """
    asker = _Asker(store, start, end, metrics)
    have = _Known.of(known)
    nodes = _nodes(asker, start, end, have)
    pods = _pods(asker, end, have)
    owners = _owners(asker, start, pods, have)
    spaces = _namespaces(asker, start, {fact.data.namespace for fact in pods if isinstance(fact.data, PodData)}, have)
    return sorted([*nodes, *pods, *owners, *spaces], key=lambda fact: fact.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What need not be said again: UIDs of pods, names of the rest, and UIDs of owners by name."""

    pods: frozenset[str]
    nodes: frozenset[str]
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
            namespaces=frozenset(fact.data.name for fact in facts if isinstance(fact.data, NamespaceData)),
            owners=owners,
        )

    def owner(self, namespace: str, kind: str, name: str) -> OwnerRef:
        uid = self.owners.get((namespace, kind, name)) or f"name:{namespace}/{kind}/{name}"
        return OwnerRef(api_version=_API.get(kind, "v1"), kind=kind, name=name, uid=uid)


_Key = tuple[_PodName, str]


def _key(labels: Mapping[str, str]) -> _Key:
    return _pod(labels), labels.get("uid", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class _PodTimes:
    """Unix seconds by pod and UID; old versions of kube-state-metrics print the UID on `kube_pod_info` alone."""

    started: Mapping[_Key, float]
    completed: Mapping[_Key, float]
    last_seen: Mapping[_Key, float]

    def start(self, pod: _PodName, uid: str) -> datetime | None:
        seconds = self.started.get((pod, uid)) or self.started.get((pod, ""))
        return None if seconds is None else _time(seconds)

    def end(self, pod: _PodName, uid: str, *, read_to: datetime) -> datetime | None:
        """Its completion, else its last sample; a pod that was seen to the end of the stretch runs on."""
        completed = self.completed.get((pod, uid)) or self.completed.get((pod, ""))
        if completed:
            return _time(completed)
        seconds = self.last_seen.get((pod, uid)) or self.last_seen.get((pod, ""))
        last = None if seconds is None else _time(seconds)
        return None if last is None or last >= read_to - _SEEN_SLACK else last


def _pods(asker: _Asker, end: datetime, have: _Known) -> list[Fact]:
    gpu = f'resource=~"{_GPU}"'
    requests: dict[_Key, dict[str, dict[str, int]]] = defaultdict(lambda: defaultdict(dict))
    node_of: dict[_Key, str] = {}
    for sample in asker.last("kube_pod_container_resource_requests", _HOLDER, gpu):
        labels = sample.labels
        container = labels.get("exported_container") or labels.get("container", "")
        resource = resource_of(labels.get("resource", ""))
        if sample.value >= 1 and counts_gpus(resource):
            requests[_key(labels)][container][resource] = round(sample.value)
            node_of[_key(labels)] = labels.get("node", "")
    if not requests:
        return []
    there = _namespace_matcher({pod.namespace for pod, _ in requests})
    seen = asker.last_seen("kube_pod_container_resource_requests", f"{_POD}, uid", gpu)
    times = _PodTimes(
        started={_key(s.labels): s.value for s in asker.last("kube_pod_start_time", f"{_POD}, uid", there)},
        completed={_key(s.labels): s.value for s in asker.last("kube_pod_completion_time", f"{_POD}, uid", there)},
        last_seen={_key(s.labels): s.value for s in seen},
    )
    info = {_key(s.labels): s.labels for s in asker.last("kube_pod_info", f"{_POD}, uid, node", there)}
    uid_of = {pod: uid for pod, uid in info if uid}
    owner_of = _pod_owners(asker, have, there)
    labels_of = {_pod(s.labels): _prefixed(s.labels) for s in asker.whole("kube_pod_labels", there)}
    facts = []
    for (pod, said), containers in sorted(requests.items()):
        uid = said or uid_of.get(pod, "")
        start, stop = times.start(pod, uid), times.end(pod, uid, read_to=end)
        if uid in have.pods or start is None or (stop is not None and stop <= start):
            continue
        data = PodData(
            namespace=pod.namespace,
            name=pod.name,
            node=node_of[pod, said] or info.get((pod, uid), {}).get("node", ""),
            labels=labels_of.get(pod, {}),
            owner=owner_of.get(pod),
            containers=tuple(
                ContainerRequest(name=name, gpus=dict(sorted(gpus.items())))
                for name, gpus in sorted(containers.items())
            ),
        )
        unique = uid or f"name:{pod.namespace}/{pod.name}"
        facts.append(Fact(kind="pod", uid=unique, valid_from=start, valid_to=stop, data=data))
    return facts


def _namespace_matcher(namespaces: set[str]) -> str:
    """Only the namespaces with GPU pods, where they are few and nothing renames their label."""
    if len(namespaces) > _MANY_NAMESPACES:
        return ""
    names = "|".join(re.escape(name).replace("\\", "\\\\") for name in sorted(namespaces))
    return f'namespace=~"{names}"'


def _time(seconds: float) -> datetime:
    return from_unix_ns(round(seconds) * 10**9)


def _prefixed(labels: Mapping[str, str]) -> dict[str, str]:
    """Labels of an object as kube-state-metrics prints them: `label_…`, with `_` for whatever it does not print."""
    return {name.removeprefix("label_"): value for name, value in sorted(labels.items()) if name.startswith("label_")}


def _pod_owners(asker: _Asker, have: _Known, there: str) -> dict[_PodName, OwnerRef]:
    found = {}
    for sample in asker.last("kube_pod_owner", f"{_POD}, owner_kind, owner_name", there):
        pod, kind = _pod(sample.labels), sample.labels.get("owner_kind", "")
        if kind and kind != "<none>":
            found[pod] = have.owner(pod.namespace, kind, sample.labels.get("owner_name", ""))
    return found


def _owners(asker: _Asker, start: datetime, pods: list[Fact], have: _Known) -> list[Fact]:
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


def _nodes(asker: _Asker, start: datetime, end: datetime, have: _Known) -> list[Fact]:
    gpu = f'resource=~"{_GPU}"'
    capacity: dict[str, dict[str, int]] = defaultdict(dict)
    for sample in asker.last("kube_node_status_capacity", "node, resource", gpu):
        name, resource = sample.labels.get("node", ""), resource_of(sample.labels.get("resource", ""))
        if name and name not in have.nodes and sample.value >= 1 and counts_gpus(resource):
            capacity[name][resource] = round(sample.value)
    if not capacity:
        return []
    labels = {s.labels.get("node", ""): _node_labels(s.labels) for s in asker.whole("kube_node_labels")}
    info = {s.labels.get("node", ""): s.labels for s in asker.last("kube_node_info", "node, provider_id, system_uuid")}
    created = {s.labels.get("node", ""): s.value for s in asker.last("kube_node_created", "node")}
    seen = {s.labels.get("node", ""): s.value for s in asker.last_seen("kube_node_status_capacity", "node", gpu)}
    facts = []
    for name, gpus in sorted(capacity.items()):
        since = _time(created[name]) if name in created else start
        last = _time(seen[name]) if name in seen else end
        # One that was seen to the end of the stretch goes on.
        until = None if last >= end - _SEEN_SLACK else max(last, since)
        data = NodeData(
            name=name,
            labels=labels.get(name, {}),
            provider_id=info.get(name, {}).get("provider_id", ""),
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


def _namespaces(asker: _Asker, start: datetime, names: set[str], have: _Known) -> list[Fact]:
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
