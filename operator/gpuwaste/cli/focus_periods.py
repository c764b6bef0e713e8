"""`gpuwaste focus publish|restate|periods`: bills that are open, closed for good, and restated beside."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from gpuwaste import __version__
from gpuwaste.cli.output import Column, echo_table, output_option
from gpuwaste.cli.stores import open_ledger
from gpuwaste.cli.times import Day, Moment
from gpuwaste.model.errors import InputError
from gpuwaste.model.units import format_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpuwaste.focus.archive import Archive
    from gpuwaste.focus.manifest import Manifest, Series
    from gpuwaste.focus.periods import Period
    from gpuwaste.focus.publish import Publisher, Result
    from gpuwaste.focus.sources import Source

__all__ = ["periods_command", "publish_command", "restate_command"]

_DEFAULT_GRACE_HOURS = 72
_LEDGER = click.option("--ledger", required=True, metavar="URL", help="Folder or object store of the ledger.")
_ARCHIVE = click.option(
    "--archive", required=True, metavar="URL", help="Folder or object store of the published bills."
)
_BILL = click.option(
    "--bill",
    type=click.Path(path_type=Path),
    help="The provider's FOCUS bill, a file or a folder of files, published by its billing periods.",
)


_AS_OF = click.option("--as-of", type=Moment(), help="The time that decides what is closed.  [default: now]")
_COLUMNS = (
    Column("period", "Period"),
    Column("revision", "Revision", right=True),
    Column("outcome", "Outcome"),
    Column("state", "State", unknown=""),
    Column("rows", "Rows", right=True, unknown=""),
    Column("effective_cost", "Effective cost", right=True, unknown=""),
    Column("closes", "Closes", unknown=""),
    Column("missing_hours", "Missing hours", right=True, unknown=""),
    Column("carried_in", "Carried in", unknown=""),
    Column("totals_sha256", ""),
)


@click.command(name="publish")
@_LEDGER
@_ARCHIVE
@click.option("--from", "first", required=True, type=Day(), help="First day, like 2026-11-01 (UTC).")
@click.option("--to", "last", required=True, type=Day(), help="Last day, included.")
@click.option(
    "--period",
    "length",
    type=click.Choice(["hour", "day", "week", "month"]),
    help="What is closed as a whole.  [default: day; month with --bill]",
)
@click.option(
    "--grace-hours",
    type=click.FloatRange(0, 24 * 366),
    default=_DEFAULT_GRACE_HOURS,
    show_default=True,
    help="How long after its end a period stays open for late data.",
)
@click.option("--method", help="How a node's cost is divided.  [default: gpuwaste-held-v1]")
@click.option("--version", "version", type=click.Choice(["1.3", "1.4"]), help="FOCUS version.  [default: 1.3]")
@click.option(
    "--by",
    "grouping",
    type=click.Choice(["namespace", "workload", "team"]),
    help="Whose part is one record.  [default: namespace]",
)
@click.option("--grain", type=click.Choice(["hour", "day"]), help="Time that one record covers.  [default: hour]")
@click.option("--currency", help="The currency to publish, where the ledger has several.")
@click.option("--provider", help="Who provides the nodes.  [default: Platform]")
@click.option("--account-id", help="The account that is charged.  [default: the cluster's name]")
@click.option("--account-name", help="Its name.  [default: its id]")
@click.option(
    "--format",
    "formats",
    multiple=True,
    type=click.Choice(["parquet", "csv", "json"]),
    help="What to write besides Parquet: the rows as CSV, the totals as JSON. Can be given again.",
)
@click.option(
    "--layout",
    "layouts",
    multiple=True,
    type=click.Choice(["vantage", "cloudzero", "finout", "opencost"]),
    help="Write the published months below layouts/ as this tool imports them, too. Can be given again.",
)
@_BILL
@_AS_OF
@output_option
def publish_command(
    *,
    ledger: str,
    archive: str,
    first: datetime,
    last: datetime,
    length: str | None,
    grace_hours: float,
    formats: tuple[str, ...],
    layouts: tuple[str, ...],
    bill: Path | None,
    as_of: datetime | None,
    output: str,
    **chosen: str | None,
) -> None:
    """Publish bills by period: open ones are replaced whole, and closed once their grace is over.

    A closed period never changes again. Where its ledger was written to since, the command says so, and `gpuwaste
    focus restate` publishes a numbered restatement beside it. Running the command again writes nothing twice. What an
    archive was first published with need not be given again, and cannot be changed.
    """
    from gpuwaste.focus.layouts import write_layout
    from gpuwaste.focus.periods import months_of

    if last < first:
        raise click.UsageError(f"--to {last:%Y-%m-%d} lies before --from {first:%Y-%m-%d}")
    place = _archive(archive)
    series = _series(place.series(), length=length, formats=formats, bill=bill, chosen=chosen)
    made = _publisher(place, series, _source(ledger, bill), timedelta(hours=grace_hours))
    now = as_of or datetime.now(UTC)
    periods = [one for one in made.due(first, last + timedelta(days=1)) if one.start <= now]
    if not periods:
        raise InputError("no ledger hour lies in these days", where="--from, --to")
    results = made.publish(periods, now=now)
    _report(results, output)
    for layout in layouts:
        for name in write_layout(place, layout, months_of(periods)):
            click.echo(f"{place.store.root}/{name}", err=True)
    for result in results:
        if result.outcome == "Empty":
            click.echo(f"{result.period.name}: the ledger has no hour that the bill charges; not published", err=True)
        if result.outcome == "Differs":
            click.echo(
                f"{result.period.name}: is closed, and its ledger was written to since; "
                f"`gpuwaste focus restate --period {result.period.name}` publishes what differs beside it",
                err=True,
            )


@click.command(name="restate")
@_LEDGER
@_ARCHIVE
@click.option(
    "--period", "names", required=True, multiple=True, help="A closed period, like 2026-11-01; several can be given."
)
@click.option("--reason", default="", help="Why; it stands in the manifest.")
@_BILL
@_AS_OF
@output_option
def restate_command(
    *,
    ledger: str,
    archive: str,
    names: tuple[str, ...],
    reason: str,
    bill: Path | None,
    as_of: datetime | None,
    output: str,
) -> None:
    """Publish closed periods anew, whole and numbered, beside the old ones.

    The old files stay. What each receiver owes more or less is charged as an adjustment in the next report: the first
    later period that is still open. Nothing is published where the charges came out as they were.
    """
    from gpuwaste.focus.periods import parse_period
    from gpuwaste.focus.restate import Restater

    place = _archive(archive)
    series = place.series()
    if series is None:
        raise InputError("holds no published periods", where=archive, fix="publish some with `gpuwaste focus publish`")
    if (series.source == "bill") != (bill is not None):
        raise InputError(f"was published from a {series.source}", where=archive, fix="give --bill just as then")
    made = _publisher(place, series, _source(ledger, bill), timedelta(hours=_DEFAULT_GRACE_HOURS))
    periods = sorted({parse_period(name, series.length) for name in names})
    now = as_of or datetime.now(UTC)
    _report([Restater(publisher=made).restate(one, reason=reason, now=now) for one in periods], output)


@click.command(name="periods")
@_ARCHIVE
@click.option("--check", is_flag=True, help="Read every file, and compare it with the hash it was published with.")
@output_option
def periods_command(*, archive: str, check: bool, output: str) -> None:
    """List what was published: open and closed periods, and their restatements.

    With --check exits with 1 if a file is missing or is not the one that was published.
    """
    from gpuwaste.focus.audit import audit

    place = _archive(archive)
    found = [_row(period, manifest) for period in place.periods() for manifest in place.revisions(period)]
    if not found:
        raise InputError("holds no published periods", where=archive, fix="publish some with `gpuwaste focus publish`")
    columns = [column for column in _COLUMNS if column.key != "outcome"]
    echo_table(columns, found, output)
    broken = audit(place) if check else []
    for line in broken:
        click.echo(line, err=True)
    if broken:
        raise SystemExit(1)


def _archive(url: str) -> Archive:
    from gpuwaste.focus.archive import Archive
    from gpuwaste.ledger.store import open_store

    return Archive(store=open_store(url))


def _source(ledger: str, bill: Path | None) -> Source:
    from gpuwaste.focus.sources import BillSource, LedgerSource

    source = LedgerSource(store=open_ledger(ledger))
    return source if bill is None else BillSource(ledger=source, bill=bill)


def _publisher(archive: Archive, series: Series, source: Source, grace: timedelta) -> Publisher:
    from gpuwaste.focus.publish import Publisher, options_of

    return Publisher(
        archive=archive,
        source=source,
        options=options_of(series),
        series=series,
        grace=grace,
        generator_version=__version__,
    )


def _series(
    known: Series | None,
    *,
    length: str | None,
    formats: Sequence[str],
    bill: Path | None,
    chosen: dict[str, str | None],
) -> Series:
    """The series that was published before, with what was given in its place; else what was given, and defaults."""
    from gpuwaste.focus.methods import parse_method
    from gpuwaste.focus.options import ExportOptions
    from gpuwaste.focus.publish import options_of, series_of

    given: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
    if "method" in given:
        given["method"] = parse_method(given["method"])
    source: Literal["ledger", "bill"] = "ledger" if bill is None else "bill"
    if known is None:
        wanted = length or ("day" if bill is None else "month")
        return series_of(ExportOptions(**given), length=wanted, formats=("parquet", *formats), source=source)
    before = options_of(known)
    kept = {name: getattr(before, name) for name in before.__slots__}
    return series_of(
        ExportOptions(**(kept | given)),
        length=length or known.length,
        formats=("parquet", *formats) if formats else known.formats,
        source=source,
    )


def _report(results: Sequence[Result], output: str) -> None:
    echo_table(_COLUMNS, [_row(one.period, one.manifest, str(one.outcome)) for one in results], output)
    for line in dict.fromkeys(line for one in results if one.manifest for line in one.manifest.findings):
        click.echo(line, err=True)


def _row(period: Period, manifest: Manifest | None, outcome: str = "") -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(column.key for column in _COLUMNS)
    row |= {"period": period.name, "outcome": outcome, "revision": 0}
    return row if manifest is None else row | _facts(manifest)


def _facts(manifest: Manifest) -> dict[str, Any]:
    return {
        "revision": manifest.revision,
        "state": manifest.state,
        "rows": manifest.rows,
        "effective_cost": ", ".join(f"{cost:f} {currency}" for currency, cost in manifest.total().items()),
        "closes": format_time(manifest.closed_time or manifest.closes_time),
        "missing_hours": manifest.missing_hours,
        "carried_in": manifest.carried_in,
        "totals_sha256": manifest.totals_sha256,
    }
