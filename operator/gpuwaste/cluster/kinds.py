"""Kinds of Kubernetes objects: where they live under the API server's address."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

__all__ = [
    "CHARGEBACK_REPORTS",
    "CLUSTER_RIGHTSIZING_POLICIES",
    "CRON_JOBS",
    "CUSTOM_RESOURCE_DEFINITIONS",
    "DAEMON_SETS",
    "DEPLOYMENTS",
    "EVENTS",
    "GPU_POOLS",
    "GPU_RESERVATIONS",
    "GPU_WASTES",
    "GROUP",
    "JOBS",
    "KNOWN_KINDS",
    "NAMESPACES",
    "NODES",
    "PODS",
    "POD_DISRUPTION_BUDGETS",
    "REPLICATION_CONTROLLERS",
    "REPLICA_SETS",
    "RESOURCE_CLAIMS",
    "RESOURCE_SLICES",
    "RIGHTSIZING_ACTIONS",
    "RIGHTSIZING_PLANS",
    "RIGHTSIZING_POLICIES",
    "STATEFUL_SETS",
    "VERSION",
    "ResourceKind",
]

GROUP = "gpuwaste.dev"
VERSION = "v1alpha1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceKind:
    """One kind of objects. `group` is empty for the core group."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool

    @property
    def api_version(self) -> str:
        """What stands in an object's `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, *, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path of the collection, one object or its subresource; every part is percent-encoded.

        Raises:
            ValueError: a namespace for a cluster-scoped kind, or one object of a namespaced kind without it.
        """
        if namespace and not self.namespaced:
            raise ValueError(f"{self.kind} is cluster-scoped and takes no namespace, got {namespace!r}")
        if name and self.namespaced and not namespace:
            raise ValueError(f"{self.kind} {name!r} is namespaced: its namespace is missing")
        parts = [f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"]
        if namespace:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        if name:
            parts.append(quote(name, safe=""))
            if subresource:
                parts.append(subresource)
        return "/".join(parts)


def _kind(api_version: str, plural: str, kind: str, *, namespaced: bool = True) -> ResourceKind:
    group, _, version = api_version.rpartition("/")
    return ResourceKind(group=group, version=version, plural=plural, kind=kind, namespaced=namespaced)


PODS = _kind("v1", "pods", "Pod")
NODES = _kind("v1", "nodes", "Node", namespaced=False)
NAMESPACES = _kind("v1", "namespaces", "Namespace", namespaced=False)
EVENTS = _kind("v1", "events", "Event")
REPLICATION_CONTROLLERS = _kind("v1", "replicationcontrollers", "ReplicationController")
REPLICA_SETS = _kind("apps/v1", "replicasets", "ReplicaSet")
DEPLOYMENTS = _kind("apps/v1", "deployments", "Deployment")
STATEFUL_SETS = _kind("apps/v1", "statefulsets", "StatefulSet")
DAEMON_SETS = _kind("apps/v1", "daemonsets", "DaemonSet")
JOBS = _kind("batch/v1", "jobs", "Job")
CRON_JOBS = _kind("batch/v1", "cronjobs", "CronJob")
POD_DISRUPTION_BUDGETS = _kind("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget")
RESOURCE_SLICES = _kind("resource.k8s.io/v1", "resourceslices", "ResourceSlice", namespaced=False)
RESOURCE_CLAIMS = _kind("resource.k8s.io/v1", "resourceclaims", "ResourceClaim")
CUSTOM_RESOURCE_DEFINITIONS = _kind(
    "apiextensions.k8s.io/v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)

_OURS = f"{GROUP}/{VERSION}"
GPU_WASTES = _kind(_OURS, "gpuwastes", "GPUWaste")
GPU_POOLS = _kind(_OURS, "gpupools", "GPUPool", namespaced=False)
GPU_RESERVATIONS = _kind(_OURS, "gpureservations", "GPUReservation", namespaced=False)
RIGHTSIZING_POLICIES = _kind(_OURS, "rightsizingpolicies", "RightsizingPolicy")
CLUSTER_RIGHTSIZING_POLICIES = _kind(_OURS, "clusterrightsizingpolicies", "ClusterRightsizingPolicy", namespaced=False)
RIGHTSIZING_PLANS = _kind(_OURS, "rightsizingplans", "RightsizingPlan", namespaced=False)
RIGHTSIZING_ACTIONS = _kind(_OURS, "rightsizingactions", "RightsizingAction", namespaced=False)
CHARGEBACK_REPORTS = _kind(_OURS, "chargebackreports", "ChargebackReport", namespaced=False)

KNOWN_KINDS: dict[tuple[str, str], ResourceKind] = {
    (kind.api_version, kind.kind): kind
    for kind in (
        PODS,
        NODES,
        NAMESPACES,
        EVENTS,
        REPLICATION_CONTROLLERS,
        REPLICA_SETS,
        DEPLOYMENTS,
        STATEFUL_SETS,
        DAEMON_SETS,
        JOBS,
        CRON_JOBS,
        POD_DISRUPTION_BUDGETS,
        RESOURCE_SLICES,
        RESOURCE_CLAIMS,
        CUSTOM_RESOURCE_DEFINITIONS,
        GPU_WASTES,
        GPU_POOLS,
        GPU_RESERVATIONS,
        RIGHTSIZING_POLICIES,
        CLUSTER_RIGHTSIZING_POLICIES,
        RIGHTSIZING_PLANS,
        RIGHTSIZING_ACTIONS,
        CHARGEBACK_REPORTS,
    )
}
"""Kinds that need no discovery, by (apiVersion, kind)."""
