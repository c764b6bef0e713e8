"""The agent as a real process: simulate, run, be killed, be told to leave."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gpuwaste_agent.journal import Journal
from gpuwaste_agent.simulate.scenario_file import load_scenario
from gpuwaste_agent.simulate.truth import true_processes
from gpuwaste_agent.wire.usage_pb2 import Batch

SECOND = 1_000_000_000
MINUTE = 60 * SECOND


def agent(*args: str, **kwargs) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "gpuwaste_agent.main", *map(str, args)], stderr=subprocess.PIPE, text=True, **kwargs
    )


def records_of(directory: Path):
    journal = Journal(directory)
    after = 0
    found = []
    while True:
        page = journal.read(after, 20_000)
        found += Batch.FromString(page.payload).records
        after = page.next_seq - 1
        if not page.more:
            journal.close()
            return found


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - loopback
        return answer.read()


def wait_for(check, seconds=20.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            found = check()
        except OSError:
            found = None
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def digest(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


SIMULATE = ("simulate", "--nodes", "4", "--from", "2026-01-01T00:00:00Z", "--to", "2026-01-01T02:00:00Z")


@pytest.fixture(scope="module")
def simulation(tmp_path_factory):
    directory = tmp_path_factory.mktemp("simulation")
    process = agent(*SIMULATE, "--journal", directory, "--progress", "json")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    steps = [json.loads(line) for line in errors.splitlines()]
    assert steps[-1] == {"done": 4, "total": 4}
    return directory


def test_the_same_seed_gives_the_same_bytes(simulation, tmp_path):
    process = agent(*SIMULATE, "--journal", tmp_path / "again")
    assert process.communicate(timeout=60) == (None, "")
    assert digest(tmp_path / "again") == digest(simulation)


def test_a_simulated_day_agrees_with_its_truth(simulation):
    """Every container that was measured all the time: duty within the driver's rounding to whole percents."""
    compared = 0
    for node in load_scenario(simulation / "scenario.json").nodes:
        duty: dict[str, list] = {}
        for record in records_of(simulation / node.name):
            if record.WhichOneof("body") == "usage":
                duty.setdefault(record.usage.pod_uid, []).append(record.usage.figures)
        truth = true_processes(node, 0, 7200)
        for container in node.containers:
            wanted = sum(truth[process.pid].duty_s for process in container.processes if process.pid in truth)
            figures = duty.get(container.pod_uid, [])
            if container.processes and figures and all(one.HasField("duty_ns") for one in figures):
                compared += 1
                assert sum(one.duty_ns for one in figures) / SECOND == pytest.approx(
                    wanted, abs=0.006 * 7200 * len(container.devices)
                )
    assert compared > 10


def test_windows_are_whole_and_every_parent_is_in_each(simulation):
    for node in load_scenario(simulation / "scenario.json").nodes:
        parents = [parent for gpu in node.gpus for parent in gpu.parent_ids]
        windows: dict[int, list[str]] = {}
        for number, record in enumerate(records_of(simulation / node.name), 1):
            assert record.seq == number
            if record.WhichOneof("body") == "device":
                windows.setdefault(record.window_start_unix_ns, []).append(record.device.parent_id)
        assert len(windows) == 120
        assert all(found == parents for found in windows.values())


def test_a_folder_with_a_simulation_is_not_overwritten(simulation):
    process = agent(*SIMULATE, "--journal", simulation)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert errors.count("\n") == 1
    assert "already holds a simulation" in errors


def test_served_journals_end_with_sigterm(tmp_path):
    process = agent(*SIMULATE[:2], "2", *SIMULATE[3:], "--journal", tmp_path / "d", "--serve")
    endpoints = json.loads(wait_for((tmp_path / "d" / "endpoints.json").read_text))
    assert len(endpoints) == 2
    for endpoint in endpoints:
        batch = Batch.FromString(fetch(f"{endpoint['url']}/v1/windows?journal={endpoint['journal_id']}&limit=5"))
        assert (batch.node, batch.node_uid, batch.journal_id) == (
            endpoint["node"],
            endpoint["node_uid"],
            endpoint["journal_id"],
        )
        assert len(batch.records) == 5
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode == 0


def test_served_journals_end_with_their_parent(tmp_path):
    """A caller that was killed leaves no server behind."""
    command = [sys.executable, "-m", "gpuwaste_agent.main", *SIMULATE[:2], "1", *SIMULATE[3:]]
    command += ["--journal", str(tmp_path / "d"), "--serve"]
    script = f"import subprocess,sys; p=subprocess.Popen({command!r}); print(p.pid, flush=True); sys.stdin.read()"
    caller = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    pid = int(caller.stdout.readline())
    wait_for((tmp_path / "d" / "endpoints.json").read_text)
    caller.kill()
    caller.communicate(timeout=10)
    wait_for(lambda: _gone(pid))


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except FileNotFoundError:
        return True


class Running:
    """An agent on a scenario, on free ports."""

    def __init__(self, simulation: Path, journal: Path, start: datetime, *, speed: float, interval: str = "10"):
        node = load_scenario(simulation / "scenario.json").nodes[2]
        self.process = agent(
            *("--simulate", simulation / "scenario.json", "--node", node.name, "--start", start.isoformat()),
            *("--speed", speed, "--interval", interval, "--journal", journal),
            *("--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"),
        )
        line = self.process.stderr.readline()
        assert "windows on port" in line, line + self.process.stderr.read()
        words = line.replace(",", "").split()
        self.windows, self.plain = (f"http://127.0.0.1:{words[i + 2]}" for i, w in enumerate(words) if w == "on")

    def batch(self, after=0) -> Batch:
        return Batch.FromString(fetch(f"{self.windows}/v1/windows?after={after}&limit=20000"))

    def stop(self, number=signal.SIGTERM) -> float:
        began = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(timeout=20)
        self.process.stderr.close()
        return time.monotonic() - began


