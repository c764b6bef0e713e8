"""Plans: no pod lost, no node overfull, never worse, and every figure follows from the others."""

import json
import time
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.recommend.clusters import HOUR, cluster, first_fit, node, pod

from gpuwaste.api.plan import PlanDocument
from gpuwaste.model.errors import InputError, InvariantError
from gpuwaste.model.facts import Fact, OwnerRef, ReservationData
from gpuwaste.packing.engine import solve
from gpuwaste.recommend.drain import drain_nodes
from gpuwaste.recommend.instance import build_instances
from gpuwaste.recommend.plan import ALL_POOLS, plan_for
from gpuwaste.recommend.scope import facts_at, scope_of

GOLDEN = Path(__file__).with_name("golden_plan.json")
JOB = OwnerRef(api_version="batch/v1", kind="Job", name="train", uid="uid-train")


def make(facts, **more):
    settings = {"solver": first_fit, "now": lambda: HOUR, "time_limit_seconds": 1.0, **more}
    return plan_for(facts, HOUR, **settings)


def reservation(count, *, term_end="2027-06-30"):
    data = ReservationData(name="bought", product="H100-80GB", count=count, term_end=term_end)
    return Fact(kind="reservation", uid="uid-r", valid_from=HOUR - timedelta(days=1), valid_to=None, data=data)


HALF_EMPTY = cluster(
    node("a"),
    node("b"),
    [pod(f"p{i}", on="a") for i in range(3)],
    [pod(f"q{i}", on="b") for i in range(2)],
)


def test_the_emptier_of_two_equal_nodes_is_drained_and_released():
    plan = make(HALF_EMPTY)
    drain, release = plan.actions
    assert (drain.type, drain.node_ref.name, drain.disruption.pods) == ("DrainNode", "b", 2)
    assert (release.type, release.reversible, release.depends_on) == ("ReleaseNode", "Irreversible", (drain.name,))
    assert plan.moves == 2
    assert (plan.objective.current, plan.objective.planned) == (Decimal("32.00"), Decimal("16.00"))
    assert plan.savings.cash_now == Decimal("16.00") * 730
    assert plan.savings.capacity_freed_gpu_hours is None


def test_the_golden_plan_stays_as_it_is():
    assert make(HALF_EMPTY).to_json() == json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_equal_inputs_give_equal_plans_in_any_order():
    first, second = make(HALF_EMPTY), make(list(reversed(HALF_EMPTY)), now=lambda: HOUR + timedelta(hours=1))
    assert first.model_copy(update={"created_time": second.created_time}) == second
    assert make([*HALF_EMPTY, pod("more", on="a")]).id != first.id


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([node("a"), node("b"), pod("p", on="a", gpus=8), pod("q", on="b", gpus=8)], id="full nodes"),
        pytest.param(
            [node("a", cpu=8000), node("b", cpu=8000), pod("p", on="a", cpu=5000), pod("q", on="b", cpu=5000)],
            id="CPU in the way",
        ),
        pytest.param(
            [node("a"), node("b"), pod("p", on="a", owner=None), pod("q", on="b", owner=None)], id="all pinned"
        ),
        pytest.param(
            [node("a"), node("b", labels={"topology.kubernetes.io/zone": "z"}), pod("p", on="a"), pod("q", on="b")],
            id="other zones",
        ),
        pytest.param(
            [node("a", replicas=4), node("b", replicas=2), pod("p", on="a"), pod("q", on="b")], id="other sharing"
        ),
    ],
)
def test_where_nothing_can_be_emptied_the_plan_is_empty_and_says_so(parts):
    plan = make(cluster(*parts))
    assert plan.actions == ()
    assert plan.moves == 0
    assert plan.objective.planned == plan.objective.current
    assert plan.refused[0].reason == "NothingToSave"


def test_pods_move_onto_a_pinned_node_but_its_own_stay():
    plan = make(cluster(node("a"), node("b"), pod("p", on="a", owner=None), [pod(f"q{i}", on="b") for i in range(3)]))
    assert [action.node_ref.name for action in plan.actions] == ["b", "b"]
    assert plan.objective.bound == plan.objective.planned == Decimal("16.00")


