"""The agent's real NVML telemetry, on the simulated driver, measures what the scenario says is true."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.nvml.nodes import a_gpu, a_node, a_process, gpu_uuid, make_node, mig_uuid

from gpuwaste_agent.simulate.truth import true_gpu_energy_joules, true_parents, true_processes

HERE = Path(__file__).parent
SPEED = 20.0
PAUSE_SECONDS = 0.15  # three of the scenario
READINGS = 60
WITHIN = 0.01

# GPU 0: H100 in turns, one process of many SMs and one of few. GPU 1: H100 under MIG. GPU 2: A10. GPU 3: T4.
NODE = a_node(
    [
        a_gpu(0, "H100-80GB"),
        a_gpu(1, "H100-80GB", ("1g.10gb", 0), ("2g.20gb", 2), ("3g.40gb", 4)),
        a_gpu(2, "A10-24GB"),
        a_gpu(3, "T4-16GB"),
    ],
    [
        a_process(100, gpu_uuid(0), (0, 0.7, 0.1, 1000, 0.2, 0.5)),
        a_process(101, gpu_uuid(0), (0, 0.2, 1.0, 2000, 0.0, 0.1)),
        a_process(110, mig_uuid(16), (0, 1.0, 0.5, 500), (80, 0.5, 1.0, 700)),
        a_process(111, mig_uuid(17), (0, 0.5, 0.4, 600)),
        a_process(112, mig_uuid(18), (0, 0.9, 0.8, 900), (40, 0.1, 0.2, 900), (110, 0.6, 0.6, 900)),
        a_process(120, gpu_uuid(2), (0, 0.25, 0.5, 700)),
        a_process(121, gpu_uuid(2), (0, 0.5, 0.5, 800)),
        a_process(130, gpu_uuid(3), (0, 0.35, 1.0, 900), (60, 0.85, 0.5, 900)),
    ],
)


UNPRIVILEGED_READINGS = 24
# A10 and T4 have no MIG mode to tell of.
NO_MIG = {gpu_uuid(2): ["mig"], gpu_uuid(3): ["mig"]}


def run_agent(library: Path, folder: Path, readings: int, *under: str) -> dict[str, Any]:
    """What the agent's telemetry reads on the node, by the command `under` where one is given."""
    node = make_node(folder, library, NODE, at=10)
    node.sim.run_clock(speed=SPEED)
    root = str(HERE.parents[2])
    environment = {**node.variables(), "PYTHONPATH": os.pathsep.join([root, f"{root}/agent"])}
    command = [*under, sys.executable, str(HERE / "agent_run.py"), str(node.path), str(readings), str(PAUSE_SECONDS)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=root, timeout=120)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def measured(library: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run_agent(library, tmp_path_factory.mktemp("node"), READINGS)


def test_integrals_within_a_hundredth_of_truth(measured: dict[str, Any]):
    compared = 0
    for gpu in NODE.gpus:
        span = measured["begun"][gpu.uuid], measured["ended"][gpu.uuid]
        assert span[1] - span[0] > 100
        truth = true_parents(NODE, *span)
        processes = true_processes(NODE, *span)
        for parent in gpu.parent_ids:
            duty, sm = measured["parents"][parent]
            assert duty == pytest.approx(truth[parent].duty_s, rel=WITHIN), parent
            if gpu.facts.gpm:
                assert sm == pytest.approx(truth[parent].sm_s, rel=WITHIN), parent
            for process in (found for found in NODE.processes if found.parent == parent):
                key = str(process.pid)
                assert measured["memory"][key] == pytest.approx(processes[process.pid].memory_byte_s, rel=WITHIN)
                if gpu.mig is None:
                    assert measured["duty"][key] == pytest.approx(processes[process.pid].duty_s, rel=WITHIN), process
                compared += 1
        (first, first_mj), (last, last_mj) = measured["energy"][gpu.uuid]
        joules = true_gpu_energy_joules(NODE, first, last)[gpu.uuid]
        assert (last_mj - first_mj) / 1000 == pytest.approx(joules, rel=WITHIN)
    assert compared == len(NODE.processes)


def test_the_agent_sees_the_gpus_as_they_are(measured: dict[str, Any]):
    found = {uuid: (product, sorted(parents)) for uuid, (product, parents) in measured["gpus"].items()}
    assert found == {gpu.uuid: (gpu.product, sorted(gpu.parent_ids)) for gpu in NODE.gpus}
    assert {uuid: sorted(refused) for uuid, refused in measured["refused"].items() if refused} == NO_MIG


def test_without_privilege_it_goes_on_with_what_it_may_read(library: Path, tmp_path: Path):
    found = run_agent(library, tmp_path, UNPRIVILEGED_READINGS, "setpriv", "--bounding-set=-sys_admin")
    # The same GPUs and instances as the privileged see.
    assert {uuid: sorted(parents) for uuid, (_, parents) in found["gpus"].items()} == {
        gpu.uuid: sorted(gpu.parent_ids) for gpu in NODE.gpus
    }
    refused = {uuid: sorted(figures) for uuid, figures in found["refused"].items() if figures}
    assert refused == {**NO_MIG, gpu_uuid(1): ["gpm", "memory total", "places"]}
    for gpu in NODE.gpus:
        truth = true_processes(NODE, found["begun"][gpu.uuid], found["ended"][gpu.uuid])
        for process in (each for each in NODE.processes if each.parent in gpu.parent_ids):
            if len({point.memory_mib for point in process.load}) == 1:  # else a reading more or less would show
                memory = found["memory"][str(process.pid)]
                assert memory == pytest.approx(truth[process.pid].memory_byte_s, rel=WITHIN), process
            if gpu.mig is None:
                assert found["duty"][str(process.pid)] == pytest.approx(truth[process.pid].duty_s, rel=WITHIN), process
