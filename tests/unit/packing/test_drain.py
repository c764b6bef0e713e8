"""Drains: exact steps, a bound that holds against every other drain, and never more moves than allowed."""

import itertools
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.packing.drains import make_drain, random_drain
from tests.unit.packing.questions import Ticker

from gpuwaste.model.errors import InputError, InvariantError
from gpuwaste.packing.answer import Placement
from gpuwaste.packing.drain import drain
from gpuwaste.packing.drain_question import DisruptionBudget, Move
from gpuwaste.packing.drain_verifier import check_drain, drain_violations
from gpuwaste.packing.free_room import FreeRoom

NODES = [("a", 10, 100, 2, "T4"), ("b", 10, 100, 2, "T4"), ("c", 10, 100, 2, "A10")]
PODS = [
    ("p0", 2, 10, 1, 400, "", "a", [0]),
    ("p1", 2, 10, 1, 400, "", "b", [0]),
    ("p2", 2, 10, 1, 400, "", "b", [1]),
    ("p3", 2, 10, 1, 500, "", "c", [0]),
]


def solved(question, seconds=5.0):
    return drain(question, time_limit_seconds=seconds, clock=Ticker(1e-4))


def test_the_dearest_nodes_go_first_and_what_is_left_has_room():
    answer = solved(make_drain(PODS, NODES, prices={"T4": 1, "A10": 3}))
    assert (answer.current_cost, answer.planned_cost, answer.bound) == (10, 2, 2)
    assert len(answer.released) == 2
    assert answer.released[0] == 2
    assert answer.moves in (2, 3)


@pytest.mark.parametrize(("moves", "saved"), [(0, 0), (1, 6), (2, 8), (3, 8)])
def test_the_budget_is_kept(moves, saved):
    answer = solved(make_drain(PODS, NODES, prices={"T4": 1, "A10": 3}, moves=moves))
    assert answer.moves <= moves
    assert answer.saved == answer.saved_at_most == saved


def replacement(*, opens, **more):
    nodes = [("dear", 10, 100, 2, "A10"), ("idle", 10, 100, 2, "T4"), ("idle2", 10, 100, 2, "A10")]
    pods = [("p", 2, 2, 2, 0, "", "dear", [0, 1])]
    return make_drain(pods, nodes, prices={"T4": 1, "A10": 3}, opens=opens, **more)


def test_a_dear_node_is_emptied_onto_a_cheap_one_where_nodes_may_be_opened():
    answer = solved(replacement(opens=True))
    assert (answer.released, answer.opened, answer.saved) == ((0,), (1,), Decimal(4))


def test_a_node_that_must_be_kept_and_that_nothing_is_on_is_opened_like_others():
    answer = solved(replacement(opens=True, keep=("idle",)))
    assert (answer.released, answer.opened, answer.saved) == ((0,), (1,), Decimal(4))


@pytest.mark.parametrize("seconds", [0.0, 5.0])
@pytest.mark.parametrize("keep", [None, ("idle",)])
def test_no_node_is_opened_unless_it_is_asked_for_and_the_bound_knows_it(seconds, keep):
    answer = solved(replacement(opens=False, keep=keep), seconds)
    assert (answer.released, answer.opened, answer.saved) == ((), (), 0)
    assert answer.saved_at_most == (0 if seconds else 6)  # without a search only the moves set the bound


def test_gpu_places_are_exact():
    # 2 x 600 free on b, but on two GPUs: a 700 has no room although 1200 are free.
    nodes = NODES[:2]
    pods = [("p0", 1, 1, 1, 700, "", "a", [0]), ("p1", 1, 1, 1, 400, "", "b", [0]), ("p2", 1, 1, 1, 400, "", "b", [1])]
    answer = solved(make_drain([*pods, ("p3", 9, 1, 0, 0, "", "a", [])], nodes))
    assert answer.released == ()
    assert answer.bound == answer.planned_cost == 4


@pytest.mark.parametrize(
    ("more", "released"),
    [
        pytest.param({}, (0,), id="free to move"),
        pytest.param({"stuck": ("p0",)}, (), id="pinned"),
        pytest.param({"keep": ("a",)}, (), id="the node must be kept"),
        pytest.param({"budgets": [DisruptionBudget(name="x", pods=(0,), allowed=0)]}, (), id="budget of none"),
        pytest.param(
            {"budgets": [DisruptionBudget(name=name, pods=(0,), allowed=5) for name in "xy"]}, (), id="two budgets"
        ),
    ],
)
def test_what_may_not_move_stays(more, released):
    pods = [PODS[0], ("p1", 9, 10, 1, 400, "", "b", [0])]
    nodes = [NODES[0], ("b", 20, 100, 2, "T4")]
    question = make_drain(pods, nodes, **({"keep": ("b",)} | more if "keep" not in more else {"keep": ("a", "b")}))
    assert solved(question).released == released


