"""Stretches of an hour, and what of the free time of nodes lies in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.model.units import to_unix_ns

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gpuwaste.ledger.columns import Int64s, Texts
    from gpuwaste.model.facts import Fact

__all__ = ["FreeTimes", "Interval", "clipped", "overlap", "subtract"]

Interval = tuple[int, int]
"""From when to when, Unix nanoseconds."""


def clipped(fact: Fact, span: Interval) -> Interval | None:
    """The part of a span in which a fact held; None where it did not."""
    start = max(span[0], to_unix_ns(fact.valid_from))
    end = span[1] if fact.valid_to is None else min(span[1], to_unix_ns(fact.valid_to))
    return (start, end) if start < end else None


def subtract(whole: Interval, parts: Iterable[Interval]) -> list[Interval]:
    """What of `whole` no part covers, in order."""
    left: list[Interval] = []
    at = whole[0]
    for start, end in sorted(parts):
        if start > at:
            left.append((at, min(start, whole[1])))
        at = max(at, end)
        if at >= whole[1]:
            break
    if at < whole[1]:
        left.append((at, whole[1]))
    return [(start, end) for start, end in left if start < end]


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeTimes:
    """When what is free on a node is no room for work, by node name: the first that holds decides.

    Attributes:
        unhealthy: the node was not ready.
        stranded: no typical or pending pod could have used it.
    """

    unhealthy: Mapping[str, Sequence[Interval]] = field(default_factory=dict)
    stranded: Mapping[str, Sequence[Interval]] = field(default_factory=dict)

    def pieces(self, node: str, whole: Interval) -> list[tuple[Interval, str]]:
        """An interval cut into pieces with the category of what is free in each, in order."""
        found: list[tuple[Interval, str]] = []
        healthy = subtract(whole, self.unhealthy.get(node, ()))
        found += [(piece, "unhealthy") for piece in subtract(whole, healthy)]
        for one in healthy:
            usable = subtract(one, self.stranded.get(node, ()))
            found += [(piece, "unallocated") for piece in usable]
            found += [(piece, "stranded") for piece in subtract(one, usable)]
        return sorted(found)


def overlap(times: Mapping[str, Sequence[Interval]], nodes: Texts, start: Int64s, window: Int64s) -> Int64s:
    """How much of each window lies in the times of its node, int64[n] nanoseconds.

    Args:
        times: by node name, intervals that do not overlap.
        nodes: column of n names.
        start: int64[n], of the windows, Unix nanoseconds.
        window: int64[n], their lengths.
    """
    result = np.zeros(len(start), np.int64)
    if not len(start):
        return result
    first, last = int(start.min()), int((start + window).max())
    through = np.zeros(len(nodes.names), bool)
    partly: list[tuple[int, Sequence[Interval]]] = []
    for code, name in enumerate(nodes.names.tolist()):
        mine = times.get(name, ())
        through[code] = any(one[0] <= first and last <= one[1] for one in mine)
        if mine and not through[code]:
            partly.append((code, mine))
    result[:] = np.where(through[nodes.codes], window, 0)
    for code, mine in partly:
        rows = np.flatnonzero(nodes.codes == code)
        begin, end = start[rows], start[rows] + window[rows]
        for one in mine:
            result[rows] += np.clip(np.minimum(end, one[1]) - np.maximum(begin, one[0]), 0, None)
    return result
