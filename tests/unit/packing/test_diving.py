"""A dive through the linear master gives whole copies, also where time cuts an optimum short."""

import numpy as np
from tests.unit.packing.questions import make_instance

from gpuwaste.packing import diving
from gpuwaste.packing.bound import Relaxed
from gpuwaste.packing.columns import ColumnPool
from gpuwaste.packing.master import LpMaster
from gpuwaste.packing.pricing import TypePricer
from gpuwaste.packing.shapes import group
from gpuwaste.packing.slots import Slots


class HastyMaster(LpMaster):
    """Runs out of time at its third optimum."""

    solved = 0

    def solve(self, *, seconds):
        self.solved += 1
        return super().solve(seconds=seconds) if self.solved < 3 else None


def shares_task():
    sizes = (100, 150, 200, 250, 300, 350)
    pods = [(f"{milli}-{index}", 1000, 4, 1, milli, "") for milli in sizes for index in range(7)]
    nodes = [(f"n{index}", 8000, 64, 2, "A") for index in range(40)]
    problem = group(make_instance(pods, nodes, prices={"A": 1}), objective="cost")
    slots = Slots.of(problem)
    penalty = np.full(len(slots.problem.demand), 50.0)
    return Relaxed(slots=slots, node_cost=problem.cost, penalty=penalty, allowance=None)


def test_fillings_that_came_after_the_last_optimum_are_not_used(monkeypatch):
    monkeypatch.setattr(diving, "LpMaster", HastyMaster)
    task = shares_task()
    pool = ColumnPool()
    # Nodes of one size each: what is left after the first step is better served by mixtures.
    for row in 2 * np.eye(len(task.slots.problem.demand), dtype=np.int64):
        pool.add(0, row)
    seeds = len(pool)
    pricers = [TypePricer(task.slots, 0)]
    copies, _ = diving.dive(task, pool, pricers, pricings=3, step_part=0.1, time_left=lambda: 60.0)
    assert len(pool) > seeds
    assert len(copies) == len(pool)
    assert not copies[seeds:].any()
    assert copies.any()
