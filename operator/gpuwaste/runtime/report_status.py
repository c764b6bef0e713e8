"""What a `ChargebackReport` says of what was published: files, conditions, totals. Pure functions of the manifests."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from gpuwaste.api import (
    Amount,
    ChargebackReportStatus,
    ConditionStatus,
    ConditionType,
    FileState,
    Reason,
    ReportFile,
    ReportFormat,
    make_condition,
    set_condition,
)
from gpuwaste.model.money import plain
from gpuwaste.model.units import format_time

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from gpuwaste.api import ChargebackReport, Condition
    from gpuwaste.focus.manifest import FileEntry, Manifest

__all__ = ["MAX_FILES", "Run", "failed_status", "run_status", "waiting_status"]

_FORMATS: Final = {
    "parquet": ReportFormat.FOCUS,
    "csv": ReportFormat.CSV,
    "json": ReportFormat.JSON,
    "html": ReportFormat.HTML,
}
MAX_FILES: Final = 64
"""As many as the status of a report may name."""
_DECIMALS: Final = Decimal(1).scaleb(-12)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one run left in the archive.

    Attributes:
        manifests: of the newest periods of the report, and of their restatements, oldest first.
        restatements: how many there are of all its periods.
        at: the scheduled time that was run.
        following: the next one, None where there is none.
        url: where a file lies.
        findings: what the newest files leave out, by name.
    """

    manifests: Sequence[Manifest]
    restatements: int
    at: datetime
    following: datetime | None
    url: Callable[[FileEntry], str]


def run_status(report: ChargebackReport, run: Run, *, now: datetime) -> ChargebackReportStatus:
    """The status after a run that went well."""
    originals = [one for one in run.manifests if not one.revision]
    newest = max(originals, key=lambda one: one.start, default=None)
    conditions = _with(report, _ready(report, run, newest, now), _closed(report, originals, now))
    total = None if newest is None else _total(newest)
    return ChargebackReportStatus(
        conditions=conditions,
        observed_generation=report.metadata.generation,
        last_run_time=run.at,
        next_run_time=run.following,
        closed_through_time=_closed_through(originals),
        restatement_count=run.restatements,
        total=total,
        totals_sha256=None if newest is None else newest.totals_sha256,
        files=_files(run),
        summary=None if newest is None else _summary(newest, total),
    )


def waiting_status(report: ChargebackReport, *, following: datetime, now: datetime) -> ChargebackReportStatus:
    """The status before the first run."""
    message = f"The first report is made at {format_time(following)}."
    pending = [
        _condition(report, kind, ConditionStatus.UNKNOWN, Reason.PENDING, message, now=now)
        for kind in (ConditionType.READY, ConditionType.CLOSED)
    ]
    return ChargebackReportStatus(
        conditions=_with(report, *pending),
        observed_generation=report.metadata.generation,
        next_run_time=following,
    )


def failed_status(report: ChargebackReport, reason: Reason, message: str, *, now: datetime) -> ChargebackReportStatus:
    """The status after a run that failed: what was said of files before still holds."""
    ready = _condition(report, ConditionType.READY, ConditionStatus.FALSE, reason, message, now=now)
    before = report.status or ChargebackReportStatus()
    return before.model_copy(
        update={"conditions": _with(report, ready), "observed_generation": report.metadata.generation}
    )


def _with(report: ChargebackReport, *conditions: Condition) -> tuple[Condition, ...]:
    found = () if report.status is None else report.status.conditions
    for condition in conditions:
        found = set_condition(found, condition)
    return found


def _condition(
    report: ChargebackReport,
    kind: ConditionType,
    status: ConditionStatus,
    reason: Reason,
    message: str,
    *,
    now: datetime,
) -> Condition:
    return make_condition(kind, status, reason, message, observed_generation=report.metadata.generation or 1, now=now)


def _ready(report: ChargebackReport, run: Run, newest: Manifest | None, now: datetime) -> Condition:
    kind = ConditionType.READY
    if newest is None:
        message = f"The ledger had nothing to report at {format_time(run.at)}."
        return _condition(report, kind, ConditionStatus.FALSE, Reason.NO_DATA, message, now=now)
    message = f"{newest.period}: {newest.rows} rows of {newest.charges} charges."
    if newest.missing_hours:
        message += f" The ledger lacks {newest.missing_hours} hours of it."
    if newest.findings:
        message += f" Left out: {newest.findings[0]}"
        message += f" (and {len(newest.findings) - 1} more)." if len(newest.findings) > 1 else "."
    return _condition(report, kind, ConditionStatus.TRUE, Reason.WRITTEN, message, now=now)


def _closed(report: ChargebackReport, originals: Sequence[Manifest], now: datetime) -> Condition:
    kind = ConditionType.CLOSED
    if not originals:
        message = "Nothing was published yet."
        return _condition(report, kind, ConditionStatus.UNKNOWN, Reason.NO_DATA, message, now=now)
    still = [one for one in originals if not one.closed]
    closed = [one for one in originals if one.closed]
    said = f" {closed[-1].period} is closed with totals {closed[-1].totals_sha256}." if closed else ""
    if still:
        message = f"{still[0].period} is open for late data until {format_time(still[0].closes_time)}.{said}"
        return _condition(report, kind, ConditionStatus.FALSE, Reason.GRACE_RUNNING, message, now=now)
    message = f"Every published period is closed and never changes.{said}"
    return _condition(report, kind, ConditionStatus.TRUE, Reason.ALL_CLOSED, message, now=now)


def _closed_through(originals: Sequence[Manifest]) -> datetime | None:
    through = None
    for one in originals:
        if not one.closed:
            break
        through = one.end
    return through


def _total(manifest: Manifest) -> Amount | None:
    """The total as far as an object can hold it; the manifest has it exactly."""
    found = manifest.total()
    if len(found) != 1:
        return None
    ((currency, cost),) = found.items()
    return Amount(amount=cost.quantize(_DECIMALS).normalize() + 0, currency=currency)


def _summary(manifest: Manifest, total: Amount | None) -> str:
    cost = "several currencies" if total is None else f"{plain(total.amount)} {total.currency}"
    return f"{manifest.period}: {cost}, {manifest.state.lower()}"


def _files(run: Run) -> tuple[ReportFile, ...]:
    newest = sorted(run.manifests, key=lambda one: (one.start, one.revision), reverse=True)
    files = [
        ReportFile(
            url=run.url(entry),
            format=_FORMATS[entry.format],
            from_time=manifest.start,
            to_time=manifest.end,
            state=FileState(manifest.state),
            revision=manifest.revision,
            size_bytes=entry.size_bytes,
            sha256=entry.sha256,
        )
        for manifest in newest
        for entry in manifest.files
    ]
    return tuple(files[:MAX_FILES])
