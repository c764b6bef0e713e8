"""The sampler against the truth of its scenario: exact integrals, whatever happens between readings."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.agent.builders import MINUTE, SECOND, START_NS, Rig, a_node, process

from gpuwaste_agent.simulate.scenario import ScenarioLoad
from gpuwaste_agent.simulate.truth import true_gpu_energy_joules, true_parents, true_processes
from gpuwaste_agent.wire import usage_pb2 as wire

FIGURES = ("duty", "sm", "tensor", "dram", "enc", "dec")


def varying(pid: int, *duties: float, width=0.5, step=7.0, parent="GPU-0"):
    load = [ScenarioLoad(i * step, duty, width, 500 + 10 * i) for i, duty in enumerate(duties)]
    return process(pid, 0, load=load, parent=parent)


ticks = st.lists(st.floats(0.2, 25), min_size=1, max_size=25)
duties = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@given(ticks=ticks, a=duties, b=duties, replicas=st.integers(2, 4), mps=st.booleans())
@settings(max_examples=60, deadline=None)
def test_parts_never_exceed_the_device_and_add_up_to_it(ticks, a, b, replicas, mps):
    node = (
        a_node()
        .gpu("H100-80GB", strategy="mps" if mps else "time-slicing", replicas=replicas)
        .pod("a", varying(1, *a, width=0.9), devices=["GPU-0::0"])
        .pod("b", varying(2, *b, width=0.2), devices=["GPU-0::1"])
        .on_host(varying(3, 0.1))
        .obj()
    )
    rig = Rig(node)
    at = 0.0
    for step in ticks:
        at += step
        rig.at(at)
    rig.flush()
    for index, device in enumerate(rig.devices()):
        holders = [u for u in rig.usages() if u.pod][2 * index : 2 * index + 2]
        for name in FIGURES:
            field = name + "_ns"
            if not device.unattributed.HasField(field):
                continue
            parts = sum(getattr(u.figures, field) for u in holders)
            rest, whole = getattr(device.unattributed, field), getattr(device.figures, field)
            if name == "duty" and mps:
                assert all(getattr(u.figures, field) <= whole for u in holders)
                continue
            assert parts + rest == max(whole, parts)
            assert parts <= whole
        assert sum(u.figures.energy_mj for u in holders) + device.unattributed.energy_mj == device.figures.energy_mj
        for usage in holders:
            quality = usage.figures.sm_quality
            assert quality.low <= usage.figures.sm_ns <= quality.high


@given(ticks=ticks, duties=duties)
@settings(max_examples=60, deadline=None)
def test_integrals_of_a_measured_device_equal_the_truth_at_any_ticks(ticks, duties):
    node = a_node().gpu("H100-80GB").pod("a", varying(1, *duties)).obj()
    rig = Rig(node)
    at = 0.0
    for step in ticks:
        at += step
        rig.at(at)
    rig.flush()
    end = (rig.clock.now_ns - START_NS) / SECOND
    truth = true_parents(node, 0, end)["GPU-0"]
    own = true_processes(node, 0, end)[1]
    for name, wanted in (("duty", truth.duty_s), ("sm", truth.sm_s)):
        assert sum(getattr(d.figures, name + "_ns") for d in rig.devices()) / SECOND == pytest.approx(wanted, abs=1e-6)
        assert rig.total("a", name + "_ns") / SECOND == pytest.approx(getattr(own, name + "_s"), abs=1e-6)
    energy = true_gpu_energy_joules(node, 0, end)["GPU-0"]
    assert sum(d.figures.energy_mj for d in rig.devices()) / 1000 == pytest.approx(energy, abs=0.01)


@pytest.mark.parametrize("product", ["T4-16GB", "A10-24GB", "A100-40GB", "L40S-48GB"])
def test_without_gpm_sm_is_unset_and_duty_comes_from_processes(product):
    node = a_node().gpu(product).pod("a", process(1, 0.3, 0.5)).obj()
    rig = Rig(node).every(1, 60)
    (usage,) = rig.usages("a")
    assert not usage.figures.HasField("sm_ns")
    assert not usage.figures.HasField("tensor_ns")
    assert usage.figures.duty_ns == 18 * SECOND
    assert usage.figures.duty_quality.origin == wire.process
    (device,) = rig.devices()
    assert not device.figures.HasField("sm_ns")
    assert device.figures.duty_quality.origin == wire.device


def test_a100_under_mig_has_no_activity_source_but_memory_and_holding():
    node = (
        a_node()
        .gpu("A100-80GB", mig=(("3g.40gb", 0), ("2g.20gb", 4)))
        .pod("a", process(1, 0.9, parent="MIG-0-0"), devices=["MIG-0-0"])
        .obj()
    )
    rig = Rig(node).every(1, 60)
    (usage,) = rig.usages("a")
    unset = ("duty_ns", "sm_ns", "tensor_ns", "dram_ns", "enc_ns", "dec_ns", "energy_mj")
    assert [name for name in unset if usage.figures.HasField(name)] == []
    assert usage.held_ns == MINUTE
    assert usage.figures.memory_byte_s == pytest.approx(1000 * 2**20 * 60)
    assert [d.weight_num for d in rig.devices()] == [4, 2]


def test_hopper_under_mig_is_measured_by_instance():
    node = (
        a_node()
        .gpu("H100-80GB", mig=(("3g.40gb", 0), ("1g.10gb", 4)))
        .pod("a", process(1, 0.9, 0.5, parent="MIG-0-0"), devices=["MIG-0-0"])
        .pod("b", process(2, 0.2, 1.0, parent="MIG-0-1"), devices=["MIG-0-1"])
        .obj()
    )
    rig = Rig(node).every(1, 60)
    assert [(u.pod, u.figures.duty_ns / SECOND, u.figures.sm_ns / SECOND) for u in rig.usages()] == [
        ("a", 54, 27),
        ("b", 12, 12),
    ]
    assert {u.figures.sm_quality.origin for u in rig.usages()} == {wire.gpm}
    joules = sum(d.figures.energy_mj for d in rig.devices()) / 1000
    assert joules <= true_gpu_energy_joules(node, 0, 60)["GPU-0"]


def test_mig_shared_in_time_cannot_tell_its_users_apart():
    node = (
        a_node()
        .gpu("H100-80GB", mig=(("3g.40gb", 0),), strategy="time-slicing", replicas=3)
        .pod("a", process(1, 0.5, parent="MIG-0-0"), devices=["MIG-0-0::0"])
        .pod("b", process(2, 0.3, parent="MIG-0-0"), devices=["MIG-0-0::1"])
        .pod("idle", devices=["MIG-0-0::2"])
        .obj()
    )
    rig = Rig(node).every(1, 60)
    assert not rig.usages("a")[0].figures.HasField("duty_ns")
    assert not rig.usages("b")[0].figures.HasField("sm_ns")
    assert rig.usages("idle")[0].figures.duty_ns == 0
    assert rig.usages("idle")[0].figures.HasField("sm_ns")
    (device,) = rig.devices()
    assert device.unattributed.sm_ns == device.figures.sm_ns == 48 * SECOND


def test_equal_duty_with_unequal_width_lies_inside_the_interval():
    node = (
        a_node()
        .gpu("H100-80GB", strategy="time-slicing", replicas=2)
        .pod("wide", process(1, 0.4, 0.9), devices=["GPU-0::0"])
        .pod("narrow", process(2, 0.4, 0.1), devices=["GPU-0::1"])
        .obj()
    )
    rig = Rig(node).every(1, 60)
    truth = true_processes(node, 0, 60)
    for pod, pid in (("wide", 1), ("narrow", 2)):
        figures = rig.usages(pod)[0].figures
        assert figures.sm_ns == 12 * SECOND
        assert figures.sm_quality.origin == wire.apportioned
        assert figures.sm_quality.low <= truth[pid].sm_s * SECOND <= figures.sm_quality.high


def test_windows_are_split_exactly_at_their_edges():
    load = [ScenarioLoad(0, 0, 0, 100), ScenarioLoad(60, 0.8, 0.5, 100)]
    node = a_node().gpu("H100-80GB").pod("a", process(1, 0, load=load)).obj()
    rig = Rig(node).at(60, 90, 130, 180)
    assert [d.figures.duty_ns for d in rig.devices()] == [0, 48 * SECOND, 48 * SECOND]
    assert [u.held_ns for u in rig.usages()] == [MINUTE] * 3


def test_one_reading_over_several_windows_fills_each_with_its_share():
    node = a_node().gpu("H100-80GB").pod("a", process(1, 0.5, 0.5)).obj()
    rig = Rig(node).at(30, 210).flush()
    starts = [r.window_start_unix_ns for r in rig.records if r.WhichOneof("body") == "device"]
    assert starts == [START_NS + i * MINUTE for i in range(4)]
    assert [d.figures.duty_ns for d in rig.devices()] == [30 * SECOND] * 3 + [15 * SECOND]


def test_a_memory_reading_stands_for_no_longer_than_the_limit():
    node = a_node().gpu("H100-80GB").pod("a", process(1, 0.5)).obj()
    rig = Rig(node, hold_limit_s=3).at(1, 2, 50, 60)
    quality = rig.devices()[0].figures
    assert quality.memory_quality.coverage_ppm == 2_000_000 // 60
    assert quality.duty_quality.coverage_ppm == 1_000_000


def test_a_container_between_readings_is_held_from_the_first_to_the_last_that_saw_it():
    node = a_node().gpu("T4-16GB").pod("a", from_s=10.5, until_s=20.5).obj()
    rig = Rig(node).every(1, 60)
    (usage,) = rig.usages("a")
    assert usage.held_ns == 10 * SECOND
    assert usage.held_since_unix_ns == START_NS + 11 * SECOND


def test_a_process_gone_before_it_was_read_is_missed_and_its_work_unattributed():
    node = a_node().gpu("T4-16GB").pod("a", process(1, 1.0, until_s=30.5)).obj()
    rig = Rig(node).every(1, 60)
    (usage,), (device,) = rig.usages("a"), rig.devices()
    assert usage.missed_processes == 1
    assert usage.figures.duty_ns == 30 * SECOND
    assert device.unattributed.duty_ns == SECOND // 2


def test_a_process_of_a_container_that_holds_nothing_is_told_by_uid():
    node = (
        a_node()
        .gpu("T4-16GB", strategy="time-slicing", replicas=2)
        .pod("reservation", devices=["GPU-0::0"])
        .pod("tenant", process(1, 0.4), devices=[])
        .obj()
    )
    rig = Rig(node).every(1, 60)
    tenant = next(u for u in rig.usages() if not u.slice_id)
    assert tenant.join == wire.PROCESS
    assert tenant.pod == ""
    assert (tenant.held_ns, tenant.figures.duty_ns) == (0, 24 * SECOND)
    assert rig.devices()[0].unattributed.duty_ns == 0


def test_a_holder_without_a_process_has_measured_zeros_of_all_that_is_measured():
    node = (
        a_node().gpu("H100-80GB").pod("late", process(1, 0.5, 0.4, from_s=30)).on_host(process(9, 0.2, 0.1, until_s=10))
    )
    rig = Rig(node.obj()).every(1, 60)
    (usage,), (device,) = rig.usages("late"), rig.devices()
    for figure in ("duty", "sm", "tensor", "dram"):
        assert getattr(usage.figures, f"{figure}_quality").coverage_ppm == 1_000_000, figure
        parts = [getattr(part, f"{figure}_ns") for part in (usage.figures, device.unattributed)]
        assert sum(parts) == getattr(device.figures, f"{figure}_ns") > parts[1] > 0, figure


class HidesMemory:
    """A driver that tells nothing of one process's memory."""

    def __init__(self, inner, pid):
        self._inner, self._pid = inner, pid

    def read(self, gpu_uuid):
        reading = self._inner.read(gpu_uuid)
        return reading._replace(parents=[self._hidden(parent) for parent in reading.parents])

    def _hidden(self, parent):
        told = [s._replace(memory_bytes=None) if s.pid == self._pid else s for s in parent.processes]
        return parent._replace(processes=told)


