"""Free GPU parts that nobody could use: no legal MIG profile fits, or CPU or memory is in the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuwaste.model.facts import GpuData, PodData, requested
from gpuwaste.model.gpu_products import PRODUCTS

if TYPE_CHECKING:
    from gpuwaste.ledger.join import FactIndex

__all__ = ["mig_remainder_stranded", "stranded_nodes"]


def stranded_nodes(index: FactIndex) -> frozenset[str]:
    """Nodes on which not even the GPU pod that asks least of CPU and memory would still find room.

    The pods seen in the hour stand for the typical ones. A node whose allocatable CPU or memory is not known is
    not called stranded.
    """
    asked = [requested(fact.data) for facts in index.pods.values() for fact in facts if isinstance(fact.data, PodData)]
    typical = {(one.cpu_milli, one.memory_bytes) for one in asked if any(one.gpus.values())}
    if not typical:
        return frozenset()
    stranded = set()
    for name, (_, _, node) in index.nodes.items():
        if not node.cpu_milli or not node.memory_bytes:
            continue
        on_node = [requested(fact.data) for fact in index.pods_on.get(name, []) if isinstance(fact.data, PodData)]
        free_cpu = node.cpu_milli - sum(one.cpu_milli for one in on_node)
        free_memory = node.memory_bytes - sum(one.memory_bytes for one in on_node)
        if not any(cpu <= free_cpu and memory <= free_memory for cpu, memory in typical):
            stranded.add(name)
    return frozenset(stranded)


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
