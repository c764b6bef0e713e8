"""Reads devices and holders at every tick and keeps exact integrals per window.

Time is monotonic inside (how long a span was) and UTC outside (which windows it belongs to). A span lies between two
ticks; where it crosses window edges it is split exactly there.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gpuwaste_agent.accumulate import HeldSlice, Memory, OwnerSums, ParentWindow, Tenure
from gpuwaste_agent.holdings import ContainerKey, HoldingsSnapshot, Sharing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gpuwaste_agent.accumulate import Epoch
    from gpuwaste_agent.clock import Clock
    from gpuwaste_agent.holdings import Holding, HoldingSource, ProcessOwners
    from gpuwaste_agent.telemetry import GpuInfo, GpuReading, Nvml, ParentInfo, ParentReading

__all__ = ["ClosedParent", "ClosedWindow", "Sampler"]

# Wall clock and monotonic clock may drift apart by this much between two ticks before it counts as a step.
STEP_NS = 50_000_000
_NOTHING = HoldingsSnapshot(holdings=(), replicas={}, sharing={})
# Duty, encoder, decoder as parts of the span, and bytes now.
_Use = list[float]


@dataclass(slots=True, kw_only=True)
class ClosedParent:
    """A parent at the end of a window."""

    gpu: GpuInfo
    info: ParentInfo
    replicas: int
    sharing: Sharing
    window: ParentWindow
    container_ids: dict[ContainerKey, str]


@dataclass(slots=True, kw_only=True)
class ClosedWindow:
    """All parents of the node at the end of a window; `gap` is lost time that was noticed in it, from and to."""

    start_unix_ns: int
    length_ns: int
    parents: list[ClosedParent]
    gap: tuple[int, int] | None = None


@dataclass(slots=True)
class _Parent:
    """A parent between ticks."""

    gpu: GpuInfo
    info: ParentInfo
    window: ParentWindow = field(default_factory=ParentWindow)
    holdings: tuple[Holding, ...] = ()
    holders: tuple[ContainerKey, ...] = ()
    uses: dict[ContainerKey | None, _Use] = field(default_factory=dict)
    memory_bytes: int | None = None
    pids: dict[int, ContainerKey | None] = field(default_factory=dict)
    replicas: int = 1
    sharing: Sharing = Sharing.EXCLUSIVE
    allocatable: bool = False
    energy_mj: int | None = None


class Sampler:
    """Accumulates one node's readings; `tick` returns the windows it closed.

    Attributes:
        gpus: The GPUs as they were listed last.
        driver_cpu_ns: CPU time spent inside the driver's calls.
    """

    def __init__(
        self,
        *,
        nvml: Nvml,
        holdings: HoldingSource,
        owners: ProcessOwners,
        clock: Clock,
        window_ns: int,
        hold_limit_ns: int,
    ) -> None:
        """Take the sources.

        Args:
            nvml: Readings of the devices.
            holdings: Who holds which slice.
            owners: Which container a PID belongs to.
            clock: Monotonic and UTC time.
            window_ns: Length of a window; windows start at multiples of it.
            hold_limit_ns: An instantaneous value (memory) stands for at most this long after it was read.
        """
        self._nvml = nvml
        self._holdings = holdings
        self._owners = owners
        self._clock = clock
        self._window_ns = window_ns
        self._hold_limit_ns = hold_limit_ns
        self._parents: dict[str, _Parent] = {}
        self._by_gpu: dict[str, list[_Parent]] = {}
        self._snapshot: HoldingsSnapshot | None = None
        self._held: dict[tuple[ContainerKey, str], Tenure] = {}
        self._container_ids: dict[ContainerKey, str] = {}
        self._last: tuple[int, int] | None = None
        self._window_start = 0
        self._gap: tuple[int, int] | None = None
        self.gpus: Sequence[GpuInfo] = ()
        self._unhealthy: dict[str, bool] = {}
        self._resumed: dict[tuple[str, str, str, str], Tenure] = {}
        self.driver_cpu_ns = 0
        self.refresh()

    def resume(self, tenures: dict[tuple[str, str, str, str], Tenure]) -> None:
        """Take over from an earlier run since when who held what.

        Keys are (namespace, pod, container, slice id); a key is used once, by the first holder found under it.
        """
        self._resumed = dict(tenures)

    def refresh(self) -> bool:
        """List the GPUs again; True where they changed (or on the first call)."""
        gpus = tuple(self._nvml.gpus())
        if gpus == self.gpus:
            return False
        self.gpus = gpus
        known = self._parents
        self._parents, self._by_gpu = {}, {}
        for gpu in gpus:
            for info in gpu.parents:
                parent = known.get(info.parent_id) or _Parent(gpu, info)
                parent.gpu, parent.info = gpu, info
                self._parents[info.parent_id] = parent
                self._by_gpu.setdefault(gpu.uuid, []).append(parent)
        self._snapshot = None
        return True

    def tick(self) -> list[ClosedWindow]:
        """Take one reading of everything, add the span since the last one, and return the windows that ended."""
        mono, utc = self._clock.monotonic_ns(), self._clock.utc_ns()
        snapshot = self._holdings.poll() or self._snapshot or _NOTHING
        began = time.thread_time_ns()
        readings = {gpu.uuid: self._nvml.read(gpu.uuid) for gpu in self.gpus}
        self.driver_cpu_ns += time.thread_time_ns() - began
        union = self._union(snapshot)
        self._index_processes(readings, union)
        closed = []
        if self._last is None:
            self._window_start = utc - utc % self._window_ns
            self._take_snapshot(snapshot, utc)
        else:
            span_start, span_end = self._span(mono, utc)
            for from_ns, until_ns, ends in self._pieces(span_start, span_end):
                if until_ns > from_ns:
                    self._add(readings, union, (from_ns, until_ns, span_end - span_start))
                if ends:
                    closed.append(self._close())
            utc = span_end
            self._take_snapshot(snapshot, utc)
        self._remember(readings, utc)
        self._last = (mono, utc)
        return closed

    def flush(self) -> ClosedWindow | None:
        """Close the open window as it is; None where nothing was read in it."""
        if self._last is None or not any(parent.window.covered_ns for parent in self._parents.values()):
            return None
        start = self._window_start
        closed = self._close()
        self._window_start = start
        return closed

    # --- time -------------------------------------------------------------------------------------------------

    def _span(self, mono: int, utc: int) -> tuple[int, int]:
        """The span since the last tick on the UTC axis, which never runs backwards."""
        last_mono, last_utc = self._last or (mono, utc)
        start = utc - (mono - last_mono)
        if abs(start - last_utc) <= STEP_NS:
            return last_utc, max(utc, last_utc)
        if start < last_utc:
            return last_utc, max(utc, last_utc)
        self._gap = (last_utc, start)
        return start, utc

    def _pieces(self, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
        """Offsets of a span cut at window edges, and whether a window ends there; skips windows without readings."""
        offset = 0
        while True:
            edge = self._window_start + self._window_ns
            if start >= edge:
                yield offset, offset, True
                self._window_start = start - start % self._window_ns
                continue
            if end < edge:
                yield offset, end - start, False
                return
            yield offset, edge - start, True
            offset = edge - start
            self._window_start = edge

    # --- holders ----------------------------------------------------------------------------------------------

    def _take_snapshot(self, snapshot: HoldingsSnapshot, utc: int) -> None:
        if snapshot is self._snapshot:
            return
        self._snapshot = snapshot
        grouped: dict[str, list[Holding]] = {}
        for holding in snapshot.holdings:
            grouped.setdefault(holding.parent_id, []).append(holding)
        alive = set()
        for parent_id, parent in self._parents.items():
            parent.holdings = tuple(grouped.get(parent_id, ()))
            parent.holders = tuple(dict.fromkeys(h.container for h in parent.holdings))
            parent.allocatable = parent_id in snapshot.replicas
            parent.replicas = max(1, snapshot.replicas.get(parent_id, parent.replicas))
            parent.sharing = snapshot.sharing.get(parent_id, Sharing.EXCLUSIVE)
            for holding in parent.holdings:
                key = (holding.container, holding.slice_id)
                alive.add(key)
                if key not in self._held:
                    names = (holding.container.namespace, holding.container.pod, holding.container.container)
                    self._held[key] = self._resumed.get((*names, holding.slice_id), Tenure(utc))
        for key in [key for key in self._held if key not in alive]:
            del self._held[key]
        self._resumed = {}

    def _union(self, snapshot: HoldingsSnapshot) -> dict[str, tuple[ContainerKey, ...]]:
        """Holders at either end of the span, by parent, where they changed: any of them may have been active in it."""
        if snapshot is self._snapshot:
            return {}
        union = {parent_id: dict.fromkeys(parent.holders) for parent_id, parent in self._parents.items()}
        for holding in snapshot.holdings:
            if holding.parent_id in union:
                union[holding.parent_id][holding.container] = None
        return {parent_id: tuple(holders) for parent_id, holders in union.items()}

    # --- processes --------------------------------------------------------------------------------------------

    def _index_processes(self, readings: dict[str, GpuReading], union: dict[str, tuple[ContainerKey, ...]]) -> None:
        """Group the processes of every parent by the container they belong to."""
        self._now: dict[str, dict[ContainerKey | None, _Use] | None] = {}
        for reading in readings.values():
            for one in reading.parents:
                parent = self._parents.get(one.parent_id)
                if parent is not None:
                    holders = union.get(one.parent_id, parent.holders)
                    self._now[one.parent_id] = self._uses(parent, one, holders)

    def _uses(
        self, parent: _Parent, reading: ParentReading, holders: tuple[ContainerKey, ...]
    ) -> dict[ContainerKey | None, _Use] | None:
        if reading.processes is None:
            return None
        uses: dict[ContainerKey | None, _Use] = {}
        pids: dict[int, ContainerKey | None] = {}
        known = parent.pids if holders == parent.holders else {}
        for sample in reading.processes:
            pid = sample.pid
            owner = known[pid] if pid in known else self._resolve(parent, pid, holders)
            pids[pid] = owner
            use = uses.get(owner)
            if use is None:
                use = uses[owner] = [0.0, 0.0, 0.0, 0]
            use[0] += sample.duty or 0.0
            use[1] += sample.enc or 0.0
            use[2] += sample.dec or 0.0
            use[3] += sample.memory_bytes or 0
        for pid, owner in parent.pids.items():
            if pid not in pids:
                parent.window.missed[owner] = parent.window.missed.get(owner, 0) + 1
                self._owners.forget(pid)
        parent.pids = pids
        return uses

    def _resolve(self, parent: _Parent, pid: int, holders: tuple[ContainerKey, ...]) -> ContainerKey | None:
        """The holder a process belongs to; a container that holds nothing is named by its UID and id alone."""
        owner = self._owners.owner(pid)
        if owner is None or not owner.pod_uid:
            return None
        pod = [key for key in holders if key.pod_uid == owner.pod_uid]
        matches = pod
        if len(pod) > 1:
            named = [key for key in pod if key.container == owner.container]
            matches = named or [key for key in pod if self._container_ids.get(key) == owner.container_id]
        if len(matches) == 1:
            self._container_ids[matches[0]] = owner.container_id
            return matches[0]
        if not pod:
            return ContainerKey("", "", owner.pod_uid, owner.container, owner.container_id)
        parent.window.uncertain.update(pod)
        return None

    # --- accumulation -----------------------------------------------------------------------------------------

    def _add(
        self,
        readings: dict[str, GpuReading],
        union: dict[str, tuple[ContainerKey, ...]],
        span: tuple[int, int, int],
    ) -> None:
        from_ns, until_ns, _span_ns = span
        part = until_ns - from_ns
        for gpu_uuid, reading in readings.items():
            answered = {one.parent_id: one for one in reading.parents}
            for parent in self._by_gpu.get(gpu_uuid, ()):
                window = parent.window
                if parent.allocatable:
                    window.allocatable_ns += part
                if self._unhealthy.get(gpu_uuid, False):
                    window.unhealthy_ns += part
                self._add_energy(parent, reading, span)
                for holding in parent.holdings:
                    key = (holding.container, holding.slice_id)
                    slice_ = window.held.get(key)
                    if slice_ is None:
                        slice_ = window.held[key] = HeldSlice(holding, self._held[key])
                    slice_.held_ns += part
                one = answered.get(parent.info.parent_id)
                if one is not None:
                    self._add_parent(parent, one, union.get(parent.info.parent_id, parent.holders), span)

    def _add_parent(
        self,
        parent: _Parent,
        reading: ParentReading,
        holders: tuple[ContainerKey, ...],
        span: tuple[int, int, int],
    ) -> None:
        from_ns, until_ns, span_ns = span
        part = until_ns - from_ns
        window = parent.window
        now = self._now.get(parent.info.parent_id)
        before = parent.uses
        users = tuple(before) if now is None or now.keys() == before.keys() else tuple({**before, **now})
        epoch = window.epoch(holders, users)
        window.add_reading(reading, epoch, from_ns, until_ns, span_ns)
        if now is not None:
            epoch.listed_ns += part
            self._add_uses(epoch, reading, now, span)
        if span_ns <= self._hold_limit_ns:
            self._add_memory(parent, part)

    def _add_uses(
        self,
        epoch: Epoch,
        reading: ParentReading,
        now: dict[ContainerKey | None, _Use],
        span: tuple[int, int, int],
    ) -> None:
        from_ns, until_ns, _ = span
        if any(sample.duty is None for sample in reading.processes or ()):
            return
        epoch.process_ns += until_ns - from_ns
        for owner, use in now.items():
            sums = epoch.owners.get(owner)
            if sums is None:
                sums = epoch.owners[owner] = OwnerSums()
            sums.add(min(use[0], 1.0), min(use[1], 1.0), min(use[2], 1.0), from_ns, until_ns)

    def _add_memory(self, parent: _Parent, part: int) -> None:
        window = parent.window
        if parent.memory_bytes is not None:
            window.memory.add(parent.memory_bytes, part)
        for owner, use in parent.uses.items():
            memory = window.owner_memory.get(owner)
            if memory is None:
                memory = window.owner_memory[owner] = Memory()
            memory.add(int(use[3]), part)

    def _add_energy(self, parent: _Parent, reading: GpuReading, span: tuple[int, int, int]) -> None:
        """Energy is the GPU's: every parent keeps it whole, and the window's end divides it."""
        from_ns, until_ns, span_ns = span
        before, now = parent.energy_mj, reading.energy_mj
        if before is None or now is None or now < before:
            return
        spent = now - before
        parent.window.energy_mj += spent * until_ns // span_ns - spent * from_ns // span_ns
        parent.window.energy_known_ns += until_ns - from_ns

    def _remember(self, readings: dict[str, GpuReading], utc: int) -> None:
        for gpu_uuid, reading in readings.items():
            self._unhealthy[gpu_uuid] = reading.unhealthy
            answered = {one.parent_id: one for one in reading.parents}
            for parent in self._by_gpu.get(gpu_uuid, ()):
                parent.window.xids.extend(reading.xids)
                parent.energy_mj = reading.energy_mj
                one = answered.get(parent.info.parent_id)
                parent.memory_bytes = None if one is None else one.memory_bytes
                parent.uses = self._now.get(parent.info.parent_id) or {} if one is not None else {}
                if one is not None and parent.uses:
                    self._note_activity(parent, one, utc)

    def _note_activity(self, parent: _Parent, reading: ParentReading, utc: int) -> None:
        """Remember when a container was first active: by its processes, else by the parent it has a process on."""
        by_process = not any(sample.duty is None for sample in reading.processes or ())
        active = reading.activity.duty is None or reading.activity.duty > 0
        for holding in parent.holdings:
            use = parent.uses.get(holding.container)
            if use is None or not (use[0] > 0 if by_process else active):
                continue
            tenure = self._held[(holding.container, holding.slice_id)]
            if tenure.first_activity_unix_ns is None:
                tenure.first_activity_unix_ns = utc

    # --- windows ----------------------------------------------------------------------------------------------

    def _close(self) -> ClosedWindow:
        parents = [self._close_parent(parent) for parent in self._parents.values()]
        closed = ClosedWindow(
            start_unix_ns=self._window_start,
            length_ns=self._window_ns,
            parents=parents,
            gap=self._gap,
        )
        self._gap = None
        return closed

    def _close_parent(self, parent: _Parent) -> ClosedParent:
        window = parent.window
        parent.window = ParentWindow()
        return ClosedParent(
            gpu=parent.gpu,
            info=parent.info,
            replicas=parent.replicas,
            sharing=parent.sharing,
            window=window,
            container_ids=self._container_ids,
        )
