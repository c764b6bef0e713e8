"""Write objects that changed by more than they are worth, a few a second, and remove those nobody needs."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

from gpuwaste.api import Resource
from gpuwaste.cluster.api import list_pages
from gpuwaste.cluster.errors import NotFoundError
from gpuwaste.cluster.kinds import GPU_POOLS, GPU_RESERVATIONS, GPU_WASTES, RIGHTSIZING_PLANS, ResourceKind
from gpuwaste.model.errors import GpuwasteError
from gpuwaste.model.units import parse_time
from gpuwaste.runtime.events import event_about, post_event

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from gpuwaste.cluster.api import ClusterApi, Json

__all__ = ["CHECKER", "FIELD_MANAGER", "ObjectWriter", "WriteResult", "worth_writing"]

_log = logging.getLogger(__name__)
FIELD_MANAGER = "gpuwaste-operator"
CHECKER = f"{FIELD_MANAGER}-checks"
"""Who says whether an object that a person wrote is understood; the rest of its status is another's to write."""
_KINDS: dict[str, ResourceKind] = {
    "GPUWaste": GPU_WASTES,
    "GPUPool": GPU_POOLS,
    "RightsizingPlan": RIGHTSIZING_PLANS,
    "GPUReservation": GPU_RESERVATIONS,
}
_WRITTEN_BY_PEOPLE = frozenset({"GPUReservation"})
"""Of these only the status is ours."""
_TOLD = frozenset({"GPUPool", "GPUReservation"})
"""Kinds about whose conditions there are events; workloads are too many for that."""
_NO_FAULT = frozenset({"NotStarted", "NoData", "Pending"})
_TRUE: Final = {"status": "True"}
_REFRESH = timedelta(hours=1)
_RELATIVE_CHANGE = 0.02
_POINTS = 2
_Key = tuple[str, str, str]
_Model = TypeVar("_Model", bound=Resource)


@dataclass(slots=True)
class WriteResult:
    """What one pass did."""

    written: int = 0
    unchanged: int = 0
    removed: int = 0
    left: int = 0
    failed: dict[str, str] = field(default_factory=dict)


