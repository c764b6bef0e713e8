"""What the agents' windows say, held against what the simulated driver knows to be true."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.sim.nvml.change import history

from gpuwaste_agent.simulate.truth import true_gpu_energy_joules, true_parents, true_processes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tests.e2e.agent.sides import Container, Pod, Side
    from tests.sim.nvml.state import SimState

    from gpuwaste_agent.simulate.truth import ParentTruth, ProcessTruth
    from gpuwaste_agent.wire import usage_pb2 as wire

__all__ = ["Row", "Truth", "judge", "table"]

SECOND = 1_000_000_000
WITHIN = 0.01
SHORT_WITHIN = 0.02
_PARTS = ("duty_ns", "sm_ns", "tensor_ns", "dram_ns", "enc_ns", "dec_ns", "energy_mj")
# Readings at either end of a fault, and the time in which the agent finds out that it is over.
_AWAY_SLACK_S = 15.0
_HELD_SLACK_S = 6.0


class Truth:
    """What really ran on a node between two times, in seconds of its driver."""

    def __init__(self, sim: SimState, since_s: float, until_s: float) -> None:
        self.node = history(sim, name="", uid="", by_slot=True)
        self.seconds = until_s - since_s
        self.processes = true_processes(self.node, since_s, until_s)
        self.parents = true_parents(self.node, since_s, until_s)
        self.joules = true_gpu_energy_joules(self.node, since_s, until_s)
        slots = sim.state.processes[: sim.state.process_count]
        self._hosts = {number: slot.name.decode() for number, slot in enumerate(slots, 1)}

    def of(self, host: str, parents: Sequence[str], container: Container | None = None) -> list[ProcessTruth]:
        """Processes of a pod (by its host name) on some parents; of one container where its load tells them apart."""
        found = []
        first = None if container is None else tuple(float(part) for part in container.load[0].split("@")[0].split(":"))
        for process in self.node.processes:
            mine = self._hosts[process.pid] == host and process.parent in parents
            if mine and (first is None or any(point[1:4] == first[:3] for point in process.load)):
                found.append(self.processes.get(process.pid))
        return [truth for truth in found if truth is not None]


@dataclass(kw_only=True)
class Row:
    """One scenario's result; `wrong` says what does not hold."""

    name: str
    containers: int = 0
    true_duty_s: float = 0.0
    duty_error: float | None = None
    sm_error: float | None = None
    width: float | None = None
    notes: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def _sum(figures: Iterable[wire.Figures], name: str) -> float:
    return sum(getattr(each, f"{name}_ns") for each in figures) / SECOND


def _known(figures: Iterable[wire.Figures], name: str) -> list[wire.Figures]:
    return [each for each in figures if each.HasField(f"{name}_ns")]


def _worse(error: float | None, other: float) -> float:
    return other if error is None else max(error, other)


