"""`gpuwaste top`: the workloads whose waste is dearest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gpuwaste.cli.output import echo_table, output_option
from gpuwaste.cli.stores import load_ledger
from gpuwaste.cli.times import Day

if TYPE_CHECKING:
    from datetime import datetime

    from gpuwaste.report.summary import Grouping

__all__ = ["top"]

_BY = ("workload", "namespace", "team", "pool")


@click.command()
@click.option("--ledger", required=True, metavar="URL", help="Folder or object store of the ledger.")
@click.option("--from", "first", type=Day(), help="First day, in UTC.  [default: the first there is]")
@click.option("--to", "last", type=Day(), help="Last day, included.  [default: the last there is]")
@click.option("--cluster", help="This cluster alone.")
@click.option("--by", type=click.Choice(_BY), default="workload", show_default=True, help="What a row stands for.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="At most so many rows.")
@output_option
def top(
    *,
    ledger: str,
    first: datetime | None,
    last: datetime | None,
    cluster: str | None,
    by: Grouping,
    limit: int,
    output: str,
) -> None:
    """Show whose waste is dearest, first; what nobody holds is not among them."""
    from gpuwaste.cli.summary_tables import group_columns
    from gpuwaste.report.summary import group_rows, summed_columns
    from gpuwaste.report.tables import flat_rows

    table = load_ledger(ledger, first=first, last=last, cluster=cluster, columns=summed_columns(by), resource="gpu")
    rows = flat_rows([group for group in group_rows(table, by) if group.is_held][:limit])
    echo_table(group_columns(by, rows), rows, output)
