"""Requests that all differ: classes rounded up are placed, rounded down they bound."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.packing.questions import Ticker, make_instance

from gpuwaste.packing import compact, engine, improve
from gpuwaste.packing.coarse import classes_of, rounded
from gpuwaste.packing.columns import Filling
from gpuwaste.packing.engine import solve
from gpuwaste.packing.shapes import group
from gpuwaste.packing.state import SolveState
from gpuwaste.packing.verifier import violations

NODES = [(f"n{i}", 16000, 64, 4, "T4" if i < 4 else "A10") for i in range(8)]
PRICES = {"T4": "0.35", "A10": "0.8"}

pods = st.lists(
    st.tuples(
        st.integers(500, 9000),
        st.integers(1, 40),
        st.integers(0, 2),
        st.integers(1, 1000),
        st.sampled_from(["", "A10"]),
    ),
    min_size=1,
    max_size=16,
).map(lambda rows: [(f"p{i}", *row) for i, row in enumerate(rows)])


@given(pods, st.integers(1, 12))
def test_rounding_brackets_every_shape_and_keeps_every_pod(rows, most):
    problem = group(make_instance(rows, NODES, prices=PRICES), objective="cost")
    classes = classes_of(problem, most=most)
    up, down = (rounded(problem, classes, up=way) for way in (True, False))
    for name in ("cpu", "memory", "share", "whole"):
        mine = getattr(problem, name)
        assert (getattr(down, name)[classes] <= mine).all()
        assert (mine <= getattr(up, name)[classes]).all()
    assert (up.fits[classes] == problem.fits).all()
    assert up.demand.sum() == down.demand.sum() == len(rows)
    assert np.bincount(up.shape_of_pod, minlength=len(up.demand)).tolist() == up.demand.tolist()


@pytest.mark.parametrize("most_entries", [0, 50_000_000], ids=["classes only", "then the pods themselves"])
@settings(
    max_examples=3, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(pods)
def test_the_bound_by_classes_holds_for_the_exact_answer(monkeypatch, most_entries, rows):
    instance = make_instance(rows, NODES, prices=PRICES)
    monkeypatch.setattr(engine, "_MANY_SHAPES", 900)
    exact = solve(instance, time_limit_seconds=60, objective="cost", clock=Ticker())
    monkeypatch.setattr(engine, "_MANY_SHAPES", 0)
    monkeypatch.setattr(engine, "_CLASSES", ((4, 0.5, 0.7), (12, 0.9, 1.0)))
    monkeypatch.setattr(engine, "_MOST_ENTRIES", most_entries)
    rough = solve(instance, time_limit_seconds=60, objective="cost", clock=Ticker())
    assert violations(instance, rough) == []
    if (rough.unplaced_milli, rough.unplaced_pods) >= (exact.unplaced_milli, exact.unplaced_pods):
        assert rough.bound <= exact.cost


def test_few_classes_are_enough_for_sizes_that_hardly_differ():
    rows = [(f"p{i}", 4000 - i, 8, 1, 1000, "") for i in range(32)]
    problem = group(make_instance(rows, NODES, prices=PRICES), objective="cost")
    assert len(np.unique(classes_of(problem, most=5))) == 5


@pytest.mark.parametrize("limit", [0, 60])
def test_pods_larger_than_any_node_are_left_out(monkeypatch, limit):
    monkeypatch.setattr(engine, "_MANY_SHAPES", 0)
    rows = [("big", 99_000, 4, 1, 500, ""), ("fits", 1000, 4, 1, 500, ""), ("wide", 1000, 4, 5, 1000, "")]
    answer = solve(
        make_instance(rows, NODES, prices=PRICES), time_limit_seconds=limit, objective="cost", clock=Ticker()
    )
    assert (answer.unplaced_pods, answer.unplaced_milli) == (2, 5500)


def test_what_rounding_up_has_left_free_is_filled(monkeypatch):
    """Two pods of a class would not fit on a GPU if both were as large as its largest."""
    monkeypatch.setattr(engine, "_MANY_SHAPES", 0)
    monkeypatch.setattr(engine, "_CLASSES", ((1, 0.3, 0.4),))
    rows = [(f"p{i}", 15_000 if i % 2 else 900, 4, 1, 400, "A10") for i in range(8)]
    question = make_instance(rows, NODES, prices=PRICES)
    monkeypatch.setattr(engine, "_MOST_ENTRIES", 0)
    rounded_up = solve(question, time_limit_seconds=60, objective="cost", clock=Ticker())
    monkeypatch.setattr(engine, "_MOST_ENTRIES", 50_000_000)
    filled = solve(question, time_limit_seconds=60, objective="cost", clock=Ticker())
    assert violations(question, filled) == []
    assert (rounded_up.unplaced_pods, filled.unplaced_pods) == (4, 0)


def test_where_time_is_short_fewer_sizes_get_a_price(monkeypatch):
    """Time ends before the prices of all shapes are known, not before those of a few classes."""
    monkeypatch.setattr(improve, "_PRICED", ((6_000, 0.5), (2, 0.8)))
    asked = []

    def solve_compact(task, *, seconds):
        asked.append(len(task.slots.problem.demand))
        return compact.solve_compact(task, seconds=seconds) if len(asked) > 1 else None

    monkeypatch.setattr(improve, "solve_compact", solve_compact)
    rows = [(f"p{i}", 2000 + i, 4, 1, 400 + i, "A10") for i in range(8)]
    problem = group(make_instance(rows, NODES, prices=PRICES), objective="cost")
    state = SolveState(problem, clock=Ticker(), limit_seconds=60)
    alone = np.eye(len(problem.demand), dtype=np.int64)[:4]
    state.offer(Filling.of_nodes(np.full(4, int(problem.cost.argmax())), alone), method="alone")
    improve.refine(state, bound=0.0)
    assert len(asked) == 2
    assert asked[1] < asked[0]
    assert state.best.unplaced_pods == 0
    assert 0 < state.bound <= float(problem.cost_unit * state.best.cost_units)
