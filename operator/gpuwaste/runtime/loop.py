"""The one loop that decides: pull, bring the ledger up to date, show it, and plan now and then."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from gpuwaste.cluster.kinds import NAMESPACES
from gpuwaste.model.errors import GpuwasteError
from gpuwaste.model.units import format_time, hour_start
from gpuwaste.runtime.agents import find_agents
from gpuwaste.runtime.disruption import budget_facts, cordon_facts, read_budgets
from gpuwaste.runtime.objects import Surroundings, build_objects
from gpuwaste.runtime.puller import PullResult
from gpuwaste.runtime.quotas import quota_facts, read_quotas
from gpuwaste.runtime.reservations import parse_reservations, read_reservations, reservation_facts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime

    from gpuwaste.api import GPUReservation, Resource
    from gpuwaste.cluster.api import ClusterApi
    from gpuwaste.cluster.state import ClusterSnapshot, ClusterState
    from gpuwaste.model.facts import Fact
    from gpuwaste.runtime.backfill import Backfill
    from gpuwaste.runtime.books import Books
    from gpuwaste.runtime.chargeback import Chargeback
    from gpuwaste.runtime.metrics import OperatorMetrics
    from gpuwaste.runtime.planning import Planner
    from gpuwaste.runtime.puller import Puller
    from gpuwaste.runtime.receiver import Receiver
    from gpuwaste.runtime.upkeep import Upkeep
    from gpuwaste.runtime.writer import ObjectWriter
    from gpuwaste.settings.operator import OperatorSettings

__all__ = ["Operator", "cluster_name"]

_log = logging.getLogger(__name__)
_SYNC_POLL_SECONDS = 0.1
_LATE_FACTOR = 5
_SHOW_PERIOD = timedelta(seconds=30)
"""While the ledger is catching up, objects are shown only so often."""


async def cluster_name(api: ClusterApi, settings: OperatorSettings) -> str:
    """The name from the settings, else the UID of the namespace kube-system.

    Raises:
        UnreachableError: the API server did not answer.
    """
    if settings.cluster_name:
        return settings.cluster_name
    namespace = await api.get(NAMESPACES, "kube-system")
    return str(namespace["metadata"]["uid"])


@dataclass(slots=True, kw_only=True)
class Operator:
    """Everything one operator holds; `run` goes on until it is cancelled.

    Attributes:
        last_success: end of the last pass without an error.
        failing: agents that did not answer the last pull.
        unwritten: objects that the API server refused in the last pass, and why.
        reservations: what was bought, as the last pass read it.
    """

    settings: OperatorSettings
    api: ClusterApi
    state: ClusterState
    puller: Puller
    books: Books
    writer: ObjectWriter
    planner: Planner
    chargeback: Chargeback
    upkeep: Upkeep
    metrics: OperatorMetrics
    now: Callable[[], datetime]
    backfill: Backfill | None = None
    receiver: Receiver | None = None
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    last_success: datetime | None = None
    _through: datetime | None = None
    _pulled: datetime | None = None
    _shown: datetime | None = None
    _seen_generation: int = -1
    _bought: list[Fact] = field(default_factory=list)
    failing: frozenset[str] = field(default_factory=frozenset)
    unwritten: tuple[str, ...] = ()
    reservations: list[GPUReservation] = field(default_factory=list)

    async def run(self) -> None:
        """Follow the cluster and run a pass whenever one is due."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.state.run(), name="cluster-state")
            tasks.create_task(self._passes(), name="decide-loop")
            tasks.create_task(self.chargeback.run(), name="chargeback")
            if self.backfill is not None:
                tasks.create_task(self._backfill(self.backfill), name="backfill")
            if self.receiver is not None:
                tasks.create_task(self.receiver.run(), name="receiver")

    async def _backfill(self, backfill: Backfill) -> None:
        """Begin once the cluster is known: facts of pods that still run are better than those of metrics."""
        while not self.state.synced():
            await self.sleep(_SYNC_POLL_SECONDS)
        await backfill.run()

    async def _passes(self) -> None:
        while not self.state.synced():
            await self.sleep(_SYNC_POLL_SECONDS)
        await asyncio.to_thread(self.books.recover)
        self._through = await asyncio.to_thread(self.books.newest_window)
        while True:
            more = await self._pass()
            period = min(self.settings.decide_period_seconds, self.settings.agents.pull_period_seconds)
            await self.sleep(0 if more else period)

    async def _pass(self) -> bool:
        try:
            more = await self.step()
        except GpuwasteError as error:
            self.metrics.pass_failures.inc()
            _log.warning("pass failed: %s", error)
            return False
        self.last_success = self.now()
        self.metrics.last_success.set(self.last_success.timestamp())
        return more

    def late(self) -> bool:
        """Whether the loop has not come round for far longer than it should."""
        period = max(self.settings.decide_period_seconds, self.settings.agents.pull_period_seconds)
        limit = timedelta(seconds=_LATE_FACTOR * period + self.settings.plan.time_limit_seconds + 60)
        return self.last_success is not None and self.now() - self.last_success > limit

    async def step(self) -> bool:
        """One pass. Returns whether the next should follow at once.

        Raises:
            GpuwasteError: something needed did not answer or broke a rule; the next pass tries again.
        """
        pulled = await self._pull()
        received = self._received()
        filled = await self.backfill.store() if self.backfill is not None else set()
        if self.backfill is not None:
            self.metrics.backfill_pending.set(self.backfill.left)
            self.metrics.backfill_stored.inc(len(filled))
        if filled:
            newest = max(filled) + timedelta(hours=1)
            self._through = newest if self._through is None else max(self._through, newest)
        snapshot = self.state.snapshot()
        items = await read_reservations(self.api)
        self.reservations = parse_reservations(items)
        bought = [
            *reservation_facts(self.reservations),
            *quota_facts(await read_quotas(self.api)),
            *budget_facts(await read_budgets(self.api)),
            *cordon_facts(snapshot),
        ]
        now = self.now()
        self.books.dirty |= pulled.hours | received | filled
        if snapshot.generation != self._seen_generation or bought != self._bought:
            # The hours that are still open for a change of facts: the running one and the one before.
            open_hours = {hour_start(now), hour_start(now) - timedelta(hours=1)}
            self.books.dirty |= open_hours & set(self.books.inputs.hours())
            self._seen_generation, self._bought = snapshot.generation, bought
        with self.metrics.pass_seconds.labels("ledger").time():
            left = await asyncio.to_thread(self._update_books, snapshot, now)
        self.metrics.dirty_hours.set(left)
        more = pulled.more or left > 0
        self.writer.remember(items)
        if self._through is not None and (not more or self._shown is None or now - self._shown >= _SHOW_PERIOD):
            await self._show(snapshot, complete=not more)
            self._shown = now
        if not more:  # with hours left to do, some that expire may not have been computed
            await self.upkeep.look(now)
        return more

    def _update_books(self, snapshot: ClusterSnapshot, now: datetime) -> int:
        """Runs in a thread: the facts of a large cluster alone would hold up the event loop."""
        return self.books.update([*snapshot.facts(), *snapshot.waits(), *self._bought], now=now, through=self._through)

    async def _pull(self) -> PullResult:
        period = timedelta(seconds=self.settings.agents.pull_period_seconds)
        if self._pulled is not None and self.now() - self._pulled < period:
            return PullResult()
        with self.metrics.pass_seconds.labels("pull").time():
            endpoints = await find_agents(self.api, self.settings.agents)
            result = await self.puller.pull(endpoints)
        self._pulled = None if result.more else self.now()
        self.metrics.agents.set(len(endpoints))
        self.metrics.records.inc(result.records)
        self.metrics.pull_failures.inc(len(result.failed))
        self._report_failures(result)
        self._note_newest(result)
        return result

    def _received(self) -> set[datetime]:
        """Hours into which leaving agents have put windows by themselves since the last pass."""
        if self.receiver is None:
            return set()
        result = self.receiver.intake.take()
        self._note_newest(result)
        return result.hours

    def _note_newest(self, result: PullResult) -> None:
        for newest in result.newest.values():
            self._through = newest if self._through is None else max(self._through, newest)
        if self._through is not None:
            self.metrics.newest_window.set(self._through.timestamp())

    def _report_failures(self, result: PullResult) -> None:
        failing = frozenset(result.failed)
        for endpoint in sorted(failing - self.failing):
            _log.warning("agent does not answer: %s", result.failed[endpoint])
        for endpoint in sorted(self.failing - failing):
            _log.info("agent answers again: %s", endpoint)
        self.failing = failing

    async def _show(self, snapshot: ClusterSnapshot, *, complete: bool) -> None:
        if self._through is None:
            return
        with self.metrics.pass_seconds.labels("objects").time():
            rows = await asyncio.to_thread(self.books.rows, through=self._through)
            activity = await asyncio.to_thread(self.books.activity, through=self._through)
            objects = await asyncio.to_thread(
                build_objects,
                rows,
                snapshot,
                activity=activity,
                through=self._through,
                now=self.now(),
                previous=self.writer.previous,
                around=await asyncio.to_thread(self._surroundings),
            )
            await self._write(objects, owns=("GPUWaste", "GPUPool") if complete else ())
        if complete and self.planner.due(self.now()):
            with self.metrics.pass_seconds.labels("plan").time():
                plan = await self.planner.make(self.books, rows, at=self._through, now=self.now())
                await self._write([plan] if plan is not None else [], owns=("RightsizingPlan",))

    def _surroundings(self) -> Surroundings:
        newest = max(self.books.broken, default=None)
        through = self._through
        hour = None if through is None else hour_start(through - timedelta(microseconds=1))
        return Surroundings(
            facts=[] if hour is None else self.books.facts_of(hour),
            reservations=self.reservations,
            pool_label=self.settings.pool_label,
            broken="" if newest is None else f"{format_time(newest)}: {self.books.broken[newest]}.",
            prices=self.books.bills.problem,
            storage=self.upkeep.storage,
            backfill=None if self.backfill is None else self.backfill.condition(),
        )

    async def _write(self, objects: Sequence[Resource], *, owns: Sequence[str]) -> None:
        result = await self.writer.write(objects, owns=owns)
        counts = (("written", result.written), ("unchanged", result.unchanged), ("removed", result.removed))
        for label, count in (*counts, ("failed", len(result.failed))):
            self.metrics.writes.labels(label).inc(count)
        self.unwritten = tuple(f"{name}: {why}" for name, why in sorted(result.failed.items()))
        for line in self.unwritten:
            _log.warning("object not written: %s", line)
