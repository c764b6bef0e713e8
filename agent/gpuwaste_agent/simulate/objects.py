"""The Kubernetes objects of a made-up cluster, as an API server would give them at the end of its day."""

from __future__ import annotations

import uuid
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from gpuwaste_agent.simulate.build import NAMESPACES
from gpuwaste_agent.simulate.scenario import FOREVER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpuwaste_agent.simulate.build import Cluster, PlannedNode, PlannedPod, PlannedWorkload

__all__ = ["kubernetes_objects"]

_NODE_AGE_S = 40 * 86_400
_ZONES = ("us-east-1a", "us-east-1b")
_FAMILIES = {"turing": "turing", "ampere": "ampere", "ada": "ada-lovelace", "hopper": "hopper"}
_CPU_MILLI = {"busy": 2000, "training": 8000, "batch": 3000, "serving": 2000, "idle": 1000, "notebook": 1000}


def _time(cluster: Cluster, at_s: float) -> str:
    moment = datetime.fromtimestamp(cluster.start_unix_s + int(at_s), tz=UTC)
    return moment.isoformat().replace("+00:00", "Z")


def _uid(cluster: Cluster, *parts: str) -> str:
    """A UID for things the scenario has no UID for."""
    return str(uuid.uuid5(uuid.UUID(cluster.nodes[0].scenario.uid), "/".join(parts)))


def _node_resources(node: PlannedNode) -> dict[str, str]:
    """What the device plugin advertises, by resource name."""
    counts: Counter[str] = Counter()
    renamed = {"nvidia.com/gpu.shared" for group in node.kind.gpus if group.renamed}
    for gpu in node.scenario.gpus:
        if gpu.mig is None:
            name = "nvidia.com/gpu.shared" if renamed and gpu.strategy != "none" else "nvidia.com/gpu"
            counts[name] += gpu.replicas
        for instance in gpu.mig or ():
            counts[gpu.facts.profile(instance.profile).resource_name] += gpu.replicas
    return {name: str(count) for name, count in sorted(counts.items())}


