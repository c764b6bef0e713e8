"""`gpuwaste report`: what was paid, used and wasted, as a table or as one HTML page."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gpuwaste.cli.output import echo_table, output_option
from gpuwaste.cli.stores import load_ledger
from gpuwaste.cli.times import Day

if TYPE_CHECKING:
    import pyarrow as pa

    from gpuwaste.report.summary import Grouping

__all__ = ["report"]

_BY = ("team", "namespace", "workload", "pool", "hour", "cluster")


@click.command()
@click.option("--ledger", required=True, metavar="URL", help="Folder or object store of the ledger.")
@click.option("--from", "first", type=Day(), help="First day, in UTC.  [default: the first there is]")
@click.option("--to", "last", type=Day(), help="Last day, included.  [default: the last there is]")
@click.option("--cluster", help="This cluster alone.")
@click.option("--by", type=click.Choice(_BY), default="team", show_default=True, help="What a row stands for.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write one HTML page as well.")
@click.option("--plan", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A plan for the page.")
@click.option("--title", default="GPU report", show_default=True, help="Title of the page.")
@output_option
def report(
    *,
    ledger: str,
    first: datetime | None,
    last: datetime | None,
    cluster: str | None,
    by: Grouping,
    html: Path | None,
    plan: Path | None,
    title: str,
    output: str,
) -> None:
    """Sum the ledger by team, namespace, workload, pool or hour; dearest waste first."""
    from gpuwaste.cli.summary_tables import group_columns
    from gpuwaste.report.summary import group_rows, summed_columns
    from gpuwaste.report.tables import flat_rows

    if plan is not None and html is None:
        raise click.UsageError("--plan needs --html")
    table = load_ledger(
        ledger, first=first, last=last, cluster=cluster, columns=None if html else summed_columns(by), resource="gpu"
    )
    rows = flat_rows(group_rows(table, by))
    if html is not None:
        _write_page(table, html, title=title, plan=plan)
    echo_table(group_columns(by, rows), rows, output)
    if html is not None:
        click.echo(f"the page: {html}", err=True)


def _write_page(table: pa.Table, path: Path, *, title: str, plan: Path | None) -> None:
    import json

    from gpuwaste.cli.files import atomic_text
    from gpuwaste.model.errors import InputError
    from gpuwaste.report.html import render_report
    from gpuwaste.report.summary import summarize

    stated = None
    if plan is not None:
        try:
            stated = json.loads(plan.read_bytes())
        except ValueError as error:
            raise InputError(f"is no JSON: {error}", where=str(plan)) from None
        if not isinstance(stated, dict):
            raise InputError("must be a JSON object", where=str(plan))
    page = render_report(summarize(table), title=title, generated_at=datetime.now(UTC), plan=stated)
    with atomic_text(path) as stream:
        stream.write(page)
