"""From MIG layouts that exist to those a demand needs: the fewest GPUs, and of these ways the one that reshapes fewest.

A GPU that stays as it is keeps all its instances, those not asked for among them. Reshaping one destroys every
instance on it (mig-parted cannot do less), so that a GPU with a holder is left alone unless it is allowed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.model.errors import InputError, InvariantError
from gpuwaste.packing.mig import Layout, fewest_gpus, layouts_of, legal_geometries, maximal, needed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gpuwaste.model.gpu_products import GpuProduct
    from gpuwaste.packing.instance import Ints
    from gpuwaste.packing.mig import Instances

__all__ = ["CurrentGpu", "MigChange", "change_layouts", "check_layout"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentGpu:
    """One GPU as it is.

    Attributes:
        name: distinct.
        instances: what it is cut into; empty = in MIG mode with none.
        held: a container holds one of them.
    """

    name: str
    instances: Instances
    held: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MigChange:
    """How to get from the layouts there are to a demand.

    Attributes:
        gpus: GPUs in use afterwards: kept, reshaped and added.
        bound: no way takes fewer without touching what may not be touched.
        kept: GPUs that stay as they are and serve the demand, or are held.
        reshaped: GPU -> its new instances.
        added: layouts of GPUs that are not among those there are.
        freed: GPUs that are not needed any more, left as they are.
        fewest_reshaped: whether fewer reshaped and added GPUs are proven impossible at this number of GPUs.
    """

    gpus: int
    bound: int
    kept: tuple[str, ...]
    reshaped: tuple[tuple[str, Instances], ...]
    added: tuple[Layout, ...]
    freed: tuple[str, ...]
    fewest_reshaped: bool

    @property
    def disturbed(self) -> int:
        """GPUs that are cut anew, those added among them."""
        return len(self.reshaped) + sum(layout.count for layout in self.added)


def check_layout(product: GpuProduct, gpu: CurrentGpu) -> None:
    """Refuse a layout that NVIDIA's driver would not have made.

    Raises:
        InputError: an unknown profile, an illegal start, an overlap, or more than the GPU holds.
    """
    taken: set[int] = set()
    compute = media = 0
    for name, start in gpu.instances:
        profile = next((one for one in product.profiles if one.name == name), None)
        where = f"GPU {gpu.name}"
        if profile is None:
            raise InputError(f"{product.name} has no profile {name}", where=where)
        if start not in profile.starts:
            raise InputError(f"{name} cannot start at {start}", where=where, fix=f"legal are {profile.starts}")
        units = set(range(start, start + profile.memory_units))
        if taken & units:
            raise InputError(f"{name} at {start} overlaps another instance", where=where)
        taken |= units
        compute += profile.compute_slices
        media += profile.media
    if compute > product.compute_slices or media > 1:
        raise InputError("holds more than one GPU can", where=f"GPU {gpu.name}")


def change_layouts(
    product: GpuProduct,
    demand: Mapping[str, int],
    current: Sequence[CurrentGpu],
    *,
    allow_holders: bool = False,
    time_limit_seconds: float,
    clock: Callable[[], float],
) -> MigChange:
    """Serve a demand with as few GPUs as possible, and reshape as few of them as possible.

    Args:
        product: what all GPUs are.
        demand: profile -> instances wanted in all, those that are held among them.
        current: the GPUs there are; layouts are legal.
        allow_holders: GPUs with a holder may be reshaped too, after all others.
        time_limit_seconds: for the search.
        clock: monotonic seconds.

    Raises:
        InputError: as `fewest_gpus`, or two GPUs have one name.
    """
    twice = [name for name, count in Counter(gpu.name for gpu in current).items() if count > 1]
    if twice:
        raise InputError(f"GPU {twice[0]} stands twice", where="--current", fix="names must differ")
    for gpu in current:
        check_layout(product, gpu)
    need = needed(product, demand)
    fixed = [gpu for gpu in current if gpu.held and not allow_holders]
    free = sorted((gpu for gpu in current if not gpu.held or allow_holders), key=lambda gpu: (not gpu.held, gpu.name))
    left = np.maximum(need - sum((_counts(product, gpu) for gpu in fixed), np.zeros_like(need)), 0)
    names = [profile.name for profile in product.profiles]
    rest = {name: count for name, count in zip(names, left.tolist(), strict=True) if count}
    if not rest:
        return MigChange(
            gpus=len(fixed),
            bound=len(fixed),
            kept=tuple(gpu.name for gpu in fixed),
            reshaped=(),
            added=(),
            freed=tuple(gpu.name for gpu in free),
            fewest_reshaped=True,
        )
    answer = fewest_gpus(product, rest, time_limit_seconds=time_limit_seconds, clock=clock)
    keep, new, proven = _fewest_new(product, left, free, gpus=answer.gpus, seconds=time_limit_seconds)
    kept = [gpu for gpu, stays in zip(free, keep, strict=True) if stays]
    others = [gpu for gpu, stays in zip(free, keep, strict=True) if not stays]
    # Without a holder first, then those with most of what they get already gone: empty ones.
    others.sort(key=lambda gpu: (gpu.held, len(gpu.instances), gpu.name))
    expanded = [layout.instances for layout in new for _ in range(layout.count)]
    reshaped = tuple((gpu.name, instances) for gpu, instances in zip(others, expanded, strict=False))
    added = Counter(expanded[len(reshaped) :])
    return MigChange(
        gpus=len(fixed) + len(kept) + len(expanded),
        bound=len(fixed) + answer.bound,
        kept=tuple(gpu.name for gpu in (*fixed, *kept)),
        reshaped=reshaped,
        added=tuple(Layout(count=count, instances=instances) for instances, count in added.items()),
        freed=tuple(gpu.name for gpu in others[len(reshaped) :]),
        fewest_reshaped=proven,
    )


def _counts(product: GpuProduct, gpu: CurrentGpu) -> Ints:
    found = Counter(name for name, _ in gpu.instances)
    return np.array([found.get(profile.name, 0) for profile in product.profiles], dtype=np.int64)


def _fewest_new(
    product: GpuProduct, need: Ints, free: Sequence[CurrentGpu], *, gpus: int, seconds: float
) -> tuple[list[bool], tuple[Layout, ...], bool]:
    """Which free GPUs to keep as they are, the layouts of those cut anew, and whether these are proven fewest."""
    from gpuwaste.packing.linear import Program, solve_mip  # noqa: PLC0415 - half a second

    geometries = legal_geometries(product)
    rows = np.array(list(maximal(geometries)), dtype=np.int64)
    kinds: dict[tuple[int, ...], list[int]] = {}
    for index, gpu in enumerate(free):
        counts = tuple(_counts(product, gpu).tolist())
        if any(counts):
            kinds.setdefault(counts, []).append(index)
    have = np.array(list(kinds), dtype=np.int64).reshape(-1, rows.shape[1])
    together = np.concatenate([have, rows])
    width, cut = len(together), len(have)
    position, profile = np.nonzero(together)
    cost = np.where(np.arange(width) < cut, 0.0, 1.0)
    result = solve_mip(
        Program(
            cost=cost,
            lower=np.zeros(width),
            upper=np.array([*(float(len(members)) for members in kinds.values()), *(float(gpus) for _ in rows)]),
            row=np.concatenate([profile, np.full(width, rows.shape[1])]),
            column=np.concatenate([position, np.arange(width)]),
            value=np.concatenate([together[position, profile].astype(np.float64), np.ones(width)]),
            row_lower=np.array([*need.tolist(), 0.0]),
            row_upper=np.array([*(np.inf for _ in need), float(gpus)]),
        ),
        integer=np.ones(width, dtype=np.bool_),
        seconds=max(seconds, 0.1),
    )
    if result.values is None:
        # Out of time: nothing is kept, and all that is needed is cut anew.
        answer = fewest_gpus(
            product,
            {p.name: int(count) for p, count in zip(product.profiles, need, strict=True) if count},
            time_limit_seconds=0.0,
            clock=lambda: 0.0,
        )
        return [False] * len(free), answer.layouts, False
    copies = np.rint(result.values).astype(np.int64)
    if (copies @ together < need).any():
        raise InvariantError("the solver's layouts do not serve the demand")
    keep = [False] * len(free)
    for members, count in zip(kinds.values(), copies[:cut].tolist(), strict=True):
        for index in members[:count]:
            keep[index] = True
    left = np.maximum(need - copies[:cut] @ have, 0)
    new = layouts_of(rows, copies[cut:], left, geometries)
    proven = result.bound is not None and int(copies[cut:].sum()) <= result.bound + 1.0 - 1e-6
    return keep, new, proven
