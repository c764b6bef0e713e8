"""The provider's bills as files that come and change while the operator runs, on a volume or in an object store."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pyarrow import fs

from gpuwaste.ledger.store import open_store
from gpuwaste.model.errors import InputError, UnreachableError
from gpuwaste.pricing.bills import BillPrices, Exchange, bill_files, read_bill_prices
from gpuwaste.runtime.bill_copy import local_bill

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Bills"]

_log = logging.getLogger(__name__)
_REMOTE_LOOK = timedelta(minutes=10)
"""Object stores are asked so often whether bills changed: they charge for each question."""
_Seen = tuple[str, int, int]
"""A file's name, bytes and time of change."""


@dataclass(slots=True, kw_only=True)
class Bills:
    """What the bills say, read again whenever a file of them changed.

    Attributes:
        paths: files and folders, by path or URL.
        exchange: the wanted currency, with rates.
        prices: what was read last without an error; None before.
        problem: why the files as they are now were not taken, one line; empty where they were.
    """

    paths: Sequence[Path | str] = ()
    exchange: Exchange = field(default_factory=Exchange)
    prices: BillPrices | None = None
    problem: str = ""
    _seen: tuple[_Seen, ...] | None = None
    _looked: datetime | None = None

    def refresh(self, now: datetime | None = None) -> set[datetime]:
        """Read the files again if they changed. A bad file, or a store that is away, changes nothing but `problem`.

        Args:
            now: the time, for object stores are not asked every time; None asks.

        Returns:
            The hours whose prices may have changed.
        """
        if now is not None and self._looked is not None and now - self._looked < _REMOTE_LOOK and self._is_remote:
            return set()
        self._looked = now
        try:
            seen = tuple(sorted(one for path in self.paths for one in _seen(path)))
        except (InputError, UnreachableError, OSError) as error:
            self._seen = None
            return self._refuse(error)
        if seen == self._seen:
            return set()
        try:
            read = self._read()
        except UnreachableError as error:  # it is asked again
            return self._refuse(error)
        except (InputError, OSError) as error:  # until the files change they stay refused
            self._seen = seen
            return self._refuse(error)
        self._seen = seen
        before, self.prices, self.problem = self.prices, read, ""
        return read.hours() | (before.hours() if before is not None else set())

    @property
    def _is_remote(self) -> bool:
        return any("://" in str(path) for path in self.paths)

    def _read(self) -> BillPrices:
        with ExitStack() as copies:
            places = {copies.enter_context(local_bill(path)): path for path in map(str, self.paths)}
            try:
                return read_bill_prices(bill_files(places), self.exchange)
            except InputError as error:
                text = str(error)
                for place, path in places.items():
                    text = text.replace(str(place), _shown(path)) if "://" in path else text
                raise InputError(text) from None

    def _refuse(self, error: Exception) -> set[datetime]:
        text = str(error)
        for path in map(str, self.paths):
            text = text.replace(path, _shown(path))
        if text != self.problem:
            _log.warning("bills are not used: %s", text)
        self.problem = text
        return set()


def _shown(path: str) -> str:
    """A path or URL as it may be told to anybody: without the key and the options that a URL can hold."""
    if "://" not in path:
        return path
    scheme, _, rest = path.partition("?")[0].partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _seen(path: Path | str) -> Iterator[_Seen]:
    """What tells whether the files of a bill changed."""
    if "://" not in str(path):
        for file in bill_files([Path(path)]):
            stat = file.stat()
            yield str(file), stat.st_size, stat.st_mtime_ns
        return
    store = open_store(str(path))
    try:
        (whole,) = store.filesystem.get_file_info([store.root])
        found = [whole] if whole.type == fs.FileType.File else store.filesystem.get_file_info(_below(store.root))
    except OSError as error:
        raise UnreachableError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    for info in found:
        if info.type == fs.FileType.File:
            yield f"{path}/{info.path}", info.size, info.mtime_ns


def _below(root: str) -> fs.FileSelector:
    return fs.FileSelector(root, recursive=True, allow_not_found=True)
