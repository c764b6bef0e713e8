"""Ruin and recreate: never dearer, the same pods, and nothing where it does not fit."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.packing.questions import make_instance

from gpuwaste.packing.answer import materialise
from gpuwaste.packing.baselines import place_in_order
from gpuwaste.packing.columns import Filling
from gpuwaste.packing.recreate import Prices, recreate
from gpuwaste.packing.shapes import group

MODELS = {"A": "3", "B": "1"}
NODES = [(f"{model}{i}", 16000, 64, 4, model) for model in MODELS for i in range(8)]
rows = st.lists(
    st.tuples(
        st.integers(100, 9000),
        st.integers(1, 40),
        st.integers(0, 2),
        st.integers(1, 1000),
        st.sampled_from(["", "A", "B"]),
    ),
    min_size=1,
    max_size=14,
)


def problem_of(pods):
    rows = [(f"p{i}", *row) for i, row in enumerate(pods)]
    return group(make_instance(rows, NODES, prices=MODELS), objective="cost")


def one_pod_a_node(problem):
    """As dear as can be."""
    filling = Filling.of_nodes(np.zeros(0, dtype=np.int64), np.zeros((0, len(problem.demand)), dtype=np.int64))
    kinds, patterns = [], []
    spare = problem.supply.copy()
    for shape in np.repeat(np.arange(len(problem.demand)), problem.demand).tolist():
        able = np.flatnonzero(problem.fits[shape] & (spare > 0))
        if len(able):
            kinds.append(int(able[0]))
            spare[able[0]] -= 1
            patterns.append(np.eye(len(problem.demand), dtype=np.int64)[shape])
    return Filling.of_nodes(np.array(kinds), np.array(patterns)) if kinds else filling


def even_prices(problem):
    worth = problem.total_milli / 1000 + problem.cpu / 16000
    return Prices(worth=worth, node_price=np.zeros(len(problem.supply)))


def cost(problem, filling):
    return float(problem.cost[filling.kind] @ filling.copies)


def run(problem, filling, *, sweeps=40, heat=1.0, time_left=lambda: 60.0, enough=0.0):
    return recreate(
        problem, filling, even_prices(problem), sweeps=sweeps, heat=heat, time_left=time_left, enough=enough
    )


@settings(max_examples=25, deadline=None)
@given(rows)
def test_the_same_pods_are_placed_where_they_may_and_fit_at_no_higher_cost(pods):
    problem = problem_of(pods)
    before = one_pod_a_node(problem)
    after = run(problem, before)
    assert cost(problem, after) <= cost(problem, before)
    assert (after.placed == before.placed).all()
    assert (after.nodes_of_kinds(len(problem.supply)) <= problem.supply).all()
    for kind, pattern in zip(after.kind, after.pattern, strict=True):
        assert problem.fits[pattern > 0, kind].all()
        assert pattern @ problem.cpu <= problem.type_cpu[kind]
        assert pattern @ problem.memory <= problem.type_memory[kind]
    # The shares fit on GPUs, or this raises.
    materialise(problem, after)


def test_pods_that_fill_one_node_end_up_on_one():
    problem = problem_of([(4000, 16, 1, 1000, "")] * 4)
    after = run(problem, one_pod_a_node(problem))
    assert cost(problem, after) == pytest.approx(4.0)


def test_the_cheaper_model_is_found():
    problem = problem_of([(4000, 16, 4, 1000, "")])
    dear = Filling.of_nodes(np.array([int(problem.cost.argmax())]), np.array([[1]]))
    assert cost(problem, run(problem, dear)) == pytest.approx(4.0)


def test_the_same_question_has_the_same_answer():
    problem = problem_of([(1000 * (1 + i % 5), 4 + i, 1, 100 + 61 * i, "") for i in range(14)])
    first, second = (run(problem, one_pod_a_node(problem)) for _ in range(2))
    assert (first.kind == second.kind).all()
    assert (first.pattern == second.pattern).all()
    assert (first.copies == second.copies).all()


@pytest.mark.parametrize("limits", [{"sweeps": 0}, {"time_left": lambda: 0.0}, {"enough": 1e9}])
def test_without_effort_the_placement_stays(limits):
    problem = problem_of([(4000, 16, 1, 1000, "")] * 4)
    before = one_pod_a_node(problem)
    assert cost(problem, run(problem, before, **limits)) == cost(problem, before)


def test_further_resources_are_kept():
    pods = [(f"p{i}", 1000, 4, 1, 200, "") for i in range(6)]
    instance = make_instance(pods, NODES, prices=MODELS)
    limited = replace(
        instance,
        resources=("places",),
        pod_resources=np.ones((6, 1), dtype=np.int64),
        node_resources=np.full((len(NODES), 1), 2, dtype=np.int64),
    )
    problem = group(limited, objective="cost")
    after = run(problem, one_pod_a_node(problem))
    assert (after.pattern.sum(axis=1) <= 2).all()
    assert cost(problem, after) == pytest.approx(12.0)


def test_it_finds_what_first_fit_misses():
    random = np.random.default_rng(5)
    pods = [(int(random.integers(1000, 7000)), 8, 1, int(random.integers(200, 900)), "") for _ in range(24)]
    problem = problem_of(pods)
    kinds = np.argsort(problem.cost[problem.type_of_node], kind="stable")
    order = random.permutation(np.repeat(np.arange(len(problem.demand)), problem.demand))
    first_fit = Filling.of_nodes(
        problem.type_of_node[kinds], place_in_order(problem, order, problem.type_of_node[kinds], rule="first")
    )
    assert cost(problem, run(problem, first_fit, sweeps=200)) < cost(problem, first_fit)
