"""The real API server through `kubernetes.aio`: its credentials, TLS and requests, and raw JSON.

Requests go through the client's `ApiClient.param_serialize` and `call_api`, the two steps below its generated
methods with `_preload_content=False`: no typed models are made, and a watch is read from the open response line
by line as it comes.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, cast

import aiohttp

from gpuwaste.cluster.api import WATCH_SECONDS, Page, WatchEvent, identity
from gpuwaste.cluster.errors import (
    ApiError,
    ConflictError,
    DisruptionBudgetError,
    ForbiddenError,
    GoneError,
    InvalidError,
    NotFoundError,
)
from gpuwaste.cluster.kinds import KNOWN_KINDS, PODS, ResourceKind
from gpuwaste.cluster.login import connect
from gpuwaste.model.errors import UnreachableError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
    from datetime import datetime
    from pathlib import Path

    from kubernetes.aio.client import ApiClient

    from gpuwaste.cluster.api import Json

__all__ = ["KubeApi", "Right", "ServerInfo", "open_api"]

_CONNECT_SECONDS = 10
_TIMEOUT = aiohttp.ClientTimeout(total=60, sock_connect=_CONNECT_SECONDS)
_QUIET_SECONDS = 90
"""A watch that is silent for longer is taken up anew: servers send a bookmark about once a minute."""

_UNAUTHORIZED = 401
_TOO_MANY = 429
_SERVER_ERROR = 500
_ERRORS: dict[int, type[ApiError]] = {
    400: InvalidError,
    401: ForbiddenError,
    403: ForbiddenError,
    404: NotFoundError,
    405: InvalidError,
    409: ConflictError,
    410: GoneError,
    413: InvalidError,
    415: InvalidError,
    422: InvalidError,
}
_APPLY = "application/apply-patch+yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """One request; empty query values are left out."""

    method: str
    path: str
    query: Mapping[str, str | int] = field(default_factory=dict)
    body: Json | None = None
    content_type: str = "application/json"
    timeout: aiohttp.ClientTimeout = _TIMEOUT

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """What an API server says of itself; `date` is None where it does not tell the time."""

    version: str
    date: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Right:
    """Something to be allowed; an empty namespace is all of them, or a cluster-scoped resource."""

    verb: str
    resource: str
    group: str = ""
    subresource: str = ""
    namespace: str = ""

    def __str__(self) -> str:
        """As `kubectl auth can-i` takes it."""
        name = f"{self.resource}.{self.group}" if self.group else self.resource
        return f"{self.verb} {name}{'/' + self.subresource if self.subresource else ''}"


class KubeApi:
    """A `ClusterApi` that speaks to a real server.

    Args:
        connect: makes a client; called at the first request and again when the server no longer accepts the
            credentials (a token of an exec plugin or of OIDC that ran out).
    """

    def __init__(self, *, connect: Callable[[], Awaitable[ApiClient]]) -> None:
        self._connect = connect
        self._client: ApiClient | None = None
        self._connecting = asyncio.Lock()
        self._kinds = dict(KNOWN_KINDS)

    async def get(self, kind: ResourceKind, name: str, *, namespace: str | None = None) -> Json:
        """See `ClusterApi.get`."""
        return await self._call(_Request(method="GET", path=kind.path(namespace=namespace, name=name)))

    async def list_page(
        self,
        kind: ResourceKind,
        *,
        namespace: str | None = None,
        limit: int = 500,
        continue_token: str = "",
        label_selector: str = "",
        field_selector: str = "",
    ) -> Page:
        """See `ClusterApi.list_page`."""
        query: dict[str, str | int] = {
            "limit": limit,
            "continue": continue_token,
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
        }
        body = await self._call(_Request(method="GET", path=kind.path(namespace=namespace), query=query))
        metadata = body.get("metadata") or {}
        return Page(
            items=body.get("items") or [],
            resource_version=metadata.get("resourceVersion", ""),
            continue_token=metadata.get("continue", ""),
        )

    async def watch(
        self,
        kind: ResourceKind,
        *,
        resource_version: str,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        timeout_seconds: int = WATCH_SECONDS,
    ) -> AsyncGenerator[WatchEvent]:
        """See `ClusterApi.watch`."""
        request = _Request(
            method="GET",
            path=kind.path(namespace=namespace),
            query={
                "watch": "true",
                "allowWatchBookmarks": "true",
                "resourceVersion": resource_version,
                "timeoutSeconds": timeout_seconds,
                "labelSelector": label_selector,
                "fieldSelector": field_selector,
            },
            timeout=aiohttp.ClientTimeout(
                total=timeout_seconds + _CONNECT_SECONDS, sock_connect=_CONNECT_SECONDS, sock_read=_QUIET_SECONDS
            ),
        )
        response = await self._open(request)
        try:
            async for line in _lines(response):
                raw = json.loads(line)
                if raw["type"] == "ERROR":
                    raise _error(raw["object"], int(raw["object"].get("code", 0)), what=f"the watch of {kind.plural}")
                yield WatchEvent(raw["type"], raw["object"])
        except TimeoutError:
            return  # silent or over its time: where it was is known to the caller
        except (aiohttp.ClientError, OSError) as error:
            raise UnreachableError(f"the watch of {kind.plural} broke: {_said(error)}") from error
        finally:
            response.close()

    async def apply(
        self, kind: ResourceKind, body: Json, *, field_manager: str, force: bool = False, dry_run: bool = False
    ) -> Json:
        """See `ClusterApi.apply`."""
        return await self._apply(kind, body, None, field_manager=field_manager, force=force, dry_run=dry_run)

    async def apply_status(self, kind: ResourceKind, body: Json, *, field_manager: str, force: bool = False) -> Json:
        """See `ClusterApi.apply_status`."""
        return await self._apply(kind, body, "status", field_manager=field_manager, force=force, dry_run=False)

    async def delete(
        self, kind: ResourceKind, name: str, *, namespace: str | None = None, uid: str | None = None
    ) -> None:
        """See `ClusterApi.delete`; what the object owns is collected in the background."""
        options: Json = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        path = kind.path(namespace=namespace, name=name)
        await self._call(_Request(method="DELETE", path=path, body=options))

    async def evict(self, name: str, *, namespace: str, uid: str | None = None, dry_run: bool = False) -> None:
        """See `ClusterApi.evict`."""
        options: Json = {}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        if dry_run:
            options["dryRun"] = ["All"]
        eviction = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace},
            "deleteOptions": options,
        }
        path = PODS.path(namespace=namespace, name=name, subresource="eviction")
        await self._call(_Request(method="POST", path=path, body=eviction))

    async def resolve(self, api_version: str, kind: str) -> ResourceKind:
        """See `ClusterApi.resolve`."""
        known = self._kinds.get((api_version, kind))
        if known is None:
            group, _, version = api_version.rpartition("/")
            path = f"/apis/{group}/{version}" if group else f"/api/{version}"
            body = await self._call(_Request(method="GET", path=path))
            for resource in body.get("resources") or []:
                if "/" in resource["name"]:
                    continue  # a subresource
                self._kinds[(api_version, resource["kind"])] = ResourceKind(
                    group=group,
                    version=version,
                    plural=resource["name"],
                    kind=resource["kind"],
                    namespaced=resource["namespaced"],
                )
            known = self._kinds.get((api_version, kind))
        if known is None:
            raise NotFoundError(f"the server serves no {kind} in {api_version}", status=404)
        return known

    async def server(self) -> ServerInfo:
        """The server's version and clock."""
        response = await self._open(_Request(method="GET", path="/version"))
        try:
            body = json.loads(await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise UnreachableError(f"the answer of the API server to GET /version broke: {_said(error)}") from error
        finally:
            response.release()
        said = response.headers.get("Date")
        return ServerInfo(version=str(body.get("gitVersion", "")), date=parsedate_to_datetime(said) if said else None)

    async def allowed(self, right: Right) -> bool:
        """Whether these credentials may do something, by the server's own word."""
        attributes = {"verb": right.verb, "group": right.group, "resource": right.resource}
        attributes |= {"subresource": right.subresource} if right.subresource else {}
        attributes |= {"namespace": right.namespace} if right.namespace else {}
        body: Json = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        answer = await self._call(_Request(method="POST", path=path, body=body))
        return bool((answer.get("status") or {}).get("allowed"))

    async def close(self) -> None:
        """Close all connections; open watches end."""
        client, self._client = self._client, None
        if client is not None:
            await client.rest_client.close()  # what ApiClient.close does, typed

    async def _apply(
        self,
        kind: ResourceKind,
        body: Json,
        subresource: str | None,
        *,
        field_manager: str,
        force: bool,
        dry_run: bool,
    ) -> Json:
        namespace, name = identity(body)
        if not name:
            raise InvalidError(f"{kind.kind}: field `metadata.name` is missing", status=422)
        try:
            path = kind.path(namespace=namespace, name=name, subresource=subresource)
        except ValueError as error:
            raise InvalidError(str(error), status=422) from None
        query = {"fieldManager": field_manager, "force": str(force).lower(), "dryRun": "All" if dry_run else ""}
        return await self._call(_Request(method="PATCH", path=path, query=query, body=body, content_type=_APPLY))

    async def _call(self, request: _Request) -> Json:
        response = await self._open(request)
        try:
            return cast("Json", json.loads(await response.read()))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise UnreachableError(f"the answer of the API server to {request} broke: {_said(error)}") from error
        finally:
            response.release()

    async def _open(self, request: _Request) -> aiohttp.ClientResponse:
        """Send a request and return the open response of a success; log in once more where that is refused."""
        client = await self._connected()
        response = await _send(client, request)
        if response.status == _UNAUTHORIZED:
            response.release()
            await self._forget(client)
            response = await _send(await self._connected(), request)
        if not response.ok:
            raise await _refusal(response, request)
        return response

    async def _connected(self) -> ApiClient:
        async with self._connecting:
            if self._client is None:
                self._client = await self._connect()
            return self._client

    async def _forget(self, client: ApiClient) -> None:
        """Drop a client whose credentials ran out, unless another request did so already.

        Its watches break and are taken up anew with the new credentials.
        """
        if self._client is client:
            await self.close()


async def _send(client: ApiClient, request: _Request) -> aiohttp.ClientResponse:
    serialized = await client.param_serialize(
        request.method,
        request.path,
        query_params=[(name, value) for name, value in request.query.items() if value != ""],
        header_params={"Accept": "application/json", "Content-Type": request.content_type},
        body=request.body,
        auth_settings=["BearerToken"],
    )
    try:
        answer = await client.call_api(*serialized, _request_timeout=request.timeout)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise UnreachableError(
            f"the API server {client.configuration.host} did not answer {request}: {_said(error)}"
        ) from error
    return cast("aiohttp.ClientResponse", answer.response)


async def _lines(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes]:
    """Lines as they arrive; unlike the stream's own reader, of any length."""
    rest = b""
    async for chunk in response.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line:
                yield line


async def _refusal(response: aiohttp.ClientResponse, request: _Request) -> Exception:
    try:
        text = (await response.read()).decode("utf-8", "replace")
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        text = _said(error)
    finally:
        response.release()
    try:
        status = json.loads(text)
    except ValueError:
        status = {}
    if not isinstance(status, dict) or "message" not in status:
        status = {"message": " ".join(text.split())[:300] or response.reason or "no reason given"}
    return _error(status, response.status, what=str(request))


def _error(status: Json, code: int, *, what: str) -> Exception:
    """The exception for a refusal; `status` is the server's Status object."""
    message = str(status.get("message", ""))
    causes = (status.get("details") or {}).get("causes") or []
    if code == _TOO_MANY and any(cause.get("reason") == "DisruptionBudget" for cause in causes):
        return DisruptionBudgetError("; ".join([message, *(cause["message"] for cause in causes)]), status=code)
    if code == _TOO_MANY or code >= _SERVER_ERROR:
        return UnreachableError(f"the API server cannot answer {what} now ({code}): {message}")
    return _ERRORS.get(code, ApiError)(message, status=code)


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__


def open_api(*, component: str, kubeconfig: Path | None = None, context: str | None = None) -> KubeApi:
    """The API server that kubectl would speak to; it is contacted at the first request.

    Args:
        component: part of the user agent, `gpuwaste-<component>`.
        kubeconfig: the file to read; None looks where kubectl does, then for a service account.
        context: the context in it; None is its current one.
    """
    return KubeApi(connect=lambda: connect(component=component, kubeconfig=kubeconfig, context=context))