def test_memory_of_a_process_that_the_driver_does_not_tell_is_unmeasured_and_not_zero():
    node = (
        a_node()
        .gpu("A100-80GB", strategy="time-slicing", replicas=3)
        .pod("hidden", process(1, 0.2, from_s=20), process(2, 0.2, from_s=40), devices=["GPU-0::0"])
        .pod("told", process(3, 0.2), devices=["GPU-0::1"])
        .pod("idle", devices=["GPU-0::2"])
    )
    rig = Rig(node.obj())
    rig.sampler._nvml = HidesMemory(rig.sampler._nvml, 1)
    rig.every(1, 60)
    (hidden,), (told,), (idle,), (device,) = *(rig.usages(name) for name in ("hidden", "told", "idle")), rig.devices()
    # Its first twenty seconds without a process are a measured zero, and no more is known of it.
    assert (hidden.figures.memory_byte_s, hidden.figures.memory_quality.coverage_ppm) == (0, 333_333)
    assert told.figures.memory_byte_s == 60 * 1000 * 2**20
    assert told.figures.memory_quality.coverage_ppm == 1_000_000
    assert idle.figures.HasField("memory_byte_s")
    assert not device.unattributed.HasField("memory_byte_s")
    rig.records.clear()
    (hidden,) = rig.at(*range(61, 121)).usages("hidden")
    assert not hidden.figures.HasField("memory_byte_s")
    assert not hidden.figures.HasField("memory_peak_bytes")


