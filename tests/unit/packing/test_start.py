"""Packing from a placement that is there: never worse, and nothing moved for nothing."""

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.packing.questions import Ticker, make_instance

from gpuwaste.cli.pack import pack
from gpuwaste.model.errors import InputError
from gpuwaste.packing.engine import solve
from gpuwaste.packing.start import current_placement
from gpuwaste.packing.verifier import violations

NODES = [(f"n{i}", 8000, 32, 2, ("T4", "A10")[i % 2]) for i in range(6)]
PRICES = {"T4": "0.35", "A10": "0.8"}
SIZES = [(1000, 4, 1, 300), (2000, 4, 1, 1000), (500, 2, 0, 0), (1000, 4, 1, 550)]


def answered(instance, limit=60):
    answer = solve(instance, time_limit_seconds=limit, objective="cost", clock=Ticker())
    assert violations(instance, answer) == []
    return answer


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.sampled_from(SIZES), st.integers(-1, 5)), min_size=1, max_size=9), st.sampled_from([0, 60])
)
def test_never_worse_than_where_the_pods_are(rows, limit):
    pods = [(f"p{i}", *size, "") for i, (size, _) in enumerate(rows)]
    instance = make_instance(pods, NODES, prices=PRICES, current=np.array([node for _, node in rows]))
    answer = answered(instance, limit)
    current = current_placement(instance)
    left = current.pod_node < 0
    used = np.unique(current.pod_node[~left])
    cost = sum(float(instance.prices[instance.node_model[n]]) * 2 for n in used)
    score = (int(instance.pod_total_milli[left].sum()), int(left.sum()), round(cost, 6))
    assert (answer.unplaced_milli, answer.unplaced_pods, round(float(answer.cost), 6)) <= score


def test_a_best_placement_is_left_as_it_is():
    instance = make_instance([(f"p{i}", 1000, 4, 1, 500, "") for i in range(4)], NODES, prices=PRICES)
    best = answered(instance).placement.pod_node
    # The same cost on another node of the same kind.
    other = np.full(4, 4 if best[0] != 4 else 2)
    answer = answered(replace(instance, current_node=other))
    assert answer.placement.pod_node.tolist() == other.tolist()
    assert answer.method == "current placement"


def test_pods_stay_where_they_are_if_the_node_stays():
    pods = [(f"p{i}", 1000, 4, 1, 500, "") for i in range(8)]
    current = np.array([4, 4, 4, 4, 1, 1, 2, 2])
    answer = answered(make_instance(pods, NODES, prices=PRICES, current=current))
    assert float(answer.cost) == pytest.approx(1.4)
    assert answer.placement.pod_node[:4].tolist() == [4, 4, 4, 4]
    assert answer.placement.pod_node[4:].tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize(
    ("current", "stays"),
    [
        pytest.param([0, 0, 0], [-1, -1, -1], id="three GPUs of two"),
        pytest.param([0, 0, 1], [0, 0, -1], id="a model it may not use"),
        pytest.param([-1, 2, 2], [-1, 2, 2], id="right"),
    ],
)
def test_what_breaks_a_rule_is_nothing_to_begin_from(current, stays):
    pods = [("a", 1000, 4, 1, 1000, "T4"), ("b", 1000, 4, 1, 1000, "T4"), ("c", 1000, 4, 1, 1000, "T4")]
    instance = make_instance(pods, NODES, prices=PRICES, current=np.array(current))
    assert current_placement(instance).pod_node.tolist() == stays
    assert answered(instance).unplaced_pods == 0


@pytest.mark.parametrize("current", [[0, 9], [0, -2], [0]])
def test_a_current_node_that_does_not_exist_is_refused(current):
    pods = [("a", 1000, 4, 1, 1000, ""), ("b", 1000, 4, 1, 1000, "")]
    with pytest.raises(InputError, match="current_node"):
        make_instance(pods, NODES, current=np.array(current))


@pytest.fixture
def files(tmp_path):
    nodes = [f"n{i},8000,4096,2,T4" for i in range(6)]
    pods = [f"p{i},1000,100,1,{(460, 540, 1000)[i % 3]}," for i in range(6)]
    (tmp_path / "nodes.csv").write_text("\n".join(["sn,cpu_milli,memory_mib,gpu,model", *nodes, ""]))
    (tmp_path / "pods.csv").write_text("\n".join(["name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec", *pods, ""]))
    return tmp_path


def run(folder, *more):
    inputs = ["--nodes", f"{folder}/nodes.csv", "--pods", f"{folder}/pods.csv", "--out", f"{folder}/plan.json"]
    return CliRunner().invoke(pack, [*inputs, "--time-limit", "1000", *more])


def test_an_earlier_plan_is_kept_pod_by_pod(files):
    assert run(files).exit_code == 0
    first = json.loads((files / "plan.json").read_text())
    moved = {"n0": "n4", "n1": "n5"}
    for row in first["placements"]:
        row["node"] = moved.get(row["node"], row["node"])
    first["placements"].append({"pod": "gone", "node": "n1", "gpus": []})
    (files / "last.json").write_text(json.dumps(first))
    result = run(files, "--start", f"{files}/last.json")
    assert result.exit_code == 0, result.output
    again = json.loads((files / "plan.json").read_text())
    where = {row["pod"]: row["node"] for row in first["placements"]}
    assert {row["pod"]: row["node"] for row in again["placements"]} == {k: v for k, v in where.items() if k != "gone"}
    assert again["cost"] == first["cost"]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{", "cannot be read"),
        ("[]", "placements"),
        ('{"placements": [{"pod": "p0"}]}', r"placements\[0\]"),
        ('{"placements": [{"pod": "p0", "node": "n0"}, {"pod": "p0", "node": "n1"}]}', "twice"),
    ],
)
def test_a_start_that_is_no_plan_is_refused(files, text, part):
    (files / "last.json").write_text(text)
    result = run(files, "--start", f"{files}/last.json")
    assert isinstance(result.exception, InputError)
    assert "last.json" in str(result.exception)
    with pytest.raises(InputError, match=part):
        raise result.exception
    assert not (files / "plan.json").exists()
