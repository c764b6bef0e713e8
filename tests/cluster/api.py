"""Plain HTTPS requests to an API server, for programs that ask often and start in a moment."""

from __future__ import annotations

import base64
import json
import ssl
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

from tests.cluster.errors import ClusterError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Api", "NotFoundError"]

_REQUEST_SECONDS = 10.0
_MERGE = "application/merge-patch+json"
_APPLY = "application/apply-patch+yaml"
_NOT_FOUND = 404


class NotFoundError(ClusterError):
    """There is no such object."""


class Api:
    """An API server with a bearer token.

    Args:
        server: its URL.
        token: the token.
        authority: certificate of the authority that signed the server's, PEM.
    """

    def __init__(self, *, server: str, token: str, authority: str) -> None:
        self._server = server
        self._token = token
        self._context = ssl.create_default_context(cadata=authority)

    @classmethod
    def of_kubeconfig(cls, path: Path) -> Api:
        """The server and the token of a kubeconfig that this harness wrote."""
        content = json.loads(path.read_text())
        cluster = content["clusters"][0]["cluster"]
        return cls(
            server=cluster["server"],
            token=content["users"][0]["user"]["token"],
            authority=base64.b64decode(cluster["certificate-authority-data"]).decode(),
        )

    def answers(self, path: str) -> bool:
        """Whether a GET of that path is answered by something good."""
        try:
            self._send("GET", path)
        except ClusterError:
            return False
        return True

    def get(self, path: str) -> Any:
        """What a path holds, as `/api/v1/nodes`.

        Raises:
            NotFoundError: nothing.
            ClusterError: the server refuses or does not answer.
        """
        return json.loads(self._send("GET", path))

    def merge(self, path: str, patch: dict[str, Any]) -> None:
        """Change an object by a merge patch; raises as `get`."""
        self._send("PATCH", path, patch, _MERGE)

    def apply(self, path: str, content: dict[str, Any], *, manager: str) -> None:
        """Create or change an object by server-side apply; raises as `get`."""
        self._send("PATCH", f"{path}?fieldManager={manager}&force=true", content, _APPLY)

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None, kind: str = "") -> bytes:
        headers = {"Authorization": f"Bearer {self._token}", "Accept": "application/json", "Content-Type": kind}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._server}{path}", data, headers, method=method)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=_REQUEST_SECONDS, context=self._context) as response:  # noqa: S310
                return bytes(response.read())
        except urllib.error.HTTPError as error:
            with error:
                reason = error.read().decode(errors="replace")
            refused = NotFoundError if error.code == _NOT_FOUND else ClusterError
            raise refused(f"{method} {path} is answered by {error.code}: {reason}") from None
        except OSError as error:
            raise ClusterError(f"{method} {path} is not answered: {error}") from None
