import itertools
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.packing.questions import Ticker, make_instance

from gpuwaste.packing.engine import solve
from gpuwaste.packing.gpu_patterns import pack_shares
from gpuwaste.packing.verifier import violations

NODES = [
    ("a", 8000, 32, 2, "T4"),
    ("b", 8000, 32, 2, "T4"),
    ("c", 16000, 64, 4, "A10"),
]
PRICES = {"T4": "0.35", "A10": "0.8"}

pods = st.lists(
    st.tuples(
        st.sampled_from([1000, 2500, 4000, 9000]),
        st.sampled_from([4, 8, 20]),
        st.sampled_from([(0, 0), (1, 1000), (1, 300), (1, 550), (1, 700), (2, 1000), (5, 1000)]),
        st.sampled_from(["", "T4", "A10", "T4|A10"]),
    ),
    max_size=5,
).map(lambda rows: [(f"p{i}", c, m, g[0], g[1], spec) for i, (c, m, g, spec) in enumerate(rows)])


def best_by_force(instance, cost_of_model):
    """(unplaced milli, unplaced pods, cost) of the best of all placements."""
    count, nodes = len(instance.pod_names), len(instance.node_names)
    best = (math.inf, math.inf, math.inf)
    milli = instance.pod_total_milli
    for where in itertools.product(range(-1, nodes), repeat=count):
        if not all(_node_holds(instance, node, [p for p in range(count) if where[p] == node]) for node in range(nodes)):
            continue
        left = [p for p in range(count) if where[p] < 0]
        cost = sum(cost_of_model[instance.node_model[n]] * instance.node_gpus[n] for n in set(where) - {-1})
        best = min(best, (int(milli[left].sum()), len(left), round(float(cost), 6)))
    return best


def _node_holds(instance, node, members):
    if instance.pod_cpu[members].sum() > instance.node_cpu[node]:
        return False
    if instance.pod_memory[members].sum() > instance.node_memory[node]:
        return False
    if not all(instance.model_sets[instance.pod_model_set[p], instance.node_model[node]] for p in members):
        return False
    whole = sum(
        int(instance.pod_gpus[p]) for p in members if instance.pod_gpus[p] > 1 or instance.pod_gpu_milli[p] == 1000
    )
    shares = [int(instance.pod_gpu_milli[p]) for p in members if instance.pod_gpus[p] == 1]
    shares = [share for share in shares if share < 1000]
    bins = int(instance.node_gpus[node]) - whole
    return bins >= 0 and pack_shares(shares, bins) is not None


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(pods)
def test_small_questions_are_solved_and_bounded(rows):
    instance = make_instance(rows, NODES, prices=PRICES)
    answer = solve(instance, time_limit_seconds=60, objective="cost", clock=Ticker())
    milli, left, cost = best_by_force(instance, [0.35, 0.8])
    assert violations(instance, answer) == []
    assert (answer.unplaced_milli, answer.unplaced_pods) == (milli, left)
    assert float(answer.bound) <= cost + 1e-9
    assert float(answer.cost) <= 1.3 * cost + 1e-9


def test_same_question_same_answer():
    rows = [(f"p{i}", 1000 + 500 * (i % 3), 4, 1, (300, 550, 1000)[i % 3], "") for i in range(9)]
    instance = make_instance(rows, NODES, prices=PRICES)
    first, second = (solve(instance, time_limit_seconds=60, objective="cost", clock=Ticker()) for _ in range(2))
    assert np.array_equal(first.placement.pod_node, second.placement.pod_node)
    assert first.placement.gpu_sets == second.placement.gpu_sets
    assert (first.cost, first.bound) == (second.cost, second.bound)


def test_time_limit_zero_gives_a_feasible_answer_with_its_bound():
    instance = make_instance([("p", 1000, 4, 1, 300, "")], NODES, prices=PRICES)
    answer = solve(instance, time_limit_seconds=0, objective="cost", clock=Ticker())
    assert violations(instance, answer) == []
    assert answer.unplaced_pods == 0
    assert 0 < answer.bound <= answer.cost


@pytest.mark.parametrize(
    ("rows", "milli", "left"),
    [
        pytest.param([("big", 99_000, 4, 0, 0, "")], 0, 1, id="larger than any node"),
        pytest.param([("wide", 1000, 4, 9, 1000, "")], 9000, 1, id="more GPUs than any node"),
        pytest.param([("p", 1000, 4, 1, 300, ""), ("wide", 1000, 4, 9, 1000, "")], 9000, 1, id="one of two"),
        pytest.param([], 0, 0, id="no pods"),
    ],
)
def test_what_fits_nowhere_stays_unplaced(rows, milli, left):
    instance = make_instance(rows, NODES, prices=PRICES)
    answer = solve(instance, time_limit_seconds=60, objective="cost", clock=Ticker())
    assert (answer.unplaced_milli, answer.unplaced_pods) == (milli, left)


def test_objective_gpus_counts_the_gpus_of_used_nodes():
    rows = [(f"p{i}", 1000, 4, 1, 1000, "") for i in range(3)]
    instance = make_instance(rows, NODES, prices={"T4": 5, "A10": 1})
    answer = solve(instance, time_limit_seconds=60, objective="gpus", clock=Ticker())
    assert (answer.cost, answer.bound, answer.nodes_used, answer.gpus_used) == (4, 4, answer.nodes_used, 3)
