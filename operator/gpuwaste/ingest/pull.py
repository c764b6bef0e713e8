"""Read usage windows from agents over HTTP: mutual TLS, or plain on loopback only."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import aiohttp

from gpuwaste.ingest.decode import DecodedBatch, decode_batch
from gpuwaste.model.errors import InputError, UnreachableError

if TYPE_CHECKING:
    from types import TracebackType

    from gpuwaste.settings.operator import AgentTls

__all__ = ["AgentClient", "AgentEndpoint", "JournalChangedError"]

_TIMEOUT = aiohttp.ClientTimeout(total=30, connect=5)
_MAX_ANSWER_BYTES = 64 * 2**20
_GONE = 410
_OK = 200


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class AgentEndpoint:
    """Where an agent answers: `https://10.0.0.7:9440`."""

    url: str
    node: str = ""


class JournalChangedError(Exception):
    """The agent has another journal than the one asked for."""


def check_endpoint(url: str, *, tls: bool) -> None:
    """Refuse an address that would be read in the clear over a network.

    Raises:
        InputError: the URL is malformed, or plain HTTP to anything but loopback.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError("must be an http or https URL with a host", where=f"agent endpoint {url!r}")
    if parts.scheme == "https":
        if not tls:
            raise InputError("needs `agents.tls` in the settings", where=f"agent endpoint {url!r}")
        return
    try:
        loopback = ipaddress.ip_address(parts.hostname).is_loopback
    except ValueError:
        loopback = parts.hostname == "localhost"
    if not loopback:
        raise InputError("plain HTTP is only for loopback; use https", where=f"agent endpoint {url!r}")


def _context(tls: AgentTls) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(tls.ca))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(str(tls.certificate), str(tls.key))
    return context


class AgentClient:
    """One keep-alive pool of connections to all agents; rotated certificates are used from the next connection on."""

    def __init__(self, *, tls: AgentTls | None, concurrency: int) -> None:
        self._tls = tls
        self._concurrency = concurrency
        self._session: aiohttp.ClientSession | None = None
        self._context: ssl.SSLContext | None = None
        self._stamp: tuple[tuple[int, int], ...] = ()

    async def __aenter__(self) -> Self:
        """Open the pool; certificates are read now.

        Raises:
            OSError: a file is missing or no usable PEM (`ssl.SSLError` is one).
        """
        if self._tls is not None:
            self._stamp, self._context = self._tls.stamp(), _context(self._tls)
        connector = aiohttp.TCPConnector(limit=self._concurrency)
        self._session = aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _fresh_context(self) -> ssl.SSLContext | bool:
        """The TLS context, read again after the files were rotated; a half-written rotation keeps the old one.

        Connections belong to the context that they were opened with, so those of the old one are not used again.
        """
        if self._tls is not None:
            with contextlib.suppress(OSError):
                stamp = self._tls.stamp()
                if stamp != self._stamp:
                    self._context = _context(self._tls)
                    self._stamp = stamp
        return True if self._context is None else self._context

    async def fetch(self, endpoint: AgentEndpoint, *, journal_id: str, after: int, limit: int) -> DecodedBatch:
        """The records after a sequence number; decoded in a thread.

        Args:
            endpoint: the agent.
            journal_id: the journal asked for; empty takes the agent's current one.
            after: the highest sequence number already stored.
            limit: at most so many records.

        Raises:
            JournalChangedError: the agent has another journal now.
            UnreachableError: it did not answer, or not with windows.
            InputError: its answer breaks a rule of the windows.
        """
        if self._session is None:
            raise RuntimeError("AgentClient is used outside its `async with` block")
        check_endpoint(endpoint.url, tls=self._tls is not None)
        query = {"after": str(after), "limit": str(limit)} | ({"journal": journal_id} if journal_id else {})
        name = self._tls.server_name if self._tls and endpoint.url.startswith("https") else None
        try:
            async with self._session.get(
                f"{endpoint.url}/v1/windows",
                params=query,
                headers={"Accept": "application/x-protobuf"},
                server_hostname=name,
                ssl=self._fresh_context(),
            ) as answer:
                if answer.status == _GONE:
                    raise JournalChangedError
                if answer.status != _OK:
                    raise UnreachableError(f"{endpoint.url}: answered {answer.status} {answer.reason}")
                body = await answer.content.read(_MAX_ANSWER_BYTES + 1)
                while len(body) <= _MAX_ANSWER_BYTES and (more := await answer.content.read(_MAX_ANSWER_BYTES)):
                    body += more
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnreachableError(f"{endpoint.url}: {type(error).__name__}: {error}") from error
        if len(body) > _MAX_ANSWER_BYTES:
            raise InputError(f"answered more than {_MAX_ANSWER_BYTES} bytes", where=endpoint.url)
        return await asyncio.to_thread(decode_batch, body, where=f"agent {endpoint.url}")
