"""Turns closed windows into the records of the usage message."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from gpuwaste_agent.accumulate import Memory
from gpuwaste_agent.attribution import Figure, OwnerFigures, attribute
from gpuwaste_agent.energy import divide_energy, idle_energy_mj
from gpuwaste_agent.holdings import Join, Sharing
from gpuwaste_agent.telemetry import Origin
from gpuwaste_agent.wire import usage_pb2 as wire

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from gpuwaste_agent.accumulate import HeldSlice, ParentWindow
    from gpuwaste_agent.attribution import Attribution
    from gpuwaste_agent.holdings import ContainerKey
    from gpuwaste_agent.sampler import ClosedParent, ClosedWindow
    from gpuwaste_agent.telemetry import DriverFacts, GpuHealth, GpuInfo

__all__ = ["RecordMaker", "gap_record", "node_facts"]

_MILLION = 1_000_000
_SECOND = 1_000_000_000
_RESOLUTION_STEP_MS = 10
_TIMES = ("duty", "sm", "tensor", "dram", "enc", "dec", "copy")
# Qualities without their figures, by (figure, origin, time known) … and resolution: full windows repeat them.
_QualityKey = tuple[tuple[tuple[str, int, int], ...], int]
_FIELDS = {name: (name + "_ns", 0) for name in _TIMES} | {
    "pcie": ("pcie_bytes", 0),
    "nvlink": ("nvlink_bytes", 0),
    "memory": ("memory_byte_s", _SECOND),
    "energy": ("energy_mj", 0),
}
_MOST_TEMPLATES = 4096
_HEALTH_FIELDS = (
    "ecc_enabled",
    "ecc_corrected",
    "ecc_uncorrected",
    "remapped_rows_corrected",
    "remapped_rows_uncorrected",
    "remap_pending",
    "remap_failed",
)


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
        key = (tuple([(name, f[1], f[2]) for name, f in figures.items()]), resolution_ms)
        template = self._templates.get(key) or self._template(key)
        target.CopyFrom(template)
        for name, (value, _, _, low, high) in figures.items():
            field, divisor = _FIELDS[name]
            setattr(target, field, value / divisor if divisor else value)
            if high is not None:
                quality = getattr(target, name + "_quality")
                quality.low, quality.high = low or 0, high
        if peak_bytes is not None:
            target.memory_peak_bytes = peak_bytes
        if histogram_ns is not None:
            target.histogram_ns.extend(histogram_ns)

    def _template(self, key: _QualityKey) -> wire.Figures:
        template = wire.Figures()
        for name, origin, known_ns in key[0]:
            quality = getattr(template, name + "_quality")
            quality.origin = origin
            quality.coverage_ppm = min(_MILLION, known_ns * _MILLION // self._window_ns)
            quality.resolution_ms = key[1]
        if len(self._templates) >= _MOST_TEMPLATES:
            self._templates.clear()
        self._templates[key] = template
        return template


def _resolution_ms(window: ParentWindow) -> int:
    if not window.readings:
        return 0
    exact = max(window.covered_ns / window.readings, window.source_resolution_ns) / _MILLION
    return max(1, round(exact / _RESOLUTION_STEP_MS) * _RESOLUTION_STEP_MS)


def _parent_energies(parents: Sequence[ClosedParent], found: Sequence[Attribution]) -> list[int | None]:
    """Energy of every parent of one GPU in the window."""
    window = parents[0].window
    if not window.energy_known_ns:
        return [None] * len(parents)
    if not parents[0].gpu.mig_enabled:
        return [window.energy_mj]
    activities: list[int | None] = []
    for parent, attribution in zip(parents, found, strict=True):
        sm = attribution.whole.figures.get("sm")
        activities.append(None if sm is None else sm.value * parent.info.weight_num)
    idle = idle_energy_mj(parents[0].gpu.idle_watts, window.energy_known_ns, window.energy_mj)
    weights = [(parent.info.weight_num, parent.info.weight_den) for parent in parents]
    return divide_energy(window.energy_mj, idle, weights, activities)


def _owner_energies(
    parent: ClosedParent, energy_mj: int, owners: dict[ContainerKey | None, OwnerFigures], window_ns: int
) -> dict[ContainerKey, int]:
    """Energy of every container on a parent: power at rest by what it held, the rest by SM time, else by duty."""
    names = [owner for owner in owners if owner is not None]
    info = parent.info
    idle = idle_energy_mj(parent.gpu.idle_watts, parent.window.energy_known_ns, energy_mj)
    idle = idle * info.weight_num // info.weight_den
    held: dict[ContainerKey, int] = {}
    for (container, _), slice_ in parent.window.held.items():
        held[container] = held.get(container, 0) + slice_.held_ns
    basis = "sm" if all("sm" in owners[name].figures for name in names) else "duty"
    activities: list[int | None] = []
    for name in (*names, None):
        figure = owners[name].figures.get(basis) if name in owners else None
        activities.append(figure.value if figure else (0 if name is None else None))
    whole = max(parent.replicas * window_ns, sum(held.values()))
    weights = [(held.get(name, 0), whole) for name in names]
    divided = divide_energy(energy_mj, min(idle, energy_mj), [*weights, (0, 1)], activities)
    return {name: mj for name, mj in zip(names, divided, strict=False) if mj is not None}


def _memory_known_ns(window: ParentWindow, memory: Memory) -> int:
    """For how long a container's memory is known: without a process on the parent it has none."""
    return max(0, (window.memory.known_ns or memory.known_ns) - memory.unknown_ns)


