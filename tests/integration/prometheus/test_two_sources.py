"""Two sources, one truth: the same day by agents and by a real Prometheus gives the same GPU-hours."""

from __future__ import annotations

import http.server
import threading
import time
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from tests.cluster.prometheus import running_prometheus
from tests.integration.prometheus.conftest import TOLD_APART
from tests.integration.prometheus.world import CLUSTER, ledger_of

from gpuwaste.ingest.prometheus.client import open_store
from gpuwaste.ingest.prometheus.source import PrometheusSource
from gpuwaste.ledger.schema import WASTE_CATEGORIES
from gpuwaste.model.facts import merge_facts
from gpuwaste.model.units import NS_PER_HOUR
from gpuwaste.settings.prometheus import PrometheusSettings
from gpuwaste.waste.figures import summarise

TOLERANCE = 0.01
UNKNOWABLE_NODES = ("serve-l4-04",)  # time-sliced, and the exporter gives the device's figures only
WORKLOAD = ("namespace", "workload_kind", "workload_name", "node")


def source(url):
    return PrometheusSource(store=open_store(PrometheusSettings(url=url)), cluster=CLUSTER)


def gpus(rows):
    """Of GPUs alone: CPU and memory are held by what pods ask for, whatever measures GPUs."""
    return rows.filter(pc.equal(rows["resource"], "gpu"))


@pytest.fixture(scope="module")
def all_by_agents(day, tmp_path_factory):
    return ledger_of(tmp_path_factory.mktemp("agents"), day.agents_windows(), day.facts)


@pytest.fixture(scope="module")
def by_agents(all_by_agents):
    return gpus(all_by_agents)


@pytest.fixture(scope="module", params=["api", "kube-state-metrics"])
def all_by_prometheus(request, day, prometheus, tmp_path_factory):
    """With the facts of the API server, or with what kube-state-metrics alone tells."""
    facts = day.facts if request.param == "api" else []
    reader = source(prometheus.url)
    hours = list(reader.read(day.start, day.end, facts=facts, looked=reader.look(day.end)))
    known = merge_facts(*[list(hour.facts) for hour in hours], facts)
    return ledger_of(tmp_path_factory.mktemp("prometheus"), pa.concat_tables([h.windows for h in hours]), known)


@pytest.fixture(scope="module")
def by_prometheus(all_by_prometheus):
    return gpus(all_by_prometheus)


def hours(figures, name):
    """GPU-hours, what only a longer look can tell apart taken together.

    A pod that ran before the day began is never starting, but agents that began with it cannot know.
    """
    together = {"idle": ("idle", "starting")}
    return sum(figures[one] for one in together.get(name, (name,))) / NS_PER_HOUR


def differences(agents, prometheus, by, names, *, only=lambda _: True):
    """Groups that differ by more than 1 % of what was owned."""
    mine, theirs = summarise(agents, by), summarise(prometheus, by)
    assert {key for key in mine if only(key)} == {key for key in theirs if only(key)}
    found = []
    for key in mine:
        owned = hours(mine[key], "owned")
        for name in names if only(key) else ():
            a, p = hours(mine[key], name), hours(theirs[key], name)
            if abs(a - p) > TOLERANCE * owned:
                found.append((key, name, a, p))
    return found


def knowable(rows):
    """Rows of parents whose activity both sources can measure.

    Of MIG instances of products without GPM the exporter has no activity at all here, while an agent at least sees
    that no process runs on them.
    """
    mig = pc.and_(pc.not_equal(rows["parent_id"], rows["gpu_uuid"]), pc.starts_with(rows["gpu_model"], "A"))
    shared = pc.is_in(rows["node"], pa.array(UNKNOWABLE_NODES))
    return rows.filter(pc.invert(pc.or_(mig, shared)))


def test_what_is_owned_and_held_is_the_same_for_everybody(by_agents, by_prometheus):
    """Also where Prometheus cannot know who ran."""
    for by in (("team",), ("namespace",), WORKLOAD, ("pool",), ("hour",)):
        assert differences(by_agents, by_prometheus, by, ("owned", "held")) == []


def test_effective_and_waste_are_the_same_by_workload_team_and_pool(by_agents, by_prometheus):
    names = ("effective", "idle", "underused", "unallocated", "stranded", "unmeasured", "borrowed", "lent")
    for by in (WORKLOAD, ("team",), ("pool",)):
        assert differences(knowable(by_agents), knowable(by_prometheus), by, names) == []
    assert pc.sum(knowable(by_agents)["owned"]).as_py() > 0.8 * pc.sum(by_agents["owned"]).as_py()


def test_cpu_and_memory_are_held_and_free_alike(all_by_agents, all_by_prometheus):
    """To the last unit, also of pods without GPUs, by workload and in every hour."""
    keys = ("hour", "resource", "node", "row_kind", "namespace", "team", "workload_kind", "workload_name", "pod")
    mine, theirs = (
        {tuple(row[name] for name in (*keys, "owned", "held", "unallocated")) for row in rows.to_pylist()}
        for rows in (cpu_and_memory(all_by_agents), cpu_and_memory(all_by_prometheus))
    )
    assert mine == theirs
    assert {key[5:8] for key in mine} >= {("platform", "DaemonSet", "logs")}


