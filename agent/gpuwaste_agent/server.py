"""HTTP of the agent: windows (mutual TLS), and metrics and health (plain, another port)."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from google.protobuf import json_format

from gpuwaste_agent.wire.usage_pb2 import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from gpuwaste_agent.journal import Journal

__all__ = ["MOST_CONNECTIONS", "Identity", "PlainServer", "ServerError", "TlsFiles", "WindowsServer"]

_PROTOBUF = "application/x-protobuf"
_NDJSON = "application/x-ndjson"
_MOST_RECORDS = 20_000
_DEFAULT_RECORDS = 2_000
_IDLE_SECONDS = 150
_HANDSHAKE_SECONDS = 10
# Each is a thread; the operator, a Prometheus and the probes need a handful.
MOST_CONNECTIONS = 32
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class ServerError(Exception):
    """A server that cannot start as asked; the message says what to change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What every batch says about the node it comes from."""

    node: str
    node_uid: str = ""
    cluster: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files of mutual TLS: our certificate and key, and the CA that signs callers."""

    cert: Path
    key: Path
    ca: Path

    def stamp(self) -> tuple[tuple[int, int], ...]:
        """Changes when a file was replaced (a rotated Secret)."""
        return tuple((s.st_mtime_ns, s.st_ino) for s in (p.stat() for p in (self.cert, self.key, self.ca)))

    def context(self) -> ssl.SSLContext:
        """Load the files; callers must show a certificate of the CA.

        Raises:
            ServerError: A file is missing or no usable PEM.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_cert_chain(self.cert, self.key)
            context.load_verify_locations(self.ca)
        except (OSError, ssl.SSLError) as error:
            names = f"{self.cert}, {self.key}, {self.ca}"
            raise ServerError(f"the TLS files cannot be used ({error}); check {names}") from error
        return context


class _Handler(BaseHTTPRequestHandler):
    """Shared manners: HTTP/1.1 with keep-alive, time limits, answers with a length, no log on stderr."""

    protocol_version = "HTTP/1.1"
    timeout = _IDLE_SECONDS
    # One segment an answer: headers and body leave together.
    wbufsize = -1
    disable_nagle_algorithm = True

    def setup(self) -> None:
        """Shake hands in the connection's own thread, so that a slow caller holds up nobody."""
        if isinstance(self.request, ssl.SSLSocket):
            self.request.settimeout(_HANDSHAKE_SECONDS)
            self.request.do_handshake()
        super().setup()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
        """Requests are counted by the caller, not logged."""

    def answer(self, status: int, body: bytes, content_type: str, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def answer_json(self, status: int, value: Mapping[str, Any]) -> None:
        self.answer(status, json.dumps(value).encode() + b"\n", "application/json")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        try:
            super().__init__(address, handler)
        except OSError as error:
            raise ServerError(f"cannot listen on {address[0]}:{address[1]} ({error})") from error
        self._thread: threading.Thread | None = None
        self._connections: dict[socket.socket, None] = {}
        self._lock = threading.Lock()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection; where there are too many the oldest makes room, so that a new caller is served."""
        with self._lock:
            oldest = next(iter(self._connections)) if len(self._connections) >= MOST_CONNECTIONS else None
            if oldest is not None:
                del self._connections[oldest]
            self._connections[request] = None
        if oldest is not None:
            with contextlib.suppress(OSError):
                # Below TLS: its thread is still reading.
                socket.socket.shutdown(oldest, socket.SHUT_RDWR)
        try:
            super().finish_request(request, client_address)
        finally:
            with self._lock:
                self._connections.pop(request, None)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that went away or broke TLS is no event of ours."""

    def server_bind(self) -> None:
        """Bind without the reverse name lookup of the base class."""
        if self.allow_reuse_address:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    @property
    def port(self) -> int:
        """The port that was bound."""
        return int(self.server_address[1])

    def start(self, name: str) -> None:
        """Serve in a thread of its own."""
        self._thread = threading.Thread(target=self.serve_forever, name=name, args=(0.2,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop serving; answers under way are cut off."""
        if self._thread is not None:
            self.shutdown()
            self._thread.join()
        self.server_close()


class WindowsServer(_Server):
    """Serves a journal at `/v1/windows`."""

    def __init__(self, address: tuple[str, int], *, journal: Journal, identity: Identity, tls: TlsFiles | None) -> None:
        """Bind the address; plain HTTP is for loopback only.

        Raises:
            ServerError: The address is taken, the TLS files do not work, or plain HTTP was asked for elsewhere.
        """
        if tls is None and address[0] not in _LOOPBACK:
            raise ServerError(
                f"refusing plain HTTP on {address[0]}: give --tls-cert, --tls-key and --tls-ca, or listen on 127.0.0.1"
            )
        self.journal = journal
        self.identity = identity
        # What callers have made durable on their side: they ask for what comes after it.
        self.acknowledged = 0
        self._tls = tls
        self._stamp = tls.stamp() if tls else ()
        self._context = tls.context() if tls else None
        super().__init__(address, _WindowsHandler)

    def _fresh_context(self) -> ssl.SSLContext | None:
        """The TLS context, loaded again after the files were rotated; a half-written rotation keeps the old one."""
        if self._tls is not None:
            with contextlib.suppress(OSError, ServerError):
                stamp = self._tls.stamp()
                if stamp != self._stamp:
                    self._context = self._tls.context()
                    self._stamp = stamp
        return self._context

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection by TLS; the handler shakes hands."""
        context = self._fresh_context()
        if context is None:
            super().finish_request(request, client_address)
            return
        with (
            contextlib.suppress(OSError),
            context.wrap_socket(request, server_side=True, do_handshake_on_connect=False) as secured,
        ):
            super().finish_request(secured, client_address)


class _WindowsHandler(_Handler):
    server: WindowsServer

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path != "/v1/windows":
            self.answer_json(HTTPStatus.NOT_FOUND, {"error": f"no {url.path}; there is /v1/windows"})
            return
        journal = self.server.journal
        try:
            query = {name: values[-1] for name, values in parse_qs(url.query, strict_parsing=bool(url.query)).items()}
            after = _number(query, "after", 0, 2**63)
            limit = _number(query, "limit", _DEFAULT_RECORDS, _MOST_RECORDS, least=1)
        except ValueError as error:
            self.answer_json(HTTPStatus.BAD_REQUEST, {"error": str(error)})
            return
        wanted = query.get("journal", journal.journal_id)
        if wanted != journal.journal_id:
            text = f"journal {wanted} is not here; go on with journal_id from after=0"
            self.answer_json(HTTPStatus.GONE, {"journal_id": journal.journal_id, "error": text})
            return
        if "journal" in query:
            self.server.acknowledged = max(self.server.acknowledged, min(after, journal.next_seq - 1))
        page = journal.read(after, limit)
        identity = self.server.identity
        head = Batch(
            journal_id=journal.journal_id,
            node=identity.node,
            node_uid=identity.node_uid,
            cluster=identity.cluster,
            first_seq=page.first_seq,
            next_seq=page.next_seq,
            more=page.more,
        )
        encoded = head.SerializeToString() + page.payload
        if _NDJSON in self.headers.get("Accept", ""):
            self._answer_lines(Batch.FromString(encoded))
            return
        self.answer(HTTPStatus.OK, encoded, _PROTOBUF)

    def _answer_lines(self, batch: Batch) -> None:
        """One record a line; what else a batch says goes into headers."""
        lines = [
            json_format.MessageToJson(record, preserving_proto_field_name=True, indent=None) for record in batch.records
        ]
        body = "".join(line + "\n" for line in lines).encode()
        headers = {
            "Gpuwaste-Journal-Id": batch.journal_id,
            "Gpuwaste-First-Seq": str(batch.first_seq),
            "Gpuwaste-Next-Seq": str(batch.next_seq),
            "Gpuwaste-More": str(batch.more).lower(),
        }
        self.answer(HTTPStatus.OK, body, _NDJSON, headers)


def _number(query: Mapping[str, str], name: str, default: int, most: int, least: int = 0) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not text.isdecimal() or int(text) < least:
        raise ValueError(f"`{name}` must be an integer of at least {least}, not `{text}`")
    return min(int(text), most)


class PlainServer(_Server):
    """Serves `/metrics`, `/healthz` and `/readyz`; each answers with what its function returns."""

    def __init__(
        self,
        address: tuple[str, int],
        *,
        metrics: Callable[[str], tuple[str, bytes]],
        healthy: Callable[[], str],
        ready: Callable[[], str],
    ) -> None:
        """Bind the address.

        Args:
            address: Host and port.
            metrics: Takes the Accept header, returns content type and text.
            healthy: Returns what is wrong, or an empty string.
            ready: The same.
        """
        self.metrics = metrics
        self.checks = {"/healthz": healthy, "/readyz": ready}
        super().__init__(address, _PlainHandler)


class _PlainHandler(_Handler):
    server: PlainServer

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == "/metrics":
            content_type, body = self.server.metrics(self.headers.get("Accept", ""))
            self.answer(HTTPStatus.OK, body, content_type)
            return
        check = self.server.checks.get(path)
        if check is None:
            known = ", ".join(("/metrics", *self.server.checks))
            self.answer_json(HTTPStatus.NOT_FOUND, {"error": f"no {path}; there are {known}"})
            return
        problem = check()
        status = HTTPStatus.SERVICE_UNAVAILABLE if problem else HTTPStatus.OK
        self.answer(status, (problem or "ok").encode() + b"\n", "text/plain; charset=utf-8")
