"""GPUs in MIG mode of a node of which only the API's record is known: which instances they are divided into."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gpuwaste.model.gpu_products import GpuProduct, MigProfile, find_product
from gpuwaste.model.resources import stand_in

if TYPE_CHECKING:
    from collections.abc import Mapping
    from fractions import Fraction

    from gpuwaste.model.facts import NodeData

__all__ = ["MIG_PREFIX", "MigGpu", "MigPart", "mig_gpus"]

MIG_PREFIX: Final = "nvidia.com/mig-"
_PLAIN: Final = ("nvidia.com/gpu", "nvidia.com/gpu.shared")
_SINGLE: Final = re.compile(r"-MIG-([0-9a-z.+-]+?)(-SHARED)?$", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class MigPart:
    """An instance: its stand-in's id, profile, part of the GPU, slices, and the resource under which it is handed out.

    `resource` is empty where that is the profile's own.
    """

    uuid: str
    profile: str
    weight: Fraction
    replicas: int
    resource: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MigGpu:
    """A GPU in MIG mode, by a stand-in's id, and its instances."""

    uuid: str
    parts: tuple[MigPart, ...]


def mig_gpus(node: NodeData) -> tuple[MigGpu, ...]:
    """The GPUs of a node that its labels and allocatable resources show to be in MIG mode.

    Which instances lie on one GPU is not told; they are laid out as compactly as their profiles allow, and as many
    GPUs are taken as the node's labels count, so what is owned is right, and who holds how much of it. None where
    product or profile is unknown.
    """
    product = find_product(node.labels.get("nvidia.com/gpu.product", ""))
    if product is None:
        return ()
    single = _SINGLE.search(node.labels.get("nvidia.com/gpu.product", ""))
    instances: list[tuple[MigProfile, str, int]] = []
    for resource, count in sorted(node.gpus.items()):
        if resource.startswith(MIG_PREFIX):
            name, only = resource.removesuffix(".shared").removeprefix(MIG_PREFIX), ""
        elif single and resource in _PLAIN:
            name, only = single[1], resource
        else:
            continue
        profile = _profile(product, name)
        if profile is None:
            return ()
        replicas = _replicas(node.labels, resource)
        instances += [(profile, only, replicas)] * -(-count // replicas)
    counted = 0 if single else int(node.labels.get("nvidia.com/gpu.count", "0") or 0)
    whole = 0 if single else sum(node.gpus.get(name, 0) for name in _PLAIN)
    return _laid_out(node.name, product, instances, at_least=max(counted - whole, 0) if instances else 0)


def _profile(product: GpuProduct, name: str) -> MigProfile | None:
    wanted = f"{MIG_PREFIX}{name.lower().replace('+', '.')}"
    return next((profile for profile in product.profiles if profile.resource_name == wanted), None)


def _replicas(labels: Mapping[str, str], resource: str) -> int:
    if not resource.endswith(".shared") and "nvidia.com/gpu.sharing-strategy" not in labels:
        return 1
    own = resource.removesuffix(".shared")
    return max(int(labels.get(f"{own}.replicas") or labels.get("nvidia.com/gpu.replicas") or 1), 1)


def _laid_out(
    node: str, product: GpuProduct, instances: list[tuple[MigProfile, str, int]], *, at_least: int
) -> tuple[MigGpu, ...]:
    """The largest first, each on the first GPU with memory and compute slices for it."""
    gpus: list[list[tuple[MigProfile, str, int]]] = []
    for instance in sorted(instances, key=lambda one: (-one[0].weight, -one[0].compute_slices, one[0].name, one[1])):
        for gpu in gpus:
            memory = sum((profile.weight for profile, _, _ in gpu), instance[0].weight)
            compute = sum((profile.compute_slices for profile, _, _ in gpu), instance[0].compute_slices)
            if memory <= 1 and compute <= product.compute_slices:
                gpu.append(instance)
                break
        else:
            gpus.append([instance])
    gpus += [[] for _ in range(at_least - len(gpus))]
    found = []
    for number, gpu in enumerate(gpus):
        uuid = stand_in(node, "nvidia.com/mig", number)
        parts = tuple(
            MigPart(
                uuid=f"{uuid}/{profile.name}/{place}",
                profile=profile.name,
                weight=profile.weight,
                replicas=replicas,
                resource=only,
            )
            for place, (profile, only, replicas) in enumerate(gpu)
        )
        found.append(MigGpu(uuid=uuid, parts=parts))
    return tuple(found)
