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

from gpuwaste.ingest.prometheus.source import step_for
from gpuwaste.ingest.prometheus.windows import journal_of
from gpuwaste.model.errors import GpuwasteError
from gpuwaste.model.facts import Fact, merge_facts
from gpuwaste.model.units import HOUR, hour_start, to_unix_ns
from gpuwaste.model.windows import PROMETHEUS_JOURNAL

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
    """

    source: PrometheusSource
    inputs: InputStore
    snapshot: Callable[[], ClusterSnapshot]
    days: int
    now: Callable[[], datetime]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    problem: str = ""
    done: bool = False
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
        if hours:
            _log.info("backfill: %d hours from %s", len(hours), self.source.store.address)
        for first in range(0, len(hours), _HOURS_AT_ONCE):
            await self._read(hours[first : first + _HOURS_AT_ONCE], looked)
        self.problem, self.done = "", True

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
        for hour in reversed(found):
            if hour.hour in wanted and hour.windows.num_rows:
                await self._ready.put((hour, facts))

    async def store(self) -> set[datetime]:
        """Store what was read, as a part of a pass.

        Returns:
            The hours that changed.
        """
        changed: set[datetime] = set()
        while not self._ready.empty():
            changed |= await asyncio.to_thread(self._store, *self._ready.get_nowait())
        return changed

    def _store(self, hour: SourceHour, facts: list[Fact]) -> set[datetime]:
        """Facts come first: an hour that has its windows has its facts, wherever a kill comes."""
        end = hour.hour + HOUR
        mine = [fact for fact in facts if fact.overlaps(hour.hour, end) or fact.kind in ("owner", "namespace")]
        self.inputs.write_facts(hour.hour, merge_facts(list(hour.facts), mine))
        return self.inputs.append_windows(hour.windows)
