"""What each parent and each holder did, window by window, as far as the store can know it.

On a parent that several containers share:

- Where the exporter gives each pod's utilization (`vgpu`), SM time is apportioned by it, within
  [max(0, S − Σ other duties − unattributed duty), min(S, duty)].
- Where it gives only the device's, nobody knows who ran. Each holder's duty is at most the device's, and its SM time
  lies between 0 and the device's; equal parts stand for it, so that the parent's own total is right.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.ingest.prometheus.readings import Grid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gpuwaste.ingest.prometheus.holdings import Holding
    from gpuwaste.ingest.prometheus.parents import Parent
    from gpuwaste.ingest.prometheus.readings import Readings

    Bools = NDArray[np.bool_]
    Floats = NDArray[np.float64]
    Int64s = NDArray[np.int64]

__all__ = ["ENGINES", "HolderFigures", "ParentFigures", "holder_figures", "parent_figures"]

ENGINES = ("tensor", "dram", "enc", "dec")
"""Figures besides duty and SM time that only a holder alone on its parent can be given."""

_APPLICATION_XIDS = (13, 31, 43, 45, 68, 109)
"""Errors of applications, as NVIDIA's device plugin passes them over: they make no device bad."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentFigures:
    """Parents by windows; activity in nanoseconds of the parent's own time.

    Attributes:
        duty: time with any kernel resident.
        from_engine: bool[p, w], whether duty is DCGM's profiling figure.
        sm: SM time.
        engines: by name of `ENGINES`.
        memory: MiB, mean.
        peak: MiB, largest.
        power: watts.
        xid: last error.
        unhealthy: bool[p, w].
        coverage: float64[p, w].
        interval_seconds: float64[p].
        present: bool[p, w].
    """

    duty: Grid
    from_engine: Bools
    sm: Grid
    engines: dict[str, Grid]
    memory: Grid
    peak: Grid
    power: Grid
    xid: Grid
    unhealthy: Bools
    coverage: Floats
    interval_seconds: Floats
    present: Bools


@dataclass(frozen=True, slots=True, kw_only=True)
class HolderFigures:
    """Holders by windows; times in nanoseconds of the parent's own.

    Attributes:
        parent: int64[h], index of its parent.
        held: int64[h, w].
        duty: as in `ParentFigures`; an upper end where `by_pod` and `alone` are both false.
        sm: SM time; `low` and `high` bound it where it is apportioned.
        low: float64[h, w].
        high: float64[h, w].
        apportioned: bool[h], whether SM time is divided among several.
        by_pod: bool[h], whether duty is the pod's own on a shared parent.
        engines: by name of `ENGINES`.
        memory: MiB, mean.
        peak: MiB, largest.
    """

    parent: Int64s
    held: Int64s
    duty: Grid
    sm: Grid
    low: Floats
    high: Floats
    apportioned: Bools
    by_pod: Bools
    engines: dict[str, Grid]
    memory: Grid
    peak: Grid


@dataclass(frozen=True)
class _Pairs:
    """Which rows of the readings belong to which of n targets."""

    target: Int64s
    row: Int64s
    count: int

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> _Pairs:
        lengths = [len(one) for one in rows]
        flat = [row for one in rows for row in one]
        return cls(np.repeat(np.arange(len(rows)), lengths), np.array(flat, np.int64), len(rows))

    @cached_property
    def single(self) -> bool:
        """Whether each target has one row: then there is nothing to add up."""
        return np.array_equal(self.target, np.arange(self.count))

    def mean(self, grid: Grid) -> Grid:
        if self.single:
            return Grid(grid.values[self.row] * grid.known[self.row], grid.known[self.row])
        total = np.zeros((self.count, grid.values.shape[1]))
        count = np.zeros_like(total)
        np.add.at(total, self.target, grid.values[self.row] * grid.known[self.row])
        np.add.at(count, self.target, grid.known[self.row])
        return Grid(total / np.maximum(count, 1), count > 0)

    def largest(self, grid: Grid) -> Grid:
        if self.single:
            known = grid.known[self.row]
            return Grid(np.maximum(grid.values[self.row] * known, 0.0), known)
        values = np.zeros((self.count, grid.values.shape[1]))
        known = np.zeros(values.shape, bool)
        np.maximum.at(values, self.target, grid.values[self.row] * grid.known[self.row])
        np.logical_or.at(known, self.target, grid.known[self.row])
        return Grid(values, known)


def _scaled(grid: Grid, factor: Int64s | float) -> Grid:
    return Grid(grid.values * factor, grid.known)


