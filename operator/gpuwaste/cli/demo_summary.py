"""What the demo prints at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuwaste.cluster.kinds import GPU_WASTES
from gpuwaste.model.money import plain
from gpuwaste.waste.figures import Figures, money_of, summarise, total
from gpuwaste.waste.texts import hours_text, percent_text, waste_percent

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from rich.console import Console

    from gpuwaste.api import PlanDocument
    from gpuwaste.runtime.rehearse import Rehearsal

__all__ = ["print_summary"]

_WORKLOADS = 8


def print_summary(console: Console, rehearsal: Rehearsal, folder: Path) -> None:
    """Waste by team, the dearest workloads, the plan, and where everything lies."""
    teams = summarise(rehearsal.rows, ("team", "row_kind"))
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
    shown = " + ".join(f"{plain(money_of(amount))} {currency}" for currency, amount in sorted(amounts.items()))
    if figures.unpriced:
        return f"{shown} + <unknown>" if shown else "<unknown>"
    return shown or "0.00"


def _print_teams(console: Console, by: dict[tuple[str, ...], Figures]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(title="Waste by team, one day", box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    table.add_column("Team", no_wrap=True)
    for name in ("Owned GPUh", "Effective", "Waste", "Waste %", "Cost", "Cost of waste"):
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


def _print_workloads(console: Console, rehearsal: Rehearsal) -> None:
    from rich import box
    from rich.table import Table

    bodies = rehearsal.cluster.objects(GPU_WASTES)
    table = Table(
        title=f"kubectl get gpuwaste -A: the {_WORKLOADS} with most waste of {len(bodies)}",
        box=box.SIMPLE_HEAD,
        title_justify="left",
        title_style="bold",
    )
    for name in ("Namespace", "Workload"):
        table.add_column(name, overflow="ellipsis", no_wrap=True, ratio=1)
    for name in ("GPUs", "Held", "Effective", "Waste %", "Cost/Month"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("Advice", overflow="fold", ratio=1)
    for body in sorted(bodies, key=_waste_of, reverse=True)[:_WORKLOADS]:
        summary = body["status"]["summary"]
        table.add_row(
            body["metadata"]["namespace"],
            summary["workload"],
            summary["gpus"],
            summary["heldGPUHours"],
            summary["effectiveGPUHours"],
            summary["wastePercent"],
            summary["costPerMonth"],
            summary["advice"],
        )
    console.print(table)


def _waste_of(body: dict[str, dict[str, list[dict[str, dict[str, str]]]]]) -> float:
    windows = body["status"]["windows"]
    return float(windows[-1]["netWasteGPUHours"]["total"])


def _print_plan(console: Console, plan: PlanDocument | None) -> None:
    console.print("[bold]Plan[/bold]")
    if plan is None:
        console.print("  no GPU node is known, so there is nothing to plan")
        return
    objective, saving = plan.objective, plan.savings
    unit = f"{objective.currency or 'GPUs'} an hour" if objective.currency else "GPUs"
    console.print(
        f"  now {objective.current:f} {unit}, planned {objective.planned:f}, proven bound {objective.bound:f}"
    )
    console.print(
        f"  gap to the bound {objective.gap * 100:.2f} %, {plan.moves} pods moved, {len(plan.actions)} actions"
    )
    cash = "<unknown>" if saving.cash_now is None else f"{plain(saving.cash_now)} {saving.currency or ''} a month"
    freed = "<unknown>" if saving.capacity_freed_gpu_hours is None else f"{saving.capacity_freed_gpu_hours:f} GPU-hours"
    console.print(f"  cash saved now {cash}; capacity freed a month {freed}")
    for refusal in _first(plan):
        console.print(f"  left alone: {refusal}")


def _first(plan: PlanDocument) -> Iterable[str]:
    shown = [f"{one.target.kind}/{one.target.name}: {one.message}" for one in plan.refused[:3]]
    more = len(plan.refused) - len(shown)
    return [*shown, f"and {more} more (plan.json)"] if more > 0 else shown
