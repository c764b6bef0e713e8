"""What a scan prints, and its page."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from gpuwaste.cli.output import Column, plain_value, render_table
from gpuwaste.cli.summary_tables import group_columns
from gpuwaste.model.money import plain
from gpuwaste.model.units import format_time
from gpuwaste.report.summary import SUMMARY_COLUMNS, summarize
from gpuwaste.report.tables import flat_rows
from gpuwaste.report.words import count_text, hours_text, money_text, percent_text, time_text
from gpuwaste.runtime.scan_findings import find
from gpuwaste.runtime.scan_unseen import unseen

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from gpuwaste.cluster.survey import Survey
    from gpuwaste.ingest.prometheus.source import PrometheusSource, StoreFacts
    from gpuwaste.report.summary import Group, Summary
    from gpuwaste.runtime.scan import ScanLedger
    from gpuwaste.runtime.scan_findings import Finding, Findings, Saving
    from gpuwaste.runtime.scan_unseen import Unseen

__all__ = ["ScanView"]

_FINDINGS = 3
_WIDTH = 100
_TEAMS = 20
_NAME_WIDTH = 32
_PIECES = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanView:
    """A scan, ready to be shown.

    Attributes:
        summary: of the period.
        workloads: rows of `gpuwaste report --by workload`, with team and advice.
        teams: rows of `gpuwaste report --by team`.
        found: findings and saving.
        unseen: what could not be seen.
        through: up to when.
        step_seconds: length of a usage window.
    """

    summary: Summary
    workloads: list[dict[str, Any]]
    teams: list[dict[str, Any]]
    found: Findings
    unseen: list[Unseen]
    through: datetime
    step_seconds: int

    @classmethod
    def of(
        cls,
        ledger: ScanLedger,
        *,
        survey: Survey | None,
        looked: StoreFacts,
        source: PrometheusSource,
        asked_hours: int,
    ) -> ScanView:
        """Sum a scanned ledger in every way that is shown."""
        summary, found = summarize(ledger.rows(SUMMARY_COLUMNS)), find(ledger)
        team_of = {(one.namespace, one.kind, one.name): one.team for one in found.findings}
        workloads = flat_rows([group for group in summary.workloads if group.is_held])
        for row in workloads:
            key = (row["namespace"], row["workload_kind"], row["workload_name"])
            row |= {"team": team_of.get(key, ""), "advice": found.advice.get(key, "")}
        return cls(
            summary=summary,
            workloads=workloads,
            teams=flat_rows(summary.teams),
            found=found,
            unseen=unseen(ledger, summary, survey=survey, looked=looked, source=source, asked_hours=asked_hours),
            through=ledger.through,
            step_seconds=source.step_seconds,
        )

    def show(self, output: str, *, top: int) -> None:
        """Print to stdout.

        Args:
            output: `table`, `json`, `yaml` or `csv`; CSV has one row a workload.
            top: workloads that people are shown.
        """
        if output == "csv":
            click.echo(render_table(self._columns(), self.workloads, "csv"), nl=False)
        elif output == "json":
            # Piece by piece: the whole text, and its pieces before they are one, would be the most of all memory.
            encoder = json.JSONEncoder(indent=2, ensure_ascii=False, default=plain_value)
            pieces = encoder.iterencode(self._content())
            while text := "".join(islice(pieces, _PIECES)):
                click.echo(text, nl=False)
            click.echo()
        elif output == "yaml":
            import yaml

            click.echo(yaml.safe_dump(plain_value(self._content()), sort_keys=False, allow_unicode=True), nl=False)
        else:
            _Printer(self).print(top=top)

    def _columns(self) -> list[Column]:
        columns = group_columns("workload", self.workloads)
        return [Column("team", "TEAM"), *columns, Column("advice", "ADVICE")]

    def _content(self) -> dict[str, Any]:
        """Everything; amounts of money and time are decimals."""
        return {
            "clusters": list(self.summary.clusters),
            "from": format_time(self.summary.start),
            "to": format_time(self.through),
            "hours": self.summary.hour_count,
            "window_seconds": self.step_seconds,
            "gpus": self.summary.gpu_count,
            "nodes": self.summary.node_count,
            "pods": self.summary.pod_count,
            "teams": self.teams,
            "workloads": self.workloads,
            "findings": [asdict(one) for one in self.found.findings[:_FINDINGS]],
            "saving": asdict(self.found.saving),
            "unseen": [asdict(one) for one in self.unseen],
        }

    def write_page(self, path: Path) -> None:
        """Write the report as one HTML page."""
        from gpuwaste.cli.files import atomic_text
        from gpuwaste.report.html import Highlight, render_report

        page = render_report(
            self.summary,
            title="GPU scan",
            generated_at=datetime.now(UTC),
            advice=self.found.advice,
            notes=(f"{_saving_text(self.found.saving)} Read from Prometheus; nothing was installed or changed.",),
            highlights=[
                Highlight(title=_title(one), amount=_amount(one), text=_what_to_do(one))
                for one in self.found.findings[:_FINDINGS]
            ],
            unseen=[Highlight(title=_upper(one.what), amount="", text=f"{one.why}: {one.fix}.") for one in self.unseen],
        )
        with atomic_text(path) as stream:
            stream.write(page)


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _title(finding: Finding) -> str:
    return f"{finding.kind} {finding.place}" if finding.namespace else f"Free GPUs of {finding.name}"


def _amount(finding: Finding) -> str:
    hours = f"{plain(finding.waste_gpu_hours, decimals=1)} GPU-hours wasted"
    if finding.waste_cost is None or finding.currency is None:
        return hours
    return f"{money_text({finding.currency: finding.waste_cost})} · {hours}"


def _what_to_do(finding: Finding) -> str:
    text = f"Mostly {finding.category}. {finding.advice}"
    if not finding.frees_gpus:
        return text
    worth = ""
    if finding.saving_per_month is not None and finding.currency:
        worth = f", worth {money_text({finding.currency: finding.saving_per_month}, short=True)} a month"
    confidence = f" ({finding.confidence.lower()} confidence)" if finding.confidence else ""
    return f"{text} Frees {plain(finding.frees_gpus, decimals=1)} GPUs{worth}{confidence}."


def _saving_text(saving: Saving) -> str:
    if not saving.workloads:
        return "No advice frees a GPU yet: it needs a day of readings."
    worth = f", worth {money_text(saving.per_month, short=True)} a month" if saving.per_month else ""
    unpriced = (
        f" ({plain(saving.unpriced_gpus, decimals=1)} of them without a known price)" if saving.unpriced_gpus else ""
    )
    return (
        f"Following the best advice of {count_text(saving.workloads, 'workload')} would free "
        f"{plain(saving.gpus, decimals=1)} GPUs{unpriced}{worth}. "
        "It is capacity for others; it becomes cash where nodes go."
    )


class _Printer:
    """Prints a scan for people: with colours and the terminal's width where stdout is one."""

    def __init__(self, view: ScanView) -> None:
        from rich.console import Console

        self._view = view
        self._console: Console = Console(width=None if sys.stdout.isatty() else _WIDTH, highlight=False)

    def print(self, *, top: int) -> None:
        """Head, teams, workloads, findings, saving, and what could not be seen."""
        view, summary = self._view, self._view.summary
        total = summary.total
        self._console.print(
            f"[bold]Cluster {', '.join(summary.clusters)}[/bold]: {count_text(summary.gpu_count, 'GPU')} on "
            f"{count_text(summary.node_count, 'node')}, {time_text(summary.start)} to {time_text(view.through)} UTC"
        )
        paid = f" ({money_text(total.cost())})" if total.money_ns else ""
        wasted = f" ({money_text(total.cost('waste'))})" if total.money_ns else ""
        self._console.print(
            f"Of {hours_text(total.time('owned'))} GPU-hours{paid}, {hours_text(total.ns['effective'])} did work and "
            f"{hours_text(total.time('waste'))}{wasted} were wasted: {percent_text(total.share('waste'))}.\n"
        )
        self._groups("Waste by team", "Team", summary.teams[:_TEAMS], "team")
        workloads = [group for group in summary.workloads if group.is_held]
        shown = workloads[:top]
        title = f"Dearest workloads: {len(shown):,} of {len(workloads):,}"
        self._groups(title, "Workload", shown, "workload_name")
        self._findings()
        self._unseen()

    def _groups(self, title: str, head: str, groups: tuple[Group, ...] | list[Group], name: str) -> None:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        advised = name == "workload_name"
        table = Table(
            title=title,
            box=box.SIMPLE_HEAD,
            title_justify="left",
            title_style="bold",
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        table.add_column(head, no_wrap=True, overflow="ellipsis", max_width=_NAME_WIDTH)
        for column in ("GPU-h", "Did work", "Waste", "Waste %", "Cost of waste"):
            table.add_column(column, justify="right", no_wrap=True)
        if advised:
            table.add_column("Advice")
        for group in groups:
            key, totals = group.key, group.totals
            label = str(key[name]) or "(held by nobody)"
            if advised:
                label = f"{key['namespace']}/{label}"
            unknown = totals.ns["effective"] is None
            cells = [
                hours_text(totals.time("owned")),
                "?" if unknown else hours_text(totals.ns["effective"]),
                hours_text(totals.time("waste")),
                percent_text(totals.waste_share),
                money_text(totals.cost("waste")) + (" + ?" if totals.unpriced_ns and totals.money_ns else ""),
            ]
            advice = self._view.found.advice.get(
                (key.get("namespace", ""), key.get("workload_kind", ""), key[name]), ""
            )
            table.add_row(Text(label), *cells, *([Text(advice)] if advised else []))
        self._console.print(table)

    def _findings(self) -> None:
        from rich.padding import Padding
        from rich.text import Text

        self._console.print("[bold]The three dearest findings[/bold]")
        for number, one in enumerate(self._view.found.findings[:_FINDINGS], start=1):
            self._console.print(Text.assemble((f"{number}. {_title(one)}", "bold"), f": {_amount(one)}"))
            self._console.print(Padding(Text(_what_to_do(one)), (0, 0, 0, 3)))
        self._console.print(Text.assemble("\n", ("Saving: ", "bold"), _saving_text(self._view.found.saving)))

    def _unseen(self) -> None:
        from rich.table import Table
        from rich.text import Text

        if not self._view.unseen:
            return
        self._console.print("\n[bold]What could not be seen[/bold]")
        lines = Table.grid(padding=(0, 1, 0, 0))
        for one in self._view.unseen:
            lines.add_row("-", Text(_upper(one.line)))
        self._console.print(lines)