def test_ids_of_containers_that_left_are_in_their_window_and_then_forgotten():
    node = a_node().gpu("T4-16GB")
    for number in range(120):
        node.pod(
            f"p{number}", process(number + 1, 0.5, from_s=number, until_s=number + 1), from_s=number, until_s=number + 1
        )
    rig = Rig(node.obj()).every(0.5, 120)
    assert all(usage.container_id for number in range(1, 119) for usage in rig.usages(f"p{number}"))
    assert len(rig.sampler._table.container_ids) <= 61


def test_host_processes_are_unattributed():
    node = a_node().gpu("T4-16GB").pod("a").on_host(process(1, 0.25)).obj()
    rig = Rig(node).every(1, 60)
    assert rig.usages("a")[0].figures.duty_ns == 0
    assert rig.devices()[0].unattributed.duty_ns == 15 * SECOND


def test_several_slices_of_one_container_divide_its_figures():
    node = (
        a_node()
        .gpu("T4-16GB", strategy="time-slicing", replicas=4)
        .pod("a", process(1, 0.5), devices=["GPU-0::0", "GPU-0::2"])
        .obj()
    )
    rig = Rig(node).every(1, 60)
    assert [(u.slice_id, u.figures.duty_ns) for u in rig.usages()] == [
        ("GPU-0::0", 15 * SECOND),
        ("GPU-0::2", 15 * SECOND),
    ]


