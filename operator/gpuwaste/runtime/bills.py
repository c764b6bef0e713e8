"""The provider's bills as files that come and change while the operator runs."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gpuwaste.model.errors import InputError
from gpuwaste.pricing.bills import BillPrices, Exchange, bill_files, read_bill_prices

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

__all__ = ["Bills"]

_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Bills:
    """What the bills say, read again whenever a file of them changed.

    Attributes:
        paths: files and folders.
        exchange: the wanted currency, with rates.
        prices: what was read last without an error; None before.
        problem: why the files as they are now were not taken, one line; empty where they were.
    """

    paths: tuple[Path, ...] = ()
    exchange: Exchange = field(default_factory=Exchange)
    prices: BillPrices | None = None
    problem: str = ""
    _seen: tuple[tuple[str, int, int], ...] | None = None

    def refresh(self) -> set[datetime]:
        """Read the files again if they changed. A bad file changes nothing but `problem`.

        Returns:
            The hours whose prices may have changed.
        """
        try:
            files = bill_files(self.paths)
            seen = tuple((str(path), stat.st_size, stat.st_mtime_ns) for path in files for stat in [path.stat()])
            if seen == self._seen:
                return set()
            self._seen = seen
            read = read_bill_prices(files, self.exchange)
        except (InputError, OSError) as error:
            if str(error) != self.problem:
                _log.warning("bills are not used: %s", error)
            self.problem = str(error)
            return set()
        before, self.prices, self.problem = self.prices, read, ""
        return read.hours() | (before.hours() if before is not None else set())
