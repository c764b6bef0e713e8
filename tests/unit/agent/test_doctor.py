"""The doctor's findings by product and setting."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.agent.builders import SECOND, a_node

from gpuwaste_agent.clock import SteppedClock
from gpuwaste_agent.doctor import (
    check_driver,
    check_gpu,
    check_health,
    check_holdings,
    check_journal,
    check_paths,
    render,
)
from gpuwaste_agent.simulate.kubelet import SimulatedHoldings
from gpuwaste_agent.simulate.nvml import SimulatedNvml
from gpuwaste_agent.telemetry import DriverFacts, GpuHealth, GpuReading

MIG = (("3g.40gb", 0),)


def findings(product: str, mig=None, refused=()):
    clock = SteppedClock(0)
    nvml = SimulatedNvml(a_node().gpu(product, mig=mig).obj(), clock, 0)
    clock.now_ns = SECOND
    (gpu,) = nvml.gpus()
    return {f.figure: f for f in check_gpu(gpu, nvml.read(gpu.uuid), dict(refused))}


@pytest.mark.parametrize(
    ("product", "mig", "figure", "state", "text"),
    [
        ("H100-80GB", None, "sm", "readable", "GPM"),
        ("H100-80GB", MIG, "sm", "readable", "GPM"),
        ("H100-80GB", MIG, "enc", "not readable", "no encoder or decoder use under MIG"),
        ("H100-80GB", None, "copy", "not readable", "no figure for the copy engines"),
        ("A100-80GB", None, "duty", "readable", "device utilization"),
        ("A100-80GB", None, "sm", "not readable", "GPM only, from Hopper on"),
        ("A100-80GB", MIG, "duty", "not readable", "before that MIG has no activity figure at all"),
        ("A100-80GB", MIG, "memory", "readable", "NVML"),
        ("A100-80GB", MIG, "processes", "readable", "told apart by memory alone"),
        ("P100-16GB", None, "energy", "not readable", "no energy counter"),
        ("T4-16GB", None, "energy", "readable", "energy counter"),
    ],
)
def test_each_figure_says_its_source_or_why_not(product, mig, figure, state, text):
    finding = findings(product, mig)[figure]
    assert finding.state == state
    assert text in finding.why


def test_an_exporter_is_advised_where_it_helps_and_nowhere_else():
    assert "--dcgm-exporter" in findings("A100-80GB", MIG)["sm"].fix
    assert findings("A100-80GB", MIG)["copy"].fix == ""
    fix = findings("A100-80GB")["pcie"].fix
    assert fix.endswith("--dcgm-exporter and let it collect DCGM_FI_PROF_PCIE_TX_BYTES and DCGM_FI_PROF_PCIE_RX_BYTES")
    assert findings("H100-80GB")["nvlink"].fix == ""
    assert not any(f.fix for f in findings("H100-80GB").values())


def test_a_missing_privilege_under_mig_is_named_with_its_value():
    finding = findings("A100-80GB", MIG, {"gpm": "Insufficient Permissions"})["duty"]
    assert "Insufficient Permissions" in finding.why
    assert "agent.migMonitoring" in finding.fix


def test_a_lost_gpu_is_broken():
    nvml = SimulatedNvml(a_node().gpu("T4-16GB").obj(), SteppedClock(0), 0)
    (finding,) = check_gpu(nvml.gpus()[0], GpuReading(unhealthy=True, xids=(79,), energy_mj=None, parents=()), {})
    assert (finding.state, finding.why) == ("broken", "the GPU is lost: it answers no call")


def test_a_silent_kubelet_is_broken_and_says_what_to_mount():
    finding = check_holdings(None, "UNAVAILABLE", Path("/x.sock"))
    assert (finding.state, finding.why) == ("broken", "UNAVAILABLE")
    assert "/x.sock" in finding.fix
    held = SimulatedHoldings(a_node().gpu("T4-16GB").pod("a").obj(), SteppedClock(0), 0).poll()
    assert check_holdings(held, "", Path("/x")).why == "1 slices held, 1 allocatable, 1 with a UID"


@pytest.mark.parametrize(("comm", "state"), [("systemd", "readable"), ("pause", "not readable"), (None, "broken")])
def test_the_hosts_processes_must_be_visible(tmp_path, comm, state):
    if comm:
        (tmp_path / "1").mkdir()
        (tmp_path / "1" / "comm").write_text(comm + "\n")
    logs, owners = check_paths(proc=tmp_path, pod_logs=tmp_path, processes=True)
    assert logs.state == "readable"
    assert owners.state == state
    assert check_paths(proc=tmp_path, pod_logs=tmp_path / "none", processes=False)[0].state == "not readable"


def test_the_table_says_the_same_once():
    clock = SteppedClock(0)
    nvml = SimulatedNvml(a_node().gpu("T4-16GB").gpu("T4-16GB").obj(), clock, 0)
    clock.now_ns = SECOND
    found = [f for gpu in nvml.gpus() for f in check_gpu(gpu, nvml.read(gpu.uuid), {})]
    table = render(found, "table")
    assert "GPU-0 and 1 more  sm" in table
    assert len(table.splitlines()) == 1 + len(found) // 2
    assert len(json.loads(render(found, "json"))) == len(found)


def test_versions_and_topology():
    topology = json.dumps({"GPU-0": {"nvlinks": 18, "nvlink_peers": {"GPU-1": 18}}, "GPU-1": {"nvlinks": 0}})
    driver = DriverFacts(driver_version="580", cuda_version="13.0", nvml_version="13", topology_json=topology)
    versions, linked, alone = check_driver(driver)
    assert versions.why == "driver 580, NVML 13, CUDA 13.0"
    assert linked.why == "nvlink peers {'GPU-1': 18}, nvlinks 18"
    assert (alone.state, alone.why) == ("not readable", "the driver tells nothing")


@pytest.mark.parametrize(
    ("health", "state", "text"),
    [
        (GpuHealth(ecc_enabled=True, ecc_uncorrected=0), "readable", "on, uncorrected errors 0"),
        (GpuHealth(ecc_enabled=False), "readable", "off, uncorrected errors not told"),
        (GpuHealth(ecc_enabled=True, ecc_uncorrected=2, remap_pending=True), "broken", "reset the GPU"),
        (GpuHealth(ecc_enabled=True, remap_pending=True, remap_failed=True), "broken", "replaced"),
        (GpuHealth(), "not readable", "no ECC"),
    ],
)
def test_memory_errors_say_what_to_do(health, state, text):
    (gpu,) = SimulatedNvml(a_node().gpu("T4-16GB").obj(), SteppedClock(0), 0).gpus()
    ecc, throttling = check_health(gpu, health)
    assert ecc.state == state
    assert text in ecc.why + ecc.fix
    assert (throttling.state, throttling.why) == ("not readable", "the driver does not tell it")


def test_throttling_is_named():
    (gpu,) = SimulatedNvml(a_node().gpu("T4-16GB").obj(), SteppedClock(0), 0).gpus()
    throttling = check_health(gpu, GpuHealth(throttle=("sw_power_cap", "hw_thermal_slowdown")))[1]
    assert (throttling.state, throttling.why) == ("readable", "sw_power_cap, hw_thermal_slowdown")


def test_a_journal_needs_a_volume(tmp_path):
    assert check_journal(tmp_path / "not" / "yet", 1 << 20).state == "readable"
