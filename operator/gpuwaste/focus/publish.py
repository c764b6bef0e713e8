"""Publish periods: make their files, replace them while they are open, and close them once and for all."""

from __future__ import annotations

import bisect
import json
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gpuwaste.focus.adjustments import adjustment_rows
from gpuwaste.focus.archive import NewFile, file_sha256, period_folder
from gpuwaste.focus.columns import coded_schema
from gpuwaste.focus.files import RowSink, open_sink
from gpuwaste.focus.manifest import Adjustment, FileEntry, Manifest, Series, totals_hash
from gpuwaste.focus.metadata import DataSetFacts, TimeSector, metadata_document, with_history
from gpuwaste.focus.methods import parse_method
from gpuwaste.focus.options import ExportOptions
from gpuwaste.focus.periods import parse_period, period_at
from gpuwaste.focus.totals import Totals, differences
from gpuwaste.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime, timedelta

    import pyarrow as pa

    from gpuwaste.focus.archive import Archive
    from gpuwaste.focus.manifest import ReceiverTotal
    from gpuwaste.focus.periods import Period
    from gpuwaste.focus.sources import Inputs, Source

__all__ = ["FORMATS", "ROWS", "Outcome", "Published", "Publisher", "Result", "options_of", "series_of"]

FORMATS: Final = {
    "parquet": "cost-and-usage.parquet",
    "csv": "cost-and-usage.csv",
    "json": "totals.json",
    "html": "report.html",
}
"""What can be written, and what the file is called: FOCUS rows as Parquet or CSV, totals by receiver, and a page."""
ROWS: Final = ("parquet", "csv")
"""The formats that hold the rows themselves."""


