"""The receiver over real TLS: who may hand over, what is refused, and that a refusal is read and leaves nothing."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import ssl
import threading
import time

import pytest
import trustme
from tests.unit.runtime.test_intake import batch_of, opened
from tests.unit.runtime.test_puller import journal_of, stored

from gpuwaste.runtime import receiver as module
from gpuwaste.runtime.intake import Intake
from gpuwaste.runtime.metrics import OperatorMetrics
from gpuwaste.runtime.receiver import MAX_BODY_BYTES, Receiver, WindowsReceiver
from gpuwaste.settings.operator import AgentTls
from gpuwaste_agent.journal import Journal
from gpuwaste_agent.leaving import Handover, hand_over
from gpuwaste_agent.server import Identity, TlsFiles
from gpuwaste_agent.wire.usage_pb2 import Device, Record

AGENT = "agent.gpuwaste.internal"
NS = 1_000_000_000


def write_certificate(folder, authority, name, *identities):
    issued = authority.issue_cert(*identities)
    (folder / f"{name}.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(folder / f"{name}.key")
    authority.cert_pem.write_to_path(folder / "ca.pem")


class Desk:
    """A receiver over a folder, and callers with certificates of its CA."""

    def __init__(self, folder):
        self.folder, self.ca = folder, trustme.CA()
        write_certificate(folder, self.ca, "operator", "127.0.0.1")
        self.metrics = OperatorMetrics()
        self.inputs = opened(folder / "store")
        tls = AgentTls(ca=folder / "ca.pem", certificate=folder / "operator.pem", key=folder / "operator.key")
        self.server = WindowsReceiver(
            ("127.0.0.1", 0), intake=Intake(inputs=self.inputs), tls=tls, metrics=self.metrics
        )
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def context(self, *names, ca=None):
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        if names:
            (ca or self.ca).issue_cert(*names).configure_cert(context)
        return context

    def ask(self, body, *, method="POST", path="/v1/windows", context=None, headers=None):
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.server.port, timeout=20, context=context or self.context(AGENT)
        )
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()


@pytest.fixture
def desk(tmp_path):
    desk = Desk(tmp_path)
    yield desk
    desk.server.shutdown()
    desk.server.server_close()


def test_a_batch_is_durable_before_the_answer_and_a_second_time_changes_nothing(desk):
    body = batch_of(journal_of(90), 1, 90)
    assert desk.ask(body) == (200, {"stored": 90, "after": 90})
    assert sorted(stored(opened(desk.folder / "store"))) == list(range(1, 91))
    assert desk.ask(body) == (200, {"stored": 0, "after": 90})
    assert desk.metrics.received._value.get() == 90


@pytest.mark.parametrize(
    ("change", "status", "text"),
    [
        ({"path": "/v1/other"}, 404, "there is /v1/windows"),
        ({"method": "GET"}, 405, "only POST"),
        ({"body": b"\xff\xff"}, 400, "no usage batch"),
        ({"body": b""}, 400, "names no journal"),
        ({"headers": {"Gpuwaste-After": "x"}}, 400, "`Gpuwaste-After` must be"),
        ({"headers": {"Transfer-Encoding": "chunked"}}, 411, "`Content-Length`"),
        ({"body": bytes(MAX_BODY_BYTES + 1)}, 413, f"at most {MAX_BODY_BYTES}"),
        ({"body": batch_of(journal_of(9), 5, 9)}, 409, "send what comes after 0"),
    ],
)
def test_what_is_refused_says_why_and_leaves_nothing(desk, change, status, text):
    given = {"body": batch_of(journal_of(3), 1, 3)} | change
    answer = desk.ask(given.pop("body"), **given)
    assert answer[0] == status
    assert text in answer[1]["error"]
    assert list((desk.folder / "store").rglob("*.parquet")) == []


def test_a_bad_record_is_named(desk):
    journal = journal_of(5)
    journal.batch.records[3].window_ns = 7
    status, answer = desk.ask(batch_of(journal, 1, 5))
    assert status == 400
    assert "agent 127.0.0.1: record 4: field `window_start_unix_ns`" in answer["error"]
    assert desk.metrics.refused_batches._value.get() == 1


def test_only_agents_of_the_release_may_hand_over(desk):
    body = batch_of(journal_of(3), 1, 3)
    status, answer = desk.ask(body, context=desk.context("operator.gpuwaste.internal"))
    assert (status, AGENT in answer["error"]) == (403, True)
    for stranger in (desk.context(), desk.context(AGENT, ca=trustme.CA())):
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
            desk.ask(body, context=stranger)
    with socket.create_connection(("127.0.0.1", desk.server.port), timeout=5) as plain:
        plain.sendall(b"POST /v1/windows HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            assert not plain.recv(100).startswith(b"HTTP")
    assert desk.inputs.hours() == []


def test_rotated_certificates_are_used(desk):
    old, desk.ca = desk.context(AGENT), trustme.CA()
    write_certificate(desk.folder, desk.ca, "operator", "127.0.0.1")
    body = batch_of(journal_of(3), 1, 3)
    assert desk.ask(body)[0] == 200
    with pytest.raises((ssl.SSLError, ConnectionError)):
        desk.ask(body, context=old)


def test_a_body_that_drips_or_ends_early_is_given_up_and_holds_up_nobody(desk, monkeypatch):
    monkeypatch.setattr(module, "_BODY_SECONDS", 1.0)
    with (
        socket.create_connection(("127.0.0.1", desk.server.port), timeout=10) as raw,
        desk.context(AGENT).wrap_socket(raw, server_hostname="127.0.0.1") as slow,
    ):
        slow.sendall(b"POST /v1/windows HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        began = time.monotonic()
        assert desk.ask(batch_of(journal_of(3), 1, 3))[0] == 200
        while time.monotonic() - began < 1.3:
            slow.sendall(b"x")
            time.sleep(0.1)
        slow.settimeout(10)
        assert b" 408 " in slow.recv(4096).split(b"\r\n")[0]


def test_an_agent_goes_back_to_what_the_operator_misses(desk):
    """Somebody else has fetched the first records; the operator never saw this journal."""
    write_certificate(desk.folder, desk.ca, "agent", AGENT)
    files = TlsFiles(cert=desk.folder / "agent.pem", key=desk.folder / "agent.key", ca=desk.folder / "ca.pem")
    journal = Journal(desk.folder / "journal")
    device = Device(gpu_uuid="g", parent_id="g", weight_num=1, weight_den=1, replicas=1)
    for second in range(60):
        journal.append([Record(window_start_unix_ns=(1_800_000_000 + second) * NS, window_ns=NS, device=device)])
    journal.sync()
    url = f"https://127.0.0.1:{desk.server.port}/v1/windows"
    hand_over(Handover(method="POST", url=url, tls=files), journal, Identity(node="n"), after=50)
    journal.close()
    assert sorted(stored(desk.inputs)) == list(range(1, 61))


def test_a_port_that_is_taken_is_tried_again(desk, monkeypatch, caplog):
    monkeypatch.setattr(module, "_BIND_AGAIN_SECONDS", 0.05)
    caplog.set_level("INFO", logger="gpuwaste.runtime.receiver")
    tls = AgentTls(
        ca=desk.folder / "ca.pem", certificate=desk.folder / "operator.pem", key=desk.folder / "operator.key"
    )
    with socket.create_server(("0.0.0.0", 0)) as holder:
        port = holder.getsockname()[1]
        receiver = Receiver(intake=Intake(inputs=desk.inputs), tls=tls, port=port, metrics=desk.metrics)

        def said(text):
            while text not in caplog.text:
                time.sleep(0.02)

        async def story():
            running = asyncio.create_task(receiver.run())
            await asyncio.to_thread(said, "cannot hand over")
            holder.close()
            await asyncio.to_thread(said, "may hand over")
            running.cancel()

        asyncio.run(asyncio.wait_for(story(), 10))
    assert caplog.text.count("cannot hand over") == 1


def test_an_hour_that_is_read_and_joined_meanwhile_loses_nothing(desk):
    """The loop joins the files of an hour while agents hand over into it."""
    journals = [journal_of(30, node=f"node-{number}") for number in range(40)]
    threads = [
        threading.Thread(target=desk.ask, args=(batch_of(journal, 1, 30),), daemon=True) for journal in journals[:20]
    ]
    for thread in threads:
        thread.start()
    for journal in journals[20:]:
        desk.inputs.append_windows(journal.table())
        for hour in desk.inputs.hours():
            desk.inputs.load(hour)
    for thread in threads:
        thread.join()
    assert sorted(stored(desk.inputs)) == sorted(list(range(1, 31)) * 40)
    assert all(opened(desk.folder / "store").ranges.cursor(journal.batch.journal_id) == 30 for journal in journals)
