"""When readings are due."""

from __future__ import annotations

from gpuwaste_agent.clock import SteppedClock
from gpuwaste_agent.pacing import RealPacer, SimulatedPacer

SECOND = 1_000_000_000


class Waiter:
    """Lets the wall clock run while somebody waits."""

    def __init__(self, wall: SteppedClock, *, stop_after: int | None = None):
        self.wall, self.waits, self.stop_after = wall, [], stop_after

    def __call__(self, seconds: float) -> bool:
        if self.stop_after is not None and len(self.waits) >= self.stop_after:
            return True
        self.waits.append(seconds)
        self.wall.now_ns += round(seconds * SECOND)
        return False


def test_real_readings_lie_on_multiples_of_the_interval_and_late_ones_are_not_made_up_for():
    clock = SteppedClock(round(10.3 * SECOND))
    waiter = Waiter(clock)
    pacer = RealPacer(clock, SECOND)
    assert pacer.wait(waiter)
    assert clock.now_ns == 11 * SECOND
    clock.now_ns += round(2.5 * SECOND)
    assert pacer.wait(waiter)
    assert clock.now_ns == 14 * SECOND


def test_simulated_time_runs_fast_until_the_wall_clock_and_real_from_then_on():
    wall = SteppedClock(1000 * SECOND)
    clock = SteppedClock(400 * SECOND)
    pacer = SimulatedPacer(clock, wall, interval_ns=10 * SECOND, speed=61)
    waiter = Waiter(wall)
    seen = []
    for _ in range(64):
        assert pacer.wait(waiter)
        seen.append(clock.now_ns // SECOND)
        assert clock.now_ns <= wall.now_ns
    assert seen == list(range(410, 1050, 10))
    assert wall.now_ns // SECOND in (1040, 1041)


def test_a_stop_ends_the_wait_at_once():
    wall = SteppedClock(0)
    assert not RealPacer(wall, SECOND).wait(Waiter(wall, stop_after=0))
    pacer = SimulatedPacer(SteppedClock(0), wall, interval_ns=SECOND, speed=1)
    assert not pacer.wait(Waiter(wall, stop_after=0))
