"""`gpuwaste doctor`: what gpuwaste can see of a cluster, what is in the way, and how to mend it."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpuwaste.cli.cluster_access import cluster_options, prometheus_options, prometheus_settings
from gpuwaste.cli.output import Column, echo_table, output_option
from gpuwaste.model.errors import GpuwasteError

if TYPE_CHECKING:
    from gpuwaste.runtime.doctor.findings import CheckFinding
    from gpuwaste.settings.operator import OperatorSettings
    from gpuwaste.settings.prometheus import PrometheusSettings

__all__ = ["doctor"]

_FILE = click.Path(path_type=Path, dir_okay=False)
_STATES = {"ok": "ok", "info": "-", "warning": "WARNING", "failed": "FAILED"}


@click.command()
@cluster_options
@prometheus_options(required=False)
@click.option("--store", metavar="URL", help="Folder or object store of the ledger, to be checked for writing.")
@click.option("--config", type=_FILE, help="Settings of the operator: check what it needs, its store, its Prometheus.")
@click.option("--without-cluster", is_flag=True, help="Leave the API server out.")
@output_option
def doctor(
    *,
    kubeconfig: Path | None,
    context: str | None,
    store: str | None,
    config: Path | None,
    without_cluster: bool,
    output: str,
    **options: Any,
) -> None:
    """Say what gpuwaste can see of a cluster, and how to see the rest.

    Checks the rights of these credentials, GPU nodes without an agent and why, Prometheus and the metrics that it
    lacks, whether the store can be written, the clocks, and who owns sharing and MIG. Changes nothing. Ends with 1
    if a check failed.
    """
    from gpuwaste.settings.operator import load_settings

    prometheus = prometheus_settings(options) if options["prometheus"] else None
    settings = load_settings(config) if config else None
    found: list[CheckFinding] = []
    if not without_cluster:
        found += asyncio.run(_cluster(kubeconfig, context, settings))
    store = store or (settings.store if settings else None)
    prometheus = prometheus or (settings.prometheus if settings else None)
    found += _prometheus(prometheus)
    found += _store(store) if store else []
    rows = [asdict(one) for one in found]
    columns = [
        Column("check", "CHECK"),
        Column("state", "STATE", lambda state: _STATES[state]),
        Column("message", "WHAT"),
        Column("fix", "FIX"),
    ]
    if output == "table":
        from gpuwaste.runtime.doctor.checks import summary_line

        _print(found)
        click.echo(summary_line(found))
    else:
        echo_table(columns, rows, output)
    if any(one.state == "failed" for one in found):
        click.get_current_context().exit(1)


def _print(found: list[CheckFinding]) -> None:
    """A line a finding, and its fix below: sentences do not fit into columns."""
    import sys

    from rich.console import Console
    from rich.text import Text

    styles = {"ok": "green", "info": "dim", "warning": "yellow", "failed": "bold red"}
    console = Console(width=None if sys.stdout.isatty() else 100, highlight=False)
    width = max((len(one.check) for one in found), default=0)
    for one in found:
        head = Text.assemble((f"{_STATES[one.state]:<8}", styles[one.state]), f"{one.check:<{width}}  ")
        indent = len(head)
        console.print(_hanging(head, one.message, indent), end="")
        if one.fix and one.state != "ok":
            console.print(_hanging(Text(" " * indent), f"-> {one.fix}", indent + 3), end="")


def _hanging(head: Any, text: str, indent: int) -> Any:
    """Text behind a head, its further lines indented."""
    import shutil
    import sys
    import textwrap

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 100
    lines = textwrap.wrap(text, max(width - indent, 20), break_long_words=False) or [""]
    return head.append(f"\n{' ' * indent}".join(lines) + "\n")


async def _cluster(
    kubeconfig: Path | None, context: str | None, settings: OperatorSettings | None
) -> list[CheckFinding]:
    from gpuwaste.cluster.kube import open_api
    from gpuwaste.cluster.login import login
    from gpuwaste.runtime.doctor.checks import OPERATOR_RIGHTS, SCAN_RIGHTS, check_cluster
    from gpuwaste.runtime.doctor.findings import CheckFinding
    from gpuwaste.settings.operator import AgentSettings

    try:
        await login(kubeconfig=kubeconfig, context=context)
    except GpuwasteError as error:
        fix = "give --kubeconfig, or --without-cluster to leave the API server out"
        return [CheckFinding(check="api", state="failed", message=str(error), fix=fix)]
    api = open_api(component="doctor", kubeconfig=kubeconfig, context=context)
    try:
        return await check_cluster(
            api,
            rights=OPERATOR_RIGHTS if settings else SCAN_RIGHTS,
            agent_labels=(settings.agents if settings else AgentSettings()).label_selector,
            now=lambda: datetime.now(UTC),
        )
    finally:
        await api.close()


def _prometheus(settings: PrometheusSettings | None) -> list[CheckFinding]:
    from gpuwaste.runtime.doctor.findings import CheckFinding

    if settings is None:
        message = "no Prometheus was named"
        fix = "give --prometheus URL to check it: `gpuwaste scan` and backfill need one"
        return [CheckFinding(check="prometheus", state="info", message=message, fix=fix)]
    from gpuwaste.ingest.prometheus.client import open_store
    from gpuwaste.ingest.prometheus.source import PrometheusSource
    from gpuwaste.runtime.doctor.checks import check_prometheus

    return check_prometheus(PrometheusSource(store=open_store(settings), cluster=""), datetime.now(UTC))


def _store(url: str) -> list[CheckFinding]:
    from gpuwaste.ledger.store import open_store
    from gpuwaste.runtime.doctor.checks import check_store
    from gpuwaste.runtime.doctor.findings import CheckFinding

    try:
        return check_store(open_store(url), url)
    except GpuwasteError as error:
        return [CheckFinding(check="storage", state="failed", message=str(error), fix="name another store")]
