"""From the spec of a `ChargebackReport` to the publisher that makes its files."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from gpuwaste.api import ReportFormat, ReportGrain, ReportPeriod
from gpuwaste.focus.archive import Archive
from gpuwaste.focus.methods import parse_method
from gpuwaste.focus.options import ExportOptions
from gpuwaste.focus.periods import period_at, span_period
from gpuwaste.focus.publish import Publisher, series_of
from gpuwaste.focus.sources import BillSource, LedgerSource
from gpuwaste.ledger.store import open_store
from gpuwaste.ledger.write import read_ledger
from gpuwaste.report.html import render_report
from gpuwaste.report.summary import summarize

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from gpuwaste.api import ChargebackReport
    from gpuwaste.focus.periods import Length, Period
    from gpuwaste.ledger.store import Store

__all__ = ["archive_url", "open_since", "publisher_for"]

_FORMATS: Final = {
    ReportFormat.FOCUS: "parquet",
    ReportFormat.CSV: "csv",
    ReportFormat.JSON: "json",
    ReportFormat.HTML: "html",
}
_LENGTHS: Final[dict[ReportPeriod, Length]] = {
    ReportPeriod.HOUR: "hour",
    ReportPeriod.DAY: "day",
    ReportPeriod.WEEK: "week",
    ReportPeriod.MONTH: "month",
}


def archive_url(report: ChargebackReport, cluster: str) -> str:
    """Where the files of a report go: a folder of its own below the destination, for clusters may share that."""
    base, question, query = report.spec.destination_url.partition("?")
    folder = f"cluster={quote(cluster, safe='')}/report={quote(report.metadata.name, safe='')}"
    return f"{base.rstrip('/')}/{folder}{question}{query}"


def publisher_for(
    report: ChargebackReport, *, ledger: Store, cluster: str, generator_version: str, bill: Path | None = None
) -> Publisher:
    """The publisher of a report's series.

    Args:
        report: what is asked for.
        ledger: where the ledger lies.
        cluster: whose ledger.
        generator_version: version of this program.
        bill: the provider's bill on this machine, where the report asks for its rows to be divided.

    Raises:
        InputError: an unknown method, or a destination that is no store.
        UnreachableError: the destination did not answer.
    """
    spec = report.spec
    options = ExportOptions(
        method=parse_method(spec.method),
        grain="day" if spec.grain == ReportGrain.DAY else "hour",
        grouping=spec.group_by.lower(),  # type: ignore[arg-type]  # the names of both are the same, one in upper case
        version=spec.focus_version,  # type: ignore[arg-type]  # the schema allows no other
        provider=spec.provider,
        currency=spec.currency or "",
    )
    length = "span" if spec.period is None else spec.period.lower()
    formats = ["parquet", *(_FORMATS[one] for one in spec.formats if one != ReportFormat.FOCUS)]
    hours = LedgerSource(store=ledger, cluster=cluster)
    return Publisher(
        archive=Archive(store=open_store(archive_url(report, cluster))),
        source=hours if bill is None else BillSource(ledger=hours, bill=bill),
        options=options,
        series=series_of(options, length=length, formats=formats, source="ledger" if bill is None else "bill"),
        grace=timedelta(seconds=spec.grace_period_seconds),
        generator_version=generator_version,
        page=_Page(ledger=ledger, cluster=cluster, name=report.metadata.name),
    )


def open_since(report: ChargebackReport, *, now: datetime, changes_for: timedelta = timedelta()) -> datetime | None:
    """Start of the oldest period of a report that is not closed yet; None where its one period is.

    Args:
        report: the report.
        now: the time.
        changes_for: how long after its end an hour of the ledger can still change; a period that can be restated
            because of it counts as open.

    Raises:
        InputError: its range is none.
    """
    spec = report.spec
    grace = max(timedelta(seconds=spec.grace_period_seconds), changes_for)
    if spec.range is not None:
        period = span_period(spec.range.from_time, spec.range.to_time)
        return period.start if now < period.end + grace else None
    if spec.period is None:
        return None
    return period_at(now - grace, _LENGTHS[spec.period]).start


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    """Makes the page of a period; it says no time but the period's, so that equal periods give equal bytes."""

    ledger: Store
    cluster: str
    name: str

    def __call__(self, period: Period) -> str:
        rows = read_ledger(self.ledger, start=period.start, end=period.end, clusters=[self.cluster])
        if not len(rows):  # it only carries adjustments
            return ""
        title = f"{self.name}: {period.name}"
        return render_report(summarize(rows), title=title, generated_at=period.end)