def _gpu_labels(node: PlannedNode) -> dict[str, str]:
    """Labels of GPU feature discovery."""
    kind, gpus = node.kind, node.scenario.gpus
    facts = gpus[0].facts
    whole = [gpu for gpu in gpus if gpu.mig is None]
    shared = next((gpu for gpu in whole if gpu.strategy != "none"), None)
    renamed = any(group.renamed for group in kind.gpus)
    mig = len(whole) < len(gpus)
    labels = {
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.product": kind.model.replace(" ", "-") + ("-SHARED" if shared and not renamed else ""),
        "nvidia.com/gpu.count": str(len(gpus)),
        "nvidia.com/gpu.memory": str(facts.memory_mib),
        "nvidia.com/gpu.family": _FAMILIES[facts.architecture],
        "nvidia.com/gpu.compute.major": facts.compute_capability.split(".")[0],
        "nvidia.com/gpu.compute.minor": facts.compute_capability.split(".")[1],
        "nvidia.com/gpu.replicas": str(shared.replicas if shared else 1),
        "nvidia.com/gpu.sharing-strategy": shared.strategy if shared else "none",
        "nvidia.com/mig.capable": str(facts.mig_capable).lower(),
        "nvidia.com/cuda.driver-version.full": "580.95.05",
        "nvidia.com/cuda.driver-version.major": "580",
        "nvidia.com/gpu.deploy.device-plugin": "true",
        "nvidia.com/gpu.deploy.dcgm-exporter": "true",
    }
    if mig:
        labels["nvidia.com/mig.strategy"] = "mixed"
        counts = Counter(instance.profile for gpu in gpus for instance in gpu.mig or ())
        for profile, count in sorted(counts.items()):
            entry = facts.profile(profile)
            name = entry.resource_name
            labels[f"{name}.count"] = str(count)
            labels[f"{name}.memory"] = str(facts.memory_mib * entry.memory_units // entry.axis_units)
            labels[f"{name}.product"] = f"{kind.model.replace(' ', '-')}-MIG-{profile.replace('+', '.')}"
    return labels


def _node(cluster: Cluster, node: PlannedNode) -> dict[str, Any]:
    kind, name = node.kind, node.scenario.name
    zone = "dc-1" if kind.onprem else _ZONES[node.number % len(_ZONES)]
    machine = f"i-0{node.scenario.uid.replace('-', '')[:16]}"
    capacity = {
        "cpu": str(kind.cpus),
        "memory": f"{kind.memory_gib * 1024 * 1024}Ki",
        "pods": "110",
        **_node_resources(node),
    }
    reserved_kib = 2 * 1024 * 1024
    allocatable = {
        **capacity,
        "cpu": f"{kind.cpus * 1000 - 200}m",
        "memory": f"{kind.memory_gib * 1024 * 1024 - reserved_kib}Ki",
    }
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "node.kubernetes.io/instance-type": kind.instance_type,
        "topology.kubernetes.io/region": "dc" if kind.onprem else "us-east-1",
        "topology.kubernetes.io/zone": zone,
        "pool" if kind.onprem else "eks.amazonaws.com/nodegroup": kind.pool,
        **({} if kind.onprem else {"eks.amazonaws.com/capacityType": "ON_DEMAND"}),
        **_gpu_labels(node),
    }
    created = _time(cluster, -_NODE_AGE_S - node.number * 3600)
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "uid": node.scenario.uid, "creationTimestamp": created, "labels": labels},
        "spec": {
            "providerID": f"metal://{zone}/{name}" if kind.onprem else f"aws:///{zone}/{machine}",
            "taints": [{"key": "nvidia.com/gpu", "effect": "NoSchedule", "value": "present"}],
        },
        "status": {
            "capacity": capacity,
            "allocatable": allocatable,
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True",
                    "reason": "KubeletReady",
                    "message": "kubelet is posting ready status",
                    "lastTransitionTime": created,
                    "lastHeartbeatTime": _time(cluster, cluster.length_s),
                }
            ],
            "nodeInfo": {"kubeletVersion": "v1.34.2", "operatingSystem": "linux", "architecture": "amd64"},
            "addresses": [{"type": "Hostname", "address": name}],
        },
    }


def _owner(api: str, kind: str, name: str, uid: str) -> list[dict[str, Any]]:
    return [{"apiVersion": api, "kind": kind, "name": name, "uid": uid, "controller": True, "blockOwnerDeletion": True}]


