"""Extended resources that count GPUs: whose they are, and which product a node's labels name for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gpuwaste.model.gpu_products import find_product

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["is_measured", "labelled_product", "resource_product", "stand_in"]

_PRODUCT_LABELS: Final = {
    "amd.com/": ("amd.com/gpu.product-name", "beta.amd.com/gpu.product-name"),
    "gpu.intel.com/": ("gpu.intel.com/product",),
}


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
