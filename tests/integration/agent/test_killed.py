"""`kill -9` at random moments: no window is lost once served, none comes twice, none is wrong.

Twenty times with one-second windows; two hundred times where GPUWASTE_FULL is set.
"""

from __future__ import annotations

import os
import random
import signal
import time
import urllib.request
from collections import Counter

import pytest
from tests.integration.agent.real_node import start
from tests.unit.agent.builders import SECOND

from gpuwaste_agent.journal import Journal
from gpuwaste_agent.wire import usage_pb2 as wire
from gpuwaste_agent.wire.usage_pb2 import Batch

KILLS = 200 if os.environ.get("GPUWASTE_FULL") else 20
# Duty by pod, and SM time by MIG instance, as the scenario has them.
DUTY = {"busy": 0.7, "light": 0.2, "mig": 0.4, "t4": 0.3}
# The driver tells processes' use up to its newest sample, which is this much behind.
SAMPLE_NS = SECOND // 4
SM = {"GPU-0": 0.4, "MIG-1-0": 0.2, "MIG-1-1": 0.0}


class Reader:
    """Reads as the operator does: it keeps what it was served, and asks for what comes after."""

    def __init__(self) -> None:
        self.served: dict[int, bytes] = {}
        self.journal = ""

    def read(self, url: str) -> None:
        after = max(self.served, default=0)
        with urllib.request.urlopen(f"{url}?after={after}&limit=20000", timeout=5) as answer:  # noqa: S310 - loopback
            batch = Batch.FromString(answer.read())
        assert batch.journal_id == (self.journal or batch.journal_id)
        assert batch.first_seq == after + 1, "what was served before is gone"
        self.journal = batch.journal_id
        for record in batch.records:
            encoded = record.SerializeToString()
            assert self.served.setdefault(record.seq, encoded) == encoded, "a number was given to something else"


def run_and_kill(node, reader: Reader, rng: random.Random) -> None:
    """Start the agent and kill it, one time in five before it serves anything."""
    agent = start(node)
    try:
        if rng.random() < 0.2:
            time.sleep(rng.uniform(0, 1))
            return
        line = agent.stderr.readline()
        assert "windows on port" in line, line + agent.stderr.read()
        url = f"http://127.0.0.1:{line.split('windows on port ')[1].split(',')[0]}/v1/windows"
        deadline = time.monotonic() + rng.uniform(0, 3)
        while time.monotonic() < deadline:
            reader.read(url)
            time.sleep(rng.uniform(0, 0.2))
    finally:
        agent.send_signal(signal.SIGKILL)
        agent.communicate(timeout=10)


def everything(journal: Journal) -> list:
    after, found = 0, []
    while True:
        page = journal.read(after, 20_000)
        found += Batch.FromString(page.payload).records
        after = page.next_seq - 1
        if not page.more:
            return found


@pytest.mark.timeout(60 + 6 * KILLS)
def test_killed_at_random_moments(node, tmp_path):
    rng = random.Random(KILLS)
    reader = Reader()
    for _ in range(KILLS):
        run_and_kill(node, reader, rng)
    journal = Journal(tmp_path / "journal")
    records = everything(journal)
    journal.close()
    assert journal.journal_id == reader.journal
    assert len(reader.served) > KILLS, "hardly anything was served"
    none_lost(records, reader.served)
    none_twice(records)
    none_wrong(records)
    print(f"{KILLS} kills: {len(records)} records, {len(reader.served)} of them served, all as they were")


def none_lost(records, served: dict[int, bytes]) -> None:
    """Sequence numbers have no holes, and what was served stands there byte for byte."""
    assert [record.seq for record in records] == list(range(1, len(records) + 1))
    stored = {record.seq: record.SerializeToString() for record in records}
    assert {seq: stored[seq] for seq in served} == served


def none_twice(records) -> None:
    """Each parent and each slice is in a window once; what no window covers, a gap names."""
    keys: Counter = Counter()
    covered: set[int] = set()
    gaps: list[tuple[int, int]] = []
    for record in records:
        body = record.WhichOneof("body")
        if body == "device":
            keys[record.window_start_unix_ns, record.device.parent_id] += 1
            covered.add(record.window_start_unix_ns // SECOND)
        elif body == "usage":
            usage = record.usage
            keys[record.window_start_unix_ns, usage.parent_id, usage.slice_id, usage.pod_uid] += 1
        elif body == "gap":
            gaps.append((record.gap.from_unix_ns // SECOND, record.gap.to_unix_ns // SECOND))
    assert [key for key, count in keys.items() if count > 1] == []
    missing = set(range(min(covered), max(covered) + 1)) - covered
    named = {second for start, end in gaps for second in range(start, end)}
    assert missing <= named
    assert not named & covered


def none_wrong(records) -> None:
    """Every window, whole or not, says of the time it covers what the load was; none covers more than itself."""
    for record in records:
        body = record.WhichOneof("body")
        if body not in ("usage", "device"):
            continue
        figures = record.usage.figures if body == "usage" else record.device.figures
        quality = figures.duty_quality if body == "usage" else figures.sm_quality
        covered = quality.coverage_ppm / 1_000_000 * record.window_ns
        assert covered <= record.window_ns
        if covered < 0.2 * record.window_ns:
            continue
        if body == "usage" and record.usage.pod in DUTY:
            assert record.usage.held_ns <= record.window_ns
            load = DUTY[record.usage.pod]
            slack = 0.02 * covered + (load * SAMPLE_NS if quality.origin == wire.process else 0)
            assert figures.duty_ns == pytest.approx(load * covered, abs=slack)
        elif body == "device" and record.device.parent_id in SM:
            assert figures.sm_ns / covered == pytest.approx(SM[record.device.parent_id], abs=0.01)
