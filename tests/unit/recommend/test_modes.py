"""Sharing modes, replica counts and MIG layouts of machines, chosen together with the places of pods."""

import itertools
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.packing.questions import Ticker

from gpuwaste.model.errors import InputError, InvariantError
from gpuwaste.model.gpu_products import find_product
from gpuwaste.packing.modes import EXCLUSIVE, Mode, ModeMachine, ModePod, mode_violations, pack_in_modes
from gpuwaste.recommend.mode_plans import configs_of_modes, plan_of_mode
from gpuwaste.recommend.node_config import config_violations, offered

H100, T4 = find_product("H100-80GB"), find_product("T4-16GB")
HALVES, QUARTERS = Mode(sharing="timeSlicing", replicas=2), Mode(sharing="mps", replicas=4)
SEVENTHS = Mode(profile="1g.10gb")
ALL = (EXCLUSIVE, HALVES, QUARTERS, SEVENTHS)


def machine(name, *, gpus=1, product=H100, price="2", modes=ALL, cpu=64_000):
    return ModeMachine(name=name, product=product, gpus=gpus, cpu=cpu, memory=512, price=Decimal(price), modes=modes)


def pod(name, milli=1000, *, gpus=1, memory_gib=None, cpu=100, models=frozenset()):
    return ModePod(name=name, cpu=cpu, memory=1, gpus=gpus, milli=milli, memory_gib=memory_gib, models=models)


def answered(machines, pods, limit=60):
    answer = pack_in_modes(machines, pods, time_limit_seconds=limit, clock=Ticker())
    assert mode_violations(machines, pods, answer) == []
    for name, configs in configs_of_modes(machines, answer).items():
        mine = [
            plan_of_mode(machines[index], mode)
            for index, mode in answer.modes.items()
            if machines[index].product.name == name
        ]
        assert config_violations(find_product(name), mine, configs) == []
    return answer


def best_by_force(machines, pods):
    """Least (units out, pods out, cost) over every mode of every machine and every place."""
    best = None
    for modes in itertools.product(*(one.modes for one in machines)):
        for where in itertools.product([None, *range(len(machines))], repeat=len(pods)):
            left = [one for one, at in zip(pods, where, strict=True) if at is None]
            cost = sum(machines[at].price * machines[at].gpus for at in set(where) - {None})
            score = (sum(one.gpus for one in left), len(left), cost)
            if best is not None and score >= best:
                continue
            room = [one.gpus * mode.units(one.product) for one, mode in zip(machines, modes, strict=True)]
            cpu = [one.cpu for one in machines]
            for one, at in zip(pods, where, strict=True):
                if at is not None:
                    room[at] -= one.gpus if one.may_use(machines[at].product, modes[at]) else 10**6
                    cpu[at] -= one.cpu
            if min((*room, *cpu)) >= 0:
                best = score
    return best


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(st.sampled_from([100, 140, 250, 300, 500, 1000]), st.sampled_from([None, 5.0, 15.0, 35.0])),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from([0, 60]),
)
def test_small_questions_are_solved_and_bounded(rows, limit):
    machines = [machine("a", gpus=2), machine("b", price="3"), machine("c", product=T4, price="0.5", modes=ALL[:3])]
    pods = [pod(f"p{i}", milli, memory_gib=peak) for i, (milli, peak) in enumerate(rows)]
    answer = answered(machines, pods, limit=limit)
    left = [one for one, place in zip(pods, answer.places, strict=True) if place is None]
    told = (sum(one.gpus for one in left), len(left), answer.cost)
    best = best_by_force(machines, pods)
    assert told >= best
    assert answer.bound <= best[2]


def test_one_machine_is_in_one_mode_and_the_mode_fits_its_pods():
    pods = [pod(f"q{i}", 250, memory_gib=10.0) for i in range(4)]
    answer = answered([machine("a"), machine("b")], pods)
    assert list(answer.modes.values()) == [QUARTERS]
    assert answer.cost == answer.bound == 2


def test_a_peak_with_its_context_is_a_hard_limit():
    fits = answered([machine("a"), machine("b")], [pod(f"p{i}", 100, memory_gib=19.4) for i in range(4)])
    assert list(fits.modes.values()) == [QUARTERS]
    tight = answered([machine("a"), machine("b")], [pod(f"p{i}", 100, memory_gib=19.6) for i in range(4)])
    assert list(tight.modes.values()) == [HALVES, HALVES]


