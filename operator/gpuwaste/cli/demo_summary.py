"""What the demo prints at its end."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gpuwaste.api import UNMEASURED
from gpuwaste.cli.refusals import refusal_lines
from gpuwaste.cluster.kinds import GPU_WASTES
from gpuwaste.model.money import plain
from gpuwaste.waste.figures import Figures, gpu_rows, money_of, summarise, total
from gpuwaste.waste.texts import hours_text, percent_text, waste_percent

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from gpuwaste.api import PlanDocument
    from gpuwaste.runtime.rehearse import Rehearsal

__all__ = ["print_summary"]

_WORKLOADS = 8
_REASONS = 3
_NAME_WIDTH = 32


def print_summary(console: Console, rehearsal: Rehearsal, folder: Path) -> None:
    """Waste by team, the dearest workloads, the plan, and where everything lies."""
    teams = summarise(gpu_rows(rehearsal.rows), ("team", "row_kind"))
    _print_teams(console, teams)
    _print_workloads(console, rehearsal)
    _print_plan(console, rehearsal.plan)
    console.print("\n[bold]Files[/bold]")
    for name, what in (
        ("report.html", "the report: open it in a browser"),
        ("focus", "FOCUS 1.3 records per namespace; check them with `gpuwaste focus verify FILE`"),
        ("plan.json", "the whole plan"),
        ("ledger", "the hourly ledger; `gpuwaste report --ledger` reads it"),
        ("inputs", "usage windows and facts; `gpuwaste replay` computes the ledger from them again"),
    ):
        if (folder / name).exists():
            console.print(f"  {folder / name}  [dim]{what}[/dim]", soft_wrap=True)


def _money(figures: Figures, which: str) -> str:
    amounts = figures.cost if which == "cost" else figures.waste_cost
    known = [f"{plain(money_of(amount), decimals=0)} {currency}" for currency, amount in sorted(amounts.items())]
    return " + ".join([*known, *(["?"] if figures.unpriced else [])]) or "0"


def _print_teams(console: Console, by: dict[tuple[str, ...], Figures]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(
        title="Waste by team, one day, in GPU-hours", box=box.SIMPLE_HEAD, title_justify="left", title_style="bold"
    )
    table.add_column("Team", no_wrap=True)
    for name in ("Owned", "Effective", "Waste", "Waste %", "Cost", "Cost of waste"):
        table.add_column(name, justify="right", no_wrap=True)
    names = sorted({team for team, _ in by if team}, key=lambda team: -by[team, "holder"].waste)
    lines: list[tuple[str, Figures]] = [(name, by[name, "holder"]) for name in names]
    nobody = total(figures for (team, _), figures in by.items() if not team)
    lines += [("(held by nobody)", nobody), ("all", total(by.values()))]
    for name, figures in lines:
        table.add_row(
            name,
            hours_text(figures["owned"]),
            hours_text(figures.amounts["effective"]),
            hours_text(figures.waste),
            percent_text(waste_percent(figures, of="owned")),
            _money(figures, "cost"),
            _money(figures, "waste"),
            end_section=name == "(held by nobody)",
        )
    console.print(table)
    if lines[-1][1].unpriced:
        console.print("[dim]?: no price is known for some of these GPUs; unknown is never counted as zero.[/dim]\n")


def _print_workloads(console: Console, rehearsal: Rehearsal) -> None:
    from rich import box
    from rich.table import Table

    bodies = rehearsal.cluster.objects(GPU_WASTES)
    table = Table(
        title=f"Most waste: {min(_WORKLOADS, len(bodies))} of {len(bodies)} workloads, as in `kubectl get gpuwaste -A`",
        box=box.SIMPLE_HEAD,
        title_justify="left",
        title_style="bold",
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("Workload", no_wrap=True, overflow="ellipsis", max_width=_NAME_WIDTH)
    for name in ("GPUs", "Held", "Effective", "Waste %", "Cost/Month"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("Advice")
    for body in sorted(bodies, key=_waste_of, reverse=True)[:_WORKLOADS]:
        summary = body["status"]["summary"]
        measured = summary["effectiveGPUHours"] != UNMEASURED
        table.add_row(
            f"{body['metadata']['namespace']}/{body['spec']['workloadRef']['name']}",
            summary["gpus"],
            summary["heldGPUHours"],
            summary["effectiveGPUHours"] if measured else "?",
            summary["wastePercent"] if measured else "?",
            _whole(summary["costPerMonth"]),
            summary["advice"],
        )
    console.print(table)


def _whole(amount: str) -> str:
    """An amount as the object shows it, without what stands behind the point."""
    return re.sub(r"\.\d+", "", amount)


def _waste_of(body: dict[str, dict[str, list[dict[str, dict[str, str]]]]]) -> float:
    windows = body["status"]["windows"]
    return float(windows[-1]["netWasteGPUHours"]["total"])


def _print_plan(console: Console, plan: PlanDocument | None) -> None:
    console.print("[bold]Plan[/bold]")
    if plan is None:
        console.print("  no GPU node is known, so there is nothing to plan")
        return
    objective, saving = plan.objective, plan.savings
    unit = f"{objective.currency} an hour" if objective.currency else "GPUs"
    current, planned, bound = (plain(one) for one in (objective.current, objective.planned, objective.bound))
    console.print(f"  now {current} {unit}; planned {planned}; no plan can go below {bound} (proven)")
    gap = plain(objective.gap * 100)
    console.print(f"  {gap} % above that bound; {plan.moves} pods move, {len(plan.actions)} actions")
    cash = "<unknown>" if saving.cash_now is None else f"{plain(saving.cash_now)} {saving.currency or ''} a month"
    console.print(f"  saved at once: {cash}")
    if saving.capacity_freed_gpu_hours:
        console.print(f"  freed for others: {plain(saving.capacity_freed_gpu_hours)} GPU-hours a month")
    for line in refusal_lines(plan.refused, most=_REASONS, rest="plan.json names all"):
        console.print(f"  left alone: {line}", soft_wrap=True)
