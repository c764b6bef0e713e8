"""HTTPS on which leaving agents hand over what nobody has fetched: `POST /v1/windows`, in threads of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import ssl
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from gpuwaste.model.errors import GpuwasteError, InputError
from gpuwaste.runtime.intake import HoleError, Intake

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpuwaste.runtime.metrics import OperatorMetrics
    from gpuwaste.settings.operator import AgentTls

__all__ = ["MAX_BODY_BYTES", "Receiver", "WindowsReceiver"]

_log = logging.getLogger(__name__)
MAX_BODY_BYTES = 32 * 2**20
"""Twice what an agent sends at once. So many bytes times `_AT_ONCE` are held in memory at most."""
_AT_ONCE = 8
_CONNECTIONS = 256
_TURN_SECONDS = 10.0
_BODY_SECONDS = 10.0
_SILENT_SECONDS = 10
_REFUSED_SECONDS = 5.0
_LINGER_SECONDS = 1
_CHUNK_BYTES = 2**18
_BIND_AGAIN_SECONDS = 10.0


def _context(tls: AgentTls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(tls.certificate, tls.key)
    context.load_verify_locations(tls.ca)
    return context


class WindowsReceiver(ThreadingHTTPServer):
    """The server: each connection has a thread, which shakes hands, reads, stores, and answers one request."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], *, intake: Intake, tls: AgentTls, metrics: OperatorMetrics) -> None:
        """Bind the address and read the certificates.

        Raises:
            OSError: the address is taken, or a file is missing or no usable PEM (`ssl.SSLError` is one).
        """
        self.intake = intake
        self.metrics = metrics
        self.turns = threading.BoundedSemaphore(_AT_ONCE)
        self._tls = tls
        self._stamp = tls.stamp()
        self._context = _context(tls)
        self._connections = threading.BoundedSemaphore(_CONNECTIONS)
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)

    @property
    def port(self) -> int:
        """The port that was bound."""
        return int(self.server_address[1])

    def server_bind(self) -> None:
        """Bind for both families where the address is the unspecified one, without a look-up of names."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve in a thread; beyond the limit the connection is closed, and the agent keeps its journal."""
        if self._connections.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The connection's thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Shake hands in the connection's own thread, so that a slow caller holds up nobody."""
        request.settimeout(_SILENT_SECONDS)
        context = self._fresh_context()
        with contextlib.suppress(OSError), context.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)

    def _fresh_context(self) -> ssl.SSLContext:
        """The TLS context, read again after the files were rotated; a half-written rotation keeps the old one."""
        with contextlib.suppress(OSError):
            stamp = self._tls.stamp()
            if stamp != self._stamp:
                self._context = _context(self._tls)
                self._stamp = stamp
        return self._context

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base class's
        """One broken request ends with its connection."""
        _log.warning("a request of %s failed", client_address[0], exc_info=True)

    def is_agent(self, secured: ssl.SSLSocket) -> bool:
        """Whether the caller's certificate, which the CA signed, is an agent's."""
        names = (secured.getpeercert() or {}).get("subjectAltName", ())
        return ("DNS", self._tls.server_name) in names

    def agent_name(self) -> str:
        """The name that an agent's certificate must have."""
        return self._tls.server_name


