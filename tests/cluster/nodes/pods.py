"""Pods of test clusters, and what the host sees of them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.cluster.errors import ClusterError
from tests.cluster.nodes.images import PAUSE_IMAGE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.cluster.access import ControlPlane

__all__ = ["claim_template", "container_environment", "container_pid", "pod", "wait_for_pod"]

_POLL_SECONDS = 0.1


def pod(
    name: str,
    *,
    namespace: str = "default",
    limits: Mapping[str, int] | None = None,
    node: str | None = None,
    claims: Mapping[str, str] | None = None,
    image: str = PAUSE_IMAGE,
    args: Sequence[str] = (),
) -> dict[str, Any]:
    """A pod with one container, `main`, which by default only waits to be ended.

    Args:
        name: its name.
        namespace: where.
        limits: resources that it asks for.
        node: the node it has to run on.
        claims: name of each ResourceClaimTemplate that it uses, by the name it has in the pod.
        image: what it runs; the node has to have it.
        args: what its program is told.
    """
    claims = claims or {}
    container: dict[str, Any] = {"name": "main", "image": image, "imagePullPolicy": "Never"}
    container["args"] = list(args)
    container["resources"] = {
        "limits": {resource: str(count) for resource, count in (limits or {}).items()},
        "claims": [{"name": claim} for claim in claims],
    }
    spec: dict[str, Any] = {"containers": [container], "terminationGracePeriodSeconds": 1}
    spec["resourceClaims"] = [{"name": own, "resourceClaimTemplateName": template} for own, template in claims.items()]
    if node is not None:
        spec["nodeSelector"] = {"kubernetes.io/hostname": node}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def claim_template(name: str, *, device_class: str, expression: str | None = None, count: int = 1) -> dict[str, Any]:
    """A ResourceClaimTemplate for pods' `claims`.

    Args:
        name: its name.
        device_class: what kind of device.
        expression: a CEL expression that the device has to meet.
        count: how many of them.
    """
    exactly: dict[str, Any] = {"deviceClassName": device_class, "count": count}
    if expression is not None:
        exactly["selectors"] = [{"cel": {"expression": expression}}]
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"spec": {"devices": {"requests": [{"name": "gpu", "exactly": exactly}]}}},
    }


def wait_for_pod(
    access: ControlPlane,
    name: str,
    *,
    namespace: str = "default",
    phase: str = "Running",
    deadline_seconds: float = 30.0,
) -> dict[str, Any]:
    """Wait until a pod is in a phase (and ready, if that is `Running`), and return it.

    Raises:
        ClusterError: it was not in time; the message holds its status.
    """
    api = access.api()
    deadline = time.monotonic() + deadline_seconds
    while True:
        found: dict[str, Any] = api.get(f"/api/v1/namespaces/{namespace}/pods/{name}")
        status = found["status"]
        ready = all(container.get("ready") for container in status.get("containerStatuses", [{}]))
        if status.get("phase") == phase and (ready or phase != "Running"):
            return found
        if time.monotonic() > deadline:
            raise ClusterError(f"pod {namespace}/{name} is not {phase} after {deadline_seconds:.0f} s: {status}")
        time.sleep(_POLL_SECONDS)


def container_pid(pod_object: Mapping[str, Any]) -> int:
    """Process id, as the host counts, of the first process of a pod's only container.

    Raises:
        ClusterError: there is none.
    """
    container = pod_object["status"]["containerStatuses"][0]["containerID"].partition("://")[2]
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            groups = (entry / "cgroup").read_text()
        except OSError:  # it ended meanwhile
            continue
        if container in groups:
            return int(entry.name)
    raise ClusterError(f"no process of container {container} is running")


def container_environment(pod_object: Mapping[str, Any]) -> dict[str, str]:
    """Environment of the first process of a pod's only container."""
    raw = Path(f"/proc/{container_pid(pod_object)}/environ").read_bytes().decode()
    return dict(entry.split("=", 1) for entry in raw.split("\0") if entry)
