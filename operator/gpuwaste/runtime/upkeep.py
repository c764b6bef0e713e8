"""What is done for the store besides filling it: what is old goes, days become one file, a full volume is said."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from gpuwaste.ledger.days import compact_days
from gpuwaste.model.errors import GpuwasteError
from gpuwaste.model.units import format_time

if TYPE_CHECKING:
    from gpuwaste.runtime.books import Books
    from gpuwaste.runtime.chargeback import Chargeback
    from gpuwaste.runtime.metrics import OperatorMetrics

__all__ = ["Upkeep"]

_log = logging.getLogger(__name__)
_PERIOD = timedelta(days=1)
_RETRY = timedelta(hours=1)
_FULL_SHARE = 0.8


@dataclass(slots=True, kw_only=True)
class Upkeep:
    """Looks after the store between passes, so that nothing else writes while files come and go.

    Attributes:
        books: the ledger and its inputs.
        chargeback: knows which periods of bills are open.
        metrics: says what was done.
        compact_after: how long after its end a day's hours are put together.
        keep_ledger: how long the ledger is kept; None for good.
        storage: what is wrong with the volume, a sentence; empty where it has room.
    """

    books: Books
    chargeback: Chargeback
    metrics: OperatorMetrics
    compact_after: timedelta = timedelta(days=3)
    keep_ledger: timedelta | None = None
    storage: str = ""
    _next: datetime | None = None

    async def look(self, now: datetime) -> None:
        """After a pass: measure the volume; and once a day remove what is old, and put the hours of days together."""
        self._measure(await asyncio.to_thread(self.books.store.used_share))
        if self._next is not None and now < self._next:
            return
        if not self.chargeback.looked:  # which periods are open is not known yet
            return
        self._next = now + _PERIOD
        for what, step in (
            ("old inputs are not removed", self._expire),
            ("old days of the ledger are not removed", self._forget),
            ("hours of the ledger are not put together", self._compact),
        ):
            try:
                await asyncio.to_thread(step, now)
            except GpuwasteError as error:  # the pass itself was sound
                self._next = now + _RETRY
                _log.warning("%s: %s", what, error)
                return

    def _expire(self, now: datetime) -> None:
        hours = self.books.expire(now=now, open_since=self.chargeback.open_since)
        self.metrics.expired_hours.inc(len(hours))
        if hours:
            _log.info("inputs of %d hours up to %s are old and removed", len(hours), format_time(hours[-1]))

    def _forget(self, now: datetime) -> None:
        if self.keep_ledger is None:
            return
        before, needed = now - self.keep_ledger, self.chargeback.needed_since
        days = self.books.forget(before=before if needed is None else min(before, needed))
        self.metrics.expired_days.inc(len(days))
        if days:
            _log.info("%d days of the ledger up to %s are old and removed", len(days), days[-1])

    def _compact(self, now: datetime) -> None:
        books = self.books
        done = list(compact_days(books.store, cluster=books.inputs.cluster, before=now - self.compact_after))
        self.metrics.compacted_days.inc(len(done))
        if done:
            saved = sum(day.bytes_before - day.bytes_after for day in done)
            _log.info("hours of %d days up to %s are put together: %d bytes less", len(done), done[-1].day, saved)

    def _measure(self, share: float | None) -> None:
        if share is None:
            return
        self.metrics.volume_used.set(share)
        filling = share >= _FULL_SHARE
        if filling and not self.storage:
            _log.warning("%s", self._sentence(share))
        self.storage = self._sentence(share) if filling else ""

    def _sentence(self, share: float) -> str:
        return (
            f"The volume of {self.books.store.root} is {100 * share:.0f} % full: enlarge it, lower"
            " `retention.inputsDays` or `retention.ledgerDays`, or use an object store."
        )
