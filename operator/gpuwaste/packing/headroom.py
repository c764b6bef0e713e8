"""Which pods can share a GPU: from simultaneous series, never from sums of percentiles of each alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpuwaste.packing.instance import Bools, Floats, Ints

__all__ = ["Group", "Refused", "Series", "Sharing", "share"]

_FULL_PCT = 100.0
_MEMORY_TOLERANCE_GIB = 1e-9
FIT_PART = 0.2
"""A promise of 1 % is fitted at 0.2 %: the groups were chosen on the same data, which flatters them."""
_MARGIN_PCT = 10.0
"""Kept free until a whole week was seen: hours that were not measured may be busier than those that were."""
_P99_SUM_LIMIT_PCT = 130.0
_BLOCK_SECONDS = 3600.0
_RESAMPLES = 1_000
_CONFIDENCE = 0.95
_MOST_GAPS = 0.2
_FULL_DAY_HOURS = 24.0
_FULL_WEEK_HOURS = 168.0
_ORDERS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """What pods did at the same times.

    Attributes:
        pods: P names.
        duty_pct: float32[P, T] part of a GPU's time with a kernel resident; NaN = no sample.
        peak_memory_gib: float64[P].
        step_seconds: time between two columns.
    """

    pods: Sequence[str]
    duty_pct: np.ndarray
    peak_memory_gib: Floats
    step_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Pods on one GPU.

    Attributes:
        pods: their names.
        predicted_overload: upper 95 % limit of the part of time their duty adds up to more than one GPU less the
            margin.
        observed_overload: the part of the series given in which it adds up to more than one GPU.
        windows_over: samples in which it does.
        lost_work: expected part of their work that is delayed, from the same samples.
        peak_memory_gib: sum of their peaks.
    """

    pods: tuple[str, ...]
    predicted_overload: float
    observed_overload: float
    windows_over: int
    lost_work: float
    peak_memory_gib: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A pod that keeps its GPU."""

    pod: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """The answer.

    Attributes:
        groups: pods that share a GPU; a pod alone is a group too.
        refused: pods that keep a GPU of their own.
        hours: what the series cover.
        windows: samples that the series cover.
        margin_pct: part of a GPU that groups leave free, because less than a week was seen.
        confidence: `High` from 7 days on, `Medium` from a day on, else `Low`: the busiest hours may be missing.
    """

    groups: tuple[Group, ...]
    refused: tuple[Refused, ...]
    hours: float
    windows: int
    margin_pct: float
    confidence: str

    @property
    def gpus(self) -> int:
        """GPUs for all pods, one for each that was refused."""
        return len(self.groups) + len(self.refused)


def share(
    series: Series, *, memory_gib: float, promise: float, min_hours: float, random: np.random.Generator
) -> Sharing:
    """Group pods so that each group may share one GPU.

    A group is formed if its peak memories fit; if the upper 95 % limit of the part of time its duty is over one
    GPU (bootstrap of 1 h blocks, which keeps what follows on one another together; Kunsch 1989) is at most a
    fifth of the promise, one GPU being 90 % of one until a week was seen; and if the 99th percentiles of its pods
    add up to at most 1.3 GPUs. Where a pod has no sample it counts at its maximum.

    Args:
        series: simultaneous samples.
        memory_gib: memory of one GPU.
        promise: part of time a group may be over one GPU, above 0.
        min_hours: pods with fewer hours of samples keep their GPU.
        random: for the bootstrap.
    """
    refused = _refusals(series, memory_gib=memory_gib, min_hours=min_hours)
    kept = np.array([pod for pod in range(len(series.pods)) if pod not in refused], dtype=np.int64)
    duty = series.duty_pct[kept]
    highest = np.fmax.reduce(duty, axis=1, initial=0.0)
    load = np.where(np.isnan(duty), highest[:, None], duty)
    hours = series.duty_pct.shape[1] * series.step_seconds / 3600
    margin = 0.0 if hours >= _FULL_WEEK_HOURS else _MARGIN_PCT
    judge = _Judge(
        cap=_FULL_PCT - margin,
        load=load,
        memory=series.peak_memory_gib[kept],
        memory_gib=memory_gib,
        limit=promise * FIT_PART,
        block=max(round(_BLOCK_SECONDS / series.step_seconds), 1),
        random=random,
    )
    groups = [_group(series, judge, kept[members], load[members].sum(axis=0)) for members in _fewest(judge, random)]
    return Sharing(
        groups=tuple(groups),
        refused=tuple(Refused(pod=series.pods[pod], why=why) for pod, why in refused.items()),
        hours=hours,
        windows=series.duty_pct.shape[1],
        margin_pct=margin,
        confidence=_confidence(hours),
    )


def _confidence(hours: float) -> str:
    if hours >= _FULL_WEEK_HOURS:
        return "High"
    return "Medium" if hours >= _FULL_DAY_HOURS else "Low"


def _group(series: Series, judge: _Judge, members: Ints, total: np.ndarray) -> Group:
    """A group with its risk; int64[n] pods, float[T] their load together."""
    over = np.maximum(total - _FULL_PCT, 0.0)
    work = float(total.sum())
    return Group(
        pods=tuple(series.pods[pod] for pod in members.tolist()),
        predicted_overload=judge.overload(total),
        observed_overload=float((total > _FULL_PCT).mean()) if len(total) else 0.0,
        windows_over=int((total > _FULL_PCT).sum()),
        lost_work=float(over.sum()) / work if work else 0.0,
        peak_memory_gib=float(series.peak_memory_gib[members].sum()),
    )


def _refusals(series: Series, *, memory_gib: float, min_hours: float) -> dict[int, str]:
    refused: dict[int, str] = {}
    present = ~np.isnan(series.duty_pct)
    for pod in range(len(series.pods)):
        seen = np.flatnonzero(present[pod])
        hours = len(seen) * series.step_seconds / 3600
        span = int(seen[-1] - seen[0] + 1) if len(seen) else 1
        gaps = 1 - len(seen) / span
        if hours < min_hours:
            refused[pod] = f"{hours:.1f} h of samples, fewer than {min_hours:g} h"
        elif gaps > _MOST_GAPS:
            refused[pod] = f"{gaps:.0%} of its samples are missing, more than {_MOST_GAPS:.0%}"
        elif series.peak_memory_gib[pod] > memory_gib + _MEMORY_TOLERANCE_GIB:
            refused[pod] = f"peak memory {series.peak_memory_gib[pod]:.1f} GiB is more than {memory_gib:g} GiB"
    return refused


class _Judge:
    """Whether pods may share, on prepared arrays; P pods, T times."""

    def __init__(
        self,
        *,
        cap: float,
        load: np.ndarray,
        memory: Floats,
        memory_gib: float,
        limit: float,
        block: int,
        random: np.random.Generator,
    ) -> None:
        self.load, self.memory = load, memory
        self._cap = cap
        self._memory_gib, self._limit = memory_gib, limit
        times = load.shape[1]
        self.p99 = np.percentile(load, 99, axis=1) if load.size else np.zeros(len(load))
        self._starts = np.arange(0, max(times, 1), block)
        blocks = len(self._starts)
        lengths = np.diff(np.append(self._starts, max(times, 1)))
        draws = random.integers(0, blocks, size=(_RESAMPLES, blocks))
        counts = np.zeros((_RESAMPLES, blocks))
        np.add.at(counts, (np.arange(_RESAMPLES)[:, None], draws), 1.0)
        self._weights = counts / (counts @ lengths)[:, None]

    def overload(self, total: np.ndarray) -> float:
        """Upper limit of the part of time a group's load, float[T], is over one GPU less the margin."""
        over = total > self._cap
        if not over.any():
            return 0.0
        in_block = np.add.reduceat(over.astype(np.float64), self._starts)
        return float(np.quantile(self._weights @ in_block, _CONFIDENCE))

    def candidates(self, pod: int, memory: Floats, p99: Floats) -> Bools:
        """bool[groups]: those whose memory and percentiles leave room for the pod."""
        room: Bools = memory + self.memory[pod] <= self._memory_gib + _MEMORY_TOLERANCE_GIB
        room &= p99 + self.p99[pod] <= _P99_SUM_LIMIT_PCT
        return room

    def allows(self, total: np.ndarray) -> bool:
        """Whether a load keeps the promise."""
        return self.overload(total) <= self._limit


