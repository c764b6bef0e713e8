"""A real agent leaves with windows that nobody fetched; the operator's ledger has each of them once, whoever is killed.

Agent and operator are processes with mutual TLS; the operator talks to a real API server.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.compute as pc
import pytest
import trustme
import yaml
from tests.cluster.crds import wait_until_served
from tests.cluster.ports import free_port
from tests.integration.receiver.test_requests import AGENT, write_certificate

from gpuwaste.api import GROUP, KINDS
from gpuwaste.ledger.inputs import InputStore
from gpuwaste.ledger.store import hour_folder, open_store
from gpuwaste.model.units import format_time, hour_start
from gpuwaste_agent.journal import Journal
from gpuwaste_agent.wire.usage_pb2 import Batch

ROOT = Path(__file__).parents[3]
MODULES = {"agent": "gpuwaste_agent.main", "operator": "gpuwaste.cli.main"}
NODE = "handover-a"
SCENARIO = {
    "version": 1,
    "nodes": [
        {
            "name": NODE,
            "uid": "00000000-0000-4000-8000-00000000000a",
            "gpus": [{"uuid": "GPU-0", "product": "H100-80GB"}],
            "containers": [
                {
                    "namespace": "team-a",
                    "pod": "train-0",
                    "pod_uid": "00000000-0000-4000-8000-000000000001",
                    "container": "main",
                    "container_id": "ab" * 32,
                    "resource": "nvidia.com/gpu",
                    "devices": ["GPU-0"],
                    "processes": [{"pid": 101, "parent": "GPU-0", "load": [[0, 0.7, 0.5, 1024]]}],
                }
            ],
        }
    ],
}


@pytest.fixture(scope="module")
def cluster(control_plane):
    control_plane.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
    wait_until_served(control_plane, [f"{info.plural}.{GROUP}" for info in KINDS.values()])
    return control_plane


class World:
    """One agent and one operator, started and killed at will; three hours of windows are there within seconds."""

    def __init__(self, cluster, folder):
        self.cluster, self.folder = cluster, folder
        self.agent_port, self.receive_port = free_port(), free_port()
        self.start = hour_start(datetime.now(UTC)) - timedelta(hours=3)
        self.processes = []
        (folder / "scenario.json").write_text(json.dumps(SCENARIO))
        authority = trustme.CA()
        write_certificate(folder, authority, "agent", AGENT)
        write_certificate(folder, authority, "operator", "operator.gpuwaste.internal")

    def _run(self, name, *arguments):
        code = f"from {MODULES[name]} import main; main()"
        with (self.folder / f"{name}.log").open("a") as log:
            words = [sys.executable, "-c", code, *map(str, arguments)]
            process = subprocess.Popen(words, stdout=log, stderr=log, env={**os.environ, "PYTHONUNBUFFERED": "1"})
        self.processes.append(process)
        return process

    def agent(self):
        folder = self.folder
        arguments = ["--simulate", folder / "scenario.json", "--node", NODE, "--speed", "1200", "--interval", "30"]
        arguments += ["--start", format_time(self.start), "--journal", folder / "journal"]
        arguments += ["--listen", f"127.0.0.1:{self.agent_port}", "--metrics-listen", "127.0.0.1:0"]
        arguments += ["--tls-cert", folder / "agent.pem", "--tls-key", folder / "agent.key"]
        arguments += ["--tls-ca", folder / "ca.pem"]
        arguments += ["--flush-to", f"https://127.0.0.1:{self.receive_port}/v1/windows"]
        arguments += ["--flush-name", "operator.gpuwaste.internal"]
        before = self.log("agent").count("windows on port")
        process = self._run("agent", *arguments)
        wait_for("the agent", lambda: self.log("agent").count("windows on port") > before)
        return process

    def operator(self, *, pulls):
        folder = self.folder
        port = self.agent_port if pulls else free_port()
        tls = {"ca": "ca.pem", "certificate": "operator.pem", "key": "operator.key"}
        config = {
            "clusterName": "c1",
            "store": str(folder / "store"),
            "agents": {
                "endpoints": [f"https://127.0.0.1:{port}"],
                "pullPeriodSeconds": 1,
                "tls": {name: str(folder / file) for name, file in tls.items()},
            },
            "decidePeriodSeconds": 0.5,
            "livenessPort": 0,
            "metricsPort": 0,
            "receivePort": self.receive_port,
        }
        (folder / "operator.yaml").write_text(yaml.safe_dump(config))
        return self._run(
            "operator", "operator", "--config", folder / "operator.yaml", "--kubeconfig", self.cluster.kubeconfig
        )

    def log(self, name):
        path = self.folder / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def journal(self):
        """Every record that the agent has made durable."""
        journal, found, after = Journal(self.folder / "journal"), [], 0
        try:
            while True:
                page = journal.read(after, 20_000)
                found += Batch.FromString(page.payload).records
                after = page.next_seq - 1
                if not page.more:
                    return found
        finally:
            journal.close()

    def stored(self):
        """Sequence numbers in the operator's files, in every file by itself."""
        store = open_store(str(self.folder / "store"))
        names = [name for name in store.files("inputs/cluster=c1") if name.endswith(".parquet")]
        return sorted(seq for name in names for seq in store.read_table(name, columns=["seq"])["seq"].to_pylist())

    def computed(self):
        """What the operator computes from: sequence numbers after the joining of its files."""
        inputs = InputStore.open(open_store(str(self.folder / "store")), "c1")
        return sorted(seq for hour in inputs.hours() for seq in inputs.load(hour).windows["seq"].to_pylist())

    def ledger(self, hour):
        """Held nanoseconds by pod in a written hour."""
        store = open_store(str(self.folder / "store"))
        (name,) = store.files(hour_folder("ledger", "c1", hour))
        rows = store.read_table(name)
        # Other tests may have nodes of their own in this cluster.
        mine = pc.and_(pc.equal(rows["node"], NODE), pc.equal(rows["resource"], "gpu"))
        rows = rows.filter(pc.and_(mine, pc.equal(rows["row_kind"], "holder")))
        return dict(zip(rows["pod"].to_pylist(), rows["held"].to_pylist(), strict=True))


