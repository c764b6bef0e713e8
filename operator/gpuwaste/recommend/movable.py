"""Which pods may be moved, and what a pod takes with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gpuwaste.model.facts import PodData

__all__ = ["CARRIED", "PIN_REASONS", "carried_by_node", "loses_no_work", "pin_reason"]

CARRIED: Final = "Carried"
"""Marks a pod that comes and goes with its node."""

PIN_REASONS: Final = {
    "NoOwner": "nothing would start it again elsewhere",
    "DoNotDisrupt": "it is annotated karpenter.sh/do-not-disrupt",
    "NotSafeToEvict": "it is annotated cluster-autoscaler.kubernetes.io/safe-to-evict: false",
    "GangWorkload": "it is one of a group that stops as a whole when one of it stops",
    "DisruptionBudget": "its PodDisruptionBudget allows no eviction now",
    "SeveralBudgets": "two PodDisruptionBudgets select it, and such a pod cannot be evicted",
    "SpreadOverNodes": "it is counted in a spread over nodes, which a move would change",
    "BesidePod": "it must be on one node with another pod",
    "VolumeClaims": "it has a volume, and where that can go is not known",
    "SharedByScheduler": "another scheduler shares its GPU, and the amounts are not known",
}

_GANG_KINDS = frozenset(
    (
        "JobSet",
        "LeaderWorkerSet",
        "MPIJob",
        "PaddleJob",
        "PodGroup",
        "PyTorchJob",
        "RayCluster",
        "RayJob",
        "TFJob",
        "XGBoostJob",
    )
)
_GANG_KEYS = ("scheduling.k8s.io/group-name", "kueue.x-k8s.io/pod-group-name", "scheduling.x-k8s.io/pod-group")
_SHARING_PREFIXES = ("hami.io/", "kai.scheduler/")
_SERVICE_KINDS = frozenset({"Deployment", "InferenceService", "RayService", "ReplicaSet", "ReplicationController"})


def carried_by_node(pod: PodData) -> bool:
    """Whether the pod comes and goes with its node: of a DaemonSet, or a static pod (its owner is the node)."""
    return pod.owner is not None and pod.owner.kind in ("DaemonSet", "Node")


def loses_no_work(workload_kind: str) -> bool:
    """Whether a restart costs a pod of this workload no more than the restart: services, not batch work."""
    return workload_kind in _SERVICE_KINDS


def pin_reason(pod: PodData, workload_kind: str) -> str:
    """A key of `PIN_REASONS`, or empty if the pod may move."""
    if pod.owner is None:
        return "NoOwner"
    if pod.annotations.get("karpenter.sh/do-not-disrupt", "").lower() not in ("", "false"):
        return "DoNotDisrupt"
    if pod.annotations.get("cluster-autoscaler.kubernetes.io/safe-to-evict", "").lower() == "false":
        return "NotSafeToEvict"
    if workload_kind in _GANG_KINDS or any(key in pod.labels or key in pod.annotations for key in _GANG_KEYS):
        return "GangWorkload"
    if any(key.startswith(_SHARING_PREFIXES) for key in pod.annotations):
        return "SharedByScheduler"
    return ""
