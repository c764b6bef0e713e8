"""One test for each way an answer can be wrong."""

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from tests.unit.packing.questions import Ticker, make_instance

from gpuwaste.model.errors import InvariantError
from gpuwaste.packing.engine import solve
from gpuwaste.packing.verifier import check, violations

PODS = [
    ("share-a", 1000, 4, 1, 600, ""),
    ("share-b", 1000, 4, 1, 500, ""),
    ("pair", 1000, 4, 2, 1000, "T4"),
    ("cpu", 2000, 8, 0, 0, ""),
]
NODES = [("t4", 8000, 32, 4, "T4"), ("none", 100, 1, 0, "CPU"), ("a10", 8000, 32, 2, "A10")]


@pytest.fixture
def instance():
    return make_instance(PODS, NODES, prices={"T4": "0.5", "A10": 2, "CPU": 1})


@pytest.fixture
def answer(instance):
    return solve(instance, time_limit_seconds=60, objective="cost", clock=Ticker())


def moved(answer, **fields):
    return replace(answer, placement=replace(answer.placement, **fields))


def on_gpus(answer, sets):
    """All pods on node 0 with these GPUs."""
    distinct = tuple(dict.fromkeys([(), *sets]))
    return moved(
        answer,
        pod_node=np.zeros(len(sets), dtype=np.int64),
        pod_gpu_set=np.array([distinct.index(gpus) for gpus in sets]),
        gpu_sets=distinct,
    )


def test_the_solver_s_answer_is_right(instance, answer):
    assert violations(instance, answer) == []
    assert answer.cost == Decimal("2.0")
    check(instance, answer)


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        pytest.param([(0,), (0,), (1, 2), ()], "GPU 0 of node t4 carries more than 1000", id="shares over a GPU"),
        pytest.param([(1,), (0,), (1, 2), ()], "GPU 1 of node t4 carries more than 1000", id="share on a whole GPU"),
        pytest.param([(0,), (1,), (2, 4), ()], "pod pair is on a GPU that its node does not have", id="no such GPU"),
        pytest.param([(0,), (1,), (2, -1), ()], "pod pair is on a GPU that its node", id="negative GPU"),
        pytest.param([(0,), (1,), (2,), ()], "pod pair has another number of GPUs", id="too few GPUs"),
        pytest.param([(0,), (1,), (2, 3), (3,)], "pod cpu has another number of GPUs", id="GPU nobody asked for"),
        pytest.param([(0,), (1,), (2, 2), ()], "a pod names one GPU twice", id="one GPU twice"),
        pytest.param([(0,), (1,), (), ()], "pod pair has another number of GPUs", id="no GPUs at all"),
    ],
)
def test_wrong_gpus_are_found(instance, answer, sets, message):
    wrong = on_gpus(answer, sets)
    assert any(message in line for line in violations(instance, wrong))
    with pytest.raises(InvariantError, match="was not written"):
        check(instance, wrong)


def test_a_model_that_is_not_allowed_is_found(instance, answer):
    wrong = moved(answer, pod_node=np.array([0, 0, 2, 0]))
    assert "pod pair is on a GPU model it may not use" in violations(instance, wrong)


@pytest.mark.parametrize(("node", "what"), [("CPU", "pod_cpu"), ("memory", "pod_memory")])
def test_too_little_cpu_or_memory_is_found(instance, answer, node, what):
    hungry = replace(instance, **{what: np.array([1, 1, 1, 9_000])})
    assert f"node t4 has less {node} than its pods need" in violations(hungry, answer)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cost": Decimal(1)}, "cost is 1, counted is 2.0"),
        ({"bound": Decimal(3)}, "the bound 3 is above the cost 2.0"),
        ({"unplaced_milli": 1}, "unplaced_gpu_milli is 1, counted is 0"),
        ({"unplaced_pods": 1}, "unplaced pods is 1, counted is 0"),
        ({"nodes_used": 2}, "nodes_used is 2, counted is 1"),
        ({"gpus_used": 3}, "gpus_used is 3, counted is 4"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_figures_are_found(instance, answer, fields, message):
    assert message in violations(instance, replace(answer, **fields))


def test_an_unplaced_pod_must_be_told(instance, answer):
    left = answer.placement.pod_node.copy()
    left[3] = -1
    assert "unplaced pods is 0, counted is 1" in violations(instance, moved(answer, pod_node=left))


@pytest.mark.parametrize(
    ("placement", "message"),
    [
        pytest.param({"pod_node": np.array([0, 0, 0])}, "every pod exactly once", id="a pod is missing"),
        pytest.param({"pod_node": np.array([0, 0, 0, 7])}, "pod cpu is on a node that does not exist", id="no node"),
        pytest.param({"pod_node": np.array([0, 0, 0, -2])}, "does not exist", id="negative node"),
        pytest.param({"pod_gpu_set": np.array([0, 0, 0, 99])}, "GPUs that the answer does not name", id="no set"),
    ],
)
def test_malformed_answers_are_found(instance, answer, placement, message):
    assert any(message in line for line in violations(instance, moved(answer, **placement)))


def test_objective_gpus_is_recounted(instance):
    answer = solve(instance, time_limit_seconds=60, objective="gpus", clock=Ticker())
    assert violations(instance, answer) == []
    assert violations(instance, replace(answer, cost=answer.cost + 1)) == ["cost is 5, counted is 4"]
