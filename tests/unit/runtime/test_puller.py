"""Pulling: nothing lost, nothing twice, whatever the agents and kills do."""

import asyncio
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers.facts import HOUR
from tests.helpers.windows import Journal

from gpuwaste.ingest.decode import decode_batch
from gpuwaste.ingest.pull import AgentEndpoint, JournalChangedError, check_endpoint
from gpuwaste.ledger.inputs import InputStore, Ranges, deduplicate, window_ranges
from gpuwaste.ledger.store import open_store
from gpuwaste.model.errors import InputError, UnreachableError
from gpuwaste.runtime.puller import Puller
from gpuwaste_agent.wire import usage_pb2 as wire

ENDPOINT = AgentEndpoint(url="http://127.0.0.1:1")


class FakeAgent:
    """Answers as an agent does, from a journal in memory."""

    def __init__(self, journal, *, oldest=1):
        self.journal, self.oldest, self.fail, self.asked = journal, oldest, None, []

    async def fetch(self, endpoint, *, journal_id, after, limit):
        self.asked.append((journal_id, after))
        if self.fail:
            raise self.fail
        batch = self.journal.batch
        if journal_id and journal_id != batch.journal_id:
            raise JournalChangedError
        kept = [r for r in batch.records if r.seq > after and r.seq >= self.oldest]
        answer = wire.Batch(journal_id=batch.journal_id, node=batch.node, cluster=batch.cluster)
        answer.records.extend(kept[:limit])
        answer.first_seq = kept[0].seq if kept else after + 1
        answer.next_seq = answer.records[-1].seq + 1 if answer.records else after + 1
        answer.more = len(kept) > limit
        return decode_batch(answer.SerializeToString(), where="fake")


def journal_of(minutes, **more):
    journal = Journal(**more)
    for minute in range(minutes):
        journal.device(HOUR + timedelta(minutes=minute), "gpu-1")
    return journal


def pull(agent, folder, *, batch_records=7, inputs=None):
    inputs = inputs or InputStore.open(open_store(str(folder)), "test")
    puller = Puller(source=agent, inputs=inputs, batch_records=batch_records, concurrency=2)
    return asyncio.run(puller.pull([ENDPOINT])), inputs, puller


def stored(inputs):
    tables = [inputs.load(hour).windows for hour in inputs.hours()]
    return pa.concat_tables(tables)["seq"].to_pylist() if tables else []


def test_all_records_come_once_over_the_edge_of_an_hour(tmp_path):
    agent = FakeAgent(journal_of(90))
    result, inputs, _ = pull(agent, tmp_path)
    assert result.records == 90
    assert sorted(stored(inputs)) == list(range(1, 91))
    assert result.hours == {HOUR, HOUR + timedelta(hours=1)}
    again, inputs, _ = pull(agent, tmp_path)
    assert again.records == 0
    assert sorted(stored(inputs)) == list(range(1, 91))


def test_the_files_are_the_cursor(tmp_path):
    pull(FakeAgent(journal_of(20)), tmp_path)
    agent = FakeAgent(journal_of(30))
    result, inputs, _ = pull(agent, tmp_path)
    assert result.records == 10
    assert agent.asked[1] == ("journal-node-a", 20)
    assert sorted(stored(inputs)) == list(range(1, 31))


def test_records_that_the_agent_dropped_are_a_gap_and_do_not_stop_the_cursor(tmp_path):
    agent = FakeAgent(journal_of(30), oldest=11)
    _, inputs, _ = pull(agent, tmp_path)
    windows = inputs.load(HOUR).windows
    (gap,) = windows.filter(pc.equal(windows["kind"], "gap")).to_pylist()
    assert '"lost_records": "10"' in gap["body_json"]
    assert inputs.ranges.cursor("journal-node-a") == 30
    assert InputStore.open(open_store(str(tmp_path)), "test").ranges.cursor("journal-node-a") == 30


def test_a_new_journal_starts_from_its_beginning(tmp_path):
    agent = FakeAgent(journal_of(5))
    _, inputs, puller = pull(agent, tmp_path)
    agent.journal = journal_of(8, journal_id="second")
    first = asyncio.run(puller.pull([ENDPOINT]))
    assert (first.records, first.more) == (0, True)
    second = asyncio.run(puller.pull([ENDPOINT]))
    assert second.records == 8
    assert inputs.ranges.cursor("second") == 8


def test_an_agent_that_fails_does_not_stop_the_others(tmp_path):
    agent = FakeAgent(journal_of(5))
    agent.fail = UnreachableError("no answer")
    result, _, _ = pull(agent, tmp_path)
    assert result.failed == {ENDPOINT.url: "no answer"}


def test_many_small_files_become_one(tmp_path):
    journal = Journal()
    inputs = InputStore.open(open_store(str(tmp_path)), "test")
    for minute in range(40):
        journal.device(HOUR + timedelta(minutes=minute), "gpu-1")
        pull(FakeAgent(journal), tmp_path, inputs=inputs)
    files = [name for name in open_store(str(tmp_path)).files("inputs") if name.endswith(".parquet")]
    assert len(files) <= 13
    assert sorted(stored(inputs)) == list(range(1, 41))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 9), st.integers(0, 5)), max_size=12))
def test_ranges_equal_the_set_of_numbers(parts):
    ranges, known = Ranges(), {"a": set(), "b": set()}
    for journal, first, more in parts:
        ranges.add({journal: [(first, first + more)]})
        known[journal] |= set(range(first, first + more + 1))
    for journal, numbers in known.items():
        cursor = ranges.cursor(journal)
        expected = 0
        if numbers:
            expected = min(numbers)
            while expected + 1 in numbers:
                expected += 1
        assert cursor == expected
        asked = np.arange(1, 20)
        assert ranges.holds(journal, asked).tolist() == [number in numbers for number in range(1, 20)]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 14), max_size=40))
def test_deduplicated_rows_are_each_identity_once_in_order(picks):
    table = pa.concat_tables([journal_of(8, node="a").table(), journal_of(7, node="b").table()])
    mixed = deduplicate(table.take(pa.array(picks, pa.int64())))
    identities = list(zip(mixed["journal_id"].to_pylist(), mixed["seq"].to_pylist(), strict=True))
    wanted = {(table["journal_id"][i].as_py(), table["seq"][i].as_py()) for i in picks}
    assert identities == sorted(wanted)
    assert sum(last - first + 1 for r in window_ranges(mixed).values() for first, last in r) == len(wanted)


@pytest.mark.parametrize(
    ("url", "tls", "message"),
    [
        ("http://10.0.0.1:9440", True, "plain HTTP is only for loopback"),
        ("https://10.0.0.1:9440", False, "needs `agents.tls`"),
        ("ftp://10.0.0.1", True, "http or https"),
        ("10.0.0.1:9440", True, "http or https"),
    ],
)
def test_an_endpoint_that_would_be_read_in_the_clear_is_refused(url, tls, message):
    with pytest.raises(InputError, match=message):
        check_endpoint(url, tls=tls)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://localhost:2", "http://[::1]:3"])
def test_loopback_may_be_plain(url):
    check_endpoint(url, tls=False)
