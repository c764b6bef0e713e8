"""Reads devices and holders at every tick and keeps exact integrals per window.

Time is monotonic inside (how long a span was) and UTC outside (which windows it belongs to). A span lies between two
ticks; where it crosses window edges it is split exactly there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gpuwaste_agent.accumulate import HeldSlice, Memory, OwnerSums, ParentWindow, Tenure
from gpuwaste_agent.holdings import ContainerKey, HoldingsSnapshot, Sharing
from gpuwaste_agent.process_table import ParentProcesses, ProcessTable
from gpuwaste_agent.spans import SpanCutter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpuwaste_agent.accumulate import Epoch
    from gpuwaste_agent.clock import Clock
    from gpuwaste_agent.holdings import Holding, HoldingSource, ProcessOwners
    from gpuwaste_agent.process_table import Use, Uses
    from gpuwaste_agent.telemetry import GpuInfo, GpuReading, Nvml, ParentInfo, ParentReading

__all__ = ["ClosedParent", "ClosedWindow", "Sampler"]

_NOTHING = HoldingsSnapshot(holdings=(), replicas={}, sharing={})


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
    uses: dict[ContainerKey | None, Use] = field(default_factory=dict)
    processes: ParentProcesses = field(default_factory=ParentProcesses)
    memory_bytes: int | None = None
    replicas: int = 1
    sharing: Sharing = Sharing.EXCLUSIVE
    allocatable: bool = False
    energy_mj: int | None = None


class Sampler:
    """Accumulates one node's readings; `tick` returns the windows it closed.

    Attributes:
        gpus: The GPUs as they were listed last.
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
        self._clock = clock
        self._spans = SpanCutter(window_ns)
        self._table = ProcessTable(owners, holdings.hint)
        self._hold_limit_ns = hold_limit_ns
        self._parents: dict[str, _Parent] = {}
        self._by_gpu: dict[str, list[_Parent]] = {}
        self._snapshot: HoldingsSnapshot | None = None
        self._held: dict[tuple[ContainerKey, str], Tenure] = {}
        self._now: dict[str, Uses | None] = {}
        self._departed: list[_Parent] = []
        self.gpus: Sequence[GpuInfo] = ()
        self._unhealthy: dict[str, bool] = {}
        self._resumed: dict[tuple[ContainerKey, str], Tenure] = {}
        self.refresh()

    def resume(self, tenures: dict[tuple[ContainerKey, str], Tenure]) -> None:
        """Take over from an earlier run since when who held what, by container (without its id) and slice."""
        self._resumed = dict(tenures)

    def refresh(self) -> bool:
        """List the GPUs again; True where they changed (or on the first call)."""
        gpus = tuple(self._nvml.gpus())
        if gpus == self.gpus:
            return False
        self.gpus = gpus
        known = self._parents
        present = {info.parent_id for gpu in gpus for info in gpu.parents}
        gone = [parent for parent_id, parent in known.items() if parent_id not in present]
        for parent in gone:
            self._table.ended(parent.processes, parent.window)
        self._departed += gone
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
        readings = {gpu.uuid: self._nvml.read(gpu.uuid) for gpu in self.gpus}
        union = self._union(snapshot)
        self._index_processes(readings, union)
        closed = []
        if self._spans.started:
            start, utc = self._spans.advance(mono, utc)
            for from_ns, until_ns, ends in self._spans.pieces(start, utc):
                if until_ns > from_ns:
                    self._add(readings, union, (from_ns, until_ns, utc - start))
                if ends:
                    closed.append(self._close())
        else:
            self._spans.start(mono, utc)
        self._take_snapshot(snapshot, utc)
        self._remember(readings, utc)
        return closed

    @property
    def window_start_unix_ns(self) -> int:
        """Start of the open window; 0 before the first reading."""
        return self._spans.window_start

    def flush(self) -> ClosedWindow | None:
        """Close the open window as it is; None where nothing was read in it."""
        parents = (*self._parents.values(), *self._departed)
        return self._close() if any(parent.window.covered_ns for parent in parents) else None

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
                    self._held[key] = self._resumed.get(key, Tenure(utc))
        for key in [key for key in self._held if key not in alive]:
            del self._held[key]
        self._resumed = {}
        windows = [parent.window for parent in (*self._parents.values(), *self._departed)]
        self._table.keep({container for keys in (alive, *(window.held for window in windows)) for container, _ in keys})

    def _union(self, snapshot: HoldingsSnapshot) -> dict[str, tuple[ContainerKey, ...]]:
        """Holders at either end of the span, by parent, where they changed: any of them may have been active in it."""
        if snapshot is self._snapshot:
            return {}
        union = {parent_id: dict.fromkeys(parent.holders) for parent_id, parent in self._parents.items()}
        for holding in snapshot.holdings:
            if holding.parent_id in union:
                union[holding.parent_id][holding.container] = None
        return {parent_id: tuple(holders) for parent_id, holders in union.items()}

    def _index_processes(self, readings: dict[str, GpuReading], union: dict[str, tuple[ContainerKey, ...]]) -> None:
        """Group the processes of every parent by the container they belong to."""
        self._now = {}
        for reading in readings.values():
            for one in reading.parents:
                parent = self._parents.get(one.parent_id)
                if parent is not None:
                    holders = union.get(one.parent_id, parent.holders)
                    uses = self._table.uses(parent.processes, one, holders, parent.window)
                    self._now[one.parent_id] = uses
                    parent.window.mps = parent.window.mps or (uses is not None and uses.mps)

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
        if now is None or now.by_owner.keys() == before.keys():
            users = tuple(before)
        else:
            users = tuple({**before, **now.by_owner})
        epoch = window.epoch(holders, users)
        window.add_reading(reading, epoch, from_ns, until_ns, span_ns)
        if now is not None:
            epoch.listed_ns += part
            if now.readable:
                epoch.process_ns += part
                self._add_uses(epoch, now, from_ns, until_ns)
        if span_ns <= self._hold_limit_ns:
            self._add_memory(parent, part)

    @staticmethod
    def _add_uses(epoch: Epoch, now: Uses, from_ns: int, until_ns: int) -> None:
        for owner, use in now.by_owner.items():
            sums = epoch.owners.get(owner)
            if sums is None:
                sums = epoch.owners[owner] = OwnerSums()
            # Processes that take turns pass 1 together only by the driver's rounding, which the epoch's sum undoes;
            # clients of MPS run at the same moment, and together they are resident for all of it at most.
            duty = min(use.duty, 1.0) if now.mps else use.duty
            sums.add(duty, use.enc, use.dec, from_ns, until_ns)

    def _add_memory(self, parent: _Parent, part: int) -> None:
        window = parent.window
        if parent.memory_bytes is not None:
            window.memory.add(parent.memory_bytes, part)
        for owner, use in parent.uses.items():
            memory = window.owner_memory.get(owner)
            if memory is None:
                memory = window.owner_memory[owner] = Memory()
            memory.add(use.memory_bytes, part)

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
                uses = None if one is None else self._now.get(parent.info.parent_id)
                parent.uses = {} if uses is None else uses.by_owner
                if one is not None and uses is not None and uses.by_owner:
                    self._note_activity(parent, one, uses, utc)

    def _note_activity(self, parent: _Parent, reading: ParentReading, uses: Uses, utc: int) -> None:
        """Remember when a container was first active: by its processes, else by the parent it has a process on."""
        active = reading.activity.duty is None or reading.activity.duty > 0
        for holding in parent.holdings:
            use = uses.by_owner.get(holding.container)
            if use is None or not (use.duty > 0 if uses.readable else active):
                continue
            tenure = self._held[(holding.container, holding.slice_id)]
            if tenure.first_activity_unix_ns is None:
                tenure.first_activity_unix_ns = utc

    # --- windows ----------------------------------------------------------------------------------------------

    def _close(self) -> ClosedWindow:
        parents = [self._close_parent(parent) for parent in (*self._parents.values(), *self._departed)]
        self._departed = []
        return ClosedWindow(
            start_unix_ns=self._spans.window_start,
            length_ns=self._spans.window_ns,
            parents=parents,
            gap=self._spans.take_gap(),
        )

    def _close_parent(self, parent: _Parent) -> ClosedParent:
        window = parent.window
        parent.window = ParentWindow()
        return ClosedParent(
            gpu=parent.gpu,
            info=parent.info,
            replicas=parent.replicas,
            # Device ids do not tell MPS from time-slicing; its clients do.
            sharing=Sharing.MPS if window.mps else parent.sharing,
            window=window,
            container_ids=self._table.container_ids,
        )