class _Judge:
    def __init__(
        self, side: Side, records: Sequence[wire.Record], truth: Truth, uids: Mapping[str, Sequence[str]]
    ) -> None:
        self.side, self.truth, self.uids = side, truth, uids
        self.parents = [parent for gpu in side.gpus for parent in gpu.parent_ids]
        self.windows: dict[tuple[int, str], list[wire.Usage]] = defaultdict(list)
        self.usages: list[wire.Usage] = []
        self.devices: list[tuple[int, wire.Device]] = []
        for record in records:
            body = record.WhichOneof("body")
            if body == "usage" and record.usage.parent_id in self.parents:
                self.usages.append(record.usage)
                self.windows[record.window_start_unix_ns, record.usage.parent_id].append(record.usage)
            elif body == "device" and record.device.parent_id in self.parents:
                self.devices.append((record.window_start_unix_ns, record.device))
        self.row = Row(name=side.name)

    def must(self, holds: object, what: str) -> None:
        if not holds:
            self.row.wrong.append(what)

    def measured_part(self, parent: str) -> float:
        """Of the time judged, the part for which a parent was read."""
        covered = sum(
            device.figures.memory_quality.coverage_ppm / 1e6 * 60
            for _, device in self.devices
            if device.parent_id == parent
        )
        return min(1.0, covered / self.truth.seconds)

    def device_errors(self) -> None:
        for parent in self.parents:
            true = self.truth.parents[parent]
            figures = [device.figures for _, device in self.devices if device.parent_id == parent]
            part = self.measured_part(parent) if self.side.away_s else 1.0
            self._device_error(parent, true, figures, part)

    def _device_error(self, parent: str, true: ParentTruth, figures: list[wire.Figures], part: float) -> None:
        known = _known(figures, "sm")
        if known and true.sm_s:
            error = abs(_sum(known, "sm") - true.sm_s * part) / (true.sm_s * part)
            self.row.sm_error = _worse(self.row.sm_error, error)
            self.must(error <= WITHIN, f"SM-seconds of {parent} are off by {error:.2%}")
        known = _known(figures, "duty")
        if known and true.duty_s:
            error = abs(_sum(known, "duty") - true.duty_s * part) / (true.duty_s * part)
            self.must(error <= WITHIN, f"duty of the device {parent} is off by {error:.2%}")
        if self.side.away_s:
            lost_s = (1 - part) * self.truth.seconds
            self.row.notes.append(f"unmeasured {lost_s:.0f} s of {self.side.away_s:.0f} s away")
            fits = self.side.away_s - 2 <= lost_s <= self.side.away_s + _AWAY_SLACK_S
            self.must(fits, f"{lost_s:.0f} s are unmeasured")

    def never_above_the_device(self) -> None:
        for start, device in self.devices:
            users = self.windows.get((start, device.parent_id), [])
            mps = self.side.gpus[0].strategy == "mps"
            for name in _PARTS:
                parts = [getattr(user.figures, name) for user in users if user.figures.HasField(name)]
                if not parts or not device.figures.HasField(name):
                    continue
                told = max(parts) if mps and name == "duty_ns" else sum(parts)
                self.must(told <= getattr(device.figures, name), f"{name} of the parts pass the device in {start}")

    def containers(self) -> None:
        for pod in self.side.pods:
            for container in pod.containers:
                self._container(pod, container)

    def _container(self, pod: Pod, container: Container) -> None:
        uids = self.uids[pod.name]
        several = len(pod.containers) > 1
        mine = [u for u in self.usages if u.pod_uid in uids and (not several or u.container == container.name)]
        who = f"{pod.name}/{container.name}"
        self.must(bool(mine), f"nothing is told of {who}")
        if not mine:
            return
        self.row.containers += 1
        slices = 1 if pod.claim else container.slices
        held = sum(usage.held_ns for usage in mine) / SECOND
        wanted = slices * self.truth.seconds
        slack = _HELD_SLACK_S * max(1, slices) + (25 if self.side.recreated else 0)
        self.must(abs(held - wanted) <= slack, f"{who} held {held:.1f} s of {wanted:.0f} s")
        truths = self.truth.of(pod.name, self.parents, container if several else None) if container.load else []
        duty, sm = (sum(getattr(true, f"{name}_s") for true in truths) for name in ("duty", "sm"))
        self.row.true_duty_s += duty
        figures = [usage.figures for usage in mine]
        if not self.side.measured:
            self.must(not _known(figures, "sm"), f"SM time of {who} is told although nobody can know it")
            self.must(not _known(figures, "duty"), f"duty of {who} is told although nobody can know it")
            return
        part = self.measured_part(self.parents[0]) if self.side.away_s else 1.0
        told = _sum(_known(figures, "duty"), "duty")
        if duty:
            error = abs(told - duty * part) / (duty * part)
            self.row.duty_error = _worse(self.row.duty_error, error)
            self.must(error <= WITHIN, f"duty of {who}: {told:.2f} s, in truth {duty * part:.2f} s ({error:.2%})")
        else:
            self.must(told < 0.01, f"{who} did nothing and {told:.2f} s are told")
        self._interval(who, figures, sm * part)
        for engine in ("enc", "dec"):
            true = sum(getattr(truth, f"{engine}_s") for truth in truths)
            known = _known(figures, engine)
            if true and known:
                told = _sum(known, engine)
                self.must(
                    abs(told - true) <= WITHIN * true + 0.5, f"{engine} of {who}: {told:.1f} s, true {true:.1f} s"
                )

    def _interval(self, who: str, figures: list[wire.Figures], true: float) -> None:
        known = _known(figures, "sm")
        if not known:
            return
        low = sum(f.sm_quality.low if f.sm_quality.HasField("low") else f.sm_ns for f in known) / SECOND
        high = sum(f.sm_quality.high if f.sm_quality.HasField("high") else f.sm_ns for f in known) / SECOND
        slack = WITHIN * max(self.truth.parents[parent].duty_s for parent in self.parents) + 0.05
        inside = low - slack <= true <= high + slack
        self.must(inside, f"SM time of {who}: {true:.1f} s lie outside {low:.1f} to {high:.1f} s")
        self.row.width = _worse(self.row.width, high - low)

    def host(self) -> None:
        told = _sum([device.unattributed for _, device in self.devices], "duty")
        everything = sum(self.truth.parents[parent].duty_s for parent in self.parents)
        pods = sum(t.duty_s for pod in self.side.pods for t in self.truth.of(pod.name, self.parents))
        true = everything - pods
        self.row.notes.append(f"unattributed {told:.1f} s, in truth {true:.1f} s")
        self.must(abs(told - true) <= WITHIN * everything + 0.5, "the host's process is not what is unattributed")

    def short_pods(self, lived: Mapping[str, str]) -> None:
        """Short containers: duty, unattributed and what was missed cover the truth within 2 % of the device."""
        (parent,) = self.parents
        true = self.truth.parents[parent].duty_s
        told = _sum(_known([usage.figures for usage in self.usages], "duty"), "duty")
        rest = _sum([device.unattributed for _, device in self.devices], "duty")
        error = abs(told + rest - true) / self.truth.seconds
        missed = sum(usage.missed_processes for usage in self.usages)
        seen = {usage.pod_uid for usage in self.usages}
        self.row.true_duty_s, self.row.containers = true, len(lived)
        self.row.notes.append(
            f"{len(lived)} pods, {len(seen & lived.keys())} told of; duty {told:.1f} s and unattributed {rest:.1f} s "
            f"of {true:.1f} s: off by {error:.2%} of the device; {missed} processes ended unread"
        )
        self.must(error <= SHORT_WITHIN, "duty and unattributed do not cover the truth")
        self.must(len(lived) >= 0.9 * self.side.churn, f"only {len(lived)} short pods ran")

    def faults(self) -> None:
        fault = self.side.fault
        unhealthy = sum(device.unhealthy_ns for _, device in self.devices) / SECOND
        xids = {xid for _, device in self.devices for xid in device.xids}
        if fault is not None and fault.kind == "xid":
            self.must(xids == {fault.xid}, f"XIDs told: {sorted(xids)}")
            # A shorter run has its faults sooner.
            after_s = fault.after_s * min(1.0, self.truth.seconds / 600)
            wanted = self.truth.seconds - after_s if fault.xid != 31 else 0
            self.row.notes.append(f"XID {fault.xid}, unhealthy {unhealthy:.0f} s")
            self.must(abs(unhealthy - wanted) <= 3, f"unhealthy for {unhealthy:.0f} s instead of {wanted:.0f} s")
        elif fault is not None and fault.kind == "lost":
            self.row.notes.append(f"unhealthy {unhealthy:.0f} s")
            fits = fault.seconds is not None and fault.seconds - 2 <= unhealthy <= fault.seconds + _AWAY_SLACK_S
            self.must(fits, f"unhealthy for {unhealthy:.0f} s")
        else:
            self.must(not xids and not unhealthy, f"XIDs {sorted(xids)}, unhealthy for {unhealthy:.0f} s")
        if fault is not None and fault.kind == "counter-reset":
            told = sum(device.figures.energy_mj for _, device in self.devices) / 1000
            true = self.truth.joules[self.side.gpus[0].uuid]
            self.row.notes.append(f"energy {told:.0f} J of {true:.0f} J")
            self.must(0 <= (true - told) / true <= WITHIN, "the reset counter loses more than a reading, or gains")