def parent_figures(readings: Readings, parents: Sequence[Parent]) -> ParentFigures:
    """Combine the rows of each parent."""
    step = float(readings.plan.step_ns)
    every = _Pairs.of([parent.rows for parent in parents])
    device = _Pairs.of([_device_rows(readings, parent) for parent in parents])

    def mean(figure: str) -> Grid:
        return device.mean(readings.grid(figure))

    engine, util = mean("engine"), mean("util")
    duty = Grid(np.where(engine.known, engine.values, util.values) * step, engine.known | util.known)
    xid = every.largest(readings.grid("xid"))
    coverage = Grid(readings.coverage, np.ones(readings.coverage.shape, bool))
    intervals = np.zeros(len(parents))
    np.maximum.at(intervals, every.target, readings.interval_seconds[every.row])
    return ParentFigures(
        duty=duty,
        from_engine=engine.known,
        sm=_scaled(mean("sm"), step),
        engines={name: _scaled(mean(name), step) for name in ENGINES},
        memory=mean("memory"),
        peak=every.largest(readings.grid("memory_peak")),
        power=mean("power"),
        xid=xid,
        unhealthy=xid.known & (xid.values > 0) & ~np.isin(np.rint(xid.values), _APPLICATION_XIDS),
        coverage=every.largest(coverage).values,
        interval_seconds=intervals,
        present=np.array([parent.present for parent in parents]).reshape(len(parents), readings.plan.windows),
    )


def _device_rows(readings: Readings, parent: Parent) -> Sequence[int]:
    """Rows that tell of the whole parent: not those of one pod among others, unless there are no others."""
    holders = [(row, readings.rows[row].holder) for row in parent.rows]
    return [row for row, holder in holders if holder is None or not holder.vgpu] or parent.rows


def holder_figures(
    readings: Readings, parents: Sequence[Parent], holdings: Sequence[Holding], whole: ParentFigures
) -> HolderFigures:
    """What every holder held and did."""
    plan = readings.plan
    parent = np.array([holding.parent for holding in holdings], np.int64)
    starts = plan.start_ns + np.arange(plan.windows) * plan.step_ns
    begin = np.array([holding.start_ns for holding in holdings], np.int64)[:, None]
    end = np.array([holding.end_ns for holding in holdings], np.int64)[:, None]
    held = np.clip(np.minimum(end, starts + plan.step_ns) - np.maximum(begin, starts), 0, plan.step_ns)
    shared = np.array([parents[holding.parent].replicas > 1 for holding in holdings], bool)
    certain = np.array([holding.certain for holding in holdings], bool)
    mine = [[row for row in holding.rows if _tells_of_pod(readings, parents, holding, row)] for holding in holdings]
    own = _Pairs.of(mine)
    by_pod = shared & np.array([bool(rows) for rows in mine], bool)
    alone = ~shared & certain

    def exclusive(figure: str, total: Grid) -> Grid:
        """Its own series where one names it in the window, else the parent's, which then is its own as well."""
        named = own.mean(readings.grid(figure)) if figure != "duty" else _named_duty(readings, own)
        values = np.where(named.known, named.values * held, np.minimum(total.values[parent], held))
        return Grid(values, (named.known | total.known[parent]) & alone[:, None])

    duty, sm = exclusive("duty", whole.duty), exclusive("sm", whole.sm)
    memory, peak = own.mean(readings.grid("memory")), own.largest(readings.grid("memory_peak"))
    keep = (alone | by_pod)[:, None]
    util = own.mean(readings.grid("util"))
    pod_duty = Grid(util.values * held / _containers(holdings)[:, None], util.known)
    sharing = _Sharing(
        parents=parents,
        parent=parent,
        held=held,
        step_ns=plan.step_ns,
        whole=whole,
        certain=certain,
        by_pod=by_pod,
        shared=shared,
    )
    division = sharing.divide(pod_duty)
    pick = shared[:, None]
    return HolderFigures(
        parent=parent,
        held=held,
        duty=_either(pick, division.duty, duty),
        sm=_either(pick, division.sm, sm),
        low=division.low,
        high=division.high,
        apportioned=shared,
        by_pod=by_pod,
        engines={name: exclusive(name, whole.engines[name]) for name in ENGINES},
        memory=_with_parent(memory, whole.memory, parent, alone, keep),
        peak=_with_parent(peak, whole.peak, parent, alone, keep),
    )


def _named_duty(readings: Readings, own: _Pairs) -> Grid:
    engine, util = own.mean(readings.grid("engine")), own.mean(readings.grid("util"))
    return Grid(np.where(engine.known, engine.values, util.values), engine.known | util.known)


def _tells_of_pod(readings: Readings, parents: Sequence[Parent], holding: Holding, row: int) -> bool:
    """Whether a row's readings are this container's own: on a shared parent only those with `vgpu` are."""
    holder = readings.rows[row].holder
    return holder is not None and (parents[holding.parent].replicas == 1 or bool(holder.vgpu))


