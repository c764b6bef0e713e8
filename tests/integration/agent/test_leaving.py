"""Handing over what nobody has fetched, to a real HTTP server."""

from __future__ import annotations

import ssl
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest
import trustme

from gpuwaste_agent import leaving
from gpuwaste_agent.journal import Journal
from gpuwaste_agent.leaving import Handover, HandoverError, hand_over
from gpuwaste_agent.running import _leave
from gpuwaste_agent.server import Identity, TlsFiles
from gpuwaste_agent.wire.usage_pb2 import Batch, Record


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "journal")
    for _ in range(30):
        journal.append([Record(window_ns=1) for _ in range(2)])
    journal.sync()
    yield journal
    journal.close()


class Receiver:
    """Takes what it is sent; answers with `status`."""

    def __init__(self, context: ssl.SSLContext | None = None, status: int = 200):
        received = self.received = []
        headers = self.headers = []

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args):
                """Silent."""

            def take(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                received.append((self.command, self.path, Batch.FromString(body)))
                headers.append(self.headers)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_POST = do_PUT = take  # noqa: N815 - the names are the base class's

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.scheme = "http"
        if context is not None:
            self.scheme = "https"
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    @property
    def url(self):
        return f"{self.scheme}://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


IDENTITY = Identity(node="n", node_uid="u")


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_only_what_was_not_fetched_goes(journal, method):
    with Receiver() as receiver:
        sent = hand_over(Handover(method=method, url=receiver.url + "/v1/windows?sig=x"), journal, IDENTITY, after=50)
    ((command, path, batch),) = receiver.received
    assert (command, path) == (method, "/v1/windows?sig=x")
    assert [record.seq for record in batch.records] == list(range(51, 61))
    assert (batch.node, batch.journal_id) == ("n", journal.journal_id)
    assert sent == batch.ByteSize()


@pytest.mark.parametrize(
    ("method", "query", "kind"),
    [
        ("PUT", "sv=2024-11-04&sr=c&sp=cw&sig=abc%3D", "BlockBlob"),
        ("PUT", "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=abc", None),
        ("POST", "sv=2024-11-04&sig=abc", None),
    ],
)
def test_azure_is_told_the_kind_of_blob_and_nobody_else_is(journal, method, query, kind):
    """Azure refuses a PUT without it; a signature of S3 covers the headers that it was made for."""
    with Receiver() as receiver:
        hand_over(Handover(method=method, url=f"{receiver.url}/c/n?{query}"), journal, IDENTITY, after=50)
    (headers,) = receiver.headers
    assert headers["x-ms-blob-type"] == kind


def test_a_put_of_many_batches_is_one_object_read_piece_by_piece(journal, monkeypatch):
    """A journal of days is larger than the agent may be; what is appended meanwhile goes another time."""
    monkeypatch.setattr(leaving, "_BATCH_BYTES", 1)
    largest = 0
    read = Journal.read

    def watched(self, *args):
        nonlocal largest
        page = read(self, *args)
        largest = max(largest, len(page.payload))
        return page

    monkeypatch.setattr(Journal, "read", watched)
    with Receiver() as receiver:
        sent = hand_over(Handover(method="PUT", url=receiver.url), journal, IDENTITY, after=4)
    ((_, _, batch),) = receiver.received
    assert [record.seq for record in batch.records] == list(range(5, 61))
    assert (batch.first_seq, batch.next_seq, batch.more) == (5, 61, False)
    assert sent == int(receiver.headers[0]["Content-Length"]) > 5 * largest > 0
    assert "Transfer-Encoding" not in receiver.headers[0]


def test_nothing_is_sent_where_everything_was_fetched(journal):
    with Receiver() as receiver:
        assert hand_over(Handover(method="PUT", url=receiver.url), journal, IDENTITY, after=60) == 0
    assert receiver.received == []


def agent_files(folder):
    """An authority, and what an agent has of it."""
    ca = trustme.CA()
    cert = ca.issue_cert("agent.gpuwaste.internal")
    files = TlsFiles(cert=folder / "c", key=folder / "k", ca=folder / "ca")
    files.cert.write_bytes(b"".join(blob.bytes() for blob in cert.cert_chain_pems))
    files.key.write_bytes(cert.private_key_pem.bytes())
    ca.cert_pem.write_to_path(files.ca)
    return ca, files


def test_mutual_tls_with_the_operator(journal, tmp_path):
    ca, files = agent_files(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    ca.configure_trust(context)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    with Receiver(context) as receiver:
        hand_over(Handover(method="POST", url=receiver.url + "/v1/windows", tls=files), journal, IDENTITY, after=0)
    assert len(receiver.received[0][2].records) == 60


def test_a_refusal_and_a_dead_address_are_named(journal):
    with Receiver(status=403) as receiver, pytest.raises(HandoverError, match=r"PUT 127\.0\.0\.1 answered 403"):
        hand_over(Handover(method="PUT", url=receiver.url), journal, IDENTITY, after=0)
    with pytest.raises(HandoverError, match=r"POST 127\.0\.0\.1: .*refused"):
        hand_over(Handover(method="POST", url=receiver.url), journal, IDENTITY, after=0)


def test_a_hand_over_that_does_not_end_does_not_keep_the_agent(journal, monkeypatch, capsys):
    """As a look-up of a name may, where the cluster's DNS is gone."""
    ended = threading.Event()
    monkeypatch.setattr("gpuwaste_agent.leaving.hand_over", lambda *_: ended.wait(30))
    settings = SimpleNamespace(handovers=(Handover(method="POST", url="https://x.invalid/", seconds=0.1),))
    _leave(settings, journal, IDENTITY, 0)
    ended.set()
    assert "not handed over: POST did not end in 0.1 s" in capsys.readouterr().err


def test_the_operator_is_verified_by_the_name_that_is_given(journal, tmp_path):
    ca, files = agent_files(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("operator.gpuwaste.internal").configure_cert(context)
    with Receiver(context) as receiver:
        target = Handover(method="POST", url=receiver.url, tls=files)
        with pytest.raises(HandoverError, match="CERTIFICATE_VERIFY_FAILED"):
            hand_over(target, journal, IDENTITY, after=0)
    with Receiver(context) as receiver:
        hand_over(
            Handover(method="POST", url=receiver.url, tls=files, name="operator.gpuwaste.internal"),
            journal,
            IDENTITY,
            after=0,
        )
    assert len(receiver.received[0][2].records) == 60
