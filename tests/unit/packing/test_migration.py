"""The order of a full repack's moves: every wave has room, and pods that wait for one another are told of."""

import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.packing.drains import make_drain, random_drain

from gpuwaste.packing.drain_question import DisruptionBudget
from gpuwaste.packing.engine import solve
from gpuwaste.packing.free_room import FreeRoom
from gpuwaste.packing.migration import migration_order

NODES = [("a", 10, 100, 1, "T4"), ("b", 10, 100, 1, "T4"), ("c", 10, 100, 1, "T4")]


def carried_out(question, migration):
    """Play the waves: room for every pod of a wave before any of its sources is free; the nodes afterwards."""
    room, current = FreeRoom(question.instance, question.current), question.current
    place = [
        (int(node), current.gpu_sets[int(chosen)])
        for node, chosen in zip(current.pod_node, current.pod_gpu_set, strict=True)
    ]
    stops = Counter()
    halted = set()
    for wave, pod in migration.stopped:
        stops[pod] = wave
    for number, wave in enumerate(migration.waves):
        for pod, before in stops.items():
            if before == number and pod not in halted:
                room.give(pod, place[pod])
                halted.add(pod)
        for move in wave:
            assert place[move.pod][0] == move.source
            room.take(move.pod, (move.target, move.gpus))
        assert room.cpu.min() >= 0
        assert room.memory.min() >= 0
        assert room.gpu.min() >= 0
        for move in wave:
            if move.pod not in halted:
                room.give(move.pod, place[move.pod])
            place[move.pod] = (move.target, move.gpus)
    return np.array([node for node, _ in place])


def test_a_pod_waits_until_there_is_room():
    pods = [("big", 9, 1, 1, 1000, "", "a", [0]), ("small", 3, 1, 1, 1000, "", "b", [0])]
    question = make_drain(pods, NODES)
    migration = migration_order(question, np.array([1, 2]))
    assert [[move.pod for move in wave] for wave in migration.waves] == [[1], [0]]
    assert carried_out(question, migration).tolist() == [1, 2]
    assert migration.stopped == ()


def test_two_that_trade_places_need_one_to_be_stopped():
    pods = [("p", 9, 1, 1, 1000, "", "a", [0]), ("q", 9, 1, 1, 1000, "", "b", [0])]
    question = make_drain(pods, NODES[:2])
    migration = migration_order(question, np.array([1, 0]))
    assert len(migration.stopped) == 1
    assert migration.moves == 2
    assert carried_out(question, migration).tolist() == [1, 0]


def test_budgets_make_waves_and_fixed_pods_stay():
    pods = [(f"p{i}", 1, 1, 0, 0, "", "a", []) for i in range(5)]
    budgets = [
        DisruptionBudget(name="web", pods=(0, 1, 2, 3), allowed=2),
        DisruptionBudget(name="db", pods=(4,), allowed=0),
    ]
    migration = migration_order(make_drain(pods, NODES, budgets=budgets), np.full(5, 1))
    assert [len(wave) for wave in migration.waves] == [2, 2]
    assert migration.stranded == (4,)


@pytest.mark.parametrize("stay", [-1, 0])
def test_who_stays_is_not_moved(stay):
    question = make_drain([("p", 1, 1, 0, 0, "", "a", [])], NODES)
    assert migration_order(question, np.array([stay])).moves == 0


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_repack_is_reached_step_by_step(seed):
    question = random_drain(seed, pods=30, nodes=10)
    here = replace(question.instance, current_node=question.current.pod_node)
    packed = solve(here, time_limit_seconds=0, objective="cost", clock=time.monotonic)
    target = packed.placement.pod_node
    migration = migration_order(question, target)
    after = carried_out(question, migration)
    settled = [pod for pod in range(len(after)) if pod not in migration.stranded]
    assert (after[settled] == target[settled]).all()
    assert migration.moves == int((after != question.current.pod_node).sum())