def test_whole_gpus_are_left_whole():
    answer = answered([machine("a", gpus=2), machine("b")], [pod("whole", gpus=2), pod("share", 200)])
    assert answer.modes[answer.places[0].machine] == EXCLUSIVE
    assert answer.places[0].machine != answer.places[1].machine


def test_small_pods_get_instances_and_a_cost_by_sevenths_is_exact():
    answer = answered([machine("a", modes=(SEVENTHS,), price="1.99")], [pod(f"p{i}", 140) for i in range(7)])
    assert None not in answer.places
    assert answer.cost == answer.bound == Decimal("1.99")


def test_more_pods_than_machines_can_hold_stay_out():
    answer = answered([machine("a", modes=(EXCLUSIVE, HALVES))], [pod(f"p{i}", 500) for i in range(3)])
    assert answer.places.count(None) == 1
    assert answer.bound <= answer.cost == 2


def test_a_model_is_kept():
    answer = answered(
        [machine("a", product=T4, price="0.1", modes=(EXCLUSIVE,)), machine("b")],
        [pod("p", 500, models=frozenset({"H100-80GB"}))],
    )
    assert answer.places[0].machine == 1


@pytest.mark.parametrize(
    ("modes", "message"),
    [
        ((Mode(profile="9g.90gb"),), "H100-80GB has no profile 9g.90gb"),
        ((Mode(profile="1g.10gb", sharing="mps", replicas=2),), "MPS does not work on a node with MIG"),
        ((Mode(sharing="mps"),), "1 replicas"),
        ((Mode(replicas=2),), "2 replicas"),
        ((Mode(sharing="timeSlicing", replicas=0),), "0 replicas"),
        ((EXCLUSIVE, EXCLUSIVE), "has no mode, or one twice"),
        ((), "has no mode, or one twice"),
    ],
)
def test_modes_that_cannot_be_are_refused(modes, message):
    with pytest.raises(InputError, match=message):
        pack_in_modes([machine("a", modes=modes)], [], time_limit_seconds=0, clock=Ticker())


def test_mig_instances_may_be_shared_as_well():
    mode = Mode(profile="3g.40gb", sharing="timeSlicing", replicas=2)
    assert mode.units(H100) == 4
    assert mode.memory_gib(H100) == pytest.approx(20, rel=0.01)
    plan = plan_of_mode(machine("a", gpus=8), mode)
    assert offered(H100, plan) == {"nvidia.com/gpu": 32}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: replace(a, modes={0: Mode(sharing="mps", replicas=9)}), "cannot be in mode"),
        (lambda a: replace(a, modes={0: SEVENTHS}), "pod p0 cannot use what a offers"),
        (lambda a: replace(a, places=(replace(a.places[0], gpus=(0, 0)), *a.places[1:])), "another number of GPUs"),
        (lambda a: replace(a, places=(replace(a.places[0], gpus=(7,)), *a.places[1:])), "GPU 7 of a has 0 units"),
        (lambda a: replace(a, places=(a.places[0],) * 3), "GPU 0 of a has 2 units and 3 pods"),
        (lambda a: replace(a, cost=Decimal(1)), "the cost is 1"),
        (lambda a: replace(a, bound=Decimal(9)), "the bound 9"),
    ],
)
def test_each_way_to_be_wrong_is_found(change, message):
    machines, pods = [machine("a", gpus=2)], [pod(f"p{i}", 500) for i in range(3)]
    answer = answered(machines, pods)
    assert any(message in line for line in mode_violations(machines, pods, change(answer)))


def test_too_little_cpu_is_found():
    machines, pods = [machine("a", gpus=2)], [pod("p", 500)]
    answer = answered(machines, pods)
    small = [replace(machines[0], cpu=1)]
    assert mode_violations(small, pods, answer) == ["a has less CPU or memory than its pods need"]


def test_a_configuration_that_offers_too_little_is_not_written():
    machines, pods = [machine("a", gpus=1)], [pod(f"p{i}", 500) for i in range(2)]
    answer = answered(machines, pods)
    with pytest.raises(InvariantError, match="would offer 1"):
        configs_of_modes(machines, replace(answer, modes={0: EXCLUSIVE}))
