"""Kubernetes objects for tests, as raw JSON: `make_pod("a").gpu(2).on("n1").running().obj()`."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Self
from uuid import NAMESPACE_OID, uuid5

Json = dict[str, Any]

CREATED = "2026-10-31T00:00:00Z"
STARTED = "2026-11-01T00:00:00Z"


class Builder:
    """An object that grows; `obj()` hands out a copy."""

    api_version = "v1"
    kind = ""
    namespaced = True

    def __init__(self, name: str) -> None:
        self.body: Json = {
            "apiVersion": self.api_version,
            "kind": self.kind,
            "metadata": {"name": name, "creationTimestamp": CREATED},
        }
        if self.namespaced:
            self.body["metadata"]["namespace"] = "ml"

    def namespace(self, name: str) -> Self:
        self.body["metadata"]["namespace"] = name
        return self

    def labels(self, labels: dict[str, str] | None = None, /, **more: str) -> Self:
        self.body["metadata"].setdefault("labels", {}).update({**(labels or {}), **more})
        return self

    def annotations(self, annotations: dict[str, str]) -> Self:
        self.body["metadata"].setdefault("annotations", {}).update(annotations)
        return self

    def created(self, time: str) -> Self:
        self.body["metadata"]["creationTimestamp"] = time
        return self

    def owned_by(self, owner: Builder | Json, *, controller: bool = True) -> Self:
        body = owner.obj() if isinstance(owner, Builder) else owner
        reference = {
            "apiVersion": body["apiVersion"],
            "kind": body["kind"],
            "name": body["metadata"]["name"],
            "uid": body["metadata"]["uid"],
        }
        if controller:
            reference["controller"] = True
        self.body["metadata"].setdefault("ownerReferences", []).append(reference)
        return self

    def obj(self, uid: str | None = "") -> Json:
        """The object; its uid follows from kind and name, is `uid`, or is left to the server (None)."""
        body = deepcopy(self.body)
        metadata = body["metadata"]
        if uid is not None:
            text = f"{self.api_version}/{self.kind}/{metadata.get('namespace', '')}/{metadata['name']}"
            metadata["uid"] = uid or str(uuid5(NAMESPACE_OID, text))
        return body


class PodBuilder(Builder):
    """A pod with one container `main` of the image `app:1`."""

    kind = "Pod"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.body["spec"] = {"containers": [{"name": "main", "image": "app:1"}]}
        self.body["status"] = {"phase": "Pending"}

    def _resources(self, container: str) -> Json:
        spec = self.body["spec"]
        for listed in (*spec["containers"], *spec.get("initContainers", ())):
            if listed["name"] == container:
                return listed.setdefault("resources", {})
        raise KeyError(container)

    def container(self, name: str, *, init: bool = False, sidecar: bool = False) -> Self:
        body: Json = {"name": name, "image": "app:1"}
        if sidecar:
            body["restartPolicy"] = "Always"
        self.body["spec"].setdefault("initContainers" if init or sidecar else "containers", []).append(body)
        return self

    def requests(self, container: str = "main", **quantities: str) -> Self:
        self._resources(container).setdefault("requests", {}).update(quantities)
        return self

    def limits(self, container: str = "main", **quantities: str) -> Self:
        self._resources(container).setdefault("limits", {}).update(quantities)
        return self

    def gpu(self, count: int = 1, *, resource: str = "nvidia.com/gpu", container: str = "main") -> Self:
        self._resources(container).setdefault("limits", {})[resource] = str(count)
        self._resources(container).setdefault("requests", {})[resource] = str(count)
        return self

    def claim(self, name: str, *, container: str = "main") -> Self:
        self.body["spec"].setdefault("resourceClaims", []).append({"name": name, "resourceClaimName": name})
        self._resources(container).setdefault("claims", []).append({"name": name})
        return self

    def on(self, node: str) -> Self:
        self.body["spec"]["nodeName"] = node
        return self

    def priority(self, value: int) -> Self:
        self.body["spec"]["priority"] = value
        return self

    def scheduled(self, time: str) -> Self:
        self.body["status"].setdefault("conditions", []).append(
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": time}
        )
        return self

    def running(self, since: str = STARTED) -> Self:
        self.body["status"].update(phase="Running", startTime=since)
        return self

    def ended(self, at: str, *, phase: str = "Succeeded", container: str = "main") -> Self:
        self.body["status"]["phase"] = phase
        self.body["status"].setdefault("containerStatuses", []).append(
            {"name": container, "state": {"terminated": {"exitCode": 0, "finishedAt": at}}}
        )
        return self

    def deleting(self, at: str) -> Self:
        self.body["metadata"]["deletionTimestamp"] = at
        return self


class NodeBuilder(Builder):
    """A Ready node with 32 CPUs and 256 GiB."""

    kind = "Node"
    namespaced = False

    def __init__(self, name: str) -> None:
        super().__init__(name)
        amounts = {"cpu": "32", "memory": "256Gi", "pods": "110"}
        self.body["spec"] = {"providerID": f"test:///{name}"}
        self.body["status"] = {
            "capacity": dict(amounts),
            "allocatable": dict(amounts),
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": CREATED}],
        }

    def gpu(self, count: int, *, resource: str = "nvidia.com/gpu", allocatable: int | None = None) -> Self:
        self.body["status"]["capacity"][resource] = str(count)
        self.body["status"]["allocatable"][resource] = str(count if allocatable is None else allocatable)
        return self

    def amount(self, **quantities: str) -> Self:
        self.body["status"]["capacity"].update(quantities)
        self.body["status"]["allocatable"].update(quantities)
        return self

    def taint(self, key: str, value: str = "", effect: str = "NoSchedule") -> Self:
        taint = {"key": key, "effect": effect, **({"value": value} if value else {})}
        self.body["spec"].setdefault("taints", []).append(taint)
        return self

    def condition(self, kind: str, status: str, time: str) -> Self:
        kept = [c for c in self.body["status"]["conditions"] if c["type"] != kind]
        self.body["status"]["conditions"] = [*kept, {"type": kind, "status": status, "lastTransitionTime": time}]
        return self

    def cordoned(self) -> Self:
        self.body["spec"]["unschedulable"] = True
        return self


class NamespaceBuilder(Builder):
    """A namespace."""

    kind = "Namespace"
    namespaced = False


class DeploymentBuilder(Builder):
    """A Deployment, or another object with replicas."""

    api_version = "apps/v1"
    kind = "Deployment"

    def replicas(self, count: int) -> Self:
        self.body.setdefault("spec", {})["replicas"] = count
        return self


class OwnerBuilder(Builder):
    """Any object that owns others."""

    def __init__(self, api_version: str, kind: str, name: str) -> None:
        self.api_version, self.kind = api_version, kind
        super().__init__(name)


def make_pod(name: str) -> PodBuilder:
    return PodBuilder(name)


def make_node(name: str) -> NodeBuilder:
    return NodeBuilder(name)


def make_namespace(name: str) -> NamespaceBuilder:
    return NamespaceBuilder(name)


def make_deployment(name: str) -> DeploymentBuilder:
    return DeploymentBuilder(name)


def make_owner(api_version: str, kind: str, name: str) -> OwnerBuilder:
    return OwnerBuilder(api_version, kind, name)
