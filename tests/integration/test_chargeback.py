"""`ChargebackReport` on the real API server: bills on schedule, closed, restated, in folders and an object store."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from tests.cluster.crds import wait_until_served
from tests.unit.focus.archives import publisher, store_ledger, tree
from tests.unit.focus.bills import bill, other, usage
from tests.unit.focus.ledgers import START, free, holder

from gpuwaste.api import GROUP, KINDS
from gpuwaste.cluster.kinds import CHARGEBACK_REPORTS, EVENTS
from gpuwaste.cluster.kube import open_api
from gpuwaste.focus.manifest import parse_manifest
from gpuwaste.focus.periods import period_at, span_period
from gpuwaste.ledger.store import open_store
from gpuwaste.model.units import format_time, hour_start
from gpuwaste.runtime.chargeback import Chargeback
from gpuwaste.runtime.metrics import OperatorMetrics

ROOT = Path(__file__).parents[2]
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def cluster(control_plane):
    control_plane.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
    wait_until_served(control_plane, [f"{info.plural}.{GROUP}" for info in KINDS.values()])
    return control_plane


def rows(hours, a=0.5):
    """Ledger rows of the hours that start at these times."""
    numbers = [round((hour - START) / HOUR) for hour in hours]
    return [row for n in numbers for row in (holder("a", a, hour=n), free(1 - a, hour=n))]


class Desk:
    """A report, the loop that follows it, and a clock that is set by hand."""

    def __init__(self, cluster, ledger, name, destination, **spec):
        self.cluster, self.ledger, self.name, self.destination = cluster, ledger, name, destination
        self.time = datetime.now(UTC)
        self.spec = {"destinationURL": destination, "groupBy": "Team", **spec}
        self.loop = None

    async def __aenter__(self):
        self.api = open_api(component="test", kubeconfig=self.cluster.kubeconfig)
        body = {
            "apiVersion": f"{GROUP}/v1alpha1",
            "kind": "ChargebackReport",
            "metadata": {"name": self.name},
            "spec": self.spec,
        }
        made = await self.api.apply(CHARGEBACK_REPORTS, body, field_manager="person")
        self.created = datetime.fromisoformat(made["metadata"]["creationTimestamp"])
        self.loop = Chargeback(
            api=self.api,
            ledger=open_store(str(self.ledger)),
            cluster="c1",
            generator_version="test",
            look_period_seconds=1,
            metrics=OperatorMetrics(),
            now=lambda: self.time,
        )
        return self

    async def __aexit__(self, *_):
        await self.api.delete(CHARGEBACK_REPORTS, self.name)
        await self.api.close()

    async def look(self, time):
        self.time = time
        await self.loop.look()
        return await self.read()

    async def read(self):
        return await self.api.get(CHARGEBACK_REPORTS, self.name)

    async def events(self):
        page = await self.api.list_page(EVENTS, field_selector=f"involvedObject.name={self.name}")
        return sorted((item["type"], item["reason"], item["message"]) for item in page.items)


def condition(body, kind):
    (found,) = (one for one in body["status"]["conditions"] if one["type"] == kind)
    return found["status"], found["reason"]


def test_hours_are_published_closed_and_restated_on_schedule(cluster, tmp_path):
    async def story():
        spec = {"schedule": "5 * * * *", "period": "Hour", "formats": ["FOCUS", "CSV", "JSON", "HTML"]}
        spec["layouts"] = ["Finout", "CloudZero"]
        async with Desk(cluster, tmp_path / "ledger", "hourly", str(tmp_path / "bills"), **spec) as desk:
            first = hour_start(desk.created) - HOUR
            store_ledger(tmp_path / "ledger", *rows([first - HOUR, first, first + HOUR]))
            waiting = await desk.look(desk.created)
            assert condition(waiting, "Ready") == ("Unknown", "Pending")
            run = datetime.fromisoformat(waiting["status"]["nextRunTime"])
            assert run > desk.created
            assert not (tmp_path / "bills").exists()
            written = await desk.look(run + timedelta(minutes=1))
            assert condition(written, "Ready") == ("True", "Written")
            assert condition(written, "Closed") == ("False", "GraceRunning")
            status = written["status"]
            complete = 2 if run >= first + 2 * HOUR else 1
            assert len(status["files"]) == 4 * complete
            assert {file["format"] for file in status["files"]} == {"FOCUS", "CSV", "JSON", "HTML"}
            assert {file["state"] for file in status["files"]} == {"Open"}
            assert status["lastRunTime"] == format_time(run)
            sizes = {name: len(text) for name, text in tree(tmp_path / "bills").items()}
            for file in status["files"]:
                assert sizes[file["url"].removeprefix(f"{tmp_path}/bills/")] == file["sizeBytes"]
            assert status["total"]["currency"] == "USD"
            assert float(status["total"]["amount"]) == 2
            again = await desk.look(run + timedelta(minutes=2))
            assert again["metadata"]["resourceVersion"] == written["metadata"]["resourceVersion"]
            closed = await desk.look(run + timedelta(hours=100))
            assert condition(closed, "Closed") == ("True", "AllClosed")
            assert {file["state"] for file in closed["status"]["files"]} == {"Closed"}
            assert datetime.fromisoformat(closed["status"]["closedThroughTime"]) == first + 2 * HOUR
            layouts = tmp_path / "bills/cluster=c1/report=hourly/layouts"
            assert {name.partition("/")[0] for name in tree(layouts)} == {"finout", "cloudzero"}
            before = {name: text for name, text in tree(tmp_path / "bills").items() if "/layouts/" not in name}
            store_ledger(tmp_path / "ledger", *rows([first], a=0.25), version="late")
            late = await desk.look(run + timedelta(hours=101))
            assert late["status"]["restatementCount"] == 1
            assert {file["revision"] for file in late["status"]["files"]} == {0, 1}
            now = tree(tmp_path / "bills")
            assert {name: text for name, text in now.items() if name in before} == before
            store_ledger(tmp_path / "ledger", *rows([first], a=0.25), version="written again, and the same")
            carrier = await desk.look(run + timedelta(hours=102))
            assert (*condition(carrier, "Ready"), carrier["status"]["restatementCount"]) == ("True", "Written", 1)
            reasons = [reason for _, reason, _ in await desk.events()]
            assert reasons.count("PeriodRestated") == 1
            assert reasons.count("PeriodClosed") >= 2
            # The first later hour that was open when the restatement was made carries the difference, and is closed.
            name = f"period={(first + 2 * HOUR):%Y-%m-%dT%H}/cost-and-usage.parquet"
            (path,) = (tmp_path / "bills").glob(f"cluster=c1/report=hourly/cost-and-usage/{name}")
            found = pq.read_table(path)
            assert sorted(map(float, found["EffectiveCost"].to_pylist())) == [-0.5, 0.5]

    asyncio.run(story())


@pytest.mark.parametrize("where", ["a folder", "an object store", "a file there"])
def test_a_providers_bill_is_divided_open_closed_and_restated_on_schedule(cluster, tmp_path, object_store, where):
    url = str(tmp_path / "bill") if where == "a folder" else object_store.url(f"bill-{where[-4:]}")
    store = open_store(url)
    name = "delivery/part-0.parquet" if where != "a file there" else "part-0.parquet"
    spec = {
        "schedule": "0 6 * * *",
        "period": "Month",
        "gracePeriodSeconds": 40 * 86_400,
        "billURL": url if where != "a file there" else url.replace("?", f"/{name}?"),
    }

    async def story():
        bills = tmp_path / "bills"
        async with Desk(cluster, tmp_path / "ledger", f"bill-{where[-4:].strip()}", str(bills), **spec) as desk:
            month = period_at(period_at(desk.created, "month").start - HOUR, "month")
            hour = round((month.start - START) / HOUR)
            node = {"hour": hour, "provider_id": "aws:///use1-az1/i-0"}
            store_ledger(tmp_path / "ledger", holder("a", 0.75, **node), free(0.25, **node))

            def deliver(price):
                invoiced = {"BillingPeriodStart": month.start, "BillingPeriodEnd": month.end}
                table = bill(usage(hour=hour, price=price, **invoiced), other("Tax", "1", **invoiced))
                store.write_table(name, table)

            async def total(time):
                body = await desk.look(time)
                assert condition(body, "Ready") == ("True", "Written")
                return float(body["status"]["total"]["amount"]), body["status"]

            deliver("4")
            run = datetime.fromisoformat((await desk.look(desk.created))["status"]["nextRunTime"])
            assert (await total(run))[0] == 5
            (path,) = bills.rglob("cost-and-usage.parquet")
            found = pq.read_table(path).to_pylist()
            assert [(row["AllocatedResourceName"], row["EffectiveCost"]) for row in found] == [
                ("a", 3),
                (None, 1),
                (None, 1),
            ]
            deliver("8")
            assert (await total(run + timedelta(days=1)))[0] == 9
            _, closed = await total(run + timedelta(days=60))
            assert {file["state"] for file in closed["files"]} == {"Closed"}
            deliver("12")
            _, late = await total(run + timedelta(days=61))
            assert late["restatementCount"] == 1

    asyncio.run(story())


def test_a_bill_that_is_not_there_is_said(cluster, tmp_path):
    spec = {"schedule": "@daily", "period": "Month", "billURL": str(tmp_path / "nowhere")}

    async def story():
        async with Desk(cluster, tmp_path / "ledger", "no-bill", str(tmp_path / "bills"), **spec) as desk:
            run = datetime.fromisoformat((await desk.look(desk.created))["status"]["nextRunTime"])
            body = await desk.look(run)
            assert condition(body, "Ready") == ("False", "WriteFailed")
            (message,) = (one["message"] for one in body["status"]["conditions"] if one["type"] == "Ready")
            assert message == f"{tmp_path}/nowhere: there is no such file or folder."

    asyncio.run(story())


def test_what_is_wrong_is_said_and_mended_by_itself(cluster, tmp_path):
    async def story():
        (tmp_path / "file").write_text("in the way")
        destination = str(tmp_path / "file")
        async with Desk(cluster, tmp_path / "ledger", "mended", destination, schedule="@hourly", period="Day") as desk:
            day = desk.created.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
            store_ledger(tmp_path / "ledger", *rows([day]))
            run = datetime.fromisoformat((await desk.look(desk.created))["status"]["nextRunTime"])
            failed = await desk.look(run)
            assert condition(failed, "Ready") == ("False", "WriteFailed")
            assert [kind[:2] for kind in await desk.events()] == [("Warning", "ReportFailed")]
            (tmp_path / "file").unlink()
            still = await desk.look(run + timedelta(seconds=30))
            assert condition(still, "Ready") == ("False", "WriteFailed")
            mended = await desk.look(run + timedelta(seconds=90))
            assert condition(mended, "Ready") == ("True", "Written")
            counted = desk.loop.metrics.registry.get_sample_value
            assert counted("gpuwaste_report_runs_total", {"result": "failed"}) == 1
            assert counted("gpuwaste_report_runs_total", {"result": "written"}) == 1
            assert counted("gpuwaste_report_periods_total", {"outcome": "written"}) == 1

    asyncio.run(story())


def test_a_volume_that_cannot_be_written_is_said(cluster, tmp_path):
    span = {"fromTime": "2026-11-01T00:00:00Z", "toTime": "2026-11-02T00:00:00Z"}

    async def story():
        store_ledger(tmp_path / "ledger", *rows([START]))
        async with Desk(cluster, tmp_path / "ledger", "no-volume", "/proc/no/volume", range=span) as desk:
            body = await desk.look(desk.created)
            (ready,) = body["status"]["conditions"]
            assert (ready["status"], ready["reason"]) == ("False", "WriteFailed")
            assert ready["message"].startswith("/proc/no")

    asyncio.run(story())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"schedule": "0 0 31 2 *", "period": "Day"}, "spec.schedule: '0 0 31 2 *' is no schedule that ever comes"),
        (
            {"schedule": "@daily", "period": "Day", "timeZone": "Mars/Base"},
            "spec.timeZone: 'Mars/Base' is no time zone",
        ),
        (
            {"range": {"fromTime": "2026-11-01T00:30:00Z", "toTime": "2026-11-02T00:00:00Z"}},
            "range: 2026-11-01T00:30:00Z to 2026-11-02T00:00:00Z is no span of whole hours",
        ),
    ],
)
def test_a_report_that_cannot_be_understood_is_told_why(cluster, tmp_path, spec, message):
    async def story():
        async with Desk(cluster, tmp_path / "ledger", "wrong", str(tmp_path / "bills"), **spec) as desk:
            body = await desk.look(desk.created)
            (ready,) = body["status"]["conditions"]
            assert (ready["status"], ready["reason"]) == ("False", "Invalid")
            assert message in ready["message"]

    asyncio.run(story())


def test_the_event_loop_goes_on_while_a_report_is_written(cluster, tmp_path, monkeypatch):
    """The writer waits for the loop: were it in the loop, neither would ever go on."""
    turned, reached = threading.Event(), threading.Event()
    whole = Chargeback._publish

    def waits(self, *args):
        reached.set()
        assert turned.wait(20)
        return whole(self, *args)

    monkeypatch.setattr(Chargeback, "_publish", waits)
    span = {"fromTime": "2026-11-01T00:00:00Z", "toTime": "2026-11-02T00:00:00Z"}

    async def story():
        store_ledger(tmp_path / "ledger", *rows([START]))
        async with Desk(cluster, tmp_path / "ledger", "free", str(tmp_path / "bills"), range=span) as desk:
            looking = asyncio.create_task(desk.look(desk.created))
            await asyncio.to_thread(reached.wait, 20)
            turned.set()
            assert condition(await looking, "Ready") == ("True", "Written")

    asyncio.run(story())


def operator_process(cluster, folder):
    config = {
        "clusterName": "c1",
        "store": str(folder),
        "agents": {"pullPeriodSeconds": 60},
        "decidePeriodSeconds": 60,
        "chargeback": {"lookPeriodSeconds": 0.2},
        "livenessPort": 0,
        "metricsPort": 0,
    }
    path = folder / "operator.yaml"
    path.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-c", "from gpuwaste.cli.main import main; main()", "operator"]
    command += ["--config", str(path), "--kubeconfig", str(cluster.kubeconfig)]
    with (folder / "operator.log").open("a") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def test_the_operator_process_writes_to_an_object_store_and_survives_kills(cluster, tmp_path, object_store):
    """Three reports of three days; the operator is killed as each begins to be written, and started again."""
    days = [START + timedelta(days=n) for n in range(3)]
    hours = [day + HOUR * n for day in days for n in range(24)]
    store_ledger(tmp_path, *rows(hours))
    url = object_store.url("operator")
    process = operator_process(cluster, tmp_path)
    store = open_store(url)
    try:
        for number, day in enumerate(days):
            spec = {
                "destinationURL": url,
                "groupBy": "Team",
                "gracePeriodSeconds": 0,
                "range": {"fromTime": format_time(day), "toTime": format_time(day + timedelta(days=1))},
            }
            body = {
                "apiVersion": f"{GROUP}/v1alpha1",
                "kind": "ChargebackReport",
                "metadata": {"name": f"kill-{number}"},
            }
            cluster.kubectl("apply", "--server-side", "-f", "-", input=json.dumps({**body, "spec": spec}))
            folder = f"cluster=c1/report=kill-{number}"
            wait_for("the report is begun", lambda folder=folder: store.files(folder), seconds=60)
            os.kill(process.pid, signal.SIGKILL)
            process.wait(10)
            process = operator_process(cluster, tmp_path)
        for number in range(3):

            def closed(number=number):
                status = cluster.get(f"chargebackreports.{GROUP}", f"kill-{number}").get("status", {})
                return {c["type"]: c["status"] for c in status.get("conditions", ())}.get("Closed") == "True"

            wait_for(f"report {number} is closed", closed, seconds=60)
    finally:
        process.kill()
        process.wait(10)
        for number in range(3):
            cluster.kubectl("delete", f"chargebackreports.{GROUP}", f"kill-{number}", "--ignore-not-found")
    for number, day in enumerate(days):
        span = span_period(day, day + timedelta(days=1))
        made = publisher(tmp_path / "ledger", tmp_path / f"whole-{number}", length="span", grace=timedelta(0))
        made.publish([span], now=datetime.now(UTC))
        root = f"cluster=c1/report=kill-{number}"
        found = {name.removeprefix(f"{root}/"): store.read(name) for name in store.files(root)}
        wanted = tree(tmp_path / f"whole-{number}")
        assert found.keys() == wanted.keys()
        data = f"cost-and-usage/period={span.name}/cost-and-usage.parquet"
        assert found[data] == wanted[data]
        manifest = parse_manifest(found[f"cost-and-usage/period={span.name}/_manifest.json"], where="test")
        assert manifest.closed
        assert manifest.pending is None


def wait_for(what, check, *, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if check():
            return
        time.sleep(0.02)
    raise AssertionError(f"after {seconds} s still not: {what}")
