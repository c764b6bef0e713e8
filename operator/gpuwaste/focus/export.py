"""From a stored ledger to FOCUS files, a day at a time, so that memory does not grow with the span."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any

from gpuwaste.focus.ahead import ahead
from gpuwaste.focus.bill_files import open_bill
from gpuwaste.focus.bill_windows import BillSplitter
from gpuwaste.focus.columns import coded_schema, schema_of
from gpuwaste.focus.commitments import commitment_rows
from gpuwaste.focus.files import RowSink, metadata_path, open_sink, write_json
from gpuwaste.focus.metadata import DataSetFacts, TimeSector, metadata_document, with_history
from gpuwaste.focus.options import Finding
from gpuwaste.focus.split import Split, split_ledger
from gpuwaste.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import pyarrow as pa

    from gpuwaste.api.reservation import GPUReservation
    from gpuwaste.focus.bill_plan import Span
    from gpuwaste.focus.ledger_days import LedgerDay
    from gpuwaste.focus.options import ExportOptions

__all__ = ["ExportSummary", "export", "export_bill", "export_commitments"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSummary:
    """What an export wrote, and what a reader of it must know."""

    files: tuple[Path, ...]
    rows: int
    charges: int
    findings: tuple[Finding, ...]


def _single_file(out: Path) -> Path | None:
    """The one file to write, or None where `out` is a folder that gets one file a month."""
    if out.suffix in {".parquet", ".csv"}:
        return out
    if out.suffix and not out.is_dir():
        raise InputError("must be a folder, or end in .parquet or .csv", where=str(out))
    return None


def export(
    days: Iterator[LedgerDay], options: ExportOptions, out: Path, *, now: datetime, generator_version: str
) -> ExportSummary:
    """Write the FOCUS rows of some days: into one file, or one file a month into a folder.

    Raises:
        InputError: there is no ledger for these days, or it cannot be exported as asked. Nothing is then written.
    """
    groups: Iterator[tuple[Path, Iterator[LedgerDay]]]
    single = _single_file(out)
    if single is None:
        months = groupby(days, key=lambda day: day.day.replace(day=1))
        groups = ((out / f"cost-and-usage-{options.version}-{month:%Y-%m}.parquet", group) for month, group in months)
    else:
        groups = iter([(single, days)])
    summaries = [
        _write_file(path, group, options, now=now, generator_version=generator_version) for path, group in groups
    ]
    if not summaries:
        raise InputError("no ledger hour lies in these days", where="--from, --to")
    charges = sum(summary.charges for summary in summaries)
    findings = dict.fromkeys(finding for summary in summaries for finding in summary.findings)
    if options.currency and not charges:
        findings[Finding(where=f"currency {options.currency}", what="nothing in these days has a price in it")] = None
    return ExportSummary(
        files=tuple(path for summary in summaries for path in summary.files),
        rows=sum(summary.rows for summary in summaries),
        charges=charges,
        findings=tuple(findings),
    )


def _write_file(
    path: Path, days: Iterator[LedgerDay], options: ExportOptions, *, now: datetime, generator_version: str
) -> ExportSummary:
    schema = schema_of(options.version)
    rows = charges = 0
    findings: dict[str, Finding] = {}
    sectors: list[TimeSector] = []
    clusters: set[str] = set()
    with ExitStack() as stack:
        sink: RowSink = stack.enter_context(open_sink(path, coded_schema(options.version)))
        for day, split in ahead(lambda day: _split(day, options), days):
            sink.write(split.rows)
            rows += len(split.rows)
            charges += split.charges
            for finding in split.findings:
                findings.setdefault(finding.where, finding)
            sectors.append(_sector(day))
            clusters.update(day.clusters)
        if not sectors:
            raise InputError("no ledger hour lies in these days", where="--from, --to")
    writing = _Writing(path=path, now=now, generator_version=generator_version)
    _write_metadata(writing, schema, options, clusters=clusters, sectors=sectors)
    return ExportSummary(files=(path,), rows=rows, charges=charges, findings=tuple(findings.values()))


def export_bill(
    days: Iterator[LedgerDay],
    bill: Path,
    options: ExportOptions,
    out: Path,
    *,
    now: datetime,
    generator_version: str,
    asked: Span | None = None,
) -> ExportSummary:
    """Write a provider's bill with the rows of the ledger's nodes divided in place.

    Args:
        days: the ledger that divides it.
        bill: a file, or a folder of files.
        options: method, grouping and version.
        out: a file, or a folder.
        now: the time in the metadata.
        generator_version: version of this program.
        asked: the time whose rows are divided, and Corrections of any; None for all that the days have.

    Raises:
        InputError: there is no ledger for these days, or the bill cannot be read or written as asked.
    """
    every = list(days)
    found = [day for day in every if asked is None or asked[0].date() <= day.day < asked[1].date()]
    if not found:
        raise InputError("no ledger hour lies in these days", where="--from, --to")
    splitter = BillSplitter(bill=open_bill(bill), days=every, options=options, asked=asked)
    name = bill.name.removesuffix(".gz").rpartition(".")[0] or bill.name
    path = _single_file(out) or out / f"cost-and-usage-{options.version}-{name}.parquet"
    rows, schema = 0, schema_of(options.version)
    with ExitStack() as stack:
        sink: RowSink | None = None
        for table in splitter.splits():
            if sink is None:
                schema = table.schema
                sink = stack.enter_context(open_sink(path, schema))
            sink.write(table)
            rows += len(table)
        if sink is None:
            raise InputError("has no rows", where=str(bill))
    clusters = {cluster for day in found for cluster in day.clusters}
    writing = _Writing(path=path, now=now, generator_version=generator_version)
    sectors = [_sector(day) for day in found]
    _write_metadata(writing, schema, options, clusters=clusters, sectors=sectors, bill=bill.name)
    return ExportSummary(files=(path,), rows=rows, charges=splitter.charges, findings=splitter.findings())


def export_commitments(
    reservations: Iterable[GPUReservation], out: Path, *, now: datetime, generator_version: str
) -> ExportSummary:
    """Write the Contract Commitment dataset, with its metadata.

    Raises:
        InputError: `out` is no .parquet or .csv file.
    """
    rows, findings = commitment_rows(reservations)
    with open_sink(out, rows.schema) as sink:
        sink.write(rows)
    facts = DataSetFacts(
        dataset="ContractCommitment",
        instance="GPU reservations",
        version="1.3",
        generator_version=generator_version,
        created=now,
        sectors=(),
        data_file=out.name,
    )
    _write_document(out, metadata_document(rows.schema, facts))
    return ExportSummary(files=(out,), rows=len(rows), charges=len(rows), findings=findings)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Writing:
    """Which file was written, when and by what."""

    path: Path
    now: datetime
    generator_version: str


def _write_metadata(
    writing: _Writing,
    schema: pa.Schema,
    options: ExportOptions,
    *,
    clusters: set[str],
    sectors: list[TimeSector],
    bill: str = "",
) -> None:
    what = f"bill {bill} by {options.grouping}" if bill else f"by {options.grouping} and {options.grain}"
    facts = DataSetFacts(
        dataset="CostAndUsage",
        instance=f"{', '.join(sorted(clusters))}, {what}, {options.method.id}",
        version=options.version,
        generator_version=writing.generator_version,
        created=writing.now,
        sectors=sectors,
        data_file=writing.path.name,
    )
    _write_document(writing.path, metadata_document(schema, facts))


def _write_document(data: Path, document: dict[str, Any]) -> None:
    """Write the metadata beside a data file, with the schemas of what stood there and of its neighbours before."""
    path = metadata_path(data)
    for earlier in sorted(path.parent.glob("*.metadata.json")):
        known = _read_document(earlier)
        if known is not None:
            document = with_history(document, known)
    write_json(path, document)


def _read_document(path: Path) -> dict[str, Any] | None:
    """A metadata document; None where a file of that name holds something else."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) and isinstance(document.get("Schema", []), list) else None


def _split(day: LedgerDay, options: ExportOptions) -> tuple[LedgerDay, Split]:
    return day, split_ledger(day.read(), options)


def _sector(day: LedgerDay) -> TimeSector:
    start = datetime.combine(day.day, datetime.min.time(), tzinfo=UTC)
    return TimeSector(start=start, end=start + timedelta(days=1), complete=day.complete)