def test_a_node_without_gpu_pods_is_released_without_moves():
    plan = make(cluster(node("a"), node("b"), pod("p", on="a")))
    assert plan.moves == 0
    assert [action.disruption.pods for action in plan.actions] == [0, 0]


def test_evicting_batch_work_is_irreversible():
    plan = make(cluster(node("a"), node("b"), pod("p", on="a", gpus=2), pod("q", on="b", owner=JOB)))
    assert plan.actions[0].reversible == "Irreversible"


@pytest.mark.parametrize(
    ("count", "cash", "renews"),
    [
        pytest.param(8, Decimal(11680), False, id="one node's worth is bought, the other stops"),
        pytest.param(16, None, True, id="both are bought: nothing stops before the term ends"),
        pytest.param(9, None, True, id="fewer GPUs would be left than are bought"),
    ],
)
def test_bought_capacity_saves_no_cash_now(count, cash, renews):
    plan = make([*HALF_EMPTY, reservation(count)])
    release = plan.actions[1]
    assert release.savings.cash_now == cash
    assert bool(release.savings.cash_at_renewal) == renews
    assert (release.savings.capacity_freed_gpu_hours == 8 * 730) == renews
    assert plan.savings.cash_now == (cash or 0)


def test_a_committed_price_saves_no_cash_now():
    plan = make(cluster(node("a"), node("b", source="Reservation"), pod("p", on="a", gpus=2), pod("q", on="b")))
    assert plan.savings.cash_now in (Decimal(0), Decimal("16.00") * 730)
    by_node = {action.node_ref.name: action.savings for action in plan.actions if action.type == "ReleaseNode"}
    assert all((name == "b") == (savings.cash_now is None) for name, savings in by_node.items())


def test_several_pools_are_one_plan_under_a_name_that_says_so():
    other = node("c", labels={"karpenter.sh/nodepool": "batch"})
    assert make([*HALF_EMPTY, *other]).pool == ALL_POOLS
    assert make(HALF_EMPTY).pool.startswith("h100-80gb-default-")


def test_no_gpu_node_at_that_time_is_an_error_that_says_so():
    with pytest.raises(InputError, match="no GPU node is known"):
        make([])


def test_a_bound_above_the_plan_is_never_published():
    def boasting(instance, *, time_limit_seconds):
        answer = first_fit(instance, time_limit_seconds=time_limit_seconds)
        return replace(answer, bound=Decimal(1000))

    with pytest.raises(InvariantError, match="above the planned cost"):
        make(HALF_EMPTY, solver=boasting)


def test_what_only_a_full_repack_would_save_is_told():
    # Of 10 cores each: {6, 1}, {6, 1}, {4, 2}. Repacked as {6, 4} and {6, 2, 1, 1}, two nodes would do, but the 4 has
    # no room anywhere until a 1 leaves a node that stays.
    sizes = {"a": (6, 1), "b": (6, 1), "c": (4, 2)}
    facts = cluster(
        *(node(name, gpus=4, cpu=10_000) for name in sizes),
        [pod(f"{name}{cores}", on=name, cpu=1000 * cores) for name, all_cores in sizes.items() for cores in all_cores],
    )

    def packed(instance, *, time_limit_seconds):
        return solve(instance, time_limit_seconds=1.0, objective="cost", clock=time.monotonic)

    plan = make(facts, solver=packed)
    assert plan.objective.planned == plan.objective.current == Decimal("24.00")
    assert plan.objective.bound == Decimal("16.00")
    assert [one.reason for one in plan.refused] == ["NothingToSave", "NeedsSwaps"]
    assert "8.00 USD an hour less" in plan.refused[1].message


CLUSTERS = st.lists(
    st.tuples(
        st.sampled_from([(4, 1), (8, 1), (2, 4), (2, 7)]),
        st.sampled_from(["1.00", "2.50", "0.333333333333"]),
        st.lists(
            st.tuples(st.integers(0, 4), st.integers(0, 9000), st.sampled_from(["Deployment", "Job", None])),
            max_size=5,
        ),
    ),
    min_size=1,
    max_size=6,
)