def _fewest(judge: _Judge, random: np.random.Generator) -> list[Ints]:
    """Best fit from several orders; the one with the fewest groups."""
    size = np.maximum(judge.memory / max(float(judge.memory.max(initial=0.0)), 1e-9), judge.p99 / _FULL_PCT)
    orders = [np.argsort(-judge.p99, kind="stable"), np.argsort(-size, kind="stable")]
    orders += [np.argsort(-size * random.uniform(0.8, 1.2, len(size)), kind="stable") for _ in range(_ORDERS)]
    return min((_best_fit(judge, order) for order in orders), key=len)


def _best_fit(judge: _Judge, order: Ints) -> list[Ints]:
    """Each pod joins the fullest group that may take it, else opens one."""
    members: list[list[int]] = []
    total: list[np.ndarray] = []
    memory, p99 = np.zeros(0), np.zeros(0)
    for pod in order.tolist():
        possible = np.flatnonzero(judge.candidates(pod, memory, p99))
        fullest_first = possible[np.argsort(-(memory[possible] + p99[possible]), kind="stable")]
        for group in fullest_first.tolist():
            load = total[group] + judge.load[pod]
            if judge.allows(load):
                members[group].append(pod)
                total[group] = load
                memory[group] += judge.memory[pod]
                p99[group] += judge.p99[pod]
                break
        else:
            members.append([pod])
            total.append(judge.load[pod].copy())
            memory = np.append(memory, judge.memory[pod])
            p99 = np.append(p99, judge.p99[pod])
    return [np.array(group, dtype=np.int64) for group in members]
