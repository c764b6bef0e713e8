"""Write objects that changed by more than they are worth, a few a second, and remove those nobody needs."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from gpuwaste.api import Resource
from gpuwaste.cluster.errors import NotFoundError
from gpuwaste.cluster.kinds import GPU_POOLS, GPU_WASTES, RIGHTSIZING_PLANS, ResourceKind
from gpuwaste.model.errors import GpuwasteError
from gpuwaste.model.units import parse_time

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from gpuwaste.cluster.api import ClusterApi, Json

__all__ = ["FIELD_MANAGER", "ObjectWriter", "WriteResult", "worth_writing"]

_log = logging.getLogger(__name__)
FIELD_MANAGER = "gpuwaste-operator"
_KINDS: dict[str, ResourceKind] = {"GPUWaste": GPU_WASTES, "GPUPool": GPU_POOLS, "RightsizingPlan": RIGHTSIZING_PLANS}
_REFRESH = timedelta(hours=1)
_RELATIVE_CHANGE = 0.02
_Key = tuple[str, str, str]
_Model = TypeVar("_Model", bound=Resource)


@dataclass(slots=True)
class WriteResult:
    """What one pass did."""

    written: int = 0
    unchanged: int = 0
    removed: int = 0
    failed: dict[str, str] = field(default_factory=dict)


def worth_writing(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether the status changed by more than a write is worth.

    A condition, an advice or any other word that changed counts; a number counts from 2 % on; everything is
    refreshed once an hour.
    """
    if not old:
        return True
    times = (str(old.get("observedTime", "")), str(new.get("observedTime", "")))
    if all(times) and parse_time(times[1]) - parse_time(times[0]) >= _REFRESH:
        return True
    return _differs(old, new)


_QUIET = ("lastTransitionTime", "observedTime", "fromTime", "toTime", "observedGeneration")


def _differs(old: Any, new: Any) -> bool:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = (old.keys() | new.keys()) - set(_QUIET)
        return any(_differs(old.get(key), new.get(key)) for key in keys)
    if isinstance(old, list) and isinstance(new, list):
        return len(old) != len(new) or any(_differs(a, b) for a, b in zip(old, new, strict=True))
    numbers = (_number(old), _number(new))
    if None not in numbers:
        a, b = float(numbers[0] or 0), float(numbers[1] or 0)
        return abs(a - b) > _RELATIVE_CHANGE * max(abs(a), abs(b))
    return bool(old != new)


def _number(value: Any) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        try:
            return float(value.replace(",", "").split(" ")[0])
        except ValueError:
            return None
    return None


@dataclass(slots=True, kw_only=True)
class ObjectWriter:
    """Holds what the API server holds of our objects, and applies the difference.

    Attributes:
        api: the API server.
        writes_per_second: upper limit of all writes.
        sleep: waits.
    """

    api: ClusterApi
    writes_per_second: float
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _stored: dict[_Key, Json] = field(default_factory=dict)
    _loaded: bool = False

    async def load(self) -> None:
        """Read our objects once; after that the answers to our own writes keep the copy right."""
        for name, kind in _KINDS.items():
            token = ""
            while True:
                page = await self.api.list_page(kind, limit=500, continue_token=token)
                for item in page.items:
                    meta = item["metadata"]
                    self._stored[name, meta.get("namespace", ""), meta["name"]] = item
                token = page.continue_token
                if not token:
                    break
        self._loaded = True

    def previous(self, model: type[_Model], name: str, namespace: str = "") -> _Model | None:
        """The object of a kind as last seen; None where there is none."""
        raw = self._stored.get((model.info.kind, namespace, name))
        return None if raw is None else model.parse(raw)

    async def write(self, objects: Iterable[Resource], *, owns: Iterable[str] = ()) -> WriteResult:
        """Apply what changed.

        Args:
            objects: all objects that should be there, of the kinds in `owns` at least.
            owns: kinds of which every object not among `objects` is removed.
        """
        if not self._loaded:
            await self.load()
        result = WriteResult()
        wanted: set[_Key] = set()
        for item in objects:
            key = (item.info.kind, item.metadata.namespace or "", item.metadata.name)
            wanted.add(key)
            try:
                await self._apply(key, item, result)
            except GpuwasteError as error:
                result.failed["/".join(part for part in key if part)] = str(error)
        for key in [key for key in self._stored if key[0] in set(owns) and key not in wanted]:
            await self._remove(key, result)
        return result

    async def _apply(self, key: _Key, item: Resource, result: WriteResult) -> None:
        kind, stored = _KINDS[key[0]], self._stored.get(key)
        manifest, status = item.manifest(), item.status_manifest()
        if stored is None or stored.get("spec") != manifest["spec"]:
            await self._turn()
            stored = await self.api.apply(kind, manifest, field_manager=FIELD_MANAGER, force=True)
            self._stored[key] = stored
        if worth_writing(stored.get("status") or {}, status["status"]):
            await self._turn()
            self._stored[key] = await self.api.apply_status(kind, status, field_manager=FIELD_MANAGER, force=True)
            result.written += 1
        else:
            result.unchanged += 1

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
        await self.sleep(1.0 / self.writes_per_second)
