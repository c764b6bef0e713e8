"""Drains of a cluster: the solver's where it is better, within the moves, and never against a pinned pod."""

import time
from decimal import Decimal

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.recommend.clusters import HOUR, cluster, first_fit, node, pod
from tests.unit.recommend.test_plan import CLUSTERS, HALF_EMPTY, built

from gpuwaste.packing.drain import drain
from gpuwaste.packing.drain_child import drain_in_child
from gpuwaste.packing.drain_verifier import drain_violations
from gpuwaste.recommend.drain import drain_nodes
from gpuwaste.recommend.instance import build_drain
from gpuwaste.recommend.plan import plan_for
from gpuwaste.recommend.scope import facts_at, scope_of


def in_process(question, *, time_limit_seconds):
    return drain(question, time_limit_seconds=time_limit_seconds, clock=time.monotonic)


def scope(facts):
    return scope_of(facts_at(facts, HOUR))


@settings(max_examples=20, deadline=None)
@given(CLUSTERS, st.integers(0, 8))
def test_no_more_moves_than_allowed_and_never_worse_than_greedy(description, moves):
    cut = scope(built(description))
    greedy = drain_nodes(cut, max_moves=moves)
    solved = drain_nodes(cut, max_moves=moves, drainer=in_process, time_limit_seconds=0.5)
    current = np.array([one.node for one in cut.pods], dtype=np.int64)
    for found in (greedy, solved):
        moved = found.target != current
        assert found.moves == int(moved.sum()) <= moves
        assert not set(found.released) & set(found.target.tolist())
        assert not any(one.pinned and moved[index] for index, one in enumerate(cut.pods))
        assert found.hourly == sum((cut.nodes[index].hourly for index in found.released), Decimal(0))
    assert greedy.hourly <= solved.hourly
    assert solved.hourly_at_most is None or solved.hourly <= solved.hourly_at_most


@settings(max_examples=20, deadline=None)
@given(CLUSTERS)
def test_the_question_is_the_cluster(description):
    cut = scope(built(description))
    question = build_drain(cut, max_moves=100)
    answer = in_process(question, time_limit_seconds=0)
    assert drain_violations(question, answer) == []
    unused = set(range(len(cut.nodes))) - {one.node for one in cut.pods}
    assert answer.current_cost == sum(
        (one.hourly for index, one in enumerate(cut.nodes) if index not in unused), Decimal(0)
    )


def test_a_plan_says_how_good_it_is_within_its_moves():
    facts = cluster(
        HALF_EMPTY, node("c"), [pod(f"r{i}", on="c") for i in range(3)], node("d"), [pod("s", on="d", gpus=8)]
    )
    plan = plan_for(
        facts,
        HOUR,
        solver=first_fit,
        now=lambda: HOUR,
        time_limit_seconds=1.0,
        drainer=in_process,
        max_moves=2,
    )
    assert plan.moves <= 2
    note = next(one for one in plan.refused if one.reason == "MoveBudget")
    assert note.message.startswith("at most 2 moves were allowed")
    other = plan_for(facts, HOUR, solver=first_fit, now=lambda: HOUR, time_limit_seconds=1.0, max_moves=0)
    assert other.id != plan.id
    assert other.moves == 0


def test_the_child_gives_the_same_answer():
    question = build_drain(scope(HALF_EMPTY), max_moves=5)
    here, there = in_process(question, time_limit_seconds=0), drain_in_child(question, time_limit_seconds=0)
    assert (here.released, here.waves, here.bound) == (there.released, there.waves, there.bound)
    assert here.final.pod_node.tolist() == there.final.pod_node.tolist()
