"""Keep facts and ledger in step with the stored windows, and hand out the rows that objects are made from."""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.ledger.activity import ACTIVITY_COLUMNS, PodActivity, merge_activity, pod_activity
from gpuwaste.ledger.catalog import find_hours, ledger_hours
from gpuwaste.ledger.columns import COMPUTED_FROM
from gpuwaste.ledger.days import remove_days
from gpuwaste.ledger.gpus import gpu_facts
from gpuwaste.ledger.hour import HourRules, build_hour
from gpuwaste.ledger.read import read_hours
from gpuwaste.ledger.retention import remove_inputs
from gpuwaste.ledger.schema import LEDGER_SCHEMA
from gpuwaste.ledger.write import update_hour
from gpuwaste.model.errors import InvariantError
from gpuwaste.model.facts import Fact, GpuData, ReadyData, merge_facts
from gpuwaste.model.units import HOUR, format_time, from_unix_ns, hour_start
from gpuwaste.pricing.facts import PriceSources, price_facts
from gpuwaste.runtime.bills import Bills

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import date

    from gpuwaste.ledger.inputs import InputStore
    from gpuwaste.ledger.store import Store

__all__ = ["Books"]

_AS_THEY_ARE = ("reservation", "quota", "budget", "cordon")
_log = logging.getLogger(__name__)
_WINDOW_HOURS = 168
_FACTS_HORIZON = timedelta(hours=24)
"""As long as a deleted pod is remembered: older hours keep the facts they were given."""
_HOURS_A_PASS = 6
_ACTIVITY_HOURS = 24
_TIMES = ("journal_id", "seq", "window_start_ns", "window_ns")


