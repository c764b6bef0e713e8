"""Shapes of load over a day, as public studies of GPU clusters describe them.

Most held GPUs are idle or lightly used, a few are busy; serving follows the day, training is steady with dips,
notebooks are held around the clock and used in bursts.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gpuwaste_agent.simulate.scenario import ScenarioLoad

if TYPE_CHECKING:
    import random

__all__ = ["batch", "busy", "idle", "notebook", "serving", "training"]

_DAY = 86_400
_HOUR = 3_600
_STEP = 600


def _steps(from_s: int, until_s: int) -> range:
    return range(from_s - from_s % _STEP, until_s, _STEP)


def idle(rng: random.Random, from_s: int, until_s: int, memory_mib: int) -> tuple[ScenarioLoad, ...]:
    """A loaded model or an open session that nobody asks anything."""
    del rng, until_s
    return (ScenarioLoad(from_s, 0.0, 0.0, memory_mib),)


def serving(rng: random.Random, from_s: int, until_s: int, memory_mib: int, day_s: int) -> tuple[ScenarioLoad, ...]:
    """Requests by day and few at night; `day_s` is the second of the day at which the scenario starts."""
    peak = rng.choice((0.08, 0.12, 0.2, 0.3, 0.45, 0.7))
    width = rng.uniform(0.12, 0.5)
    noon = rng.uniform(12, 16) * _HOUR
    points = []
    for at in _steps(from_s, until_s):
        phase = math.cos((at + day_s - noon) / _DAY * 2 * math.pi)
        level = peak * max(0.04, 0.5 + 0.5 * phase) * rng.uniform(0.8, 1.2)
        duty = round(min(0.98, level), 2)
        dram = round(rng.uniform(0.2, 0.5), 2)
        points.append(ScenarioLoad(at, duty, round(width, 2), memory_mib, round(width * 0.4, 2), dram))
    return tuple(points)


def training(rng: random.Random, from_s: int, until_s: int, memory_mib: int) -> tuple[ScenarioLoad, ...]:
    """Steady work; now and then an evaluation or a checkpoint for ten minutes."""
    duty = rng.uniform(0.88, 0.98)
    width = rng.uniform(0.55, 0.9)
    offset = rng.randrange(18)
    points = []
    for number, at in enumerate(_steps(from_s, until_s)):
        dip = (number + offset) % 18 == 0
        now = duty * (0.35 if dip else rng.uniform(0.97, 1.0))
        tensor = round(width * (0.1 if dip else 0.6), 2)
        points.append(ScenarioLoad(at, round(now, 2), round(width, 2), memory_mib, tensor, round(width * 0.5, 2)))
    return tuple(points)


def batch(rng: random.Random, from_s: int, until_s: int, memory_mib: int) -> tuple[ScenarioLoad, ...]:
    """A job bound by its input: half the time it waits."""
    return tuple(
        ScenarioLoad(at, round(rng.uniform(0.3, 0.65), 2), 0.45, memory_mib, 0.15, 0.25)
        for at in _steps(from_s, until_s)
    )


def busy(rng: random.Random, from_s: int, until_s: int, memory_mib: int) -> tuple[ScenarioLoad, ...]:
    """A service that always has work."""
    return tuple(
        ScenarioLoad(at, round(rng.uniform(0.66, 0.84), 2), 0.55, memory_mib, 0.3, 0.4)
        for at in _steps(from_s, until_s)
    )


def notebook(rng: random.Random, from_s: int, until_s: int, memory_mib: int, day_s: int) -> tuple[ScenarioLoad, ...]:
    """Held around the clock; in working hours a cell runs now and then."""
    points = [ScenarioLoad(from_s, 0.0, 0.0, memory_mib)]
    for at in _steps(from_s + _STEP, until_s):
        hour = (at + day_s) // _HOUR % 24
        busy = 9 <= hour < 18 and rng.random() < 0.12  # noqa: PLR2004 - working hours
        if busy or points[-1].duty:
            duty = round(rng.uniform(0.1, 0.6), 2) if busy else 0.0
            points.append(
                ScenarioLoad(at, duty, 0.3 if busy else 0.0, memory_mib, 0.05 if busy else 0.0, 0.1 if busy else 0.0)
            )
    return tuple(points)
