"""`gpuwaste focus`: export FOCUS files from the ledger, and verify such files."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gpuwaste import __version__
from gpuwaste.cli.focus_periods import periods_command, publish_command, restate_command
from gpuwaste.cli.focus_tokens import tokens_command
from gpuwaste.cli.stores import open_ledger
from gpuwaste.cli.times import Day
from gpuwaste.model.errors import InputError

if TYPE_CHECKING:
    from gpuwaste.api.reservation import GPUReservation
    from gpuwaste.focus.columns import Version
    from gpuwaste.focus.options import Grain, Grouping

__all__ = ["focus"]

_VERSIONS = click.Choice(["1.3", "1.4"])


@click.group(name="focus")
def focus() -> None:
    """FOCUS cost records: write them from the ledger, close and restate them by period, or verify a file."""


focus.add_command(publish_command)
focus.add_command(restate_command)
focus.add_command(periods_command)
focus.add_command(tokens_command)


@focus.command(name="export")
@click.option("--ledger", required=True, metavar="URL", help="Folder or object store of the ledger.")
@click.option("--from", "first", required=True, type=Day(), help="First day, like 2026-11-01 (UTC).")
@click.option("--to", "last", required=True, type=Day(), help="Last day, included.")
@click.option("--method", default="gpuwaste-held-v1", show_default=True, help="How a node's cost is divided.")
@click.option(
    "--remainder-owner",
    "owners",
    multiple=True,
    metavar="KIND=OWNER",
    help="Who pays what nobody holds, like Unallocated=ReservationOwner; OWNER is Platform, Proportional or "
    "ReservationOwner, and becomes part of the method's id.  [default: Platform]",
)
@click.option("--version", "focus_version", default="1.3", show_default=True, type=_VERSIONS, help="FOCUS version.")
@click.option(
    "--by",
    default="namespace",
    show_default=True,
    type=click.Choice(["namespace", "workload", "team"]),
    help="Whose part is one record.",
)
@click.option(
    "--grain",
    default="hour",
    show_default=True,
    type=click.Choice(["hour", "day"]),
    help="Time that one record covers.",
)
@click.option("--currency", default="", help="The currency to export, where the ledger has several.")
@click.option("--provider", default="Platform", show_default=True, help="Who provides the nodes.")
@click.option("--account-id", default="", help="The account that is charged.  [default: the cluster's name]")
@click.option("--account-name", default="", help="Its name.  [default: its id]")
@click.option(
    "--bill",
    type=click.Path(path_type=Path),
    help="The provider's FOCUS bill, a file or a folder of files, whose rows are then divided.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A .parquet or .csv file, or a folder.")
def export_command(
    *,
    ledger: str,
    first: datetime,
    last: datetime,
    method: str,
    owners: tuple[str, ...],
    focus_version: Version,
    by: Grouping,
    grain: Grain,
    currency: str,
    provider: str,
    account_id: str,
    account_name: str,
    bill: Path | None,
    out: Path,
) -> None:
    """Write the cost of the nodes, divided among those who held their GPUs."""
    from gpuwaste.focus.export import export, export_bill
    from gpuwaste.focus.ledger_days import ledger_days
    from gpuwaste.focus.methods import parse_method, with_remainder_owners
    from gpuwaste.focus.options import ExportOptions

    if last < first:
        raise click.UsageError(f"--to {last:%Y-%m-%d} lies before --from {first:%Y-%m-%d}")
    options = ExportOptions(
        method=parse_method(with_remainder_owners(method, owners)),
        grain=grain,
        grouping=by,
        version=focus_version,
        provider=provider,
        account_id=account_id,
        account_name=account_name,
        currency=currency,
    )
    now, generator = datetime.now(UTC), __version__
    store = open_ledger(ledger)
    if bill is not None:
        asked = (first, last + timedelta(days=1))
        days = ledger_days(store)  # a Correction may be of any time
        summary = export_bill(days, bill, options, out, now=now, generator_version=generator, asked=asked)
    else:
        days = ledger_days(store, first.date(), last.date())
        summary = export(days, options, out, now=now, generator_version=generator)
    for finding in summary.findings:
        click.echo(str(finding), err=True)
    for path in summary.files:
        click.echo(f"{path}")
    click.echo(f"{summary.rows} rows from {summary.charges} charges")


@focus.command(name="commitments")
@click.option(
    "--reservations",
    required=True,
    type=click.Path(path_type=Path),
    help="GPUReservation objects as YAML, like `kubectl get gpureservations -o yaml` prints them.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A .parquet or .csv file.")
def commitments_command(*, reservations: Path, out: Path) -> None:
    """Write what was bought ahead as the Contract Commitment dataset of FOCUS 1.3."""
    from gpuwaste.focus.export import export_commitments

    summary = export_commitments(
        _read_reservations(reservations), out, now=datetime.now(UTC), generator_version=__version__
    )
    for finding in summary.findings:
        click.echo(str(finding), err=True)
    click.echo(f"{out}\n{summary.rows} commitments")


def _read_reservations(path: Path) -> list[GPUReservation]:
    import yaml

    from gpuwaste.api.reservation import GPUReservation

    try:
        documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"cannot be read as YAML: {error}", where=str(path)) from None
    found: list[GPUReservation] = []
    for document in documents:
        items = document.get("items", [document]) if isinstance(document, dict) else [document]
        for item in items:
            if not isinstance(item, dict):
                raise InputError("holds something that is no object", where=str(path))
            found.append(GPUReservation.parse(item))
    return found


@focus.command(name="verify")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--origin", type=click.Path(path_type=Path), help="The bill that was split, a file or folder.")
@click.option("--version", "focus_version", default="1.3", show_default=True, type=_VERSIONS, help="FOCUS version.")
def verify_command(*, file: Path, origin: Path | None, focus_version: Version) -> None:
    """Check every rule of a FOCUS file, those between the parts of a charge included."""
    from gpuwaste.focus.verify import verify

    broken = 0
    for violation in verify(file, version=focus_version, origin=origin):
        broken += not violation.note
        click.echo(str(violation))
    if broken:
        raise SystemExit(1)
    click.echo(f"{file}: every rule holds")
