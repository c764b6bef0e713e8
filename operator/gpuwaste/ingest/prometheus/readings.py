"""Range queries as arrays: one row a device and holder, one column a window.

A gauge's reading stands for the time since the reading before it. Where readings lie further apart than windows
(slow scrapes, downsampled blocks), a window without one therefore takes the next, up to one and a half intervals on.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gpuwaste.ingest.prometheus.labels import (
    DEVICE_LABELS,
    HOST_LABELS,
    DeviceLabels,
    HolderLabels,
    device_of,
    holder_of,
    honors_labels,
)
from gpuwaste.ingest.prometheus.metrics import FIGURE_METRICS, FigureMetric, Scale, blank, decide_scales
from gpuwaste.ingest.prometheus.store import Query
from gpuwaste.model.units import to_unix_ns

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    from gpuwaste.ingest.prometheus.labels import HostNames
    from gpuwaste.ingest.prometheus.store import MetricStore, Series

    Bools = NDArray[np.bool_]
    Floats = NDArray[np.float64]

__all__ = ["Grid", "ReadPlan", "Readings", "RowKey", "read_readings"]

_SECOND = 1_000_000_000
_HOUR_SECONDS = 3600
_BY = ", ".join(DEVICE_LABELS)
_USUAL_INTERVAL_SECONDS = 30.0
_REACH = 1.5
_BEYOND_SECONDS = 600
_PIECE_SECONDS = 600
_RARE = 2
_AT_ONCE = 3
"""Queries that a store is given at the same time."""
_LARGEST_ACTIVITY = 150.0
_OWN_POD = ("namespace", "pod")


class RowKey(NamedTuple):
    """A device, and the container that a series names on it; None for the device's own series."""

    node: str
    device: DeviceLabels
    holder: HolderLabels | None


@dataclass(frozen=True, slots=True)
class Grid:
    """Means of one figure.

    Attributes:
        values: float64[rows, windows]; 0 where nothing is known.
        known: bool[rows, windows].
    """

    values: Floats
    known: Bools


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadPlan:
    """What is to be read.

    Attributes:
        start: of the first window, on a multiple of the step.
        windows: how many.
        step_seconds: length of a window; divides an hour.
        metrics: names of the metrics that the store has.
    """

    start: datetime
    windows: int
    step_seconds: int
    metrics: frozenset[str]

    @property
    def end(self) -> datetime:
        """End of the last window."""
        return self.start + timedelta(seconds=self.windows * self.step_seconds)

    @property
    def start_ns(self) -> int:
        """Start in Unix nanoseconds."""
        return to_unix_ns(self.start)

    @property
    def step_ns(self) -> int:
        """Length of a window."""
        return self.step_seconds * _SECOND


@dataclass(slots=True, kw_only=True)
class Readings:
    """Everything that the store says about devices in one stretch of time.

    Attributes:
        plan: what was read.
        rows: what each row is about.
        figures: by figure of `FIGURE_METRICS`, and `memory_peak`; activity is a part of one, memory in MiB.
        coverage: float64[rows, windows], part of the window that readings cover.
        interval_seconds: float64[rows], from one reading to the next.
        blanks: values that were no readings, by metric.
        unscaled: hosts whose exporter's scale cannot be told, by metric.
    """

    plan: ReadPlan
    rows: list[RowKey] = field(default_factory=list)
    figures: dict[str, Grid] = field(default_factory=dict)
    coverage: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    interval_seconds: Floats = field(default_factory=lambda: np.zeros(0))
    blanks: dict[str, int] = field(default_factory=dict)
    unscaled: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def grid(self, figure: str) -> Grid:
        """The grid of a figure; nothing is known in it where the store does not have the metric."""
        shape = (len(self.rows), self.plan.windows)
        return self.figures.get(figure) or Grid(np.zeros(shape), np.zeros(shape, bool))


@dataclass(frozen=True, slots=True)
class _Read:
    """One answer: which figure, of which metric, and its series."""

    figure: str
    metric: FigureMetric
    name: str
    series: list[Series]


