"""Which MIG profile, how many instances and how many processes each workload gets, on as few GPUs as possible.

The layouts of the GPUs and the options of the workloads are variables of one integer programme: x[g] GPUs cut by
maximal geometry g, n[w, o] instances of workload w in option o,

    min sum x   with   sum_o throughput[w, o] n[w, o] >= rate[w]   for every workload w,
                       sum_(w, o) in p n[w, o] <= sum_g count[g, p] x[g]   for every profile p.

Only options whose measured latency keeps the objective and whose peak memory, with the context of every process,
fits into the instance are in it. What was not measured is not guessed: such an option is left out and named.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.model.errors import InvariantError
from gpuwaste.packing.mig import layouts_of, legal_geometries, maximal
from gpuwaste.packing.option_values import (
    CONTEXT_MEMORY_GIB,
    Chosen,
    Option,
    OptionsAnswer,
    Unusable,
    Workload,
    why_unusable,
)
from gpuwaste.packing.options_verifier import options_violations

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gpuwaste.model.gpu_products import GpuProduct
    from gpuwaste.packing.instance import Floats, Ints
    from gpuwaste.packing.mig import Layout

__all__ = ["best_profile", "choose_options"]

_EXACT = 1e-9
_SHARE_FOR_SECOND = 0.5
_PROCESS = 1e-3


def choose_options(
    product: GpuProduct,
    workloads: Sequence[Workload],
    options: Sequence[Option],
    *,
    time_limit_seconds: float,
    context_memory_gib: float = CONTEXT_MEMORY_GIB,
    uniform: bool = False,
) -> OptionsAnswer:
    """Serve every workload on as few GPUs as possible, and among equals in as small instances.

    Args:
        product: a GPU with MIG.
        workloads: what to serve.
        options: how each can be run.
        time_limit_seconds: for the search, > 0.
        context_memory_gib: added to the peak of every process.
        uniform: every GPU is cut into instances of one profile only, as `migStrategy: single` needs.
    """
    by_name = {workload.name: workload for workload in workloads}
    usable: list[Option] = []
    unusable: list[Unusable] = []
    for option in options:
        if option.workload in by_name:
            why = why_unusable(product, by_name[option.workload], option, context_memory_gib=context_memory_gib)
            if why:
                unusable.append(Unusable(option=option, why=why))
            else:
                usable.append(option)
    usable = _undominated(product, usable)
    served = [workload for workload in workloads if any(option.workload == workload.name for option in usable)]
    refused = tuple(
        (workload.name, _why_refused(workload, unusable)) for workload in workloads if workload not in served
    )
    if not served:
        return OptionsAnswer(gpus=0, bound=0, layouts=(), chosen=(), refused=refused, unusable=tuple(unusable))
    gpus, bound, layouts, counts = _solve(product, served, usable, seconds=time_limit_seconds, uniform=uniform)
    answer = OptionsAnswer(
        gpus=gpus,
        bound=bound,
        layouts=layouts,
        chosen=tuple(Chosen(option=usable[i], count=int(counts[i])) for i in np.flatnonzero(counts).tolist()),
        refused=refused,
        unusable=tuple(unusable),
    )
    found = options_violations(product, workloads, answer, context_memory_gib=context_memory_gib)
    if found:
        raise InvariantError("the choice of options is wrong and was not written: " + "; ".join(found[:3]))
    return answer


def _why_refused(workload: Workload, unusable: Sequence[Unusable]) -> str:
    reasons = [one.why for one in unusable if one.option.workload == workload.name]
    if not reasons:
        return "no option of it is given: it needs a trial"
    return f"none of its {len(reasons)} options can be used, for example: {reasons[0]}"


def _undominated(product: GpuProduct, options: Sequence[Option]) -> list[Option]:
    """Of one workload and profile only the option with the highest throughput: the others never help."""
    best: dict[tuple[str, str], Option] = {}
    for option in options:
        key = (option.workload, option.profile)
        known = best.get(key)
        if known is None or (option.total_throughput, -option.processes) > (known.total_throughput, -known.processes):
            best[key] = option
    order = {profile.name: index for index, profile in enumerate(product.profiles)}
    return sorted(best.values(), key=lambda option: (option.workload, order[option.profile]))


def _geometries(product: GpuProduct, *, uniform: bool) -> Ints:
    geometries = legal_geometries(product)
    if uniform:
        same = {counts: placed for counts, placed in geometries.items() if len({name for name, _ in placed}) == 1}
        geometries = {counts: placed for counts, placed in same.items() if _is_most(counts, same)}
        return np.array(list(geometries), dtype=np.int64)
    return np.array(list(maximal(geometries)), dtype=np.int64)


def _is_most(counts: tuple[int, ...], among: Iterable[tuple[int, ...]]) -> bool:
    return not any(
        other != counts and all(more >= have for more, have in zip(other, counts, strict=True)) for other in among
    )


def _solve(
    product: GpuProduct, workloads: Sequence[Workload], options: Sequence[Option], *, seconds: float, uniform: bool
) -> tuple[int, int, tuple[Layout, ...], Ints]:
    """(GPUs, bound, layouts, instances of each option)."""
    from gpuwaste.packing.linear import Program, solve_mip  # noqa: PLC0415 - half a second

    rows = _geometries(product, uniform=uniform)
    profiles = {profile.name: index for index, profile in enumerate(product.profiles)}
    names = {workload.name: index for index, workload in enumerate(workloads)}
    profile = np.array([profiles[option.profile] for option in options], dtype=np.int64)
    owner = np.array([names[option.workload] for option in options], dtype=np.int64)
    rate = np.array([workload.rate for workload in workloads], dtype=np.float64)
    # Each row in units of its own rate: rates differ by orders of magnitude.
    part = np.array([option.total_throughput for option in options], dtype=np.float64) / rate[owner]
    most = np.ceil(1.0 / part - _EXACT)
    cut, width = len(rows), len(rows) + len(options)
    at, of = np.nonzero(rows)
    limit = float(most.sum())

    def program(cost: Floats, gpus: float) -> Program:
        columns = np.arange(len(options)) + cut
        return Program(
            cost=cost,
            lower=np.zeros(width),
            upper=np.concatenate([np.full(cut, gpus), most]),
            row=np.concatenate([owner, len(rate) + of, len(rate) + profile, np.full(cut, len(rate) + len(profiles))]),
            column=np.concatenate([columns, at, columns, np.arange(cut)]),
            value=np.concatenate([part, rows[at, of].astype(np.float64), -np.ones(len(options)), np.ones(cut)]),
            row_lower=np.concatenate([np.ones(len(rate)), np.zeros(len(profiles)), [0.0]]),
            row_upper=np.concatenate([np.full(len(rate) + len(profiles), np.inf), [gpus]]),
        )

    integer = np.ones(width, dtype=np.bool_)
    on_gpus = np.concatenate([np.ones(cut), np.zeros(len(options))])
    result = solve_mip(program(on_gpus, limit), integer=integer, seconds=seconds)
    first = _whole(result.values, rows, profile, part, owner)
    if first is None:
        first = _one_option_each(rows, profile, part, owner)
    bound = 1 if result.bound is None else max(1, math.ceil(result.bound - 1e-6))
    gpus = int(first[:cut].sum())
    # Of the ways to use as few GPUs the one that leaves most of them free, then the one with fewest processes.
    units = np.array([product.profiles[index].memory_units for index in profile.tolist()], dtype=np.float64)
    fewer = np.concatenate([np.zeros(cut), units + _PROCESS * np.array([option.processes for option in options])])
    again = solve_mip(program(fewer, float(gpus)), integer=integer, seconds=_SHARE_FOR_SECOND * seconds)
    second = _whole(again.values, rows, profile, part, owner)
    best = first if second is None or second[:cut].sum() > gpus else second
    need = np.bincount(profile, weights=best[cut:], minlength=len(profiles)).astype(np.int64)
    layouts = layouts_of(rows, best[:cut], need, legal_geometries(product))
    gpus = sum(layout.count for layout in layouts)
    return gpus, min(bound, gpus), layouts, best[cut:]


def _whole(values: Floats | None, rows: Ints, profile: Ints, part: Floats, owner: Ints) -> Ints | None:
    """A solver's solution in whole numbers; None if there is none or rounding broke it."""
    if values is None:
        return None
    found = np.rint(values).astype(np.int64)
    cut = len(rows)
    served = np.bincount(owner, weights=part * found[cut:])
    slots = np.bincount(profile, weights=found[cut:], minlength=rows.shape[1])
    good = (served >= 1 - _EXACT).all() and (slots <= found[:cut] @ rows).all()
    return found if good else None


