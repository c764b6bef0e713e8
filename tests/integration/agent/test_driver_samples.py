"""Process utilization as the driver samples it: nothing is lost however the readings fall between its samples."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys

import pytest
from tests.sim.nvml.state import create_state
from tests.unit.agent.builders import START_NS, a_node, process

from gpuwaste_agent.simulate.scenario import ScenarioLoad
from gpuwaste_agent.simulate.truth import true_processes

# Reads at the given seconds of a clock that stands still between them, and prints each process's duty times time.
READ = """
import json, os, sys
from pathlib import Path
from tests.sim.nvml.state import SECOND, SimState
from gpuwaste_agent.nvml import RealNvml
times = json.loads(sys.argv[2])
sim = SimState(Path(os.environ["GPUWASTE_SIM_STATE"]))
sim.set_clock(int(times[0] * SECOND))
driver = RealNvml(library=Path(sys.argv[1]), list_processes=True)
(gpu,) = driver.gpus()
driver.read(gpu.uuid)
done, most = {}, 0.0
for before, now in zip(times, times[1:]):
    sim.set_clock(int(now * SECOND))
    for sample in driver.read(gpu.uuid).parents[0].processes:
        done[sample.pid] = done.get(sample.pid, 0.0) + sample.duty * (now - before)
        most = max(most, sample.duty)
driver.close()
print(json.dumps({"done": done, "most": most}))
"""


def read(library, folder, node, times):
    create_state(folder / "nvml.state", node, start_utc_ns=START_NS)
    environment = {**os.environ, "GPUWASTE_SIM_STATE": str(folder / "nvml.state")}
    command = [sys.executable, "-c", READ, str(library), json.dumps(times)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["most"] <= 1
    return {int(pid): seconds for pid, seconds in found["done"].items()}


@pytest.mark.parametrize("seed", range(4))
def test_readings_between_and_across_the_drivers_samples_lose_nothing(library, tmp_path, seed):
    rng = random.Random(seed)
    busy = [ScenarioLoad(i * 2.9, rng.choice([0, 0.2, 0.6, 1.0]) * 0.6, 0.5, 100) for i in range(40)]
    late = [ScenarioLoad(0, 0, 0, 100), ScenarioLoad(45.3, 0.4, 0.2, 100)]
    node = a_node().gpu("T4-16GB").on_host(process(1, 0, load=busy), process(2, 0, load=late)).obj()
    times = [10.0]
    while times[-1] < 100:
        times.append(round(times[-1] + rng.choice([0.03, 0.11, 0.19, 0.25, 0.4, 1.0, 3.3]) * rng.uniform(0.9, 1.1), 4))
    found = read(library, tmp_path, node, times)
    truth = true_processes(node, times[0], times[-1])
    # The driver tells up to its newest sample, in whole percents.
    for pid in (1, 2):
        assert found[pid] == pytest.approx(truth[pid].duty_s, abs=0.2 + 0.006 * 90)


def test_work_after_a_long_rest_is_not_spread_over_the_rest(library, tmp_path):
    node = (
        a_node()
        .gpu("T4-16GB")
        .on_host(process(1, 0, load=[ScenarioLoad(0, 0, 0, 100), ScenarioLoad(500, 0.5, 0.5, 100)]))
    )
    times = [float(second) for second in range(10, 511)]
    found = read(library, tmp_path, node.obj(), times)
    assert found[1] == pytest.approx(0.5 * 10, abs=0.2)