class Outcome(StrEnum):
    """What was done with a period."""

    WRITTEN = "Written"  # its files were made or replaced; it is open
    CLOSED = "Closed"  # it was closed now
    UNCHANGED = "Unchanged"  # nothing was written: it is open, and its inputs are what they were
    FINAL = "Final"  # nothing was written: it was closed before
    DIFFERS = "Differs"  # nothing was written: it is closed, and its ledger was written to since
    RESTATED = "Restated"  # a restatement was published beside it
    EMPTY = "Empty"  # there is nothing to publish


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of one period.

    Attributes:
        period: which.
        outcome: what was done.
        manifest: its newest, None where it has none.
        input_sha256: of what the ledger says now, where that is not what the manifest was made from.
    """

    period: Period
    outcome: Outcome
    manifest: Manifest | None = None
    input_sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Files that were made and wait to be put into the archive, with their manifest."""

    manifest: Manifest
    files: tuple[NewFile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """What was written into the files of rows; `totals` are without adjustments, and `count` is with them."""

    schema: pa.Schema
    totals: Totals
    count: int
    charges: int
    findings: tuple[str, ...]


def series_of(options: ExportOptions, *, length: str, formats: Sequence[str], source: str) -> Series:
    """What makes periods one series.

    Raises:
        InputError: a grain that is longer than the period, or an unknown format.
    """
    if length == "hour" and options.grain == "day":
        raise InputError("a charge of a day does not fit into a period of an hour", where="grain", fix="use hour")
    if source == "bill" and length != "month":
        raise InputError(
            f"a bill is published by its billing periods, and not by the {length}", where="period", fix="use month"
        )
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or "parquet" not in formats:
        what = f"{unknown[0]!r} is no format" if unknown else "parquet is missing"
        raise InputError(what, where="formats", fix=f"use parquet and, beside it, any of {', '.join(FORMATS)}")
    names = {
        name: getattr(options, name)
        for name in ("provider", "account_id", "account_name", "service_name", "currency")
        if getattr(options, name)
    }
    return Series.model_validate(
        {
            "length": length,
            "focus_version": options.version,
            "method": options.method.id,
            "grouping": options.grouping,
            "grain": options.grain,
            "formats": tuple(name for name in FORMATS if name in formats),
            "source": source,
            "names": names,
        }
    )


def options_of(series: Series) -> ExportOptions:
    """The options by which a series is published.

    Raises:
        InputError: the series names a method that this version does not know.
    """
    return ExportOptions(
        method=parse_method(series.method),
        grain=series.grain,
        grouping=series.grouping,
        version=series.focus_version,
        **series.names,
    )


@dataclass(slots=True, kw_only=True)
class Publisher:
    """Publishes the periods of one series.

    Attributes:
        archive: where to.
        source: where from.
        options: how charges are divided.
        series: what all its periods have in common, as `series_of` answers.
        grace: how long after its end a period stays open for late data.
        generator_version: version of this program.
        page: makes the text of `report.html` for a period, where the series has that format.
    """

    archive: Archive
    source: Source
    options: ExportOptions
    series: Series
    grace: timedelta
    generator_version: str
    page: Callable[[Period], str] | None = None
    _carried: dict[str, list[Adjustment]] | None = field(default=None)
    _known: list[Period] = field(default_factory=list)
    _restated: dict[Period, list[int]] = field(default_factory=dict)

    def publish(self, periods: Iterable[Period], *, now: datetime) -> list[Result]:
        """Bring periods up to date, oldest first; those whose grace is over are closed.

        Running it again with the same inputs writes nothing.

        Raises:
            InputError: the archive holds another series, or a period cannot be made; those before it are published.
            UnreachableError: ledger or archive did not answer.
        """
        self.archive.check_series(self.series)
        self._carried = None
        # Both are listed once: an archive may have thousands of hours.
        self._known = self.archive.periods()
        self._restated = defaultdict(list)
        for period, number in self.archive.restatements():
            self._restated[period].append(number)
        return [self._publish(period, now) for period in sorted(periods)]

    def _publish(self, period: Period, now: datetime) -> Result:
        before = self.archive.manifest(period)
        inputs = self.source.inputs(period)
        if before is not None and before.closed:
            newest = self.archive.revisions(period, self._restated[period])[-1]
            if inputs is None or inputs.sha256 == newest.input_sha256:
                return Result(period=period, outcome=Outcome.FINAL, manifest=newest)
            return Result(period=period, outcome=Outcome.DIFFERS, manifest=newest, input_sha256=inputs.sha256)
        adjustments = self.carried(period)
        if inputs is None and not adjustments:
            return Result(period=period, outcome=Outcome.EMPTY)
        closing = now >= period.end + self.grace
        if before is not None and not closing and self._up_to_date(before, inputs, adjustments):
            return Result(period=period, outcome=Outcome.UNCHANGED, manifest=before)
        with tempfile.TemporaryDirectory(prefix="gpuwaste-") as folder:
            made = self.make(period, inputs, adjustments, folder=Path(folder), now=now, closing=closing)
            if closing and self.source.inputs(period) != inputs:
                # The ledger was written to meanwhile: nobody knows which rows were read, so nothing is final yet.
                closing = False
                made = self.make(period, inputs, adjustments, folder=Path(folder), now=now, closing=closing)
            self.archive.replace(period, made.manifest, made.files)
        if before is None:
            bisect.insort(self._known, period)
        return Result(period=period, outcome=Outcome.CLOSED if closing else Outcome.WRITTEN, manifest=made.manifest)

    def _up_to_date(self, manifest: Manifest, inputs: Inputs | None, adjustments: Sequence[Adjustment]) -> bool:
        return (
            manifest.pending is None
            and manifest.generator_version == self.generator_version
            and manifest.adjustments == tuple(adjustments)
            and (manifest.input_sha256, manifest.rules_sha256) == _hashes(inputs)
            and manifest.closes_time == manifest.end + self.grace
        )

    def due(self, start: datetime, end: datetime) -> list[Period]:
        """The periods that touch [start, end) and have something to publish, oldest first."""
        self._carried = None
        length = self.series.length
        found = {period_at(hour, length) for hour in self.source.hours()}
        found |= {parse_period(name, length) for name in self._carriers()}
        return sorted(period for period in found if period.start < end and period.end > start)

    def carried(self, period: Period) -> tuple[Adjustment, ...]:
        """The restatements whose differences a period carries, oldest first."""
        return tuple(self._carriers().get(period.name, ()))

    def _carriers(self) -> dict[str, list[Adjustment]]:
        if self._carried is None:
            self._carried = {}
            for restated, number in self.archive.restatements():
                manifest = self.archive.manifest(restated, number)
                if manifest is not None and manifest.closed and manifest.carried_in:
                    one = Adjustment(
                        period=restated.name, revision=number, differences=self._differences(restated, manifest)
                    )
                    self._carried.setdefault(manifest.carried_in, []).append(one)
        return self._carried

    def _differences(self, period: Period, manifest: Manifest) -> tuple[ReceiverTotal, ...]:
        before = self.archive.manifest(period, manifest.revision - 1)
        return differences(before.totals if before else (), manifest.totals)

    def make(
        self,
        period: Period,
        inputs: Inputs | None,
        adjustments: Sequence[Adjustment],
        *,
        folder: Path,
        now: datetime,
        closing: bool,
        revision: int = 0,
    ) -> Published:
        """Make the files of a period in a folder of this machine.

        Args:
            period: which.
            inputs: what they are made from; None where there are adjustments alone.
            adjustments: the restatements whose differences the period carries.
            folder: where they are made.
            now: the time in their metadata.
            closing: whether they are final.
            revision: the number of the restatement; 0 for what is published first.

        Raises:
            InputError: the ledger cannot be exported as asked.
        """
        rows = self._write_rows(period, inputs, adjustments, folder)
        manifest = self._manifest(period, inputs, rows.totals, adjustments, now=now, closing=closing)
        manifest = manifest.model_copy(
            update={
                "rows": rows.count,
                "charges": rows.charges,
                "findings": rows.findings,
                "metadata": self._metadata(period, rows.schema, inputs, now=now, closed=closing),
            }
        )
        if "json" in self.series.formats:
            (folder / FORMATS["json"]).write_text(_totals_text(manifest), encoding="utf-8")
        if "html" in self.series.formats:
            text = "" if self.page is None else self.page(period)
            (folder / FORMATS["html"]).write_text(text, encoding="utf-8")
        files = tuple(_new_file(folder, name, period_folder(period, revision, name)) for name in self.series.formats)
        manifest = manifest.model_copy(update={"files": tuple(file.entry for file in files)})
        return Published(manifest=manifest, files=files)

    def _write_rows(
        self, period: Period, inputs: Inputs | None, adjustments: Sequence[Adjustment], folder: Path
    ) -> _Rows:
        totals, charges, findings = Totals(), 0, dict[str, None]()
        schema: pa.Schema | None = None
        sinks: list[RowSink] = []
        with ExitStack() as stack:

            def open_all(schema: pa.Schema) -> list[RowSink]:
                return [stack.enter_context(open_sink(path, schema)) for path in self._row_files(folder)]

            for split in [] if inputs is None else self.source.splits(period, self.options):
                if schema is None:
                    schema = split.rows.schema
                    sinks = open_all(schema)
                for sink in sinks:
                    sink.write(split.rows)
                totals.add(split.rows)
                charges += split.charges
                findings |= dict.fromkeys(map(str, split.findings))
            if schema is None:
                schema = coded_schema(self.options.version)
                sinks = open_all(schema)
            added = adjustment_rows(adjustments, period, self.options, schema)
            for sink in sinks:
                sink.write(added)
        count = totals.rows + len(added)
        return _Rows(schema=schema, totals=totals, count=count, charges=charges, findings=tuple(findings))

    def _row_files(self, folder: Path) -> list[Path]:
        return [folder / FORMATS[name] for name in self.series.formats if name in ROWS]

    def _manifest(
        self,
        period: Period,
        inputs: Inputs | None,
        totals: Totals,
        adjustments: Sequence[Adjustment],
        *,
        now: datetime,
        closing: bool,
    ) -> Manifest:
        by_receiver, carried = totals.by_receiver(), tuple(adjustments)
        input_sha256, rules_sha256 = _hashes(inputs)
        return Manifest(
            generator_version=self.generator_version,
            series=self.series,
            period=period.name,
            start=period.start,
            end=period.end,
            state="Closed" if closing else "Open",
            closes_time=period.end + self.grace,
            closed_time=now.replace(microsecond=0) if closing else None,
            missing_hours=0 if inputs is None else inputs.missing_hours,
            input_sha256=input_sha256,
            rules_sha256=rules_sha256,
            rows=0,
            charges=0,
            files=(),
            totals=by_receiver,
            adjustments=carried,
            totals_sha256=totals_hash(by_receiver, carried),
            previous=self._previous(period) if closing else None,
            metadata={},
        )

    def _previous(self, period: Period) -> dict[str, str] | None:
        """The newest closed period before this one: a chain, so that none can be changed unseen."""
        for earlier in reversed([one for one in self._known if one < period]):
            manifest = self.archive.manifest(earlier)
            if manifest is not None and manifest.closed:
                return {"period": earlier.name, "sha256": self.archive.manifest_sha256(earlier)}
        return None

    def _metadata(
        self, period: Period, schema: pa.Schema, inputs: Inputs | None, *, now: datetime, closed: bool
    ) -> dict[str, object]:
        clusters = ", ".join(inputs.clusters) if inputs else ""
        series = self.series
        facts = DataSetFacts(
            dataset="CostAndUsage",
            instance=f"{clusters} {series.source} by {series.grouping} and {series.grain}, {series.method}".strip(),
            version=self.options.version,
            generator_version=self.generator_version,
            created=now,
            sectors=[TimeSector(start=period.start, end=period.end, complete=closed)],
            data_file=FORMATS["parquet"],
        )
        return with_history(metadata_document(schema, facts), self._metadata_before(period))

    def _metadata_before(self, period: Period) -> dict[str, object]:
        """Of the period itself, else of the one before it: the schemas that the series had so far."""
        for known in (period, *reversed([one for one in self._known if one < period])):
            manifest = self.archive.manifest(known)
            if manifest is not None:
                return manifest.metadata
        return {}


def _new_file(made_in: Path, format_: str, folder: str) -> NewFile:
    path = made_in / FORMATS[format_]
    entry = FileEntry(
        name=f"{folder}/{path.name}", format=format_, size_bytes=path.stat().st_size, sha256=file_sha256(path)
    )
    return NewFile(source=path, entry=entry)


def _hashes(inputs: Inputs | None) -> tuple[str, str]:
    nothing = "0" * 64
    return (nothing, nothing) if inputs is None else (inputs.sha256, inputs.rules_sha256)


def _totals_text(manifest: Manifest) -> str:
    document = {
        "period": manifest.period,
        "revision": manifest.revision,
        "totals": [row.model_dump(mode="json", exclude_none=True) for row in manifest.totals],
        "adjustments": [one.model_dump(mode="json", exclude_none=True) for one in manifest.adjustments],
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"
