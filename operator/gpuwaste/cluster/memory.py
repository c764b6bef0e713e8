"""An API server in memory: the demo and unit tests run against it through the same protocol as the real one.

It keeps what callers rely on: resourceVersions, uids and generations, paged lists, watches that replay from a
resourceVersion, bookmarks, 410 on demand, server-side apply with field ownership, the separate status
subresource, deletes and evictions with preconditions. It checks no schemas, admits everything, and collects no
orphans; what needs those is tested on a real server.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_OID, uuid5

from gpuwaste.cluster.api import WATCH_SECONDS, Page, WatchEvent, identity
from gpuwaste.cluster.errors import ConflictError, DisruptionBudgetError, GoneError, InvalidError, NotFoundError
from gpuwaste.cluster.fields import (
    IDENTITY,
    SERVER_METADATA,
    Path,
    applied,
    desired,
    flatten,
    intent_of,
    is_status,
    take_over,
    unflatten,
)
from gpuwaste.cluster.kinds import KNOWN_KINDS, PODS, ResourceKind
from gpuwaste.cluster.selectors import matches
from gpuwaste.model.units import format_time

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from datetime import datetime

    from gpuwaste.cluster.api import EventType, Json

__all__ = ["MemoryCluster"]

_Key = tuple[str, str]  # namespace ("" for cluster-scoped), name
_PUT_MANAGER = "put"
_PAGE_SEPARATOR = "/"  # in no resourceVersion, namespace or name
_LOG_LENGTH = 20_000
"""Changes kept for watches to replay; older resourceVersions answer 410, as after etcd's compaction."""


@dataclass(slots=True, kw_only=True)
class _Stored:
    """One object: its leaves, what the server adds, and who owns which leaf."""

    fields: dict[Path, Any]
    server: Json
    owned: dict[tuple[str, bool], frozenset[Path]] = field(default_factory=dict)  # (manager, on status)

    def body(self) -> Json:
        body = unflatten(self.fields)
        body["metadata"] = {**body.get("metadata", {}), **deepcopy(self.server)}
        return body


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """One entry of the log that watches replay; `old` tells whether a selector saw the object before."""

    version: int
    kind: ResourceKind
    namespace: str
    old: Json | None
    new: Json | None
    last: Json  # what a DELETED event shows


