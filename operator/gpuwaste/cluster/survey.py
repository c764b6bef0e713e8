"""One look at a cluster, for a command: lists in pages, slimmed at once, and whatever may not be read is said.

An operator follows a cluster (`gpuwaste.cluster.state`); a scan looks once, often with the rights of a guest.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from gpuwaste.cluster.api import list_pages
from gpuwaste.cluster.errors import ApiError, ForbiddenError, NotFoundError
from gpuwaste.cluster.kinds import NAMESPACES, NODES, PODS
from gpuwaste.cluster.records import RecordRules, namespace_record, node_record, owner_record, pod_record
from gpuwaste.cluster.state import ClusterSnapshot, is_gpu_node

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gpuwaste.cluster.api import ClusterApi, Json
    from gpuwaste.cluster.kinds import ResourceKind
    from gpuwaste.cluster.records import NamespaceRecord, NodeRecord, OwnerRecord, PodRecord
    from gpuwaste.model.facts import OwnerRef

__all__ = ["Refusal", "Survey", "survey"]

_AT_ONCE = 8
_LEVELS = 8
_MANY_OWNERS = 40
"""From so many owners of one kind on, the kind is listed instead of fetching each."""
_NOT_ASKED = ("Node",)
"""Owners that tell nothing of a workload: a static pod's."""

R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A list that the API server refused.

    Attributes:
        what: plural of the kind, with the namespace where it is one.
        why: what the server said.
    """

    what: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What was seen.

    Attributes:
        snapshot: the cluster, as far as it may be read.
        pods: how many pods were read; those that have nothing to do with GPUs are not in the snapshot.
        refused: what may not be read.
        rejected: objects that could not be understood.
    """

    snapshot: ClusterSnapshot = field(repr=False)
    pods: int
    refused: tuple[Refusal, ...]
    rejected: tuple[str, ...]

    def without_pods(self) -> Survey:
        """The same without the most of it, once its facts are taken."""
        return replace(self, snapshot=replace(self.snapshot, pods={}, owners={}))


