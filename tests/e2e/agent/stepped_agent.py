"""The agent on a node whose wall clock is stepped: `stepped_agent.py SECONDS:STEP[,SECONDS:STEP] ARGUMENTS…`.

The machine's own clock stays as it is: only what this process takes for it is stepped, so many seconds after its
start, by so many seconds.
"""

from __future__ import annotations

import sys
import time

from gpuwaste_agent import running
from gpuwaste_agent.clock import SystemClock
from gpuwaste_agent.main import main

_SECOND = 1_000_000_000


class SteppedSystemClock(SystemClock):
    """The node's clocks, the wall clock stepped."""

    steps: tuple[tuple[float, float], ...] = ()
    began = time.monotonic()

    def utc_ns(self) -> int:
        """Return CLOCK_REALTIME and every step that has happened."""
        age = time.monotonic() - self.began
        return time.time_ns() + sum(int(step * _SECOND) for after, step in self.steps if age >= after)


if __name__ == "__main__":
    plan = [part.split(":") for part in sys.argv.pop(1).split(",")]
    SteppedSystemClock.steps = tuple((float(after), float(step)) for after, step in plan)
    running.SystemClock = SteppedSystemClock  # type: ignore[misc]
    sys.exit(main())
