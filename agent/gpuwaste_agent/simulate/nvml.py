"""A driver that answers from a scenario as the real products would: what they cannot measure is None."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gpuwaste_agent.holdings import Sharing
from gpuwaste_agent.simulate.scenario import STRATEGIES
from gpuwaste_agent.simulate.timeline import parent_timeline, processes_on
from gpuwaste_agent.telemetry import (
    APPLICATION_XIDS,
    NO_ACTIVITY,
    Activity,
    DriverFacts,
    GpuInfo,
    GpuReading,
    Origin,
    ParentInfo,
    ParentReading,
    ProcessSample,
)

if TYPE_CHECKING:
    from gpuwaste_agent.clock import Clock
    from gpuwaste_agent.simulate.scenario import ScenarioGpu, ScenarioNode
    from gpuwaste_agent.simulate.timeline import Piece, Rate
    from gpuwaste_agent.telemetry import GpuHealth

__all__ = ["SimulatedNvml"]

_MIB = 1 << 20
_SECOND = 1_000_000_000
_PASCAL = "pascal"


class _Parent:
    """A parent's timeline and how far it was read."""

    def __init__(self, parent_id: str, weight: float, pieces: list[Piece], gpu: ScenarioGpu) -> None:
        self.parent_id = parent_id
        self.weight = weight
        self.pieces = pieces
        self.gpm = gpu.facts.gpm
        self.mig = gpu.mig is not None
        self.mps = STRATEGIES[gpu.strategy] is Sharing.MPS
        self.index = 0
        self.read_at = 0.0
        self.sm_average = 0.0
        self._cached: ParentReading | None = None
        self._cached_index = -1

    def read(self, now: float) -> ParentReading:
        """Average from the last reading to now; the process list is that of now."""
        start, self.read_at = self.read_at, now
        piece = self.pieces[self.index]
        if start >= piece.start_s and now < piece.end_s:
            if self._cached is None or self._cached_index != self.index:
                self._cached = self._answer([(piece, 1.0)], piece)
                self._cached_index = self.index
                self.sm_average = piece.sm
            return self._cached
        spans = []
        first = self.index
        while self.pieces[self.index].end_s <= now:
            self.index += 1
        for piece in self.pieces[first : self.index + 1]:
            seconds = min(piece.end_s, now) - max(piece.start_s, start)
            if seconds > 0:
                spans.append((piece, seconds / (now - start)))
        self._cached = None
        self.sm_average = sum(piece.sm * part for piece, part in spans)
        return self._answer(spans, self.pieces[self.index])

    def _answer(self, spans: list[tuple[Piece, float]], now: Piece) -> ParentReading:
        activity = NO_ACTIVITY
        if self.gpm or not self.mig:
            activity = Activity(duty=sum(piece.duty * part for piece, part in spans))
        if not self.mig:
            enc, dec = (sum(getattr(piece, name) * part for piece, part in spans) for name in ("enc", "dec"))
            activity = activity._replace(enc=enc, dec=dec)
        if self.gpm:
            activity = activity._replace(
                sm=sum(piece.sm * part for piece, part in spans),
                tensor=sum(piece.tensor * part for piece, part in spans),
                dram=sum(piece.dram * part for piece, part in spans),
            )
        processes = tuple(self._process(rate, spans) for rate in now.rates)
        origin = Origin.GPM if self.gpm else Origin.DEVICE
        mps = self.mps and bool(processes)
        return ParentReading(self.parent_id, activity, origin, now.memory_bytes, processes, mps=mps)

    def _process(self, rate: Rate, spans: list[tuple[Piece, float]]) -> ProcessSample:
        if self.mig:
            return ProcessSample(rate.pid, None, None, None, rate.memory_bytes)
        own = [(r, part) for piece, part in spans for r in piece.rates if r.pid == rate.pid]
        # NVML's process utilization is in whole percentages.
        duty, enc, dec = (
            int(sum(getattr(r, name) * part for r, part in own) * 100 + 0.5) / 100 for name in ("duty", "enc", "dec")
        )
        return ProcessSample(rate.pid, duty, enc, dec, rate.memory_bytes)


