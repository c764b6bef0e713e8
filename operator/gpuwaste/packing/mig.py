"""Fewest GPUs for a demand of MIG instances: every legal geometry, an exact integer programme."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gpuwaste.model.gpu_products import GpuProduct, MigProfile
    from gpuwaste.packing.instance import Floats, Ints
    from gpuwaste.packing.linear import Program

__all__ = [
    "Instances",
    "Layout",
    "MigAnswer",
    "fewest_gpus",
    "layouts_of",
    "legal_geometries",
    "maximal",
    "needed",
]

Instances = tuple[tuple[str, int], ...]
"""(profile, start in memory units) of every instance of one GPU, by start."""

_MOST_INSTANCES = 10_000_000
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """GPUs that are cut in the same way."""

    count: int
    instances: Instances


@dataclass(frozen=True, slots=True, kw_only=True)
class MigAnswer:
    """A way to serve a demand.

    Attributes:
        gpus: how many GPUs it takes.
        bound: no way takes fewer.
        layouts: every instance that is asked for, and none more.
    """

    gpus: int
    bound: int
    layouts: tuple[Layout, ...]


def legal_geometries(product: GpuProduct) -> dict[tuple[int, ...], Instances]:
    """Every non-empty multiset of instances that one GPU can hold, with a placement of each.

    Instances take consecutive memory units from a legal start and may not overlap; their compute slices may not
    exceed the GPU's; at most one has the media engines; no profile occurs more often than NVIDIA allows.

    Returns:
        Counts in the order of `product.profiles` -> placement.
    """
    profiles = product.profiles
    found: dict[tuple[int, ...], Instances] = {}
    counts = [0] * len(profiles)

    def place(unit: int, compute: int, media: int, placed: tuple[tuple[str, int], ...]) -> None:
        if placed:
            found.setdefault(tuple(counts), placed)
        for start in range(unit, product.axis_units):
            for index, profile in enumerate(profiles):
                if start in profile.starts and _joins(profile, product, compute, media, counts[index]):
                    counts[index] += 1
                    place(
                        start + profile.memory_units,
                        compute + profile.compute_slices,
                        media + profile.media,
                        (*placed, (profile.name, start)),
                    )
                    counts[index] -= 1

    place(0, 0, 0, ())
    return found


def _joins(profile: MigProfile, product: GpuProduct, compute: int, media: int, count: int) -> bool:
    return (
        compute + profile.compute_slices <= product.compute_slices
        and media + profile.media <= 1
        and count < profile.max_count
    )


def maximal(geometries: Mapping[tuple[int, ...], Instances]) -> dict[tuple[int, ...], Instances]:
    """Those to which no instance can be added."""
    rows = np.array(list(geometries), dtype=np.int64)
    return {
        counts: placed
        for counts, placed in geometries.items()
        if int((rows >= np.array(counts)).all(axis=1).sum()) == 1
    }


def fewest_gpus(
    product: GpuProduct, demand: Mapping[str, int], *, time_limit_seconds: float, clock: Callable[[], float]
) -> MigAnswer:
    """Serve a demand with as few GPUs as possible.

    Args:
        product: a GPU with MIG.
        demand: profile -> how many instances, > 0.
        time_limit_seconds: 0 gives a greedy answer and the bound of its memory and compute.
        clock: monotonic seconds.

    Raises:
        InputError: the product has no MIG or no such profile, or a count is out of range.
    """
    started = clock()
    need = needed(product, demand)
    geometries = legal_geometries(product)
    rows = _useful(np.array(list(maximal(geometries)), dtype=np.int64), need)
    copies, bound = _greedy(rows, need), _volume_bound(product, need)
    if time_limit_seconds > 0 and int(copies.sum()) > bound:
        left = time_limit_seconds - (clock() - started)
        better, proven = _optimum(rows, need, seconds=left)
        bound = max(bound, proven)
        if better is not None and better.sum() < copies.sum():
            copies = better
    return MigAnswer(gpus=int(copies.sum()), bound=bound, layouts=layouts_of(rows, copies, need, geometries))


def needed(product: GpuProduct, demand: Mapping[str, int]) -> Ints:
    """int64[profiles]: how many of each profile of the product are asked for.

    Raises:
        InputError: the product has no MIG or no such profile, or a count is out of range.
    """
    if not product.mig_capable:
        raise InputError(f"{product.name} has no MIG", where="--gpu", fix="see `gpuwaste mig --list`")
    names = [profile.name for profile in product.profiles]
    for name, count in demand.items():
        if name not in names:
            raise InputError(
                f"{product.name} has no profile {name}", where="--demand", fix=f"it has {', '.join(names)}"
            )
        if not 0 < count <= _MOST_INSTANCES:
            raise InputError(f"{count} instances of {name}", where="--demand", fix="ask for 1 or more")
    return np.array([demand.get(name, 0) for name in names], dtype=np.int64)


def _useful(rows: Ints, need: Ints) -> Ints:
    """int64[rows, profiles]: geometries with what is not asked for left out, none a part of another."""
    asked = np.unique(np.where(need > 0, rows, 0), axis=0)
    covered = (asked[:, None, :] <= asked[None, :, :]).all(axis=2)
    result: Ints = asked[covered.sum(axis=1) == 1]
    return result


def _volume_bound(product: GpuProduct, need: Ints) -> int:
    """GPUs for the memory units, the compute slices, or the most instances of one profile."""
    profiles = product.profiles
    memory = sum(int(count) * p.memory_units for count, p in zip(need, profiles, strict=True))
    compute = sum(int(count) * p.compute_slices for count, p in zip(need, profiles, strict=True))
    media = sum(int(count) for count, p in zip(need, profiles, strict=True) if p.media)
    alone = max(-(-int(count) // p.max_count) for count, p in zip(need, profiles, strict=True))
    return max(-(-memory // product.axis_units), -(-compute // product.compute_slices), media, alone)


def _greedy(rows: Ints, need: Ints) -> Ints:
    """int64[rows] copies: the geometry that serves most of what is left, as often as it does wholly."""
    left = need.copy()
    copies = np.zeros(len(rows), dtype=np.int64)
    weight = np.where(need > 0, 1.0 / np.maximum(rows.max(axis=0), 1), 0.0)
    while left.any():
        served = np.minimum(rows, left)
        best = int((served @ weight).argmax())
        used = served[best] > 0
        times = max(int((left[used] // served[best][used]).min()), 1)
        copies[best] += times
        left = np.maximum(left - times * rows[best], 0)
    return copies


def _optimum(rows: Ints, need: Ints, *, seconds: float) -> tuple[Ints | None, int]:
    """Fewest geometries that cover the need, and a proven bound; OR-Tools is loaded here.

    The linear optimum, rounded down, leaves a handful of instances, which are served exactly. Nearly always that
    is the linear bound rounded up, so the optimum; else the whole programme is solved.
    """
    from gpuwaste.packing.linear import IncrementalLp, solve_mip  # noqa: PLC0415 - half a second

    linear = IncrementalLp(_cover(rows, need)).solve(seconds=seconds)
    copies: Ints | None = None
    bound = 0
    if linear is not None:
        bound = _rounded_up(linear.objective)
        base: Ints = np.floor(linear.values + _ROUNDING).astype(np.int64)
        left = np.maximum(need - base @ rows, 0)
        rest: Ints | None = np.zeros(len(rows), dtype=np.int64)
        if left.any():
            small = solve_mip(
                _cover(rows, left), integer=np.ones(len(rows), dtype=np.bool_), seconds=seconds, small=True
            )
            rest = _whole(small.values, rows, left)
        copies = None if rest is None else base + rest
        if copies is not None and copies.sum() == bound:
            return copies, bound
    # Every solution is a whole number of GPUs: closer than one GPU is the optimum.
    gap = 0.5 / max(float(need.sum()), 1.0)
    result = solve_mip(
        _cover(rows, need), integer=np.ones(len(rows), dtype=np.bool_), seconds=seconds, relative_gap=gap
    )
    better = _whole(result.values, rows, need)
    if better is not None and (copies is None or better.sum() < copies.sum()):
        copies = better
    return copies, max(bound, 0 if result.bound is None else _rounded_up(result.bound))


def _cover(rows: Ints, need: Ints) -> Program:
    """Fewest rows, each any number of times, that add up to the need."""
    from gpuwaste.packing.linear import Program  # noqa: PLC0415 - half a second

    asked = np.flatnonzero(need)
    position, profile = np.nonzero(rows[:, asked])
    return Program(
        cost=np.ones(len(rows)),
        lower=np.zeros(len(rows)),
        upper=np.full(len(rows), float(need.sum())),
        row=profile,
        column=position,
        value=rows[:, asked][position, profile].astype(np.float64),
        row_lower=need[asked].astype(np.float64),
        row_upper=np.full(len(asked), np.inf),
    )


def _rounded_up(bound: float) -> int:
    return math.ceil(bound - _ROUNDING * max(1.0, abs(bound) * _ROUNDING))


def _whole(values: Floats | None, rows: Ints, need: Ints) -> Ints | None:
    """A solver's solution in whole numbers; None if there is none or rounding broke it."""
    if values is None:
        return None
    copies = np.rint(values).astype(np.int64)
    return copies if (copies @ rows >= need).all() else None


def layouts_of(
    rows: Ints, copies: Ints, need: Ints, geometries: Mapping[tuple[int, ...], Instances]
) -> tuple[Layout, ...]:
    """Cut the GPUs so that exactly the need is served; what is left of a geometry is legal too."""
    surplus = copies @ rows - need
    groups = [[row.copy(), int(count)] for row, count in zip(rows, copies.tolist(), strict=True) if count]
    for profile in np.flatnonzero(surplus > 0).tolist():
        left = int(surplus[profile])
        for group in list(groups):
            row, count = group
            each = int(row[profile])
            if left == 0 or each == 0:
                continue
            whole = min(left // each, count)
            part = left - whole * each if whole < count else 0
            left -= whole * each + part
            for times, lost in ((whole, each), (1 if part else 0, part)):
                if times:
                    fewer = row.copy()
                    fewer[profile] -= lost
                    groups.append([fewer, times])
                    group[1] -= times
    total: dict[tuple[int, ...], int] = {}
    for row, count in groups:
        if count and row.any():
            key = tuple(row.tolist())
            total[key] = total.get(key, 0) + count
    return tuple(Layout(count=count, instances=geometries[counts]) for counts, count in total.items())
