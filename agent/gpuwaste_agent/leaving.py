"""What the agent does last: hand the records nobody has fetched yet to somebody who outlives the node.

Either to the operator (POST, mutual TLS) or to a pre-signed address (PUT). Reading a record twice changes nothing, so
handing over more than needed does no harm.
"""

from __future__ import annotations

import http.client
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gpuwaste_agent.wire.usage_pb2 import Batch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpuwaste_agent.journal import Journal
    from gpuwaste_agent.server import Identity, TlsFiles

__all__ = ["Handover", "HandoverError", "batches_after", "hand_over"]

_RECORDS = 20_000
_BATCH_BYTES = 16 << 20
_PROTOBUF = "application/x-protobuf"


class HandoverError(Exception):
    """The records could not be handed over; they stay in the journal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """Where to hand records over.

    Attributes:
        method: POST to the operator, PUT to a pre-signed address.
        url: The address, https or (on loopback) http.
        tls: Our certificate for the operator and the CA of its own; None uses the system's CAs and no certificate.
        seconds: How long the whole of it may take.
    """

    method: str
    url: str
    tls: TlsFiles | None = None
    seconds: float = 15.0


def batches_after(journal: Journal, identity: Identity, after: int) -> Iterator[bytes]:
    """Yield encoded batches of every durable record after a sequence number."""
    while True:
        page = journal.read(after, _RECORDS, _BATCH_BYTES)
        if page.count:
            head = Batch(
                journal_id=journal.journal_id,
                node=identity.node,
                node_uid=identity.node_uid,
                cluster=identity.cluster,
                first_seq=page.first_seq,
                next_seq=page.next_seq,
                more=page.more,
            )
            yield head.SerializeToString() + page.payload
        if not page.more:
            return
        after = page.next_seq - 1


def _connect(target: Handover, timeout: float) -> http.client.HTTPConnection:
    url = urlsplit(target.url)
    host = url.hostname or ""
    if url.scheme == "http":
        return http.client.HTTPConnection(host, url.port, timeout=timeout)
    context = ssl.create_default_context(cafile=str(target.tls.ca) if target.tls else None)
    if target.tls is not None:
        context.load_cert_chain(target.tls.cert, target.tls.key)
    return http.client.HTTPSConnection(host, url.port, timeout=timeout, context=context)


def _send(target: Handover, body: bytes, timeout: float) -> None:
    url = urlsplit(target.url)
    path = url.path + (f"?{url.query}" if url.query else "")
    connection = _connect(target, timeout)
    try:
        connection.request(target.method, path or "/", body, {"Content-Type": _PROTOBUF})
        answer = connection.getresponse()
        answer.read(4096)
    finally:
        connection.close()
    if not 200 <= answer.status < 300:  # noqa: PLR2004 - success in HTTP
        raise HandoverError(f"{target.method} {url.hostname} answered {answer.status} {answer.reason}")


def hand_over(target: Handover, journal: Journal, identity: Identity, after: int) -> int:
    """Send every durable record after `after`; returns how many bytes went.

    A POST goes batch by batch. A pre-signed address takes one object, so a PUT carries all of it: encoded batches
    behind one another are one batch (protobuf merges them).

    Raises:
        HandoverError: The other side refused, cannot be reached, or did not take it in time.
    """
    deadline = time.monotonic() + target.seconds
    sent = 0
    batches = batches_after(journal, identity, after)
    if target.method == "PUT":
        whole = b"".join(batches)
        batches = iter((whole,)) if whole else iter(())
    for body in batches:
        left = deadline - time.monotonic()
        if left <= 0:
            raise HandoverError(f"{target.method} {urlsplit(target.url).hostname} did not take everything in time")
        try:
            _send(target, body, left)
        except (OSError, http.client.HTTPException) as error:
            raise HandoverError(f"{target.method} {urlsplit(target.url).hostname}: {error}") from error
        sent += len(body)
    return sent
