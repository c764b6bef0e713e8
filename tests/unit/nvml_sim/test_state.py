"""The state file from Python: what is written can be read, changed and followed; nothing here needs the library."""

from __future__ import annotations

import ctypes
import fcntl
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.sim.nvml.change import apply_node, clear_faults, clients, history, register, reset_gpu, unregister
from tests.sim.nvml.layout import CONSTANTS, State
from tests.sim.nvml.state import SECOND, SimState, StateError, create_state

from gpuwaste_agent.simulate.scenario import (
    FOREVER,
    ScenarioFault,
    ScenarioGpu,
    ScenarioInstance,
    ScenarioLoad,
    ScenarioNode,
    ScenarioProcess,
)
from gpuwaste_agent.simulate.truth import true_gpu_energy_joules, true_parents, true_processes

if TYPE_CHECKING:
    from pathlib import Path

GPU, OTHER, MIG = "GPU-a", "GPU-b", "MIG-a"


def a_node(*processes, faults=(), mig=True):
    layout = (ScenarioInstance(uuid=MIG, profile="3g.40gb", start=4),) if mig else None
    gpus = (ScenarioGpu(uuid=GPU, product="H100-80GB"), ScenarioGpu(uuid=OTHER, product="H100-80GB", mig=layout))
    return ScenarioNode(name="node-a", uid="uid-a", gpus=gpus, processes=processes, faults=faults)


def a_process(pid, parent=GPU, *load, **more):
    points = tuple(ScenarioLoad(*point) for point in load or ((0, 0.5, 0.5, 100),))
    return ScenarioProcess(pid=pid, parent=parent, load=points, **more)


def make(folder, node, at=10.0):
    sim = create_state(folder / "nvml.state", node, start_utc_ns=0)
    sim.set_clock(round(at * SECOND))
    return sim