def _containers(holdings: Sequence[Holding]) -> Floats:
    """How many containers of its pod each holder's parent has: each of them is given the pod's total."""
    count: dict[tuple[int, str, str, str], set[str]] = {}
    for one in holdings:
        count.setdefault((one.parent, one.namespace, one.pod, one.pod_uid), set()).add(one.container)
    return np.array([len(count[one.parent, one.namespace, one.pod, one.pod_uid]) for one in holdings], np.float64)


def _either(pick: Bools, first: Grid, second: Grid) -> Grid:
    return Grid(np.where(pick, first.values, second.values), np.where(pick, first.known, second.known))


def _with_parent(own: Grid, whole: Grid, parent: Int64s, alone: Bools, keep: Bools) -> Grid:
    """A holder's own memory; of one that is alone on its parent, the parent's."""
    fallback = alone[:, None] & ~own.known
    values = np.where(fallback, whole.values[parent], own.values)
    return Grid(values, keep & (own.known | (fallback & whole.known[parent])))


@dataclass(frozen=True, slots=True)
class _Division:
    """Duty and SM time of holders, and the ends of the latter."""

    duty: Grid
    sm: Grid
    low: Floats
    high: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sharing:
    """Divides what is known of shared parents among their holders; arrays as in `HolderFigures`."""

    parents: Sequence[Parent]
    parent: Int64s
    held: Int64s
    step_ns: int
    whole: ParentFigures
    certain: Bools
    by_pod: Bools
    shared: Bools

    def _total(self, values: Floats) -> Floats:
        """Sums by parent, at each of its holders."""
        total = np.zeros((len(self.parents), values.shape[1]))
        np.add.at(total, self.parent, values)
        return total

    def divide(self, pod_duty: Grid) -> _Division:
        """Divide by pods where the exporter tells them apart on a parent, else evenly.

        Args:
            pod_duty: nanoseconds, of holders whose pod the exporter knows.
        """
        if not len(self.parent):
            nothing = Grid(np.zeros(self.held.shape), np.zeros(self.held.shape, bool))
            return _Division(nothing, nothing, nothing.values, nothing.values)
        told = np.zeros(len(self.parents), bool)
        np.logical_or.at(told, self.parent, self.by_pod)
        pick = told[self.parent][:, None]
        one, other = self._by_pod(pod_duty), self._by_device()
        return _Division(
            _either(pick, one.duty, other.duty),
            _either(pick, one.sm, other.sm),
            np.where(pick, one.low, other.low),
            np.where(pick, one.high, other.high),
        )

    def _by_pod(self, pod_duty: Grid) -> _Division:
        duty = np.where(pod_duty.known, np.minimum(pod_duty.values, self.held), 0.0)
        total = self._total(duty)
        unattributed = np.maximum(self.whole.duty.values - total, 0.0) * self.whole.duty.known
        sm = self.whole.sm.values[self.parent]
        most = np.minimum(sm, duty)
        point = np.minimum(duty, sm * duty / np.maximum(total[self.parent], 1.0))
        low = np.clip(sm - (total[self.parent] - duty) - unattributed[self.parent], 0.0, None)
        low = np.where(low > most, most, np.minimum(low, point))
        known = pod_duty.known & self.by_pod[:, None]
        return _Division(Grid(duty, known), Grid(point, known & self.whole.sm.known[self.parent]), low, most)

    def _by_device(self) -> _Division:
        held = np.where(self.shared[:, None], self.held, 0).astype(np.float64)
        part = held / np.maximum(self._total(held)[self.parent], 1.0)
        sm, duty = self.whole.sm, self.whole.duty
        point = sm.values[self.parent] * part
        sure = self._sure()[:, None] & (part == 1.0)
        return _Division(
            Grid(self._highest(duty) * held / self.step_ns, duty.known[self.parent]),
            Grid(point, sm.known[self.parent]),
            np.where(sure, point, 0.0),
            np.where(sure, point, np.maximum(self._highest(sm), point)),
        )

    def _nodes(self) -> Int64s:
        _, codes = np.unique([parent.node for parent in self.parents], return_inverse=True)
        return codes.astype(np.int64)

    def _highest(self, grid: Grid) -> Floats:
        """A holder's upper end: its parent's, or the highest of its node's where the parent is a guess."""
        nodes = self._nodes()
        shared = np.array([parent.replicas > 1 for parent in self.parents], bool)
        most = np.zeros((int(nodes.max(initial=-1)) + 1, grid.values.shape[1]))
        np.maximum.at(most, nodes[shared], grid.values[shared])
        return np.where(self.certain[:, None], grid.values[self.parent], most[nodes[self.parent]])

    def _sure(self) -> Bools:
        """Whether nobody else can be on the holder's parent: every holder of the node is known to be where it is."""
        nodes = self._nodes()
        guessed = np.zeros(int(nodes.max(initial=-1)) + 1, bool)
        np.logical_or.at(guessed, nodes[self.parent], self.shared & ~self.certain)
        sure: Bools = ~guessed[nodes[self.parent]]
        return sure
