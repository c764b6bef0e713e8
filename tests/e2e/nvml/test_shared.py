"""Programs of a node share its GPUs: load from real processes, PID namespaces, sudden deaths, other languages."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.e2e.nvml.nodes import SECOND, START_NS, a_gpu, a_node, a_process, gpu_uuid, mig_uuid
from tests.sim.nvml.build import SANITIZE, header_folder
from tests.sim.nvml.control import main as control

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.nvml.nodes import Node, Program

HERE = Path(__file__).parent
DEADLINE_SECONDS = 20.0
SINCE_US = START_NS // 1000 + 10_000_000  # where the tests' clocks stand first
RUNNING = "nvmlDeviceGetComputeRunningProcesses(gpu(0))"


def until(condition: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + DEADLINE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < end, f"waited for {what}"
        time.sleep(0.01)
    return found


def pids(program: Program, expression: str = RUNNING) -> list[int]:
    return [process["pid"] for process in program.ask(expression)]


@pytest.fixture
def node(node_of: Callable[..., Node]) -> Node:
    return node_of(a_node([a_gpu(0, "H100-80GB"), a_gpu(1, "H100-80GB", ("3g.40gb", 0), ("1g.10gb", 4))]))


def load(node: Node, *words: str, under: tuple[str, ...] = (), **environment: str) -> subprocess.Popen[str]:
    """Start the load program; its end is the caller's business."""
    node.environment.update(environment)
    return node.start(*under, str(node.library / "gpuwaste-load"), *words)


def test_a_real_process_is_seen_and_seen_to_end(node: Node):
    program = node.program()
    child = load(node, "--gpu", gpu_uuid(0), "0.5:0.2:256")
    until(lambda: pids(program) == [child.pid], "the process")
    assert program.ask(RUNNING)[0]["usedGpuMemory"] == 256 << 20
    node.at(20)
    assert program.ask(f"nvmlDeviceGetProcessUtilization(gpu(0), {SINCE_US})[0].smUtil") == 50
    child.terminate()
    assert child.wait(timeout=DEADLINE_SECONDS) == 0
    assert pids(program) == []


def test_a_killed_process_ends_too(node: Node):
    program = node.program()
    child = load(node, "--gpu", gpu_uuid(0), "1:1:256")
    until(lambda: pids(program), "the process")
    child.kill()
    child.wait()
    assert pids(program) == []
    node.at(30)
    program.ask("kept.update(a=sample(gpu(0)))")
    node.at(40)
    assert program.ask("metrics(kept['a'], sample(gpu(0)), 1, 2)") == [0, 0]


def test_devices_as_the_device_plugin_names_them(node: Node):
    program = node.program()
    child = load(node, "0.5:0.2:256", NVIDIA_VISIBLE_DEVICES=f"{gpu_uuid(0)}::3,{mig_uuid(16)}")
    until(lambda: pids(program) == [child.pid], "the process on the GPU")
    until(lambda: pids(program, "nvmlDeviceGetComputeRunningProcesses(mig(1, 0))") == [child.pid], "on the instance")
    assert program.ask("nvmlComputeInstanceDestroy(compute(1, 1, 0))").number == 19


def test_each_sees_pids_of_its_own_namespace(node: Node):
    """A process in a PID namespace of its own has another number for those outside, and sees none of them."""
    inside = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    outside = load(node, "--gpu", gpu_uuid(0), "0.1:0.1:1")
    program = node.program()
    until(lambda: pids(program) == [outside.pid], "the first process")
    load(node, "--gpu", gpu_uuid(0), "0.1:0.1:2", under=inside)
    both = until(lambda: (found := pids(program))[1:] and found, "the process inside")
    (real,) = set(both) - {outside.pid}
    name = Path(f"/proc/{real}/status").read_text()
    assert "gpuwaste-load" in name
    assert f"NSpid:\t{real}\t1\n" in name
    contained = node.program(under=inside)
    assert pids(contained) == []
    os.kill(real, signal.SIGTERM)  # it is the first process there, which the kernel shields from most signals
    until(lambda: pids(program) == [outside.pid], "its end")


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        pytest.param(("--gpu", "GPU-none", "1:1:1"), 3, "No such device", id="no such GPU"),
        pytest.param(("--gpu", gpu_uuid(1), "1:1:1"), 3, "No such device", id="a GPU under MIG"),
        pytest.param(("--gpu", gpu_uuid(0), "2:1:1"), 1, "the load is refused", id="a duty above one"),
        pytest.param(("--gpu", gpu_uuid(0), "half"), 2, "no step", id="no step"),
        pytest.param(("1:1:1",), 2, "none given", id="no GPU"),
    ],
)
def test_load_refused(node: Node, words: tuple[str, ...], status: int, message: str):
    done = subprocess.run(
        [node.library / "gpuwaste-load", *words], env=node.variables(), capture_output=True, text=True, check=False
    )
    assert done.returncode == status
    assert message in done.stderr


