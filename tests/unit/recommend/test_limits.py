"""Scheduling rules of real pod specs, and disruption budgets, in plans and drains."""

import asyncio
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builders import make_node, make_pod
from tests.helpers import facts
from tests.unit.recommend.clusters import HOUR, cluster, first_fit, node, pod

from gpuwaste.cluster.kinds import POD_DISRUPTION_BUDGETS
from gpuwaste.cluster.memory import MemoryCluster
from gpuwaste.cluster.records import RecordRules, node_record, pod_record
from gpuwaste.model.facts import BudgetData, CordonData, Fact, OwnerRef, parse_fact
from gpuwaste.model.scheduling import Requirement, Selector, Toleration
from gpuwaste.packing.drain import drain
from gpuwaste.packing.drain_verifier import drain_violations
from gpuwaste.recommend.drain import drain_nodes
from gpuwaste.recommend.instance import build_drain
from gpuwaste.recommend.plan import plan_for
from gpuwaste.recommend.scope import facts_at, scope_of
from gpuwaste.runtime.disruption import budget_facts, read_budgets

RULES = RecordRules()
HOST, ZONE, RACK = "kubernetes.io/hostname", "topology.kubernetes.io/zone", "example.com/rack"
DAEMON_SET = OwnerRef(api_version="apps/v1", kind="DaemonSet", name="exporter", uid="uid-ds")


def spec_of(spec, labels=None):
    """What the record of a pod with such a spec says of its scheduling."""
    built = make_pod("p").namespace("team-a").labels(labels or {}).obj("uid-p")
    built["spec"].update(spec)
    return pod_record(built, RULES).data.scheduling


def ruled(name, *, on, spec=None, labels=None, **more):
    made = pod(name, on=on, **more)
    data = replace(made.data, labels=labels or {}, scheduling=spec_of(spec or {}, labels))
    return replace(made, data=data)


def host(name, *, labels=None, extended=None, taints=(), **more):
    first, *rest = node(name, **more)
    data = replace(first.data, labels={**first.data.labels, **(labels or {})}, extended=extended, taints=taints)
    return [replace(first, data=data), *rest]


def budget(name, allowed, **labels):
    data = BudgetData(namespace="team-a", name=name, selector=Selector(labels=labels), disruptions_allowed=allowed)
    return Fact(kind="budget", uid=f"uid-{name}", valid_from=facts.BEFORE, valid_to=None, data=data)


def scope(*parts):
    return scope_of(facts_at(cluster(*parts), HOUR))


def in_process(question, *, time_limit_seconds):
    return drain(question, time_limit_seconds=time_limit_seconds, clock=time.monotonic)


def solved(*parts):
    """(names of released nodes, pod -> node afterwards), the same by both ways to seek drains."""
    cut = scope(*parts)
    question = build_drain(cut, max_moves=100)
    answer = in_process(question, time_limit_seconds=0)
    assert drain_violations(question, answer) == []
    found = drain_nodes(cut)
    released = sorted(cut.nodes[index].name for index in found.released)
    where = {one.name: cut.nodes[at].name for one, at in zip(cut.pods, found.target.tolist(), strict=True)}
    return released, where


def term(topology, **labels):
    return {"labelSelector": {"matchLabels": labels}, "topologyKey": topology}


def required(kind, *terms):
    return {"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": list(terms)}}}


TWO = (host("a", labels={"disk": "ssd"}), host("b"))


def test_without_rules_the_pods_of_one_node_go_to_the_other():
    assert len(solved(*TWO, ruled("p", on="a"), ruled("q", on="b"))[0]) == 1


