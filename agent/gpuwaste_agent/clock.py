"""Time for the sampler: monotonic inside, UTC outside."""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "SteppedClock", "SystemClock"]


class Clock(Protocol):
    """Where the sampler gets its time from."""

    def monotonic_ns(self) -> int:
        """Nanoseconds of a clock that never steps."""

    def utc_ns(self) -> int:
        """Nanoseconds since the epoch, as the node believes."""


class SystemClock:
    """The node's clocks."""

    def monotonic_ns(self) -> int:
        """Return CLOCK_MONOTONIC: it stands still while the node is suspended."""
        return time.monotonic_ns()

    def utc_ns(self) -> int:
        """Return CLOCK_REALTIME."""
        return time.time_ns()


class SteppedClock:
    """A clock its owner sets; `step_ns` is what UTC differs from it, as after a stepped node clock."""

    def __init__(self, now_ns: int) -> None:
        self.now_ns = now_ns
        self.step_ns = 0

    def monotonic_ns(self) -> int:
        """Return the time set."""
        return self.now_ns

    def utc_ns(self) -> int:
        """Return the time set, plus the step."""
        return self.now_ns + self.step_ns