def cpu_and_memory(rows):
    return rows.filter(pc.not_equal(rows["resource"], "gpu"))


def test_pods_that_share_a_gpu_are_told_apart_where_the_exporter_does(by_agents, by_prometheus):
    nodes = pa.array(sorted(TOLD_APART))
    mine, theirs = (rows.filter(pc.is_in(rows["node"], nodes)) for rows in (by_agents, by_prometheus))
    assert set(theirs.filter(pc.equal(theirs["gpu_model"], "H100-80GB"))["origin"].to_pylist()) >= {"apportioned"}
    assert differences(mine, theirs, WORKLOAD, ("effective",)) == []


def test_where_pods_cannot_be_told_apart_the_node_is_right_and_the_interval_holds_the_truth(by_agents, by_prometheus):
    node = UNKNOWABLE_NODES[0]
    mine, theirs = (rows.filter(pc.equal(rows["node"], node)) for rows in (by_agents, by_prometheus))
    a, p = summarise(mine, ("node",))[node,], summarise(theirs, ("node",))[node,]
    assert abs(hours(a, "effective") - hours(p, "effective")) <= TOLERANCE * hours(a, "owned")
    truth, told = summarise(mine, WORKLOAD), summarise(theirs, WORKLOAD)
    for key, figures in truth.items():
        low, high = hours(told[key], "effective_low"), hours(told[key], "effective_high")
        assert low - 0.01 <= hours(figures, "effective") <= high + 0.01
    assert any(hours(f, "effective_high") > hours(f, "effective_low") for f in told.values())


def test_every_gpu_adds_up(by_prometheus):
    for figures in summarise(by_prometheus, ("gpu_uuid",)).values():
        assert figures["owned"] == figures["effective"] + sum(figures[name] for name in WASTE_CATEGORIES)


def test_an_hour_has_the_same_windows_whatever_stretch_it_is_read_in(day, prometheus):
    reader = source(prometheus.url)
    looked = reader.look(day.end)
    hour = day.start.replace(hour=9)
    begin, end = hour.replace(hour=7), hour.replace(hour=11)
    among = next(h for h in reader.read(begin, end, facts=day.facts, looked=looked) if h.hour == hour).windows
    alone = next(iter(reader.read(hour, hour.replace(hour=10), facts=day.facts, looked=looked))).windows
    assert alone.equals(among)


class Exporter(http.server.BaseHTTPRequestHandler):
    """One reading of one held and one free GPU, as dcgm-exporter prints it."""

    def do_GET(self):
        device = 'UUID="GPU-%s",device="nvidia%d",gpu="%d",modelName="Tesla T4",Hostname="node-a"'
        holder = ',container="main",namespace="ml",pod="train-0"'
        lines = [
            "# HELP DCGM_FI_DEV_GPU_UTIL GPU utilization (in %).",
            "# TYPE DCGM_FI_DEV_GPU_UTIL gauge",
            f"DCGM_FI_DEV_GPU_UTIL{{{device % ('a', 0, 0)}{holder}}} 42",
            f"DCGM_FI_DEV_GPU_UTIL{{{device % ('b', 1, 1)}}} 0",
            "# TYPE DCGM_FI_DEV_FB_USED gauge",
            f"DCGM_FI_DEV_FB_USED{{{device % ('a', 0, 0)}{holder}}} 1024",
            f"DCGM_FI_DEV_FB_USED{{{device % ('b', 1, 1)}}} 0",
        ]
        self.send_response(200)
        self.end_headers()
        self.wfile.write("\n".join([*lines, ""]).encode())

    def log_message(self, *_):
        pass


def test_a_scrape_without_honor_labels_is_understood():
    """Prometheus itself renames the holder's labels here, as in most clusters."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Exporter) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        target = f"127.0.0.1:{server.server_address[1]}"
        with running_prometheus(targets=[target]) as running:
            reader = source(running.url)
            deadline = time.monotonic() + 20
            while (looked := reader.look(datetime.now(UTC))).devices < 2:
                assert time.monotonic() < deadline
                time.sleep(0.2)
            hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
            found = list(reader.read(hour, datetime.now(UTC).replace(minute=59), facts=[], looked=looked))
        server.shutdown()
    rows = found[-1].windows if found[-1].windows.num_rows else found[0].windows
    usage = rows.filter(pc.equal(rows["kind"], "usage")).to_pylist()
    assert {(row["namespace"], row["pod"], row["gpu_uuid"]) for row in usage} == {("ml", "train-0", "GPU-a")}
    assert usage[0]["duty_ns"] == pytest.approx(0.42 * usage[0]["held_ns"])
    assert {row["gpu_uuid"] for row in rows.to_pylist() if row["kind"] == "device"} == {"GPU-a", "GPU-b"}
