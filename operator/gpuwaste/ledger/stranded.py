"""Free GPU parts that nobody could use: no legal MIG profile fits, or CPU or memory is in the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuwaste.model.facts import GpuData, PodData, requested
from gpuwaste.model.gpu_products import PRODUCTS

if TYPE_CHECKING:
    from gpuwaste.ledger.join import FactIndex
    from gpuwaste.model.facts import Requests

__all__ = ["mig_remainder_stranded", "stranded_nodes"]


def stranded_nodes(index: FactIndex) -> frozenset[str]:
    """Nodes whose free GPUs no typical or pending pod could use.

    What is free of a GPU is worth what the work of the cluster could do with it (fragmentation gradient descent,
    Weng et al., USENIX ATC 2023). The GPU pods of the hour, running or pending, stand for that work: on a node where
    each of those that ask for its kind of GPU lacks CPU, memory or enough GPUs of one kind, the free ones are stranded.
    A node whose allocatable CPU or memory is not known, or that nobody's kind of GPU is on, is not called stranded.
    """
    asked = {
        node: [requested(fact.data) for fact in facts if isinstance(fact.data, PodData)]
        for node, facts in index.pods_on.items()
    }
    shapes = {_shape(one) for pods in asked.values() for one in pods}
    shapes |= {_shape(requested(pod)) for pod in index.pending}
    typical = [shape for shape in sorted(shapes) if shape[2]]
    stranded = set()
    for name, (_, _, node) in index.nodes.items():
        wanted = [shape for shape in typical if all(resource in node.gpus for resource, _ in shape[2])]
        if not node.cpu_milli or not node.memory_bytes or not wanted:
            continue
        on_node = asked.get(name, [])
        free_cpu = node.cpu_milli - sum(one.cpu_milli for one in on_node)
        free_memory = node.memory_bytes - sum(one.memory_bytes for one in on_node)
        free = {r: count - sum(one.gpus.get(r, 0) for one in on_node) for r, count in node.gpus.items()}
        if not any(
            cpu <= free_cpu and memory <= free_memory and all(count <= free[resource] for resource, count in gpus)
            for cpu, memory, gpus in wanted
        ):
            stranded.add(name)
    return frozenset(stranded)


def _shape(asked: Requests) -> tuple[int, int, tuple[tuple[str, int], ...]]:
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