def _own_figures(
    figures: OwnerFigures, memory: Memory | None, energy_mj: int | None, parent: ClosedParent
) -> dict[str, Figure]:
    """A container's figures in the window: what it did not do while it was not there is known to be zero."""
    window = parent.window
    elsewhere = max(0, window.covered_ns - figures.ns)
    own = {name: figure._replace(known_ns=figure.known_ns + elsewhere) for name, figure in figures.figures.items()}
    if memory is not None:
        own["memory"] = Figure(memory.byte_ns, Origin.PROCESS, _memory_known_ns(window, memory))
    if energy_mj is not None:
        own["energy"] = Figure(energy_mj, Origin.APPORTIONED, window.energy_known_ns)
    return own


def _device(
    parent: ClosedParent, energy_mj: int | None, found: Attribution, spent_mj: int
) -> tuple[dict[str, Figure], dict[str, Figure]]:
    """The parent's own figures, and those that no container explains."""
    window = parent.window
    total = found.whole.figures
    rest = found.owners[None].figures if None in found.owners else {}
    if window.memory.known_ns:
        total["memory"] = Figure(window.memory.byte_ns, Origin.DEVICE, window.memory.known_ns)
        owners = [memory for owner, memory in window.owner_memory.items() if owner is not None]
        if not any(memory.unknown_ns for memory in owners):
            left = max(0, window.memory.byte_ns - sum(memory.byte_ns for memory in owners))
            rest["memory"] = Figure(left, Origin.DEVICE, window.memory.known_ns)
    if energy_mj is not None:
        origin = Origin.APPORTIONED if parent.info.profile else Origin.DEVICE
        total["energy"] = Figure(energy_mj, origin, window.energy_known_ns)
        rest["energy"] = Figure(max(0, energy_mj - spent_mj), Origin.APPORTIONED, window.energy_known_ns)
    return total, rest


def _parent_records(
    parent: ClosedParent, energy_mj: int | None, found: Attribution, window_ns: int, writer: _Writer
) -> Iterator[wire.Record]:
    window = parent.window
    resolution = _resolution_ms(window)
    energies = {} if energy_mj is None else _owner_energies(parent, energy_mj, found.owners, window_ns)
    total, rest = _device(parent, energy_mj, found, sum(energies.values()))
    record = wire.Record()
    device = record.device
    device.gpu_uuid, device.parent_id = parent.gpu.uuid, parent.info.parent_id
    device.weight_num, device.weight_den = parent.info.weight_num, parent.info.weight_den
    device.replicas, device.sharing = parent.replicas, cast("wire.Sharing", int(parent.sharing))
    device.allocatable_ns, device.unhealthy_ns = window.allocatable_ns, window.unhealthy_ns
    device.mig_profile = parent.info.profile
    if window.xids:
        device.xids.extend(window.xids)
    peak = window.memory.peak_bytes if window.memory.known_ns else None
    writer.fill(device.figures, total, resolution, peak, found.whole.histogram_ns)
    writer.fill(device.unattributed, rest, resolution)
    yield record
    yield from _usage_records(parent, found, energies, writer)