def test_a_running_agent_catches_up_and_leaves_at_once(simulation, tmp_path):
    start = datetime.now(UTC) - timedelta(hours=1)
    running = Running(simulation, tmp_path / "j", start, speed=3600)
    newest = (int(start.timestamp()) // 60 + 59) * MINUTE

    def caught_up():
        records = running.batch().records
        return records and records[-1].window_start_unix_ns + MINUTE >= newest and records

    wait_for(caught_up)
    assert fetch(running.plain + "/readyz") == b"ok\n"
    assert b"gpuwaste_container_held_seconds_total{" in fetch(running.plain + "/metrics")
    assert running.stop() < 1.5
    assert running.process.returncode == 0
    records = records_of(tmp_path / "j")
    assert max(r.window_start_unix_ns for r in records) <= time.time_ns()
    held = {}
    for record in records:
        if record.WhichOneof("body") == "usage":
            key = (record.usage.pod_uid, record.usage.slice_id, record.window_start_unix_ns)
            held[key] = held.get(key, 0) + record.usage.held_ns
    assert max(held.values()) == MINUTE


@pytest.mark.parametrize("seed", range(3))
def test_killed_and_started_again_it_goes_on_without_holes_or_repeats(simulation, tmp_path, seed):
    start = (datetime.now(UTC) - timedelta(hours=2)).replace(second=0, microsecond=0)
    journal = tmp_path / "j"
    rng = random.Random(seed)
    served: dict[int, bytes] = {}
    for _ in range(3):
        running = Running(simulation, journal, start, speed=1200)
        deadline = time.monotonic() + rng.uniform(0.3, 1.2)
        while time.monotonic() < deadline:
            for record in running.batch(max(served, default=0)).records:
                assert served.setdefault(record.seq, record.SerializeToString()) == record.SerializeToString()
            time.sleep(0.05)
        running.stop(signal.SIGKILL)
    records = records_of(journal)
    assert [record.seq for record in records] == list(range(1, len(records) + 1))
    for record in records:
        assert served.get(record.seq, record.SerializeToString()) == record.SerializeToString()
    starts = [r.window_start_unix_ns for r in records if r.WhichOneof("body") == "device"]
    per_window = starts.count(starts[0])
    windows = sorted(set(starts))
    assert all(starts.count(window) == per_window for window in windows)
    assert windows == [windows[0] + i * MINUTE for i in range(len(windows))]
    assert windows[0] == int(start.timestamp()) * SECOND
    assert {r.device.figures.duty_quality.coverage_ppm for r in records if r.WhichOneof("body") == "device"} == {
        1_000_000
    }
    assert not [r for r in records if r.WhichOneof("body") == "gap"]


WRITER = """
import sys
from pathlib import Path
from gpuwaste_agent.journal import Journal
from gpuwaste_agent.wire.usage_pb2 import Record
journal = Journal(Path(sys.argv[1]), segment_bytes=4000)
for window in range(10**9):
    records = [Record(window_start_unix_ns=window, window_ns=1) for _ in range(3)]
    for record in records:
        record.usage.held_ns = journal.next_seq
    journal.append(records)
    if window % 3 == 0:
        journal.sync()
        print(journal.next_seq - 1, flush=True)
"""


def test_a_killed_writer_loses_nothing_durable_and_repeats_nothing(tmp_path):
    rng = random.Random(7)
    for _ in range(20):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True, bufsize=1
        )
        durable = int(writer.stdout.readline())
        time.sleep(rng.uniform(0, 0.05))
        os.kill(writer.pid, signal.SIGKILL)
        rest, _ = writer.communicate(timeout=10)
        complete = [line for line in rest.splitlines(keepends=True) if line.endswith("\n")]
        durable = max([durable, *map(int, complete)])
        records = records_of(tmp_path)
        assert len(records) >= durable
        assert [record.seq for record in records] == list(range(1, len(records) + 1))
        assert all((record.seq - record.usage.held_ns) in (0, 1, 2) for record in records)


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (("--node", "x", "--simulate", "none.json", "--start", "2026-01-01T00:00:00Z"), 1, "none.json: cannot be read"),
        (("--node", "x"), 3, "NVML cannot be used"),
        ((), 2, "say which node this is"),
        (("--node", "x", "--interval", "0.1"), 2, "--interval must lie between 0.25 and 60"),
        (("--node", "x", "--window", "7"), 2, "--window must divide an hour"),
        (("--node", "x", "--tls-cert", "a"), 2, "go together"),
        (("--node", "x", "--listen", "nowhere"), 2, "`nowhere` is no address"),
        (("simulate", "--nodes", "0", *SIMULATE[3:], "--journal", "j"), 2, "--nodes must be at least 1"),
        (("simulate", "--nodes", "1", "--from", "soon", "--to", "later", "--journal", "j"), 2, "`soon` is no time"),
    ],
)
def test_refusals_are_one_clear_line_and_an_exit_code(tmp_path, args, code, text):
    flags = () if args[:1] == ("simulate",) else ("--journal", "j", "--metrics-listen", "127.0.0.1:0")
    process = agent(*args, *flags, cwd=tmp_path, env={k: v for k, v in os.environ.items() if k != "NODE_NAME"})
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert text in errors.splitlines()[-1]