@pytest.mark.parametrize(
    ("spec", "labels"),
    [
        pytest.param({"nodeSelector": {"disk": "ssd"}}, {}, id="node selector"),
        pytest.param(
            required("nodeAffinity")
            | {
                "affinity": {
                    "nodeAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": {
                            "nodeSelectorTerms": [
                                {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}
                            ]
                        }
                    }
                }
            },
            {},
            id="node affinity",
        ),
        pytest.param(required("podAffinity", term(HOST, app="x")), {"app": "x"}, id="affinity on a node"),
        pytest.param(
            {
                "topologySpreadConstraints": [
                    {
                        "maxSkew": 1,
                        "topologyKey": HOST,
                        "whenUnsatisfiable": "DoNotSchedule",
                        "labelSelector": {"matchLabels": {"app": "x"}},
                    }
                ]
            },
            {"app": "x"},
            id="spread over nodes",
        ),
        pytest.param({"volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]}, {}, id="volume"),
    ],
)
def test_a_pod_that_may_only_be_on_its_node_stays(spec, labels):
    parts = (*TWO, ruled("p", on="a", spec=spec, labels=labels), ruled("q", on="b"))
    released, where = solved(*parts)
    assert where["p"] == "a"
    assert released in (["b"], [])


def test_why_a_pod_stays_is_said():
    held = {"volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]}
    parts = (*TWO, ruled("p", on="a", spec=held), ruled("q", on="b", labels={"app": "x"}), budget("none", 0, app="x"))
    plan = plan_for(cluster(*parts), HOUR, solver=first_fit, now=lambda: HOUR, time_limit_seconds=1.0)
    reasons = {one.target.name: one.reason for one in plan.refused if one.target.kind == "Pod"}
    assert reasons == {"p": "VolumeClaims", "q": "DisruptionBudget"}
    assert plan.actions == ()


def test_pods_that_keep_apart_never_meet():
    far = required("podAntiAffinity", term(HOST, app="x"))
    parts = [ruled(name, on=on, spec=far, labels={"app": "x"}) for name, on in (("p", "a"), ("q", "b"))]
    assert solved(*TWO, *parts)[0] == []
    loose = ruled("r", on="b", labels={"app": "y"})
    assert len(solved(*TWO, parts[0], loose)[0]) == 1
    meets = replace(loose, data=replace(loose.data, labels={"app": "x"}))
    assert solved(*TWO, parts[0], meets)[0] == []


def test_pods_that_meet_already_stay_and_the_plan_is_made():
    far = required("podAntiAffinity", term(HOST, app="x"))
    parts = [ruled(name, on="a", spec=far, labels={"app": "x"}) for name in ("p", "q")]
    plan = plan_for(cluster(*TWO, *parts), HOUR, solver=first_fit, now=lambda: HOUR, time_limit_seconds=1.0)
    assert {one.node_ref.name for one in plan.actions} == {"b"}


def test_anti_affinity_to_a_daemon_set_keeps_pods_off_its_nodes():
    far = required("podAntiAffinity", term(HOST, app="exporter"))
    carried = ruled("d", on="b", gpus=0, labels={"app": "exporter"}, owner=DAEMON_SET)
    released, where = solved(*TWO, ruled("p", on="a", spec=far), carried)
    assert where == {"p": "a"}
    assert released == ["b"]


@pytest.mark.parametrize(
    "spec",
    [
        required("podAffinity", term(RACK, app="x")),
        required("podAntiAffinity", term(RACK, app="x")),
        {
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": RACK,
                    "whenUnsatisfiable": "DoNotSchedule",
                    "labelSelector": {"matchLabels": {"app": "x"}},
                }
            ]
        },
    ],
    ids=["affinity", "anti-affinity", "spread"],
)
def test_what_a_rule_counts_stays_in_its_domain(spec):
    nodes = [host(name, labels={RACK: rack}) for name, rack in (("a", "1"), ("b", "2"), ("c", "2"))]
    pods = [
        ruled("asks", on="a", spec=spec, labels={"app": "z"}),
        ruled("named", on="b", labels={"app": "x"}),
        ruled("other", on="c"),
    ]
    _, where = solved(*nodes, *pods)
    assert where["asks"] == "a"
    assert where["named"] in ("b", "c")


def test_soft_rules_hold_nothing_back():
    soft = {
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": HOST, "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {}}
        ],
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
    }
    assert spec_of(soft) is None