def test_waves_keep_disruption_budgets():
    pods = [(f"p{i}", 1, 1, 0, 0, "", "a", []) for i in range(7)] + [("q", 1, 1, 0, 0, "", "b", [])]
    budget = DisruptionBudget(name="web", pods=(0, 1, 2, 3, 4), allowed=2)
    answer = solved(make_drain(pods, [("a", 9, 9, 0, ""), ("b", 9, 9, 0, "")], budgets=[budget], keep=("b",)))
    assert answer.released == ()  # nodes without GPUs cost nothing: nothing to save
    priced = [("a", 9, 9, 1, "T4"), ("b", 9, 9, 1, "T4")]
    answer = solved(make_drain(pods, priced, budgets=[budget], keep=("b",)))
    assert answer.released == (0,)
    assert len(answer.waves) == 3
    assert all(sum(move.pod < 5 for move in wave) <= 2 for wave in answer.waves)


def best_by_hand(question):
    """The most any direct drain saves, by trying every set of nodes and every place of every pod."""
    on = {n: np.flatnonzero(question.current.pod_node == n).tolist() for n in range(len(question.node_cost))}
    can = np.flatnonzero(question.releasable()).tolist()
    empty = [n for n, pods in on.items() if not pods]
    idle = empty if question.open_nodes else []
    best = Decimal(0)
    for count in range(1, len(can) + 1):
        for gone in itertools.combinations(can, count):
            pods = [pod for node in gone for pod in on[node]]
            if len(pods) <= question.max_moves:
                kept = [n for n in on if n not in gone and n not in empty]
                gain = sum(question.node_cost[n] for n in gone)
                best = max(
                    best, gain - cheapest(question, FreeRoom(question.instance, question.current), pods, kept, idle)
                )
    return best


def cheapest(question, room, pods, kept, idle):
    """The least price of idle nodes opened for the pods; infinite if they fit nowhere."""
    if not pods:
        return Decimal(0)
    pod, rest = pods[0], pods[1:]
    instance, least = question.instance, Decimal("Infinity")
    one = int(instance.pod_gpus[pod]) == 1
    for node in [*kept, *idle]:
        if not room.able(pod, np.array([node]))[0]:
            continue
        need = int(instance.pod_gpu_milli[pod]) if one else 1000
        able = [g for g in range(int(instance.node_gpus[node])) if room.gpu[node, g] >= need]
        for gpus in itertools.combinations(able, int(instance.pod_gpus[pod])):
            room.take(pod, (node, gpus))
            opened = node in idle
            more = question.node_cost[node] if opened else Decimal(0)
            new_kept, new_idle = ([*kept, node], [n for n in idle if n != node]) if opened else (kept, idle)
            least = min(least, more + cheapest(question, room, rest, new_kept, new_idle))
            room.give(pod, (node, gpus))
    return least


def test_equal_questions_have_equal_answers():
    first, second = (solved(random_drain(3, pods=40, nodes=14, moves=12)) for _ in range(2))
    assert (first.waves, first.bound, first.released) == (second.waves, second.bound, second.released)


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 5), st.booleans())
def test_no_drain_saves_more_than_the_bound(seed, moves, opens):
    question = random_drain(seed, pods=8, nodes=4, moves=moves, opens=opens)
    answer = solved(question)
    most = best_by_hand(question)
    assert answer.saved <= most <= answer.saved_at_most
    assert drain_violations(question, answer) == []


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_laws_of_larger_drains(seed, opens):
    question = random_drain(seed, pods=40, nodes=14, moves=12, opens=opens)
    answer = solved(question)
    assert drain_violations(question, answer) == []
    assert answer.bound <= answer.planned_cost <= answer.current_cost
    assert opens or not answer.opened
    at_once = drain(question, time_limit_seconds=0, clock=Ticker())
    assert at_once.saved <= answer.saved_at_most <= at_once.saved_at_most


