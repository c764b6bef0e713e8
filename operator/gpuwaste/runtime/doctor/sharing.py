"""Who owns sharing and MIG in a cluster: whoever sets it would undo what somebody else sets."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from gpuwaste.runtime.doctor.findings import CheckFinding, listed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gpuwaste.cluster.api import Json

__all__ = ["OWNING_KINDS", "sharing_findings"]

_CHECK = "sharing"
OWNING_KINDS: tuple[tuple[str, str, str], ...] = (
    ("nvidia.com/v1", "ClusterPolicy", "NVIDIA's gpu-operator"),
    ("scheduling.run.ai/v2", "Queue", "KAI Scheduler"),
    ("run.ai/v2", "Project", "Run:ai"),
    ("resource.nvidia.com/v1beta1", "ComputeDomain", "NVIDIA's DRA driver"),
    ("amd.com/v1alpha1", "DeviceConfig", "AMD's GPU operator"),
)
"""Kinds by which an owner is recognised: apiVersion, kind, name of the owner."""

_DAEMONS = (
    ("hami-device-plugin", "HAMi", "its scheduler and webhook share GPUs by annotation"),
    ("mig-manager", "mig-manager", "MIG layouts follow the node label nvidia.com/mig.config"),
    ("nvidia-device-plugin", "NVIDIA's device plugin", "replicas follow its configuration"),
    ("k8s-device-plugin", "NVIDIA's device plugin", "replicas follow its configuration"),
    ("volcano-vgpu", "Volcano vGPU", "its device plugin shares GPUs"),
    ("nos-gpu-partitioner", "nos", "it changes MIG and MPS by itself"),
    ("nvidia-gpu-device-plugin", "GKE's device plugin", "sharing and MIG are set on the node pool"),
)
_POOLS = (
    ("cloud.google.com/gke-gpu-sharing-strategy", "GKE", "change the node pool, not the node"),
    ("cloud.google.com/gke-gpu-partition-size", "GKE", "change the node pool, not the node"),
    ("kubernetes.azure.com/accelerator", "AKS", "MIG is set on the node pool"),
    ("bottlerocket.aws/updater-interface-version", "Bottlerocket", "sharing is set in the node's settings"),
)
_RIVALS = ("KAI Scheduler", "Run:ai", "HAMi", "Volcano vGPU", "nos")
_CONFIG, _MIG_CONFIG = "nvidia.com/device-plugin.config", "nvidia.com/mig.config"


def sharing_findings(
    nodes: Sequence[Json], daemon_sets: Sequence[Json], owners: Mapping[str, Sequence[Json]]
) -> list[CheckFinding]:
    """Who owns what, from labels, DaemonSets and the kinds that are served.

    Args:
        nodes: GPU nodes.
        daemon_sets: all of the cluster.
        owners: objects of `OWNING_KINDS` that are served, by the owner's name.
    """
    found: list[CheckFinding] = []
    for owner, objects in owners.items():
        found.append(CheckFinding(check=_CHECK, state="info", message=f"{owner} is installed{_policy(owner, objects)}"))
    seen: set[str] = set()
    for daemon_set in daemon_sets:
        text = _texts(daemon_set)
        for word, owner, what in _DAEMONS:
            if word in text and owner not in seen:
                seen.add(owner)
                place = f"{daemon_set['metadata'].get('namespace')}/{daemon_set['metadata']['name']}"
                found.append(CheckFinding(check=_CHECK, state="info", message=f"{owner} ({place}): {what}"))
                break
    labels = [node["metadata"].get("labels") or {} for node in nodes]
    for key, owner, fix in _POOLS:
        count = sum(key in one for one in labels)
        if count:
            message = f"{owner} owns sharing and MIG on {count} nodes ({key})"
            found.append(CheckFinding(check=_CHECK, state="info", message=message, fix=fix))
    found += _node_configs(labels)
    found += _broken(nodes)
    if not found and nodes:
        message = "nobody was found who sets sharing or MIG"
        found.append(CheckFinding(check=_CHECK, state="info", message=message))
    rivals = [
        name for name in ("KAI Scheduler", "Run:ai", "HAMi", "Volcano vGPU", "nos") if name in seen | owners.keys()
    ]
    if len(rivals) > 1:
        found.append(
            CheckFinding(
                check=_CHECK,
                state="warning",
                message=f"{' and '.join(rivals)} share GPUs in the same cluster",
                fix="let one of them own a node: they do not know of each other",
            )
        )
    return found


def _policy(owner: str, objects: Sequence[Json]) -> str:
    """What gpu-operator's ClusterPolicy says of configurations."""
    if owner != "NVIDIA's gpu-operator" or not objects:
        return ""
    spec = objects[0].get("spec") or {}
    plugin, mig = spec.get("devicePlugin") or {}, spec.get("migManager") or {}
    parts = [f"MIG strategy {(spec.get('mig') or {}).get('strategy', 'single')}"]
    if (plugin.get("config") or {}).get("name"):
        parts.append(f"device plugin configured by ConfigMap {plugin['config']['name']}")
    if mig.get("enabled") is False:
        parts.append("mig-manager off")
    elif (mig.get("config") or {}).get("name"):
        parts.append(f"MIG layouts in ConfigMap {mig['config']['name']}")
    return f": {', '.join(parts)}"


def _texts(daemon_set: Json) -> str:
    containers = daemon_set.get("spec", {}).get("template", {}).get("spec", {}).get("containers") or ()
    return " ".join([daemon_set["metadata"]["name"], *(str(one.get("image", "")) for one in containers)])


def _node_configs(labels: Sequence[Mapping[str, str]]) -> list[CheckFinding]:
    found = []
    for key, what in ((_CONFIG, "device plugin configuration"), (_MIG_CONFIG, "MIG configuration")):
        counts = Counter(one[key] for one in labels if one.get(key))
        if counts:
            each = ", ".join(f"{name} on {count}" for name, count in sorted(counts.items()))
            found.append(CheckFinding(check=_CHECK, state="info", message=f"{what} by node label: {each} nodes"))
    return found


def _broken(nodes: Sequence[Json]) -> list[CheckFinding]:
    """Changes that got stuck, and layouts that NVIDIA's discovery calls invalid."""
    found = []
    states: dict[str, list[str]] = {}
    for node in nodes:
        labels = node["metadata"].get("labels") or {}
        state = labels.get("nvidia.com/mig.config.state", "")
        if state in ("failed", "pending", "rebooting"):
            states.setdefault(state, []).append(node["metadata"]["name"])
        if "MIG-INVALID" in labels.get("nvidia.com/gpu.product", ""):
            states.setdefault("invalid", []).append(node["metadata"]["name"])
    for state, names in sorted(states.items()):
        found.append(
            CheckFinding(
                check=_CHECK,
                state="failed" if state in ("failed", "invalid") else "warning",
                message=f"the MIG layout of {listed(sorted(names))} is {state}",
                fix="look at mig-manager's log; set nvidia.com/mig.config to the previous name, then again",
            )
        )
    return found
