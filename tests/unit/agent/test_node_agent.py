"""One node's agent on its journal: facts, resuming, a disk that takes nothing."""

from __future__ import annotations

import dataclasses

import pytest
from tests.unit.agent.builders import MINUTE, SECOND, START_NS, a_node, name_uid, process

from gpuwaste_agent.clock import SteppedClock
from gpuwaste_agent.journal import Journal
from gpuwaste_agent.simulate.run import simulated_agent
from gpuwaste_agent.wire.usage_pb2 import Batch

NODE = a_node().gpu("H100-80GB").pod("a", process(1, 0.5, 0.5, from_s=90)).obj()


class Rig:
    def __init__(self, directory, *, at_s=0.0, node=NODE):
        self.journal = Journal(directory)
        self.clock = SteppedClock(START_NS + round(at_s * SECOND))
        self.agent = simulated_agent(
            node, self.clock, self.journal, start_ns=START_NS, interval_ns=SECOND, window_ns=MINUTE
        )
        self.agent.tick()

    def run(self, seconds: int):
        for _ in range(seconds):
            self.clock.now_ns += SECOND
            self.agent.tick()
        self.journal.sync()
        return self

    def records(self, kind: str):
        found = Batch.FromString(self.journal.read(0, 10_000).payload).records
        return [getattr(record, kind) for record in found if record.WhichOneof("body") == kind]


@pytest.fixture
def rig(tmp_path):
    rig = Rig(tmp_path)
    yield rig
    rig.journal.close()


def test_facts_are_told_first_and_once_an_hour(rig):
    rig.run(3700)
    assert len(rig.records("node_facts")) == 2
    (gpu,) = rig.records("node_facts")[0].gpus
    assert (gpu.product, gpu.replicas, gpu.mig_enabled) == ("H100-80GB", 1, False)


def test_a_restart_remembers_since_when_slices_are_held_and_tells_of_the_gap(tmp_path):
    first = Rig(tmp_path).run(180)
    first.journal.close()
    second = Rig(tmp_path, at_s=600).run(60)
    usage = second.records("usage")[-1]
    assert usage.held_since_unix_ns == START_NS
    assert usage.first_activity_unix_ns == START_NS + 91 * SECOND
    ((start, end),) = [(gap.from_unix_ns, gap.to_unix_ns) for gap in second.records("gap")]
    assert (start, end) == (START_NS + 3 * MINUTE, START_NS + 10 * MINUTE)
    second.journal.close()


def test_a_pod_made_again_under_the_same_name_while_the_agent_was_away_holds_since_then(tmp_path):
    first = Rig(tmp_path).run(180)
    first.journal.close()
    (container,) = NODE.containers
    again = dataclasses.replace(NODE, containers=(dataclasses.replace(container, pod_uid=name_uid("another")),))
    second = Rig(tmp_path, at_s=600, node=again).run(60)
    assert second.records("usage")[-1].held_since_unix_ns == START_NS + 600 * SECOND
    second.journal.close()


def test_a_start_that_lasts_over_the_edge_of_a_window_leaves_nothing_untold(tmp_path):
    first = Rig(tmp_path).run(180)
    first.journal.close()
    journal = Journal(tmp_path)
    clock = SteppedClock(START_NS + 299 * SECOND)
    agent = simulated_agent(NODE, clock, journal, start_ns=START_NS, interval_ns=SECOND, window_ns=MINUTE)
    for _ in range(62):
        clock.now_ns += SECOND
        agent.tick()
    journal.sync()
    records = Batch.FromString(journal.read(0, 10_000).payload).records
    ((start, end),) = [(r.gap.from_unix_ns, r.gap.to_unix_ns) for r in records if r.WhichOneof("body") == "gap"]
    assert (start, end) == (START_NS + 3 * MINUTE, START_NS + 5 * MINUTE)
    assert records[-1].window_start_unix_ns == START_NS + 5 * MINUTE
    journal.close()


def test_a_restart_in_the_same_minute_leaves_no_gap(tmp_path):
    first = Rig(tmp_path).run(90)
    first.agent.flush()
    first.journal.close()
    second = Rig(tmp_path, at_s=100).run(20)
    assert second.records("gap") == []
    held = [usage.held_ns for usage in second.records("usage")]
    assert held == [MINUTE, 30 * SECOND, 20 * SECOND]
    second.journal.close()


def test_a_disk_that_takes_nothing_costs_its_windows_and_says_so(rig, monkeypatch):
    rig.run(60)
    before = rig.journal.next_seq

    def refuse(records):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(rig.journal, "append", refuse)
        rig.run(120)
    assert "No space left on device" in rig.agent.problem
    assert rig.journal.next_seq == before
    rig.run(60)
    (gap,) = rig.records("gap")
    assert (gap.from_unix_ns, gap.to_unix_ns) == (START_NS + MINUTE, START_NS + 3 * MINUTE)
    assert gap.lost_records == rig.journal.dropped_records == 4
    assert len(rig.records("device")) == 2
