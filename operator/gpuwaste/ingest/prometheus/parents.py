"""Parents (whole GPUs and MIG instances) as dcgm-exporter's series show them."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.model.gpu_products import GpuProduct, find_product

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from gpuwaste.ingest.prometheus.readings import Readings
    from gpuwaste.model.facts import NodeData

__all__ = ["Parent", "find_parents"]

_WHOLE_MIG = "nvidia.com/gpu"
_SLICES = re.compile(r"^(\d+)g\.")
_UNITS_OF_SLICES = {1: 1, 2: 2, 3: 4, 4: 4, 7: 8}
_AXIS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """What slices are cut from.

    Attributes:
        node: its name.
        gpu_uuid: the physical GPU.
        parent_id: the GPU's UUID, or the MIG instance's; where no series names that, NVIDIA's old form of it.
        profile: MIG profile, empty on a whole GPU.
        weight: part of the GPU.
        start: first memory unit of a MIG instance; None where its id does not tell.
        replicas: slices that the device plugin makes of it.
        sharing: as in the usage message.
        model: product name of the driver.
        product: name in the product table, empty where it is unknown.
        memory_mib: of the GPU, as the product has it; 0 where that is unknown.
        number: index of the GPU on its node.
        rows: of the readings.
        present: bool[windows], whether any reading shows it.
    """

    node: str
    gpu_uuid: str
    parent_id: str
    profile: str
    weight: Fraction
    start: int | None
    replicas: int
    sharing: str
    model: str
    product: str
    memory_mib: int
    number: int
    rows: tuple[int, ...]
    present: NDArray[np.bool_]

    def fits(self, resource: str, *, whole_on_node: bool) -> bool:
        """Whether an extended resource of that name can be a slice of this parent."""
        name = resource.removesuffix(".shared")
        if not self.profile:
            return name == _WHOLE_MIG
        # Under `migStrategy: single` instances are offered as whole GPUs.
        return name == f"nvidia.com/mig-{self.profile.replace('+', '.')}" or (name == _WHOLE_MIG and not whole_on_node)


def find_parents(readings: Readings, nodes: Mapping[str, NodeData]) -> list[Parent]:
    """Every parent, sorted by node, GPU and instance.

    Args:
        readings: what the store said.
        nodes: nodes by name; their capacity tells how many slices a parent makes.
    """
    rows: dict[tuple[str, str, str], list[int]] = {}
    for number, key in enumerate(readings.rows):
        rows.setdefault((key.node, key.device.gpu_uuid, key.device.instance), []).append(number)
    anything = np.zeros((len(readings.rows), readings.plan.windows), bool)
    for figure in readings.figures.values():
        anything |= figure.known
    bare = [_parent(readings, key, found, anything) for key, found in sorted(rows.items())]
    alike = Counter((parent.node, parent.profile) for parent in bare)
    return [_with_replicas(parent, alike, nodes, readings) for parent in _not_overlapping(bare)]


def _parent(readings: Readings, key: tuple[str, str, str], rows: list[int], anything: NDArray[np.bool_]) -> Parent:
    node, gpu_uuid, instance = key
    newest = readings.rows[rows[-1]].device
    said = [readings.rows[row].device for row in rows]
    model = next((one.model for one in reversed(said) if one.model), "")
    profile = next((one.profile for one in said if one.profile), "") if instance else ""
    known = find_product(model) if model else None
    mig_uuid = next((one.mig_uuid for one in said if one.mig_uuid), "")
    return Parent(
        node=node,
        gpu_uuid=gpu_uuid,
        parent_id=(mig_uuid or f"MIG-{gpu_uuid}/{instance}/0") if instance else gpu_uuid,
        profile=profile,
        weight=_weight(known, profile) if instance else Fraction(1),
        start=_start(known, profile, instance) if instance else 0,
        replicas=1,
        sharing="EXCLUSIVE",
        model=model,
        product=known.name if known else "",
        memory_mib=known.memory_mib if known else 0,
        number=newest.number,
        rows=tuple(rows),
        present=np.logical_or.reduce(anything[rows], axis=0),
    )


def _weight(product: GpuProduct | None, profile: str) -> Fraction:
    """Memory units over the units of the axis; of an unknown product, those of the usual eight."""
    found = next((one for one in product.profiles if one.name == profile), None) if product else None
    if found is not None:
        return found.weight
    slices = _SLICES.match(profile)
    return Fraction(_UNITS_OF_SLICES.get(int(slices[1]), 1) if slices else 1, _AXIS)


def _start(product: GpuProduct | None, profile: str, instance: str) -> int | None:
    """First memory unit. NVIDIA numbers instances through a binary tree of the axis: 0; 1, 2; 3 to 6; 7 to 14."""
    found = next((one for one in product.profiles if one.name == profile), None) if product else None
    if found is None or not instance.isdecimal():
        return None
    level = (int(instance) + 1).bit_length() - 1
    width = found.axis_units >> level
    place = (int(instance) + 1 - (1 << level)) * width
    return place if place in found.starts else None


def _not_overlapping(parents: list[Parent]) -> list[Parent]:
    """Make parents of one GPU exclude each other where their series overlap in time.

    A GPU in MIG mode may have series of its own beside those of its instances; after a change of the layout the old
    instances' last readings reach into the first windows of the new ones.
    """
    of_gpu: dict[tuple[str, str], list[int]] = {}
    for number, parent in enumerate(parents):
        of_gpu.setdefault((parent.node, parent.gpu_uuid), []).append(number)
    present = [parent.present.copy() for parent in parents]
    for members in of_gpu.values():
        if len(members) == 1:
            continue
        instances = [number for number in members if parents[number].profile or parents[number].weight < 1]
        for number in set(members) - set(instances):
            for instance in instances:
                present[number] &= ~parents[instance].present
        load = sum((float(parents[number].weight) * present[number] for number in members), np.zeros(1))
        # The one whose last reading is oldest makes room first.
        for number in sorted(members, key=lambda n: int(np.flatnonzero(parents[n].present)[-1:].sum())):
            crowded = present[number] & (load > 1 + 1e-9)
            present[number] &= ~crowded
            load = load - float(parents[number].weight) * crowded
    return [replace(parent, present=present[number]) for number, parent in enumerate(parents)]


def _with_replicas(
    parent: Parent, alike: Counter[tuple[str, str]], nodes: Mapping[str, NodeData], readings: Readings
) -> Parent:
    """How many slices it makes: what the node offers over the parents of that kind, else as many as series number."""
    node = nodes.get(parent.node)
    whole = alike[parent.node, ""] > 0
    offered = 0
    if node is not None:
        offered = sum(count for name, count in node.gpus.items() if parent.fits(name, whole_on_node=whole))
    holders = [readings.rows[row].holder for row in parent.rows]
    numbered = [int(holder.vgpu) for holder in holders if holder and holder.vgpu.isdecimal()]
    replicas = max(offered // alike[parent.node, parent.profile], max(numbered, default=0) + 1)
    if replicas == 1:
        return parent
    labelled = node.labels.get("nvidia.com/gpu.sharing-strategy", "") if node else ""
    return replace(parent, replicas=replicas, sharing="MPS" if labelled == "mps" else "TIME_SLICING")