class SimulatedNvml:
    """One node's GPUs, following its scenario on the given clock; `start_ns` is the clock's time at second 0."""

    mode = "simulated"

    def __init__(self, node: ScenarioNode, clock: Clock, start_ns: int) -> None:
        self._node = node
        self._clock = clock
        self._start_ns = start_ns
        self._gpus = {gpu.uuid: gpu for gpu in node.gpus}
        self._parents = {gpu.uuid: [_Parent(*args, gpu) for args in self._timelines(gpu)] for gpu in node.gpus}
        self._energy_mj = {gpu.uuid: 0.0 for gpu in node.gpus}
        self.cpu_ns = 0
        self._read_at = dict.fromkeys(self._gpus, 0.0)
        now = self._now()
        for uuid, parents in self._parents.items():
            self._read_at[uuid] = now
            for parent in parents:
                parent.read(now)

    def _timelines(self, gpu: ScenarioGpu) -> list[tuple[str, float, list[Piece]]]:
        weights = {i.uuid: float(gpu.facts.profile(i.profile).weight) for i in gpu.mig or ()}
        sharing = STRATEGIES[gpu.strategy]
        return [
            (parent, weights.get(parent, 1.0), parent_timeline(processes_on(self._node, parent), sharing))
            for parent in gpu.parent_ids
        ]

    def _now(self) -> float:
        return (self._clock.monotonic_ns() - self._start_ns) / _SECOND

    def driver(self) -> DriverFacts:
        """Return the versions of the driver that is simulated."""
        return DriverFacts(driver_version="580.95.05", cuda_version="13.0", nvml_version="13.580.95.05")

    def gpus(self) -> list[GpuInfo]:
        """List the scenario's GPUs with NVML's names for them."""
        found = []
        for index, gpu in enumerate(self._node.gpus):
            facts = gpu.facts
            parents = []
            for number, instance in enumerate(gpu.mig or ()):
                profile = facts.profile(instance.profile)
                parents.append(
                    ParentInfo(
                        parent_id=instance.uuid,
                        weight_num=profile.memory_units,
                        weight_den=profile.axis_units,
                        profile=profile.name,
                        start=instance.start,
                        gi_id=number + 1,
                        ci_id=0,
                    )
                )
            if gpu.mig is None:
                parents.append(ParentInfo(parent_id=gpu.uuid))
            found.append(
                GpuInfo(
                    uuid=gpu.uuid,
                    index=index,
                    minor=index,
                    model=facts.nvml_names[0],
                    product=facts.name,
                    memory_bytes=facts.memory_mib * _MIB,
                    pci_bus_id=f"00000000:{0x10 + index:02X}:00.0",
                    architecture=facts.architecture,
                    mig_enabled=gpu.mig is not None,
                    idle_watts=facts.idle_watts,
                    parents=tuple(parents),
                )
            )
        return found

    def health(self) -> dict[str, GpuHealth]:
        """Return that nothing is known: a scenario tells of faults by XID alone."""
        return {}

    def changed(self) -> bool:
        """Return False: a scenario's GPUs stay as they are."""
        return False

    def read(self, gpu_uuid: str) -> GpuReading:
        """Answer for one GPU at the clock's time."""
        began = time.thread_time_ns()
        reading = self._read(gpu_uuid)
        self.cpu_ns += time.thread_time_ns() - began
        return reading

    def _read(self, gpu_uuid: str) -> GpuReading:
        now = self._now()
        gpu = self._gpus[gpu_uuid]
        readings = [parent.read(now) for parent in self._parents[gpu_uuid]]
        sm = sum(parent.sm_average * parent.weight for parent in self._parents[gpu_uuid])
        facts = gpu.facts
        watts = facts.idle_watts + (facts.max_watts - facts.idle_watts) * sm
        self._energy_mj[gpu_uuid] += watts * (now - self._read_at[gpu_uuid]) * 1000
        xids, silent, unhealthy = self._faults(gpu_uuid, self._read_at[gpu_uuid], now)
        self._read_at[gpu_uuid] = now
        if silent:
            return GpuReading(unhealthy, xids, None, ())
        energy = None if facts.architecture == _PASCAL else int(self._energy_mj[gpu_uuid])
        return GpuReading(unhealthy, xids, energy, readings)

    def _faults(self, gpu_uuid: str, since: float, now: float) -> tuple[tuple[int, ...], bool, bool]:
        """XIDs since the last reading, whether the GPU does not answer, and whether it is unhealthy."""
        xids: list[int] = []
        silent = unhealthy = False
        for fault in self._node.faults:
            if fault.gpu not in ("", gpu_uuid):
                continue
            begins = since < fault.from_s <= now
            active = fault.from_s <= now < fault.until_s
            if fault.kind in ("lost", "hang", "driver-reload"):
                silent = silent or active
                unhealthy = unhealthy or (active and fault.kind == "lost")
            elif fault.kind == "xid":
                unhealthy = unhealthy or (active and fault.xid not in APPLICATION_XIDS)
                if begins and fault.xid:
                    xids.append(fault.xid)
            elif fault.kind == "counter-reset" and begins:
                self._energy_mj[gpu_uuid] = 0.0
        return tuple(xids), silent, unhealthy

    def close(self, wait_seconds: float = -1) -> bool:
        """Nothing to let go."""
        del wait_seconds
        return True
