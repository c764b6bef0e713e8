"""The node pool that a node belongs to, as its labels say."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["POOL_LABELS", "node_pool"]

POOL_LABELS = (
    "karpenter.sh/nodepool",
    "cloud.google.com/gke-nodepool",
    "eks.amazonaws.com/nodegroup",
    "kubernetes.azure.com/agentpool",
)


def node_pool(labels: Mapping[str, str], *, label: str = "") -> str:
    """The value of the first node-pool label present, that of `label` before all, else `default`."""
    keys = (label, *POOL_LABELS) if label else POOL_LABELS
    return next((labels[key] for key in keys if labels.get(key)), "default")
