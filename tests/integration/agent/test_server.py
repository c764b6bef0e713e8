"""The agent's HTTP: pages, JSON lines, 410, mutual TLS with rotation."""

from __future__ import annotations

import asyncio
import http.client
import json
import select
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request

import pytest
import trustme

from gpuwaste.ingest.pull import AgentClient, AgentEndpoint
from gpuwaste.model.errors import UnreachableError
from gpuwaste.settings.operator import AgentTls
from gpuwaste_agent.journal import Journal
from gpuwaste_agent.server import MOST_CONNECTIONS, Identity, PlainServer, ServerError, TlsFiles, WindowsServer
from gpuwaste_agent.wire.usage_pb2 import Batch, Record

NAME = "agent.gpuwaste.internal"


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "journal")
    for window in range(10):
        records = [Record(window_start_unix_ns=window, window_ns=1) for _ in range(3)]
        for record in records:
            record.usage.pod = "p"
            record.usage.figures.duty_ns = 0
        journal.append(records)
    journal.sync()
    yield journal
    journal.close()


def serve(journal, tls=None):
    server = WindowsServer(
        ("127.0.0.1", 0), journal=journal, identity=Identity(node="n", node_uid="u", cluster="c"), tls=tls
    )
    server.start("test")
    return server


@pytest.fixture
def plain(journal):
    server = serve(journal)
    yield f"http://127.0.0.1:{server.port}/v1/windows"
    server.stop()


def get(url, accept="application/x-protobuf", context=None):
    request = urllib.request.Request(url, headers={"Accept": accept})  # noqa: S310 - loopback
    with urllib.request.urlopen(request, timeout=5, context=context) as answer:  # noqa: S310 - loopback
        return answer.headers, answer.read()


def refused(url):
    with pytest.raises(urllib.error.HTTPError) as raised:
        get(url)
    with raised.value as error:
        return error.code, json.loads(error.read())


def test_a_batch_says_where_it_is_from_and_how_to_go_on(plain, journal):
    headers, body = get(f"{plain}?journal={journal.journal_id}&after=4&limit=5")
    batch = Batch.FromString(body)
    assert headers["Content-Type"] == "application/x-protobuf"
    assert (batch.journal_id, batch.node, batch.node_uid, batch.cluster) == (journal.journal_id, "n", "u", "c")
    assert [record.seq for record in batch.records] == [5, 6, 7, 8, 9]
    assert (batch.first_seq, batch.next_seq, batch.more) == (5, 10, True)


def test_reading_twice_changes_nothing_and_the_end_is_empty(plain):
    assert get(f"{plain}?after=25")[1] == get(f"{plain}?after=25")[1]
    batch = Batch.FromString(get(f"{plain}?after=30")[1])
    assert (len(batch.records), batch.first_seq, batch.next_seq, batch.more) == (0, 31, 31, False)


def test_json_lines_keep_the_names_and_measured_zeros(plain):
    headers, body = get(f"{plain}?after=28", accept="application/x-ndjson")
    lines = [json.loads(line) for line in body.splitlines()]
    assert [line["seq"] for line in lines] == ["29", "30"]
    assert lines[0]["usage"]["figures"] == {"duty_ns": "0"}
    assert lines[0]["window_ns"] == "1"
    assert headers["Gpuwaste-Next-Seq"] == "31"


def test_an_unknown_journal_is_gone_and_the_current_one_is_named(plain, journal):
    code, answer = refused(f"{plain}?journal=00000000-0000-0000-0000-000000000000&after=7")
    assert code == 410
    assert answer["journal_id"] == journal.journal_id
    assert "after=0" in answer["error"]


@pytest.mark.parametrize(
    ("query", "code", "text"),
    [
        ("?after=-1", 400, "`after` must be an integer of at least 0, not `-1`"),
        ("?after=x", 400, "`after` must be"),
        ("?limit=0", 400, "`limit` must be an integer of at least 1"),
        ("?junk", 400, "bad query field"),
    ],
)
def test_bad_queries_are_refused(plain, query, code, text):
    answer = refused(plain + query)
    assert answer[0] == code
    assert text in answer[1]["error"]