def _template(workload: PlannedWorkload, node: PlannedNode) -> dict[str, Any]:
    """The pod template, as the owner's spec has it."""
    pod = workload.pods[0]
    gpu = {pod.resource: str(len(pod.devices))}
    milli = min(_CPU_MILLI[pod.work], node.kind.cpus * 1000 // 4)
    requests = {"cpu": f"{milli}m", "memory": f"{milli * 4 // 1000}Gi", **gpu}
    return {
        "metadata": {"labels": {"app": workload.name, "app.kubernetes.io/name": workload.name}},
        "spec": {
            "containers": [
                {
                    "name": pod.container,
                    "image": f"registry.local/{workload.name.rsplit('-', 1)[0]}:1.4.2",
                    "resources": {"requests": requests, "limits": gpu},
                }
            ],
            "restartPolicy": "Never" if workload.kind == "Job" else "Always",
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        },
    }


def _workload(cluster: Cluster, workload: PlannedWorkload, node: PlannedNode) -> Iterator[dict[str, Any]]:
    template = _template(workload, node)
    selector = {"matchLabels": {"app": workload.name}}
    meta: dict[str, Any] = {
        "name": workload.name,
        "namespace": workload.namespace,
        "uid": workload.uid,
        "generation": 1,
        "creationTimestamp": _time(cluster, workload.created_s),
        "labels": {"app": workload.name},
    }
    count = len(workload.pods)
    ready = sum(pod.until_s == FOREVER for pod in workload.pods)
    if workload.kind == "Job":
        status: dict[str, Any] = {"startTime": _time(cluster, workload.created_s)}
        status |= {"active": ready} if ready else {"succeeded": count}
        spec = {"parallelism": count, "completions": count, "template": template}
        yield {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": spec, "status": status}
        return
    spec = {"replicas": count, "selector": selector, "template": template}
    status = {"replicas": count, "readyReplicas": ready, "observedGeneration": 1}
    if workload.kind == "StatefulSet":
        spec["serviceName"] = workload.name
    yield {"apiVersion": "apps/v1", "kind": workload.kind, "metadata": meta, "spec": spec, "status": status}
    if workload.kind == "Deployment":
        inner = {
            **meta,
            "name": _replica_set(workload),
            "uid": workload.inner_uid,
            "ownerReferences": _owner("apps/v1", "Deployment", workload.name, workload.uid),
        }
        yield {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": inner, "spec": spec, "status": status}


def _replica_set(workload: PlannedWorkload) -> str:
    return workload.pods[0].name.rsplit("-", 1)[0]


def _pod(cluster: Cluster, workload: PlannedWorkload, pod: PlannedPod, template: dict[str, Any]) -> dict[str, Any]:
    if workload.kind == "Deployment":
        owner = _owner("apps/v1", "ReplicaSet", _replica_set(workload), workload.inner_uid)
    elif workload.kind == "StatefulSet":
        owner = _owner("apps/v1", "StatefulSet", workload.name, workload.uid)
    else:
        owner = _owner("batch/v1", "Job", workload.name, workload.uid)
    started = _time(cluster, pod.from_s)
    over = pod.until_s < FOREVER
    phase = "Succeeded" if over else "Running"
    state: dict[str, Any] = {"running": {"startedAt": started}}
    if over:
        finished = _time(cluster, pod.until_s)
        ended = {"exitCode": 0, "reason": "Completed", "startedAt": started, "finishedAt": finished}
        state = {"terminated": ended}
    changed = _time(cluster, pod.until_s) if over else started
    ready = {"status": "False" if over else "True", "lastTransitionTime": changed}
    if over:
        ready["reason"] = "PodCompleted"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod.name,
            "namespace": workload.namespace,
            "uid": pod.uid,
            "creationTimestamp": _time(cluster, pod.created_s),
            "labels": template["metadata"]["labels"],
            "ownerReferences": owner,
        },
        "spec": {**template["spec"], "nodeName": pod.node, "schedulerName": "default-scheduler", "priority": 0},
        "status": {
            "phase": phase,
            "startTime": _time(cluster, pod.created_s),
            "qosClass": "Burstable",
            "conditions": [
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": _time(cluster, pod.created_s)},
                {"type": "Initialized", "status": "True", "lastTransitionTime": _time(cluster, pod.created_s)},
                {"type": "ContainersReady", **ready},
                {"type": "Ready", **ready},
            ],
            "containerStatuses": [
                {
                    "name": pod.container,
                    "image": template["spec"]["containers"][0]["image"],
                    "containerID": f"containerd://{pod.container_id}",
                    "ready": not over,
                    "started": not over,
                    "restartCount": 0,
                    "state": state,
                }
            ],
        },
    }


def kubernetes_objects(cluster: Cluster) -> Iterator[dict[str, Any]]:
    """Yield namespaces, nodes, owners and pods, each as the JSON object an API server would give."""
    age = _time(cluster, -_NODE_AGE_S)
    for name, team in (("kube-system", "platform"), *((name, team) for name, team, _ in NAMESPACES)):
        yield {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": name,
                "uid": _uid(cluster, "namespace", name),
                "creationTimestamp": age,
                "labels": {"kubernetes.io/metadata.name": name, "team": team},
            },
            "status": {"phase": "Active"},
        }
    nodes = {node.scenario.name: node for node in cluster.nodes}
    for node in cluster.nodes:
        yield _node(cluster, node)
    for workload in cluster.workloads:
        node = nodes[workload.pods[0].node]
        yield from _workload(cluster, workload, node)
        template = _template(workload, node)
        for pod in workload.pods:
            yield _pod(cluster, workload, pod, template)