def test_requests_that_all_differ_are_grouped_and_the_bound_still_holds():
    random = np.random.default_rng(5)
    nodes = [(f"n{i}", 100_000, 100_000, 4, "T4") for i in range(120)]
    pods = [
        (
            f"p{i}",
            int(random.integers(1, 9000)),
            int(random.integers(1, 9000)),
            1,
            int(random.integers(1, 900)),
            "",
            f"n{i % 120}",
            [i // 120],
        )
        for i in range(480)
    ]
    answer = drain(make_drain(pods, nodes, moves=60), time_limit_seconds=2, clock=Ticker(1e-4))
    assert answer.part_of_bound > 0.9


def right():
    question = make_drain(PODS, NODES, prices={"T4": 1, "A10": 3}, moves=1)
    return question, solved(question)


def moved(answer, **changes):
    wave = answer.waves[0]
    return replace(answer, waves=((replace(wave[0], **changes), *wave[1:]), *answer.waves[1:]))


def test_the_right_answer_is_accepted():
    assert drain_violations(*right()) == []


WRONG = {
    "too many moves": (lambda q, a: (replace(q, max_moves=0), a), "more than the 0 allowed"),
    "unknown node": (lambda q, a: (q, replace(a, released=(9,))), "does not exist"),
    "released twice": (lambda q, a: (q, replace(a, released=(2, 2))), "released twice"),
    "not emptied": (lambda q, a: (q, replace(a, released=(2, 0))), "released and not empty"),
    "kept node": (lambda q, a: (replace(q, keep=np.array([False, False, True])), a), "must be kept"),
    "pod pinned": (lambda q, a: (replace(q, movable=np.zeros(4, dtype=bool)), a), "may not move"),
    "two budgets": (
        lambda q, a: (replace(q, budgets=tuple(DisruptionBudget(name=n, pods=(3,), allowed=1) for n in "xy")), a),
        "two disruption budgets",
    ),
    "budget broken": (
        lambda q, a: (replace(q, budgets=(DisruptionBudget(name="x", pods=(3,), allowed=0),)), a),
        "are away, 0 may be",
    ),
    "unknown pod": (lambda q, a: (q, moved(a, pod=17)), "pod 17 does not exist"),
    "not where it is said": (lambda q, a: (q, moved(a, source=1)), "is not on node b"),
    "unknown target": (lambda q, a: (q, moved(a, target=8)), "goes to a node that does not exist"),
    "target is released": (lambda q, a: (q, moved(a, target=2)), "which is released"),
    "wrong number of GPUs": (lambda q, a: (q, moved(a, gpus=())), "another number of GPUs"),
    "GPU named twice": (lambda q, a: (q, moved(a, gpus=(0, 0))), "another number of GPUs"),
    "GPU that is not there": (lambda q, a: (q, moved(a, gpus=(2,))), "a GPU that its node does not have"),
    "moves twice": (lambda q, a: (replace(q, max_moves=9), replace(a, waves=a.waves * 2)), "moves more than once"),
    "pod of a node that stays": (
        lambda q, a: (
            replace(q, max_moves=9),
            replace(a, waves=(*a.waves, (Move(pod=0, source=0, target=1, gpus=(0,)),))),
        ),
        "leaves node a, which stays",
    ),
    "final elsewhere": (lambda q, a: (q, replace(a, final=q.current)), "ends elsewhere"),
    "final too short": (
        lambda q, a: (
            q,
            replace(a, final=Placement(pod_node=np.zeros(1, int), pod_gpu_set=np.zeros(1, int), gpu_sets=((),))),
        ),
        "does not speak of every pod",
    ),
    "opened not told": (lambda q, a: (q, replace(a, opened=(0,))), "the opened nodes are not"),
    "wrong current cost": (lambda q, a: (q, replace(a, current_cost=Decimal(11))), "current cost is 11"),
    "wrong planned cost": (lambda q, a: (q, replace(a, planned_cost=Decimal(3))), "planned cost is 3"),
    "bound too high": (lambda q, a: (q, replace(a, bound=Decimal(5))), "bound 5 is above"),
    "no CPU": (lambda q, a: (with_(q, node_cpu=[4, 5, 10]), a), "less CPU"),
    "no memory": (lambda q, a: (with_(q, node_memory=[19, 29, 100]), a), "less memory"),
    "GPU overfull": (lambda q, a: (with_(q, pod_gpu_milli=[600, 600, 600, 500]), a), "more than 1000 milli"),
    "model": (lambda q, a: (with_(q, model_sets=[[False, True]]), a), "a GPU model it may not use"),
}


def with_(question, **arrays):
    changed = {name: np.array(values) for name, values in arrays.items()}
    return replace(question, instance=replace(question.instance, **changed))


@pytest.mark.parametrize("name", WRONG)
def test_every_way_to_be_wrong_is_found(name):
    change, part = WRONG[name]
    question, answer = change(*right())
    assert any(part in one for one in drain_violations(question, answer)), drain_violations(question, answer)
    with pytest.raises(InvariantError, match="was not written"):
        check_drain(question, answer)


def test_a_node_that_may_not_be_opened_is_found():
    question = replacement(opens=True)
    answer = solved(question)
    found = drain_violations(replace(question, open_nodes=False), answer)
    assert found == ["node idle comes into use, and no node may be opened"]


def test_a_wave_may_not_use_room_that_it_only_frees_itself():
    question = make_drain(
        [("p", 6, 1, 0, 0, "", "a", []), ("q", 6, 1, 0, 0, "", "b", [])], [("a", 10, 9, 1, "T4"), ("b", 10, 9, 1, "T4")]
    )
    answer = solved(question)
    swap = (Move(pod=0, source=0, target=1, gpus=()), Move(pod=1, source=1, target=0, gpus=()))
    found = drain_violations(question, replace(answer, waves=(swap,)))
    assert any("less CPU" in one for one in found)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"max_moves": -1}, "negative"),
        ({"movable": np.ones(2, dtype=bool)}, "2 elements"),
        ({"node_cost": ()}, "0 elements"),
        ({"budgets": (DisruptionBudget(name="x", pods=(0,), allowed=-1),)}, "negative"),
    ],
)
def test_senseless_questions_are_refused(change, part):
    with pytest.raises(InputError, match=part):
        replace(make_drain(PODS, NODES), **change)