def test_other_paths_are_not_found(plain):
    assert refused(plain + "/x")[0] == 404


def test_one_connection_serves_many_requests(plain):
    host = plain.split("/")[2]
    connection = http.client.HTTPConnection(host, timeout=5)
    for after in range(5):
        connection.request("GET", f"/v1/windows?after={after}")
        assert Batch.FromString(connection.getresponse().read()).first_seq == after + 1
    connection.close()


def test_plain_http_is_for_loopback_only(journal):
    with pytest.raises(ServerError, match="refusing plain HTTP"):
        WindowsServer(("0.0.0.0", 0), journal=journal, identity=Identity(node="n"), tls=None)


def test_a_taken_port_is_named(journal, plain):
    port = int(plain.split(":")[2].split("/")[0])
    with pytest.raises(ServerError, match=f"cannot listen on 127.0.0.1:{port}"):
        WindowsServer(("127.0.0.1", port), journal=journal, identity=Identity(node="n"), tls=None)


# --- mutual TLS


def write_files(directory, ca, name=NAME):
    cert = ca.issue_cert(name)
    files = TlsFiles(cert=directory / "tls.crt", key=directory / "tls.key", ca=directory / "ca.crt")
    files.cert.write_bytes(b"".join(blob.bytes() for blob in cert.cert_chain_pems))
    files.key.write_bytes(cert.private_key_pem.bytes())
    ca.cert_pem.write_to_path(files.ca)
    return files


def client(ca, *, with_certificate=True):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca.configure_trust(context)
    if with_certificate:
        ca.issue_cert("operator.gpuwaste.internal").configure_cert(context)
    return context


