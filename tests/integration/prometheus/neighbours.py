"""Pods without GPUs on the nodes of a simulated cluster: a DaemonSet whose pods have init containers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpuwaste.cluster.api import Json

__all__ = ["with_neighbours"]

_NAMESPACE, _NAME = "node-logs", "logs"
_SPEC = {
    "initContainers": [
        {"name": "migrate", "resources": {"requests": {"cpu": "1500m", "memory": "64Mi"}}},
        {"name": "mesh", "restartPolicy": "Always", "resources": {"requests": {"cpu": "50m", "memory": "40Mi"}}},
    ],
    "containers": [
        {"name": "tail", "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}}},
        {"name": "ship", "resources": {"requests": {"cpu": "250m"}}},
    ],
}


def with_neighbours(objects: list[Json]) -> list[Json]:
    """The objects, and a pod of a DaemonSet on every node since it was made."""
    nodes = [body["metadata"] for body in objects if body["kind"] == "Node"]
    return [*objects, *_daemon_set(nodes[0]["creationTimestamp"]), *map(_pod, nodes)]


def _daemon_set(since: str) -> Iterator[Json]:
    meta = {"creationTimestamp": since, "labels": {"team": "platform"}}
    yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {**meta, "name": _NAMESPACE, "uid": "ns-logs"}}
    named = {**meta, "name": _NAME, "namespace": _NAMESPACE, "uid": "daemonset-logs"}
    yield {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": named, "spec": {}}


def _pod(node: Json) -> Json:
    since = node["creationTimestamp"]
    owner = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": _NAME, "uid": "daemonset-logs", "controller": True}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{_NAME}-{node['name']}",
            "namespace": _NAMESPACE,
            "uid": f"pod-logs-{node['name']}",
            "creationTimestamp": since,
            "ownerReferences": [owner],
        },
        "spec": {**_SPEC, "nodeName": node["name"]},
        "status": {
            "phase": "Running",
            "startTime": since,
            "containerStatuses": [{"name": "tail", "state": {"running": {"startedAt": since}}}],
        },
    }
