"""An agent's windows and those of a Prometheus for the same node."""

from datetime import timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from tests.helpers.facts import HOUR, node, pod
from tests.helpers.windows import Journal

from gpuwaste.ledger.hour import HourRules
from gpuwaste.ledger.inputs import InputStore
from gpuwaste.ledger.sources import prefer_agents
from gpuwaste.ledger.store import open_store
from gpuwaste.ledger.write import hour_file, update_hour
from gpuwaste.model.units import NS_PER_HOUR, NS_PER_MINUTE
from gpuwaste.settings.teams import TeamRules


def windows(journal_id, minutes, *, on="node-a", duty=0.5, length=1):
    journal = Journal(on, journal_id=journal_id)
    for minute in minutes:
        at = HOUR + timedelta(minutes=minute)
        more = {"window_ns": length * NS_PER_MINUTE}
        journal.device(at, f"gpu-{on}", **more).usage(at, f"gpu-{on}", "web", duty=duty, **more)
    for record in journal.batch.records if length > 1 else ():
        body = record.usage if record.HasField("usage") else record.device
        body.figures.duty_quality.resolution_ms = length * 60_000
    return journal.table()


def from_prometheus(table):
    return table.filter(pc.starts_with(table["journal_id"], "prometheus-"))


def test_an_agent_counts_where_both_tell():
    both = pa.concat_tables([windows("prometheus-1", range(10)), windows("agent", range(4, 8))])
    kept = prefer_agents(both)
    mine = from_prometheus(kept)
    starts = {(at.as_py() - both["window_start_ns"][0].as_py()) // NS_PER_MINUTE for at in mine["window_start_ns"]}
    assert starts == {0, 1, 2, 3, 8, 9}
    assert kept.num_rows == 2 * 10


def test_a_longer_window_that_an_agent_touches_is_left_out_whole():
    both = pa.concat_tables([windows("prometheus-1", (0, 5, 10), length=5), windows("agent", (7,))])
    mine = from_prometheus(prefer_agents(both))
    starts = {(at.as_py() - both["window_start_ns"][0].as_py()) // NS_PER_MINUTE for at in mine["window_start_ns"]}
    assert starts == {0, 10}


def test_other_nodes_and_single_sources_are_left_alone():
    apart = pa.concat_tables([windows("prometheus-1", range(5)), windows("agent", range(5), on="node-b")])
    assert prefer_agents(apart).equals(apart)
    for one in (windows("prometheus-1", range(5)), windows("agent", range(5))):
        assert prefer_agents(one) is one


@pytest.mark.parametrize("order", [("prometheus", "agent"), ("agent", "prometheus")])
def test_the_ledger_is_the_same_in_whatever_order_they_come(tmp_path, order):
    given = {
        "prometheus": windows("prometheus-1", range(60), duty=1.0),
        "agent": windows("agent", range(30, 60), duty=0.0),
    }
    store = open_store(str(tmp_path))
    inputs = InputStore.open(store, "test")
    inputs.write_facts(HOUR, [node(), pod("web")])
    for source in order:
        inputs.append_windows(given[source])
        update_hour(inputs, store, HOUR, HourRules(teams=TeamRules()))
    rows = store.read_table(hour_file("test", HOUR)).to_pylist()
    (row,) = [row for row in rows if row["resource"] == "gpu"]
    assert (row["owned"], row["duty"]) == (NS_PER_HOUR, NS_PER_HOUR // 2)
