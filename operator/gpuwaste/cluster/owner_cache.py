"""The objects that own pods, fetched one by one by following owner references upwards, and remembered."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from gpuwaste.cluster.errors import ApiError, NotFoundError
from gpuwaste.cluster.owners import owner_chain
from gpuwaste.cluster.records import owner_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from gpuwaste.cluster.api import ClusterApi
    from gpuwaste.cluster.records import OwnerRecord, PodRecord, RecordRules
    from gpuwaste.model.facts import OwnerRef

__all__ = ["OwnerCache"]

_log = logging.getLogger(__name__)

_FRESH = timedelta(minutes=15)
"""After this long an owner is asked for again: its labels may name another team, or the refusal may be lifted."""

_AT_ONCE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """What the server said about one owner; `record` is None where it was never readable."""

    record: OwnerRecord | None
    asked: datetime
    problem: str | None = None


class OwnerCache:
    """Owners by uid.

    A missing owner (404) and one that may not be read (403) end a chain and are no error: the reference that led
    to it still tells its kind, name and uid.

    Args:
        api: the API server.
        rules: which annotations are kept.
        now: the clock that ages what is remembered.
    """

    def __init__(self, *, api: ClusterApi, rules: RecordRules, now: Callable[[], datetime]) -> None:
        self._api, self._rules, self._now = api, rules, now
        self._entries: dict[str, _Entry] = {}
        self.generation = 0
        """Rises with every change of `records`."""

    @property
    def records(self) -> Mapping[str, OwnerRecord]:
        """The owners that could be read, by uid."""
        return {uid: entry.record for uid, entry in self._entries.items() if entry.record is not None}

    @property
    def problems(self) -> tuple[str, ...]:
        """Owners that may not be read, one line a reason."""
        return tuple(sorted({entry.problem for entry in self._entries.values() if entry.problem}))

    async def update(self, pods: Iterable[PodRecord]) -> bool:
        """Fetch what the chains of these pods lack or hold too long, level by level; forget what none leads to.

        Returns:
            Whether `records` changed.

        Raises:
            UnreachableError: the server does not answer; what was fetched until then is kept.
        """
        starts = [(record.data.namespace, record.data.owner) for record in pods]
        before = self.records
        asked: set[str] = set()
        try:
            while wanted := {uid: at for uid, at in self._wanted(starts).items() if uid not in asked}:
                asked |= wanted.keys()
                await self._fetch_all(wanted)
            self._forget(starts)
        finally:
            changed = self.records != before
            self.generation += changed
        return changed

    def _chains(self, starts: Iterable[tuple[str, OwnerRef | None]]) -> dict[str, tuple[str, OwnerRef]]:
        data = {uid: record.data for uid, record in self.records.items()}
        distinct = {owner.uid: (namespace, owner) for namespace, owner in starts if owner is not None}
        return {
            reference.uid: (namespace, reference)
            for namespace, owner in distinct.values()
            for reference in owner_chain(owner, data)
        }

    def _wanted(self, starts: Iterable[tuple[str, OwnerRef | None]]) -> dict[str, tuple[str, OwnerRef]]:
        oldest = self._now() - _FRESH
        return {
            uid: at
            for uid, at in self._chains(starts).items()
            if uid not in self._entries or self._entries[uid].asked < oldest
        }

    def _forget(self, starts: Iterable[tuple[str, OwnerRef | None]]) -> None:
        used = self._chains(starts)
        for uid in [uid for uid in self._entries if uid not in used]:
            del self._entries[uid]

    async def _fetch_all(self, wanted: Mapping[str, tuple[str, OwnerRef]]) -> None:
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(namespace: str, owner: OwnerRef) -> None:
            async with gate:
                self._entries[owner.uid] = await self._fetch(namespace, owner)

        results = await asyncio.gather(*(one(*at) for at in wanted.values()), return_exceptions=True)
        for error in results:
            if error is not None:
                raise error

    async def _fetch(self, namespace: str, owner: OwnerRef) -> _Entry:
        now = self._now()
        # An owner that was readable once stays known when it goes: its pods may run on.
        before = self._entries.get(owner.uid)
        last = None if before is None else before.record
        try:
            kind = await self._api.resolve(owner.api_version, owner.kind)
            raw = await self._api.get(kind, owner.name, namespace=namespace if kind.namespaced else None)
        except NotFoundError:
            return _Entry(record=last, asked=now)
        except ApiError as error:
            _log.info("owner %s %s/%s cannot be read: %s", owner.kind, namespace, owner.name, error)
            return _Entry(record=last, asked=now, problem=f"owners of kind {owner.kind} cannot be read: {error}")
        record = owner_record({"apiVersion": owner.api_version, "kind": owner.kind, **raw}, self._rules)
        # A new object may have taken the name of the one that is meant.
        return _Entry(record=record if record.uid == owner.uid else last, asked=now)
