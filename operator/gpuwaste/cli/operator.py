"""`gpuwaste operator`: what the Deployment runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gpuwaste.cli.cluster_access import check_credentials, check_environment

if TYPE_CHECKING:
    from gpuwaste.settings.operator import OperatorSettings

__all__ = ["operator"]


@click.command()
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="YAML settings: store, agents, prices, teams. The chart writes it from its values.",
)
@click.option("--kubeconfig", type=click.Path(path_type=Path, dir_okay=False), help="Default: the usual places.")
@click.option("--context", help="Context of the kubeconfig.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning"]),
    default="info",
    show_default=True,
    help="Least severe messages that are logged, to stderr.",
)
def operator(config: Path, kubeconfig: Path | None, context: str | None, log_level: str) -> None:
    """Run the operator: pull usage, keep the ledger, show GPUWaste and GPUPool objects, plan.

    It only recommends: nothing in the cluster but its own objects is changed.
    """
    from gpuwaste.settings.operator import load_settings

    settings = load_settings(config)
    if kubeconfig is None:
        check_environment()
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("kopf").setLevel(logging.WARNING)
    asyncio.run(_run(settings, kubeconfig, context))


async def _run(settings: OperatorSettings, kubeconfig: Path | None, context: str | None) -> None:
    from prometheus_client import start_http_server

    from gpuwaste.cluster.kube import open_api
    from gpuwaste.runtime.assemble import assemble
    from gpuwaste.runtime.kopf_app import run_kopf

    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel if task else loop.stop)
    await check_credentials(kubeconfig, context)
    api = open_api(component="operator", kubeconfig=kubeconfig, context=context)

    def now() -> datetime:
        return datetime.now(UTC)

    with contextlib.suppress(asyncio.CancelledError):
        async with assemble(settings, api, now=now, random=random.Random()) as whole:
            if settings.metrics_port:
                start_http_server(settings.metrics_port, registry=whole.metrics.registry)
            await run_kopf(whole, kubeconfig=kubeconfig, context=context)
    await api.close()
