"""Extended resources that count GPUs: whose they are, and which product a node's labels name for them."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from gpuwaste.model.gpu_products import find_product

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "GPU_RESOURCES",
    "NOT_GPU_RESOURCES",
    "counts_gpus",
    "is_measured",
    "labelled_product",
    "named_product",
    "resource_product",
    "spelled",
    "stand_in",
]

GPU_RESOURCES = (
    "nvidia.com/gpu",
    "nvidia.com/gpu.shared",
    "nvidia.com/mig-*",
    "nvidia.com/[A-Z]*",
    "nvidia.com/vgpu",
    "nvidia.com/pgpu",
    "amd.com/*",
    "gpu.intel.com/*",
    "habana.ai/gaudi",
)
"""Extended resources that count GPUs or parts of them, as shell patterns.

KubeVirt names vGPUs `GRID_…` and `NVIDIA_…`, and GPUs that are passed through by their chip, `GA102GL_A10`.
"""

NOT_GPU_RESOURCES = (
    "amd.com/*nic*",
    "gpu.intel.com/*_monitoring",
    "gpu.intel.com/memory.max",
    "gpu.intel.com/millicores",
    "gpu.intel.com/tiles",
)
"""Resources of the same vendors that are no GPUs: network cards, monitoring handles, amounts beside a device."""

_PRODUCT_LABELS: Final = {
    "amd.com/": ("amd.com/gpu.product-name", "beta.amd.com/gpu.product-name"),
    "gpu.intel.com/": ("gpu.intel.com/product",),
}

_FULL_NAME: Final = re.compile(r"(NVIDIA|Tesla|Quadro|GeForce|TITAN|AMD|Intel)[\s_-]", re.IGNORECASE)
_SHARED: Final = re.compile(r"(-MIG-[0-9a-z.+-]+?)?(-SHARED)?$", re.IGNORECASE)


@lru_cache(maxsize=4096)
def counts_gpus(
    resource: str, patterns: tuple[str, ...] = GPU_RESOURCES, excluded: tuple[str, ...] = NOT_GPU_RESOURCES
) -> bool:
    """Whether an extended resource counts GPUs or parts of them, by shell patterns."""
    return any(fnmatchcase(resource, p) for p in patterns) and not any(fnmatchcase(resource, p) for p in excluded)


def is_measured(resource: str) -> bool:
    """Whether an agent of ours measures devices of that resource: NVIDIA's GPUs and MIG instances, whole or shared.

    All others (AMD, Intel, NVIDIA's vGPUs) are held, priced and billed by the API's record, and unmeasured.
    """
    return resource in ("nvidia.com/gpu", "nvidia.com/gpu.shared") or resource.startswith("nvidia.com/mig-")


def labelled_product(labels: Mapping[str, str]) -> str:
    """The NVIDIA product that a node's labels name, as our table knows it, else as they spell it; empty without one."""
    label = labels.get("nvidia.com/gpu.product", "")
    product = find_product(label) if label else None
    return product.name if product else label


def spelled(product: str) -> str:
    """One spelling of a product: drivers write blanks where labels have dashes, and labels say how it is shared."""
    return _SHARED.sub("", re.sub(r"[\s_]+", "-", product.strip()))


def named_product(name: str) -> str | None:
    """The product that a person means.

    A name of our table, in any spelling; else one as a driver or a label writes it (`NVIDIA-A40`), for which no table
    is needed to give it a price; else an extended resource (`amd.com/gpu`). None for anything else.
    """
    product = find_product(name)
    if product is not None:
        return product.name
    return spelled(name) if _FULL_NAME.match(name) else name if "/" in name else None


def resource_product(labels: Mapping[str, str], resource: str) -> str:
    """The product behind a resource on a node: by its vendor's label, else the resource's own name."""
    if is_measured(resource):
        return labelled_product(labels)
    for prefix, names in _PRODUCT_LABELS.items():
        if resource.startswith(prefix):
            found = next((labels[name] for name in names if labels.get(name)), "")
            return found.replace("_", "-") if found else resource
    return resource


def stand_in(node: str, resource: str, number: int) -> str:
    """The id of a device that only the API tells of."""
    return f"{node}/{resource}/{number}"