class MemoryCluster:
    """A `ClusterApi` in memory.

    Args:
        now: the clock for creationTimestamp.
        seed: makes the uids of this cluster differ from those of another; equal seeds and calls give equal uids.
    """

    def __init__(self, *, now: Callable[[], datetime], seed: str = "memory") -> None:
        self._now = now
        self._seed = seed
        self._version = 0
        self._objects: dict[ResourceKind, dict[_Key, _Stored]] = {}
        self._kinds = dict(KNOWN_KINDS)
        self._log: list[_Change] = []
        self._oldest = 0
        self._grown = asyncio.Event()
        self._bookmarks = 0
        self._cut = 0
        self._refused: dict[_Key, str] = {}

    # What tests and the demo do to the cluster, as controllers and kubelets would.

    def put(self, *bodies: Json) -> None:
        """Create or replace whole objects, status included.

        Raises:
            InvalidError: an object lacks apiVersion, kind or metadata.name.
        """
        for body in bodies:
            kind = self._kind_of(body)
            namespace, name = identity(body)
            if not name:
                raise InvalidError(f"{kind.kind}: field `metadata.name` is missing", status=422)
            key = (namespace or ("default" if kind.namespaced else ""), name)
            metadata = {k: v for k, v in body["metadata"].items() if k not in SERVER_METADATA}
            if kind.namespaced:
                metadata["namespace"] = key[0]
            fields = flatten({**body, "metadata": metadata})
            owned = {
                (_PUT_MANAGER, status): frozenset(p for p in fields if is_status(p) == status) - IDENTITY
                for status in (False, True)
            }
            self._store(kind, key, fields, owned, given=body["metadata"])

    def remove(self, kind: ResourceKind, name: str, *, namespace: str | None = None) -> None:
        """Make an object vanish at once, as a finished deletion does."""
        key = (namespace or "", name)
        stored = self._objects.get(kind, {}).pop(key, None)
        if stored is None:
            raise NotFoundError(f'{kind.plural} "{name}" not found', status=404)
        old = stored.body()
        self._version += 1
        last = deepcopy(old)
        last["metadata"]["resourceVersion"] = str(self._version)
        self._append(kind, key[0], old=old, new=None, last=last)

    def register(self, kind: ResourceKind) -> None:
        """Serve a kind that is not among the known ones, as its CustomResourceDefinition would."""
        self._kinds[(kind.api_version, kind.kind)] = kind

    def expire(self) -> None:
        """Forget the log, as etcd's compaction does: watches and continue tokens from before answer 410."""
        self._version += 1
        self._oldest = self._version
        self._log.clear()
        self._wake()

    def bookmark(self) -> None:
        """Send every open watch a bookmark with the current resourceVersion."""
        self._bookmarks += 1
        self._wake()

    def cut_watches(self) -> None:
        """End every open watch, as a server or proxy does at its timeout."""
        self._cut += 1
        self._wake()

    def protect(self, name: str, *, namespace: str, message: str) -> None:
        """Make evictions of this pod fail with `message`, as a PodDisruptionBudget would."""
        self._refused[(namespace, name)] = message

    def objects(self, kind: ResourceKind) -> list[Json]:
        """All objects of a kind, sorted by namespace and name."""
        stored = self._objects.get(kind, {})
        return [stored[key].body() for key in sorted(stored)]

    # The protocol.

    async def get(self, kind: ResourceKind, name: str, *, namespace: str | None = None) -> Json:
        """See `ClusterApi.get`."""
        return self._find(kind, name, namespace).body()

    async def list_page(
        self,
        kind: ResourceKind,
        *,
        namespace: str | None = None,
        limit: int = 500,
        continue_token: str = "",
        label_selector: str = "",
        field_selector: str = "",
    ) -> Page:
        """See `ClusterApi.list_page`."""
        version, after = self._resume(continue_token) if continue_token else (self._version, None)
        keys = [key for key in sorted(self._objects.get(kind, {})) if after is None or key > after]
        items: list[Json] = []
        token, last = "", ("", "")
        for key in keys:
            if namespace is not None and key[0] != namespace:
                continue
            body = self._objects[kind][key].body()
            if not matches(body, label_selector=label_selector, field_selector=field_selector):
                continue
            if len(items) == limit:
                token = _PAGE_SEPARATOR.join((str(version), *last))
                break
            items.append(body)
            last = key
        return Page(items=items, resource_version=str(version), continue_token=token)

    async def watch(
        self,
        kind: ResourceKind,
        *,
        resource_version: str,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        timeout_seconds: int = WATCH_SECONDS,
    ) -> AsyncGenerator[WatchEvent]:
        """See `ClusterApi.watch`."""
        seen = int(resource_version)
        bookmarks, cut = self._bookmarks, self._cut
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        while True:
            if seen < self._oldest:
                raise GoneError(f"too old resource version: {seen} ({self._oldest})", status=410)
            grown = self._grown  # taken before the log is read, so that nothing slips between
            for change in self._changes_after(seen):
                seen = change.version
                if change.kind != kind or (namespace is not None and change.namespace != namespace):
                    continue
                event = _event(change, label_selector=label_selector, field_selector=field_selector)
                if event is not None:
                    yield event
            if bookmarks != self._bookmarks:
                bookmarks = self._bookmarks
                yield WatchEvent("BOOKMARK", _bookmark(kind, self._version))
            if cut != self._cut:
                return
            if seen >= self._oldest and not self._changes_after(seen):
                try:
                    async with asyncio.timeout_at(deadline):
                        await grown.wait()
                except TimeoutError:
                    return

    async def apply(
        self, kind: ResourceKind, body: Json, *, field_manager: str, force: bool = False, dry_run: bool = False
    ) -> Json:
        """See `ClusterApi.apply`."""
        return self._apply(kind, body, field_manager, status=False, force=force, dry_run=dry_run)

    async def apply_status(self, kind: ResourceKind, body: Json, *, field_manager: str, force: bool = False) -> Json:
        """See `ClusterApi.apply_status`."""
        return self._apply(kind, body, field_manager, status=True, force=force, dry_run=False)

    async def delete(
        self, kind: ResourceKind, name: str, *, namespace: str | None = None, uid: str | None = None
    ) -> None:
        """See `ClusterApi.delete`; grace periods and finalizers are not waited for."""
        self._check_uid(kind, name, self._find(kind, name, namespace), uid)
        self.remove(kind, name, namespace=namespace)

    async def evict(self, name: str, *, namespace: str, uid: str | None = None, dry_run: bool = False) -> None:
        """See `ClusterApi.evict`; what `protect` named is refused."""
        self._check_uid(PODS, name, self._find(PODS, name, namespace), uid)
        if (namespace, name) in self._refused:
            raise DisruptionBudgetError(self._refused[(namespace, name)], status=429)
        if not dry_run:
            self.remove(PODS, name, namespace=namespace)

    async def resolve(self, api_version: str, kind: str) -> ResourceKind:
        """See `ClusterApi.resolve`."""
        found = self._kinds.get((api_version, kind))
        if found is None:
            raise NotFoundError(f"the server serves no {kind} in {api_version}", status=404)
        return found

    async def close(self) -> None:
        """Ends every open watch."""
        self.cut_watches()

    # Inside.

    def _wake(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()

    def _kind_of(self, body: Json) -> ResourceKind:
        api_version, kind = body.get("apiVersion"), body.get("kind")
        if not api_version or not kind:
            raise InvalidError("field `apiVersion` or `kind` is missing", status=400)
        found = self._kinds.get((api_version, kind))
        if found is None:
            raise InvalidError(f'no matches for kind "{kind}" in version "{api_version}"', status=400)
        return found

    def _find(self, kind: ResourceKind, name: str, namespace: str | None) -> _Stored:
        stored = self._objects.get(kind, {}).get((namespace or "", name))
        if stored is None:
            raise NotFoundError(f'{kind.plural} "{name}" not found', status=404)
        return stored

    @staticmethod
    def _check_uid(kind: ResourceKind, name: str, stored: _Stored, uid: str | None) -> None:
        if uid is not None and stored.server["uid"] != uid:
            raise ConflictError(
                f'the uid of {kind.plural} "{name}" is {stored.server["uid"]}, not the expected {uid}', status=409
            )

    def _resume(self, continue_token: str) -> tuple[int, _Key]:
        version, namespace, name = continue_token.split(_PAGE_SEPARATOR)
        if int(version) < self._oldest:
            raise GoneError("the continue token is too old", status=410)
        return int(version), (namespace, name)

    def _changes_after(self, version: int) -> list[_Change]:
        return self._log[bisect_right(self._log, version, key=lambda change: change.version) :]

    def _append(self, kind: ResourceKind, namespace: str, *, old: Json | None, new: Json | None, last: Json) -> None:
        self._log.append(_Change(version=self._version, kind=kind, namespace=namespace, old=old, new=new, last=last))
        if len(self._log) > _LOG_LENGTH:
            half = len(self._log) // 2
            self._oldest = self._log[half - 1].version
            del self._log[:half]
        self._wake()

    def _store(
        self,
        kind: ResourceKind,
        key: _Key,
        fields: dict[Path, Any],
        owned: dict[tuple[str, bool], frozenset[Path]],
        *,
        given: Json,
    ) -> _Stored:
        """Write an object that changed; one that did not keeps its resourceVersion and makes no event."""
        known = self._objects.get(kind, {}).get(key)
        if known is not None and known.fields == fields:
            known.owned = owned
            return known
        self._version += 1
        server = self._server_metadata(kind, key, known, fields, given)
        stored = _Stored(fields=fields, server=server, owned=owned)
        self._objects.setdefault(kind, {})[key] = stored
        old = None if known is None else known.body()
        new = stored.body()
        self._append(kind, key[0], old=old, new=new, last=new)
        return stored

    def _server_metadata(
        self, kind: ResourceKind, key: _Key, known: _Stored | None, fields: dict[Path, Any], given: Json
    ) -> Json:
        server: Json
        if known is None:
            text = f"{self._seed}/{kind.api_version}/{kind.kind}/{'/'.join(key)}/{self._version}"
            created = format_time(self._now().replace(microsecond=0))
            server = {
                "uid": given.get("uid") or str(uuid5(NAMESPACE_OID, text)),
                "creationTimestamp": given.get("creationTimestamp") or created,
                "generation": 1,
            }
        else:
            server = dict(known.server)
            server["generation"] += desired(known.fields) != desired(fields)
        if "deletionTimestamp" in given:
            server["deletionTimestamp"] = given["deletionTimestamp"]
        server["resourceVersion"] = str(self._version)
        return server

    def _apply(
        self, kind: ResourceKind, body: Json, field_manager: str, *, status: bool, force: bool, dry_run: bool
    ) -> Json:
        namespace, name = identity(body)
        _check_identity(kind, body)
        key = (namespace or "", name)
        known = self._objects.get(kind, {}).get(key)
        if status and known is None:
            raise NotFoundError(f'{kind.plural} "{name}" not found', status=404)
        metadata = body["metadata"]
        if known is not None:
            self._check_uid(kind, name, known, metadata.get("uid"))
            if metadata.get("resourceVersion", known.server["resourceVersion"]) != known.server["resourceVersion"]:
                raise ConflictError(f'{kind.plural} "{name}" has been modified; read it again', status=409)
        intent = intent_of(body, status=status)
        owned = {} if known is None else dict(known.owned)
        live = {} if known is None else known.fields
        take_over(owned, live, intent, (field_manager, status), force=force)
        mine = owned.get((field_manager, status), frozenset())
        others = frozenset[Path]().union(*(paths for who, paths in owned.items() if who != (field_manager, status)))
        fields = applied(live, intent, dropped=mine - intent.keys() - others)
        owned[(field_manager, status)] = frozenset(intent) - IDENTITY
        if dry_run:
            return _Stored(fields=fields, server={} if known is None else known.server).body()
        return self._store(kind, key, fields, owned, given={}).body()


def _check_identity(kind: ResourceKind, body: Json) -> None:
    namespace, name = identity(body)
    if (body.get("apiVersion"), body.get("kind")) != (kind.api_version, kind.kind):
        raise InvalidError(
            f"the object is {body.get('apiVersion')} {body.get('kind')}, not {kind.api_version} {kind.kind}", status=400
        )
    if not name:
        raise InvalidError(f"{kind.kind}: field `metadata.name` is missing", status=422)
    if kind.namespaced != bool(namespace):
        need = "is missing" if kind.namespaced else "does not belong to a cluster-scoped kind"
        raise InvalidError(f"{kind.kind} {name}: field `metadata.namespace` {need}", status=422)


def _event(change: _Change, *, label_selector: str, field_selector: str) -> WatchEvent | None:
    """What a watch with these selectors sees: an object that leaves the selection is DELETED to it."""
    before, after = (
        body is not None and matches(body, label_selector=label_selector, field_selector=field_selector)
        for body in (change.old, change.new)
    )
    if not before and not after:
        return None
    kind: EventType = "MODIFIED" if before and after else "ADDED" if after else "DELETED"
    return WatchEvent(kind, deepcopy(change.last))


def _bookmark(kind: ResourceKind, version: int) -> Json:
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"resourceVersion": str(version)}}
