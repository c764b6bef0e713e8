"""Further resources of a node: places for pods, RDMA devices, host ports, one place for pods that keep apart."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.packing.questions import Ticker, make_instance

from gpuwaste.model.errors import InputError
from gpuwaste.packing import engine
from gpuwaste.packing.arrow_files import read_instance_file, write_instance
from gpuwaste.packing.engine import solve
from gpuwaste.packing.verifier import violations

NODES = [("a", 8000, 32, 4, "T4"), ("b", 8000, 32, 4, "T4"), ("c", 8000, 32, 4, "A10")]
PRICES = {"T4": "0.35", "A10": "0.8"}


def with_resources(pods, *, takes, has, names=("rdma", "pods"), current=None):
    instance = make_instance(pods, NODES, prices=PRICES, current=current)
    return replace(
        instance,
        resources=names,
        pod_resources=np.array(takes, dtype=np.int64).reshape(len(pods), len(names)),
        node_resources=np.array(has, dtype=np.int64),
    )


def answered(instance, limit=60):
    answer = solve(instance, time_limit_seconds=limit, objective="cost", clock=Ticker())
    assert violations(instance, answer) == []
    return answer


def best_by_force(instance):
    """(unplaced milli, unplaced pods, cost) over all placements; every pod takes one share of 300."""
    count, best = len(instance.pod_names), None
    for where in itertools.product(range(-1, 3), repeat=count):
        load = np.zeros((3, 2), dtype=np.int64)
        number = np.zeros(3, dtype=np.int64)
        for pod, node in enumerate(where):
            if node >= 0:
                load[node] += instance.pod_resources[pod]
                number[node] += 1
        if (load > instance.node_resources).any() or (number > 12).any():
            continue
        left = sum(node < 0 for node in where)
        cost = sum((1.4, 1.4, 3.2)[node] for node in range(3) if number[node])
        score = (300 * left, left, round(cost, 6))
        best = score if best is None else min(best, score)
    return best


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1)), min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=3, max_size=3),
)
def test_small_questions_are_solved_and_bounded(takes, has):
    pods = [(f"p{i}", 100, 1, 1, 300, "") for i in range(len(takes))]
    instance = with_resources(pods, takes=takes, has=has)
    answer = answered(instance)
    milli, left, cost = best_by_force(instance)
    assert (answer.unplaced_milli, answer.unplaced_pods) == (milli, left)
    assert float(answer.bound) <= cost + 1e-9
    assert float(answer.cost) == pytest.approx(cost)


def test_pods_that_keep_apart_are_on_nodes_of_their_own():
    pods = [(f"p{i}", 100, 1, 1, 100, "") for i in range(3)]
    answer = answered(with_resources(pods, takes=[[1]] * 3, has=[[1]] * 3, names=("apart:web",)))
    assert sorted(answer.placement.pod_node.tolist()) == [0, 1, 2]
    assert float(answer.bound) == float(answer.cost) == pytest.approx(6.0)


def test_a_time_limit_of_zero_keeps_the_resources():
    pods = [(f"p{i}", 100, 1, 0, 0, "") for i in range(3)]
    answer = answered(with_resources(pods, takes=[[1, 1]] * 3, has=[[1, 9], [0, 9], [2, 9]]), limit=0)
    assert answer.unplaced_pods == 0


def test_too_much_of_a_resource_is_found():
    pods = [(f"p{i}", 100, 1, 0, 0, "") for i in range(3)]
    instance = with_resources(pods, takes=[[1, 1]] * 3, has=[[3, 9]] * 3)
    answer = answered(instance)
    node = instance.node_names[answer.placement.pod_node[0]]
    assert violations(replace(instance, node_resources=np.full((3, 2), 2)), answer) == [
        f"node {node} has less {name} than its pods need" for name in ("rdma", "pods")
    ]


def test_a_current_node_without_the_resources_is_no_place_to_be():
    pods = [(f"p{i}", 100, 1, 0, 0, "") for i in range(2)]
    current = np.array([0, 0])
    answer = answered(with_resources(pods, takes=[[1, 1]] * 2, has=[[1, 9], [1, 9], [1, 9]], current=current))
    assert answer.unplaced_pods == 0
    assert len(set(answer.placement.pod_node.tolist())) == 2


def test_requests_that_all_differ_are_taken_together_by_resource(monkeypatch):
    monkeypatch.setattr(engine, "_MANY_SHAPES", 3)
    pods = [(f"p{i}", 1000 + i, 4, 1, 100 + i, "") for i in range(8)]
    takes = [[i % 2, 1] for i in range(8)]
    answer = answered(with_resources(pods, takes=takes, has=[[2, 9], [2, 9], [9, 9]]))
    assert answer.unplaced_pods == 0
    assert float(answer.cost) == pytest.approx(2.8)
    assert 0 < float(answer.bound) <= float(answer.cost)


def test_they_pass_through_a_file(tmp_path):
    instance = with_resources([("p", 1, 1, 0, 0, "")], takes=[[1, 2]], has=[[1, 2], [3, 4], [5, 6]])
    write_instance(tmp_path / "q", instance)
    again = read_instance_file(tmp_path / "q")
    assert again.resources == instance.resources
    assert again.pod_resources.tolist() == [[1, 2]]
    assert again.node_resources.tolist() == [[1, 2], [3, 4], [5, 6]]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pod_resources": np.array([[-1, 0]])}, "pod_resources: row 0 has a negative amount"),
        ({"pod_resources": np.array([[1]])}, "pod_resources: has not the shape"),
        ({"node_resources": None}, "node_resources: has not the shape"),
        ({"resources": ()}, "has not the shape"),
    ],
)
def test_bad_resources_are_refused(fields, message):
    instance = with_resources([("p", 1, 1, 0, 0, "")], takes=[[1, 2]], has=[[1, 2]] * 3)
    with pytest.raises(InputError, match=message):
        replace(instance, **fields)
