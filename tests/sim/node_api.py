"""What the stand-ins ask of the Kubernetes API about their own node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.cluster.api import Api, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["NodeApi"]


class NodeApi:
    """The API server, seen from one node.

    Args:
        kubeconfig: file with the access.
        node: the node's name.
    """

    def __init__(self, kubeconfig: Path, node: str) -> None:
        self.node = node
        self._api = Api.of_kubeconfig(kubeconfig)
        self._path = f"/api/v1/nodes/{node}"

    def node_object(self) -> dict[str, Any]:
        """The node."""
        return dict(self._api.get(self._path))

    def labels(self) -> dict[str, str]:
        """The node's labels."""
        return dict(self.node_object()["metadata"].get("labels", {}))

    def patch_labels(self, labels: Mapping[str, str | None]) -> None:
        """Set labels of the node; None takes one away."""
        self._api.merge(self._path, {"metadata": {"labels": dict(labels)}})

    def config_map(self, namespace: str, name: str) -> dict[str, str] | None:
        """Data of a ConfigMap, or None if there is none."""
        found = self.get(f"/api/v1/namespaces/{namespace}/configmaps/{name}")
        return None if found is None else dict(found.get("data") or {})

    def pods(self) -> list[dict[str, Any]]:
        """The node's pods."""
        return list(self._api.get(f"/api/v1/pods?fieldSelector=spec.nodeName%3D{self.node}")["items"])

    def claim(self, namespace: str, name: str) -> dict[str, Any] | None:
        """A ResourceClaim, or None if there is none."""
        return self.get(f"/apis/resource.k8s.io/v1/namespaces/{namespace}/resourceclaims/{name}")

    def get(self, path: str) -> dict[str, Any] | None:
        """The object at a path, or None if there is none."""
        try:
            return dict(self._api.get(path))
        except NotFoundError:
            return None

    def apply(self, path: str, content: dict[str, Any], *, manager: str) -> None:
        """Create or change the object at a path."""
        self._api.apply(path, content, manager=manager)
