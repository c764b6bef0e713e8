"""Hours from before the first agent, read from Prometheus at the operator's start, newest first.

What is stored is the only memory: an hour has a journal of its own, and one that is stored is not read again. So a
start after a kill goes on where the last one ended, and a later start finds nothing to do. Reading runs in a thread
beside the passes; storing is a part of a pass, as it is for agents' windows.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from gpuwaste.api import ConditionStatus, Reason
from gpuwaste.ingest.prometheus.source import step_for
from gpuwaste.ingest.prometheus.windows import journal_of
from gpuwaste.model.errors import GpuwasteError
from gpuwaste.model.facts import Fact, merge_facts
from gpuwaste.model.units import HOUR, hour_start, to_unix_ns
from gpuwaste.model.windows import PROMETHEUS_JOURNAL
from gpuwaste.waste.pools import Backfilled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime

    from gpuwaste.cluster.state import ClusterSnapshot
    from gpuwaste.ingest.prometheus.source import PrometheusSource, SourceHour, StoreFacts
    from gpuwaste.ledger.inputs import InputStore

__all__ = ["Backfill"]

_log = logging.getLogger(__name__)
_HOURS_AT_ONCE = 6
_WAITING_HOURS = 2
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 30.0, 900.0
_LAG = timedelta(minutes=5)


@dataclass(slots=True, kw_only=True)
class Backfill:
    """Reads hours, and hands them to the passes.

    Attributes:
        source: where they come from.
        inputs: what is stored.
        snapshot: the cluster as it is now.
        days: how far back.
        now: the clock.
        sleep: waits between attempts.
        problem: why nothing is being read; empty while all is well.
        done: whether there is nothing left to read.
        total: hours that this start found missing.
        left: those of them that are not stored yet.
    """

    source: PrometheusSource
    inputs: InputStore
    snapshot: Callable[[], ClusterSnapshot]
    days: int
    now: Callable[[], datetime]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    problem: str = ""
    done: bool = False
    total: int = 0
    left: int = 0
    _ready: asyncio.Queue[tuple[SourceHour, list[Fact]]] = field(
        default_factory=lambda: asyncio.Queue(maxsize=_WAITING_HOURS)
    )

    async def run(self) -> None:
        """Read until everything was read; a store that does not answer is asked again after a while."""
        pause = _FIRST_PAUSE_SECONDS
        while not self.done:
            try:
                await self._read_all()
            except GpuwasteError as error:
                if self.problem != str(error):
                    _log.warning("backfill from %s waits: %s", self.source.store.address, error)
                self.problem = str(error)
                await self.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def _read_all(self) -> None:
        now = self.now()
        looked = await asyncio.to_thread(self.source.look, now)
        if looked.wrong_clock:
            self.problem, self.done = looked.wrong_clock[0], True
            _log.warning("no backfill from %s: %s", self.source.store.address, self.problem)
            return
        self.source.step_seconds = step_for(looked.devices, 24)
        hours = await asyncio.to_thread(self._missing, now, looked)
        self.total, self.left = len(hours), len(hours)
        if hours:
            _log.info("backfill: %d hours from %s", len(hours), self.source.store.address)
        for first in range(0, len(hours), _HOURS_AT_ONCE):
            self.problem = ""
            await self._read(hours[first : first + _HOURS_AT_ONCE], looked)
        self.problem, self.done = "", True
        if hours:
            _log.info("backfill: the last of %d hours is read", len(hours))

    def _missing(self, now: datetime, looked: StoreFacts) -> list[datetime]:
        """Full hours with data that are not stored, newest first, up to the first one of an agent."""
        end = hour_start(now - _LAG)
        start = max(end - timedelta(days=self.days), end - timedelta(days=30))
        journals = {hour: self.inputs.journals(hour) for hour in self.inputs.hours() if start <= hour < end}
        of_agents = [
            hour for hour, mine in journals.items() if any(not one.startswith(PROMETHEUS_JOURNAL) for one in mine)
        ]
        if of_agents:
            end = min(of_agents) + HOUR
        have = self.source.hours_with_data(start, end, looked.metrics)
        return [
            hour
            for hour in reversed(have)
            if journal_of(self.source.cluster, to_unix_ns(hour)) not in journals.get(hour, ())
        ]

    async def _read(self, hours: Sequence[datetime], looked: StoreFacts) -> None:
        """Read one stretch, which may have holes, and wait until its hours are taken."""
        facts = await asyncio.to_thread(self.snapshot().facts)
        wanted = set(hours)
        found = await asyncio.to_thread(
            lambda: list(self.source.read(min(hours), max(hours) + HOUR, facts=facts, looked=looked))
        )
        known = {hour.hour for hour in found if hour.windows.num_rows}
        self.left -= len(wanted - known)
        for hour in reversed(found):
            if hour.hour in wanted & known:
                await self._ready.put((hour, facts))

    async def store(self) -> set[datetime]:
        """Store what was read, as a part of a pass.

        Returns:
            The hours that changed.
        """
        changed: set[datetime] = set()
        while not self._ready.empty():
            changed |= await asyncio.to_thread(self._store, *self._ready.get_nowait())
            self.left -= 1
        return changed

    def condition(self) -> Backfilled:
        """How far it is, for people."""
        stored = self.total - self.left
        of = f"{stored} of {self.total} hours are stored"
        if self.done and self.problem:
            return Backfilled(status=ConditionStatus.FALSE, reason=Reason.FAILED, message=f"{self.problem}.")
        if self.done and not self.left:
            text = f"All {self.total} missing hours are stored." if self.total else "No hour was missing."
            return Backfilled(status=ConditionStatus.TRUE, reason=Reason.DONE, message=text)
        if self.problem:
            message = f"{of}; waiting: {self.problem}."
            return Backfilled(status=ConditionStatus.FALSE, reason=Reason.WAITING, message=message)
        return Backfilled(status=ConditionStatus.FALSE, reason=Reason.RUNNING, message=f"{of}.")

    def _store(self, hour: SourceHour, facts: list[Fact]) -> set[datetime]:
        """Facts come first: an hour that has its windows has its facts, wherever a kill comes."""
        end = hour.hour + HOUR
        mine = [fact for fact in facts if fact.overlaps(hour.hour, end) or fact.kind in ("owner", "namespace")]
        self.inputs.write_facts(hour.hour, merge_facts(list(hour.facts), mine))
        return self.inputs.append_windows(hour.windows)
