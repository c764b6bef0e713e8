"""GPU time that no window covers: held as the API's record says, and unmeasured."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from gpuwaste.ledger.schedulers import WHOLE
from gpuwaste.ledger.times import subtract
from gpuwaste.model.facts import GpuData, NodeData, PodData
from gpuwaste.model.mig_nodes import MIG_PREFIX, mig_gpus
from gpuwaste.model.resources import is_measured, stand_in
from gpuwaste.model.units import to_unix_ns

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gpuwaste.ledger.join import FactIndex
    from gpuwaste.ledger.times import FreeTimes, Interval
    from gpuwaste.model.facts import Fact

__all__ = [
    "MissingPart",
    "ParentLayout",
    "SeenHolder",
    "holders_by_record",
    "layouts_of",
    "missing_parts",
    "unseen_layouts",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentLayout:
    """A parent of a GPU, how many slices it makes, and its MIG profile (empty on a whole GPU).

    `resource` is set where devices are given away under that name only: where no agent measures such devices, and of
    instances that are handed out as GPUs.
    """

    gpu_uuid: str
    parent_id: str
    weight: Fraction
    replicas: int
    profile: str = ""
    resource: str = ""

    def fits(self, resource: str) -> bool:
        """Whether an extended resource of that name can be a slice of this parent."""
        if self.resource or not is_measured(resource):
            return resource == self.resource
        if not self.profile:
            return not _is_mig(resource)
        return resource.removesuffix(".shared") == f"{MIG_PREFIX}{self.profile.replace('+', '.')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenHolder:
    """A container that held a slice in some window of the hour, or does by the API's record.

    `share` is in billionths of the parent where a scheduler says it, else −1.
    """

    parent_id: str
    slice_id: str
    pod_uid: str
    container: str
    share: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingPart:
    """Nanoseconds of GPU without a window: a holder's (unmeasured), or free (pod_uid empty).

    `category` is what the free time is; empty for a holder's.
    """

    node: str
    gpu_uuid: str
    parent_id: str
    slice_id: str
    pod_uid: str
    container: str
    amount: int
    category: str = ""


def missing_parts(
    *,
    node: str,
    gpu_uuid: str,
    expected: Interval,
    covered: Sequence[Interval],
    parents: Sequence[ParentLayout],
    seen: Mapping[str, Sequence[SeenHolder]],
    index: FactIndex,
    free_times: FreeTimes,
) -> list[MissingPart]:
    """Divide the uncovered time of one GPU among those who held it as far as the API knows, and what was free.

    Args:
        node: name of the node.
        gpu_uuid: the GPU.
        expected: when the GPU was there, Unix nanoseconds.
        covered: windows of this GPU.
        parents: its parents; their weights add up to at most 1, what is left is a free part of the GPU itself.
        seen: holders by parent, from windows of the same hour.
        index: facts of the hour; a pod holds while its fact says it ran.
        free_times: when what is free is no room for work.

    Returns:
        Parts whose amounts add up to the uncovered time exactly.
    """
    amounts: dict[tuple[str, str, str, str, str], int] = defaultdict(int)
    gaps = subtract(expected, covered)
    for interval, category in [piece for gap in gaps for piece in free_times.pieces(node, gap)]:
        length = interval[1] - interval[0]
        left = length
        for parent in parents:
            capacity = length * parent.weight.numerator // parent.weight.denominator
            left -= capacity
            free = capacity
            for holder in seen.get(parent.parent_id, ()):
                said = holder.share >= 0
                part = capacity * holder.share // WHOLE if said else capacity // max(parent.replicas, 1)
                held = _held(holder, interval, part, index)
                held = min(held, free)
                amounts[parent.parent_id, holder.slice_id, holder.pod_uid, holder.container, ""] += held
                free -= held
            amounts[parent.parent_id, "", "", "", category] += free
        amounts[gpu_uuid, "", "", "", category] += left
    return [
        MissingPart(
            node=node,
            gpu_uuid=gpu_uuid,
            parent_id=parent_id,
            slice_id=slice_id,
            pod_uid=pod_uid,
            container=container,
            amount=amount,
            category=category,
        )
        for (parent_id, slice_id, pod_uid, container, category), amount in sorted(amounts.items())
        if amount
    ]


def _held(holder: SeenHolder, interval: Interval, share: int, index: FactIndex) -> int:
    """The part of `share` for which the pod ran inside the interval."""
    running = 0
    for fact in index.pods.get(holder.pod_uid, []):
        start = max(interval[0], to_unix_ns(fact.valid_from))
        end = interval[1] if fact.valid_to is None else min(interval[1], to_unix_ns(fact.valid_to))
        running += max(0, end - start)
    return share * min(running, interval[1] - interval[0]) // (interval[1] - interval[0])


def holders_by_record(
    layouts: Sequence[ParentLayout], facts: Iterable[Fact], seen: Mapping[str, Sequence[SeenHolder]]
) -> dict[str, list[SeenHolder]]:
    """Add to the holders that windows showed those that only the API knows of.

    A pod's n-th request is given to the n-th slice that is left, in the order of pod UIDs: which slice it has is not
    known without a window, but how much is held is.

    Args:
        layouts: the parents of one node.
        facts: the pods on it.
        seen: holders by parent, from windows of the hour.
    """
    holders = {layout.parent_id: list(seen.get(layout.parent_id, ())) for layout in layouts}
    known = {holder.pod_uid for found in holders.values() for holder in found}
    free = {
        layout.parent_id: max(layout.replicas - len({h.slice_id for h in holders[layout.parent_id]}), 0)
        for layout in layouts
    }
    for fact in sorted(facts, key=lambda f: f.uid):
        if not isinstance(fact.data, PodData) or fact.uid in known:
            continue
        for container in fact.data.containers:
            for resource, count in sorted(container.gpus.items()):
                fitting = [layout for layout in layouts for _ in range(free[layout.parent_id]) if layout.fits(resource)]
                for layout in fitting[:count]:
                    free[layout.parent_id] -= 1
                    number = len(holders[layout.parent_id])
                    holders[layout.parent_id].append(
                        SeenHolder(
                            parent_id=layout.parent_id,
                            slice_id=f"{layout.parent_id}::{number}" if layout.replicas > 1 else layout.parent_id,
                            pod_uid=fact.uid,
                            container=container.name,
                        )
                    )
    return holders


def unseen_layouts(node: NodeData, *, described: bool) -> dict[str, list[ParentLayout]]:
    """Stand-ins for the GPUs of a node that no agent described, by the GPU, each with its parents.

    Args:
        node: the node.
        described: whether an agent described the GPUs that it measures; those of other resources are left then.
    """
    replicas = max(int(node.labels.get("nvidia.com/gpu.replicas", "1") or 1), 1)
    in_mig = () if described else mig_gpus(node)
    layouts: dict[str, list[ParentLayout]] = {
        gpu.uuid: [
            ParentLayout(
                gpu_uuid=gpu.uuid,
                parent_id=part.uuid,
                weight=part.weight,
                replicas=part.replicas,
                profile=part.profile,
                resource=part.resource,
            )
            for part in gpu.parts
        ]
        for gpu in in_mig
    }
    divided = {part.resource for gpu in in_mig for part in gpu.parts}
    for resource, count in sorted(node.gpus.items()):
        measured = is_measured(resource)
        if _is_mig(resource) or resource in divided or (measured and described):
            continue
        is_shared = resource.endswith(".shared") or "nvidia.com/gpu.sharing-strategy" in node.labels
        shared = replicas if measured and is_shared else 1
        for number in range(-(-count // shared)):
            parent = stand_in(node.name, resource, number)
            only = "" if measured else resource
            layouts[parent] = [
                ParentLayout(gpu_uuid=parent, parent_id=parent, weight=Fraction(1), replicas=shared, resource=only)
            ]
    return layouts


def _is_mig(resource: str) -> bool:
    return resource.startswith(MIG_PREFIX)


def layouts_of(gpu_uuid: str, gpu: GpuData) -> list[ParentLayout]:
    """The parents of a GPU as its agent described it."""
    if gpu.mig_enabled:
        return [
            ParentLayout(
                gpu_uuid=gpu_uuid,
                parent_id=instance.uuid,
                weight=Fraction(instance.weight_num, instance.weight_den),
                replicas=gpu.replicas,
                profile=instance.profile,
            )
            for instance in gpu.mig_instances
        ]
    return [ParentLayout(gpu_uuid=gpu_uuid, parent_id=gpu_uuid, weight=Fraction(1), replicas=gpu.replicas)]
