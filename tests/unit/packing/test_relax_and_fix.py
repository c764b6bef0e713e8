"""Models get whole numbers one after the other, and keep them where time runs out."""

import itertools

import numpy as np
from tests.unit.packing.questions import make_instance

from gpuwaste.packing.bound import Relaxed
from gpuwaste.packing.columns import ColumnPool
from gpuwaste.packing.generation import generate
from gpuwaste.packing.pricing import TypePricer
from gpuwaste.packing.relax_and_fix import fix_all_but_the_last
from gpuwaste.packing.shapes import group
from gpuwaste.packing.slots import Slots


def tied_task():
    """Three models with pods tied to each, and pods that run anywhere."""
    prices = {"A": 3, "B": 2, "C": 1}
    pods = [
        (f"{spec}-{milli}-{index}", 1000, 4, 1, milli, spec)
        for spec in ("", "A", "B", "C")
        for milli in (300, 400, 700)
        for index in range(5)
    ]
    nodes = [(f"{model}-{index}", 8000, 64, 4, model) for model in prices for index in range(8)]
    problem = group(make_instance(pods, nodes, prices=prices), objective="cost")
    slots = Slots.of(problem)
    return Relaxed(
        slots=slots,
        node_cost=problem.cost,
        penalty=np.full(len(slots.problem.demand), 50.0),
        allowance=None,
    )


def generated(task):
    pool = ColumnPool()
    pricers = [TypePricer(task.slots, kind) for kind in range(len(task.node_cost))]
    found = generate(task, pool, pricers, time_left=lambda: 60.0, on_bound=lambda _: None)
    return pool, pricers, found.duals


def test_every_model_but_one_is_fixed_within_its_supply():
    task = tied_task()
    pool, pricers, duals = generated(task)
    fixed, left = fix_all_but_the_last(task, pool, pricers, duals, time_left=lambda: 60.0)
    kinds = np.array(pool.kinds)[: len(fixed)]
    assert len(left) == 1
    assert (fixed[kinds == left[0]] == -1).all()
    assert (fixed[kinds != left[0]] >= 0).all()
    used = np.bincount(kinds, weights=np.maximum(fixed, 0), minlength=len(task.node_cost))
    assert (used <= task.slots.problem.supply).all()


def test_models_fixed_before_time_ran_out_stay_fixed():
    task = tied_task()
    pool, pricers, duals = generated(task)
    # Enough for the first model, nothing for the second.
    times = itertools.chain([60.0], itertools.repeat(0.0))
    fixed, left = fix_all_but_the_last(task, pool, pricers, duals, time_left=lambda: next(times))
    kinds = np.array(pool.kinds)[: len(fixed)]
    assert len(set(left)) == len(task.node_cost) - 1
    assert (fixed[~np.isin(kinds, left)] >= 0).all()
    assert (fixed[np.isin(kinds, left)] == -1).all()


def test_without_time_no_model_is_fixed():
    task = tied_task()
    pool, pricers, duals = generated(task)
    fixed, left = fix_all_but_the_last(task, pool, pricers, duals, time_left=lambda: 0.0)
    assert (fixed == -1).all()
    assert sorted(left) == list(range(len(task.node_cost)))
