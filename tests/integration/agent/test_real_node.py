"""The agent as it runs on a node: NVML by the real bindings, the kubelet's socket, /proc and the log directory.

The driver is the simulated library with NVML's real ABI; the kubelet is a grpc server on a unix socket.
"""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from tests.integration.agent.real_node import CONTAINER, start
from tests.sim.nvml.change import apply_node, clients, register
from tests.unit.agent.builders import SECOND, name_uid

from gpuwaste_agent.journal import Journal
from gpuwaste_agent.simulate.scenario import ScenarioLoad
from gpuwaste_agent.wire.usage_pb2 import Batch


@pytest.fixture
def running(node):
    process_ = start(node)
    line = process_.stderr.readline()
    assert "windows on port" in line, line + process_.stderr.read()
    port = int(line.split("windows on port ")[1].split(",")[0])
    yield process_, f"http://127.0.0.1:{port}/v1/windows?limit=20000"
    process_.kill()
    process_.communicate(timeout=10)


def full_windows(url: str, wanted: int, after: int = 0):
    """Records of so many windows that were read whole."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"{url}&after={after}", timeout=5) as answer:  # noqa: S310 - loopback
            records = Batch.FromString(answer.read()).records
        whole = {
            r.window_start_unix_ns
            for r in records
            if r.WhichOneof("body") == "device" and r.device.figures.memory_quality.coverage_ppm == 1_000_000
        }
        if len(whole) > wanted:
            starts = sorted(whole)[-wanted:]
            return [r for r in records if r.window_start_unix_ns in starts]
        time.sleep(0.2)
    raise AssertionError("too few whole windows")


def test_figures_agree_with_the_load(running):
    _, url = running
    windows = 5
    records = full_windows(url, windows)
    usages = [r.usage for r in records if r.WhichOneof("body") == "usage"]
    devices = [r.device for r in records if r.WhichOneof("body") == "device"]

    def total(pod, figure):
        return sum(getattr(u.figures, figure) for u in usages if u.pod == pod) / SECOND / windows

    assert total("busy", "duty_ns") == pytest.approx(0.7, rel=0.01)
    assert total("light", "duty_ns") == pytest.approx(0.2, rel=0.01)
    assert total("mig", "duty_ns") == pytest.approx(0.4, rel=0.01)
    assert total("mig", "sm_ns") == pytest.approx(0.2, rel=0.01)
    assert total("t4", "duty_ns") == pytest.approx(0.3, rel=0.01)
    shared = sum(d.figures.sm_ns for d in devices if d.parent_id == "GPU-0") / SECOND / windows
    assert shared == pytest.approx(0.7 * 0.5 + 0.2 * 0.25, rel=0.01)
    for pod, true_sm in (("busy", 0.35), ("light", 0.05)):
        low = sum(u.figures.sm_quality.low for u in usages if u.pod == pod) / SECOND / windows
        high = sum(u.figures.sm_quality.high for u in usages if u.pod == pod) / SECOND / windows
        assert low - 0.01 <= true_sm <= high + 0.01
    host = sum(d.unattributed.duty_ns for d in devices if d.parent_id == "GPU-2") / SECOND / windows
    assert host == pytest.approx(0.1, abs=0.01)
    a100 = next(u for u in usages if u.pod == "a100")
    assert not a100.figures.HasField("duty_ns")
    assert a100.held_ns == SECOND
    assert {u.pod_uid for u in usages} == {name_uid(u.pod) for u in usages}
    assert {u.container_id for u in usages} == {CONTAINER}


def test_a_layout_change_is_seen_and_no_window_is_lost(running, node):
    _, url = running
    _, _, state, scenario, _ = node
    full_windows(url, 1)
    gpu = scenario.gpus[1]
    changed = dataclasses.replace(
        scenario,
        gpus=(scenario.gpus[0], dataclasses.replace(gpu, mig=gpu.mig[:1]), *scenario.gpus[2:]),
    )
    apply_node(state, changed)
    deadline = time.monotonic() + 25
    while time.monotonic() < deadline:
        parents = {r.device.parent_id for r in full_windows(url, 1) if r.WhichOneof("body") == "device"}
        if "MIG-1-1" not in parents:
            break
        time.sleep(0.5)
    assert "MIG-1-0" in parents
    assert "MIG-1-1" not in parents


def fault(state, kind: str, **more) -> None:
    with state.writing():
        state.add_fault(kind, from_ns=state.now_ns(), **more)


def devices_of(url: str, windows: int = 1):
    return [r.device for r in full_windows(url, windows) if r.WhichOneof("body") == "device"]


def test_an_xid_is_told_of_the_gpu_it_happened_to(running, node):
    _, url = running
    full_windows(url, 1)
    fault(node[2], "xid", gpu="GPU-2", xid=31)
    fault(node[2], "xid", gpu="GPU-3", xid=48)
    deadline = time.monotonic() + 10
    told: dict[str, set[int]] = {}
    facts: dict[str, tuple] = {}
    while len(told) + len(facts) < 4 and time.monotonic() < deadline:
        time.sleep(0.3)
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - loopback
            for record in Batch.FromString(answer.read()).records:
                if record.device.xids:
                    told.setdefault(record.device.gpu_uuid, set()).update(record.device.xids)
                for gpu in record.node_facts.gpus:
                    if gpu.health.xids:
                        xids = [(one.xid, one.count) for one in gpu.health.xids]
                        facts[gpu.uuid] = (xids, gpu.health.ecc_uncorrected, gpu.health.throttling_known)
    assert told == {"GPU-2": {31}, "GPU-3": {48}}
    # XID 48 is a double-bit error.
    assert facts == {"GPU-2": ([(31, 1)], 0, True), "GPU-3": ([(48, 1)], 1, True)}
    unhealthy = {d.gpu_uuid for d in devices_of(url) if d.unhealthy_ns}
    assert unhealthy <= {"GPU-3"}


def test_a_lost_gpu_stays_in_the_windows_and_costs_the_others_no_reading(running, node):
    """Longer than it takes the agent to look for changed GPUs again."""
    process_, url = running
    full_windows(url, 1)
    fault(node[2], "lost", gpu="GPU-2")
    time.sleep(12)
    devices = devices_of(url, 9)
    lost = [d for d in devices if d.gpu_uuid == "GPU-2"]
    assert len(lost) == 9
    assert {d.unhealthy_ns for d in lost} == {SECOND}
    assert not any(d.figures.HasField("duty_ns") for d in lost)
    assert {d.figures.sm_quality.coverage_ppm for d in devices if d.gpu_uuid == "GPU-0"} == {1_000_000}
    state = node[2]
    with state.writing():
        for one in state.state.faults[: state.state.fault_count]:
            one.until_ns = state.now_ns()
    deadline = time.monotonic() + 25
    while time.monotonic() < deadline:
        back = [d for d in devices_of(url) if d.gpu_uuid == "GPU-2"]
        if back[0].figures.HasField("duty_ns") and not back[0].unhealthy_ns:
            break
        time.sleep(0.5)
    assert back[0].figures.duty_ns / SECOND == pytest.approx(0.4, abs=0.02)
    assert process_.poll() is None


def test_while_the_driver_is_reloaded_slices_are_held_on_and_nothing_is_measured(running, node):
    """Longer than the time between two questions to the kubelet."""
    _, url = running
    since = {r.usage.pod: r.usage.held_since_unix_ns for r in full_windows(url, 2) if r.usage.pod}
    state = node[2]
    with state.writing():
        began = state.now_ns()
        state.add_fault("driver-reload", from_ns=began, until_ns=began + 7 * SECOND)
    time.sleep(9)
    back = full_windows(url, 1)
    assert {r.usage.pod for r in back if r.usage.pod} == set(since)
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - loopback
        records = Batch.FromString(answer.read()).records
    first = state.state.start_utc_ns + began + SECOND
    away = [r for r in records if first <= r.window_start_unix_ns < first + 4 * SECOND]
    held = [r.usage for r in away if r.usage.pod]
    assert len(held) >= 3 * len(since)
    assert all(usage.held_ns == SECOND for usage in held)
    assert all(usage.held_since_unix_ns == since[usage.pod] for usage in held)
    devices = [r.device for r in away if r.WhichOneof("body") == "device"]
    assert not any(d.figures.HasField("sm_ns") or d.unhealthy_ns for d in devices)


def test_a_call_that_never_returns_does_not_keep_the_agent_from_leaving(running, node, tmp_path):
    process_, url = running
    full_windows(url, 1)
    fault(node[2], "hang", gpu="GPU-1")
    time.sleep(0.5)
    began = time.monotonic()
    process_.send_signal(signal.SIGTERM)
    _, errors = process_.communicate(timeout=10)
    assert time.monotonic() - began < 2.5
    assert process_.returncode == 0
    assert "does not return" in errors
    assert clients(node[2]) == 0
    journal = Journal(tmp_path / "journal")
    assert journal.writable
    journal.close()


def test_the_driver_is_let_go_within_a_second_while_the_kubelet_is_silent(running, node):
    process_, url = running
    full_windows(url, 1)
    node[4].silent = True
    time.sleep(5.5)  # so that the agent waits for an answer
    process_.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 1
    while clients(node[2]) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert clients(node[2]) == 0
    node[4].silent = False
    process_.communicate(timeout=10)
    assert process_.returncode == 0


def test_the_driver_is_let_go_at_once(running):
    process_, url = running
    full_windows(url, 1)
    began = time.monotonic()
    process_.send_signal(signal.SIGTERM)
    process_.wait(timeout=10)
    assert time.monotonic() - began < 1.5
    assert process_.returncode == 0


COUNTING = """
import collections, json, sys
folder, opened = sys.argv.pop(1), collections.Counter()
def watch(event, args):
    if event in ("open", "os.open", "os.listdir", "os.scandir", "os.readlink") and str(args[0]).startswith(folder):
        opened[str(args[0])] += 1