def read_readings(
    store: MetricStore, plan: ReadPlan, hosts: HostNames, *, largest: dict[str, dict[str, float]]
) -> Readings:
    """Ask for every metric that there is, and lay the answers on one grid.

    Args:
        store: where to ask.
        plan: what to ask for.
        hosts: finds the node of a series.
        largest: the largest value seen so far by metric and host; added to, so that a scale that was once
            recognised stays.
    """
    readings = Readings(plan=plan)
    main = next((name for name in _MAIN if name in plan.metrics), "")
    if not main:
        return readings
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="prometheus") as asking:
        try:
            coming_intervals = asking.submit(_intervals, store, plan, main, hosts)
            coming = [asking.submit(_read, store, plan, *what) for what in _wanted(plan)]
            coming_counts = asking.submit(
                _asked, store, plan, _query(main, "count_over_time", "max", plan.step_seconds)
            )
            coming_highest = {
                name: asking.submit(_largest_by_node, store, plan, hosts, name, "max_over_time")
                for name in _with_scale(plan)
            }
            intervals, reads = coming_intervals.result(), [one.result() for one in coming]
            counts = coming_counts.result()
            highest = {name: one.result() for name, one in coming_highest.items()}
        except BaseException:
            asking.shutdown(cancel_futures=True)
            raise
    everything = [series.labels for read in reads for series in read.series]
    honors = honors_labels(everything)
    keys: dict[RowKey, int] = {}
    row_by_labels: dict[int, int | None] = {}

    def row_of(labels: Mapping[str, str]) -> int | None:
        # Answers about several metrics share the labels as objects.
        if id(labels) not in row_by_labels:
            device = device_of(labels)
            row_by_labels[id(labels)] = None
            if device is not None:
                key = RowKey(hosts.node_of(labels), device, holder_of(labels, honors=honors))
                row_by_labels[id(labels)] = keys.setdefault(key, len(keys))
        return row_by_labels[id(labels)]

    placed = [(read, [(row_of(series.labels), series) for series in read.series]) for read in reads]
    counted = [(row_of(series.labels), series) for series in counts]
    readings.rows = list(keys)
    readings.interval_seconds = np.array([intervals.get(key.node, _USUAL_INTERVAL_SECONDS) for key in keys])
    _fill(readings, placed, _scales(reads, highest, largest))
    readings.coverage = _coverage(readings, counted)
    return readings


_MAIN = (
    "DCGM_FI_DEV_FB_USED",
    "DCGM_FI_DEV_GPU_UTIL",
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
    *(name for metric in FIGURE_METRICS for name in metric.names),
)
"""Metrics by which a device is seen to be there; memory first, for every device has it."""


def _asked(store: MetricStore, plan: ReadPlan, query: Query) -> list[Series]:
    """Evaluate at the end of each window, and as far beyond the last as a reading may reach back."""
    step = timedelta(seconds=plan.step_seconds)
    beyond = max(plan.step_seconds, _BEYOND_SECONDS) // plan.step_seconds
    return store.range(query, start=plan.start + step, end=plan.end + beyond * step, step_seconds=plan.step_seconds)


def _query(name: str, over: str, reduce: str, seconds: int) -> Query:
    # One millisecond short: Prometheus before 3.0 counts a sample on either edge, and edges belong to one window.
    window = f"{seconds * 1000 - 1}ms"
    return Query(template=f"{reduce} by ({_BY}) ({over}({name}{{$selector}}[{window}]))", shard_label="UUID")


def _wanted(plan: ReadPlan) -> Iterator[tuple[str, FigureMetric, str]]:
    """Figures, their metrics, and the names of those that the store has."""
    for metric in FIGURE_METRICS:
        for name in metric.names:
            if name in plan.metrics:
                yield metric.figure, metric, name
                if metric.figure == "memory":
                    yield "memory_peak", metric, name


def _read(store: MetricStore, plan: ReadPlan, figure: str, metric: FigureMetric, name: str) -> _Read:
    over, reduce = ("max_over_time", "max") if figure in ("xid", "memory_peak") else ("avg_over_time", "avg")
    return _Read(figure, metric, name, _asked(store, plan, _query(name, over, reduce, plan.step_seconds)))


