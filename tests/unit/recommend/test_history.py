"""Risk, confidence and evidence from ledger rows."""

from datetime import timedelta
from decimal import Decimal

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.recommend.clusters import HOUR, cluster, first_fit, node, pod

from gpuwaste.ledger.schema import LEDGER_SCHEMA
from gpuwaste.recommend.history import pool_histories
from gpuwaste.recommend.plan import plan_for

NS = 3_600_000_000_000
POOL = "H100-80GB/default"


def ledger(gpus_by_hour, *, pool=POOL, unmeasured=0.0):
    """One holder row an hour with that many GPUs held."""
    rows = [
        {
            **{field.name: "" for field in LEDGER_SCHEMA if pa.types.is_string(field.type)},
            "hour": HOUR + timedelta(hours=index),
            "row_kind": "holder",
            "resource": "gpu",
            "pool": pool,
            "held": int(gpus * NS),
            "unmeasured": int(gpus * NS * unmeasured),
        }
        for index, gpus in enumerate(gpus_by_hour)
    ]
    return pa.Table.from_pylist(rows, schema=LEDGER_SCHEMA)


def test_risk_is_how_often_more_was_held_than_would_be_left():
    risk = pool_histories(ledger([5] * 90 + [9] * 10))[POOL].risk(8)
    assert risk.probability == Decimal("0.1")
    # Wilson's interval of 10 in 100, as tables give it.
    assert (round(risk.low, 3), round(risk.high, 3)) == (Decimal("0.055"), Decimal("0.174"))


@given(st.lists(st.integers(0, 16), min_size=1, max_size=40), st.integers(0, 16))
def test_the_interval_holds_the_estimate(hours, left):
    risk = pool_histories(ledger(hours))[POOL].risk(left)
    assert 0 <= risk.low <= risk.probability <= risk.high <= 1


@pytest.mark.parametrize(
    ("hours", "unmeasured", "wanted"),
    [
        pytest.param(23, 0.0, "Low", id="less than a day"),
        pytest.param(24, 0.0, "Medium", id="a day"),
        pytest.param(400, 0.0, "Medium", id="never High: the facts hold no volumes or budgets"),
        pytest.param(24, 0.6, "Low", id="mostly unmeasured"),
    ],
)
def test_confidence(hours, unmeasured, wanted):
    assert pool_histories(ledger([4] * hours, unmeasured=unmeasured))[POOL].confidence() == wanted


def test_the_evidence_query_gives_the_hours_again():
    pool = "H100-80GB/it's"
    table = ledger([1, 2, 3], pool=pool)
    history = pool_histories(table)[pool]
    found = duckdb.connect().from_arrow(table).query("ledger", history.evidence().ledger_query).fetchall()
    assert [gpus for _, gpus in found] == history.held_gpus.tolist() == [1, 2, 3]
    assert (history.from_time, history.to_time) == (HOUR, HOUR + timedelta(hours=3))


def test_actions_carry_what_the_ledger_says_of_their_pool():
    facts = cluster(node("a"), node("b"), pod("p", on="a", gpus=2), pod("q", on="b"))
    settings = {"solver": first_fit, "now": lambda: HOUR, "time_limit_seconds": 1.0}
    action = plan_for(facts, HOUR, ledger=ledger([3] * 23 + [12]), **settings).actions[0]
    assert action.risk.probability == Decimal("0.041667")
    assert action.confidence == "Medium"
    assert action.evidence.from_time == HOUR
    without = plan_for(facts, HOUR, **settings).actions[0]
    assert (without.risk, without.evidence, without.confidence) == (None, None, "Low")