@dataclass(slots=True, kw_only=True)
class Books:
    """The ledger of one cluster.

    Attributes:
        inputs: stored windows and facts.
        store: where the ledger goes.
        rules: what besides the inputs decides an hour.
        prices: where prices come from, besides the bills.
        bills: the provider's bills.
        dirty: hours whose ledger may differ from their inputs.
        findings: what was noted, by hour.
        keep_inputs: how long inputs are kept; an hour of the ledger that ended before that stands as it is.
        broken: hours that break a law of the accounting, and which; they are computed again when their inputs change.
    """

    inputs: InputStore
    store: Store
    rules: HourRules
    prices: PriceSources = field(default_factory=PriceSources)
    bills: Bills = field(default_factory=Bills)
    keep_inputs: timedelta = timedelta(days=35)
    dirty: set[datetime] = field(default_factory=set)
    findings: dict[datetime, tuple[str, ...]] = field(default_factory=dict)
    broken: dict[datetime, str] = field(default_factory=dict)
    _closed: OrderedDict[datetime, pa.Table] = field(default_factory=OrderedDict)
    _stored: set[datetime] = field(default_factory=set)
    _running: dict[datetime, pa.Table] = field(default_factory=dict)
    _activity: dict[datetime, PodActivity] = field(default_factory=dict)

    def recover(self) -> None:
        """After a start every stored hour may have been left half done; all are looked at again."""
        self.dirty.update(self.inputs.hours())
        self._stored.update(ledger_hours(self.store).get(self.inputs.cluster, ()))

    def update(self, facts: Sequence[Fact], *, now: datetime, through: datetime | None) -> int:
        """Bring hours that changed up to date, newest first, at most a few at once.

        Args:
            facts: what the cluster says now.
            now: an hour that ended before it is closed and written; the one it lies in is kept in memory.
            through: end of the newest window of any node.

        Returns:
            Hours that are still to be done.
        """
        self.dirty |= self.bills.refresh(now) & set(self.inputs.hours()) if self.bills.paths else set()
        # An hour that was running when it was last looked at may have ended without another window.
        self.dirty.update(hour for hour in self._running if hour + HOUR <= now)
        # Their inputs may be gone, or half gone: what is stored was computed from more.
        self.dirty -= {hour for hour in self.dirty & self._stored if hour + HOUR <= now - self.keep_inputs}
        for hour in sorted(self.dirty, reverse=True)[:_HOURS_A_PASS]:
            self._store_facts(hour, facts, now)
            self._activity.pop(hour, None)
            self._compute(hour, now=now, through=through)
            self.dirty.discard(hour)
        return len(self.dirty)

    def expire(self, *, now: datetime, open_since: datetime | None) -> list[datetime]:
        """Remove inputs that are older than `keep_inputs`, but for what an open period of a bill needs.

        Args:
            now: the time.
            open_since: start of the oldest open period; None where none is open.

        Returns:
            The hours whose inputs were removed.

        Raises:
            UnreachableError: the store did not answer.
        """
        before = now - self.keep_inputs
        return remove_inputs(self.inputs, self.store, before=before if open_since is None else min(before, open_since))

    def forget(self, *, before: datetime) -> list[date]:
        """Remove the days of the ledger that ended before a time, but for those whose inputs are there.

        Returns:
            The days.

        Raises:
            UnreachableError: the store did not answer.
        """
        removed = remove_days(self.store, cluster=self.inputs.cluster, before=before, keep=self.inputs.hours())
        gone = set(removed)
        self._stored = {hour for hour in self._stored if hour.date() not in gone}
        return removed

    def _compute(self, hour: datetime, *, now: datetime, through: datetime | None) -> None:
        """Compute an hour. One that breaks a law is not shown and not written, and the others go on without it."""
        try:
            if hour + HOUR <= now:
                self._write(hour)
            elif through is not None and through > hour:
                built = build_hour(self.inputs.load(hour, columns=COMPUTED_FROM), self.rules, through=through)
                self._running[hour] = built.table
                self.findings[hour] = built.findings
            self.broken.pop(hour, None)
        except (InvariantError, ArithmeticError) as error:
            self.broken[hour] = str(error)
            self._running.pop(hour, None)
            _log.error("hour %s breaks a law of the accounting and is not written: %s", format_time(hour), error)

    def _write(self, hour: datetime) -> None:
        built = update_hour(self.inputs, self.store, hour, self.rules)
        self._stored.add(hour)
        self._running.pop(hour, None)
        if built is not None:
            self._closed[hour] = built.table.replace_schema_metadata(LEDGER_SCHEMA.metadata)
            self.findings[hour] = built.findings

    def _store_facts(self, hour: datetime, facts: Sequence[Fact], now: datetime) -> None:
        stored = [fact for fact in self.inputs.read_facts(hour) if fact.kind != "price"]
        described = gpu_facts(self.inputs.node_facts(hour))
        if stored and hour + HOUR < now - _FACTS_HORIZON:
            known: list[Fact] = stored  # too long ago for the cluster to say more of it
        else:
            end = hour + HOUR
            said = {fact.uid for fact in stored if fact.kind == "ready"}
            holding = [
                fact
                for fact in facts
                if fact.kind in ("owner", "namespace")
                or (fact.overlaps(hour, end) and (fact.uid in said or not _says_nothing(fact, hour)))
            ]
            described += self._carried_gpus(hour, described)
            carried = [fact for fact in described if fact.valid_from < hour]
            # What is bought is what the objects say now: nobody but them remembers it.
            known = merge_facts([fact for fact in stored if fact.kind not in _AS_THEY_ARE], holding, carried)
        sources = replace(self.prices, bills=self.bills.prices)
        prices = price_facts([*known, *described], sources=sources, hour=hour)
        self.inputs.replace_facts(hour, merge_facts(known, [f for f in prices if f.overlaps(hour, hour + HOUR)]))

    def _carried_gpus(self, hour: datetime, described: Iterable[Fact]) -> list[Fact]:
        """GPUs of nodes that are silent in this hour, as the newest hour before it described them.

        Only for an hour after which more came from the node, or from any node two hours on: before that the
        node's own description may still be on its way, and would then be stored beside this one for nothing.
        """
        stored = self.inputs.hours()  # lists the store, so once
        later = [h for h in stored if h > hour]
        earlier = [h for h in stored if h < hour]
        if not later or not earlier:
            return []
        present = {fact.data.node for fact in described if isinstance(fact.data, GpuData)}
        newest: dict[str, Fact] = {}
        for fact in self.facts_of(earlier[-1]):
            if isinstance(fact.data, GpuData) and fact.data.node not in present:
                newest[fact.uid] = fact
        if not newest:
            return []
        if len(later) > 1:
            return list(newest.values())
        back = self.inputs.nodes(later[0])
        return [f for f in newest.values() if isinstance(f.data, GpuData) and f.data.node in back]

    def facts_of(self, hour: datetime) -> list[Fact]:
        """The facts stored for an hour, and the GPUs that agents described in it."""
        return merge_facts(self.inputs.read_facts(hour), gpu_facts(self.inputs.node_facts(hour)))

    def rows(self, *, through: datetime) -> pa.Table:
        """Ledger rows of the last 7 days up to and with the running hour."""
        newest = hour_start(through - timedelta(microseconds=1))
        wanted = [newest - HOUR * i for i in range(_WINDOW_HOURS)][::-1]
        unread = [h for h in wanted if h in self._stored and h not in self._closed and h not in self._running]
        if unread:
            found = find_hours(self.store, start=unread[0], end=unread[-1] + HOUR).get(self.inputs.cluster, {})
            places = [found[hour] for hour in unread if hour in found]
            self._closed.update((place.hour, table) for place, table in read_hours(self.store, places))
        known = {**self._closed, **self._running}
        tables = [known[hour] for hour in wanted if hour in known]
        for old in [hour for hour in self._closed if hour < wanted[0]]:
            del self._closed[old]
        return pa.concat_tables(tables) if tables else LEDGER_SCHEMA.empty_table()

    def activity(self, *, through: datetime) -> PodActivity:
        """Peak memory and media engines of pods over the last 24 hours."""
        newest = hour_start(through - timedelta(microseconds=1))
        wanted = [newest - HOUR * i for i in range(_ACTIVITY_HOURS)]
        stored = set(self.inputs.hours())
        for hour in wanted:
            if hour in stored and hour not in self._activity:
                self._activity[hour] = pod_activity(self.inputs.load(hour, columns=ACTIVITY_COLUMNS).windows)
        for old in [hour for hour in self._activity if hour < wanted[-1]]:
            del self._activity[old]
        return merge_activity(self._activity[hour] for hour in sorted(self._activity))

    def newest_window(self) -> datetime | None:
        """End of the newest stored window, for a start without agents in reach."""
        hours = self.inputs.hours()
        if not hours:
            return None
        windows = self.inputs.load(hours[-1], columns=_TIMES).windows
        if not windows.num_rows:
            return None
        ends = pc.max(pc.add(windows["window_start_ns"], windows["window_ns"])).as_py()
        return from_unix_ns(ends)


def _says_nothing(fact: Fact, hour: datetime) -> bool:
    """Whether a node was ready before the hour began: of all nodes that is taken for granted."""
    return isinstance(fact.data, ReadyData) and fact.data.ready and fact.valid_from <= hour