def _one_option_each(rows: Ints, profile: Ints, part: Floats, owner: Ints) -> Ints:
    """Without a solver's answer: every workload in its option that needs the least of a GPU, cut one by one."""
    most = rows.max(axis=0)
    need = np.ceil(1.0 / part - _EXACT)
    counts = np.zeros(len(part), dtype=np.int64)
    for workload in np.unique(owner).tolist():
        own = np.flatnonzero(owner == workload)
        best = own[(need[own] / most[profile[own]]).argmin()]
        counts[best] = int(need[best])
    copies = np.zeros(len(rows), dtype=np.int64)
    for index in np.unique(profile).tolist():
        wanted = int(counts[profile == index].sum())
        row = int(rows[:, index].argmax())
        copies[row] += -(-wanted // int(rows[row, index]))
    return np.concatenate([copies, counts])


def best_profile(
    product: GpuProduct,
    workload: Workload,
    options: Sequence[Option],
    *,
    context_memory_gib: float = CONTEXT_MEMORY_GIB,
) -> Option | None:
    """The option with the highest throughput of a whole GPU cut into its profile; None if none can be used.

    Of equals the larger instance: fewer processes and more memory for each.
    """
    profiles = {profile.name: profile for profile in product.profiles}
    able = [
        option
        for option in options
        if option.workload == workload.name
        and not why_unusable(product, workload, option, context_memory_gib=context_memory_gib)
    ]
    return max(
        able,
        key=lambda option: (
            option.total_throughput * profiles[option.profile].max_count,
            profiles[option.profile].memory_units,
        ),
        default=None,
    )
