"""What ten thousand workloads cost the API server at steady state: the real writer, its writes counted by the second.

Time is simulated: the writer's waits move a clock, and every pass shows figures of a minute later. The figures of each
workload wander as real ones do, by up to 1 % from one pass to the next; one in two hundred changes for good.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import numpy as np

from gpuwaste.api import (
    GPUWaste,
    GPUWasteSpec,
    GPUWasteStatus,
    ObjectMeta,
    WasteSummary,
    WorkloadRef,
    WorkloadWindow,
)
from gpuwaste.cluster.memory import MemoryCluster
from gpuwaste.runtime.writer import ObjectWriter

START = datetime(2026, 11, 9, tzinfo=UTC)
_PASS_SECONDS = 60
_LENGTHS = {"1h": 1, "24h": 24, "7d": 168}


@dataclass(slots=True)
class Clock:
    """Simulated time."""

    now: datetime = START

    async def sleep(self, seconds: float) -> None:
        """Let time go by."""
        self.now += timedelta(seconds=seconds)


@dataclass(slots=True)
class Counted:
    """An API server in memory whose writes are counted by the second in which they arrive."""

    clock: Clock
    cluster: MemoryCluster = field(init=False)
    by_second: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.cluster = MemoryCluster(now=lambda: self.clock.now)

    def __getattr__(self, name: str):
        return getattr(self.cluster, name)

    async def apply(self, *args, **more):
        self._count()
        return await self.cluster.apply(*args, **more)

    async def apply_status(self, *args, **more):
        self._count()
        return await self.cluster.apply_status(*args, **more)

    async def delete(self, *args, **more):
        self._count()
        return await self.cluster.delete(*args, **more)

    def _count(self) -> None:
        self.by_second[int((self.clock.now - START).total_seconds())] += 1


def workloads(load: np.ndarray, at: datetime) -> list[GPUWaste]:
    """The objects of all workloads; `load` is each one's effective part, float64[n]."""
    return [_workload(number, part, at) for number, part in enumerate(load.tolist())]


def _workload(number: int, part: float, at: datetime) -> GPUWaste:
    name, namespace = f"workload-{number}", f"team-{number % 200}"
    into_hour = Decimal(at.minute * 60 + at.second or 3600) / 3600
    windows = []
    for length, hours in _LENGTHS.items():
        held = into_hour if length == "1h" else Decimal(hours)
        held, used = round(held, 6), round(held * Decimal(part), 6)
        windows.append(
            WorkloadWindow(
                window=length,
                from_time=at - timedelta(hours=hours),
                to_time=at,
                held_gpu_hours=held,
                effective_gpu_hours=used,
                waste_percent=round(100 * (1 - part)),
            )
        )
    summary = WasteSummary(
        window="7d",
        workload=f"Deployment/{name}",
        gpus="1.00",
        held_gpu_hours="168.00",
        effective_gpu_hours=f"{168 * part:.2f}",
        waste_percent=str(round(100 * (1 - part))),
        cost_per_month="5,022 USD",
        advice="Scale to zero, frees 1 GPU",
    )
    return GPUWaste(
        metadata=ObjectMeta(name=name, namespace=namespace),
        spec=GPUWasteSpec(
            workload_ref=WorkloadRef(api_version="apps/v1", kind="Deployment", namespace=namespace, name=name)
        ),
        status=GPUWasteStatus(observed_time=at, summary=summary, windows=tuple(windows)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Writes:
    """Writes of a run after its objects were there.

    Attributes:
        most_in_a_second: of any second.
        mean_a_second: over all of the time.
        a_pass: seconds of simulated time that the longest pass took.
    """

    most_in_a_second: int
    mean_a_second: float
    a_pass: float


def measure_writes(count: int, *, passes: int, seed: int = 20261109) -> Writes:
    """Show `count` workloads again and again, one pass a minute, and count what is written."""
    clock = Clock()
    api = Counted(clock)
    writer = ObjectWriter(api=api, writes_per_second=20.0, sleep=clock.sleep)
    rng = np.random.default_rng(seed)
    load = rng.uniform(0.05, 0.9, count)

    async def settle() -> None:
        first = ObjectWriter(api=api, writes_per_second=20.0, limit_seconds=1e6, sleep=clock.sleep)
        await first.write(workloads(load, clock.now))

    async def go() -> float:
        longest = 0.0
        for _ in range(passes):
            before = clock.now
            shown = load * rng.uniform(0.99, 1.01, count)
            moved = rng.random(count) < 1 / 200
            load[moved] = rng.uniform(0.05, 0.9, int(moved.sum()))
            await writer.write(workloads(shown, clock.now), owns=("GPUWaste",))
            longest = max(longest, (clock.now - before).total_seconds())
            clock.now = max(clock.now, before + timedelta(seconds=_PASS_SECONDS))
        return longest

    asyncio.run(settle())
    began = int((clock.now - START).total_seconds()) + 1
    longest = asyncio.run(go())
    seconds = (clock.now - START).total_seconds() - began
    steady = {second: writes for second, writes in api.by_second.items() if second >= began}
    return Writes(
        most_in_a_second=max(steady.values(), default=0),
        mean_a_second=sum(steady.values()) / seconds,
        a_pass=longest,
    )
