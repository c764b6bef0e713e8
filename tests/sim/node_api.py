"""What the stand-ins ask of the Kubernetes API about their own node."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["NodeApi"]

_REQUEST_SECONDS = 10.0


class NodeApi:
    """The API server, seen from one node.

    Args:
        kubeconfig: file with the access.
        node: the node's name.
    """

    def __init__(self, kubeconfig: Path, node: str) -> None:
        self.node = node
        self._client = config.new_client_from_config(config_file=str(kubeconfig))  # type: ignore[no-untyped-call]
        self._core = client.CoreV1Api(self._client)

    def node_object(self) -> dict[str, Any]:
        """The node."""
        return self.get(f"/api/v1/nodes/{self.node}") or {}

    def labels(self) -> dict[str, str]:
        """The node's labels."""
        return dict(self.node_object().get("metadata", {}).get("labels", {}))

    def patch_labels(self, labels: Mapping[str, str | None]) -> None:
        """Set labels of the node; None takes one away."""
        self._core.patch_node(self.node, {"metadata": {"labels": dict(labels)}}, _request_timeout=_REQUEST_SECONDS)

    def config_map(self, namespace: str, name: str) -> dict[str, str] | None:
        """Data of a ConfigMap, or None if there is none."""
        found = self.get(f"/api/v1/namespaces/{namespace}/configmaps/{name}")
        return None if found is None else dict(found.get("data") or {})

    def pods(self) -> list[dict[str, Any]]:
        """The node's pods."""
        found = self.get("/api/v1/pods", [("fieldSelector", f"spec.nodeName={self.node}")]) or {}
        return list(found.get("items", ()))

    def claim(self, namespace: str, name: str) -> dict[str, Any] | None:
        """A ResourceClaim, or None if there is none."""
        return self.get(f"/apis/resource.k8s.io/v1/namespaces/{namespace}/resourceclaims/{name}")

    def apply(self, path: str, content: dict[str, Any], *, manager: str) -> None:
        """Create or change the object at `path` by server-side apply."""
        query = [("fieldManager", manager), ("force", "true")]
        self._call("PATCH", path, query, content, "application/apply-patch+yaml")

    def get(self, path: str, query: list[tuple[str, str]] | None = None) -> dict[str, Any] | None:
        """The object at a path, or None if there is none."""
        return self._call("GET", path, query or [], None, "application/json")

    def _call(
        self, method: str, path: str, query: list[tuple[str, str]], body: dict[str, Any] | None, content_type: str
    ) -> dict[str, Any] | None:
        request = self._client.param_serialize(
            method,
            path,
            query_params=query,
            header_params={"Accept": "application/json", "Content-Type": content_type},
            body=body,
            auth_settings=["BearerToken"],
        )
        response = self._client.call_api(*request, _request_timeout=_REQUEST_SECONDS)
        content = response.read()
        if response.status == HTTPStatus.NOT_FOUND:
            return None
        if response.status >= HTTPStatus.MULTIPLE_CHOICES:
            raise ApiException(status=response.status, reason=content.decode(errors="replace"))
        return dict(json.loads(content))
