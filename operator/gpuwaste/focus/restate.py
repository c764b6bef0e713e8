"""Restate a closed period: publish it whole and numbered beside the old one, and carry the difference forward.

The closed files stay as they are. What a receiver owes more or less is an adjustment in the next report: the first
period of the series that is still open when the restatement is made.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpuwaste.focus.archive import MANIFEST, period_folder
from gpuwaste.focus.publish import ROWS, Outcome, Result
from gpuwaste.focus.totals import differences
from gpuwaste.model.errors import InputError

if TYPE_CHECKING:
    from datetime import datetime

    from gpuwaste.focus.manifest import Manifest
    from gpuwaste.focus.periods import Period
    from gpuwaste.focus.publish import Published, Publisher

__all__ = ["Restater"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Restater:
    """Makes restatements of the series of a publisher."""

    publisher: Publisher

    def restate(self, period: Period, *, reason: str, now: datetime) -> Result:
        """Publish the next restatement of a closed period, if it differs from the newest.

        Args:
            period: a closed period.
            reason: why, for readers of the manifest.
            now: becomes its time.

        Raises:
            InputError: the period is not closed, or the ledger has nothing of it.
            UnreachableError: ledger or archive did not answer; running it again goes on.
        """
        archive, publisher = self.publisher.archive, self.publisher
        archive.check_series(publisher.series)
        revisions = archive.revisions(period)
        if not revisions or not revisions[0].closed:
            raise InputError(
                f"period {period.name} is not closed",
                where=archive.store.root,
                fix="an open period is replaced whole by `gpuwaste focus publish`",
            )
        newest = revisions[-1]
        inputs = publisher.source.inputs(period)
        if inputs is None:
            raise InputError(f"the ledger has no hour of {period.name}", where="ledger")
        if inputs.sha256 == newest.input_sha256:
            self._drop_unfinished(period, newest.revision + 1)
            return Result(period=period, outcome=Outcome.FINAL, manifest=newest)
        with tempfile.TemporaryDirectory(prefix="gpuwaste-") as folder:
            number = newest.revision + 1
            made = publisher.make(period, inputs, (), folder=Path(folder), now=now, closing=True, revision=number)
            if self._is_same(made, newest):
                self._drop_unfinished(period, newest.revision + 1)
                return Result(period=period, outcome=Outcome.FINAL, manifest=newest)
            changed = differences(newest.totals, made.manifest.totals)
            manifest = made.manifest.model_copy(
                update={
                    "revision": number,
                    "reason": reason or None,
                    "previous": None,
                    "closes_time": newest.closes_time,
                    "restates": archive.manifest_sha256(period, newest.revision),
                    "carried_in": self._carrier(period) if changed else None,
                }
            )
            archive.replace(period, manifest, made.files)
        return Result(period=period, outcome=Outcome.RESTATED, manifest=manifest)

    def _is_same(self, made: Published, newest: Manifest) -> bool:
        """Whether the charges came out as they were: the same bytes, or at least the same totals and row count."""
        old = {entry.format: entry.sha256 for entry in newest.files}
        if not newest.adjustments:
            return all(
                old.get(file.entry.format) == file.entry.sha256 for file in made.files if file.entry.format in ROWS
            )
        carried = sum(len(one.differences) for one in newest.adjustments)
        return made.manifest.totals == newest.totals and made.manifest.rows == newest.rows - carried

    def _carrier(self, period: Period) -> str | None:
        """The first period after this one that is not closed; no report follows a span of its own."""
        if period.length == "span":
            return None
        archive = self.publisher.archive
        known = [one for one in archive.periods() if one > period]
        for one in known:
            manifest = archive.manifest(one)
            if manifest is not None and not manifest.closed:
                return one.name
        return (known[-1] if known else period).following.name

    def _drop_unfinished(self, period: Period, revision: int) -> None:
        """Remove what a killed restatement left that is no longer needed."""
        archive = self.publisher.archive
        left = archive.manifest(period, revision)
        if left is not None and not left.closed:
            for entry in (*left.files, *(left.pending or ())):
                archive.store.delete(entry.name)
            archive.store.delete(f"{period_folder(period, revision)}/{MANIFEST}")
