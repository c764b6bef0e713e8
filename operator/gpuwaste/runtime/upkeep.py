"""What is done for the store besides filling it: old inputs go once a day, and a volume that fills up is said."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

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
    """Looks after the store between passes, so that nothing reads an hour while its inputs go."""

    books: Books
    chargeback: Chargeback
    metrics: OperatorMetrics
    _next: datetime | None = None
    _filling: bool = False

    async def look(self, now: datetime) -> None:
        """After a pass: measure the volume, and remove old inputs if that was not done for a day."""
        self._warn(await asyncio.to_thread(self.books.store.used_share))
        if self._next is not None and now < self._next:
            return
        if not self.chargeback.looked:  # which periods are open is not known yet
            return
        try:
            removed = await asyncio.to_thread(self.books.expire, now=now, open_since=self.chargeback.open_since)
        except GpuwasteError as error:  # the pass itself was sound
            self._next = now + _RETRY
            _log.warning("old inputs are not removed: %s", error)
            return
        self._next = now + _PERIOD
        self.metrics.expired_hours.inc(len(removed))
        if removed:
            _log.info("inputs of %d hours up to %s are old and removed", len(removed), format_time(removed[-1]))

    def _warn(self, share: float | None) -> None:
        if share is None:
            return
        self.metrics.volume_used.set(share)
        filling = share >= _FULL_SHARE
        if filling and not self._filling:
            _log.warning(
                "the volume of %s is %.0f %% full: enlarge it, lower retention.inputsDays, or use an object store",
                self.books.store.root,
                100 * share,
            )
        self._filling = filling
