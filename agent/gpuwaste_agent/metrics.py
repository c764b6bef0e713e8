"""`/metrics`: the windows' figures as counters, and how the agent itself is doing."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from gpuwaste_agent import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from prometheus_client.core import Metric

    from gpuwaste_agent.journal import Journal
    from gpuwaste_agent.wire.usage_pb2 import Device, Figures, Record, Usage

__all__ = ["METRICS", "MetricSpec", "Metrics"]

_NS = 1_000_000_000
_MILLI = 1000
_DEVICE = ("gpu", "parent", "profile")
_CONTAINER = ("gpu", "parent", "slice", "namespace", "pod", "container")


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSpec:
    """One metric: its name without `_total`, kind, labels and what it says."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str

    @property
    def exposed(self) -> str:
        """The name as Prometheus sees it."""
        return self.name + ("_total" if self.kind == "counter" else "")


# Figure of the usage message, name in a metric, what divides it to the base unit, what it says.
_FIGURES = (
    ("duty_ns", "duty_seconds", _NS, "time with any kernel resident"),
    ("sm_ns", "sm_seconds", _NS, "SM activity times time"),
    ("tensor_ns", "tensor_seconds", _NS, "tensor core activity times time"),
    ("dram_ns", "dram_seconds", _NS, "memory bandwidth use times time"),
    ("enc_ns", "encoder_seconds", _NS, "encoder use times time"),
    ("dec_ns", "decoder_seconds", _NS, "decoder use times time"),
    ("copy_ns", "copy_seconds", _NS, "copy engine use times time"),
    ("pcie_bytes", "pcie_bytes", 1, "bytes over PCIe, both ways"),
    ("nvlink_bytes", "nvlink_bytes", 1, "bytes over NVLink, both ways"),
    ("memory_byte_s", "memory_byte_seconds", 1, "memory in use times time"),
    ("energy_mj", "energy_joules", _MILLI, "energy"),
)


def _specs() -> tuple[MetricSpec, ...]:
    specs = []
    for part, labels, whose in (
        ("device", _DEVICE, "of a GPU or MIG instance"),
        ("unattributed", _DEVICE, "of a GPU or MIG instance that no known process explains"),
        ("container", _CONTAINER, "of a container on one slice"),
        ("guests", _DEVICE, "of all containers that hold no slice of it, as those behind a reservation pod"),
    ):
        for _, name, _, text in _FIGURES:
            help_text = f"{text[0].upper()}{text[1:]}, {whose}; absent where unmeasured."
            specs.append(MetricSpec(name=f"gpuwaste_{part}_{name}", kind="counter", labels=labels, help=help_text))
    single = (
        ("gpuwaste_container_held_seconds", "counter", _CONTAINER, "Time a slice was in the hands of a container."),
        ("gpuwaste_device_allocatable_seconds", "counter", _DEVICE, "Time the kubelet could hand the device out."),
        ("gpuwaste_device_unhealthy_seconds", "counter", _DEVICE, "Time the GPU was lost or had a hardware XID."),
        ("gpuwaste_device_xids", "counter", ("gpu", "xid"), "XID errors the driver told of."),
        ("gpuwaste_agent_ticks", "counter", (), "Readings of all devices."),
        ("gpuwaste_agent_tick_seconds", "counter", (), "Time spent in readings and accounting."),
        (
            "gpuwaste_agent_driver_cpu_seconds",
            "counter",
            (),
            "CPU time inside the driver's calls, part of the readings.",
        ),
        ("gpuwaste_agent_records", "counter", (), "Records written to the journal since the agent started."),
        ("gpuwaste_agent_missed_processes", "counter", (), "Processes that ended before their last use was read."),
        ("gpuwaste_agent_journal_dropped_records", "counter", (), "Records dropped for want of space."),
        ("gpuwaste_agent_journal_bytes", "gauge", (), "Size of the journal."),
        ("gpuwaste_agent_journal_newest_window_timestamp_seconds", "gauge", (), "End of the newest window."),
        ("gpuwaste_agent_info", "gauge", ("version", "journal"), "Always 1; what this agent is."),
    )
    specs += [MetricSpec(name=name, kind=kind, labels=labels, help=text) for name, kind, labels, text in single]
    return tuple(specs)


METRICS = _specs()
_BY_NAME = {spec.name: spec for spec in METRICS}
_OWN = tuple(spec.name for spec in METRICS if spec.name.startswith("gpuwaste_agent_"))
_END = b"# EOF\n"
# What is answered, by what is asked for: whatever version a caller names, there is one text of each kind.
_OPENMETRICS = "application/openmetrics-text; version=1.0.0"
_TYPES = {True: f"{_OPENMETRICS}; charset=utf-8", False: "text/plain; version=0.0.4; charset=utf-8"}


