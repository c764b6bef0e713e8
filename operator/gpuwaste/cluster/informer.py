"""Keeps small records of all objects of one kind: lists in pages, then watches, and lists again when told to."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from gpuwaste.cluster.errors import ApiError, GoneError
from gpuwaste.model.errors import UnreachableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from datetime import datetime
    from random import Random

    from gpuwaste.cluster.api import ClusterApi, Json
    from gpuwaste.cluster.kinds import ResourceKind

__all__ = ["TOMBSTONE_AGE", "Informer", "Tombstone", "backoff_seconds"]

_log = logging.getLogger(__name__)

TOMBSTONE_AGE = timedelta(days=1)
"""How long a deleted object is remembered: usage windows of its last minutes may come that late."""

_FIRST_BACKOFF_SECONDS = 0.5
_LONGEST_BACKOFF_SECONDS = 30.0
_SHORT_WATCH_SECONDS = 1.0


class _Record(Protocol):
    @property
    def uid(self) -> str: ...
    @property
    def deleting(self) -> datetime | None: ...


R = TypeVar("R", bound=_Record)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone(Generic[R]):
    """The last record of a deleted object, and when it ended."""

    record: R
    end: datetime


def backoff_seconds(failures: int, random: Random) -> float:
    """How long to wait after so many failures in a row: exponential, at most 30 s, with full jitter."""
    longest = min(_LONGEST_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2 ** min(failures, 10))
    return random.uniform(0, longest)


class Informer(Generic[R]):
    """All objects of one kind as records, by uid.

    Args:
        api: the API server.
        kind: what to list and watch.
        transform: object to record; raises KeyError, TypeError or ValueError for one it cannot read, which is then
            left out and named in `rejected`.
        on_change: called after every change of the records; must be quick.
        now: the clock, for the end of an object whose deletion nobody saw.
        random: for jitter.
        sleep: waits between attempts.
        page_size: objects a page of the list.
    """

    def __init__(
        self,
        *,
        api: ClusterApi,
        kind: ResourceKind,
        transform: Callable[[Json], R],
        on_change: Callable[[], None],
        now: Callable[[], datetime],
        random: Random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        page_size: int = 500,
    ) -> None:
        self._api, self._kind, self._transform = api, kind, transform
        self._on_change, self._now, self._random, self._sleep = on_change, now, random, sleep
        self._page_size = page_size
        self._records: dict[str, R] = {}
        self._tombstones: dict[str, Tombstone[R]] = {}
        self._rejected: dict[str, str] = {}
        self._synced = False
        self._failures = 0
        self.generation = 0
        """Rises with every change of records or tombstones."""
        self.last_error: str | None = None
        """Why the server is not being followed right now; None while it is."""

    def synced(self) -> bool:
        """Whether one whole list has been read."""
        return self._synced

    @property
    def records(self) -> Mapping[str, R]:
        """What exists, by uid; changes as events come, so copy it to keep it."""
        return self._records

    @property
    def tombstones(self) -> Mapping[str, Tombstone[R]]:
        """What was deleted within the last day, by uid; changes as events come."""
        return self._tombstones

    @property
    def rejected(self) -> Mapping[str, str]:
        """Objects that could not be read, as `namespace/name`, and why."""
        return self._rejected

    async def run(self) -> None:
        """List and watch until cancelled; failures are waited out and show in `last_error`."""
        version = ""
        clock = asyncio.get_running_loop().time
        while True:
            try:
                if not version:
                    version = await self._relist()
                seen, began = version, clock()
                version = await self._watch(version)
                # A watch that ends at once and says nothing must not become a busy loop.
                silent = version == seen and clock() - began < _SHORT_WATCH_SECONDS
                self._failures = self._failures + 1 if silent else 0
            except GoneError as error:
                version = ""
                self._failed(error)
            except _WatchBrokenError as error:
                version = error.version
                self._failed(error.cause)
            except (UnreachableError, ApiError) as error:
                self._failed(error)
            if self._failures:
                await self._sleep(backoff_seconds(self._failures, self._random))

    def prune(self) -> None:
        """Forget tombstones older than a day."""
        oldest = self._now() - TOMBSTONE_AGE
        old = [uid for uid, tombstone in self._tombstones.items() if tombstone.end < oldest]
        for uid in old:
            del self._tombstones[uid]
        if old:
            self.generation += 1

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        self.last_error = str(error)
        _log.warning("cannot follow %s (attempt %d): %s", self._kind.plural, self._failures, error)

    def _followed(self) -> None:
        self._failures = 0
        self.last_error = None

    async def _relist(self) -> str:
        """Read the whole list, then replace the records at once; returns the version to watch from."""
        fresh: dict[str, R] = {}
        self._rejected = {}
        token = version = ""
        while True:
            page = await self._api.list_page(self._kind, limit=self._page_size, continue_token=token)
            version = version or page.resource_version
            for item in page.items:
                # Items of a typed list come without their own apiVersion and kind.
                record = self._read({"apiVersion": self._kind.api_version, "kind": self._kind.kind, **item})
                if record is not None:
                    fresh[record.uid] = record
            token = page.continue_token
            if not token:
                break
        for uid, record in self._records.items():
            if uid not in fresh:
                self._bury(record)
        self._records = fresh
        for uid in fresh:
            self._tombstones.pop(uid, None)
        self._synced = True
        self._followed()
        self._changed()
        return version

    async def _watch(self, version: str) -> str:
        """Follow changes until the watch ends; returns the version of the last one."""
        try:
            async with aclosing(self._api.watch(self._kind, resource_version=version)) as events:
                async for event in events:
                    self._followed()
                    version = event.object["metadata"]["resourceVersion"]
                    if event.type != "BOOKMARK":
                        self._take(event.object, deleted=event.type == "DELETED")
        except GoneError:
            raise
        except (UnreachableError, ApiError) as error:
            raise _WatchBrokenError(version, error) from error
        return version

    def _take(self, body: Json, *, deleted: bool) -> None:
        record = self._read(body)
        if record is None:
            return
        if deleted:
            self._records.pop(record.uid, None)
            self._bury(record)
        elif self._records.get(record.uid) == record:
            return
        else:
            self._records[record.uid] = record
        self._changed()

    def _bury(self, record: R) -> None:
        """Keep what was deleted; its end is its own deletionTimestamp, which every observer reads alike.

        Only where that is missing (deleted without grace, or while nobody looked) the clock stands in.
        """
        self._tombstones[record.uid] = Tombstone(record=record, end=record.deleting or self._now())
        self.prune()

    def _read(self, body: Json) -> R | None:
        metadata = body.get("metadata") or {}
        name = "/".join(part for part in (metadata.get("namespace"), metadata.get("name")) if part)
        try:
            record = self._transform(body)
        except (KeyError, TypeError, ValueError) as error:
            self._rejected[name] = f"{type(error).__name__}: {error}"
            _log.warning("%s %s cannot be read and is left out: %r", self._kind.kind, name, error)
            return None
        self._rejected.pop(name, None)
        return record

    def _changed(self) -> None:
        self.generation += 1
        self._on_change()


class _WatchBrokenError(Exception):
    """A watch failed after it had come to `version`: from there it goes on, without a new list."""

    def __init__(self, version: str, cause: Exception) -> None:
        super().__init__(str(cause))
        self.version, self.cause = version, cause