@pytest.fixture
def world(cluster, tmp_path):
    world = World(cluster, tmp_path)
    yield world
    for process in world.processes:
        process.kill()
        process.wait(10)


def wait_for(what, check, *, seconds=60):
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, f"after {seconds} s still not: {what}"
        time.sleep(0.05)
    return found


def left(world, agent):
    """End an agent that has measured the first hour; what is in its journal then."""
    second = (world.start + timedelta(hours=1, minutes=5)).timestamp() * 1e9
    wait_for("an hour was measured", lambda: max((r.window_start_unix_ns for r in world.journal()), default=0) > second)
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(30) == 0
    return world.journal()


def held(records, hour):
    """What the agent says that the pod held in an hour."""
    begin, end = hour.timestamp() * 1e9, (hour + timedelta(hours=1)).timestamp() * 1e9
    mine = [r for r in records if r.WhichOneof("body") == "usage" and begin <= r.window_start_unix_ns < end]
    return {"train-0": sum(record.usage.held_ns for record in mine)}


def ledger_is(world, records):
    def same():
        try:
            return world.ledger(world.start) == held(records, world.start)
        except ValueError:
            return False

    wait_for("the ledger has the hour", same)


def test_what_a_leaving_agent_hands_over_is_in_the_ledger_once(world):
    world.operator(pulls=False)
    wait_for("the receiver", lambda: "agents may hand over" in world.log("operator"))
    records = left(world, world.agent())
    assert "handed over" in world.log("agent"), world.log("agent")
    numbers = [record.seq for record in records]
    assert world.stored() == numbers, "an answer of success came before the windows were durable"
    ledger_is(world, records)


def test_an_operator_killed_in_between_has_everything_once_after_a_pull(world):
    operator = world.operator(pulls=False)
    wait_for("the receiver", lambda: "agents may hand over" in world.log("operator"))
    agent = world.agent()
    second = (world.start + timedelta(hours=1, minutes=5)).timestamp() * 1e9
    wait_for("an hour was measured", lambda: max((r.window_start_unix_ns for r in world.journal()), default=0) > second)
    agent.send_signal(signal.SIGTERM)
    wait_for("the first windows are stored", world.stored)
    operator.kill()
    operator.wait(10)
    agent.wait(30)
    # The node was not taken away after all: its agent is back with its journal.
    world.agent()
    world.operator(pulls=True)
    wait_for("the receiver again", lambda: world.log("operator").count("agents may hand over") == 2)
    wait_for("all was pulled", lambda: len(world.computed()) >= len(world.journal()))
    records = left(world, world.processes[-2])
    wait_for("the rest was pulled or handed over", lambda: len(world.computed()) >= len(records))
    assert world.computed() == [record.seq for record in records]
    ledger_is(world, records)


def test_an_agent_whose_operator_is_away_keeps_its_journal(world):
    records = left(world, world.agent())
    assert "not handed over: POST 127.0.0.1" in world.log("agent")
    world.agent()
    world.operator(pulls=True)
    wait_for("all was pulled", lambda: set(world.computed()) >= {record.seq for record in records})
    ledger_is(world, records)
