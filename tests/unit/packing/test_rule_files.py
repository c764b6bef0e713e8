"""Scheduling rules from a file, through the command."""

import json

import pytest
from click.testing import CliRunner

from gpuwaste.cli.pack import pack
from gpuwaste.model.errors import InputError

NODES = (
    "sn,cpu_milli,memory_mib,gpu,model,zone,pool\n"
    "n1,8000,4096,4,T4,a,od\nn2,8000,4096,4,T4,a,spot\nn3,8000,4096,4,T4,b,od\nn4,8000,4096,4,A10,,od\n"
)
PODS = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,group\n" + "".join(
    f"{name},500,100,{gpus},1000,{spec},{group}\n"
    for name, gpus, spec, group in [
        ("w1", 1, "", "web"),
        ("w2", 1, "", "web"),
        ("w3", 1, "", "web|front"),
        ("t1", 2, "", "train"),
        ("t2", 2, "", "train"),
        ("c1", 1, "", "cache"),
        ("x1", 0, "", ""),
    ]
)


@pytest.fixture
def ask(tmp_path):
    def run(rules, pods=PODS, nodes=NODES, limit="1000"):
        for name, text in (("nodes.csv", nodes), ("pods.csv", pods), ("rules.yaml", rules)):
            (tmp_path / name).write_text(text, encoding="utf-8")
        files = {name: f"{tmp_path}/{name}" for name in ("nodes.csv", "pods.csv", "rules.yaml", "plan.json")}
        arguments = ["--nodes", files["nodes.csv"], "--pods", files["pods.csv"], "--rules", files["rules.yaml"]]
        result = CliRunner().invoke(pack, [*arguments, "--time-limit", limit, "--out", files["plan.json"]])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        plan = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
        plan["on"] = {one["pod"]: one["node"] for one in plan["placements"]}
        plan["gpus_of"] = {one["pod"]: [gpu["index"] for gpu in one["gpus"]] for one in plan["placements"]}
        return plan

    return run


def test_without_rules_in_the_file_nothing_changes(ask):
    assert ask("")["unplaced"] == []