def test_a_lost_gpu_is_unhealthy_and_unmeasured_and_comes_back():
    node = (
        a_node().gpu("H100-80GB").pod("a", process(1, 0.5)).fault("lost", gpu="GPU-0", from_s=15.5, until_s=40.5).obj()
    )
    rig = Rig(node).every(1, 120)
    first, second = rig.devices()
    assert first.unhealthy_ns == 25 * SECOND
    assert first.figures.duty_quality.coverage_ppm == pytest.approx(35 / 60 * 1e6, abs=1)
    assert first.figures.duty_ns == 17_500_000_000
    assert second.figures.duty_ns == 30 * SECOND
    assert second.unhealthy_ns == 0


@pytest.mark.parametrize(("xid", "unhealthy_s"), [(79, 60), (31, 0)])
def test_only_hardware_xids_make_a_gpu_unhealthy(xid, unhealthy_s):
    node = a_node().gpu("H100-80GB").pod("a").fault("xid", gpu="GPU-0", from_s=59.5, until_s=119.5, xid=xid).obj()
    rig = Rig(node).every(1, 180)
    assert [list(d.xids) for d in rig.devices()] == [[], [xid], []]
    assert sum(d.unhealthy_ns for d in rig.devices()) == unhealthy_s * SECOND


def test_a_reset_energy_counter_loses_its_span_and_counts_nothing_twice():
    node = a_node().gpu("T4-16GB").fault("counter-reset", gpu="GPU-0", from_s=30.0).obj()
    rig = Rig(node).every(1, 60)
    (device,) = rig.devices()
    assert device.figures.energy_mj == pytest.approx(59 * 10_000, abs=20)
    assert device.figures.energy_quality.coverage_ppm == pytest.approx(59 / 60 * 1e6, abs=1)


