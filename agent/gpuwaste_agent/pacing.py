"""When the next reading is due: real time, or simulated time that catches up with the wall clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpuwaste_agent.clock import Clock, SteppedClock

__all__ = ["Pacer", "RealPacer", "SimulatedPacer"]

_SECOND = 1_000_000_000


class Pacer(Protocol):
    """Waits until the next reading is due."""

    def wait(self, stopped: Callable[[float], bool]) -> bool:
        """Wait by `stopped(seconds)`, which returns True at once when the agent shall stop; False means stop."""


class RealPacer:
    """Readings at multiples of the interval on the monotonic clock; a late one is not made up for."""

    def __init__(self, clock: Clock, interval_ns: int) -> None:
        self._clock = clock
        self._interval_ns = interval_ns

    def wait(self, stopped: Callable[[float], bool]) -> bool:
        """Wait for the next multiple of the interval."""
        now = self._clock.monotonic_ns()
        due = now - now % self._interval_ns + self._interval_ns
        return not stopped((due - now) / _SECOND)


class SimulatedPacer:
    """Readings on a stepped clock that runs at `speed` from where it stands until it reaches the wall clock."""

    def __init__(self, clock: SteppedClock, wall: Clock, *, interval_ns: int, speed: float) -> None:
        self._clock = clock
        self._wall = wall
        self._interval_ns = interval_ns
        self._speed = speed
        self._from_ns = clock.now_ns
        self._since_ns = wall.monotonic_ns()

    def wait(self, stopped: Callable[[float], bool]) -> bool:
        """Wait until simulated time reaches the next multiple of the interval, and step the clock there."""
        due = self._clock.now_ns - self._clock.now_ns % self._interval_ns + self._interval_ns
        while True:
            elapsed = self._wall.monotonic_ns() - self._since_ns
            wall_ns = self._wall.utc_ns()
            simulated_ns = self._from_ns + int(elapsed * self._speed)
            if min(simulated_ns, wall_ns) >= due:
                break
            behind = max((due - simulated_ns) / self._speed, due - wall_ns) / _SECOND
            if stopped(min(max(behind, 0.0005), 1.0)):
                return False
        self._clock.now_ns = due
        return not stopped(0)