class Metrics:
    """Sums of everything recorded since the agent started; series of what left are dropped."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._lock = threading.Lock()
        self._sums: dict[str, dict[tuple[str, ...], float]] = {spec.name: {} for spec in METRICS}
        self._profiles: dict[str, str] = {}
        # The windows' part changes once a window and is large: it is written once, for OpenMetrics and for text.
        self._written: dict[bool, bytes] = {}

    def tick(self, seconds: float, driver_cpu_ns: int) -> None:
        """Count a reading that took so long; `driver_cpu_ns` is the driver's part of all readings so far."""
        with self._lock:
            self._bump("gpuwaste_agent_ticks", (), 1)
            self._bump("gpuwaste_agent_tick_seconds", (), seconds)
            self._sums["gpuwaste_agent_driver_cpu_seconds"][()] = driver_cpu_ns / _NS

    def add(self, records: Sequence[Record]) -> None:
        """Add a window's records."""
        present: dict[tuple[str, ...], set[tuple[str, ...]]] = {_DEVICE: set(), _CONTAINER: set()}
        guests: list[Usage] = []
        with self._lock:
            self._told: dict[str, str] = {}
            for record in records:
                body = record.WhichOneof("body")
                if body == "device":
                    present[_DEVICE].add(self._add_device(record.device))
                elif body == "usage" and record.usage.slice_id:
                    present[_CONTAINER].add(self._add_usage(record.usage))
                    self._bump("gpuwaste_agent_missed_processes", (), record.usage.missed_processes)
                elif body == "usage":
                    guests.append(record.usage)
            self._add_guests(guests)
            self._bump("gpuwaste_agent_records", (), len(records))
            if present[_DEVICE]:
                self._forget(present)
            self._written = {}

    def _forget(self, present: Mapping[tuple[str, ...], set[tuple[str, ...]]]) -> None:
        """Drop the series of containers, and of MIG instances, that a window does not have any more."""
        for spec in METRICS:
            kept = present.get(spec.labels)
            if kept is not None:
                series = self._sums[spec.name]
                self._sums[spec.name] = {labels: value for labels, value in series.items() if labels in kept}
        self._profiles = {parent: profile for _, parent, profile in present[_DEVICE]}

    def _bump(self, name: str, labels: tuple[str, ...], amount: float) -> None:
        series = self._sums[name]
        series[labels] = series.get(labels, 0.0) + amount

    def _add_figures(self, part: str, labels: tuple[str, ...], figures: Figures) -> None:
        for field, name, divisor, _ in _FIGURES:
            if figures.HasField(field):
                self._bump(f"gpuwaste_{part}_{name}", labels, getattr(figures, field) / divisor)

    def _add_device(self, device: Device) -> tuple[str, ...]:
        labels = (device.gpu_uuid, device.parent_id, device.mig_profile)
        self._profiles[device.parent_id] = device.mig_profile
        self._add_figures("device", labels, device.figures)
        self._add_figures("unattributed", labels, device.unattributed)
        self._add_xids(device)
        self._bump("gpuwaste_device_allocatable_seconds", labels, device.allocatable_ns / _NS)
        self._bump("gpuwaste_device_unhealthy_seconds", labels, device.unhealthy_ns / _NS)
        return labels

    def _add_xids(self, device: Device) -> None:
        """Count XIDs once for a GPU: each of its MIG instances tells them."""
        first = self._told.setdefault(device.gpu_uuid, device.parent_id)
        if device.parent_id == first:
            for xid in device.xids:
                self._bump("gpuwaste_device_xids", (device.gpu_uuid, str(xid)), 1)

    def _add_guests(self, guests: Sequence[Usage]) -> None:
        """Of a container that holds nothing the node knows no name but its pod's UID: all of a device are one."""
        for usage in guests:
            labels = (usage.gpu_uuid, usage.parent_id, self._profiles.get(usage.parent_id, ""))
            self._add_figures("guests", labels, usage.figures)
            self._bump("gpuwaste_agent_missed_processes", (), usage.missed_processes)

    def _add_usage(self, usage: Usage) -> tuple[str, ...]:
        labels = (usage.gpu_uuid, usage.parent_id, usage.slice_id, usage.namespace, usage.pod, usage.container)
        self._add_figures("container", labels, usage.figures)
        self._bump("gpuwaste_container_held_seconds", labels, usage.held_ns / _NS)
        return labels

    def _agent_sums(self) -> dict[str, dict[tuple[str, ...], float]]:
        sums = {name: self._sums[name] for name in _OWN}
        journal = self._journal
        sums["gpuwaste_agent_journal_bytes"] = {(): float(journal.size_bytes)}
        sums["gpuwaste_agent_journal_dropped_records"] = {(): float(journal.dropped_records)}
        sums["gpuwaste_agent_info"] = {(__version__, journal.journal_id): 1.0}
        newest = journal.newest_window_end_ns
        if newest is not None:
            sums["gpuwaste_agent_journal_newest_window_timestamp_seconds"] = {(): newest / _NS}
        return sums

    def render(self, accept: str) -> tuple[str, bytes]:
        """Content type and text for an Accept header: OpenMetrics where asked for, else Prometheus text."""
        openmetrics = "openmetrics" in choose_encoder(accept)[1]
        encoder, _ = choose_encoder(_OPENMETRICS if openmetrics else "")
        with self._lock:
            windows = self._written.get(openmetrics)
            if windows is None:
                large = {name: series for name, series in self._sums.items() if name not in _OWN}
                windows = self._written[openmetrics] = _text(encoder, large)
            own = _text(encoder, self._agent_sums())
        return _TYPES[openmetrics], windows + own + (_END if openmetrics else b"")


def _text(encoder: Callable[[Any], bytes], sums: dict[str, dict[tuple[str, ...], float]]) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(sums))
    return encoder(registry).removesuffix(_END)


class _Families(Collector):
    """Metric families of some sums."""

    def __init__(self, sums: dict[str, dict[tuple[str, ...], float]]) -> None:
        self._sums = sums

    def collect(self) -> Iterable[Metric]:
        """Yield every family; called by the encoder through its registry."""
        for name, series in self._sums.items():
            spec = _BY_NAME[name]
            family = GaugeMetricFamily if spec.kind == "gauge" else CounterMetricFamily
            metric = family(spec.name, spec.help, labels=list(spec.labels))
            for labels, value in series.items():
                metric.add_metric(list(labels), value)
            yield metric
