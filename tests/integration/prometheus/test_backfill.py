"""The operator's first start with a real Prometheus: a report that is not empty, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING

import pyarrow.compute as pc
import pytest
from tests.integration.prometheus.world import CLUSTER, RULES

from gpuwaste.cluster.kinds import GPU_WASTES
from gpuwaste.cluster.memory import MemoryCluster
from gpuwaste.ledger.inputs import InputStore
from gpuwaste.ledger.store import open_store
from gpuwaste.ledger.write import read_ledger
from gpuwaste.model.windows import PROMETHEUS_JOURNAL
from gpuwaste.runtime.assemble import assemble
from gpuwaste.settings.operator import AgentSettings, OperatorSettings, PlanSettings
from gpuwaste.settings.prometheus import BackfillSettings, PrometheusSettings

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.prometheus.world import Day

HOURS = 24
SOME = 5


class NoPlan:
    """A planner that is never due: plans are not what is tested."""

    document = None

    def due(self, _):
        return False


def settings(store: Path, url: str) -> OperatorSettings:
    return OperatorSettings(
        cluster_name=CLUSTER,
        store=str(store),
        # Nothing listens there: agents are away, and the operator has only Prometheus.
        agents=AgentSettings(endpoints=("http://127.0.0.1:9",), pull_period_seconds=3600),
        team_rules=RULES.teams,
        prometheus=PrometheusSettings(url=url, retries=0),
        backfill=BackfillSettings(days=1),
        writes_per_second=1000,
        plan=PlanSettings(time_limit_seconds=1),
    )


def start(store: Path, day: Day, url: str, *, stop_after: int = HOURS) -> MemoryCluster:
    """Run an operator until everything is read and computed, or until so many hours are stored: then it is gone."""
    now = day.end + timedelta(minutes=10)
    cluster = MemoryCluster(now=lambda: now)
    cluster.put(*day.objects)

    async def run() -> None:
        async with assemble(settings(store, url), cluster, now=lambda: now, random=Random(0)) as operator:
            operator.planner = NoPlan()
            running = asyncio.create_task(operator.state.run())
            filling = asyncio.create_task(operator._backfill(operator.backfill))
            try:
                async with asyncio.timeout(120):
                    await passes(operator)
            finally:
                for task in (filling, running):
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task

    async def passes(operator) -> None:
        while not operator.state.synced():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        operator.books.recover()
        while True:
            more = await operator.step()
            stored = len(operator.books.inputs.hours())
            if stored >= stop_after and stop_after < HOURS:
                return
            if operator.backfill.done and operator.backfill._ready.empty() and not more:
                return
            await asyncio.sleep(0.01)

    asyncio.run(run())
    return cluster


def files(store: Path, kind: str) -> dict[str, bytes]:
    opened = open_store(str(store))
    return {name: opened.read(name) for name in opened.files(kind)}


@pytest.fixture(scope="module")
def whole(day, prometheus, tmp_path_factory):
    """What an undisturbed first start leaves, and the cluster with its objects."""
    store = tmp_path_factory.mktemp("whole")
    return store, start(store, day, prometheus.url)


def test_the_first_report_is_not_empty(day, whole):
    store, cluster = whole
    rows = read_ledger(open_store(str(store)), start=day.start, end=day.end)
    assert len(pc.unique(rows["hour"])) == HOURS
    owned = owned_in(store, day)
    gpus = sum(len(node.gpus) for node in day.cluster.scenario.nodes)
    assert owned == gpus * HOURS * 3_600_000_000_000
    assert rows["effective_unit_cost"].null_count < rows.num_rows
    wastes = cluster.objects(GPU_WASTES)
    assert len(wastes) > 40
    assert any(float(body["status"]["windows"][-1]["netWasteGPUHours"]["total"]) > 10 for body in wastes)


def test_a_second_start_reads_nothing_again(day, whole, prometheus):
    store, _ = whole
    before = files(store, "inputs"), files(store, "ledger")
    start(store, day, prometheus.url)
    assert (files(store, "inputs"), files(store, "ledger")) == before


def test_a_start_after_a_kill_goes_on_and_comes_to_the_same(day, whole, prometheus, tmp_path):
    start(tmp_path, day, prometheus.url, stop_after=SOME)
    stored = len({name.rpartition("/")[0] for name in files(tmp_path, "inputs") if name.endswith(".parquet")})
    assert 0 < stored < HOURS
    start(tmp_path, day, prometheus.url)
    assert files(tmp_path, "ledger") == files(whole[0], "ledger")


def test_windows_of_agents_count_and_nothing_after_their_first_hour_is_read(day, whole, prometheus, tmp_path):
    """Agents began in the middle of an hour: what lies before comes from Prometheus, that hour from both."""
    first = day.start + timedelta(hours=20, minutes=30)
    windows = day.agents_windows()
    inputs = InputStore.open(open_store(str(tmp_path)), CLUSTER)
    inputs.append_windows(windows.filter(pc.greater_equal(windows["window_start_ns"], int(first.timestamp()) * 10**9)))
    start(tmp_path, day, prometheus.url)
    hours = {hour: {one.startswith(PROMETHEUS_JOURNAL) for one in inputs.journals(hour)} for hour in inputs.hours()}
    assert [kinds for _, kinds in sorted(hours.items())] == [{True}] * 20 + [{True, False}] + [{False}] * 3
    both = inputs.load(day.start + timedelta(hours=20)).windows
    usage = both.filter(pc.equal(both["kind"], "device"))
    foreign = usage.filter(pc.starts_with(usage["journal_id"], PROMETHEUS_JOURNAL))
    assert pc.max(foreign["window_start_ns"]).as_py() < int(first.timestamp()) * 10**9
    assert owned_in(tmp_path, day) == owned_in(whole[0], day)


def owned_in(store: Path, day: Day) -> int:
    rows = read_ledger(open_store(str(store)), start=day.start, end=day.end)
    return pc.sum(rows.filter(pc.equal(rows["resource"], "gpu"))["owned"]).as_py()


def test_a_store_that_is_away_is_asked_again_and_stops_nothing(day, tmp_path):
    now = day.end + timedelta(minutes=10)
    cluster = MemoryCluster(now=lambda: now)
    cluster.put(*day.objects)
    waits = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(0)
        if len(waits) == 4:
            raise asyncio.CancelledError

    async def run() -> str:
        config = settings(tmp_path, "http://127.0.0.1:9")
        async with assemble(config, cluster, now=lambda: now, random=Random(0)) as operator:
            operator.backfill.sleep = sleep
            with contextlib.suppress(asyncio.CancelledError):
                await operator.backfill.run()
            assert await operator.backfill.store() == set()
            return operator.backfill.problem

    assert "cannot be reached" in asyncio.run(run())
    assert waits == [30.0, 60.0, 120.0, 240.0]
