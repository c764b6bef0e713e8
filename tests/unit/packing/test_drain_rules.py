"""Rules of single nodes in drains: further resources, exclusions and NVLink islands."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.packing.drains import make_drain, random_drain

from gpuwaste.cli.drain import drain as command
from gpuwaste.model.errors import InputError
from gpuwaste.packing.drain import drain
from gpuwaste.packing.drain_verifier import drain_violations
from gpuwaste.packing.free_room import FreeRoom

NODES = [("a", 100, 100, 4, "m"), ("b", 100, 100, 4, "m"), ("c", 100, 100, 4, "m")]
PODS = [
    ("p0", 1, 1, 2, 0, "", "a", (0, 1)),
    ("p1", 1, 1, 1, 500, "", "b", (1,)),
    ("p2", 1, 1, 1, 500, "", "c", (0,)),
]


def question(**fields):
    made = make_drain(PODS, NODES, moves=2)
    return replace(made, instance=replace(made.instance, **fields))


def solved(asked, seconds=0.0):
    answer = drain(asked, time_limit_seconds=seconds, clock=time.monotonic)
    assert drain_violations(asked, answer) == []
    return answer


def test_without_rules_two_nodes_go():
    assert len(solved(question()).released) == 2


def test_nodes_without_the_resource_take_no_pods():
    has = np.array([[1], [1], [1]])
    assert (
        solved(question(resources=("port 80",), pod_resources=np.ones((3, 1), dtype=int), node_resources=has)).released
        == ()
    )


def test_pods_of_two_sides_do_not_meet():
    released = solved(question(exclusions=("apart",), pod_sides=np.array([[1], [2], [0]]))).released
    assert len(released) == 1


def test_gpus_of_one_island_are_taken():
    asked = question(pod_island=np.array([True, False, False]), node_island_gpus=np.array([2, 2, 2]))
    answer = solved(asked)
    move = next((m for wave in answer.waves for m in wave if m.pod == 0), None)
    assert move is None or {gpu // 2 for gpu in move.gpus} in ({0}, {1})
    assert len(answer.released) == 2
    room = FreeRoom(asked.instance, asked.current)
    # GPU 1 of b carries a share: of its islands only the second is free.
    assert room.gpus_for(0, 1) == (2, 3)


def test_no_island_with_room_is_no_room():
    asked = question(pod_island=np.array([True, False, False]), node_island_gpus=np.array([2, 1, 1]))
    room = FreeRoom(asked.instance, asked.current)
    assert room.able(0, np.array([1, 2])).tolist() == [False, False]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {
                "resources": ("rdma",),
                "pod_resources": np.ones((3, 1), dtype=int),
                "node_resources": np.ones((3, 1), dtype=int),
            },
            "has less rdma than its pods need",
        ),
        ({"exclusions": ("apart",), "pod_sides": np.array([[1], [2], [2]])}, "has pods of both sides of apart"),
        (
            {"pod_island": np.array([True, False, False]), "node_island_gpus": np.array([1, 1, 1])},
            "gets GPUs of several NVLink islands",
        ),
    ],
)
def test_each_broken_rule_is_found(fields, message):
    pods = [PODS[0], PODS[1], (*PODS[2][:6], "b", (0,))]
    made = make_drain(pods, NODES[:2], moves=1, stuck=("p1", "p2"))
    answer = solved(made)
    assert answer.moves == 1
    cut = {name: value[:2] if name.startswith("node") else value for name, value in fields.items()}
    wrong = replace(made, instance=replace(made.instance, **cut))
    assert any(message in line for line in drain_violations(wrong, answer))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.booleans(), st.sampled_from([0.0, 0.3]))
def test_no_drain_breaks_a_rule(seed, opens, seconds):
    made = random_drain(seed, opens=opens)
    random = np.random.default_rng(seed)
    instance, count = made.instance, len(made.instance.pod_names)
    takes = random.integers(0, 2, size=(count, 1))
    used = np.bincount(made.current.pod_node, weights=takes[:, 0], minlength=len(instance.node_names)).astype(int)
    side = random.integers(0, 3, size=count)
    for node in range(len(instance.node_names)):
        on = np.flatnonzero(made.current.pod_node == node)
        if {1, 2} <= set(side[on].tolist()):
            side[on] = 0
    ruled = replace(
        instance,
        resources=("rdma",),
        pod_resources=takes,
        node_resources=(used + random.integers(0, 2, size=len(used)))[:, None],
        exclusions=("apart",),
        pod_sides=side[:, None],
    )
    answer = solved(replace(made, instance=ruled), seconds=seconds)
    assert answer.bound <= answer.planned_cost <= answer.current_cost


FILES = {
    "nodes.csv": "sn,cpu_milli,memory_mib,gpu,model,zone\na,9000,900,2,T4,x\nb,9000,900,2,T4,x\nc,9000,900,2,T4,y\n",
    "pods.csv": "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,group\n"
    "p0,10,10,1,400,,web\np1,10,10,1,400,,cache\np2,10,10,1,400,,\n",
}


def commanded(folder, rules, places=("a", "b", "c")):
    for name, text in {**FILES, "rules.yaml": rules}.items():
        (folder / name).write_text(text, encoding="utf-8")
    body = [{"pod": f"p{i}", "node": node, "gpus": [{"index": 0}]} for i, node in enumerate(places)]
    (folder / "now.json").write_text(json.dumps({"placements": body}), encoding="utf-8")
    files = [f"--{name.partition('.')[0]}={folder / name}" for name in (*FILES, "rules.yaml")]
    more = [f"--current={folder / 'now.json'}", "--max-moves=5", "--time-limit=0", f"--out={folder / 'out.json'}"]
    result = CliRunner().invoke(command, [*files, *more], catch_exceptions=False)
    assert result.exit_code == 0
    return json.loads((folder / "out.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("rules", "released"),
    [
        ("", 2),
        ("atMost: [{group: web, perNode: 1}]", 2),
        ("apart: [{group: web, from: cache, topology: node}]", 1),
        ("together: [{group: web, with: cache, topology: zone}]", 2),
        ("onlyOn: [{group: web, nodes: {zone: x}}, {group: cache, nodes: {zone: x}}]", 2),
    ],
)
def test_a_drain_keeps_rules_from_a_file(tmp_path, rules, released):
    body = commanded(tmp_path, rules)
    assert len(body["released"]) == released
    to = {move["pod"]: move["to"] for wave in body["waves"] for move in wave}
    if "together" in rules or "onlyOn" in rules:
        assert {to.get("p0", "a"), to.get("p1", "b")} <= {"a", "b"}


@pytest.mark.parametrize(
    ("rules", "places", "message"),
    [
        ("keepFree: [{model: T4, gpus: 1}]", "abc", "keepFree is no rule of a drain"),
        (
            "together: [{group: web, with: cache, topology: zone}]",
            "acb",
            "the current placement breaks a rule: web with",
        ),
        ("onlyOn: [{group: web, nodes: {zone: y}}]", "abc", "rules.yaml|may not use"),
        ("resources: [{name: r, group: web, has: 0}]", "abc", "has less r than its pods need"),
    ],
)
def test_rules_that_a_placement_breaks_are_refused(tmp_path, rules, places, message):
    with pytest.raises(InputError, match=message):
        commanded(tmp_path, rules, tuple(places))