@pytest.mark.parametrize(
    ("rules", "holds"),
    [
        pytest.param(
            "onlyOn: [{group: web, nodes: {zone: b}}]",
            lambda plan: {plan["on"][pod] for pod in ("w1", "w2", "w3")} == {"n3"},
            id="node selector",
        ),
        pytest.param(
            "onlyOn: [{group: web, nodes: {zone: [a, b], pool: [spot]}}]",
            lambda plan: {plan["on"][pod] for pod in ("w1", "w2", "w3")} == {"n2"},
            id="two columns",
        ),
        pytest.param(
            "atMost: [{group: web, perNode: 1}]",
            lambda plan: len({plan["on"][pod] for pod in ("w1", "w2", "w3")}) == 3,
            id="anti-affinity with itself",
        ),
        pytest.param(
            "apart: [{group: web, from: train, topology: node}]",
            lambda plan: not {plan["on"][p] for p in ("w1", "w2", "w3")} & {plan["on"][p] for p in ("t1", "t2")},
            id="anti-affinity on nodes",
        ),
        pytest.param(
            "apart: [{group: web, from: train, topology: zone}]",
            lambda plan: plan["on"]["w1"] != plan["on"]["t1"] and len(plan["placements"]) == 7,
            id="anti-affinity between zones",
        ),
        pytest.param(
            "{together: [{group: web, with: cache, topology: zone}], onlyOn: [{group: cache, nodes: {zone: b}}]}",
            lambda plan: {plan["on"][pod] for pod in ("w1", "w2", "w3", "c1")} == {"n3"},
            id="affinity",
        ),
        pytest.param(
            "together: [{group: web, with: web, topology: node}]",
            lambda plan: len({plan["on"][pod] for pod in ("w1", "w2", "w3")}) == 1,
            id="affinity with itself on a node",
        ),
        pytest.param(
            "spread: [{group: web, topology: zone, maxSkew: 1}]",
            lambda plan: {plan["on"][pod] == "n3" for pod in ("w1", "w2", "w3")} == {True, False},
            id="spread",
        ),
        pytest.param(
            "spread: [{group: web, topology: zone, whenUnsatisfiable: ScheduleAnyway}]",
            lambda plan: plan["unplaced"] == [],
            id="soft spread",
        ),
        pytest.param(
            "resources: [{name: rdma, group: train, each: 1, nodes: {pool: spot}, has: 2}]",
            lambda plan: {plan["on"]["t1"], plan["on"]["t2"]} == {"n2"},
            id="extended resource",
        ),
        pytest.param(
            "{gangs: [{group: train}], resources: [{name: rdma, group: train, has: 1, nodes: {pool: spot}}]}",
            lambda plan: plan["unplaced"] == ["t1", "t2"],
            id="gang",
        ),
        pytest.param(
            "islands: [{group: train, nodes: {}, gpus: 2}]",
            lambda plan: all(len({gpu // 2 for gpu in plan["gpus_of"][pod]}) == 1 for pod in ("t1", "t2")),
            id="islands",
        ),
        pytest.param(
            "keepFree: [{model: T4, nodes: {pool: spot}, gpus: 3}]",
            lambda plan: sum(plan["on"][pod] == "n2" for pod in plan["on"] if pod.startswith("kept-free/")) == 3,
            id="kept free in a pool",
        ),
    ],
)
def test_each_kind_of_rule_is_kept(ask, rules, holds):
    plan = ask(rules)
    assert holds(plan)
    assert plan["bound"] <= plan["cost"]


def test_a_priority_decides_who_stays_out(ask):
    pods = PODS.replace("x1,500,100,0,1000,,", "".join(f"b{i},500,100,4,1000,,big\n" for i in range(4)))
    low = ask("priorities: [{group: big, value: -1}]", pods=pods)
    assert all(name.startswith("b") for name in low["unplaced"])
    high = ask("priorities: [{group: big, value: 1000}]", pods=pods)
    assert not any(name.startswith("b") for name in high["unplaced"])


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("[]", "is no map of rules"),
        ("a: [", "cannot be read"),
        ("affinity: []", "'affinity' is no kind of rule"),
        ("gangs: {}", "gangs: is no list"),
        ("gangs: [train]", "gangs 1: is no map"),
        ("gangs: [{group: training}]", "'training' is no group of the pods"),
        ("gangs: [{group: train, all: yes}]", "has no field all"),
        ("onlyOn: [{group: web, nodes: {rack: r1}}]", "'rack' is no column"),
        ("onlyOn: [{group: web, nodes: {zone: 1}}]", "zone names no values"),
        ("onlyOn: [{group: web, nodes: [a]}]", "is no map of column to values"),
        ("spread: [{group: web, topology: rack}]", "'rack' is no column"),
        ("spread: [{group: web, topology: zone, maxSkew: 0}]", "0 is no whole number of 1 or more"),
        ("spread: [{group: web, topology: zone, whenUnsatisfiable: Never}]", "'Never' is not DoNotSchedule"),
        ("atMost: [{group: web, perNode: -1}]", "-1 is no whole number"),
        ("atMost: [{group: web, perNode: .nan}]", "nan is no whole number"),
        ("atMost: [{group: web}]", "None is no whole number"),
        ("resources: [{group: web, has: 1}]", "has no name"),
        ("resources: [{name: r, group: web, has: 1}, {name: r, group: web, has: 1}]", "'r' stands twice"),
        ("keepFree: [{model: H9, gpus: 1}]", "no node has the model 'H9'"),
        ("keepFree: [{gpus: 1}]", "names no model"),
        ("islands: [{group: train, nodes: {}, gpus: 3}]", "no islands of 3"),
        ("priorities: [{group: web, value: high}]", "'high' is no whole number"),
        ("priorities: [{group: web, value: 99999999999}]", "is no whole number that a priority class has"),
    ],
)
def test_rules_that_make_no_sense_are_one_clear_line(ask, rules, message):
    with pytest.raises(InputError, match=message) as caught:
        ask(rules)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("limit", ["0", "2"])
@pytest.mark.parametrize(
    "rules",
    [
        "{gangs: [{group: web}], spread: [{group: web, topology: zone}]}",
        "together: [{group: web, with: web, topology: node}]",
        "apart: [{group: web, from: train, topology: zone}]",
    ],
)
def test_without_nodes_all_pods_stay_out(ask, rules, limit):
    plan = ask(rules, nodes=NODES.splitlines()[0] + "\n", limit=limit, pods=PODS.replace("T4", ""))
    assert len(plan["unplaced"]) == 7
    assert plan["cost"] == plan["bound"] == 0


@pytest.mark.parametrize("limit", ["0", "2"])
def test_a_gang_larger_than_the_cluster_and_a_pod_larger_than_any_node(ask, limit):
    pods = PODS + "".join(f"g{i},1,1,4,1000,,huge\n" for i in range(5)) + "wide,1,1,9,1000,,odd\nsmall,1,1,1,10,,odd\n"
    plan = ask("gangs: [{group: huge}, {group: odd}]", pods=pods, limit=limit)
    assert sorted(plan["unplaced"]) == ["g0", "g1", "g2", "g3", "g4", "small", "wide"]
    assert 0 < plan["bound"] <= plan["cost"]