def judge(
    side: Side,
    records: Sequence[wire.Record],
    truth: Truth,
    uids: Mapping[str, Sequence[str]],
    lived: Mapping[str, str],
) -> Row:
    """Judge one scenario.

    Args:
        side: the scenario.
        records: all records of its node in the time judged.
        truth: of its node in the same time.
        uids: UIDs of the pods by name; several where one was made again.
        lived: names of the short pods by UID.
    """
    one = _Judge(side, records, truth, uids)
    one.must(len(one.devices) >= len(one.parents) * truth.seconds / 60 - 0.5, "windows are missing")
    one.device_errors()
    one.never_above_the_device()
    one.containers()
    one.faults()
    if side.host:
        one.host()
    if side.churn:
        one.short_pods(lived)
    if not side.measured:
        one.row.notes.append("unset, as nobody can tell")
    return one.row


def _percent(error: float | None) -> str:
    return "-" if error is None else f"{error:.3%}"


def table(rows: Sequence[Row]) -> str:
    """The rows as text."""
    lines = [
        f"{'scenario':32} {'containers':>10} {'duty s':>8} {'duty error':>10} {'SM error':>9} {'interval s':>10}  notes"
    ]
    for row in rows:
        width = "-" if row.width is None else f"{row.width:.1f}"
        lines.append(
            f"{row.name:32} {row.containers:10} {row.true_duty_s:8.1f} {_percent(row.duty_error):>10} "
            f"{_percent(row.sm_error):>9} {width:>10}  {'; '.join(row.notes)}{' WRONG: ' if row.wrong else ''}"
            f"{'; '.join(row.wrong)}"
        )
    return "\n".join(lines)