def worth_writing(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether the status changed by more than a write is worth.

    A condition, an advice or any other word that changed counts; a number counts from 2 % on, a percentage from more
    than two points; everything is refreshed once an hour. The window of the running hour grows with every minute and
    counts only where it is alone.
    """
    if not old:
        return True
    times = (str(old.get("observedTime", "")), str(new.get("observedTime", "")))
    if all(times) and parse_time(times[1]) - parse_time(times[0]) >= _REFRESH:
        return True
    return _differs(old, new)


def conditions_of(body: Mapping[str, Any] | None) -> dict[str, Json]:
    """The conditions of an object by type."""
    status = (body or {}).get("status") or {}
    return {one["type"]: one for one in status.get("conditions") or ()}


_QUIET = ("lastTransitionTime", "observedTime", "fromTime", "toTime", "observedGeneration")
_GROWING = "1h"
_SEVERAL = 2


def _differs(old: Any, new: Any, *, words_only: bool = False) -> bool:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = (old.keys() | new.keys()) - set(_QUIET)
        return any(
            _points_differ(old.get(key), new.get(key), words_only=words_only)
            if key.lower().endswith("percent")
            else _differs(_settled(key, old.get(key)), _settled(key, new.get(key)), words_only=words_only)
            for key in keys
        )
    if isinstance(old, list) and isinstance(new, list):
        return len(old) != len(new) or any(_differs(a, b, words_only=words_only) for a, b in zip(old, new, strict=True))
    numbers = (_number(old), _number(new))
    if None not in numbers:
        a, b = float(numbers[0] or 0), float(numbers[1] or 0)
        return not words_only and abs(a - b) > _RELATIVE_CHANGE * max(abs(a), abs(b))
    return bool(old != new)


def _points_differ(old: Any, new: Any, *, words_only: bool) -> bool:
    """Whether a percentage moved by more than two points: of a small one a single point is a large part."""
    numbers = (_number(old), _number(new))
    if None in numbers:
        return bool(old != new)
    return not words_only and abs((numbers[0] or 0) - (numbers[1] or 0)) > _POINTS


def _settled(key: str, value: Any) -> Any:
    """The windows without that of the running hour, where there are longer ones."""
    if key != "windows" or not isinstance(value, list) or len(value) < _SEVERAL:
        return value
    return [window for window in value if window.get("window") != _GROWING]


def _number(value: Any) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        try:
            return float(value.replace(",", "").split(" ")[0])
        except ValueError:
            return None
    return None


def _key_of(item: Resource) -> _Key:
    return (item.info.kind, item.metadata.namespace or "", item.metadata.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """An object that is worth writing; the smallest `order` is written first."""

    order: tuple[bool, str, _Key]
    key: _Key
    manifest: Json
    status: Json
    new_spec: bool


@dataclass(slots=True, kw_only=True)
class ObjectWriter:
    """Holds what the API server holds of our objects, and applies the difference.

    Attributes:
        api: the API server.
        writes_per_second: upper limit of all writes.
        limit_seconds: how long one call may go on writing; what is left waits for the next.
        sleep: waits.
    """

    api: ClusterApi
    writes_per_second: float
    limit_seconds: float = 30.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _stored: dict[_Key, Json] = field(default_factory=dict)
    _loaded: bool = False
    _spent: int = 0

    async def load(self) -> None:
        """Read our objects once; after that the answers to our own writes keep the copy right."""
        for name, kind in _KINDS.items():
            async for page in list_pages(self.api, kind):
                for item in page.items:
                    meta = item["metadata"]
                    self._stored[name, meta.get("namespace", ""), meta["name"]] = item
        self._loaded = True

    def previous(self, model: type[_Model], name: str, namespace: str = "") -> _Model | None:
        """The object of a kind as last seen; None where there is none."""
        raw = self._stored.get((model.info.kind, namespace, name))
        return None if raw is None else model.parse(raw)

    def remember(self, items: Iterable[Json]) -> None:
        """Take in how objects are that people write, so that they are compared with what is there now."""
        for item in items:
            meta = item["metadata"]
            self._stored[item["kind"], meta.get("namespace", ""), meta["name"]] = item

    async def write(self, objects: Iterable[Resource], *, owns: Iterable[str] = ()) -> WriteResult:
        """Apply what changed, until the time for it is over; the next call goes on where this one ended.

        What is new or changed in a word comes first, then what was written longest ago.

        Args:
            objects: all objects that should be there, of the kinds in `owns` at least.
            owns: kinds of which every object not among `objects` is removed.
        """
        if not self._loaded:
            await self.load()
        listed = list(objects)
        result = WriteResult()
        changes = await asyncio.to_thread(self._changes, listed)
        result.unchanged = len(listed) - len(changes)
        allowed = max(round(self.limit_seconds * self.writes_per_second), 1)
        for change in changes:
            if self._spent >= allowed:
                result.left += 1
                continue
            try:
                await self._apply(change, result)
            except GpuwasteError as error:
                result.failed["/".join(part for part in change.key if part)] = str(error)
        wanted = {_key_of(item) for item in listed}
        for key in [key for key in self._stored if key[0] in set(owns) and key not in wanted]:
            if self._spent >= allowed:
                result.left += 1
            else:
                await self._remove(key, result)
        self._spent = 0
        return result

    def _changes(self, objects: Sequence[Resource]) -> list[_Change]:
        """What is worth writing, in the order in which it is. Runs beside the event loop: it is much for thousands."""
        changes = []
        for item in objects:
            key = _key_of(item)
            stored = self._stored.get(key)
            manifest, status = item.manifest(), item.status_manifest()
            is_ours = key[0] not in _WRITTEN_BY_PEOPLE
            new_spec = is_ours and (stored is None or stored.get("spec") != manifest["spec"])
            old = (stored or {}).get("status") or {}
            if new_spec or worth_writing(old, status["status"]):
                urgent = new_spec or not old or _differs(old, status["status"], words_only=True)
                order = (not urgent, str(old.get("observedTime", "")), key)
                changes.append(_Change(order=order, key=key, manifest=manifest, status=status, new_spec=new_spec))
        return sorted(changes, key=lambda change: change.order)

    async def _apply(self, change: _Change, result: WriteResult) -> None:
        key = change.key
        before = conditions_of(self._stored.get(key))
        stored = await self._apply_spec(change) if change.new_spec else self._stored.get(key) or {}
        if not worth_writing(stored.get("status") or {}, change.status["status"]):
            result.unchanged += 1
            return
        try:
            await self._apply_status(change)
        except NotFoundError:
            # Somebody removed it, perhaps with its namespace, which may be there again.
            self._stored.pop(key, None)
            if key[0] in _WRITTEN_BY_PEOPLE:
                result.unchanged += 1
                return
            await self._apply_spec(change)
            await self._apply_status(change)
        result.written += 1
        if key[0] in _TOLD:
            await self._tell(before, self._stored[key])

    async def _apply_spec(self, change: _Change) -> Json:
        await self._turn()
        kind = _KINDS[change.key[0]]
        stored = await self.api.apply(kind, change.manifest, field_manager=FIELD_MANAGER, force=True)
        self._stored[change.key] = stored
        return stored

    async def _apply_status(self, change: _Change) -> None:
        await self._turn()
        kind, key = _KINDS[change.key[0]], change.key
        self._stored[key] = await self.api.apply_status(kind, change.status, field_manager=FIELD_MANAGER, force=True)

    async def _tell(self, before: Mapping[str, Json], body: Json) -> None:
        """An event for each condition that is another than before; of a new object for those that are not true."""
        for name, condition in conditions_of(body).items():
            if condition["status"] == before.get(name, _TRUE)["status"]:
                continue
            quiet = condition["status"] == "True" or condition["reason"] in _NO_FAULT
            event = event_about(
                body,
                type_="Normal" if quiet else "Warning",
                reason=condition["reason"],
                message=condition["message"],
                now=parse_time(condition["lastTransitionTime"]),
            )
            try:
                await self._turn()
                await post_event(self.api, event)
            except GpuwasteError as error:  # an event is no state; the status says the same
                _log.warning("event not written: %s", error)

    async def _remove(self, key: _Key, result: WriteResult) -> None:
        try:
            await self._turn()
            await self.api.delete(_KINDS[key[0]], key[2], namespace=key[1] or None)
        except NotFoundError:
            _log.debug("already gone", extra={"object": "/".join(key)})
        except GpuwasteError as error:
            result.failed["/".join(key)] = str(error)
            return
        self._stored.pop(key, None)
        result.removed += 1

    async def _turn(self) -> None:
        self._spent += 1
        await self.sleep(1.0 / self.writes_per_second)
