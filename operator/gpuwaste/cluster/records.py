"""Raw JSON objects turned into small frozen records, and records into facts.

Everything here depends on the object alone, so that two operators that saw the same objects store the same facts.
Environment variables, volumes, managed fields and unknown annotations are never kept.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gpuwaste.cluster.quantity import cpu_milli, memory_bytes, whole_count
from gpuwaste.cluster.scheduling import extended_amounts, pod_scheduling
from gpuwaste.model.facts import (
    ContainerRequest,
    Fact,
    NamespaceData,
    NodeData,
    OwnerData,
    OwnerRef,
    PodData,
    ReadyData,
)
from gpuwaste.model.resources import GPU_RESOURCES, NOT_GPU_RESOURCES, counts_gpus
from gpuwaste.model.units import parse_time

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gpuwaste.cluster.api import Json

__all__ = [
    "ANNOTATION_PREFIXES",
    "NamespaceRecord",
    "NodeRecord",
    "OwnerRecord",
    "PodRecord",
    "RecordRules",
    "namespace_record",
    "node_record",
    "owner_record",
    "pod_record",
]

ANNOTATION_PREFIXES = (
    "gpuwaste.dev/",
    "karpenter.sh/",
    "cluster-autoscaler.kubernetes.io/",
    "kai.scheduler/",
    "run.ai/reserve_for_gpu_index",
    "gpu-fraction",
    "gpu-memory",
    "hami.io/",
    "kueue.x-k8s.io/",
    "scheduling.k8s.io/",
)
"""Annotations that are kept; all others are dropped: they may hold anything, secrets among it."""

_ENDED = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordRules:
    """What counts as a GPU and which annotations are kept; teams may read labels of their own from annotations."""

    gpu_resources: tuple[str, ...] = GPU_RESOURCES
    not_gpu_resources: tuple[str, ...] = NOT_GPU_RESOURCES
    annotation_prefixes: tuple[str, ...] = ANNOTATION_PREFIXES

    def is_gpu(self, resource: str) -> bool:
        """Whether the extended resource counts GPUs."""
        return counts_gpus(resource, self.gpu_resources, self.not_gpu_resources)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodRecord:
    """A pod. `start` is None until its node has taken it, `end` until all its containers have ended.

    `deleting` is the metadata.deletionTimestamp: when it is to be gone, or was, once it is a tombstone.
    """

    uid: str
    data: PodData
    phase: str
    created: datetime
    start: datetime | None
    end: datetime | None
    deleting: datetime | None

    @property
    def gpus(self) -> dict[str, int]:
        """What its containers hold together, by resource; an init container's devices are reused by the others."""
        return _pod_gpus(self.data.containers)

    @property
    def holds_gpu(self) -> bool:
        """Whether it asks for a GPU, by an extended resource or a resource claim."""
        return any(container.gpus or container.claims for container in self.data.containers)

    @property
    def pending(self) -> bool:
        """Whether no node has it yet."""
        return not self.data.node and self.phase not in _ENDED and self.deleting is None

    def fact(self, *, gone: datetime | None = None) -> Fact | None:
        """The fact of a pod on a node; None before its node has taken it.

        Valid from `status.startTime` (else its PodScheduled condition), never from creationTimestamp, to when its
        last container ended, else to `gone`, the end that a tombstone knows.
        """
        if self.start is None or not self.data.node:
            return None
        end = self.end or gone
        return Fact(
            kind="pod",
            uid=self.uid,
            valid_from=self.start,
            valid_to=None if end is None else max(end, self.start),
            data=self.data,
        )

    def wait(self) -> Fact | None:
        """The fact that a pod which asks for GPUs waited for a node, or waits; None where it had one at once.

        Valid from creationTimestamp to when its node took it, or until it was given up.
        """
        end = self.start or self.end or self.deleting
        if not self.holds_gpu or (end is not None and end <= self.created) or (end is None and not self.pending):
            return None
        return Fact(
            kind="pending", uid=self.uid, valid_from=self.created, valid_to=end, data=replace(self.data, node="")
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRecord:
    """A node; `ready` is None where the kubelet never reported, `deleting` as in `PodRecord`.

    `ready_since` is when `ready` last changed.
    """

    uid: str
    data: NodeData
    start: datetime
    ready: bool | None
    unschedulable: bool
    deleting: datetime | None = None
    ready_since: datetime | None = None

    def fact(self, *, gone: datetime | None = None) -> Fact:
        """Valid from the earliest of creationTimestamp and its conditions' transitions, to `gone`."""
        end = None if gone is None else max(gone, self.start)
        return Fact(kind="node", uid=self.uid, valid_from=self.start, valid_to=end, data=self.data)

    def ready_fact(self) -> Fact | None:
        """What its condition Ready says and since when; None where it was ready from the start, or says nothing."""
        if self.ready is None or self.ready_since is None or (self.ready and self.ready_since <= self.start):
            return None
        data = ReadyData(node=self.data.name, ready=self.ready)
        return Fact(kind="ready", uid=self.uid, valid_from=self.ready_since, valid_to=None, data=data)


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceRecord:
    """A namespace."""

    uid: str
    data: NamespaceData
    created: datetime
    deleting: datetime | None = None

    def fact(self, *, gone: datetime | None = None) -> Fact:
        """Valid from creationTimestamp; a namespace is older than anything in it."""
        end = None if gone is None else max(gone, self.created)
        return Fact(kind="namespace", uid=self.uid, valid_from=self.created, valid_to=end, data=self.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerRecord:
    """An object that owns pods or other owners."""

    uid: str
    data: OwnerData
    created: datetime

    def fact(self) -> Fact:
        """Valid from creationTimestamp, without an end.

        An owner is looked up by uid and names what a pod belongs to whenever it is known: a pod can have started,
        by its status, before its owner's creationTimestamp where a cluster was restored from a backup, and an owner
        can be gone while its pods run on.
        """
        return Fact(kind="owner", uid=self.uid, valid_from=self.created, valid_to=None, data=self.data)


def _strings(raw: object) -> dict[str, str]:
    """Labels; equal strings of thousands of objects share one copy."""
    if not isinstance(raw, dict):
        return {}
    return {sys.intern(str(key)): sys.intern(str(value)) for key, value in sorted(raw.items())}


def _annotations(metadata: Json, rules: RecordRules) -> dict[str, str]:
    return {k: v for k, v in _strings(metadata.get("annotations")).items() if k.startswith(rules.annotation_prefixes)}


def _time(text: str | None) -> datetime | None:
    time = parse_time(text) if text else None
    # Go's zero time stands for "not set" in objects that were written without care.
    return None if time is None or time.year == 1 else time


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _created(metadata: Json) -> datetime:
    return _time(metadata.get("creationTimestamp")) or _EPOCH


def _transitions(status: Json, *, kind: str | None = None) -> Iterable[datetime]:
    for condition in status.get("conditions") or ():
        time = _time(condition.get("lastTransitionTime"))
        if time is not None and (kind is None or (condition.get("type"), condition.get("status")) == (kind, "True")):
            yield time


def _owner(metadata: Json) -> OwnerRef | None:
    # A node owns the mirrors of its static pods: that says where they run, and not what they belong to.
    references = [r for r in metadata.get("ownerReferences") or () if (r["apiVersion"], r["kind"]) != ("v1", "Node")]
    reference = next((r for r in references if r.get("controller")), references[0] if references else None)
    if reference is None:
        return None
    return OwnerRef(
        api_version=sys.intern(reference["apiVersion"]),
        kind=sys.intern(reference["kind"]),
        name=reference["name"],
        uid=reference["uid"],
    )


def _container(raw: Json, rules: RecordRules, *, init: bool) -> ContainerRequest:
    resources = raw.get("resources") or {}
    # The API server fills requests from limits; objects from files may lack that.
    asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    gpus = {sys.intern(name): whole_count(amount) for name, amount in sorted(asked.items()) if rules.is_gpu(name)}
    return ContainerRequest(
        name=sys.intern(raw["name"]),
        cpu_milli=cpu_milli(asked.get("cpu", 0)),
        memory_bytes=memory_bytes(asked.get("memory", 0)),
        gpus={name: count for name, count in gpus.items() if count},
        claims=tuple(claim["name"] for claim in resources.get("claims") or ()),
        # A sidecar starts with the init containers and then runs beside the others: it holds what it holds.
        init=init and raw.get("restartPolicy") != "Always",
    )


def _pod_gpus(containers: tuple[ContainerRequest, ...]) -> dict[str, int]:
    running: dict[str, int] = {}
    starting: dict[str, int] = {}
    for container in containers:
        for name, count in container.gpus.items():
            if container.init:
                starting[name] = max(starting.get(name, 0), count)
            else:
                running[name] = running.get(name, 0) + count
    return {name: max(running.get(name, 0), starting.get(name, 0)) for name in sorted({*running, *starting})}


def _pod_start(status: Json) -> datetime | None:
    start = _time(status.get("startTime"))
    if start is None and status.get("phase") != "Pending":
        # While it is pending its kubelet may still set startTime; a second guess would make a second fact.
        start = min(_transitions(status, kind="PodScheduled"), default=None)
    return start


def _pod_end(status: Json) -> datetime | None:
    if status.get("phase") not in _ENDED:
        return None
    ends = []
    for listed in ("containerStatuses", "initContainerStatuses"):
        for container in status.get(listed) or ():
            terminated = (container.get("state") or {}).get("terminated") or {}
            ends.append(_time(terminated.get("finishedAt")))
    known = [end for end in ends if end is not None]
    # An evicted pod may name no container: then its conditions say when it ended.
    return max(known, default=None) or max(_transitions(status), default=None)


def pod_record(raw: Json, rules: RecordRules) -> PodRecord:
    """The record of a pod.

    Raises:
        KeyError, ValueError: the object is no pod that an API server would have accepted.
    """
    metadata, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    containers = [
        *(_container(c, rules, init=True) for c in spec.get("initContainers") or ()),
        *(_container(c, rules, init=False) for c in spec.get("containers") or ()),
    ]
    return PodRecord(
        uid=metadata["uid"],
        data=PodData(
            namespace=sys.intern(metadata["namespace"]),
            name=metadata["name"],
            node=sys.intern(spec.get("nodeName") or ""),
            labels=_strings(metadata.get("labels")),
            annotations=_annotations(metadata, rules),
            owner=_owner(metadata),
            containers=tuple(containers),
            priority=spec.get("priority") or 0,
            scheduling=pod_scheduling(metadata, spec, rules.is_gpu),
        ),
        phase=sys.intern(status.get("phase") or "Unknown"),
        created=_created(metadata),
        start=_pod_start(status),
        end=_pod_end(status),
        deleting=_time(metadata.get("deletionTimestamp")),
    )


def _taints(spec: Json) -> tuple[str, ...]:
    """As `key=value:Effect`; those that Kubernetes sets and lifts with a node's health are no property of it."""
    taints = (f"{t['key']}={t.get('value') or ''}:{t['effect']}" for t in spec.get("taints") or ())
    return tuple(sorted(taint for taint in taints if not taint.startswith("node.kubernetes.io/")))


def _extended(capacity: Json, free: Json, rules: RecordRules) -> dict[str, int]:
    """Places for pods and hugepages as allocatable; devices as capacity, for a plugin that restarts has none."""
    amounts = {name: capacity.get(name, amount) if "/" in name else amount for name, amount in free.items()}
    return extended_amounts(amounts, rules.is_gpu)


def node_record(raw: Json, rules: RecordRules) -> NodeRecord:
    """The record of a node: CPU and memory as allocatable, GPUs as capacity.

    A GPU that turned unhealthy leaves allocatable but is still owned; its agent says what became of it.

    Raises:
        KeyError, ValueError: the object is no node that an API server would have accepted.
    """
    metadata, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    capacity, allocatable = status.get("capacity") or {}, status.get("allocatable") or {}
    free = {**capacity, **allocatable}
    gpus = {name: whole_count(amount) for name, amount in {**allocatable, **capacity}.items() if rules.is_gpu(name)}
    said: Json = next((c for c in status.get("conditions") or () if c.get("type") == "Ready"), {})
    ready = said.get("status")
    return NodeRecord(
        uid=metadata["uid"],
        data=NodeData(
            name=metadata["name"],
            labels=_strings(metadata.get("labels")),
            provider_id=spec.get("providerID") or "",
            cpu_milli=cpu_milli(free.get("cpu", 0)),
            memory_bytes=memory_bytes(free.get("memory", 0)),
            gpus={name: gpus[name] for name in sorted(gpus) if gpus[name]},
            taints=_taints(spec),
            extended=_extended(capacity, free, rules) or None,
        ),
        start=min([_created(metadata), *_transitions(status)]),
        ready=None if ready is None else ready == "True",
        unschedulable=bool(spec.get("unschedulable")),
        deleting=_time(metadata.get("deletionTimestamp")),
        ready_since=_time(said.get("lastTransitionTime")),
    )


def namespace_record(raw: Json, rules: RecordRules) -> NamespaceRecord:
    """The record of a namespace."""
    metadata = raw["metadata"]
    return NamespaceRecord(
        uid=metadata["uid"],
        data=NamespaceData(
            name=metadata["name"],
            labels=_strings(metadata.get("labels")),
            annotations=_annotations(metadata, rules),
        ),
        created=_created(metadata),
        deleting=_time(metadata.get("deletionTimestamp")),
    )


def owner_record(raw: Json, rules: RecordRules) -> OwnerRecord:
    """The record of any object that owns others."""
    metadata = raw["metadata"]
    return OwnerRecord(
        uid=metadata["uid"],
        data=OwnerData(
            api_version=raw["apiVersion"],
            kind=raw["kind"],
            namespace=metadata.get("namespace") or "",
            name=metadata["name"],
            labels=_strings(metadata.get("labels")),
            annotations=_annotations(metadata, rules),
            owner=_owner(metadata),
        ),
        created=_created(metadata),
    )
