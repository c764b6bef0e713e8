"""Rules of a scheduler: what an answer may not do, looked at by the rule itself."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.packing.questions import Ticker, make_instance

from gpuwaste.model.errors import InputError
from gpuwaste.packing.engine import solve
from gpuwaste.packing.rules import KEPT_FREE, at_most_per_node, keep_free, only_on
from gpuwaste.packing.verifier import violations

NODES = [("a", 8000, 32, 2, "T4"), ("b", 8000, 32, 2, "T4"), ("c", 8000, 32, 4, "A10")]
COST = (0.7, 0.7, 3.2)


def question(count, current=None):
    pods = [(f"p{i}", 1000, 4, 1, 500, "") for i in range(count)]
    return make_instance(pods, NODES, prices={"T4": "0.35", "A10": "0.8"}, current=current)


def answered(instance):
    answer = solve(instance, time_limit_seconds=60, objective="cost", clock=Ticker())
    assert violations(instance, answer) == []
    return answer


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=3),
    st.lists(st.integers(0, 2), min_size=1, max_size=5),
)
def test_pods_are_on_nodes_that_their_rule_leaves(rows, rules):
    allowed, pod_rule = np.array(rows), np.array([rule % len(rows) for rule in rules])
    answer = answered(only_on(question(len(rules)), allowed, pod_rule))
    node = answer.placement.pod_node
    assert all(n < 0 or allowed[rule, n] for n, rule in zip(node.tolist(), pod_rule.tolist(), strict=True))
    best = min(
        (sum(n < 0 for n in where), round(sum(COST[n] for n in set(where) - {-1}), 6))
        for where in itertools.product(range(-1, 3), repeat=len(rules))
        if all(n < 0 or allowed[rule, n] for n, rule in zip(where, pod_rule.tolist(), strict=True))
        and all(where.count(n) <= (4, 4, 8)[n] for n in range(3))
    )
    assert (answer.unplaced_pods, round(float(answer.cost), 6)) == best
    assert answer.bound <= answer.cost


def test_a_rule_does_not_undo_the_models_of_a_pod():
    pods = [("p", 1000, 4, 1, 500, "A10")]
    instance = make_instance(pods, NODES)
    answer = answered(only_on(instance, np.array([[True, True, False]]), np.array([0])))
    assert answer.unplaced_pods == 1


def test_no_node_has_more_of_a_group_than_its_limit():
    limits = {"apart": ([0, 1, 2], 1), "two": ([3, 4, 5, 6], 2)}
    node = answered(at_most_per_node(question(7), limits)).placement.pod_node
    assert sorted(node[:3].tolist()) == [0, 1, 2]
    assert max(np.bincount(node[3:])) == 2


def test_a_pod_may_be_in_several_groups():
    instance = at_most_per_node(question(2), {"one": ([0, 1], 2)})
    instance = at_most_per_node(instance, {"port 80": ([0, 1], 1)})
    assert instance.resources == ("one", "port 80")
    assert len(set(answered(instance).placement.pod_node.tolist())) == 2


def test_a_wrong_placement_of_a_group_is_found():
    instance = at_most_per_node(question(2), {"port 80": ([0, 1], 2)})
    answer = answered(instance)
    tight = replace(instance, node_resources=np.ones((3, 1), dtype=np.int64))
    assert violations(tight, answer) == ["node a has less port 80 than its pods need"]


def test_whole_gpus_stay_free():
    answer = answered(keep_free(question(5), {"T4": 2, "A10": 1}))
    node, sets = answer.placement.pod_node, answer.placement.gpu_sets
    assert answer.unplaced_pods == 0
    taken = {(int(node[pod]), gpu) for pod in range(5) for gpu in sets[answer.placement.pod_gpu_set[pod]]}
    free = {(n, gpu) for n, row in enumerate(NODES) for gpu in range(row[3])} - taken
    assert sum(n < 2 for n, _ in free) >= 2
    assert any(n == 2 for n, _ in free)


def test_more_free_than_there_is_stays_unplaced_and_keeps_where_pods_are():
    instance = keep_free(question(1, current=np.array([1])), {"T4": 5})
    assert instance.current_node.tolist() == [1, -1, -1, -1, -1, -1]
    assert [name for name in instance.pod_names if name.startswith(KEPT_FREE)] == instance.pod_names[1:]
    # Four T4 GPUs are there; the pod can go to the A10, so four of five stay free.
    assert answered(instance).unplaced_milli == 1000


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda one: only_on(one, np.ones((1, 2), dtype=bool), np.zeros(2, dtype=int)), "allowed"),
        (lambda one: only_on(one, np.ones((1, 3), dtype=bool), np.array([0, 1])), "pod_rule"),
        (lambda one: only_on(one, np.ones((1, 3), dtype=bool), np.array([0])), "pod_rule"),
        (lambda one: at_most_per_node(one, {"x": ([0, 9], 1)}), "limit of x: names a pod"),
        (lambda one: at_most_per_node(one, {"x": ([0], -1)}), "limit of x: -1 is negative"),
        (lambda one: keep_free(one, {"H9": 1}), "no node has the model 'H9'"),
        (lambda one: keep_free(one, {"T4": -1}), "-1 GPUs of T4 is negative"),
    ],
)
def test_rules_that_say_nothing_sensible_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(question(2))
