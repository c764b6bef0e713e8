"""Divide the owned time of parents among their holders, their waste and their free parts, exactly.

The grain is one usage window of one parent (a whole GPU or a MIG instance) whose capacity C is its slice weight
times the window. All amounts are int64 nanoseconds of GPU. For every holder and every parent, to the nanosecond:

    held + borrowed = effective + net waste + lent                  (a holder)
    Σ lent (holders and free parts) = Σ borrowed + unattributed     (a parent)
    C = Σ effective + unattributed + Σ net waste                    (a parent)

The rules are those of docs/accounting.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.ledger.schema import FREE_CATEGORIES, HOLDER_CATEGORIES
from gpuwaste.model.apportion import apportion_groups, mul_div
from gpuwaste.model.errors import InvariantError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Int64s = NDArray[np.int64]
    Bools = NDArray[np.bool_]

__all__ = ["Holders", "Parents", "Split", "split_parents"]

_LENDING_ORDER = (
    ("holder", "idle"),
    ("holder", "underused"),
    ("free", "unallocated"),
    ("free", "stranded"),
    ("free", "unhealthy"),
    ("holder", "starting"),
    ("holder", "unmeasured"),
    ("holder", "unhealthy"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parents:
    """Parent-windows, int64[n] each.

    Attributes:
        capacity: C.
        unattributed: what ran without a known holder, as a part of C.
        free_unhealthy: part of what is free that counts as unhealthy, at most.
        free_stranded: part of what is free and healthy that counts as stranded, at most.
        unhealthy: part of C during which the device was bad.
    """

    capacity: Int64s
    unattributed: Int64s
    free_unhealthy: Int64s
    free_stranded: Int64s
    unhealthy: Int64s


@dataclass(frozen=True, slots=True, kw_only=True)
class Holders:
    """Holders of slices, [m] each.

    Attributes:
        parent: int64, index into `Parents`.
        held: int64, Σ held ≤ C in every parent.
        duty: int64, as a part of C; only read where `measured`.
        effective: int64, as a part of C; only read where `measured`.
        measured: bool, whether any activity is known.
        starting_limit: int64, how much of held lies between allocation and first activity, at most.
    """

    parent: Int64s
    held: Int64s
    duty: Int64s
    effective: Int64s
    measured: Bools
    starting_limit: Int64s


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The parts. `holder[...]` are int64[m], `free[...]` and the rest int64[n].

    Attributes:
        effective: of each holder after scaling to C; 0 where unmeasured.
        borrowed: of each holder.
        holder: net waste by category of `HOLDER_CATEGORIES`.
        holder_lent: what each holder lent.
        free: net waste by category of `FREE_CATEGORIES`.
        free_gross: the same before lending; their sum is C − Σ held.
        free_lent: what the free parts lent.
        unattributed: capped at C − Σ effective.
        scaled: bool[n], Σ effective was above C.
    """

    effective: Int64s
    borrowed: Int64s
    holder: dict[str, Int64s]
    holder_lent: Int64s
    free: dict[str, Int64s]
    free_gross: dict[str, Int64s]
    free_lent: Int64s
    unattributed: Int64s
    scaled: Bools


def _sum_by(group: Int64s, values: Int64s, count: int) -> Int64s:
    total = np.zeros(count, np.int64)
    np.add.at(total, group, values)
    return total


def _scaled_effective(parents: Parents, holders: Holders) -> tuple[Int64s, Bools]:
    effective = np.where(holders.measured, holders.effective, 0)
    total = _sum_by(holders.parent, effective, len(parents.capacity))
    scaled = total > parents.capacity
    if scaled.any():
        fitted = apportion_groups(np.where(scaled, parents.capacity, 0), effective, holders.parent)
        effective = np.where(scaled[holders.parent], fitted, effective)
    return effective, scaled