part = st.integers(0, 100).map(lambda value: value / 100)
point = st.tuples(st.integers(0, 100_000).map(lambda ms: ms / 1000), part, part, st.integers(0, 9999), part, part)
process = st.tuples(
    st.sampled_from([GPU, MIG]),
    st.lists(point, min_size=1, max_size=5, unique_by=lambda p: p[0]).map(sorted),
    st.integers(0, 50_000).map(lambda ms: ms / 1000),
    st.sampled_from([FOREVER, 60.0, 75.125]),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(described=st.lists(process, max_size=8))
def test_history_of_an_untouched_node_has_its_truth(tmp_path, described):
    """Nothing of a scenario is lost on the way into the file and back."""
    processes = [
        a_process(100 + number, parent, *load, from_s=start, until_s=end)
        for number, (parent, load, start, end) in enumerate(described)
    ]
    node = a_node(*processes)
    found = history(make(tmp_path, node), name="node-a", uid="uid-a")
    for span in ((0, 100), (12.5, 70)):
        assert true_processes(found, *span) == true_processes(node, *span)
        assert true_parents(found, *span) == true_parents(node, *span)
        assert true_gpu_energy_joules(found, *span) == true_gpu_energy_joules(node, *span)


def test_clock(tmp_path, monkeypatch):
    sim = make(tmp_path, a_node())
    assert sim.now_ns() == 10 * SECOND
    moment = 5_000 * SECOND
    monkeypatch.setattr("time.monotonic_ns", lambda: moment)
    sim.run_clock(speed=60.0)
    moment += 2 * SECOND
    assert sim.now_ns() == 130 * SECOND
    assert SimState(tmp_path / "nvml.state").now_ns() == 130 * SECOND


def test_register_and_unregister(tmp_path):
    sim = make(tmp_path, a_node())
    register(sim, 7, MIG, ScenarioLoad(0, 1.0, 0.5, 64))
    sim.set_clock(30 * SECOND)
    unregister(sim, 7)
    found = history(sim, name="", uid="")
    assert true_processes(found, 0, 100)[7].duty_s == 20
    with pytest.raises(StateError, match="no process 7 runs here"):
        unregister(sim, 7)


HOLDER = """
import fcntl, os, sys
file = os.open(sys.argv[1], os.O_RDWR)
fcntl.lockf(file, fcntl.LOCK_EX, 1, int(sys.argv[2]))
print("held", flush=True)
sys.stdin.read()
"""


def hold(folder: Path, byte: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDER, str(folder / "nvml.state"), str(byte)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    return child


def test_clients_are_counted_while_they_live(tmp_path):
    sim = make(tmp_path, a_node())
    assert clients(sim) == 0
    child = hold(tmp_path, CONSTANTS["LOCK_CLIENTS"] + 3)
    assert clients(sim) == 1
    with pytest.raises(StateError, match="1 program"):
        reset_gpu(sim, GPU)
    child.kill()
    child.communicate()
    assert clients(sim) == 0


def test_a_live_process_has_its_holders_pid_and_ends_with_it(tmp_path):
    sim = make(tmp_path, a_node())
    slot = register(sim, 1, GPU, ScenarioLoad(0, 1.0, 0.5, 64))
    sim.state.processes[slot].origin = CONSTANTS["ORIGIN_LIVE"]
    child = hold(tmp_path, CONSTANTS["LOCK_PROCESSES"] + slot)
    assert [found.pid for found in history(sim, name="", uid="").processes] == [child.pid]
    child.kill()
    child.communicate()
    sim.set_clock(15 * SECOND)
    (found,) = history(sim, name="", uid="").processes
    assert found.until_s == 15


def test_a_killed_writer_holds_nobody_up(tmp_path):
    sim = make(tmp_path, a_node())
    child = hold(tmp_path, CONSTANTS["LOCK_WRITER"])
    with pytest.raises(BlockingIOError):
        fcntl.lockf(sim.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, CONSTANTS["LOCK_WRITER"])
    child.kill()
    child.communicate()
    with sim.writing() as state:
        assert state.gpu_count == 2


def test_changed_scenario_keeps_the_past(tmp_path):
    sim = make(tmp_path, a_node(a_process(1), a_process(2, MIG), a_process(3, GPU, (0, 0.1, 0.1, 10))))
    changed = a_node(
        a_process(1), a_process(3, GPU, (0, 0.2, 0.1, 10)), a_process(4, GPU, (0, 0.2, 0.1, 10)), mig=False
    )
    apply_node(sim, changed)
    found = history(sim, name="", uid="")
    duty = {pid: truth.duty_s for pid, truth in true_processes(found, 0, 20).items()}
    assert duty == pytest.approx({1: 10, 3: 10 * 0.1 + 10 * 0.2, 4: 10 * 0.2})  # 2 is gone with its instance
    assert sim.state.gpus[1].mig_mode == 0


def test_changed_scenario_must_have_the_same_gpus(tmp_path):
    sim = make(tmp_path, a_node())
    other = ScenarioNode(name="node-a", uid="uid-a", gpus=a_node().gpus[:1])
    with pytest.raises(StateError, match="make its state anew"):
        apply_node(sim, other)


def test_live_processes_keep_their_instance(tmp_path):
    sim = make(tmp_path, a_node())
    slot = register(sim, 1, MIG, ScenarioLoad(0, 1.0, 0.5, 64))
    sim.state.processes[slot].origin = CONSTANTS["ORIGIN_LIVE"]
    with pytest.raises(StateError, match="runs on MIG-a, which the scenario has no more"):
        apply_node(sim, a_node(mig=False))


def test_faults_of_a_scenario_come_once(tmp_path):
    fault = ScenarioFault(kind="xid", gpu=GPU, from_s=20, xid=48)
    sim = make(tmp_path, a_node(faults=(fault, ScenarioFault(kind="clock-step", from_s=1, step_s=60))))
    assert sim.state.fault_count == 1
    apply_node(sim, a_node(faults=(fault,)))
    assert sim.state.fault_count == 1
    sim.set_clock(30 * SECOND)
    assert clear_faults(sim, gpu=OTHER) == 0
    assert clear_faults(sim) == 1
    assert clear_faults(sim) == 0


@pytest.mark.parametrize(("size", "message"), [(10, "no state file"), (ctypes.sizeof(State) + 4096, "another build")])
def test_other_files_are_refused(tmp_path, size, message):
    path = tmp_path / "nvml.state"
    path.write_bytes(b"\0" * size)
    with pytest.raises(StateError, match=message):
        SimState(path)


def test_missing_file(tmp_path):
    with pytest.raises(StateError, match="make it with `create`"):
        SimState(tmp_path / "none")


def test_too_many_gpus(tmp_path):
    gpus = tuple(ScenarioGpu(uuid=f"GPU-{number}", product="T4-16GB") for number in range(17))
    with pytest.raises(StateError, match="holds 16"):
        make(tmp_path, ScenarioNode(name="node-a", uid="uid-a", gpus=gpus))