sys.addaudithook(watch)
from gpuwaste_agent.main import main
main()
print(json.dumps(opened))
"""


def test_the_process_join_costs_one_read_of_proc_for_each_pid(node, tmp_path):
    """Counted by the interpreter itself, over many readings; holders change, processes come and go."""
    flags, environment, state, scenario, kubelet = node
    proc = tmp_path / "proc"
    words = [sys.executable, "-c", COUNTING, str(proc), *map(str, flags)]
    agent = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = agent.stderr.readline()
        assert "windows on port" in line, line + agent.stderr.read()
        url = f"http://127.0.0.1:{line.split('windows on port ')[1].split(',')[0]}/v1/windows?limit=20000"
        full_windows(url, 1)
        for pid in range(200, 230):
            register(state, pid, "GPU-0", ScenarioLoad(0, 0.01, 0.1, 10), until_s=state.now_ns() / SECOND + 2)
            if pid % 2:
                (proc / str(pid)).mkdir()
                uid = scenario.containers[pid % 3].pod_uid
                (proc / str(pid) / "cgroup").write_text(f"0::/kubepods/pod{uid}/{CONTAINER}\n")
        kubelet.give("late", "nvidia.com/gpu", "GPU-0::1", container="c")
        time.sleep(6)  # until the agent has asked the kubelet again
        agent.send_signal(signal.SIGTERM)
        out, _ = agent.communicate(timeout=10)
    finally:
        agent.kill()
    reads = json.loads(out)
    wanted = {proc / str(pid) / "cgroup" for pid in (*range(101, 107), *range(200, 230))}
    assert {Path(path) for path in reads} == wanted
    assert set(reads.values()) == {1}


def test_the_doctor_names_what_cannot_be_read_and_why(node):
    process_ = start(node, "doctor", "-o", "json")
    out, errors = process_.communicate(timeout=30)
    assert process_.returncode == 0, errors
    found = {(f["subject"], f["figure"]): f for f in json.loads(out)}
    assert found["GPU-0", "sm"]["state"] == "readable"
    assert found["MIG-1-0", "sm"]["why"] == "GPM"
    assert "dcgm-exporter" in found["MIG-3-0", "duty"]["fix"]
    assert found["GPU-2", "sm"]["state"] == "not readable"
    assert "CUDA 13.0" in found["driver", "versions"]["why"]
    assert found["GPU-0", "ecc"]["why"] == "on, uncorrected errors 0"
    assert found["GPU-0", "throttling"]["why"] == "none now"
    assert found["GPU-0", "sharing"]["why"] == "time-slicing, 2 slices"
    assert "pcie generation 5" in found["GPU-0", "topology"]["why"]
    assert "MiB free" in next(f["why"] for (_, figure), f in found.items() if figure == "journal")
    assert "hostPID" in next(f["fix"] for (_, figure), f in found.items() if figure == "owners")
