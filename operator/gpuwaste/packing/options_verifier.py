"""Checks a choice of options against the question alone; shares no intermediate with the search."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from gpuwaste.packing.option_values import CONTEXT_MEMORY_GIB, why_unusable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpuwaste.model.gpu_products import GpuProduct
    from gpuwaste.packing.mig import Layout
    from gpuwaste.packing.option_values import OptionsAnswer, Workload

__all__ = ["options_violations"]

_EXACT = 1e-9


def options_violations(
    product: GpuProduct,
    workloads: Sequence[Workload],
    answer: OptionsAnswer,
    *,
    context_memory_gib: float = CONTEXT_MEMORY_GIB,
) -> list[str]:
    """Every rule an answer breaks, from the question alone; empty if it is right."""
    return [
        *_service_violations(product, workloads, answer, context_memory_gib=context_memory_gib),
        *_layout_violations(product, answer),
    ]


def _service_violations(
    product: GpuProduct, workloads: Sequence[Workload], answer: OptionsAnswer, *, context_memory_gib: float
) -> list[str]:
    found: list[str] = []
    served: dict[str, float] = {}
    by_name = {workload.name: workload for workload in workloads}
    for chosen in answer.chosen:
        option = chosen.option
        workload = by_name.get(option.workload)
        if workload is None:
            found.append(f"workload {option.workload} was not asked for")
            continue
        why = why_unusable(product, workload, option, context_memory_gib=context_memory_gib)
        if why:
            found.append(f"an option of {option.workload} cannot be used: {why}")
        served[option.workload] = served.get(option.workload, 0.0) + chosen.count * option.total_throughput
    refused = {name for name, _ in answer.refused}
    short = [
        workload
        for workload in workloads
        if workload.name not in refused and served.get(workload.name, 0.0) < workload.rate * (1 - _EXACT)
    ]
    return found + [f"{one.name} is served {served.get(one.name, 0.0):g} of {one.rate:g} a second" for one in short]


def _layout_violations(product: GpuProduct, answer: OptionsAnswer) -> list[str]:
    used: Counter[str] = Counter()
    for chosen in answer.chosen:
        used[chosen.option.profile] += chosen.count
    have: Counter[str] = Counter()
    found: list[str] = []
    for layout in answer.layouts:
        for name, _ in layout.instances:
            have[name] += layout.count
        found += _illegal(product, layout)
    if have != used:
        found.append(f"the layouts hold {dict(have)}, the options use {dict(used)}")
    if answer.gpus != sum(layout.count for layout in answer.layouts):
        found.append(f"{answer.gpus} GPUs are told of, the layouts are of another number")
    if answer.bound > answer.gpus:
        found.append(f"the bound {answer.bound} is above the {answer.gpus} GPUs")
    return found


def _illegal(product: GpuProduct, layout: Layout) -> list[str]:
    profiles = {profile.name: profile for profile in product.profiles}
    taken: list[int] = []
    for name, start in layout.instances:
        if name not in profiles or start not in profiles[name].starts:
            return [f"{name} cannot start at {start}"]
        taken += range(start, start + profiles[name].memory_units)
    compute = sum(profiles[name].compute_slices for name, _ in layout.instances)
    media = sum(profiles[name].media for name, _ in layout.instances)
    if len(taken) != len(set(taken)) or compute > product.compute_slices or media > 1:
        return ["a layout is no legal one"]
    return []
