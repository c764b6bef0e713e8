"""The library integrates load as the agent's `simulate.truth` does, whatever the load."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from tests.e2e.nvml.nodes import a_gpu, a_node, a_process

from gpuwaste_agent.simulate.truth import true_gpu_energy_joules, true_parents

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.nvml.nodes import Node

    from gpuwaste_agent.simulate.scenario import ScenarioNode, ScenarioProcess

LAYOUTS = [
    (("3g.40gb", 0), ("3g.40gb", 4)),
    (("1g.10gb", 0), ("1g.20gb", 2)),
    (("7g.80gb", 0),),
    tuple(("1g.10gb", start) for start in range(7)),
]


def a_random_process(rng: random.Random, pid: int, parent: str) -> ScenarioProcess:
    """Begins and ends anywhere; its load changes a few times, before its begin and after its end too."""
    start = rng.choice([0.0, rng.uniform(0, 60)])
    end = rng.choice([float("inf"), start + rng.uniform(0.001, 60)])
    times = sorted([rng.uniform(0, 100) for _ in range(rng.randrange(6))])
    points = [
        [round(at, 6), *(round(rng.choice([0, 1, rng.random()]), 3) for _ in range(2)), rng.randrange(5000)]
        for at in (rng.choice([0.0, start, 90.0]), *times)
    ]
    for point in points:
        point += [round(rng.random(), 2), round(rng.random(), 2)]
    return a_process(pid, parent, *sorted(points), from_s=round(start, 6), until_s=round(end, 6))


def a_random_node(seed: int) -> ScenarioNode:
    rng = random.Random(seed)
    gpus = [
        a_gpu(0, "H100-80GB"),
        a_gpu(1, "H100-80GB", strategy="mps", replicas=4),
        a_gpu(2, "H100-80GB", strategy="time-slicing", replicas=4),
        a_gpu(3, "H100-80GB", *rng.choice(LAYOUTS)),
    ]
    parents = [parent for gpu in gpus for parent in gpu.parent_ids]
    processes = [a_random_process(rng, 100 + number, rng.choice(parents)) for number in range(rng.randrange(1, 30))]
    return a_node(gpus, processes)


@pytest.mark.parametrize("seed", range(12))
def test_integrals_equal_truth(node_of: Callable[..., Node], seed: int):
    scenario = a_random_node(seed)
    rng = random.Random(seed)
    since, until = sorted([round(rng.uniform(0, 100), 6) for _ in range(2)])
    until += 0.1
    node = node_of(scenario, at=since)
    program = node.program()
    parents = [parent for gpu in scenario.gpus for parent in gpu.parent_ids]
    for parent in parents:
        program.ask(f"kept.update({{'{parent}': sample(nvmlDeviceGetHandleByUUID('{parent}'))}})")
    energy = [program.ask(f"nvmlDeviceGetTotalEnergyConsumption(gpu({index}))") for index in range(4)]
    node.at(until)
    truth = true_parents(scenario, since, until)
    for parent in parents:
        found = program.ask(f"metrics(kept['{parent}'], sample(nvmlDeviceGetHandleByUUID('{parent}')), 1, 2, 5, 10)")
        true = truth[parent]
        expected = [100 * part / (until - since) for part in (true.duty_s, true.sm_s, true.tensor_s, true.dram_s)]
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-6), parent
    joules = true_gpu_energy_joules(scenario, since, until)
    for index, before in enumerate(energy):
        after = program.ask(f"nvmlDeviceGetTotalEnergyConsumption(gpu({index}))")
        # Both readings are whole millijoules.
        assert (after - before) / 1000 == pytest.approx(joules[scenario.gpus[index].uuid], rel=1e-6, abs=0.002)