def refused_load(node: Node, *words: str) -> str:
    command = [node.library / "gpuwaste-load", *words]
    done = subprocess.run(command, env=node.variables(), capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 3
    return done.stderr


def test_compute_mode_is_kept(node: Node):
    """One process on an exclusive GPU, none on a prohibited one."""
    program = node.program()
    program.ask("nvmlDeviceSetComputeMode(gpu(0), NVML_COMPUTEMODE_EXCLUSIVE_PROCESS)")
    first = load(node, "--gpu", gpu_uuid(0), "0.1:0.1:1")
    until(lambda: pids(program) == [first.pid], "the first process")
    assert "busy" in refused_load(node, "--gpu", gpu_uuid(0), "0.1:0.1:1")
    first.kill()
    first.wait()
    second = load(node, "--gpu", gpu_uuid(0), "0.1:0.1:1")
    until(lambda: pids(program) == [second.pid], "the second process")
    program.ask("nvmlDeviceSetComputeMode(gpu(0), NVML_COMPUTEMODE_PROHIBITED)")
    assert "denied" in refused_load(node, "--gpu", gpu_uuid(0), "0.1:0.1:1")


def test_threads_read_at_once(node: Node):
    """Eight threads of a program read the energy counter on a running clock: none sees it go back."""
    child = load(node, "--gpu", gpu_uuid(0), "0.5:0.5:1")
    node.sim.run_clock(speed=100.0)
    program = node.program()
    until(lambda: pids(program) == [child.pid], "the process")
    assert program.ask("read_by_threads(8, 500)") == 0


def test_steps_follow_the_real_clock(node: Node, capsys: pytest.CaptureFixture[str]):
    """On a compressed clock a load of three steps adds up to what truth says."""
    node.sim.run_clock(speed=20.0)
    program = node.program()
    child = load(node, "--gpu", gpu_uuid(0), "1:0.5:100", "0.25:1:200@0.4", "0:0:50@0.8")
    until(lambda: program.ask(RUNNING) and program.ask(RUNNING)[0]["usedGpuMemory"] == 50 << 20, "the last step")
    assert control(["--state", str(node.path), "truth"]) == 0
    truth = json.loads(capsys.readouterr().out)["processes"][str(child.pid)]
    # Two steps of 0.4 real seconds, 8 of the scenario: 8 + 2 and 4 + 2, within what scheduling takes.
    assert truth["duty_s"] == pytest.approx(10, rel=0.2)
    assert truth["sm_s"] == pytest.approx(6, rel=0.2)


KILLED = """
import os, signal, sys, threading
from pathlib import Path
from tests.sim.nvml.change import register
from tests.sim.nvml.state import SimState
from gpuwaste_agent.simulate.scenario import ScenarioLoad
sim = SimState(Path(sys.argv[1]))
print("ready", flush=True)
for pid in range(1000, 1150):
    register(sim, pid, sys.argv[2], ScenarioLoad(0, 0.001, 0.001, 1), until_s=0.001)
while True:
    sim.set_clock(sim.now_ns())
"""


def test_writers_killed_in_the_middle_harm_nobody(node: Node):
    """Again and again a busy writer is killed: the next one writes on, and readers see whole entries only."""
    program = node.program()
    for _ in range(15):
        writer = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(node.path), gpu_uuid(0)],
            cwd=HERE.parents[2],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(0.003)
        os.kill(writer.pid, signal.SIGKILL)
        writer.communicate()
        found = program.ask("nvmlDeviceGetUtilizationRates(gpu(0)).gpu")
        assert 0 <= found <= 100
    child = load(node, "--gpu", gpu_uuid(0), "0.5:0.5:7")
    until(lambda: child.pid in pids(program), "a process registered after all that")
    count = node.sim.state.process_count
    assert count > 15
    assert all(process.first for process in node.sim.state.processes[:count] if process.published)


EXPECTED = """\
0 NVIDIA H100 80GB HBM3 81559 77:500 sm 40 MIG off
1 Tesla T4 15360 MIG Not Supported
2 NVIDIA A100-SXM4-80GB 81920 78:100 MIG on
"""


def compile_client(folder: Path, *flags: str) -> Path:
    program = folder / "client"
    source = [str(HERE / "client.c"), "-o", str(program), "-ldl"]
    common = ["gcc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-isystem", str(header_folder())]
    subprocess.run([*common, *flags, *source], check=True)
    return program


def mixed_node() -> Any:
    gpus = [a_gpu(0, "H100-80GB"), a_gpu(1, "T4-16GB"), a_gpu(2, "A100-80GB", ("7g.80gb", 0))]
    return a_node(gpus, [a_process(77, gpu_uuid(0), (0, 0.4, 0.5, 500)), a_process(78, mig_uuid(32), (0, 1, 1, 100))])


def test_c_program_by_dlopen(node_of: Callable[..., Node], tmp_path: Path):
    node = node_of(mixed_node())
    client = compile_client(tmp_path)
    linked = subprocess.run(["ldd", client], capture_output=True, text=True, check=True).stdout
    assert "nvidia" not in linked
    done = subprocess.run([client], env=node.variables(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, EXPECTED, "")


def test_c_program_without_a_driver(tmp_path: Path):
    environment = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    done = subprocess.run([compile_client(tmp_path)], env=environment, capture_output=True, text=True, check=False)
    if Path("/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1").exists():
        pytest.skip("this machine has a real driver")
    assert done.returncode == 12


def test_c_program_sanitized(node_of: Callable[..., Node], sanitized_library: Path, tmp_path: Path):
    node = node_of(mixed_node())
    node.library = sanitized_library
    client = compile_client(tmp_path, *SANITIZE.split())
    done = subprocess.run([client], env=node.variables(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, EXPECTED, "")


def test_time_of_a_node_is_one(node: Node):
    """Two programs read the same running clock."""
    node.sim.run_clock(speed=1000.0)
    programs = [node.program() for _ in range(2)]
    stamps = [program.ask("nvmlDeviceGetFieldValues(gpu(0), [1])[0].timestamp") for program in programs]
    stamps.append(programs[0].ask("nvmlDeviceGetFieldValues(gpu(0), [1])[0].timestamp"))
    assert stamps == sorted(stamps)
    assert (node.sim.now_ns() + node.sim.state.start_utc_ns) // 1000 >= stamps[-1]
    assert node.sim.now_ns() > 10 * SECOND
