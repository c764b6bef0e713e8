"""Advice from sums: what, how sure, and what it saves."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.recommend.clusters import HOUR

from gpuwaste.recommend.advice import WorkloadFigures, advice_due, advise

NS = 3_600_000_000_000
GIB = 2**30
BASE = WorkloadFigures(
    kind="Deployment",
    name="web",
    first_window=HOUR,
    data_until=HOUR + timedelta(hours=48),
    held_ns=100 * NS,
    duty_ns=90 * NS,
    effective_ns=85 * NS,
    idle_ns=10 * NS,
    starting_ns=0,
    underused_ns=5 * NS,
    unmeasured_ns=0,
    gpus=Decimal(2),
    pods=2,
    product="H100-80GB",
    peak_memory_bytes=70 * GIB,
    media_ns=0,
    price=Decimal("2.00"),
    currency="USD",
)
IDLE = {"duty_ns": 0, "effective_ns": 0, "idle_ns": 99 * NS, "starting_ns": NS, "underused_ns": 0}
QUIET = {"duty_ns": 10 * NS, "effective_ns": 8 * NS, "idle_ns": 90 * NS, "underused_ns": 2 * NS}


def types(**more):
    return [one.type for one in advise(replace(BASE, **more)).advice]


@pytest.mark.parametrize(
    ("more", "first", "headline"),
    [
        pytest.param({}, None, "Nothing to do", id="well used"),
        pytest.param({"held_ns": 0}, None, "Holds no GPU", id="holds nothing"),
        pytest.param(
            {"data_until": HOUR + timedelta(hours=23)}, None, "Collecting until 11-03 09:00 UTC", id="under a day"
        ),
        pytest.param(IDLE, "ScaleToZero", "Scale to zero, frees 2 GPU", id="idle"),
        pytest.param({**IDLE, "media_ns": None}, "FixMeasurement", "Measure encode and decode", id="media unmeasured"),
        pytest.param(
            {"unmeasured_ns": 60 * NS, "duty_ns": None, "effective_ns": None, "idle_ns": 0, "underused_ns": 0},
            "FixMeasurement",
            "Fix measurement",
            id="mostly unmeasured",
        ),
        pytest.param(
            {**QUIET, "peak_memory_bytes": 8 * GIB}, "ShareGPU", "Share GPU 4 ways, frees 1.5 GPU", id="quiet and small"
        ),
        pytest.param(
            {**QUIET, "pods": 1, "gpus": Decimal(1)}, None, "No advice for this waste", id="memory in the way"
        ),
        pytest.param({"suspected_stall": True}, "InvestigateStall", "Investigate a possible stall", id="stall"),
        pytest.param(
            {**QUIET, "kind": "Job", "gpus": Decimal(16)}, None, "No advice for this waste", id="many GPUs a pod"
        ),
    ],
)
def test_first_advice_and_headline(more, first, headline):
    found = advise(replace(BASE, **more))
    assert found.headline == headline
    assert (found.advice[0].type if found.advice else None) == first


def test_decoding_alone_is_no_idleness():
    assert "ScaleToZero" not in types(**IDLE, media_ns=20 * NS)
    assert types(**IDLE, media_ns=20 * NS) != types(**IDLE)


def test_a_day_is_enough_and_a_second_less_is_not():
    due = advice_due(HOUR)
    assert due == HOUR + timedelta(hours=24)
    assert types(**IDLE, data_until=due) == ["ScaleToZero"]
    assert types(**IDLE, data_until=due - timedelta(seconds=1)) == []


@pytest.mark.parametrize(
    ("on_demand", "cash", "freed"),
    [
        pytest.param(0, None, Decimal(1460), id="node goes on for others"),
        pytest.param(2, Decimal(2920), None, id="its own node stops"),
        pytest.param(1, Decimal(1460), Decimal(730), id="half of it is on a node of its own"),
    ],
)
def test_cash_now_is_for_whole_nodes_that_stop(on_demand, cash, freed):
    savings = advise(replace(BASE, **IDLE, whole_on_demand_gpus=on_demand)).advice[0].savings
    assert (savings.cash_now, savings.capacity_freed_gpu_hours) == (cash, freed)
    assert savings.currency == (None if cash is None else "USD")


def test_without_a_price_there_is_no_amount_and_no_zero():
    savings = advise(replace(BASE, **IDLE, price=None, whole_on_demand_gpus=2)).advice[0].savings
    assert savings.cash_now is None


@pytest.mark.parametrize(
    ("days", "unmeasured", "wanted"),
    [(2, 0, "Medium"), (7, 0, "High"), (7, 5, "High")],
    ids=["two days", "a week", "a week, a twentieth unmeasured"],
)
def test_confidence_needs_time_and_measurement(days, unmeasured, wanted):
    figures = replace(BASE, **IDLE, data_until=HOUR + timedelta(days=days))
    figures = replace(figures, held_ns=100 * NS, unmeasured_ns=unmeasured * NS, idle_ns=(100 - unmeasured) * NS)
    assert advise(figures).advice[0].confidence == wanted


def test_a_mig_profile_holds_load_and_memory():
    found = {one.type: one for one in advise(replace(BASE, **QUIET, peak_memory_bytes=15 * GIB)).advice}
    # 1g.20gb has the memory but one slice of seven is 14 %, under twice the load of 8 %: 2g.20gb it is.
    assert "2g.20gb" in found["UseMIGProfile"].message
    assert found["UseMIGProfile"].savings.capacity_freed_gpu_hours == Decimal(1095)


def test_unknown_memory_lowers_confidence_and_advises_no_slice():
    found = {one.type: one for one in advise(replace(BASE, **QUIET, peak_memory_bytes=None)).advice}
    assert "UseMIGProfile" not in found
    assert found["ShareGPU"].confidence == "Low"
    assert "peak memory is not known" in found["ShareGPU"].message


PART = st.integers(0, 100)


@given(
    shares=st.tuples(PART, PART, PART),
    media=st.booleans(),
    pods=st.integers(1, 8),
    memory=st.integers(0, 79),
    whole=st.integers(0, 8),
)
def test_advice_is_bounded_and_never_frees_more_than_is_held(*, shares, media, pods, memory, whole):
    duty, effective, unmeasured = shares
    measured = 100 - unmeasured
    busy, used = duty * measured // 100, effective * duty * measured // 10_000
    figures = replace(
        BASE,
        duty_ns=busy * NS,
        effective_ns=used * NS,
        idle_ns=(measured - busy) * NS,
        underused_ns=(busy - used) * NS,
        unmeasured_ns=unmeasured * NS,
        media_ns=0 if media else None,
        pods=pods,
        gpus=Decimal(pods),
        peak_memory_bytes=memory * GIB,
        whole_on_demand_gpus=min(whole, pods),
    )
    found = advise(figures)
    assert 0 < len(found.headline) <= 40
    assert len({one.type for one in found.advice}) == len(found.advice) <= 8
    for one in found.advice:
        savings = one.savings
        freed = (savings.capacity_freed_gpu_hours if savings else None) or Decimal(0)
        stopped = ((savings.cash_now if savings else None) or Decimal(0)) / BASE.price
        assert freed + stopped <= pods * 730
    if "ScaleToZero" in [one.type for one in found.advice]:
        assert media
        assert busy == 0
        assert unmeasured <= 5