@pytest.mark.parametrize(
    ("extended", "spec"),
    [
        ({"pods": 2, "rdma/ib": 4}, {}),
        ({"pods": 110, "rdma/ib": 1}, {"rdma/ib": "1"}),
        ({"pods": 110, "hugepages-2Mi": 2**21}, {"hugepages-2Mi": "2Mi"}),
    ],
    ids=["places for pods", "devices", "hugepages"],
)
def test_room_for_everything_a_pod_asks_for_is_needed(extended, spec):
    asks = {"containers": [{"name": "main", "resources": {"requests": spec}}]}
    nodes = [host(name, extended=extended) for name in ("a", "b")]
    pods = [ruled(name, on=on, spec=asks) for name, on in (("p", "a"), ("q", "b"))]
    carried = [ruled(f"d-{on}", on=on, gpus=0, owner=DAEMON_SET) for on in ("a", "b")]
    assert solved(*nodes, *pods, *carried)[0] == []
    roomy = [host(name, extended={name_: 4 * amount for name_, amount in extended.items()}) for name in ("a", "b")]
    assert len(solved(*roomy, *pods, *carried)[0]) == 1


def test_a_host_port_is_on_a_node_once():
    port = {"containers": [{"name": "main", "ports": [{"containerPort": 80, "hostPort": 8080}]}]}
    pods = [ruled(name, on=on, spec=port) for name, on in (("p", "a"), ("q", "b"))]
    assert solved(*TWO, *pods)[0] == []


def test_no_pod_is_planned_onto_a_cordoned_node():
    cordon = Fact(kind="cordon", uid="uid-b", valid_from=facts.BEFORE, valid_to=None, data=CordonData(node="b"))
    released, where = solved(*TWO, ruled("p", on="a"), ruled("q", on="b"), cordon)
    assert where["p"] == "a"
    assert released in (["b"], [])


def test_a_pod_of_two_budgets_stays_and_one_of_a_roomy_budget_moves():
    pods = [ruled("p", on="a", labels={"app": "x"}), ruled("q", on="b")]
    assert len(solved(*TWO, *pods, budget("one", 1, app="x"))[0]) == 1
    two = scope(*TWO, *pods, budget("one", 1, app="x"), budget("two", 1, app="x"))
    assert [one.reason for one in two.refused] == ["SeveralBudgets"]