def ask(port, context):
    """Dial by address, verify by the release's name, as the operator does."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as raw,
        context.wrap_socket(raw, server_hostname=NAME) as secured,
    ):
        secured.sendall(b"GET /v1/windows?after=29 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b""
        while chunk := secured.recv(65536):
            answer += chunk
    return answer


@pytest.fixture
def secured(journal, tmp_path):
    ca = trustme.CA()
    server = serve(journal, write_files(tmp_path, ca))
    yield server, ca, tmp_path
    server.stop()


def test_a_caller_with_a_certificate_of_the_ca_is_served(secured):
    server, ca, _ = secured
    answer = ask(server.port, client(ca))
    assert answer.startswith(b"HTTP/1.1 200")
    assert [r.seq for r in Batch.FromString(answer.split(b"\r\n\r\n", 1)[1]).records] == [30]


@pytest.mark.parametrize("kind", ["no certificate", "another CA's", "plain HTTP"])
def test_other_callers_get_nothing(secured, kind):
    server, ca, _ = secured
    if kind == "plain HTTP":
        with pytest.raises((urllib.error.URLError, ConnectionError, http.client.HTTPException)):
            get(f"http://127.0.0.1:{server.port}/v1/windows")
        return
    context = client(ca, with_certificate=False)
    if kind == "another CA's":
        trustme.CA().issue_cert("operator.gpuwaste.internal").configure_cert(context)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        assert not ask(server.port, context)


def test_rotated_files_are_used_by_the_next_connection(secured):
    server, old, directory = secured
    ask(server.port, client(old))
    new = trustme.CA()
    write_files(directory, new)
    assert ask(server.port, client(new)).startswith(b"HTTP/1.1 200")
    with pytest.raises(ssl.SSLError):
        ask(server.port, client(old))


def test_a_half_written_rotation_keeps_the_old_certificate(secured):
    server, ca, directory = secured
    (directory / "tls.crt").write_text("half")
    assert ask(server.port, client(ca)).startswith(b"HTTP/1.1 200")


def test_the_operator_uses_rotated_files_from_its_next_connection_on(secured, tmp_path):
    server, ca, directory = secured
    mine = tmp_path / "operator"
    mine.mkdir()
    files = write_files(mine, ca, "operator.gpuwaste.internal")
    tls = AgentTls(ca=files.ca, certificate=files.cert, key=files.key)
    endpoint = AgentEndpoint(url=f"https://127.0.0.1:{server.port}")

    async def fetches():
        async with AgentClient(tls=tls, concurrency=1) as client:

            async def fetch():
                return (await client.fetch(endpoint, journal_id="", after=30, limit=1)).next_seq

            assert await fetch() == 31
            new = trustme.CA()
            write_files(directory, new)
            # The connection that is there goes on; a new one would not be trusted any more.
            assert await fetch() == 31
            write_files(mine, new, "operator.gpuwaste.internal")
            assert await fetch() == 31
            files.key.write_text("half")
            assert await fetch() == 31
            files.cert.unlink()
            assert await fetch() == 31
            write_files(mine, trustme.CA(), "operator.gpuwaste.internal")
            with pytest.raises(UnreachableError, match="(?i)certificate"):
                await fetch()

    asyncio.run(fetches())


def test_useless_tls_files_are_named(journal, tmp_path):
    files = write_files(tmp_path, trustme.CA())
    files.key.write_text("no key")
    with pytest.raises(ServerError, match=r"the TLS files cannot be used .* check .*tls\.key"):
        serve(journal, files)


# --- callers that do not go away


def silent(port, count):
    """Connections that never say anything."""
    return [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(count)]


@pytest.mark.parametrize("kind", ["windows", "probes"])
def test_silent_callers_cost_their_own_connections_and_nobody_elses(secured, kind):
    """The oldest connection makes room, so that threads are bounded and a new caller is always served."""
    server, ca, _ = secured
    probes = PlainServer(("127.0.0.1", 0), metrics=lambda _: ("", b""), healthy=lambda: "", ready=lambda: "")
    probes.start("plain")
    before = threading.active_count()
    port = server.port if kind == "windows" else probes.port
    callers = silent(port, MOST_CONNECTIONS + 10)
    try:
        # Ten are cut off at once, and not after a time limit.
        deadline = time.monotonic() + 5
        while len(ended := select.select(callers, [], [], 5)[0]) < 10 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert [caller.recv(1) for caller in ended] == [b""] * 10
        if kind == "windows":
            assert ask(port, client(ca)).startswith(b"HTTP/1.1 200")
        else:
            assert get(f"http://127.0.0.1:{port}/healthz")[1] == b"ok\n"
        deadline = time.monotonic() + 5
        while threading.active_count() - before > MOST_CONNECTIONS and time.monotonic() < deadline:
            time.sleep(0.01)
        assert threading.active_count() - before <= MOST_CONNECTIONS
    finally:
        for caller in callers:
            caller.close()
        probes.stop()


# --- metrics and probes


def test_probes_say_what_is_wrong():
    problems = {"/healthz": "", "/readyz": "no reading yet"}
    server = PlainServer(
        ("127.0.0.1", 0),
        metrics=lambda accept: ("text/plain", f"got {accept}".encode()),
        healthy=lambda: problems["/healthz"],
        ready=lambda: problems["/readyz"],
    )
    server.start("plain")
    base = f"http://127.0.0.1:{server.port}"
    try:
        assert get(base + "/healthz")[1] == b"ok\n"
        assert get(base + "/metrics", accept="application/openmetrics-text")[1] == b"got application/openmetrics-text"
        with pytest.raises(urllib.error.HTTPError) as raised:
            get(base + "/readyz")
        with raised.value as error:
            assert (error.code, error.read()) == (503, b"no reading yet\n")
        assert refused(base + "/")[0] == 404
    finally:
        server.stop()
