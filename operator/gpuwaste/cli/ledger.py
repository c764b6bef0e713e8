"""`gpuwaste ledger`: list, show and verify the hourly ledger, and export what it was computed from."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpuwaste.cli.output import Column, echo_table, output_option
from gpuwaste.cli.stores import (
    bytes_per_gpu_day,
    clusters_of,
    ledger_size,
    load_ledger,
    open_inputs,
    open_ledger,
)
from gpuwaste.cli.times import Day

if TYPE_CHECKING:
    from datetime import datetime


__all__ = ["ledger"]

_HOURS_DECIMALS = 3
_SHOWN_TO_PEOPLE = {
    "hour": "HOUR",
    "row_kind": "KIND",
    "node": "NODE",
    "gpu_uuid": "GPU",
    "namespace": "NAMESPACE",
    "pod": "POD",
    "team": "TEAM",
    "owned": "OWNED",
    "held": "HELD",
    "effective": "EFFECTIVE",
    "borrowed": "BORROWED",
    "lent": "LENT",
}


@click.group()
def ledger() -> None:
    """The hourly ledger: one row a holder, or a part that nobody holds, of every GPU in every hour."""


def _hours(amount: float) -> str:
    return f"{amount:.{_HOURS_DECIMALS}f}"


@ledger.command("ls")
@click.option("--ledger", "url", required=True, metavar="URL", help="Folder or object store of the ledger.")
@output_option
def list_hours(*, url: str, output: str) -> None:
    """List the clusters of a ledger: hours, holes, size, and bytes that a GPU takes a day, by the newest 24 hours."""
    from gpuwaste.model.units import HOUR, format_time

    store = open_ledger(url)
    rows = []
    for cluster, hours in clusters_of(store, "ledger", only=None).items():
        expected = (hours[-1] - hours[0]) // HOUR + 1
        rows.append(
            {
                "cluster": cluster,
                "first_hour": hours[0],
                "last_hour": hours[-1],
                "hours": len(hours),
                "missing_hours": expected - len(hours),
                "bytes": ledger_size(store, cluster),
                "bytes_per_gpu_day": bytes_per_gpu_day(store, cluster, hours),
            }
        )
    columns = [
        Column("cluster", "CLUSTER"),
        Column("first_hour", "FIRST HOUR", format_time),
        Column("last_hour", "LAST HOUR", format_time),
        Column("hours", "HOURS", right=True),
        Column("missing_hours", "MISSING", right=True),
        Column("bytes", "BYTES", lambda size: f"{size:,}", right=True),
        Column("bytes_per_gpu_day", "PER GPU-DAY", lambda size: f"{size:,}", unknown="<no GPU>", right=True),
    ]
    echo_table(columns, rows, output)


@ledger.command("show")
@click.option("--ledger", "url", required=True, metavar="URL", help="Folder or object store of the ledger.")
@click.option("--from", "first", type=Day(), help="First day, in UTC.")
@click.option("--to", "last", type=Day(), help="Last day, included.")
@click.option("--cluster", help="This cluster alone.")
@click.option("--namespace", help="This namespace alone.")
@click.option("--team", help="This team alone.")
@click.option("--pod", help="Pods of this name alone.")
@click.option("--gpu", help="This GPU's UUID alone.")
@click.option(
    "--resource",
    type=click.Choice(("gpu", "cpu", "memory", "all")),
    default="gpu",
    show_default=True,
    help="Rows of GPUs, or of the CPU or memory of their nodes.",
)
@click.option("--limit", type=click.IntRange(min=1), help="At most so many rows.")
@output_option
def show(
    *,
    url: str,
    first: datetime | None,
    last: datetime | None,
    cluster: str | None,
    resource: str,
    limit: int | None,
    output: str,
    **filters: str | None,
) -> None:
    """Show rows of the ledger.

    For people amounts are GPU-hours, core-hours or GiB-hours; for programs the ledger's own nanoseconds of GPU,
    milli-core-milliseconds or byte-seconds.
    """
    import pyarrow.compute as pc

    from gpuwaste.ledger.schema import AMOUNT_COLUMNS, LEDGER_SCHEMA, UNITS_PER_HOUR
    from gpuwaste.model.units import format_time

    table = load_ledger(url, first=first, last=last, cluster=cluster)
    for option, column in (("namespace", "namespace"), ("team", "team"), ("pod", "pod"), ("gpu", "gpu_uuid")):
        if filters[option] is not None:
            table = table.filter(pc.equal(table[column], filters[option]))
    if resource != "all":
        table = table.filter(pc.equal(table["resource"], resource))
    rows: list[dict[str, Any]] = table.slice(0, limit).to_pylist()
    if output == "table":
        for row in rows:
            row |= {n: row[n] / UNITS_PER_HOUR[row["resource"]] for n in AMOUNT_COLUMNS if row[n] is not None}
    columns = []
    for name in LEDGER_SCHEMA.names:
        header = "RESOURCE" if (name, resource) == ("resource", "all") else _SHOWN_TO_PEOPLE.get(name, "")
        if name in AMOUNT_COLUMNS:
            columns.append(Column(name, header, _hours, unknown="<unmeasured>", right=True))
        else:
            columns.append(Column(name, header, format_time if name == "hour" else str))
    echo_table(columns, rows, output)


@ledger.command("verify")
@click.option("--ledger", "url", required=True, metavar="URL", help="Folder or object store of the ledger.")
@click.option("--inputs", metavar="URL", help="Check as well that the ledger was computed from these inputs.")
@click.option("--cluster", help="This cluster alone.")
@output_option
def verify(*, url: str, inputs: str | None, cluster: str | None, output: str) -> None:
    """Check that every nanosecond of every GPU is accounted for, once. Exit code 1 where it is not."""
    from gpuwaste.cli.conservation import broken_laws, stale_hours
    from gpuwaste.model.units import format_time

    store = open_ledger(url)
    findings, hours = [], 0
    for name, stored in clusters_of(store, "ledger", only=cluster).items():
        hours += len(stored)
        findings += broken_laws(store, name, *stored)
        if inputs is not None:
            findings += stale_hours(store, open_inputs(inputs), name)
    columns = [
        Column("cluster", "CLUSTER"),
        Column("hour", "HOUR", format_time),
        Column("place", "WHERE"),
        Column("law", "LAW"),
        Column("difference_ns", "DIFFERENCE", lambda ns: f"{ns:,} ns", unknown="", right=True),
    ]
    if findings or output != "table":
        echo_table(columns, findings, output)
    if findings:
        raise SystemExit(1)
    if output == "table":
        click.echo(f"{hours} hours: every law of the accounting holds")


@ledger.command("compact")
@click.option("--ledger", "url", required=True, metavar="URL", help="Folder or object store of the ledger.")
@click.option("--cluster", help="This cluster alone.")
@click.option("--to", "last", type=Day(), help="Last day, included.  [default: the last that ended]")
@output_option
def compact(*, url: str, cluster: str | None, last: datetime | None, output: str) -> None:
    """Put the hours of each day that has ended into one file: a fraction of the bytes, and the same rows.

    Every command reads both. The operator does this by itself, after `retention.compactAfterDays`; use it for a ledger
    that no operator writes. Days with a single hour stay as they are. Doing it twice changes nothing.
    """
    from datetime import UTC, datetime, timedelta

    from gpuwaste.ledger.days import compact_days

    store = open_ledger(url)
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    before = today if last is None else min(today, last + timedelta(days=1))
    rows = [
        asdict(done) | {"day": done.day.isoformat()}
        for name in clusters_of(store, "ledger", only=cluster)
        for done in compact_days(store, cluster=name, before=before)
    ]
    columns = [
        Column("cluster", "CLUSTER"),
        Column("day", "DAY"),
        Column("hours", "HOURS", right=True),
        Column("files", "FILES", right=True),
        Column("bytes_before", "BYTES BEFORE", lambda size: f"{size:,}", right=True),
        Column("bytes_after", "BYTES AFTER", lambda size: f"{size:,}", right=True),
    ]
    if rows or output != "table":
        echo_table(columns, rows, output)
    else:
        click.echo("nothing to do: no day that has ended has several files")


@ledger.command("export-inputs")
@click.option("--inputs", required=True, metavar="URL", help="Stored inputs: the folder `inputs`, or its parent.")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder for both files.")
@click.option("--cluster", help="Which cluster; needed where the inputs hold several.")
@click.option("--from", "first", type=Day(), help="First day, in UTC.")
@click.option("--to", "last", type=Day(), help="Last day, included.")
def export_inputs(
    *, inputs: str, out: Path, cluster: str | None, first: datetime | None, last: datetime | None
) -> None:
    """Write `windows.jsonl` and `facts.jsonl`, from which `replay` computes the same ledger, byte for byte."""
    from datetime import timedelta

    from gpuwaste.cli.files import atomic_text
    from gpuwaste.cli.input_files import write_facts, write_windows
    from gpuwaste.ledger.inputs import TEAM_RULES_NAME, InputStore, team_rules_file
    from gpuwaste.model.errors import InputError

    store = open_inputs(inputs)
    clusters = clusters_of(store, "inputs", only=cluster)
    if len(clusters) > 1:
        raise InputError(f"holds the clusters {', '.join(clusters)}", where=inputs, fix="name one with --cluster")
    ((name, stored),) = clusters.items()
    end = None if last is None else last + timedelta(days=1)
    hours = [h for h in stored if (first is None or h >= first) and (end is None or h < end)]
    if not hours:
        raise InputError("no stored hour lies in these days", where=inputs)
    source = InputStore(store, name)
    out.mkdir(parents=True, exist_ok=True)
    with atomic_text(out / "windows.jsonl") as windows, atomic_text(out / "facts.jsonl") as facts:
        windows.writelines(write_windows(source, hours))
        facts.writelines(write_facts(source, hours))
    rules = store.read_or_none(team_rules_file(name))
    if rules is not None:
        with atomic_text(out / TEAM_RULES_NAME) as stream:
            stream.write(rules.decode())
    click.echo(f"{len(hours)} hours written; to compute the ledger from them:")
    click.echo(f"  gpuwaste replay --windows {out}/windows.jsonl --facts {out}/facts.jsonl --ledger DIR")
