"""Twenty-odd ways to hold and use a GPU, ten minutes each on a compressed clock with late ticks.

Run with `-s` for the table of errors against the truth: duty-seconds per container, SM-seconds per device.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from tests.unit.agent.builders import SECOND, NodeBuilder, Rig, a_node, process

from gpuwaste_agent.simulate.scenario import ScenarioLoad
from gpuwaste_agent.simulate.truth import true_parents, true_processes

if TYPE_CHECKING:
    from gpuwaste_agent.wire import usage_pb2 as wire

LENGTH = 600
HOPPER, AMPERE, TURING = "H100-80GB", "A100-80GB", "T4-16GB"


def steps(pid: int, duties, *, width=0.5, every=17.3, parent="GPU-0", **kwargs):
    load = [ScenarioLoad(i * every, duty, width, 2000 + i, 0.2, 0.3) for i, duty in enumerate(duties)]
    return process(pid, 0, load=load, parent=parent, **kwargs)


WAVE = [0.1, 0.9, 0.4, 0.0, 0.7, 0.25] * 5
TURNS = [0.3, 0.05, 0.2, 0.0, 0.1, 0.15] * 5


def shared(product: str, count: int, strategy="time-slicing") -> NodeBuilder:
    node = a_node().gpu(product, strategy=strategy, replicas=max(2, count))
    for index in range(count):
        duties = [duty * 2 / count for duty in TURNS[index:] + TURNS[:index]]
        duties = [round(duty, 2) for duty in duties]
        node.pod(f"p{index}", steps(10 + index, duties, width=0.2 + 0.1 * index), devices=[f"GPU-0::{index}"])
    return node


def mig(product: str, *profiles: tuple[str, int], busy: int) -> NodeBuilder:
    node = a_node().gpu(product, mig=profiles)
    for index in range(busy):
        parent = f"MIG-0-{index}"
        node.pod(f"p{index}", steps(10 + index, WAVE[index:] + WAVE[:index], parent=parent), devices=[parent])
    return node


def blinks() -> NodeBuilder:
    """Containers that live three tenths of a second: most are never seen by a reading."""
    node = a_node().gpu(HOPPER)
    for index in range(100):
        start = index * 6.0 + 0.013 * index
        node.pod(
            f"p{index}",
            process(10 + index, 0.8, 0.5, from_s=start, until_s=start + 0.3),
            from_s=start,
            until_s=start + 0.3,
        )
    return node


def churn() -> NodeBuilder:
    """A hundred pods of six seconds, one after the other."""
    node = a_node().gpu(HOPPER)
    for index in range(100):
        start = index * 6.0
        node.pod(
            f"p{index}",
            process(10 + index, 0.5, 0.5, from_s=start, until_s=start + 5.5),
            from_s=start,
            until_s=start + 6,
        )
    return node


@dataclass(frozen=True)
class Case:
    name: str
    node: NodeBuilder
    interval: float = 1.0
    # False: nobody can tell who used the parent, and nobody may pretend to.
    measured: bool = True
    # The node's clock is stepped: (when, by how many seconds).
    steps_s: tuple[tuple[float, int], ...] = ()
    # The driver does not answer between these times.
    away_s: tuple[float, float] | None = None


CASES = [
    Case("exclusive H100", a_node().gpu(HOPPER).pod("a", steps(1, WAVE))),
    Case("exclusive A100", a_node().gpu(AMPERE).pod("a", steps(1, WAVE))),
    Case("exclusive T4", a_node().gpu(TURING).pod("a", steps(1, WAVE))),
    Case("exclusive and idle", a_node().gpu(HOPPER).pod("a")),
    Case("two GPUs in a container", a_node().gpu(HOPPER).gpu(HOPPER).pod(
        "a", steps(1, WAVE), steps(2, TURNS, parent="GPU-1"), devices=["GPU-0", "GPU-1"])),
    Case("two processes in a container", a_node().gpu(HOPPER).pod(
        "a", steps(1, TURNS), steps(2, TURNS[3:] + TURNS[:3]))),
    Case("2 pods time-sliced, H100", shared(HOPPER, 2)),
    Case("4 pods time-sliced, H100", shared(HOPPER, 4)),
    Case("8 pods time-sliced, H100", shared(HOPPER, 8)),
    Case("2 pods time-sliced, T4", shared(TURING, 2)),
    Case("8 pods time-sliced, A100", shared(AMPERE, 8)),
    Case("70/20 duty, unequal width", a_node().gpu(HOPPER, strategy="time-slicing", replicas=2).pod(
        "a", process(1, 0.7, 0.1), devices=["GPU-0::0"]).pod("b", process(2, 0.2, 1.0), devices=["GPU-0::1"])),
    Case("equal duty, unequal width", a_node().gpu(HOPPER, strategy="time-slicing", replicas=2).pod(
        "a", process(1, 0.45, 0.95), devices=["GPU-0::0"]).pod("b", process(2, 0.45, 0.05), devices=["GPU-0::1"])),
    Case("oversubscribed", a_node().gpu(HOPPER, strategy="time-slicing", replicas=2).pod(
        "a", process(1, 0.9, 0.9), devices=["GPU-0::0"]).pod("b", process(2, 0.9, 0.2), devices=["GPU-0::1"])),
    Case("MPS, 3 clients", shared(HOPPER, 3, strategy="mps")),
    Case("MIG 7 x 1g, H100", mig(HOPPER, *(("1g.10gb", start) for start in range(7)), busy=7)),
    Case("MIG mix, H100", mig(HOPPER, ("3g.40gb", 4), ("2g.20gb", 0), ("1g.10gb", 2), busy=3)),
    Case("MIG with an idle instance, H200", mig("H200-141GB", ("4g.71gb", 0), ("3g.71gb", 4), busy=1)),
    Case("MIG, A100: no source", mig(AMPERE, ("3g.40gb", 0), ("3g.40gb", 4), busy=2), measured=False),
    Case("MIG and time-slicing", a_node().gpu(HOPPER, mig=(("3g.40gb", 0),), strategy="time-slicing", replicas=2).pod(
        "a", steps(1, TURNS, parent="MIG-0-0"), devices=["MIG-0-0::0"]).pod(
        "b", steps(2, TURNS, parent="MIG-0-0"), devices=["MIG-0-0::1"]), measured=False),
    Case("reservation pod and tenant", a_node().gpu(HOPPER).pod("reservation").pod(
        "tenant", steps(1, WAVE), devices=[])),
    Case("process of the host beside a pod", a_node().gpu(TURING).pod("a", steps(1, TURNS)).on_host(process(2, 0.2))),
    Case("churn of 100 short pods", churn(), interval=0.25),
    Case("100 containers of 0.3 s", blinks()),
    Case("DRA claim shared by 2 pods", a_node().gpu(HOPPER).pod("a", steps(1, TURNS), claim="ns/c").pod(
        "b", steps(2, TURNS[2:] + TURNS[:2], width=0.9), claim="ns/c")),
    Case("GPU lost and back", a_node().gpu(HOPPER).pod("a", steps(1, WAVE)).fault(
        "lost", gpu="GPU-0", from_s=120, until_s=180), away_s=(120, 180)),
    Case("driver reloaded", a_node().gpu(HOPPER).gpu(TURING).pod("a", steps(1, WAVE)).pod(
        "b", steps(2, WAVE, parent="GPU-1"), devices=["GPU-1"]).fault(
        "driver-reload", from_s=300, until_s=320), away_s=(300, 320)),
    Case("application XID", a_node().gpu(HOPPER).pod("a", steps(1, WAVE)).fault(
        "xid", gpu="GPU-0", from_s=100, xid=31)),
    Case("hardware XID", a_node().gpu(HOPPER).pod("a", steps(1, WAVE)).fault(
        "xid", gpu="GPU-0", from_s=100, until_s=200, xid=79)),
    Case("energy counter reset", a_node().gpu(HOPPER).pod("a", steps(1, WAVE)).fault(
        "counter-reset", gpu="GPU-0", from_s=301)),
    Case("encoder and decoder", a_node().gpu(TURING, strategy="time-slicing", replicas=2).pod("a", process(
        1, 0, load=[ScenarioLoad(i * 31.0, 0.1, 0.2, 500, 0, 0, 0.15 * (i % 5), 0.1) for i in range(20)]),
        devices=["GPU-0::0"]).pod("b", process(2, 0, load=[ScenarioLoad(0, 0, 0, 400, 0, 0, 0.25, 0.5)]),
        devices=["GPU-0::1"])),
    Case("every quarter of a second", shared(HOPPER, 2), interval=0.25),
    Case("every minute", shared(HOPPER, 2), interval=60),
    Case("clock stepped forward", a_node().gpu(HOPPER).pod("a", steps(1, WAVE)), steps_s=((200.0, 500),)),
]  # fmt: skip


def sampled(case: Case) -> Rig:
    rig = Rig(case.node.obj())
    at = 0.0
    jumps = dict(case.steps_s)
    late = random.Random(case.name)
    while at < LENGTH:
        at = min(LENGTH, at + case.interval * late.uniform(0.9, 1.15))
        for when, step in list(jumps.items()):
            if at > when:
                rig.clock.step_ns += step * SECOND
                del jumps[when]
        rig.at(at)
    return rig.flush()


def never_above_the_device(rig: Rig, *, overlapping: bool) -> None:
    """In every window, for every figure."""
    windows: dict[tuple[int, str], list[wire.Usage]] = {}
    for record in rig.records:
        if record.WhichOneof("body") == "usage":
            windows.setdefault((record.window_start_unix_ns, record.usage.parent_id), []).append(record.usage)
    for record in rig.records:
        if record.WhichOneof("body") != "device":
            continue
        device = record.device
        users = windows.get((record.window_start_unix_ns, device.parent_id), [])
        for figure in ("duty_ns", "sm_ns", "tensor_ns", "dram_ns", "enc_ns", "dec_ns", "energy_mj"):
            parts = [getattr(user.figures, figure) for user in users if user.figures.HasField(figure)]
            if figure == "duty_ns" and overlapping:
                assert all(part <= getattr(device.figures, figure) for part in parts)
            elif parts and device.figures.HasField(figure):
                assert sum(parts) <= getattr(device.figures, figure)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_against_the_truth(case):
    node = case.node.obj()
    rig = sampled(case)
    truths, parents = true_processes(node, 0, LENGTH), true_parents(node, 0, LENGTH)
    away = case.away_s or (0.0, 0.0)
    lost, lost_parents = true_processes(node, *away), true_parents(node, *away)
    overlapping = any(gpu.strategy == "mps" for gpu in node.gpus)
    never_above_the_device(rig, overlapping=overlapping)
    worst_duty = worst_sm = 0.0
    for container in node.containers:
        mine = [u for u in rig.usages() if u.pod_uid == container.pod_uid]
        held = sum(u.held_ns for u in mine) / SECOND
        life = min(container.until_s, LENGTH) - container.from_s
        assert held == pytest.approx(life * len(container.devices), abs=1.2 * case.interval)
        true_duty = sum(truths[one.pid].duty_s - lost[one.pid].duty_s for one in container.processes)
        true_sm = sum(truths[one.pid].sm_s for one in container.processes)
        if not case.measured:
            assert not any(u.figures.HasField("sm_ns") for u in mine)
            continue
        duty = sum(u.figures.duty_ns for u in mine) / SECOND
        if life >= 20 * case.interval and true_duty:
            # Half a reading at either end of the time away is not read either.
            error = max(0.0, abs(duty - true_duty) - (2 * case.interval if case.away_s else 0))
            worst_duty = max(worst_duty, error / true_duty)
        for engine in ("enc", "dec"):
            wanted = sum(getattr(truths[one.pid], engine + "_s") for one in container.processes)
            found = [getattr(u.figures, engine + "_ns") for u in mine if u.figures.HasField(engine + "_ns")]
            assert not found or sum(found) / SECOND == pytest.approx(wanted, rel=0.01, abs=0.01), engine
        measured = [u.figures for u in mine if u.figures.HasField("sm_ns")]
        if measured:
            low = sum(f.sm_quality.low if f.sm_quality.HasField("low") else f.sm_ns for f in measured) / SECOND
            high = sum(f.sm_quality.high if f.sm_quality.HasField("high") else f.sm_ns for f in measured) / SECOND
            true_sm -= sum(lost[one.pid].sm_s for one in container.processes)
            slack = 0.01 * max(parents[p].duty_s for p in parents) + (2 * case.interval if case.away_s else 1e-6)
            assert low - slack <= true_sm <= high + slack
    for parent, truth in parents.items():
        figures = [d.figures for d in rig.devices(parent) if d.figures.HasField("sm_ns")]
        true_sm = truth.sm_s - lost_parents[parent].sm_s
        if figures and true_sm:
            error = abs(sum(f.sm_ns for f in figures) / SECOND - true_sm)
            worst_sm = max(worst_sm, max(0.0, error - (2 * case.interval if case.away_s else 0)) / true_sm)
    for parent, truth in parents.items():
        told = sum(u.figures.duty_ns for u in rig.usages() if u.parent_id == parent)
        told += sum(d.unattributed.duty_ns for d in rig.devices(parent))
        if case.measured and not overlapping:
            true_duty = truth.duty_s - lost_parents[parent].duty_s
            assert told / SECOND == pytest.approx(true_duty, abs=0.02 * LENGTH)
    print(f"{case.name:36} error of duty {worst_duty:8.4%}, of SM time {worst_sm:8.4%}")
    assert worst_duty <= 0.01
    assert worst_sm <= 0.01