def built(description):
    """A cluster whose pods fit where they are: what does not fit any more is left out."""
    parts = []
    for index, ((gpus, replicas), price, pods) in enumerate(description):
        name = f"n{index}"
        parts.append(node(name, gpus=gpus, replicas=replicas, price=price, cpu=16_000))
        units, cpu = gpus * replicas, 16_000
        for number, (wanted, milli, kind) in enumerate(pods):
            if wanted <= units and milli <= cpu:
                units, cpu = units - wanted, cpu - milli
                owner = kind and OwnerRef(api_version="v1", kind=kind, name=f"w{number}", uid=f"w{number}")
                parts.append(pod(f"{name}-p{number}", on=name, gpus=wanted, cpu=milli, owner=owner))
    return cluster(*parts)


@settings(max_examples=30, deadline=None)
@given(CLUSTERS)
def test_laws_of_every_plan(description):
    facts = built(description)
    scope = scope_of(facts_at(facts, HOUR))
    plan = make(facts)
    objective = plan.objective
    released = [action for action in plan.actions if action.type == "ReleaseNode"]
    hourly = {one.name: one.hourly for one in scope.nodes}
    assert not scope.refused or all(one.target.kind == "Pod" for one in scope.refused)
    assert objective.bound <= objective.planned <= objective.current == sum(hourly.values())
    assert objective.current - objective.planned == sum(hourly[one.node_ref.name] for one in released)
    assert plan.savings.cash_now == (objective.current - objective.planned) * 730
    assert plan.savings.cash_now == sum(one.savings.cash_now for one in released)
    assert sum(action.disruption.pods for action in plan.actions) <= plan.moves
    assert len({action.name for action in plan.actions}) == len(plan.actions)
    assert PlanDocument.model_validate(plan.to_json()) == plan


@settings(max_examples=30, deadline=None)
@given(CLUSTERS)
def test_laws_of_every_drain(description):
    scope = scope_of(facts_at(built(description), HOUR))
    drain = drain_nodes(scope)
    current = np.array([one.node for one in scope.pods], dtype=np.int64)
    moved = drain.target != current
    gone = set(drain.released)
    # No pod is lost, and none is on a released node.
    assert len(drain.target) == len(scope.pods)
    assert not gone & set(drain.target.tolist())
    # Only pods of released nodes move, and all of them do.
    assert set(current[moved].tolist()) <= gone
    assert all(moved[index] for index, one in enumerate(scope.pods) if one.node in gone)
    assert not any(one.pinned and moved[index] for index, one in enumerate(scope.pods))
    assert not any(scope.nodes[index].pinned for index in gone)
    for index, one in enumerate(scope.nodes):
        on_it = [other for place, other in enumerate(scope.pods) if drain.target[place] == index]
        assert sum(other.units for other in on_it) <= one.units
        assert sum(other.cpu_milli for other in on_it) <= one.cpu_milli
        assert sum(other.memory_mib for other in on_it) <= one.memory_mib
        assert all(scope.nodes[other.node].group == one.group for other in on_it)


@settings(max_examples=30, deadline=None)
@given(CLUSTERS)
def test_the_question_is_the_cluster_at_exact_prices(description):
    scope = scope_of(facts_at(built(description), HOUR))
    questions = build_instances(scope)
    assert sorted(index for question in questions for index in question.nodes) == list(range(len(scope.nodes)))
    assert sum(len(question.instance.pod_names) for question in questions) == len(scope.pods)
    for question in questions:
        instance = question.instance
        nodes = [scope.nodes[index] for index in question.nodes]
        for place, one in enumerate(nodes):
            cost = instance.prices[instance.node_model[place]] * int(instance.node_gpus[place])
            stays = one.pinned or (len(nodes) == 1 and instance.pod_names)
            assert cost == (0 if stays else one.hourly * question.scale)
        named = {f"{one.namespace}/{one.name}/{one.uid}": one for one in scope.pods}
        for place, name in enumerate(instance.pod_names):
            home = scope.nodes[named[name].node]
            allowed = instance.model_sets[instance.pod_model_set[place]][instance.node_model]
            wanted = [one == home if named[name].pinned else one.group == home.group for one in nodes]
            assert allowed.tolist() == wanted
            assert nodes[instance.current_node[place]] == home
