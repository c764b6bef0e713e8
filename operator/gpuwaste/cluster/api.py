"""The protocol through which everything speaks to an API server: raw JSON in, raw JSON out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from gpuwaste.cluster.kinds import ResourceKind

__all__ = ["WATCH_SECONDS", "ClusterApi", "EventType", "Json", "Page", "WatchEvent", "identity", "list_pages"]

Json = dict[str, Any]
EventType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]

WATCH_SECONDS = 240
"""How long one watch lasts before the server ends it and the caller watches on from where it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of a list. `continue_token` is empty on the last one; `resource_version` starts a watch."""

    items: list[Json]
    resource_version: str
    continue_token: str = ""


class WatchEvent(NamedTuple):
    """One change; of a BOOKMARK only `metadata.resourceVersion` means anything."""

    type: EventType
    object: Json


class ClusterApi(Protocol):
    """An API server, real or in memory.

    Every call raises one of `gpuwaste.cluster.errors`, or `UnreachableError` where nothing answered in time.
    """

    async def get(self, kind: ResourceKind, name: str, *, namespace: str | None = None) -> Json:
        """One object.

        Raises:
            NotFoundError: there is none of that name.
        """
        ...

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
        """One page of at most `limit` objects, of one namespace or of all.

        Raises:
            GoneError: the continue token is too old; start again from the first page.
        """
        ...

    def watch(
        self,
        kind: ResourceKind,
        *,
        resource_version: str,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        timeout_seconds: int = WATCH_SECONDS,
    ) -> AsyncGenerator[WatchEvent]:
        """Changes after `resource_version`, bookmarks among them; ends after `timeout_seconds` without an error.

        Close it (`contextlib.aclosing`) when leaving it early.

        Raises:
            GoneError: the resourceVersion is too old; list again.
        """
        ...

    async def apply(
        self, kind: ResourceKind, body: Json, *, field_manager: str, force: bool = False, dry_run: bool = False
    ) -> Json:
        """Server-side apply of the whole intent of `field_manager`; what it no longer names is removed.

        Raises:
            ConflictError: another manager owns a field and `force` is False.
            InvalidError: the object breaks its schema.
        """
        ...

    async def apply_status(self, kind: ResourceKind, body: Json, *, field_manager: str, force: bool = False) -> Json:
        """The same on the status subresource: of `body` only identity and `status` count; the object must exist."""
        ...

    async def delete(
        self, kind: ResourceKind, name: str, *, namespace: str | None = None, uid: str | None = None
    ) -> None:
        """Delete one object, only if it is the one with `uid` where that is given.

        Raises:
            NotFoundError: there is none of that name.
            ConflictError: it has another uid.
        """
        ...

    async def evict(self, name: str, *, namespace: str, uid: str | None = None, dry_run: bool = False) -> None:
        """Evict a pod under its PodDisruptionBudgets.

        Raises:
            DisruptionBudgetError: a budget does not allow it now.
            NotFoundError: there is no such pod.
            ConflictError: the pod has another uid.
        """
        ...

    async def resolve(self, api_version: str, kind: str) -> ResourceKind:
        """Where objects of that apiVersion and kind live: known ones at once, others by discovery, once.

        Raises:
            NotFoundError: the server does not serve it.
        """
        ...

    async def close(self) -> None:
        """Let go of connections and temporary files."""
        ...


def identity(body: Json) -> tuple[str | None, str]:
    """Namespace (None for a cluster-scoped object) and name of an object."""
    metadata = body.get("metadata") or {}
    return metadata.get("namespace"), str(metadata.get("name", ""))


async def list_pages(
    api: ClusterApi, kind: ResourceKind, *, namespace: str | None = None, limit: int = 500, label_selector: str = ""
) -> AsyncGenerator[Page]:
    """All pages of a list, one after the other; raises what `list_page` raises."""
    token = ""
    while True:
        page = await api.list_page(
            kind, namespace=namespace, limit=limit, continue_token=token, label_selector=label_selector
        )
        yield page
        token = page.continue_token
        if not token:
            return
