"""`gpuwaste scan`: waste by team and workload from a kubeconfig and a Prometheus, without installing anything."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpuwaste.cli.cluster_access import (
    check_credentials,
    check_environment,
    cluster_options,
    prometheus_options,
    prometheus_settings,
)
from gpuwaste.cli.output import output_option
from gpuwaste.cli.times import Moment
from gpuwaste.model.errors import InputError
from gpuwaste.model.units import HOUR, format_time, hour_start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from gpuwaste.cli.scan_view import ScanView
    from gpuwaste.cluster.survey import Survey
    from gpuwaste.ingest.prometheus.source import PrometheusSource, StoreFacts
    from gpuwaste.ledger.hour import HourRules
    from gpuwaste.ledger.store import Store
    from gpuwaste.model.facts import Fact
    from gpuwaste.pricing.facts import PriceSources
    from gpuwaste.runtime.scan import ScanLedger
    from gpuwaste.settings.prometheus import PrometheusSettings

__all__ = ["scan"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_LAG = timedelta(minutes=2)
"""Scrapes and remote writes need so long until a reading can be asked for."""
_OBJECTS_A_COLLECTION = 200_000


@click.command()
@prometheus_options(required=True)
@cluster_options
@click.option("--without-cluster", is_flag=True, help="Ask no API server: kube-state-metrics tells of pods and nodes.")
@click.option("--cluster", help="Name of the cluster.  [default: UID of the namespace kube-system]")
@click.option(
    "-n", "--namespace", "namespaces", multiple=True, help="Read the pods of this namespace alone; repeatable."
)
@click.option("--hours", type=click.IntRange(1, 24 * 30), default=24, show_default=True, help="Full hours to look at.")
@click.option("--until", type=Moment(), help="Look at the full hours before this time.  [default: now]")
@click.option("--prices", type=_FILE, help="Price list, YAML.  [default: the built-in list]")
@click.option("--team-rules", type=_FILE, help="Team rules, YAML.  [default: a namespace is a team]")
@click.option("--top", type=click.IntRange(1, 1000), default=10, show_default=True, help="Workloads shown to people.")
@click.option("--ledger", metavar="URL", help="Keep what was read: windows, facts and ledger; other commands read it.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write one HTML page as well.")
@output_option
def scan(
    *,
    kubeconfig: Path | None,
    context: str | None,
    without_cluster: bool,
    cluster: str | None,
    namespaces: tuple[str, ...],
    hours: int,
    until: datetime | None,
    prices: Path | None,
    team_rules: Path | None,
    top: int,
    ledger: str | None,
    html: Path | None,
    output: str,
    **options: Any,
) -> None:
    """Show who wastes what, from a kubeconfig and a Prometheus. Installs nothing and changes nothing.

    Reads pods, nodes, namespaces and their owners from the API server (the rights of `view` do; what may not be read
    is said), and the metrics of dcgm-exporter and kube-state-metrics from Prometheus. Says what it could not see, and
    how to see it.
    """
    from gpuwaste.model.lean_arrow import lean_arrow

    now = datetime.now(UTC)
    if until is not None and until > now:
        raise click.BadParameter(f"{format_time(until)} is not over yet", param_hint="--until")
    settings = prometheus_settings(options)
    lean_arrow()
    if not without_cluster and kubeconfig is None:
        check_environment()
    wish = _Wish(
        prometheus=settings,
        kubeconfig=kubeconfig,
        context=context,
        without_cluster=without_cluster,
        cluster=cluster,
        namespaces=namespaces,
        hours=hours,
        until=until,
        prices=prices,
        team_rules=team_rules,
        ledger=ledger,
    )
    with tempfile.TemporaryDirectory(prefix="gpuwaste-scan-") as folder, _bars() as bars, _few_collections():
        view = wish.run(Path(folder), bars, now=now)
        if html is not None:
            view.write_page(html)
    view.show(output, top=top)
    if html is not None:
        click.echo(f"the page: {html}", err=True)


@contextlib.contextmanager
def _few_collections() -> Iterator[None]:
    """Look for cycles seldom: a scan makes many objects that live to its end, and hardly any cycle.

    At the usual thresholds more than half of a large scan's time goes into walking over them again and again.
    """
    before = gc.get_threshold()
    gc.set_threshold(_OBJECTS_A_COLLECTION, *before[1:])
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)


@contextlib.contextmanager
def _bars() -> Iterator[Callable[[str, float | None], None]]:
    """Progress on stderr where that is a terminal: a line a stage; None is a stage without a known length."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<34}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def at(text: str, part: float | None) -> None:
            stage = text.split(":", maxsplit=1)[0]
            if stage not in tasks:
                tasks[stage] = bars.add_task(text, total=None if part is None else 1.0)
            bars.update(tasks[stage], description=text, completed=part or 0.0, total=None if part is None else 1.0)

        yield at


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """What is to be scanned."""

    prometheus: PrometheusSettings
    kubeconfig: Path | None
    context: str | None
    without_cluster: bool
    cluster: str | None
    namespaces: Sequence[str]
    hours: int
    until: datetime | None
    prices: Path | None
    team_rules: Path | None
    ledger: str | None

    def run(self, folder: Path, bars: Callable[[str, float | None], None], *, now: datetime) -> ScanView:
        """Scan.

        Raises:
            UnreachableError: the API server or the store did not answer.
            InputError: a file is wrong, or the store has nothing of dcgm-exporter's.
        """
        from gpuwaste.cli.scan_view import ScanView
        from gpuwaste.ingest.prometheus.client import open_store as open_prometheus
        from gpuwaste.ingest.prometheus.source import PrometheusSource
        from gpuwaste.ledger.store import open_store
        from gpuwaste.pricing.facts import PriceSources
        from gpuwaste.pricing.pricelist import load_price_list

        rules = self._rules()
        prices = PriceSources(own=load_price_list(self.prices) if self.prices else None)
        metrics = open_prometheus(self.prometheus, whole=bool(self.ledger))
        source = PrometheusSource(store=metrics, cluster="")
        looked, survey, source.cluster = asyncio.run(self._look(source, rules, bars, now))
        self._check(looked, source)
        facts = survey.snapshot.facts() if survey else []
        survey = survey.without_pods() if survey else None
        gc.freeze()  # what the cluster told stays to the end of reading
        # In this thread and not in another: it then uses again the memory that the lists of the cluster took.
        found = self._read(
            source,
            looked,
            facts,
            rules=rules,
            prices=prices,
            store=open_store(self.ledger or str(folder)),
            bars=bars,
            now=now,
        )
        bars("Sums and findings", None)
        metrics.close()
        facts.clear()  # so that sums and findings take the memory of the pods
        return ScanView.of(found, survey=survey, looked=looked, source=source, asked_hours=self.hours)

    async def _look(
        self,
        source: PrometheusSource,
        rules: HourRules,
        bars: Callable[[str, float | None], None],
        now: datetime,
    ) -> tuple[StoreFacts, Survey | None, str]:
        """Look at the store and at the cluster, side by side."""
        looking = asyncio.create_task(asyncio.to_thread(source.look, now, until=self.until), name="look")
        try:
            survey, name = await self._survey(rules, bars)
        except BaseException:
            looking.cancel()
            raise
        return await looking, survey, name

    def _rules(self) -> HourRules:
        from gpuwaste.cli.replay import parse_team_rules
        from gpuwaste.ledger.hour import HourRules
        from gpuwaste.settings.teams import TeamRules

        if self.team_rules is None:
            return HourRules(teams=TeamRules())
        return parse_team_rules(self.team_rules.read_bytes(), where=str(self.team_rules))

    async def _survey(self, rules: HourRules, bars: Callable[[str, float | None], None]) -> tuple[Survey | None, str]:
        """One look at the cluster, and its name."""
        if self.without_cluster:
            return None, self.cluster or "default"
        from gpuwaste.cluster.errors import ApiError
        from gpuwaste.cluster.kinds import NAMESPACES
        from gpuwaste.cluster.kube import open_api
        from gpuwaste.cluster.records import ANNOTATION_PREFIXES, RecordRules
        from gpuwaste.cluster.survey import survey

        await check_credentials(self.kubeconfig, self.context)
        api = open_api(component="scan", kubeconfig=self.kubeconfig, context=self.context)
        try:
            found = await survey(
                api,
                namespaces=self.namespaces,
                rules=RecordRules(annotation_prefixes=(*ANNOTATION_PREFIXES, *sorted(rules.teams.annotation_keys))),
                progress=lambda what, count: bars(f"Cluster: {count:,} {what}", None),
            )
            bars(f"Cluster: {found.pods:,} pods", 1.0)
            name = self.cluster
            if name is None:
                try:
                    name = str((await api.get(NAMESPACES, "kube-system"))["metadata"]["uid"])
                except ApiError:
                    name = "default"
            return found, name
        finally:
            await api.close()

    def _check(self, looked: StoreFacts, source: PrometheusSource) -> None:
        if not looked.has_devices:
            day = f"the day before {format_time(self.until)}" if self.until else "the last day"
            raise InputError(
                f"holds no metric of dcgm-exporter (DCGM_FI_…) of {day}",
                where=source.store.address,
                fix="install dcgm-exporter and let it be scraped; where the store holds several clusters or tenants, "
                "check --match and --tenant",
            )
        if self.ledger and looked.wrong_clock:
            raise InputError(
                f"{looked.wrong_clock[0]}; nothing was written to {self.ledger}",
                where=source.store.address,
                fix="scan without --ledger to look at it all the same",
            )

    def _read(
        self,
        source: PrometheusSource,
        looked: StoreFacts,
        facts: list[Fact],
        *,
        rules: HourRules,
        prices: PriceSources,
        store: Store,
        bars: Callable[[str, float | None], None],
        now: datetime,
    ) -> ScanLedger:
        from gpuwaste.ingest.prometheus.source import step_for
        from gpuwaste.runtime.scan import READ_COLUMNS, read_hours

        end = hour_start(now - _LAG if self.until is None else min(self.until, now - _LAG))
        start = end - HOUR * self.hours
        have = source.hours_with_data(start, end, looked.metrics)
        if have:
            start = have[0]
        elif self.until is not None:
            raise InputError(
                f"holds no reading of a GPU in the {self.hours} hours before {format_time(end)}",
                where=source.store.address,
                fix="give more --hours or another --until",
            )
        elif self.ledger:
            raise InputError("holds no full hour yet", where=source.store.address, fix="wait, or leave --ledger out")
        else:  # a store younger than an hour: what there is of the running one
            start = hour_start(now - _LAG)
            end = (now - _LAG).replace(second=0, microsecond=0)
        source.step_seconds = step_for(looked.devices, self.hours)
        source.columns = READ_COLUMNS if self.ledger is None else ()
        bars("Prometheus: the first hours", 0.0)
        found = read_hours(
            source,
            looked,
            facts,
            start=start,
            end=end,
            rules=rules,
            prices=prices,
            store=store,
            keep_inputs=self.ledger is not None,
            progress=lambda done, total: bars(f"Prometheus: {done} of {total} hours", done / total),
        )
        if not found.hours:
            raise InputError(
                "holds no reading of a GPU in this period", where=source.store.address, fix="give more --hours"
            )
        return found