def _holder_gross(parents: Parents, holders: Holders, own: Int64s) -> dict[str, Int64s]:
    held, measured = holders.held, holders.measured
    duty = np.maximum(np.where(measured, holders.duty, 0), own)
    idle = held - np.minimum(duty, held)
    underused = np.minimum(duty, held) - own
    # The bad part of the window takes idle first, then underused; a device bad throughout takes all of it.
    bad_part = np.minimum(parents.unhealthy, parents.capacity)[holders.parent]
    bad_held, _ = mul_div(held, bad_part, np.maximum(parents.capacity[holders.parent], 1))
    bad = np.minimum(idle + underused, bad_held)
    bad_idle = np.minimum(bad, idle)
    idle, underused = idle - bad_idle, underused - (bad - bad_idle)
    starting = np.minimum(idle, holders.starting_limit)
    zero = np.zeros_like(held)
    return {
        "unhealthy": np.where(measured, bad, zero),
        "unmeasured": np.where(measured, zero, held),
        "starting": np.where(measured, starting, zero),
        "idle": np.where(measured, idle - starting, zero),
        "underused": np.where(measured, underused, zero),
    }


def _free_gross(parents: Parents, free: Int64s) -> dict[str, Int64s]:
    unhealthy = np.minimum(free, parents.free_unhealthy)
    stranded = np.minimum(free - unhealthy, parents.free_stranded)
    return {"unhealthy": unhealthy, "stranded": stranded, "unallocated": free - unhealthy - stranded}


def split_parents(parents: Parents, holders: Holders) -> Split:
    """Apply the rules of the accounting to every parent-window at once.

    Raises:
        InvariantError: the holders of a parent hold more than its capacity, or a law above does not hold.
    """
    count = len(parents.capacity)
    free_total = parents.capacity - _sum_by(holders.parent, holders.held, count)
    if (free_total < 0).any():
        index = int(np.argmin(free_total))
        raise InvariantError(f"parent-window {index} is held {-int(free_total[index])} ns beyond its capacity")
    effective, scaled = _scaled_effective(parents, holders)
    effective_total = _sum_by(holders.parent, effective, count)
    unattributed = np.minimum(parents.unattributed, parents.capacity - effective_total)
    own = np.minimum(effective, holders.held)
    borrowed = effective - own
    holder = _holder_gross(parents, holders, own)
    free_gross = _free_gross(parents, free_total)
    free = dict(free_gross)
    holder_lent, free_lent = _lend(
        _sum_by(holders.parent, borrowed, count) + unattributed, holders.parent, holder, free
    )
    split = Split(
        effective=effective,
        borrowed=borrowed,
        holder=holder,
        holder_lent=holder_lent,
        free=free,
        free_gross=free_gross,
        free_lent=free_lent,
        unattributed=unattributed,
        scaled=scaled,
    )
    _check(parents, holders, split)
    return split


def _lend(demand: Int64s, parent: Int64s, holder: dict[str, Int64s], free: dict[str, Int64s]) -> tuple[Int64s, Int64s]:
    """Take `demand` of each parent out of `holder` and `free` in the fixed order; changes both dicts."""
    holder_lent = np.zeros(len(parent), np.int64)
    free_lent = np.zeros(len(demand), np.int64)
    left = demand.copy()
    for side, category in _LENDING_ORDER:
        if not left.any():
            break
        if side == "free":
            taken = np.minimum(left, free[category])
            free[category] = free[category] - taken
            free_lent += taken
            left = left - taken
            continue
        available = _sum_by(parent, holder[category], len(demand))
        taken = np.minimum(left, available)
        parts = apportion_groups(taken, holder[category], parent)
        holder[category] = holder[category] - parts
        holder_lent += parts
        left = left - taken
    if left.any():
        raise InvariantError(f"{int(left.sum())} ns were borrowed that nobody could lend")
    return holder_lent, free_lent


def _check(parents: Parents, holders: Holders, split: Split) -> None:
    waste = sum(split.holder[name] for name in HOLDER_CATEGORIES)
    gap = holders.held + split.borrowed - split.effective - waste - split.holder_lent
    if gap.any():
        raise InvariantError(f"held + borrowed ≠ effective + net waste + lent for {int((gap != 0).sum())} holders")
    count = len(parents.capacity)
    parts = _sum_by(holders.parent, split.effective + waste, count)
    parts += split.unattributed + sum(split.free[name] for name in FREE_CATEGORIES)
    if (parts != parents.capacity).any():
        raise InvariantError(f"owned ≠ effective + waste for {int((parts != parents.capacity).sum())} parent-windows")
