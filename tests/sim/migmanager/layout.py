"""The orders in which mig-parted asks the driver for instances; the driver chooses the places."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator

__all__ = ["orders"]


def orders(left: Counter[str]) -> Iterator[list[str]]:
    """Every different order of a list with repetitions."""
    if not left.total():
        yield []
    for name in [name for name, count in left.items() if count]:
        rest = left.copy()
        rest[name] -= 1
        for order in orders(rest):
            yield [name, *order]
