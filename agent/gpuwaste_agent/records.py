"""Turns closed windows into the records of the usage message."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from gpuwaste_agent.accumulate import Memory
from gpuwaste_agent.attribution import Figure, Origin, OwnerFigures, attribute, parent_figures
from gpuwaste_agent.energy import divide_energy, idle_energy_mj
from gpuwaste_agent.holdings import Join, Sharing
from gpuwaste_agent.wire import usage_pb2 as wire

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gpuwaste_agent.accumulate import HeldSlice, ParentWindow
    from gpuwaste_agent.holdings import ContainerKey
    from gpuwaste_agent.sampler import ClosedParent, ClosedWindow
    from gpuwaste_agent.telemetry import DriverFacts, GpuInfo

__all__ = ["RecordMaker", "gap_record", "node_facts"]

_MILLION = 1_000_000
_SECOND = 1_000_000_000
_RESOLUTION_STEP_MS = 10
_TIMES = ("duty", "sm", "tensor", "dram", "enc", "dec", "copy")
# Figures of which only qualities are set, by (figure, origin, coverage) … and resolution: filled windows repeat them.
_QualityKey = tuple[tuple[tuple[str, int, int], ...], int]
_MOST_TEMPLATES = 4096


class _Writer:
    """Writes figures of one window's records."""

    def __init__(self, window_ns: int, templates: dict[_QualityKey, wire.Figures]) -> None:
        self._window_ns = window_ns
        self._templates = templates

    def fill(
        self,
        target: wire.Figures,
        figures: dict[str, Figure],
        resolution_ms: int,
        peak_bytes: int | None = None,
        histogram_ns: Sequence[int] | None = None,
    ) -> None:
        """Write figures with their qualities."""
        key = (tuple((name, f.origin, self._ppm(f.known_ns)) for name, f in figures.items()), resolution_ms)
        template = self._templates.get(key)
        if template is None:
            template = self._template(key)
        target.CopyFrom(template)
        for name, figure in figures.items():
            if name == "memory":
                target.memory_byte_s = figure.value / _SECOND
            elif name == "energy":
                target.energy_mj = figure.value
            elif name in _TIMES:
                setattr(target, name + "_ns", figure.value)
            else:
                setattr(target, name + "_bytes", figure.value)
            if figure.high is not None:
                quality = getattr(target, name + "_quality")
                quality.low, quality.high = figure.low or 0, figure.high
        if peak_bytes is not None:
            target.memory_peak_bytes = peak_bytes
        if histogram_ns is not None:
            target.histogram_ns.extend(histogram_ns)

    def _ppm(self, known_ns: int) -> int:
        return min(_MILLION, known_ns * _MILLION // self._window_ns)

    def _template(self, key: _QualityKey) -> wire.Figures:
        template = wire.Figures()
        for name, origin, coverage_ppm in key[0]:
            quality = getattr(template, name + "_quality")
            quality.origin = origin
            quality.coverage_ppm = coverage_ppm
            quality.resolution_ms = key[1]
        if len(self._templates) >= _MOST_TEMPLATES:
            self._templates.clear()
        self._templates[key] = template
        return template


def _resolution_ms(window: ParentWindow) -> int:
    if not window.readings:
        return 0
    exact = window.covered_ns / window.readings / _MILLION
    return max(1, round(exact / _RESOLUTION_STEP_MS) * _RESOLUTION_STEP_MS)


def _counters(window: ParentWindow, figures: dict[str, Figure]) -> None:
    for name in ("pcie", "nvlink"):
        value = sum(getattr(epoch, name)[0] for epoch in window.epochs.values())
        known = sum(getattr(epoch, name)[1] for epoch in window.epochs.values())
        if known:
            figures[name] = Figure(value, Origin.GPM, known)


def _parent_energies(parents: Sequence[ClosedParent]) -> list[int | None]:
    """Energy of every parent of one GPU in the window."""
    window = parents[0].window
    if not window.energy_known_ns:
        return [None] * len(parents)
    if not parents[0].gpu.mig_enabled:
        return [window.energy_mj]
    activities: list[int | None] = []
    for parent in parents:
        sm = parent_figures(parent.window.epochs.values()).figures.get("sm")
        activities.append(None if sm is None else sm.value * parent.info.weight_num)
    idle = idle_energy_mj(parents[0].gpu.idle_watts, window.energy_known_ns, window.energy_mj)
    weights = [Fraction(parent.info.weight_num, parent.info.weight_den) for parent in parents]
    return divide_energy(window.energy_mj, idle, weights, activities)


def _owner_energies(
    parent: ClosedParent, energy_mj: int, owners: dict[ContainerKey | None, OwnerFigures], window_ns: int
) -> dict[ContainerKey, int]:
    """Energy of every container on a parent: power at rest by what it held, the rest by SM time, else by duty."""
    names = [owner for owner in owners if owner is not None]
    weight = Fraction(parent.info.weight_num, parent.info.weight_den)
    idle = idle_energy_mj(parent.gpu.idle_watts, parent.window.energy_known_ns, energy_mj)
    idle = min(energy_mj, idle * weight.numerator // weight.denominator)
    held: dict[ContainerKey, int] = {}
    for (container, _), slice_ in parent.window.held.items():
        held[container] = held.get(container, 0) + slice_.held_ns
    basis = "sm" if all("sm" in owners[name].figures for name in names) else "duty"
    activities: list[int | None] = []
    for name in (*names, None):
        figure = owners[name].figures.get(basis) if name in owners else None
        activities.append(figure.value if figure else (0 if name is None else None))
    weights = [min(Fraction(1), Fraction(held.get(name, 0), parent.replicas * window_ns)) for name in names]
    divided = divide_energy(energy_mj, idle, [*weights, Fraction(0)], activities)
    return {name: mj for name, mj in zip(names, divided, strict=False) if mj is not None}


def _own_figures(
    figures: OwnerFigures, memory: Memory | None, energy_mj: int | None, parent: ClosedParent
) -> dict[str, Figure]:
    """A container's figures in the window: what it did not do while it was not there is known to be zero."""
    window = parent.window
    elsewhere = max(0, window.covered_ns - figures.ns)
    own = {name: figure._replace(known_ns=figure.known_ns + elsewhere) for name, figure in figures.figures.items()}
    if memory is not None:
        own["memory"] = Figure(memory.byte_ns, Origin.PROCESS, window.memory.known_ns or memory.known_ns)
    if energy_mj is not None:
        own["energy"] = Figure(energy_mj, Origin.APPORTIONED, window.energy_known_ns)
    return own


def _device(
    parent: ClosedParent, energy_mj: int | None, owners: dict[ContainerKey | None, OwnerFigures], spent_mj: int
) -> tuple[OwnerFigures, dict[str, Figure], dict[str, Figure]]:
    """The parent's own figures, and those that no container explains."""
    window = parent.window
    whole = parent_figures(window.epochs.values())
    total = dict(whole.figures)
    _counters(window, total)
    rest = dict(owners[None].figures) if None in owners else {}
    if window.memory.known_ns:
        total["memory"] = Figure(window.memory.byte_ns, Origin.DEVICE, window.memory.known_ns)
        explained = sum(m.byte_ns for owner, m in window.owner_memory.items() if owner is not None)
        left = max(0, window.memory.byte_ns - explained)
        rest["memory"] = Figure(left, Origin.DEVICE, window.memory.known_ns)
    if energy_mj is not None:
        origin = Origin.APPORTIONED if parent.info.profile else Origin.DEVICE
        total["energy"] = Figure(energy_mj, origin, window.energy_known_ns)
        rest["energy"] = Figure(max(0, energy_mj - spent_mj), Origin.APPORTIONED, window.energy_known_ns)
    return whole, total, rest


def _parent_records(
    parent: ClosedParent, energy_mj: int | None, window_ns: int, writer: _Writer
) -> Iterator[wire.Record]:
    window = parent.window
    resolution = _resolution_ms(window)
    owners = attribute(window.epochs.values(), overlapping=parent.sharing is Sharing.MPS)
    energies = {} if energy_mj is None else _owner_energies(parent, energy_mj, owners, window_ns)
    whole, total, rest = _device(parent, energy_mj, owners, sum(energies.values()))
    record = wire.Record()
    device = record.device
    device.gpu_uuid, device.parent_id = parent.gpu.uuid, parent.info.parent_id
    device.weight_num, device.weight_den = parent.info.weight_num, parent.info.weight_den
    device.replicas, device.sharing = parent.replicas, int(parent.sharing)
    device.allocatable_ns, device.unhealthy_ns = window.allocatable_ns, window.unhealthy_ns
    device.mig_profile = parent.info.profile
    if window.xids:
        device.xids.extend(window.xids)
    peak = window.memory.peak_bytes if window.memory.known_ns else None
    writer.fill(device.figures, total, resolution, peak, whole.histogram_ns)
    writer.fill(device.unattributed, rest, resolution)
    yield record
    held: dict[ContainerKey, list[HeldSlice]] = {}
    for (container, _), slice_ in window.held.items():
        held.setdefault(container, []).append(slice_)
    listed = any(epoch.listed_ns for epoch in window.epochs.values())
    for container in dict.fromkeys((*held, *(owner for owner in owners if owner is not None))):
        figures = owners.get(container) or OwnerFigures()
        memory = window.owner_memory.get(container) or (Memory() if listed else None)
        own = _own_figures(figures, memory, energies.get(container), parent)
        slices: Sequence[HeldSlice | None] = held.get(container) or [None]
        if slices == [None] and not any(figure.value for figure in own.values()):
            continue  # came with the window's last reading: it held nothing in it and did nothing
        for index, slice_ in enumerate(slices):
            record = wire.Record()
            _usage(record.usage, parent, container, slice_)
            record.usage.uncertain = figures.uncertain or container in window.uncertain
            parts = len(slices)
            part = own if parts == 1 else {name: f.part(index, parts) for name, f in own.items()}
            peak = None if memory is None else memory.peak_bytes // parts
            writer.fill(record.usage.figures, part, resolution, peak, figures.histogram_ns)
            record.usage.missed_processes = window.missed.get(container, 0) if index == 0 else 0
            yield record


def _usage(usage: wire.Usage, parent: ClosedParent, container: ContainerKey, slice_: HeldSlice | None) -> None:
    usage.gpu_uuid, usage.parent_id = parent.gpu.uuid, parent.info.parent_id
    usage.namespace, usage.pod, usage.pod_uid = container.namespace, container.pod, container.pod_uid
    usage.container = container.container
    usage.container_id = container.container_id or parent.container_ids.get(container, "")
    if slice_ is None:
        usage.join = int(_join(container, usage.container_id, Join.PROCESS))
        return
    holding, tenure = slice_.holding, slice_.tenure
    usage.slice_id, usage.resource_name, usage.claim = holding.slice_id, holding.resource_name, holding.claim
    usage.join = int(_join(container, usage.container_id, holding.join))
    usage.held_ns = slice_.held_ns
    usage.held_since_unix_ns = tenure.since_unix_ns
    if tenure.first_activity_unix_ns is not None:
        usage.first_activity_unix_ns = tenure.first_activity_unix_ns


def _join(container: ContainerKey, container_id: str, otherwise: Join) -> Join:
    """EXACT where names met a UID in the log directory and that UID was seen on a process as well."""
    return Join.EXACT if container.namespace and container.pod_uid and container_id else otherwise


class RecordMaker:
    """Writes records; keeps the templates of qualities that repeat from window to window."""

    def __init__(self) -> None:
        self._templates: dict[_QualityKey, wire.Figures] = {}

    def window(self, closed: ClosedWindow) -> list[wire.Record]:
        """Return the records of a closed window, without sequence numbers: each parent, then who is on it."""
        writer = _Writer(closed.length_ns, self._templates)
        by_gpu: dict[str, list[ClosedParent]] = {}
        for parent in closed.parents:
            by_gpu.setdefault(parent.gpu.uuid, []).append(parent)
        records = []
        if closed.gap is not None:
            records.append(gap_record(*closed.gap, reason="clock step or suspended node"))
        for parents in by_gpu.values():
            for parent, energy_mj in zip(parents, _parent_energies(parents), strict=True):
                records += _parent_records(parent, energy_mj, closed.length_ns, writer)
        for record in records:
            record.window_start_unix_ns = closed.start_unix_ns
            record.window_ns = closed.length_ns
        return records


def gap_record(from_unix_ns: int, to_unix_ns: int, *, reason: str, lost_records: int = 0) -> wire.Record:
    """Time nobody can give back."""
    gap = wire.Gap(from_unix_ns=from_unix_ns, to_unix_ns=to_unix_ns, reason=reason, lost_records=lost_records)
    return wire.Record(gap=gap)


def node_facts(
    *,
    driver: DriverFacts,
    gpus: Sequence[GpuInfo],
    parents: Sequence[ClosedParent],
    mode: str,
    boot_id: str,
    version: str,
) -> wire.Record:
    """What the node has, to be told on change and once an hour."""
    shared = {parent.gpu.uuid: (parent.replicas, int(parent.sharing)) for parent in parents}
    facts = wire.NodeFacts(
        driver_version=driver.driver_version,
        cuda_version=driver.cuda_version,
        nvml_version=driver.nvml_version,
        topology_json=driver.topology_json,
        mode=mode,
        boot_id=boot_id,
        agent_version=version,
    )
    for gpu in gpus:
        replicas, sharing = shared.get(gpu.uuid, (1, int(Sharing.EXCLUSIVE)))
        entry = facts.gpus.add(
            uuid=gpu.uuid,
            index=gpu.index,
            model=gpu.model,
            product=gpu.product,
            memory_bytes=gpu.memory_bytes,
            pci_bus_id=gpu.pci_bus_id,
            mig_enabled=gpu.mig_enabled,
            architecture=gpu.architecture,
            replicas=replicas,
            sharing=sharing,
        )
        for info in gpu.parents:
            if info.profile:
                entry.mig_instances.add(
                    uuid=info.parent_id,
                    profile=info.profile,
                    start=info.start,
                    weight_num=info.weight_num,
                    weight_den=info.weight_den,
                )
    return wire.Record(node_facts=facts)