def _usage_records(
    parent: ClosedParent, found: Attribution, energies: dict[ContainerKey, int], writer: _Writer
) -> Iterator[wire.Record]:
    """One record for each slice of each container; a container's figures are divided among its slices."""
    window, owners = parent.window, found.owners
    resolution = _resolution_ms(window)
    held: dict[ContainerKey, list[HeldSlice | None]] = {}
    for (container, _), slice_ in window.held.items():
        held.setdefault(container, []).append(slice_)
    listed = any(epoch.listed_ns for epoch in window.epochs.values())
    for container in dict.fromkeys((*held, *(owner for owner in owners if owner is not None))):
        figures = owners.get(container) or OwnerFigures()
        memory = window.owner_memory.get(container) or (Memory() if listed else None)
        if memory is not None and memory.unknown_ns and not _memory_known_ns(window, memory):
            memory = None
        own = _own_figures(figures, memory, energies.get(container), parent)
        slices = held.get(container) or [None]
        if slices == [None] and not any(figure.value for figure in own.values()):
            continue  # came with the window's last reading: it held nothing in it and did nothing
        for index, one in enumerate(slices):
            record = wire.Record()
            _usage(record.usage, parent, container, one)
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
        usage.join = _join(container, usage.container_id, Join.PROCESS)
        return
    holding, tenure = slice_.holding, slice_.tenure
    usage.slice_id, usage.resource_name, usage.claim = holding.slice_id, holding.resource_name, holding.claim
    usage.join = _join(container, usage.container_id, holding.join)
    usage.held_ns = slice_.held_ns
    usage.held_since_unix_ns = tenure.since_unix_ns
    if tenure.first_activity_unix_ns is not None:
        usage.first_activity_unix_ns = tenure.first_activity_unix_ns


def _join(container: ContainerKey, container_id: str, otherwise: Join) -> wire.Join:
    """EXACT where names met a UID in the log directory and that UID was seen on a process as well."""
    exact = container.namespace and container.pod_uid and container_id
    return cast("wire.Join", int(Join.EXACT if exact else otherwise))


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
            found = [
                attribute(parent.window.epochs.values(), overlapping=parent.sharing is Sharing.MPS)
                for parent in parents
            ]
            energies = _parent_energies(parents, found)
            for parent, attribution, energy_mj in zip(parents, found, energies, strict=True):
                records += _parent_records(parent, energy_mj, attribution, closed.length_ns, writer)
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
    health: Mapping[str, GpuHealth],
    throttled: Mapping[str, Iterable[str]],
    xids: Mapping[str, Mapping[int, int]],
) -> wire.Record:
    """What the node has, to be told on change and once an hour.

    Args:
        driver: Versions and topology.
        gpus: The GPUs as listed.
        parents: All parents at the end of a window.
        mode: Name of the source.
        boot_id: The kernel's.
        version: The agent's.
        health: Of the GPUs that tell it, by UUID.
        throttled: What slowed each GPU since the last facts.
        xids: How often each GPU had which XID since the agent started.
    """
    shared = {parent.gpu.uuid: (parent.replicas, int(parent.sharing)) for parent in parents}
    by_parent = {parent.info.parent_id: (parent.replicas, int(parent.sharing)) for parent in parents}
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
        _health(entry, health.get(gpu.uuid), throttled.get(gpu.uuid, ()), xids.get(gpu.uuid, {}))
        for info in gpu.parents:
            if info.profile:
                replicas, sharing = by_parent.get(info.parent_id, (1, int(Sharing.EXCLUSIVE)))
                entry.mig_instances.add(
                    uuid=info.parent_id,
                    profile=info.profile,
                    start=info.start or 0,
                    place_unknown=info.start is None,
                    weight_num=info.weight_num,
                    weight_den=info.weight_den,
                    replicas=replicas,
                    sharing=sharing,
                )
    return wire.Record(node_facts=facts)


def _health(entry: wire.Gpu, found: GpuHealth | None, throttled: Iterable[str], xids: Mapping[int, int]) -> None:
    """Write what a GPU is like; what is not told stays unset."""
    if found is not None:
        told = entry.health
        for name in _HEALTH_FIELDS:
            value = getattr(found, name)
            if value is not None:
                setattr(told, name, value)
        told.throttling_known = found.throttle is not None
        told.throttle_reasons.extend(throttled)
    for xid, count in xids.items():
        entry.health.xids.add(xid=xid, count=count)
