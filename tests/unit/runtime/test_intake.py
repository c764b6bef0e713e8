"""Batches that agents hand over: nothing twice, nothing passed over, nothing of a bad batch."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers.facts import HOUR
from tests.unit.runtime.test_puller import ENDPOINT, FakeAgent, journal_of, stored

from gpuwaste.ledger.inputs import InputStore
from gpuwaste.ledger.store import open_store
from gpuwaste.model.errors import InputError
from gpuwaste.runtime.intake import HoleError, Intake
from gpuwaste.runtime.puller import Puller
from gpuwaste_agent.wire import usage_pb2 as wire

NAME = "journal-node-a"


def opened(folder):
    return InputStore.open(open_store(str(folder)), "test")


def batch_of(journal, first, last):
    """The encoded batch of some records of a journal."""
    whole = journal.batch
    batch = wire.Batch(journal_id=whole.journal_id, node=whole.node, cluster=whole.cluster)
    batch.records.extend(record for record in whole.records if first <= record.seq <= last)
    batch.first_seq, batch.next_seq = first, last + 1
    return batch.SerializeToString()


def hand_over(inputs, journal, first, last, *, after=None):
    return Intake(inputs=inputs).store(batch_of(journal, first, last), after=after, sender="agent x")


def pull(inputs, journal):
    puller = Puller(source=FakeAgent(journal), inputs=inputs, batch_records=7, concurrency=1)
    return asyncio.run(puller.pull([ENDPOINT]))


def test_a_batch_is_stored_and_its_hours_are_told_once(tmp_path):
    intake = Intake(inputs=opened(tmp_path))
    journal = journal_of(90)
    receipt = intake.store(batch_of(journal, 1, 90), after=0, sender="agent x")
    assert (receipt.stored, receipt.after) == (90, 90)
    assert sorted(stored(opened(tmp_path))) == list(range(1, 91))
    news = intake.take()
    assert news.hours == {HOUR, HOUR + timedelta(hours=1)}
    assert news.newest == {"node-a": HOUR + timedelta(minutes=90)}
    assert intake.take().hours == set()


def test_the_same_batch_again_changes_no_file(tmp_path):
    journal = journal_of(20)
    hand_over(opened(tmp_path), journal, 1, 20)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert hand_over(opened(tmp_path), journal, 1, 20).stored == 0
    assert files == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}


def test_only_what_was_not_pulled_is_added(tmp_path):
    inputs = opened(tmp_path)
    pull(inputs, journal_of(20))
    assert hand_over(inputs, journal_of(30), 11, 30, after=10).stored == 10
    assert pull(inputs, journal_of(30)).records == 0
    assert sorted(stored(inputs)) == list(range(1, 31))


@pytest.mark.parametrize("after", [None, 20])
@pytest.mark.parametrize("pulled", [0, 10])
def test_a_batch_that_would_leave_records_behind_is_refused_and_says_where_to_begin(tmp_path, pulled, after):
    inputs, journal = opened(tmp_path), journal_of(30)
    pull(inputs, journal_of(pulled))
    with pytest.raises(HoleError, match=f"send what comes after {pulled}") as refused:
        hand_over(inputs, journal, 21, 30, after=after)
    assert refused.value.after == pulled
    assert sorted(stored(inputs)) == list(range(1, pulled + 1))
    pull(inputs, journal)
    assert sorted(stored(inputs)) == list(range(1, 31)), "the records between were passed over"


def test_what_the_agent_no_longer_has_is_a_gap(tmp_path):
    inputs = opened(tmp_path)
    pull(inputs, journal_of(10))
    assert hand_over(inputs, journal_of(30), 21, 30, after=10).after == 30
    windows = inputs.load(HOUR).windows
    (gap,) = windows.filter(pc.equal(windows["kind"], "gap")).to_pylist()
    assert (gap["seq"], '"lost_records": "10"' in gap["body_json"]) == (11, True)


def test_a_bad_record_keeps_the_whole_batch_out(tmp_path):
    journal = journal_of(5)
    journal.batch.records[3].device.gpu_uuid = ""
    inputs = opened(tmp_path)
    with pytest.raises(InputError, match=r"agent x: record 4: field `gpu_uuid` must not be empty"):
        hand_over(inputs, journal, 1, 5)
    with pytest.raises(InputError, match="no usage batch"):
        Intake(inputs=inputs).store(b"\xff\xff", after=None, sender="agent x")
    assert inputs.hours() == []
    assert inputs.ranges.cursor(NAME) == 0


@settings(max_examples=25, deadline=None)
@given(
    events=st.lists(
        st.tuples(st.sampled_from(["pull", "flush", "restart"]), st.integers(0, 25), st.integers(0, 12)), max_size=8
    )
)
def test_pulls_flushes_and_restarts_in_any_order_store_each_record_once(tmp_path_factory, events):
    folder = tmp_path_factory.mktemp("inputs")
    inputs, journal, written = opened(folder), journal_of(40), 0
    for event, after, more in events:
        written = min(40, max(written, after) + more)
        if event == "restart":
            inputs = opened(folder)
        elif event == "pull":
            pull(inputs, journal_of(written))
        elif after < written:
            try:
                hand_over(inputs, journal, after + 1, written, after=after)
            except HoleError as hole:
                hand_over(inputs, journal, hole.after + 1, written, after=hole.after)
    pull(inputs, journal)
    assert sorted(stored(opened(folder))) == list(range(1, 41))
