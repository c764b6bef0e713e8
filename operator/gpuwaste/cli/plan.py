"""`gpuwaste plan`: which nodes of a cluster to drain and release, from stored facts."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpuwaste.cli.output import Column, echo_table, output_option
from gpuwaste.cli.refusals import refusal_lines

if TYPE_CHECKING:
    from gpuwaste.api.plan import PlanDocument

__all__ = ["plan"]

_REFUSED_SHOWN = 10


class _Time(click.ParamType[datetime]):
    """A time like 2026-11-01T09:00:00Z."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read a time that names its offset from UTC."""
        from gpuwaste.model.units import parse_time

        if isinstance(value, datetime):
            return value
        try:
            return parse_time(str(value))
        except ValueError:
            self.fail(f"{value!r} is no time; write it like 2026-11-01T09:00:00Z", param, ctx)


@click.command()
@click.option("--inputs", required=True, metavar="URL", help="Folder or object store with the stored inputs.")
@click.option(
    "--ledger",
    metavar="URL",
    help="Folder or object store of the ledger; risk, confidence and evidence of the actions come from it.",
)
@click.option("--cluster", help="Which cluster, where there are several.")
@click.option("--at", type=_Time(), help="The moment to plan for; default: the end of the newest stored hour.")
@click.option("--time-limit", type=float, default=15.0, show_default=True, help="Seconds for the solver.")
@click.option("--max-moves", type=click.IntRange(min=0), help="How many pods may be moved in all; default: any number.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Also write the whole plan here (JSON).")
@output_option
def plan(
    *,
    inputs: str,
    ledger: str | None,
    cluster: str | None,
    at: datetime | None,
    time_limit: float,
    max_moves: int | None,
    out: Path | None,
    output: str,
) -> None:
    """Say which nodes to drain and release, what that saves, and how good any plan could be.

    Nothing is changed. A pod is only planned into room that is free on a node like its own; the bound is of any
    packing of the same pods, so the gap says what this plan leaves on the table at most.
    """
    from gpuwaste.packing.child import pack_in_child
    from gpuwaste.packing.drain_child import drain_in_child
    from gpuwaste.recommend.plan import plan_for

    if not (math.isfinite(time_limit) and time_limit >= 0):
        raise click.BadParameter(f"{time_limit} is no number of seconds of 0 or more", param_hint="--time-limit")
    facts, moment, name = _facts(inputs, cluster=cluster, at=at)
    document = plan_for(
        facts,
        moment,
        solver=pack_in_child,
        now=lambda: datetime.now(UTC),
        time_limit_seconds=time_limit,
        ledger=None if ledger is None else _rows(ledger, cluster=name, until=moment),
        drainer=drain_in_child,
        max_moves=max_moves,
    )
    if out is not None:
        _write(document, out)
    _show(document, output)


def _facts(url: str, *, cluster: str | None, at: datetime | None) -> tuple[list[Any], datetime, str]:
    """Facts of the hour of `at` with the GPUs that agents described in it, the moment and the cluster's name."""
    from gpuwaste.cli.stores import clusters_of, open_inputs
    from gpuwaste.ledger.gpus import gpu_facts
    from gpuwaste.ledger.inputs import InputStore
    from gpuwaste.model.errors import InputError
    from gpuwaste.model.facts import merge_facts
    from gpuwaste.model.units import HOUR, format_time, hour_start

    store = open_inputs(url)
    found = clusters_of(store, "inputs", only=cluster)
    if len(found) > 1:
        raise InputError(f"holds several clusters: {', '.join(found)}", where=url, fix="choose one with --cluster")
    ((name, hours),) = found.items()
    moment = at if at is not None else hours[-1] + HOUR - timedelta(seconds=1)
    if hour_start(moment) not in hours:
        span = f"it holds hours from {format_time(hours[0])} to {format_time(hours[-1])}"
        raise InputError(f"holds nothing for the hour of {format_time(moment)}", where=url, fix=span)
    loaded = InputStore(store, name).load(hour_start(moment))
    return merge_facts(list(loaded.facts), gpu_facts(loaded.windows)), moment, name


def _rows(url: str, *, cluster: str, until: datetime) -> Any:
    """The ledger's rows of the 7 days up to a moment."""
    from gpuwaste.cli.stores import open_ledger
    from gpuwaste.ledger.write import read_ledger

    return read_ledger(open_ledger(url), start=until - timedelta(days=7), end=until, clusters=[cluster])


def _write(document: PlanDocument, path: Path) -> None:
    import json

    from gpuwaste.cli.files import atomic_text

    with atomic_text(path) as stream:
        stream.write(json.dumps(document.to_json(), indent=2, ensure_ascii=False) + "\n")


def _show(document: PlanDocument, output: str) -> None:
    import json

    import yaml

    if output == "json":
        click.echo(json.dumps(document.to_json(), indent=2, ensure_ascii=False))
        return
    if output == "yaml":
        click.echo(yaml.safe_dump(document.to_json(), sort_keys=False, allow_unicode=True), nl=False)
        return
    rows = [
        {
            "action": action.type.value,
            "node": action.node_ref.name if action.node_ref else "",
            "pods": action.disruption.pods,
            "cash_now": action.savings.cash_now,
            "capacity_freed_gpu_hours": action.savings.capacity_freed_gpu_hours,
            "currency": action.savings.currency,
            "reversible": action.reversible.value,
            "confidence": action.confidence.value,
            "name": action.name,
        }
        for action in document.actions
    ]
    if output == "table":
        _summary(document)
    if rows or output == "csv":
        echo_table(_COLUMNS, rows, output)


def _money(amount: Any) -> str:
    from gpuwaste.model.money import plain

    return plain(amount)


_COLUMNS = (
    Column("action", "ACTION"),
    Column("node", "NODE"),
    Column("pods", "PODS", right=True),
    Column("cash_now", "CASH NOW/MONTH", _money, unknown="", right=True),
    Column("capacity_freed_gpu_hours", "GPUH FREED/MONTH", _money, unknown="", right=True),
    Column("currency", ""),
    Column("reversible", "UNDO"),
    Column("confidence", "CONFIDENCE"),
    Column("name", ""),
)


def _summary(document: PlanDocument) -> None:
    """The plan in a few lines, before the table of its actions."""
    from gpuwaste.recommend.plan import ALL_POOLS

    objective, savings = document.objective, document.savings
    currency = objective.currency or ""
    pool = "all pools" if document.pool == ALL_POOLS else f"pool {document.pool}"
    click.echo(f"Plan {document.id} for {pool}: {len(document.actions)} actions, {document.moves} moves")
    click.echo(
        f"  cost an hour: {_money(objective.current)} now, {_money(objective.planned)} planned, "
        f"{_money(objective.bound)} at least ({currency}; gap {objective.gap * 100:.2f} %)"
    )
    if savings.cash_now:
        click.echo(f"  saves {_money(savings.cash_now)} {currency} a month now")
    for renewal in savings.cash_at_renewal:
        click.echo(
            f"  saves {_money(renewal.amount)} {currency} a month from {renewal.date} on, when a commitment ends"
        )
    if savings.capacity_freed_gpu_hours:
        click.echo(f"  frees {_money(savings.capacity_freed_gpu_hours)} GPU-hours a month for others")
    for line in refusal_lines(document.refused, most=_REFUSED_SHOWN, rest="`-o json` names all"):
        click.echo(f"  left: {line}")
