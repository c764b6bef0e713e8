"""The cluster as gpuwaste sees it: informers write, whoever decides takes an immutable snapshot."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from gpuwaste.cluster.informer import Informer, backoff_seconds
from gpuwaste.cluster.kinds import NAMESPACES, NODES, PODS
from gpuwaste.cluster.owner_cache import OwnerCache
from gpuwaste.cluster.records import RecordRules, namespace_record, node_record, pod_record
from gpuwaste.model.errors import UnreachableError
from gpuwaste.model.facts import merge_facts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from datetime import datetime
    from random import Random

    from gpuwaste.cluster.api import ClusterApi
    from gpuwaste.cluster.informer import Tombstone
    from gpuwaste.cluster.records import NamespaceRecord, NodeRecord, OwnerRecord, PodRecord
    from gpuwaste.model.facts import Fact, NodeData, OwnerData

__all__ = ["ClusterSnapshot", "ClusterState", "is_gpu_node"]

_log = logging.getLogger(__name__)

_OWNER_REFRESH_SECONDS = 60.0
_OWNER_PAUSE_SECONDS = 1.0
"""Between two passes over all chains, so that a storm of pod events costs one pass a second."""
_GPU_LABELS = (("nvidia.com/gpu.present", "true"), ("feature.node.kubernetes.io/amd-gpu", "true"))


def is_gpu_node(node: NodeData) -> bool:
    """Whether a node has GPUs: by capacity, or by label while their device plugin is away."""
    return bool(node.gpus) or any(node.labels.get(label) == value for label, value in _GPU_LABELS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSnapshot:
    """What was known at one moment, by uid. Nothing in it changes.

    Pods are those on GPU nodes and those that ask for GPUs; nodes and namespaces are all of them; `gone_*` are
    the tombstones of the last day; owners are those that the pods' references led to and that could be read.
    """

    generation: int
    pods: Mapping[str, PodRecord] = field(default_factory=dict)
    gone_pods: Mapping[str, Tombstone[PodRecord]] = field(default_factory=dict)
    nodes: Mapping[str, NodeRecord] = field(default_factory=dict)
    gone_nodes: Mapping[str, Tombstone[NodeRecord]] = field(default_factory=dict)
    namespaces: Mapping[str, NamespaceRecord] = field(default_factory=dict)
    gone_namespaces: Mapping[str, Tombstone[NamespaceRecord]] = field(default_factory=dict)
    owners: Mapping[str, OwnerRecord] = field(default_factory=dict)
    gpu_nodes: frozenset[str] = frozenset()

    @property
    def owner_data(self) -> dict[str, OwnerData]:
        """What `gpuwaste.cluster.owners` walks on."""
        return {uid: record.data for uid, record in self.owners.items()}

    @property
    def pending(self) -> tuple[PodRecord, ...]:
        """Pods that ask for a GPU and have no node yet, the longest waiting first."""
        waiting = [record for record in self.pods.values() if record.pending and record.holds_gpu]
        return tuple(sorted(waiting, key=lambda record: (record.created, record.uid)))

    def waits(self) -> list[Fact]:
        """The facts of pods that waited for GPUs, or wait, sorted by key."""
        records = [*self.pods.values(), *(tombstone.record for tombstone in self.gone_pods.values())]
        return sorted(filter(None, (record.wait() for record in records)), key=lambda fact: fact.key)

    def facts(self) -> list[Fact]:
        """All facts about these pods, their nodes, namespaces and owners, sorted by key."""
        pods = [record.fact() for record in self.pods.values()]
        pods += [tombstone.record.fact(gone=tombstone.end) for tombstone in self.gone_pods.values()]
        known = [fact for fact in pods if fact is not None]
        held = [*self.pods.values(), *(tombstone.record for tombstone in self.gone_pods.values())]
        hosts = self.gpu_nodes | {record.data.node for record in held}
        names = {record.data.namespace for record in held}
        nodes = [r.fact() for r in self.nodes.values() if r.data.name in hosts]
        nodes += [t.record.fact(gone=t.end) for t in self.gone_nodes.values() if t.record.data.name in hosts]
        ready = [r.ready_fact() for r in self.nodes.values() if r.data.name in hosts]
        spaces = [r.fact() for r in self.namespaces.values() if r.data.name in names]
        spaces += [t.record.fact(gone=t.end) for t in self.gone_namespaces.values() if t.record.data.name in names]
        owners = [record.fact() for record in self.owners.values()]
        return merge_facts(known, nodes, [fact for fact in ready if fact is not None], spaces, owners)


class ClusterState:
    """Follows pods, nodes, namespaces and owners, and hands out snapshots.

    Args:
        api: the API server.
        now: the clock.
        random: for jitter.
        on_change: called after every change; must be quick.
        rules: what counts as a GPU and which annotations are kept.
        sleep: waits between attempts.
    """

    def __init__(
        self,
        *,
        api: ClusterApi,
        now: Callable[[], datetime],
        random: Random,
        on_change: Callable[[], None] = lambda: None,
        rules: RecordRules | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        rules = rules or RecordRules()
        self._on_change, self._random, self._sleep = on_change, random, sleep
        follow = partial(Informer, api=api, on_change=self._changed, now=now, random=random, sleep=sleep)
        self._pods: Informer[PodRecord] = follow(kind=PODS, transform=lambda raw: pod_record(raw, rules))
        self._nodes: Informer[NodeRecord] = follow(kind=NODES, transform=lambda raw: node_record(raw, rules))
        self._namespaces: Informer[NamespaceRecord] = follow(
            kind=NAMESPACES, transform=lambda raw: namespace_record(raw, rules)
        )
        self._owners = OwnerCache(api=api, rules=rules, now=now)
        self._owners_wanted = asyncio.Event()
        self._owners_known = False
        self._snapshot: ClusterSnapshot | None = None

    @property
    def _informers(self) -> tuple[Informer[PodRecord], Informer[NodeRecord], Informer[NamespaceRecord]]:
        return (self._pods, self._nodes, self._namespaces)

    @property
    def generation(self) -> int:
        """Rises with every change; equal generations mean equal snapshots."""
        return self._owners.generation + sum(informer.generation for informer in self._informers)

    def synced(self) -> bool:
        """Whether everything was listed once and the owners of what was listed were looked up."""
        return self._owners_known and all(informer.synced() for informer in self._informers)

    @property
    def problems(self) -> tuple[str, ...]:
        """What is not being followed or could not be read, one line each."""
        errors = [informer.last_error for informer in self._informers if informer.last_error]
        rejected = [f"{name}: {why}" for informer in self._informers for name, why in informer.rejected.items()]
        return (*errors, *rejected, *self._owners.problems)

    async def run(self) -> None:
        """Follow the cluster until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._pods.run(), name="informer-pods")
            tasks.create_task(self._nodes.run(), name="informer-nodes")
            tasks.create_task(self._namespaces.run(), name="informer-namespaces")
            tasks.create_task(self._follow_owners(), name="owners")

    def snapshot(self) -> ClusterSnapshot:
        """The cluster now; the same object as last time where nothing changed."""
        for informer in self._informers:
            informer.prune()
        if self._snapshot is None or self._snapshot.generation != self.generation:
            self._snapshot = self._build()
        return self._snapshot

    def _build(self) -> ClusterSnapshot:
        pods, gone = self._pods.records, self._pods.tombstones
        gpu_nodes = self._gpu_nodes()
        return ClusterSnapshot(
            generation=self.generation,
            pods={uid: r for uid, r in pods.items() if r.holds_gpu or r.data.node in gpu_nodes},
            gone_pods={uid: t for uid, t in gone.items() if t.record.holds_gpu or t.record.data.node in gpu_nodes},
            nodes=dict(self._nodes.records),
            gone_nodes=dict(self._nodes.tombstones),
            namespaces=dict(self._namespaces.records),
            gone_namespaces=dict(self._namespaces.tombstones),
            owners=dict(self._owners.records),
            gpu_nodes=gpu_nodes,
        )

    def _gpu_nodes(self) -> frozenset[str]:
        """Names of nodes with GPUs: by capacity, by label while their device plugin is away, or by a pod's holding."""
        nodes = [*self._nodes.records.values(), *(t.record for t in self._nodes.tombstones.values())]
        named = {record.data.name for record in nodes if is_gpu_node(record.data)}
        holders = {r.data.node for r in self._pods.records.values() if r.gpus and r.data.node}
        return frozenset(named | holders)

    def _changed(self) -> None:
        self._owners_wanted.set()
        self._on_change()

    async def _follow_owners(self) -> None:
        """Look up owners whenever pods changed, and now and then again: their labels may change too."""
        failures = 0
        while True:
            try:
                async with asyncio.timeout(_OWNER_REFRESH_SECONDS):
                    await self._owners_wanted.wait()
            except TimeoutError:
                pass  # time for a refresh
            self._owners_wanted.clear()
            if not all(informer.synced() for informer in self._informers):
                continue
            try:
                changed = await self._owners.update(self._references())
            except UnreachableError as error:
                failures += 1
                _log.warning("owners cannot be looked up (attempt %d): %s", failures, error)
                self._owners_wanted.set()
                await self._sleep(backoff_seconds(failures, self._random))
                continue
            failures = 0
            if changed or not self._owners_known:
                self._owners_known = True
                self._on_change()
            await self._sleep(_OWNER_PAUSE_SECONDS)

    def _references(self) -> Iterable[PodRecord]:
        snapshot = self._build()
        return [*snapshot.pods.values(), *(tombstone.record for tombstone in snapshot.gone_pods.values())]