def test_a_clock_stepped_forward_leaves_a_gap_and_counts_only_real_time():
    node = a_node().gpu("H100-80GB").pod("a", process(1, 0.5)).obj()
    rig = Rig(node).every(1, 30)
    rig.clock.step_ns = 300 * SECOND
    rig.at(*range(31, 61)).flush()
    gaps = [r.gap for r in rig.records if r.WhichOneof("body") == "gap"]
    assert [(g.from_unix_ns - START_NS, g.to_unix_ns - START_NS) for g in gaps] == [(30 * SECOND, 330 * SECOND)]
    assert sum(u.held_ns for u in rig.usages()) == 60 * SECOND
    assert rig.total("a", "duty_ns") == 30 * SECOND


def test_a_clock_stepped_back_never_fills_a_window_twice():
    node = a_node().gpu("H100-80GB").pod("a", process(1, 1.0)).obj()
    rig = Rig(node).every(1, 90)
    rig.clock.step_ns = -60 * SECOND
    rig.at(*range(91, 301)).flush()
    by_window: dict[int, int] = {}
    for record in rig.records:
        if record.WhichOneof("body") == "device":
            start = record.window_start_unix_ns
            by_window[start] = by_window.get(start, 0) + record.device.figures.duty_ns
    assert max(by_window.values()) <= MINUTE
    assert len(by_window) == 4


def test_coverage_says_how_much_of_the_window_was_read():
    node = a_node().gpu("H100-80GB").pod("a", process(1, 0.5)).obj()
    rig = Rig(node).every(1, 15).flush()
    quality = rig.devices()[0].figures.duty_quality
    assert (quality.coverage_ppm, quality.resolution_ms) == (250_000, 1000)


def test_first_activity_is_the_first_reading_with_work_not_the_first_process():
    load = [ScenarioLoad(0, 0, 0, 100), ScenarioLoad(70, 0.8, 0.5, 100)]
    node = a_node().gpu("H100-80GB").pod("a", process(1, 0, load=load)).obj()
    rig = Rig(node).every(1, 120)
    first, second = rig.usages("a")
    assert not first.HasField("first_activity_unix_ns")
    assert second.first_activity_unix_ns == START_NS + 71 * SECOND


def test_names_and_uids_meet():
    node = a_node().gpu("H100-80GB").pod("busy", process(1, 0.5)).obj()
    rig = Rig(node).every(1, 60)
    (usage,) = rig.usages()
    assert usage.join == wire.EXACT
    assert usage.container_id
    idle = Rig(a_node().gpu("H100-80GB").pod("idle").obj()).every(1, 60).usages()[0]
    assert idle.join == wire.LOG_DIR