def test_no_wave_of_a_drain_takes_more_pods_of_a_budget_than_it_allows():
    pods = [ruled(f"p{i}", on="a", labels={"app": "x"}) for i in range(3)]
    cut = scope(host("a", price="4.00"), host("b"), *pods, ruled("q", on="b", gpus=4), budget("one", 1, app="x"))
    question = build_drain(cut, max_moves=10)
    answer = in_process(question, time_limit_seconds=0)
    assert drain_violations(question, answer) == []
    assert [len(wave) for wave in answer.waves if any(move.source == 0 for move in wave)] in ([1, 1, 1], [])
    assert question.budgets[0].allowed == 1


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["", "far", "rack", "port"]), st.sampled_from(["x", "y"])),
        max_size=7,
    )
)
def test_no_plan_breaks_a_rule_whatever_the_cluster(rows):
    specs = {
        "": {},
        "far": required("podAntiAffinity", term(HOST, app="x")),
        "rack": required("podAffinity", term(RACK, app="x")),
        "port": {"containers": [{"name": "main", "ports": [{"hostPort": 1}]}]},
    }
    names = "abcd"
    nodes = [host(name, labels={RACK: str(i // 2)}) for i, name in enumerate(names)]
    pods = [
        ruled(f"p{i}", on=names[at], spec=specs[kind], labels={"app": app}) for i, (at, kind, app) in enumerate(rows)
    ]
    cut = scope(*nodes, *pods)
    question = build_drain(cut, max_moves=100)
    solver = in_process(question, time_limit_seconds=0)
    assert drain_violations(question, solver) == []
    by_name = {f"p{i}": row for i, row in enumerate(rows)}
    before = {one.name: cut.nodes[one.node].name for one in cut.pods}
    for target in (drain_nodes(cut).target, solver.final.pod_node):
        after = {one.name: cut.nodes[at].name for one, at in zip(cut.pods, np.asarray(target).tolist(), strict=True)}
        moved = {name for name in after if after[name] != before[name]}
        for name in moved:
            _, kind, app = by_name[name]
            beside = [by_name[other] for other in after if other != name and after[other] == after[name]]
            assert not (kind == "far" and any(other[2] == "x" for other in beside))
            assert not (app == "x" and any(other[1] == "far" for other in beside))
            assert not (kind == "port" and any(other[1] == "port" for other in beside))
            if kind == "rack" or (app == "x" and any(row[1] == "rack" for row in rows)):
                assert names.index(after[name]) // 2 == names.index(before[name]) // 2
    plan = plan_for(cluster(*nodes, *pods), HOUR, solver=first_fit, now=lambda: HOUR, time_limit_seconds=1.0)
    assert plan.objective.bound <= plan.objective.planned


def test_facts_of_rules_and_budgets_are_stored_and_read_back():
    spec = {
        **required("podAntiAffinity", {**term(ZONE, app="x"), "namespaces": ["other"]}),
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
    }
    made = ruled("p", on="a", spec=spec, labels={"app": "x"})
    told = [made, budget("one", 1, app="x"), host("a", extended={"pods": 110})[0]]
    told.append(Fact(kind="cordon", uid="u", valid_from=facts.BEFORE, valid_to=None, data=CordonData(node="a")))
    for fact in told:
        assert parse_fact(fact.to_json(), where="here") == fact
    assert "scheduling" not in pod("q", on="a").to_json()
    assert "extended" not in node("a")[0].to_json()


def test_a_budget_that_its_controller_has_not_seen_allows_nothing():
    body = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "b", "namespace": "team-a", "generation": 2},
        "spec": {"selector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}, "minAvailable": 1},
        "status": {"disruptionsAllowed": 2, "observedGeneration": 1, "currentHealthy": 3},
    }
    body["metadata"] |= {"uid": "u", "creationTimestamp": "2026-11-01T00:00:00Z"}
    api = MemoryCluster(now=lambda: HOUR)
    assert api.objects(POD_DISRUPTION_BUDGETS) == []
    assert budget_facts(asyncio.run(read_budgets(api))) == []
    (fact,) = budget_facts([body])
    assert fact.data.disruptions_allowed == 0
    assert fact.data.selector.matches({"app": "x"})
    assert not fact.data.selector.matches({})


@pytest.mark.parametrize(
    ("requirement", "labels", "holds"),
    [
        (Requirement(key="a", operator="In", values=("1",)), {"a": "1"}, True),
        (Requirement(key="a", operator="In", values=("1",)), {}, False),
        (Requirement(key="a", operator="NotIn", values=("1",)), {}, True),
        (Requirement(key="a", operator="Exists"), {"a": ""}, True),
        (Requirement(key="a", operator="DoesNotExist"), {}, True),
        (Requirement(key="a", operator="Gt", values=("3",)), {"a": "4"}, True),
        (Requirement(key="a", operator="Lt", values=("3",)), {"a": "4"}, False),
        (Requirement(key="a", operator="Gt", values=("3",)), {"a": "x"}, False),
        (Requirement(key="a", operator="Near", values=("3",)), {"a": "3"}, False),
    ],
)
def test_requirements_on_labels(requirement, labels, holds):
    assert requirement.holds(labels) == holds


@pytest.mark.parametrize(
    ("toleration", "holds"),
    [
        (Toleration(operator="Exists"), True),
        (Toleration(key="gpu", operator="Exists"), True),
        (Toleration(key="gpu", value="yes"), True),
        (Toleration(key="gpu", value="no"), False),
        (Toleration(key="gpu", operator="Exists", effect="NoExecute"), False),
        (Toleration(key="cpu", operator="Exists"), False),
    ],
)
def test_tolerations(toleration, holds):
    assert toleration.tolerates("gpu", "yes", "NoSchedule") == holds


def test_a_node_tells_places_for_pods_and_devices_but_no_gpus():
    raw = make_node("n").gpu(8).amount(pods="110", cpu="8").obj()
    raw["status"]["capacity"]["rdma/ib"] = "8"
    raw["status"]["allocatable"] = {**raw["status"]["capacity"], "rdma/ib": "0"}
    assert node_record(raw, RULES).data.extended == {"pods": 110, "rdma/ib": 8}
