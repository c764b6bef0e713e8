"""What the agent does last: hand the records nobody has fetched yet to somebody who outlives the node.

Either to the operator (POST, mutual TLS) or to a pre-signed address (PUT). Reading a record twice changes nothing, so
handing over more than needed does no harm. An operator that has less than we think says so (409 with `after`), and gets
everything from there.
"""

from __future__ import annotations

import http.client
import json
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from gpuwaste_agent.wire.usage_pb2 import Batch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpuwaste_agent.journal import Journal, Page
    from gpuwaste_agent.server import Identity, TlsFiles

__all__ = ["Handover", "HandoverError", "batches_after", "hand_over"]

_AFTER = "Gpuwaste-After"
_CONFLICT = 409
_ANSWER_BYTES = 4096
_RECORDS = 20_000
_BATCH_BYTES = 16 << 20
_PROTOBUF = "application/x-protobuf"


class HandoverError(Exception):
    """The records could not be handed over; they stay in the journal."""


class _EarlierError(Exception):
    """The other side misses records before those that were sent; it has those up to `after`."""

    def __init__(self, after: int) -> None:
        super().__init__(after)
        self.after = after


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """Where to hand records over.

    Attributes:
        method: POST to the operator, PUT to a pre-signed address.
        url: The address, https or (on loopback) http.
        tls: Our certificate for the operator and the CA of its own; None uses the system's CAs and no certificate.
        name: The name that the other side's certificate must have; empty is the address's host.
        seconds: How long the whole of it may take.
    """

    method: str
    url: str
    tls: TlsFiles | None = None
    name: str = ""
    seconds: float = 15.0


def _pages(journal: Journal, after: int) -> Iterator[tuple[int, Page]]:
    """Every durable record after a sequence number, each page with the number it comes after."""
    while True:
        page = journal.read(after, _RECORDS, _BATCH_BYTES)
        if page.count:
            yield after, page
        if not page.more:
            return
        after = page.next_seq - 1


def _head(journal: Journal, identity: Identity, span: tuple[int, int], *, more: bool) -> bytes:
    """A batch of the records in a span of numbers, without them: they may stand behind it as the journal has them."""
    return Batch(
        journal_id=journal.journal_id,
        node=identity.node,
        node_uid=identity.node_uid,
        cluster=identity.cluster,
        first_seq=span[0],
        next_seq=span[1],
        more=more,
    ).SerializeToString()


def batches_after(journal: Journal, identity: Identity, after: int) -> Iterator[tuple[int, bytes]]:
    """Yield encoded batches of every durable record after a sequence number, each with the number it comes after."""
    for begin, page in _pages(journal, after):
        yield begin, _head(journal, identity, (page.first_seq, page.next_seq), more=page.more) + page.payload


class _Whole:
    """All that is to be sent as one batch, read again from the journal meanwhile: days of it may not fit in memory."""

    def __init__(self, journal: Journal, identity: Identity, after: int) -> None:
        self._journal = journal
        self._pieces: list[tuple[int, int, int]] = []
        span: tuple[int, int] | None = None
        for begin, page in _pages(journal, after):
            self._pieces.append((begin, page.count, len(page.payload)))
            span = (span[0] if span else page.first_seq, page.next_seq)
        self._head = b"" if span is None else _head(journal, identity, span, more=False)

    def __len__(self) -> int:
        return len(self._head) + sum(length for _, _, length in self._pieces)

    def __iter__(self) -> Iterator[bytes]:
        yield self._head
        for begin, count, length in self._pieces:
            page = self._journal.read(begin, count, length)
            if (page.count, len(page.payload)) != (count, length):
                raise HandoverError("the journal dropped what was being handed over")
            yield page.payload


class _NamedConnection(http.client.HTTPSConnection):
    """Verifies the other side by a name of its own, wherever it is dialled."""

    def __init__(self, target: Handover, context: ssl.SSLContext, timeout: float) -> None:
        url = urlsplit(target.url)
        super().__init__(url.hostname or "", url.port, timeout=timeout, context=context)
        self._name = target.name or self.host
        self._tls = context

    def connect(self) -> None:
        """Dial and shake hands."""
        http.client.HTTPConnection.connect(self)
        self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._name)


def _connect(target: Handover, timeout: float) -> http.client.HTTPConnection:
    url = urlsplit(target.url)
    if url.scheme == "http":
        return http.client.HTTPConnection(url.hostname or "", url.port, timeout=timeout)
    context = ssl.create_default_context(cafile=str(target.tls.ca) if target.tls else None)
    if target.tls is not None:
        context.load_cert_chain(target.tls.cert, target.tls.key)
    return _NamedConnection(target, context, timeout)


def _send(target: Handover, after: int, body: bytes | _Whole, timeout: float) -> None:
    url = urlsplit(target.url)
    path = url.path + (f"?{url.query}" if url.query else "")
    connection = _connect(target, timeout)
    try:
        more = {_AFTER: str(after)} if target.method == "POST" else _of_store(url.query)
        headers = {"Content-Type": _PROTOBUF, "Content-Length": str(len(body))} | more
        connection.request(target.method, path or "/", body, headers)
        answer = connection.getresponse()
        text = answer.read(_ANSWER_BYTES)
    finally:
        connection.close()
    if answer.status == _CONFLICT and (earlier := _earlier(text)) is not None and earlier < after:
        raise _EarlierError(earlier)
    if not 200 <= answer.status < 300:  # noqa: PLR2004 - success in HTTP
        raise HandoverError(f"{_named(target)} answered {answer.status} {answer.reason}")


def _of_store(query: str) -> dict[str, str]:
    """What the store behind a pre-signed address asks for beside the object: Azure the kind of blob."""
    return {"x-ms-blob-type": "BlockBlob"} if {"sv", "sig"} <= parse_qs(query).keys() else {}


def _earlier(answer: bytes) -> int | None:
    """The sequence number up to which a refusing operator has everything; None where it does not say."""
    try:
        after = json.loads(answer).get("after")
    except (ValueError, AttributeError):
        return None
    return after if isinstance(after, int) and after >= 0 else None


def hand_over(target: Handover, journal: Journal, identity: Identity, after: int) -> int:
    """Send every durable record after `after`; returns how many bytes went.

    A POST goes batch by batch. A pre-signed address takes one object, so a PUT carries all of it as one batch.

    Raises:
        HandoverError: The other side refused, cannot be reached, or did not take it in time.
    """
    deadline = time.monotonic() + target.seconds
    if target.method == "PUT":
        whole = _Whole(journal, identity, after)
        return _send_all(target, iter(((after, whole),)) if len(whole) else iter(()), deadline)
    try:
        return _send_all(target, batches_after(journal, identity, after), deadline)
    except _EarlierError as earlier:
        batches = batches_after(journal, identity, earlier.after)
        try:
            return _send_all(target, batches, deadline)
        except _EarlierError as error:
            raise HandoverError(f"{_named(target)} asks for records after {error.after} again") from error


def _named(target: Handover) -> str:
    return f"{target.method} {urlsplit(target.url).hostname}"


def _send_all(target: Handover, batches: Iterator[tuple[int, bytes | _Whole]], deadline: float) -> int:
    sent = 0
    for after, body in batches:
        left = deadline - time.monotonic()
        if left <= 0:
            raise HandoverError(f"{_named(target)} did not take everything in time")
        try:
            _send(target, after, body, left)
        except (OSError, http.client.HTTPException) as error:
            raise HandoverError(f"{_named(target)}: {error}") from error
        sent += len(body)
    return sent