def _largest_by_node(
    store: MetricStore, plan: ReadPlan, hosts: HostNames, name: str, over: str, *, seconds: int = _HOUR_SECONDS
) -> dict[str, float]:
    """The largest of `over` in any piece of so many seconds, by node; pieces lie end to end and end with the plan."""
    pieces = -(-plan.windows * plan.step_seconds // seconds)
    first = plan.end - timedelta(seconds=(pieces - 1) * seconds)

    def ask(*by: str) -> list[Series]:
        query = Query(template=f"max by ({', '.join(by)}) ({over}({name}{{$selector}}[{seconds * 1000 - 1}ms]))")
        return store.range(query, start=first, end=plan.end, step_seconds=seconds)

    answer = ask(*HOST_LABELS)
    # Where pods are holders there are many more series with their names: they are asked for only where they help.
    if any(hosts.needs_pod(series.labels) for series in answer):
        answer = ask(*HOST_LABELS, *_OWN_POD)
    found: dict[str, float] = {}
    for series in answer:
        values = series.values[np.isfinite(series.values)]
        if values.size:
            node = hosts.node_of(series.labels)
            found[node] = max(found.get(node, 0.0), float(values.max()))
    return found


def _intervals(store: MetricStore, plan: ReadPlan, main: str, hosts: HostNames) -> dict[str, float]:
    """Seconds between readings by node: a piece of time by the most readings that one series had in one.

    Pieces are short, so that a gap spoils few of them; only where readings are rare they are an hour.
    """
    counts = _largest_by_node(store, plan, hosts, main, "count_over_time", seconds=_PIECE_SECONDS)
    found = {node: _PIECE_SECONDS / count for node, count in counts.items() if count > 0}
    if any(count <= _RARE for count in counts.values()):
        hourly = _largest_by_node(store, plan, hosts, main, "count_over_time")
        found |= {node: _HOUR_SECONDS / hourly[node] for node, count in counts.items() if count <= _RARE}
    return found


def _with_scale(plan: ReadPlan) -> list[str]:
    """Metrics that exporters count from 0 to 1 or to 100."""
    return [name for metric in FIGURE_METRICS if metric.scale for name in metric.names if name in plan.metrics]


def _scales(
    reads: Sequence[_Read], highest: Mapping[str, Mapping[str, float]], largest: dict[str, dict[str, float]]
) -> dict[str, dict[str, Scale | None]]:
    """By metric and node.

    Args:
        reads: the answers.
        highest: the largest single reading by metric and node: averages hide whole per cents.
        largest: the same of what was read before; added to.
    """
    scales: dict[str, dict[str, Scale | None]] = {}
    for read in reads:
        if read.metric.scale is None:
            continue
        seen = largest.setdefault(read.name, {})
        for node, value in highest[read.name].items():
            if value <= _LARGEST_ACTIVITY:
                seen[node] = max(seen.get(node, 0.0), value)
        scales[read.name] = decide_scales(seen, usual=read.metric.scale)
    return scales


class _Cells(NamedTuple):
    """Points of many series, one after the other."""

    row: NDArray[np.int64]
    window: NDArray[np.int64]
    values: Floats
    factor: Floats


def _cells(plan: ReadPlan, used: Sequence[tuple[int, float, Series]]) -> _Cells:
    lengths = [len(series.values) for _, _, series in used]
    nothing = [np.zeros(0)]
    times = np.concatenate([series.times_s for _, _, series in used] or nothing).astype(np.int64)
    return _Cells(
        row=np.repeat(np.array([row for row, _, _ in used], np.int64), lengths),
        window=(times - plan.start_ns // _SECOND) // plan.step_seconds - 1,
        values=np.concatenate([series.values for _, _, series in used] or nothing),
        factor=np.repeat(np.array([factor for _, factor, _ in used], np.float64), lengths),
    )


def _fill(
    readings: Readings,
    placed: Sequence[tuple[_Read, list[tuple[int | None, Series]]]],
    scales: Mapping[str, Mapping[str, Scale | None]],
) -> None:
    """Lay series into grids: the preferred metric of a figure first, duplicates averaged, then reached back."""
    wide = _width(readings.plan)
    reach = _reach(readings)
    for read, found in placed:
        total, count = np.zeros((len(readings.rows), wide)), np.zeros((len(readings.rows), wide))
        activity = read.metric.scale is not None
        unscaled: set[str] = set()
        used: list[tuple[int, float, Series]] = []
        for row, series in found:
            if row is None:
                continue
            factor: float | None = 1.0
            if read.metric.scale is not None:
                node = readings.rows[row].node
                scale = scales[read.name].get(node, read.metric.scale)
                factor = None if scale is None else scale.value
            if factor is None:
                unscaled.add(readings.rows[row].node)
                if series.values.any():
                    continue
            used.append((row, factor or 1.0, series))
        cells = _cells(readings.plan, used)
        bad = blank(cells.values, activity=activity)
        if bad.any():
            readings.blanks[read.name] = readings.blanks.get(read.name, 0) + int(bad.sum())
        good = ~bad & (cells.window >= 0) & (cells.window < wide)
        values = cells.values[good] / cells.factor[good]
        if activity:
            values = np.minimum(values, 1.0)  # on MIG instances DCGM shows more than all now and then
        place = (cells.row[good], cells.window[good])
        np.add.at(total, place, values)
        np.add.at(count, place, 1)
        if unscaled:
            readings.unscaled[read.name] = tuple(sorted(unscaled))
        grid = _reached(Grid(total / np.maximum(count, 1), count > 0), reach)
        _put(readings, read.figure, grid)


def _put(readings: Readings, figure: str, grid: Grid) -> None:
    known = readings.figures.get(figure)
    cut = Grid(grid.values[:, : readings.plan.windows], grid.known[:, : readings.plan.windows])
    if known is not None:
        cut = Grid(np.where(known.known, known.values, cut.values), known.known | cut.known)
    readings.figures[figure] = cut


def _width(plan: ReadPlan) -> int:
    return plan.windows + max(plan.step_seconds, _BEYOND_SECONDS) // plan.step_seconds


def _reach(readings: Readings) -> NDArray[np.int64]:
    """How many windows back a reading of each row stands for, besides its own."""
    ratio = _REACH * readings.interval_seconds / readings.plan.step_seconds
    reach: NDArray[np.int64] = np.maximum(np.ceil(ratio).astype(np.int64) - 1, 0)
    return reach


def _reached(grid: Grid, reach: NDArray[np.int64]) -> Grid:
    """Give windows without a reading the next one, where that is near enough."""
    rows, wide = grid.known.shape
    if not rows or not wide or not reach.any():
        return grid
    places = np.where(grid.known, np.arange(wide), wide)
    following = np.minimum.accumulate(places[:, ::-1], axis=1)[:, ::-1]
    near = (following < wide) & (following - np.arange(wide) <= reach[:, None])
    values = np.take_along_axis(grid.values, np.minimum(following, wide - 1), axis=1)
    return Grid(np.where(near, values, 0.0), near)


def _coverage(readings: Readings, counted: Sequence[tuple[int | None, Series]]) -> Floats:
    """The part of each window that readings stand for."""
    wide = _width(readings.plan)
    counts = np.zeros((len(readings.rows), wide))
    cells = _cells(readings.plan, [(row, 1.0, series) for row, series in counted if row is not None])
    inside = (cells.window >= 0) & (cells.window < wide)
    np.maximum.at(counts, (cells.row[inside], cells.window[inside]), cells.values[inside])
    grid = _reached(Grid(counts, counts > 0), _reach(readings))
    covered = grid.values * (readings.interval_seconds / readings.plan.step_seconds)[:, None]
    # Scrapes are not quite regular: a reading more or less in a window is no gap.
    slack = readings.interval_seconds[:, None] / readings.plan.step_seconds
    whole = np.where(covered + np.minimum(slack, 0.5) >= 1.0, 1.0, covered)
    return whole[:, : readings.plan.windows]