@dataclass(slots=True, kw_only=True)
class _Surveyor:
    api: ClusterApi
    rules: RecordRules
    progress: Callable[[str, int], None]
    refused: list[Refusal] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)

    async def listed(
        self, kind: ResourceKind, read: Callable[[Json, RecordRules], R], *, namespace: str | None = None
    ) -> list[R] | None:
        """All objects of a kind as records; None where they may not be listed, which is noted."""
        found: list[R] = []
        try:
            async for page in list_pages(self.api, kind, namespace=namespace):
                for item in page.items:
                    body = {"apiVersion": kind.api_version, "kind": kind.kind, **item}
                    try:
                        found.append(read(body, self.rules))
                    except (KeyError, TypeError, ValueError) as error:
                        name = (body.get("metadata") or {}).get("name", "?")
                        self.rejected.append(f"{kind.kind} {name}: {type(error).__name__}: {error}")
                self.progress(kind.plural, len(found))
        except (ForbiddenError, NotFoundError) as error:
            self.refused.append(Refusal(what=_named(kind, namespace), why=error.message))
            return None
        return found

    async def pods(self, namespaces: Sequence[str], known: Sequence[NamespaceRecord] | None) -> list[PodRecord]:
        """Pods of all namespaces, or of those given; where all are refused, of each that may be read."""
        if not namespaces:
            everywhere = await self.listed(PODS, pod_record)
            if everywhere is not None:
                return everywhere
            namespaces = [record.data.name for record in known or ()]
        found = []
        for name in namespaces:
            found += await self.listed(PODS, pod_record, namespace=name) or []
        return found

    async def owners(self, pods: Iterable[PodRecord]) -> dict[str, OwnerRecord]:
        """Owners of the pods, and theirs, level by level."""
        wanted = {
            pod.data.owner.uid: (pod.data.namespace, pod.data.owner) for pod in pods if pod.data.owner is not None
        }
        found: dict[str, OwnerRecord] = {}
        asked: set[str] = set()
        for _ in range(_LEVELS):
            wanted = {uid: at for uid, at in wanted.items() if uid not in asked and at[1].kind not in _NOT_ASKED}
            if not wanted:
                break
            asked |= wanted.keys()
            fresh = await self._level(wanted)
            found |= fresh
            self.progress("owners", len(found))
            above = [record.data for record in fresh.values() if record.data.owner is not None]
            wanted = {data.owner.uid: (data.namespace, data.owner) for data in above if data.owner is not None}
        return found

    async def _level(self, wanted: dict[str, tuple[str, OwnerRef]]) -> dict[str, OwnerRecord]:
        by_kind: dict[tuple[str, str], dict[str, tuple[str, OwnerRef]]] = defaultdict(dict)
        for uid, (namespace, owner) in wanted.items():
            by_kind[owner.api_version, owner.kind][uid] = (namespace, owner)
        found: dict[str, OwnerRecord] = {}
        for (api_version, name), mine in by_kind.items():
            try:
                kind = await self.api.resolve(api_version, name)
            except ApiError as error:
                self.refused.append(Refusal(what=f"{name} ({api_version})", why=error.message))
                continue
            if len(mine) > _MANY_OWNERS:
                records = await self.listed(kind, owner_record) or []
                found |= {record.uid: record for record in records if record.uid in mine}
            else:
                found |= await self._each(kind, mine)
        return found

    async def _each(self, kind: ResourceKind, mine: dict[str, tuple[str, OwnerRef]]) -> dict[str, OwnerRecord]:
        gate = asyncio.Semaphore(_AT_ONCE)
        refusals: dict[str, None] = {}

        async def one(namespace: str, owner: OwnerRef) -> OwnerRecord | None:
            async with gate:
                try:
                    raw = await self.api.get(kind, owner.name, namespace=namespace if kind.namespaced else None)
                except NotFoundError:
                    return None
                except ForbiddenError as error:
                    refusals[error.message] = None
                    return None
            body = {"apiVersion": kind.api_version, "kind": kind.kind, **raw}
            record = owner_record(body, self.rules)
            return record if record.uid == owner.uid else None

        records = await asyncio.gather(*(one(*at) for at in mine.values()))
        if refusals:
            self.refused.append(Refusal(what=kind.plural, why=next(iter(refusals))))
        return {record.uid: record for record in records if record is not None}


def _named(kind: ResourceKind, namespace: str | None) -> str:
    return f"{kind.plural} in {namespace}" if namespace else kind.plural


async def survey(
    api: ClusterApi,
    *,
    namespaces: Sequence[str] = (),
    rules: RecordRules | None = None,
    progress: Callable[[str, int], None] = lambda *_: None,
) -> Survey:
    """Look at nodes, namespaces, pods and their owners once.

    Args:
        api: the API server.
        namespaces: whose pods are read; none: of all, or of all that may be read.
        rules: what counts as a GPU.
        progress: called with a plural and how many of it were read.

    Raises:
        UnreachableError: the API server does not answer.
    """
    surveyor = _Surveyor(api=api, rules=rules or RecordRules(), progress=progress)
    nodes: list[NodeRecord] = await surveyor.listed(NODES, node_record) or []
    spaces = await surveyor.listed(NAMESPACES, namespace_record)
    pods = await surveyor.pods(namespaces, spaces)
    gpu_nodes = frozenset(record.data.name for record in nodes if is_gpu_node(record.data))
    gpu_nodes |= {record.data.node for record in pods if record.gpus and record.data.node}
    kept = {record.uid: record for record in pods if record.holds_gpu or record.data.node in gpu_nodes}
    count = len(pods)
    del pods
    owners = await surveyor.owners(kept.values())
    snapshot = ClusterSnapshot(
        generation=0,
        pods=kept,
        nodes={record.uid: record for record in nodes},
        namespaces={record.uid: record for record in spaces or ()},
        owners=owners,
        gpu_nodes=gpu_nodes,
    )
    return Survey(snapshot=snapshot, pods=count, refused=tuple(surveyor.refused), rejected=tuple(surveyor.rejected))
