"""When nodes were not ready, from what their condition said."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from gpuwaste.model.facts import ReadyData
from gpuwaste.model.units import to_unix_ns

if TYPE_CHECKING:
    from gpuwaste.ledger.join import FactIndex
    from gpuwaste.ledger.times import Interval

__all__ = ["unready_times"]


def unready_times(index: FactIndex, span: Interval) -> dict[str, list[Interval]]:
    """By node name, when it was not ready within a span, Unix nanoseconds; nodes that always were are left out.

    A fact holds until the next one of its node. Before the first one nothing is known, and a node counts as ready.
    """
    found: dict[str, list[Interval]] = {}
    for node, facts in index.readiness.items():
        said = [(to_unix_ns(fact.valid_from), fact.data) for fact in sorted(facts, key=lambda one: one.valid_from)]
        for (begin, data), (end, _) in pairwise([*said, (span[1], None)]):
            first, last = max(begin, span[0]), min(end, span[1])
            if isinstance(data, ReadyData) and not data.ready and first < last:
                found.setdefault(node, []).append((first, last))
    return found
