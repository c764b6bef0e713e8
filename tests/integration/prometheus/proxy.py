"""A store that misbehaves: a proxy on loopback before a real Prometheus, or in place of one."""

from __future__ import annotations

import http.server
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Misbehaviour", "misbehaving"]


@dataclass(slots=True, kw_only=True)
class Misbehaviour:
    """What the proxy does, and what it was asked.

    Attributes:
        target: the real store, empty: there is none.
        delay_seconds: before every answer.
        status: answered instead, with `body`; 0: what the store says.
        body: see `status`.
        failures: how many answers are `status` before the store is asked.
        skew_seconds: of the clock in the header `Date`.
        change: applied to every good answer.
        paths: what was asked.
        headers: of the last question.
    """

    target: str = ""
    delay_seconds: float = 0.0
    status: int = 0
    body: bytes = b""
    failures: int = 1 << 30
    skew_seconds: float = 0.0
    change: Callable[[bytes], bytes] = bytes
    paths: list[str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)


@contextmanager
def misbehaving(how: Misbehaviour) -> Iterator[str]:
    """The address of a proxy that does so, as long as the block runs."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            how.paths.append(self.path)
            how.headers = dict(self.headers.items())
            how.stop.wait(how.delay_seconds)
            if how.status and how.failures > 0:
                how.failures -= 1
                self._answer(how.status, how.body)
                return
            if not how.target:
                return
            try:
                with urllib.request.urlopen(how.target + self.path, timeout=30) as answer:  # noqa: S310 (loopback)
                    self._answer(answer.status, how.change(answer.read()))
            except urllib.error.HTTPError as error:
                self._answer(error.code, error.read())

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response_only(status)
            self.send_header("Date", formatdate(time.time() + how.skew_seconds, usegmt=True))
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            how.stop.set()
            server.shutdown()
