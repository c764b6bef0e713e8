"""Gangs, spread, affinity and anti-affinity over zones, against every placement of tiny questions."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.packing.questions import Ticker, make_instance
from tests.unit.packing.rule_oracles import best_by_force

from gpuwaste.model.errors import InputError
from gpuwaste.packing.arrow_files import read_instance_file, write_instance
from gpuwaste.packing.engine import solve
from gpuwaste.packing.group_rules import Apart, Gang, Spread, Together
from gpuwaste.packing.verifier import violations

NODES = [("a", 8000, 32, 1, "T4"), ("b", 8000, 32, 2, "T4"), ("c", 8000, 32, 1, "A10"), ("d", 8000, 32, 1, "A10")]
ZONE = np.array([0, 0, 1, 2])
PRICES = {"T4": "0.35", "A10": "0.8"}
ROOM = [1000, 2000, 1000, 1000]


def question(sizes, rules, *, priority=None, current=None):
    pods = [(f"p{i}", 1000, 4, 1, size, "") for i, size in enumerate(sizes)]
    instance = make_instance(pods, NODES, prices=PRICES, current=current)
    return replace(instance, group_rules=tuple(rules), pod_priority=priority)


def answered(instance, limit=60):
    answer = solve(instance, time_limit_seconds=limit, objective="cost", clock=Ticker())
    assert violations(instance, answer) == []
    return answer


def on_nodes(answer):
    return [None if node < 0 else NODES[node][0] for node in answer.placement.pod_node.tolist()]


pods_of = st.lists(st.integers(0, 4), min_size=1, max_size=4, unique=True).map(tuple)
zones = st.sampled_from([ZONE, np.array([0, 1, 1, 0]), np.array([0, 1, -1, 2])])
rules = st.one_of(
    st.builds(Gang, name=st.just("gang"), pods=pods_of),
    st.builds(
        Spread,
        name=st.just("spread"),
        pods=pods_of,
        domain=zones,
        max_skew=st.integers(1, 2),
        min_domains=st.sampled_from([1, 4]),
    ),
    st.builds(Together, name=st.just("near"), pods=pods_of, anchors=pods_of, domain=zones),
    st.builds(Apart, name=st.just("far"), pods=pods_of, others=pods_of, domain=zones),
)


def fits(instance):
    def one_node(pods, node):
        shares = sorted((int(instance.pod_gpu_milli[pod]) for pod in pods), reverse=True)
        gpus = [1000] * (ROOM[node] // 1000)
        for share in shares:
            able = [i for i, free in enumerate(gpus) if free >= share]
            if not able:
                return False
            gpus[able[0]] -= share
        return True

    return one_node


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.sampled_from([500, 1000]), min_size=5, max_size=5),
    st.lists(rules, min_size=1, max_size=2),
    st.sampled_from([None, np.array([0, 0, 1, 1, 2])]),
    st.sampled_from([0, 60]),
)
def test_no_rule_is_broken_and_the_bound_holds(sizes, some, priority, limit):
    instance = question(sizes, some, priority=priority)
    answer = answered(instance, limit=limit)
    left, cost = best_by_force(instance, fits(instance))
    told = (list(instance.left_out(answer.placement.pod_node < 0)), round(float(answer.cost), 6))
    assert told >= (left, cost)
    assert float(answer.bound) <= cost + 1e-9


SIZES = [1000, 1000, 1000, 1000]


def test_a_gang_runs_as_a_whole_or_not_at_all():
    gangs = [Gang(name="large", pods=(0, 1, 2)), Gang(name="small", pods=(3, 4, 5))]
    answer = answered(question([1000] * 6, gangs))
    placed = answer.placement.pod_node >= 0
    assert sorted([placed[:3].sum(), placed[3:].sum()]) == [0, 3]


def test_a_gang_larger_than_the_cluster_stays_out_and_others_run():
    answer = answered(question([1000] * 7, [Gang(name="huge", pods=(0, 1, 2, 3, 4, 5))]))
    assert (answer.placement.pod_node >= 0).tolist() == [False] * 6 + [True]
    assert 0 < answer.bound <= answer.cost


def test_a_spread_goes_to_zones_that_cost_more():
    rule = Spread(name="web", pods=(0, 1, 2), domain=ZONE, max_skew=1)
    answer = answered(question([500] * 3, [rule]))
    zone = ZONE[answer.placement.pod_node].tolist()
    assert sorted(zone) == [0, 1, 2]
    assert answer.bound < answer.cost


def test_fewer_zones_than_asked_for_take_the_skew_each():
    rule = Spread(name="web", pods=(0, 1, 2, 3), domain=ZONE, max_skew=1, min_domains=4)
    answer = answered(question(SIZES, [rule]))
    assert answer.unplaced_pods == 1


def test_pods_that_want_one_another_are_in_one_zone():
    rule = Together(name="cache", pods=(0, 1, 2), anchors=(0, 1, 2), domain=np.array([0, 1, 1, 0]))
    answer = answered(question([1000] * 3, [rule]))
    assert answer.unplaced_pods == 0
    assert len({rule.domain[node] for node in answer.placement.pod_node.tolist()}) == 1


def test_pods_go_where_their_anchor_is():
    rule = Together(name="cache", pods=(0,), anchors=(1,), domain=ZONE)
    instance = question([500, 500], [rule])
    a10 = replace(instance, model_sets=np.array([[True, True], [False, True]]), pod_model_set=np.array([0, 1]))
    zone = ZONE[answered(a10).placement.pod_node].tolist()
    assert zone[0] == zone[1] != 0


def test_pods_that_wait_for_each_other_stay_out():
    waits = [Together(name=f"{a} for {b}", pods=(a,), anchors=(b,), domain=ZONE) for a, b in ((0, 1), (1, 0))]
    answer = answered(question([500, 500, 500], waits))
    assert on_nodes(answer)[:2] == [None, None]
    assert on_nodes(answer)[2] is not None


def test_rules_that_contradict_leave_their_pods_out():
    rules = [
        Together(name="near", pods=(0,), anchors=(1,), domain=ZONE),
        Apart(name="far", pods=(0,), others=(1,), domain=ZONE),
    ]
    answer = answered(question([500, 500], rules))
    assert answer.unplaced_pods == 1


def test_zones_are_parted():
    rule = Apart(name="far", pods=(0, 1), others=(2, 3), domain=ZONE)
    answer = answered(question([500] * 4, [rule]))
    zone = ZONE[answer.placement.pod_node].tolist()
    assert answer.unplaced_pods == 0
    assert not {*zone[:2]} & {*zone[2:]}


def test_a_current_placement_that_breaks_no_rule_is_never_left_for_a_worse_one():
    rule = Spread(name="web", pods=(0, 1, 2), domain=ZONE, max_skew=1)
    answer = answered(question([500] * 3, [rule], current=np.array([0, 2, 3])), limit=0)
    assert answer.placement.pod_node.tolist() == [0, 2, 3]


def test_rules_pass_through_a_file(tmp_path):
    some = [
        Gang(name="gang", pods=(0, 1)),
        Spread(name="spread", pods=(0,), domain=ZONE, max_skew=2, min_domains=3),
        Together(name="near", pods=(0,), anchors=(1,), domain=ZONE),
        Apart(name="far", pods=(0,), others=(1,), domain=ZONE),
    ]
    instance = question([500, 500], some, priority=np.array([3, -1]))
    instance = replace(instance, pod_island=np.array([True, False]), node_island_gpus=np.array([0, 1, 1, 0]))
    write_instance(tmp_path / "q", instance)
    again = read_instance_file(tmp_path / "q")
    assert [type(rule) for rule in again.group_rules] == [Gang, Spread, Together, Apart]
    assert again.group_rules[1].domain.tolist() == ZONE.tolist()
    assert again.group_rules[1].max_skew == 2
    assert again.group_rules[2].anchors == (1,)
    assert again.pod_priority.tolist() == [3, -1]
    assert again.pod_island.tolist() == [True, False]
    assert again.node_island_gpus.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("rule", "node", "message"),
    [
        (Gang(name="g", pods=(0, 1)), [0, -1, -1], "only 1 of 2 pods of gang g"),
        (Spread(name="s", pods=(0, 1, 2), domain=ZONE, max_skew=1), [0, 1, 2], "s: 2 pods in one domain and 0"),
        (Spread(name="s", pods=(0,), domain=np.array([-1, 0, 0, 0]), max_skew=1), [0, 1, 2], "without a domain of s"),
        (Spread(name="s", pods=(0, 1, 2), domain=ZONE, max_skew=1, min_domains=4), [0, 1, 2], "2 pods in one domain"),
        (Together(name="t", pods=(0,), anchors=(1,), domain=ZONE), [0, 2, 3], "t: pod p0 is in no domain"),
        (Together(name="t", pods=(0,), anchors=(1,), domain=ZONE), [0, -1, 3], "t: pod p0 is in no domain"),
        (Together(name="t", pods=(0, 1), anchors=(0, 1), domain=ZONE), [0, 2, 3], "t: pod p1 is in no domain"),
        (Apart(name="a", pods=(0,), others=(1,), domain=ZONE), [0, 1, 3], "a: pod p0 is in a domain with pods"),
        (Apart(name="a", pods=(0, 1), others=(0, 1), domain=ZONE), [0, 1, 3], "a: pod p0 is in a domain with pods"),
    ],
)
def test_each_broken_rule_is_found(rule, node, message):
    instance = question([500] * 3, [])
    answer = answered(instance)
    sets = answer.placement.gpu_sets
    placement = replace(
        answer.placement,
        pod_node=np.array(node),
        pod_gpu_set=np.array([sets.index((0,)) if one >= 0 else sets.index(()) for one in node]),
    )
    found = violations(replace(instance, group_rules=(rule,)), replace(answer, placement=placement))
    assert any(message in line for line in found)
    assert not any(message in line for line in violations(instance, replace(answer, placement=placement)))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Gang(name="g", pods=(9,)), "rule g: names a pod"),
        (Apart(name="a", pods=(0,), others=(7,), domain=ZONE), "rule a: names a pod"),
        (Together(name="t", pods=(0,), anchors=(-1,), domain=ZONE), "rule t: names a pod"),
        (Spread(name="s", pods=(0,), domain=ZONE[:2], max_skew=1), "rule s: has no domain"),
        (Spread(name="s", pods=(0,), domain=ZONE, max_skew=0), "rule s: maxSkew"),
    ],
)
def test_rules_that_fit_to_no_question_are_refused(rule, message):
    with pytest.raises(InputError, match=message):
        question([500], [rule])
