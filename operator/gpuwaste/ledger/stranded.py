"""Free GPU parts that nobody could use: no legal MIG profile fits, or CPU or memory is in the way."""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

from gpuwaste.ledger.times import clipped
from gpuwaste.model.facts import GpuData, PodData, requested
from gpuwaste.model.gpu_products import PRODUCTS
from gpuwaste.model.units import from_unix_ns

if TYPE_CHECKING:
    from datetime import datetime

    from gpuwaste.ledger.join import FactIndex
    from gpuwaste.ledger.times import Interval
    from gpuwaste.model.facts import Fact, Requests

__all__ = ["Stranding", "mig_remainder_stranded"]


class Stranding:
    """On which nodes free GPUs are stranded, and when.

    What is free of a GPU is worth what the work of the cluster could do with it (fragmentation gradient descent,
    Weng et al., USENIX ATC 2023). The GPU pods of the hour, running or pending, stand for that work: while on a node
    each of those that ask for its kind of GPU lacks CPU, memory or enough GPUs of one kind, the free ones are stranded.
    A node whose allocatable CPU or memory is not known, or that nobody's kind of GPU is on, is not called stranded.

    Args:
        index: facts of the hour.
    """

    def __init__(self, index: FactIndex) -> None:
        self._index = index
        self._on = {
            node: [(fact, requested(fact.data)) for fact in facts if isinstance(fact.data, PodData)]
            for node, facts in index.pods_on.items()
        }
        shapes = {_shape(one) for pods in self._on.values() for _, one in pods}
        shapes |= {_shape(requested(pod)) for pod in index.pending}
        typical = [shape for shape in sorted(shapes) if shape[2]]
        self._wanted: dict[str, list[_Shape]] = {}
        for name, (_, _, node) in index.nodes.items():
            wanted = [shape for shape in typical if all(resource in node.gpus for resource, _ in shape[2])]
            if node.cpu_milli and node.memory_bytes and wanted:
                self._wanted[name] = wanted

    @cached_property
    def _throughout(self) -> frozenset[str]:
        """Nodes that are stranded while all their pods of the hour run."""
        return frozenset(name for name in self._wanted if self._is(name, [one for _, one in self._on.get(name, ())]))

    def times(self, span: Interval) -> dict[str, list[Interval]]:
        """When free GPUs of a node are stranded within a span, Unix nanoseconds; nodes where they never are, are out.

        Pods count from when their node took them to their end.
        """
        start, end = (from_unix_ns(at) for at in span)
        found: dict[str, list[Interval]] = {}
        for name in self._wanted:
            pods = self._on.get(name, ())
            if all(_runs_through(fact, start, end) for fact, _ in pods):
                if name in self._throughout:
                    found[name] = [span]
                continue
            runs = [(clipped(fact, span), one) for fact, one in pods]
            cuts = sorted({*span, *(at for run, _ in runs if run for at in run)})
            for first, last in pairwise(cuts):
                running = [one for run, one in runs if run and run[0] <= first and last <= run[1]]
                if self._is(name, running):
                    _extend(found.setdefault(name, []), (first, last))
        return found

    def _is(self, name: str, running: list[Requests]) -> bool:
        _, _, node = self._index.nodes[name]
        free_cpu = node.cpu_milli - sum(one.cpu_milli for one in running)
        free_memory = node.memory_bytes - sum(one.memory_bytes for one in running)
        free = {r: count - sum(one.gpus.get(r, 0) for one in running) for r, count in node.gpus.items()}
        return not any(
            cpu <= free_cpu and memory <= free_memory and all(count <= free[resource] for resource, count in gpus)
            for cpu, memory, gpus in self._wanted[name]
        )


def _runs_through(fact: Fact, start: datetime, end: datetime) -> bool:
    return fact.valid_from <= start and (fact.valid_to is None or fact.valid_to >= end)


def _extend(intervals: list[Interval], more: Interval) -> None:
    """Add an interval after the others, or lengthen the last."""
    if intervals and intervals[-1][1] == more[0]:
        intervals[-1] = (intervals[-1][0], more[1])
    else:
        intervals.append(more)


_Shape = tuple[int, int, tuple[tuple[str, int], ...]]


def _shape(asked: Requests) -> _Shape:
    gpus = tuple(sorted((resource, count) for resource, count in asked.gpus.items() if count))
    return (asked.cpu_milli, asked.memory_bytes, gpus)


def mig_remainder_stranded(gpu: GpuData) -> bool:
    """Whether no legal profile fits beside the MIG instances of a GPU, so that what is left of it is lost.

    Instances whose places are not known take units alone: what is left is called lost only if it is too small for
    every profile.
    """
    product = PRODUCTS.get(gpu.product)
    if product is None or not product.mig_capable:
        return False
    taken: set[int] = set()
    unplaced_units = 0
    for instance in gpu.mig_instances:
        units = instance.weight_num * product.axis_units // max(instance.weight_den, 1)
        if instance.start is None:
            unplaced_units += units
        else:
            taken |= set(range(instance.start, instance.start + units))
    left_units = product.axis_units - len(taken) - unplaced_units
    return not any(
        profile.memory_units <= left_units and taken.isdisjoint(range(start, start + profile.memory_units))
        for profile in product.profiles
        if not profile.media
        for start in profile.starts
    )
