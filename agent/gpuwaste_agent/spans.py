"""The time axis of the windows: spans between ticks, cut at window edges.

A span's length is monotonic, its place is UTC. The axis never runs backwards: after the node's clock was stepped
back, time is counted again only once it passes what was already counted; after a step forward, or a suspended node,
the time in between is a gap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["STEP_NS", "SpanCutter"]

# Wall clock and monotonic clock may drift apart by this much between two ticks before it counts as a step.
STEP_NS = 50_000_000


class SpanCutter:
    """Keeps the last tick's times and the open window.

    Attributes:
        window_start: Start of the open window, nanoseconds since the epoch.
        gap: Time that was lost since it was last taken, from and to.
        started: A first tick was seen.
    """

    def __init__(self, window_ns: int) -> None:
        self.window_ns = window_ns
        self.window_start = 0
        self.gap: tuple[int, int] | None = None
        self.started = False
        self._last_mono = 0
        self._last_utc = 0

    def start(self, mono: int, utc: int) -> None:
        """Begin with a first tick."""
        self.started = True
        self._last_mono, self._last_utc = mono, utc
        self.window_start = utc - utc % self.window_ns

    def advance(self, mono: int, utc: int) -> tuple[int, int]:
        """Return the span since the last tick as start and end on the UTC axis; it may be empty."""
        start = utc - (mono - self._last_mono)
        self._last_mono = mono
        if start > self._last_utc + STEP_NS:
            self.gap = (self._last_utc, start)
        else:
            start = self._last_utc
        self._last_utc = max(utc, start)
        return start, self._last_utc

    def take_gap(self) -> tuple[int, int] | None:
        """Return the lost time noticed since the last call."""
        gap, self.gap = self.gap, None
        return gap

    def pieces(self, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
        """Yield offsets of a span cut at window edges, and whether a window ends there.

        `window_start` is that of the window the piece lies in until the next piece is asked for. Windows that no
        span reaches into are skipped.
        """
        offset = 0
        while True:
            edge = self.window_start + self.window_ns
            if start >= edge:
                yield offset, offset, True
                self.window_start = start - start % self.window_ns
                continue
            if end < edge:
                yield offset, end - start, False
                return
            yield offset, edge - start, True
            offset = edge - start
            self.window_start = edge