class _RefusedError(Exception):
    """An answer other than success."""

    def __init__(self, status: HTTPStatus, message: str, **more: int) -> None:
        super().__init__(message)
        self.status, self.more = status, more


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _SILENT_SECONDS
    server: WindowsReceiver

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
        """Requests are counted, not logged."""

    def do_POST(self) -> None:
        """Store one batch, then answer."""
        try:
            receipt = self._store()
        except _RefusedError as refused:
            self.server.metrics.refused_batches.inc()
            _log.warning("refused windows of %s: %s", self.client_address[0], refused)
            self._answer(refused.status, {"error": str(refused), **refused.more})
            self._linger()
        else:
            self._answer(HTTPStatus.OK, receipt)

    def do_GET(self) -> None:
        """Nothing is read here."""
        self._answer(HTTPStatus.METHOD_NOT_ALLOWED, {"error": "there is only POST /v1/windows"})
        self._linger()

    do_PUT = do_GET  # noqa: N815 - the names are the base class's

    def _store(self) -> dict[str, int]:
        path = urlsplit(self.path).path
        if path != "/v1/windows":
            raise _RefusedError(HTTPStatus.NOT_FOUND, f"no {path}; there is /v1/windows")
        if not self.server.is_agent(self.connection):
            text = f"the certificate is no agent's: it must have the name {self.server.agent_name()}"
            raise _RefusedError(HTTPStatus.FORBIDDEN, text)
        after = self.headers.get("Gpuwaste-After")
        if after is not None and _number(after) is None:
            raise _RefusedError(HTTPStatus.BAD_REQUEST, "`Gpuwaste-After` must be an integer of 0 or more")
        length = _number(self.headers.get("Content-Length"))
        if length is None:
            raise _RefusedError(HTTPStatus.LENGTH_REQUIRED, "`Content-Length` must say how long the batch is")
        if length > MAX_BODY_BYTES:
            text = f"a batch of {length} bytes is too large; at most {MAX_BODY_BYTES} are taken at once"
            raise _RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, text)
        if not self.server.turns.acquire(timeout=_TURN_SECONDS):
            raise _RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, "too many agents hand over at once; try again")
        try:
            return self._stored(self._body(length), _number(after))
        finally:
            self.server.turns.release()

    def _stored(self, body: bytes, after: int | None) -> dict[str, int]:
        try:
            receipt = self.server.intake.store(body, after=after, sender=f"agent {self.client_address[0]}")
        except InputError as error:
            raise _RefusedError(HTTPStatus.BAD_REQUEST, str(error)) from error
        except HoleError as error:
            raise _RefusedError(HTTPStatus.CONFLICT, str(error), after=error.after) from error
        except (GpuwasteError, OSError) as error:
            raise _RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, f"not stored: {error}") from error
        self.server.metrics.received.inc(receipt.stored)
        return {"stored": receipt.stored, "after": receipt.after}

    def _body(self, length: int) -> bytes:
        deadline = time.monotonic() + _BODY_SECONDS
        body = bytearray()
        while len(body) < length:
            if time.monotonic() > deadline:
                raise _RefusedError(HTTPStatus.REQUEST_TIMEOUT, f"the batch did not arrive in {_BODY_SECONDS:.0f} s")
            chunk = self.rfile.read1(min(length - len(body), _CHUNK_BYTES))
            if not chunk:
                raise _RefusedError(HTTPStatus.BAD_REQUEST, f"the batch ended after {len(body)} of {length} bytes")
            body += chunk
        return bytes(body)

    def _linger(self) -> None:
        """Read what is still coming, for a while: a connection closed before that takes the answer with it."""
        deadline = time.monotonic() + _REFUSED_SECONDS
        self.connection.settimeout(_LINGER_SECONDS)
        with contextlib.suppress(OSError):
            while time.monotonic() < deadline and self.rfile.read1(_CHUNK_BYTES):
                pass

    def _answer(self, status: HTTPStatus, value: Mapping[str, Any]) -> None:
        body = json.dumps(value).encode() + b"\n"
        self.close_connection = True
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


def _number(text: str | None) -> int | None:
    """A number of at most 18 digits, which every field of a batch can hold."""
    return int(text) if text and text.isdecimal() and text.isascii() and len(text) <= 18 else None  # noqa: PLR2004


class Receiver:
    """Keeps the server up while the operator runs. It is a help, not a need: without it pulls bring everything."""

    def __init__(self, *, intake: Intake, tls: AgentTls, port: int, metrics: OperatorMetrics) -> None:
        self.intake = intake
        self._tls, self._port, self._metrics = tls, port, metrics

    async def run(self) -> None:
        """Serve until cancelled; a port that is taken, or certificates that are not there yet, are tried again."""
        said = ""
        while True:
            try:
                server = self._bind()
            except OSError as error:
                if str(error) != said:
                    said = str(error)
                    _log.warning("agents cannot hand over on port %d yet: %s", self._port, said)
                await asyncio.sleep(_BIND_AGAIN_SECONDS)
                continue
            thread = threading.Thread(target=server.serve_forever, args=(0.2,), name="receiver", daemon=True)
            thread.start()
            _log.info("agents may hand over on port %d", server.port)
            try:
                await asyncio.Event().wait()
            finally:
                server.shutdown()
                server.server_close()

    def _bind(self) -> WindowsReceiver:
        more = {"intake": self.intake, "tls": self._tls, "metrics": self._metrics}
        if socket.has_dualstack_ipv6():
            with contextlib.suppress(OSError):
                return WindowsReceiver(("::", self._port), **more)  # type: ignore[arg-type]
        return WindowsReceiver(("0.0.0.0", self._port), **more)  # type: ignore[arg-type] # noqa: S104 - a Service's
