"""Cutting up one GPU as mig-parted does: it tries the orders of its list, the driver chooses the places."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gpuwaste_agent.products import GpuProduct, MigProfile

__all__ = ["place"]


def place(product: GpuProduct, wanted: Mapping[str, int]) -> list[tuple[str, int]] | None:
    """Profiles with their first memory units, or None where no order of the list fits.

    The driver is taken to choose the first free place.

    Raises:
        KeyError: the product has no such profile.
    """
    profiles = {name: product.profile(name) for name in wanted}
    for order in _orders(Counter(wanted)):
        placed = _placed([profiles[name] for name in order])
        if placed is not None:
            return placed
    return None


def _placed(order: list[MigProfile]) -> list[tuple[str, int]] | None:
    taken: set[int] = set()
    counts: Counter[str] = Counter()
    placed = []
    for profile in order:
        places = (set(range(start, start + profile.memory_units)) for start in profile.starts)
        free = next((units for units in places if not units & taken), None)
        counts[profile.name] += 1
        if free is None or counts[profile.name] > profile.max_count:
            return None
        taken |= free
        placed.append((profile.name, min(free)))
    return placed


def _orders(left: Counter[str]) -> Iterator[list[str]]:
    """Every different order of a list with repetitions, in the order of its first appearances."""
    if not left.total():
        yield []
    for name in [name for name, count in left.items() if count]:
        rest = left.copy()
        rest[name] -= 1
        for order in _orders(rest):
            yield [name, *order]
