"""Priorities, exclusions on a node and NVLink islands, against every placement of tiny questions."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.packing.questions import Ticker, make_instance
from tests.unit.packing.rule_oracles import best_by_force

from gpuwaste.model.errors import InputError
from gpuwaste.packing import engine
from gpuwaste.packing.engine import solve
from gpuwaste.packing.islands import whole_gpus
from gpuwaste.packing.rules import keep_apart
from gpuwaste.packing.verifier import violations

NODES = [("a", 8000, 32, 4, "T4"), ("b", 8000, 32, 4, "T4"), ("c", 8000, 32, 4, "A10")]
PRICES = {"T4": "0.35", "A10": "0.8"}


def question(pods, nodes=NODES, **fields):
    rows = [(f"p{i}", 1000, 4, gpus, milli, "") for i, (gpus, milli) in enumerate(pods)]
    return replace(make_instance(rows, nodes, prices=PRICES), **fields)


def answered(instance, limit=60):
    answer = solve(instance, time_limit_seconds=limit, objective="cost", clock=Ticker())
    assert violations(instance, answer) == []
    return answer


def result(instance, answer):
    return list(instance.left_out(answer.placement.pod_node < 0)), round(float(answer.cost), 6)


def holds(instance):
    """Whether a node holds some pods: islands by trying every way, exclusions one by one."""

    def one_node(pods, node):
        have, size = int(instance.node_gpus[node]), int(instance.islands[node])
        widths = [int(instance.pod_gpus[pod]) for pod in pods]
        if sum(widths) > have or 1000 * len(pods) > instance.node_cpu[node]:
            return False
        for side in instance.sides.T:
            if {1, 2} <= {int(side[pod]) for pod in pods}:
                return False
        joined = [width for pod, width in zip(pods, widths, strict=True) if instance.in_island[pod]]
        rooms = [size] * (have // size) if size else []
        return any(
            all(sum(w for w, at in zip(joined, places, strict=True) if at == i) <= room for i, room in enumerate(rooms))
            for places in itertools.product(range(len(rooms)), repeat=len(joined))
        )

    return one_node


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=5),
    st.lists(st.booleans(), min_size=5, max_size=5),
    st.lists(st.sampled_from([0, 1, 2, 4]), min_size=3, max_size=3),
    st.lists(st.integers(0, 2), min_size=5, max_size=5),
    st.lists(st.integers(-1, 1), min_size=5, max_size=5),
)
def test_small_questions_are_solved_and_bounded(widths, joined, islands, sides, priority):
    count = len(widths)
    instance = question(
        [(width, 1000) for width in widths],
        pod_island=np.array(joined[:count]),
        node_island_gpus=np.array(islands),
        exclusions=("apart",),
        pod_sides=np.array(sides[:count]).reshape(-1, 1),
        pod_priority=np.array(priority[:count]),
    )
    answer = answered(instance)
    left, cost = best_by_force(instance, holds(instance))
    assert result(instance, answer) >= (left, cost)
    assert result(instance, answer)[0] == left
    assert float(answer.bound) <= cost + 1e-9
    quick = answered(instance, limit=0)
    assert result(instance, quick) >= (left, cost)
    assert float(quick.bound) <= float(quick.cost)


def test_what_is_left_out_has_the_lowest_priority():
    pods = [(4, 1000), (4, 1000), (4, 1000), (2, 1000), (1, 500)]
    answer = answered(question(pods, pod_priority=np.array([0, 0, 0, 5, 5])))
    # Two of the larger pods run: the smaller ones come first, though more GPU-milli stay unplaced then.
    assert (answer.placement.pod_node >= 0).tolist()[3:] == [True, True]
    assert answer.unplaced_pods == 1


def test_priorities_hold_where_requests_are_taken_together(monkeypatch):
    monkeypatch.setattr(engine, "_MANY_SHAPES", 3)
    pods = [(1, 900 + i) for i in range(16)]
    priority = np.array([i % 2 for i in range(16)])
    answer = answered(question(pods, NODES[:2], pod_priority=priority))
    assert answer.unplaced_pods == 8
    assert (answer.placement.pod_node[priority == 1] >= 0).all()


def test_pods_of_two_groups_are_on_no_node_together():
    instance = keep_apart(question([(1, 500)] * 6), {"web and batch": ([0, 1, 2], [3, 4, 5])})
    node = answered(instance).placement.pod_node
    assert not set(node[:3].tolist()) & set(node[3:].tolist())


def test_pods_of_both_groups_keep_away_from_their_own_kind_as_well():
    instance = keep_apart(question([(1, 100)] * 3), {"one each": ([0, 1, 2], [0, 1, 2])})
    assert sorted(answered(instance).placement.pod_node.tolist()) == [0, 1, 2]
    overlap = keep_apart(question([(1, 100)] * 3), {"overlap": ([0, 1], [1, 2])})
    node = answered(overlap).placement.pod_node.tolist()
    assert node[0] != node[1] != node[2] != node[0]


def test_pods_of_both_sides_on_a_node_are_found():
    instance = question([(1, 500)] * 2)
    answer = answered(instance)
    wrong = replace(instance, exclusions=("apart",), pod_sides=np.array([[1], [2]]))
    name = instance.node_names[answer.placement.pod_node[0]]
    assert violations(wrong, answer) == [f"node {name} has pods of both sides of apart"]


def test_gpus_of_two_islands_are_found():
    instance = question([(2, 1000)], pod_island=np.array([True]), node_island_gpus=np.array([2, 2, 2]))
    answer = answered(instance)
    torn = replace(answer, placement=replace(answer.placement, gpu_sets=((), (1, 2)), pod_gpu_set=np.array([1])))
    assert violations(instance, torn) == ["pod p0 has GPUs of several NVLink islands"]


def test_a_current_placement_that_tears_islands_or_mixes_sides_is_no_place_to_be():
    instance = question(
        [(3, 1000), (1, 1000), (1, 500)],
        current_node=np.array([0, 1, 1]),
        pod_island=np.array([True, False, False]),
        node_island_gpus=np.array([2, 4, 0]),
        exclusions=("apart",),
        pod_sides=np.array([[0], [1], [2]]),
    )
    node = answered(instance, limit=0).placement.pod_node
    assert node[0] != 0
    assert node[1] != node[2]


@pytest.mark.parametrize(
    ("widths", "joined", "gpus", "island", "fit"),
    [
        ([2, 2, 2, 2], [True] * 4, 8, 4, True),
        ([3, 3, 2], [True] * 3, 8, 4, False),
        ([3, 3, 2], [True, True, False], 8, 4, True),
        ([4, 3, 1], [True, True, False], 8, 4, True),
        ([5], [True], 8, 4, False),
        ([5], [False], 8, 4, True),
        ([5, 4], [False, False], 8, 4, False),
        ([0, 2], [False, True], 2, 2, True),
        ([], [], 0, 0, True),
    ],
)
def test_whole_gpus_of_one_island(widths, joined, gpus, island, fit):
    found = whole_gpus(widths, joined, gpus=gpus, island=island)
    assert (found is not None) == fit
    if found is not None:
        held = [gpu for one in found for gpu in one]
        assert len(held) == len(set(held)) == sum(widths)
        assert all(not j or len({gpu // island for gpu in one}) == 1 for j, one in zip(joined, found, strict=True))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pod_priority": np.array([1, 2])}, "pod_priority: has shape"),
        ({"exclusions": ("x",)}, "pod_sides: is missing"),
        ({"exclusions": ("x",), "pod_sides": np.array([[3]])}, "pod_sides: has a side"),
        ({"node_island_gpus": np.array([3, 0, 0])}, "4 GPUs of node a are no islands of 3"),
        ({"node_island_gpus": np.array([8, 0, 0])}, "no islands of 8"),
        ({"pod_island": np.array([True, True])}, "pod_island: has shape"),
    ],
)
def test_rules_that_say_nothing_sensible_are_refused(fields, message):
    with pytest.raises(InputError, match=message):
        question([(1, 500)], **fields)


def test_large_islands_beside_others_are_refused_rather_than_guessed():
    nodes = [("a", 8000, 32, 16, "T4")]
    instance = question([(2, 1000)], nodes, pod_island=np.array([True]), node_island_gpus=np.array([8]))
    with pytest.raises(InputError, match="several islands of 8 GPUs"):
        answered(instance)
