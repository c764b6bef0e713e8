"""Divides a GPU's energy: power at rest by weight, what is above it by activity."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["divide_energy", "idle_energy_mj"]

_NANOJOULES = 1_000_000  # watts × nanoseconds in a millijoule


def idle_energy_mj(idle_watts: int, duration_ns: int, total_mj: int) -> int:
    """Energy of a GPU at rest over a time, never more than what it took."""
    return min(total_mj, idle_watts * duration_ns // _NANOJOULES)


def divide_energy(
    total_mj: int, idle_mj: int, weights: Sequence[tuple[int, int]], activities: Sequence[int | None]
) -> list[int | None]:
    """Energy of each part of a device.

    Args:
        total_mj: Energy of the device.
        idle_mj: Of it, what the device takes at rest.
        weights: Each part's share of the power at rest, as numerator and denominator; adds up to 1 at most.
        activities: Each part's activity in any common unit, None where it is unmeasured.

    Returns:
        Millijoules of each part. Where an activity is unmeasured the energy above rest cannot be divided: parts
        known to be inactive get their power at rest, the others None. The sum never passes `total_mj`.
    """
    idle = [idle_mj * numerator // denominator for numerator, denominator in weights]
    if None in activities:
        return [part if activity == 0 else None for part, activity in zip(idle, activities, strict=True)]
    known = [activity or 0 for activity in activities]
    total = sum(known)
    above = total_mj - idle_mj
    return [part + (above * activity // total if total else 0) for part, activity in zip(idle, known, strict=True)]
