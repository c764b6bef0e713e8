"""What goes wrong on demand, and what changes while programs run."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.e2e.nvml.nodes import START_NS, Refused, a_gpu, a_node, a_process, gpu_uuid, mig_uuid
from tests.sim.nvml.control import main as control

from gpuwaste_agent.simulate.scenario import Scenario, ScenarioFault
from gpuwaste_agent.simulate.scenario_file import dump_scenario

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.nvml.nodes import Node

ROOT = Path(__file__).parents[3]
LOST, TIMEOUT, NOT_FOUND, NOT_LOADED, UNKNOWN = (Refused(number) for number in (15, 10, 6, 9, 999))
ENERGY = "nvmlDeviceGetTotalEnergyConsumption(gpu(0))"
BUSY = a_process(10, gpu_uuid(0), (0, 1.0, 0.5, 100))


def say(node: Node, *words: str) -> int:
    return control(["--state", str(node.path), *words])


@pytest.fixture
def node(node_of: Callable[..., Node]) -> Node:
    return node_of(a_node([a_gpu(0, "H100-80GB"), a_gpu(1, "A100-80GB")], [BUSY]))


def test_before_and_after_init(node_of: Callable[..., Node]):
    program = node_of(a_node([a_gpu(0, "T4-16GB")])).program(init=False)
    for expression in ("nvmlDeviceGetCount()", "nvmlShutdown()", "nvmlSystemGetDriverVersion()"):
        assert program.ask(expression) == Refused(1)
    program.ask("nvmlInit()")
    program.ask("nvmlInitWithFlags(0)")
    program.ask("nvmlShutdown()")
    assert program.ask("nvmlDeviceGetCount()") == 1  # initialised twice, shut down once
    program.ask("nvmlShutdown()")
    assert program.ask("nvmlDeviceGetCount()") == Refused(1)


@pytest.mark.parametrize("content", [None, b"", b"x" * 4_000_000], ids=["missing", "empty", "garbage"])
def test_no_usable_state_file(node: Node, content: bytes | None, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    node.path = tmp_path / "other.state"
    if content is not None:
        node.path.write_bytes(content)
    assert node.program(init=False).ask("nvmlInit()") == NOT_LOADED
    assert "GPUWASTE_SIM_STATE" in capfd.readouterr().err


def test_gpu_lost_and_found(node: Node):
    program = node.program()
    assert program.ask("kept.update(set=event_set(0, 1), h=gpu(0))") is None
    say(node, "clock", "--advance", "1")
    say(node, "fault", "lost", "--gpu", gpu_uuid(0))
    for expression in ("nvmlDeviceGetMemoryInfo(kept['h'])", "gpu(0)", ENERGY, "sample(kept['h'])"):
        assert program.ask(expression) == LOST
    assert program.ask("nvmlDeviceGetMemoryInfo(gpu(1)).total") == 81920 << 20
    assert program.ask("nvmlEventSetWait_v2(kept['set'], 0).eventData") == 79
    assert program.ask("nvmlEventSetWait_v2(kept['set'], 0)") == LOST
    say(node, "clear", "--gpu", gpu_uuid(0))
    assert program.ask("nvmlDeviceGetIndex(kept['h'])") == 0


@pytest.mark.parametrize("xid", [79, 48, 63, 13])
def test_xid_reaches_every_set_that_waited_for_it(node: Node, xid: int):
    one, other, late = (node.program() for _ in range(3))
    for program in (one, other):
        program.ask("kept.update(set=event_set(0, 1))")
    say(node, "clock", "--advance", "1")
    say(node, "fault", "xid", "--gpu", gpu_uuid(1), "--xid", str(xid))
    late.ask("kept.update(set=event_set(0, 1))")
    about = "(e.eventData, e.eventType, nvmlDeviceGetIndex(e.device), e.gpuInstanceId)"
    wait = f"[{about} for e in [nvmlEventSetWait_v2(kept['set'], 0)]]"
    for program in (one, other):
        assert program.ask(wait) == [[xid, 8, 1, 0xFFFFFFFF]]
        assert program.ask(wait) == TIMEOUT
    assert late.ask(wait) == TIMEOUT


def test_event_ends_a_wait(node: Node):
    program = node.program()
    program.ask("kept.update(set=event_set(0))")
    say(node, "clock", "--run", "1")
    program.tell("nvmlEventSetWait_v2(kept['set'], 60000).eventData")
    time.sleep(0.1)
    say(node, "fault", "xid", "--gpu", gpu_uuid(0), "--xid", "48")
    assert program.answer() == 48


def test_error_counters_follow_xids(node: Node):
    program = node.program()
    counters = "fields(gpu(1), NVML_FI_DEV_ECC_DBE_VOL_TOTAL, NVML_FI_DEV_REMAPPED_UNC, NVML_FI_DEV_REMAPPED_PENDING)"
    assert program.ask(counters) == [0, 0, 0]
    say(node, "fault", "xid", "--gpu", gpu_uuid(1), "--xid", "63")
    say(node, "fault", "xid", "--gpu", gpu_uuid(1), "--xid", "48")
    assert program.ask(counters) == [1, 1, 1]


def test_scenario_faults(node_of: Callable[..., Node]):
    faults = [
        ScenarioFault(kind="lost", gpu=gpu_uuid(0), from_s=5, until_s=20),
        ScenarioFault(kind="xid", gpu=gpu_uuid(1), from_s=30, xid=48),
        ScenarioFault(kind="counter-reset", gpu=gpu_uuid(1), from_s=40),
        ScenarioFault(kind="clock-step", from_s=50, step_s=3600),
    ]
    node = node_of(a_node([a_gpu(0, "H100-80GB"), a_gpu(1, "T4-16GB")], [], faults), at=10)
    program = node.program()
    assert program.ask("gpu(0)") == LOST
    node.at(20)
    assert program.ask("kept.update(set=event_set(0, 1))") is None
    node.at(30)
    assert program.ask("nvmlEventSetWait_v2(kept['set'], 0).eventData") == 48
    energy = "nvmlDeviceGetTotalEnergyConsumption(gpu(1))"
    assert program.ask(energy) == 300_000
    node.at(41)
    assert program.ask(energy) == 10_000


def test_a_call_hangs(node: Node):
    program = node.program()
    say(node, "clock", "--run", "1")
    say(node, "fault", "hang", "--gpu", gpu_uuid(0), "--call", "nvmlDeviceGetMemoryInfo", "--for", "0.4")
    assert program.ask("nvmlDeviceGetIndex(gpu(0))") == 0
    begun = time.monotonic()
    assert program.ask("nvmlDeviceGetMemoryInfo(gpu(0)).total") == 81559 << 20
    assert 0.2 < time.monotonic() - begun < 5


def test_counter_starts_anew(node: Node):
    program = node.program()
    assert program.ask(ENERGY) == (70 + 315) * 10_000
    say(node, "fault", "counter-reset", "--gpu", gpu_uuid(0))
    assert program.ask(ENERGY) == 0
    say(node, "clock", "--advance", "2")
    assert program.ask(ENERGY) == (70 + 315) * 2_000
    node.at(5)  # a clock that goes back is no reason to answer more than there was
    assert program.ask(ENERGY) == (70 + 315) * 5_000


def test_driver_reload(node: Node):
    program = node.program()
    say(node, "clock", "--advance", "1")
    say(node, "fault", "driver-reload", "--for", "5")
    assert program.ask("nvmlDeviceGetCount()") == NOT_LOADED
    assert node.program(init=False).ask("nvmlInit()") == NOT_LOADED
    say(node, "clock", "--advance", "6")
    assert program.ask("nvmlDeviceGetCount()") == UNKNOWN  # the old session is of no use any more
    program.ask("nvmlShutdown()")
    program.ask("nvmlInit()")
    assert program.ask(ENERGY) == (70 + 315) * 1_000  # counts from the new driver's start


def test_gpm_between_two_samples(node_of: Callable[..., Node]):
    gpus = [a_gpu(0, "H100-80GB"), a_gpu(1, "H100-80GB", ("3g.40gb", 0), ("1g.10gb", 4))]
    load = [
        a_process(10, gpu_uuid(0), (0, 0.5, 0.4, 100, 0.3, 0.2), (15, 1.0, 0.8, 100, 0.3, 0.2)),
        a_process(20, mig_uuid(16), (0, 1.0, 0.25, 100, 0.5, 0.75)),
    ]
    node = node_of(a_node(gpus, load))
    program = node.program()
    program.ask("kept.update(a=sample(gpu(0)), i=sample(gpu(1), 1), d=sample(mig(1, 0)), g=sample(gpu(1)))")
    node.at(20)
    program.ask("kept.update(b=sample(gpu(0)), j=sample(gpu(1), 1), e=sample(mig(1, 0)), h=sample(gpu(1)))")
    wanted = "1, 2, 5, 10, 3, 30"  # duty, SMs, tensor, DRAM, occupancy (unknown to scenarios), decoder
    # Half the time at 0.5 × 0.4, half at 1 × 0.8; tensor and DRAM are parts of duty.
    assert program.ask(f"metrics(kept['a'], kept['b'], {wanted})") == pytest.approx([75, 50, 22.5, 15, None, 0])
    for first, second in (("i", "j"), ("d", "e")):
        found = program.ask(f"metrics(kept['{first}'], kept['{second}'], {wanted})")
        assert found == pytest.approx([100, 25, 50, 75, None, 0])
    # Of the whole GPU, by memory units.
    assert program.ask("metrics(kept['g'], kept['h'], 1, 2)") == pytest.approx([50, 12.5])
    assert program.ask("metrics(kept['b'], kept['a'], 1)") == Refused(2)
    assert program.ask("metrics(kept['a'], kept['j'], 1)") == Refused(2)


@pytest.mark.parametrize(("apart", "accepted"), [(0.099, False), (0.1, True)])
def test_gpm_samples_too_close(node: Node, apart: float, *, accepted: bool):
    program = node.program()
    program.ask("kept.update(a=sample(gpu(0)))")
    node.at(10 + apart)
    program.ask("kept.update(b=sample(gpu(0)))")
    found = program.ask("metrics(kept['a'], kept['b'], 2)")
    assert found == (pytest.approx([50]) if accepted else Refused(2))


def test_samples_and_event_sets_are_freed(node: Node):
    program = node.program()
    program.ask("kept.update(sample=sample(gpu(0)), set=event_set(0))")
    assert program.ask("nvmlGpmSampleFree(kept['sample'])") is None
    assert program.ask("nvmlEventSetFree(kept['set'])") is None
    assert program.ask("nvmlGpmSampleFree(None)") == Refused(2)
    assert program.ask("nvmlEventSetFree(None)") == Refused(2)


def test_accounting(node_of: Callable[..., Node]):
    later = a_process(11, gpu_uuid(0), (20, 0.5, 0.5, 300), (25, 1.0, 0.5, 200), from_s=20, until_s=30)
    node = node_of(a_node([a_gpu(0, "A10-24GB")], [a_process(10, gpu_uuid(0), (0, 0, 0, 100)), later]))
    program = node.program()
    assert program.ask("nvmlDeviceGetAccountingPids(gpu(0))") == Refused(3)
    program.ask("nvmlDeviceSetAccountingMode(gpu(0), 1)")
    node.at(25)
    assert program.ask("nvmlDeviceGetAccountingPids(gpu(0))") == [11]  # process 10 began before
    stats = program.ask("nvmlDeviceGetAccountingStats(gpu(0), 11)")
    assert (stats["gpuUtilization"], stats["time"], stats["isRunning"]) == (50, 0, 1)
    node.at(40)
    stats = program.ask("nvmlDeviceGetAccountingStats(gpu(0), 11)")
    assert (stats["gpuUtilization"], stats["time"], stats["isRunning"]) == (75, 10_000, 0)
    assert (stats["maxMemoryUsage"], stats["startTime"]) == (300 << 20, START_NS // 1000 + 20_000_000)
    assert program.ask("nvmlDeviceGetAccountingStats(gpu(0), 10)") == NOT_FOUND
    program.ask("nvmlDeviceClearAccountingPids(gpu(0))")
    assert program.ask("nvmlDeviceGetAccountingPids(gpu(0))") == []


def test_compute_mode_is_the_nodes(node: Node):
    one, other = node.program(), node.program()
    assert one.ask("nvmlDeviceSetComputeMode(gpu(0), NVML_COMPUTEMODE_EXCLUSIVE_PROCESS)") is None
    assert other.ask("nvmlDeviceGetComputeMode(gpu(0))") == 3
    assert one.ask("nvmlDeviceSetComputeMode(gpu(0), 7)") == Refused(2)


def scenario_file(folder: Path, node: Any) -> Path:
    path = folder / "scenario.json"
    path.write_text(dump_scenario(Scenario(nodes=(node,))))
    return path


def test_a_changed_scenario(node: Node, tmp_path: Path):
    """Layouts, processes and loads as the file says, from the moment it is read; what stays, stays."""
    program = node.program()
    assert program.ask("[p.pid for p in nvmlDeviceGetComputeRunningProcesses(gpu(0))]") == [10]
    gpus = [a_gpu(0, "H100-80GB"), a_gpu(1, "A100-80GB", ("1g.10gb", 0), ("2g.20gb", 2))]
    load = [
        a_process(10, gpu_uuid(0), (0, 0.5, 0.5, 700)),
        a_process(20, mig_uuid(16), (0, 1.0, 0.5, 200)),
    ]
    changed = scenario_file(tmp_path, a_node(gpus, load))
    assert say(node, "reload", "--scenario", str(changed), "--node", "node-a") == 0
    assert program.ask("nvmlDeviceGetMemoryInfo(gpu(0), nvmlMemory_v2).used") == 700 << 20
    assert program.ask("[nvmlDeviceGetUUID(mig(1, i)) for i in range(2)]") == [mig_uuid(17), mig_uuid(16)]
    assert program.ask("nvmlDeviceGetComputeRunningProcesses(mig(1, 1))[0].pid") == 20
    node.at(20)
    assert program.ask(ENERGY) == (70 + 315) * 10_000 + (70 + 157.5) * 10_000  # the past stays as it was
    scenario_file(tmp_path, a_node([*gpus[:1], a_gpu(1, "A100-80GB")], load[:1]))
    assert say(node, "reload", "--scenario", str(changed), "--node", "node-a") == 0
    assert program.ask("nvmlDeviceGetMigMode(gpu(1))") == [0, 0]


def test_follow_applies_the_file_as_it_changes(node: Node, tmp_path: Path):
    path = scenario_file(tmp_path, a_node([a_gpu(0, "H100-80GB"), a_gpu(1, "A100-80GB")], [BUSY]))
    program = node.program()
    command = [sys.executable, "-m", "tests.sim.nvml.control", "--state", str(node.path), "follow"]
    follower = subprocess.Popen([*command, "--scenario", str(path), "--node", "node-a"], cwd=ROOT)
    try:
        scenario_file(tmp_path, a_node([a_gpu(0, "H100-80GB"), a_gpu(1, "A100-80GB", ("7g.80gb", 0))], [BUSY]))
        end = time.monotonic() + 20
        while program.ask("nvmlDeviceGetMigMode(gpu(1))") != [1, 1]:
            assert time.monotonic() < end
            time.sleep(0.05)
    finally:
        follower.kill()
        follower.wait()


REFUSALS = [
    (["fault", "lost", "--gpu", "GPU-none"], "no GPU `GPU-none` here"),
    (["unregister", "--pid", "7"], "no process 7 runs here"),
    (["register", "--pid", "7", "--parent", "MIG-none", "--load", "1:1:1"], "no GPU `MIG-none` here"),
    (["reset", "--gpu", gpu_uuid(0)], "process 10 runs on it"),
]


@pytest.mark.parametrize(("words", "message"), REFUSALS, ids=[row[0][0] for row in REFUSALS])
def test_control_refuses(node: Node, words: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert say(node, *words) == 1
    assert message in capsys.readouterr().err


def test_reset_brings_a_pending_mig_mode(node: Node, capsys: pytest.CaptureFixture[str]):
    program, other = node.program(), node.program()
    program.ask("nvmlDeviceSetMigMode(gpu(1), 1)")
    assert say(node, "reset", "--gpu", gpu_uuid(1)) == 1
    assert "2 program(s) hold the driver open" in capsys.readouterr().err
    for each in (program, other):
        each.ask("nvmlShutdown()")
    assert say(node, "reset", "--gpu", gpu_uuid(1)) == 0
    program.ask("nvmlInit()")
    assert program.ask("nvmlDeviceGetMigMode(gpu(1))") == [1, 1]


def test_registered_process(node: Node, capsys: pytest.CaptureFixture[str]):
    program = node.program()
    assert say(node, "register", "--pid", "4321", "--parent", gpu_uuid(1), "--load", "0.5:0.2:128") == 0
    found = program.ask("nvmlDeviceGetComputeRunningProcesses(gpu(1))")
    assert [(p["pid"], p["usedGpuMemory"]) for p in found] == [(4321, 128 << 20)]
    node.at(20)
    assert say(node, "unregister", "--pid", "4321") == 0
    assert program.ask("nvmlDeviceGetComputeRunningProcesses(gpu(1))") == []
    assert say(node, "truth", "--from", "10", "--to", "30") == 0
    truth = json.loads(capsys.readouterr().out)["processes"]["4321"]
    assert (truth["duty_s"], truth["sm_s"]) == pytest.approx((5, 1))
