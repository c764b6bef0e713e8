"""Where published periods lie, and how their files are replaced so that a kill at any moment leaves no third state.

Below the root of an archive::

    cost-and-usage/period=2026-11-01/cost-and-usage.parquet
    cost-and-usage/period=2026-11-01/_manifest.json
    restatements/period=2026-11-01/revision=1/cost-and-usage.parquet
    restatements/period=2026-11-01/revision=1/_manifest.json
    csv/period=2026-11-01/cost-and-usage.csv

A folder at the top holds one format and either what was published first or restatements, so that a reader can take it
in whole. Files keep their names, so that such a reader never meets two versions of a period. A replacement is three
steps, each of one file: the manifest says what is coming (`pending`), the files are replaced one by one, the manifest
says what is there. After a kill each file is wholly the old or wholly the new one, the manifest has the hashes of both,
and the next run starts the period again. One program at a time writes an archive.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from gpuwaste.focus.manifest import FileEntry, Manifest, parse_manifest, render_manifest
from gpuwaste.focus.periods import Period, parse_period
from gpuwaste.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from gpuwaste.focus.manifest import Series
    from gpuwaste.ledger.store import Store

__all__ = ["DATA_FOLDER", "MANIFEST", "RESTATEMENT_FOLDER", "Archive", "NewFile", "file_sha256", "period_folder"]

DATA_FOLDER: Final = "cost-and-usage"
RESTATEMENT_FOLDER: Final = "restatements"
_MAIN_FORMAT: Final = "parquet"
MANIFEST: Final = "_manifest.json"
"""Arrow, Spark, Trino and Athena leave files alone whose names begin with an underscore."""
_CHUNK_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFile:
    """A file that was made and is to be put into a period's folder."""

    source: Path
    entry: FileEntry


def file_sha256(path: Path) -> str:
    """SHA-256 of a file of this machine, in hex."""
    found = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            found.update(chunk)
    return found.hexdigest()


def period_folder(period: Period, revision: int = 0, format_: str = _MAIN_FORMAT) -> str:
    """The folder of a period's files of one format, relative to the root."""
    if revision == 0:
        top = DATA_FOLDER if format_ == _MAIN_FORMAT else format_
        return f"{top}/period={period.name}"
    top = RESTATEMENT_FOLDER if format_ == _MAIN_FORMAT else f"{format_}-{RESTATEMENT_FOLDER}"
    return f"{top}/period={period.name}/revision={revision}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """The published periods of one series.

    Attributes:
        store: where they lie.
    """

    store: Store

    def url(self, entry: FileEntry) -> str:
        """Where a file lies, with the scheme of its store."""
        where = f"{self.store.root}/{entry.name}"
        return where if self.store.is_local else f"{self.store.filesystem.type_name}://{where}"

    def manifest(self, period: Period, revision: int = 0) -> Manifest | None:
        """The manifest of a period, None where it was never published.

        Raises:
            InputError: it is damaged.
        """
        name = f"{period_folder(period, revision)}/{MANIFEST}"
        data = self.store.read_or_none(name)
        return None if data is None else parse_manifest(data, where=f"{self.store.root}/{name}")

    def manifest_sha256(self, period: Period, revision: int = 0) -> str:
        """SHA-256 of the stored manifest.

        Raises:
            FileNotFoundError: there is none.
        """
        return hashlib.sha256(self.store.read(f"{period_folder(period, revision)}/{MANIFEST}")).hexdigest()

    def periods(self) -> list[Period]:
        """The periods that were published, oldest first."""
        return sorted(self._names(DATA_FOLDER))

    def restatements(self) -> list[tuple[Period, int]]:
        """Periods and numbers of all restatements, in this order."""
        return sorted(
            (period, int(part.partition("=")[2]))
            for period, parts in self._names(RESTATEMENT_FOLDER).items()
            for part in parts
        )

    def revisions(self, period: Period, numbers: Iterable[int] | None = None) -> list[Manifest]:
        """The manifests of a period: as first published, then its restatements that are complete.

        Args:
            period: which.
            numbers: of its restatements, where they are known; else the store is listed.
        """
        first = self.manifest(period)
        if numbers is None:
            numbers = [number for other, number in self.restatements() if other == period]
        later = [self.manifest(period, number) for number in numbers]
        return ([] if first is None else [first]) + [one for one in later if one is not None and one.closed]

    def _names(self, folder: str) -> dict[Period, list[str]]:
        """The periods below a folder that have a manifest, and the folders between them and it."""
        found: dict[Period, list[str]] = {}
        series = None
        for name in self.store.files(folder):
            parts = PurePosixPath(name).parts
            if parts[-1] != MANIFEST or not parts[1].startswith("period="):
                continue
            if series is None:
                series = parse_manifest(self.store.read(name), where=f"{self.store.root}/{name}").series
            period = parse_period(parts[1].partition("=")[2], series.length)
            found.setdefault(period, []).extend(parts[2:-1])
        return found

    def series(self) -> Series | None:
        """What was published here, None where nothing was."""
        known = self.periods()
        manifest = self.manifest(known[0]) if known else None
        return None if manifest is None else manifest.series

    def check_series(self, series: Series) -> None:
        """Refuse to mix two series.

        Raises:
            InputError: another series was published here; names what differs.
        """
        known = self.series()
        if known is None or known == series:
            return
        old, new = known.model_dump(), series.model_dump()
        differs = [f"{name} {old[name]!r}, not {new[name]!r}" for name in old if old[name] != new[name]]
        raise InputError(
            f"holds another series of periods: {'; '.join(differs)}",
            where=self.store.root,
            fix="publish to another folder, or as before",
        )

    def replace(self, period: Period, manifest: Manifest, files: Iterable[NewFile]) -> None:
        """Put a period's files and its manifest in the place of the ones before.

        Raises:
            InputError: the period is closed.
            UnreachableError: the store did not take a file; the next run does the whole again.
        """
        new = list(files)
        folder = period_folder(period, manifest.revision)
        for name in {folder, *(file.entry.name.rpartition("/")[0] for file in new)}:
            self.store.sweep(name)
        before = self.manifest(period, manifest.revision)
        if before is not None and before.closed:
            raise InputError("is closed and never changes", where=f"{self.store.root}/{folder}")
        coming = tuple(file.entry for file in new)
        kept = () if before is None else before.files
        announced = (manifest if before is None else before).model_copy(
            update={"state": "Open", "closed_time": None, "files": kept, "pending": coming}
        )
        if coming != kept or before is None or before.pending is not None:
            self.store.write(f"{folder}/{MANIFEST}", render_manifest(announced))
            for file in new:
                self.store.write_file(file.entry.name, file.source)
        self.store.write(f"{folder}/{MANIFEST}", render_manifest(manifest))
        gone = {entry.name for entry in kept} - {entry.name for entry in coming}
        for name in sorted(gone):
            self.store.delete(name)

    def damaged(self, manifest: Manifest) -> list[str]:
        """Files of a period that are missing or are not those that its manifest names, one line each."""
        found = []
        for entry in manifest.files:
            data = self.store.read_or_none(entry.name)
            if data is None:
                found.append(f"{self.store.root}/{entry.name}: is missing")
            elif hashlib.sha256(data).hexdigest() != entry.sha256:
                pending = {one.name: one.sha256 for one in manifest.pending or ()}
                if hashlib.sha256(data).hexdigest() != pending.get(entry.name):
                    found.append(f"{self.store.root}/{entry.name}: is not the file that was published")
        return found
