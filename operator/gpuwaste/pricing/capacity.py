"""How a node's capacity is bought, as its labels say."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SPOT_SOURCES", "Capacity", "capacity_of"]


class Capacity(StrEnum):
    """Ways to buy a node's time."""

    ON_DEMAND = "OnDemand"
    SPOT = "Spot"
    RESERVED = "Reserved"
    UNKNOWN = "Unknown"


SPOT_SOURCES: Final = {"Bill": "SpotBill", "PriceList": "SpotPriceList"}
"""A source of prices, and what it is called where it says what a spot node costs: such a price may change any time."""

_WORDS: Final = {
    "spot": Capacity.SPOT,
    "preemptible": Capacity.SPOT,
    "on-demand": Capacity.ON_DEMAND,
    "on_demand": Capacity.ON_DEMAND,
    "regular": Capacity.ON_DEMAND,
    "standard": Capacity.ON_DEMAND,
    "reserved": Capacity.RESERVED,
    "capacity_block": Capacity.RESERVED,
    "reservation": Capacity.RESERVED,
}
_LABELS: Final = (
    "karpenter.sh/capacity-type",
    "eks.amazonaws.com/capacityType",
    "kubernetes.azure.com/scalesetpriority",
    "cloud.google.com/gke-provisioning",
    "node.kubernetes.io/lifecycle",
)
_TRUE_LABELS: Final = {
    "cloud.google.com/gke-spot": Capacity.SPOT,
    "cloud.google.com/gke-preemptible": Capacity.SPOT,
}
_NAMED: Final = ("cloud.google.com/reservation-name", "karpenter.k8s.aws/capacity-reservation-id")
"""Labels that name the reservation that a node comes from."""


def capacity_of(labels: Mapping[str, str]) -> Capacity:
    """How a node is bought by the labels of Karpenter, EKS, GKE and AKS; UNKNOWN where none of them says."""
    for label, capacity in _TRUE_LABELS.items():
        if labels.get(label) == "true":
            return capacity
    for label in _LABELS:
        found = _WORDS.get(labels.get(label, "").lower())
        if found is not None:
            return found
    return Capacity.RESERVED if any(labels.get(label) for label in _NAMED) else Capacity.UNKNOWN
