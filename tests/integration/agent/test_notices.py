"""Notices that a spot node is taken away: the metadata services of three clouds, and what the agent does then.

The services are stand-ins on loopback that answer as the clouds document it.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from tests.integration.agent.real_node import start

from gpuwaste_agent.notices import NoticeError, NoticeSource, NoticeWatcher, ask_notice
from gpuwaste_agent.wire.usage_pb2 import Batch


class Service:
    """Answers by path; keeps what was asked with which headers, and what was PUT."""

    def __init__(self):
        self.answers: dict[str, tuple[int, str]] = {}
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.bodies: list[bytes] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args):
                """Silent."""

            def answer(self):
                service.asked.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
                service.bodies.append(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
                status, text = service.answers.get(f"{self.command} {self.path}", (404, "not found"))
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            do_GET = do_PUT = answer  # noqa: N815 - the names are the base class's

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def service():
    made = Service()
    yield made
    made.close()


ACTION = "GET /latest/meta-data/spot/instance-action"
EVENTS = "GET /metadata/scheduledevents?api-version=2020-07-01"
NAME = "GET /metadata/instance/compute/name?api-version=2021-02-01&format=text"


def test_aws_with_a_session_token(service):
    source = NoticeSource(cloud="aws", url=service.url)
    service.answers["PUT /latest/api/token"] = (200, "secret")
    assert ask_notice(source) == ""
    service.answers[ACTION] = (200, json.dumps({"action": "terminate", "time": "2026-01-01T00:02:00Z"}))
    assert ask_notice(source) == "terminate at 2026-01-01T00:02:00Z"
    assert service.asked[-1][2]["x-aws-ec2-metadata-token"] == "secret"


def test_aws_without_session_tokens(service):
    service.answers["PUT /latest/api/token"] = (403, "")
    service.answers[ACTION] = (200, json.dumps({"action": "stop", "time": "2026-01-01T00:02:00Z"}))
    assert ask_notice(NoticeSource(cloud="aws", url=service.url)).startswith("stop at")


def test_google(service):
    source = NoticeSource(cloud="gcp", url=service.url)
    service.answers["GET /computeMetadata/v1/instance/preempted"] = (200, "FALSE\n")
    assert ask_notice(source) == ""
    service.answers["GET /computeMetadata/v1/instance/preempted"] = (200, "TRUE")
    assert ask_notice(source) == "preempted"
    assert service.asked[-1][2]["metadata-flavor"] == "Google"


@pytest.mark.parametrize(
    ("events", "notice"),
    [
        ([], ""),
        ([{"EventType": "Freeze", "Resources": ["gpu_0"]}], ""),
        ([{"EventType": "Preempt", "Resources": ["gpu_7"], "NotBefore": "soon"}], ""),
        ([{"EventType": "Preempt", "Resources": ["gpu_0"], "NotBefore": "Mon, 19 Sep 2026 18:29:47 GMT"}],
         "preempt at Mon, 19 Sep 2026 18:29:47 GMT"),
        ([{"EventType": "Terminate", "Resources": ["gpu_7", "gpu_0"], "NotBefore": ""}], "terminate at any moment"),
    ],
)  # fmt: skip
def test_azure_tells_of_this_machine_alone(service, events, notice):
    service.answers[EVENTS] = (200, json.dumps({"DocumentIncarnation": 1, "Events": events}))
    service.answers[NAME] = (200, "gpu_0")
    assert ask_notice(NoticeSource(cloud="azure", url=service.url)) == notice
    assert all(headers["metadata"] == "true" for _, _, headers in service.asked)


@pytest.mark.parametrize(
    ("cloud", "path", "answer", "text"),
    [
        ("gcp", "GET /computeMetadata/v1/instance/preempted", (403, ""), "answers 403: is it one of gcp"),
        ("azure", EVENTS, (200, "[]"), "answers something else"),
        ("azure", EVENTS, (200, "<html>"), "answers something else"),
        ("aws", ACTION, (200, "{}"), "answers something else"),
        ("aws", ACTION, (500, ""), "answers 500"),
    ],
)
def test_other_answers_are_named(service, cloud, path, answer, text):
    service.answers[path] = answer
    with pytest.raises(NoticeError, match=text):
        ask_notice(NoticeSource(cloud=cloud, url=service.url))


def test_a_silent_service_is_a_problem_and_a_notice_stays():
    said = iter(["", "terminate", NoticeError("gone"), ""])

    def ask() -> str:
        answer = next(said)
        if isinstance(answer, Exception):
            raise answer
        return answer

    watcher = NoticeWatcher(ask)
    states = []
    for _ in range(4):
        watcher.look()
        states.append((watcher.notice, watcher.problem))
    assert states == [("", ""), ("terminate", ""), ("terminate", "gone"), ("terminate", "")]
    with pytest.raises(NoticeError, match="does not answer"):
        ask_notice(NoticeSource(cloud="gcp", url="http://127.0.0.1:9"))


def puts(service) -> list[Batch]:
    bodies = [
        body for (method, path, _), body in zip(service.asked, service.bodies, strict=False) if path == "/put?sig=x"
    ]
    return [Batch.FromString(body) for body in bodies]


def until(check, seconds: float):
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return found


def test_a_notice_makes_the_agent_hand_over_at_once_and_go_on(node, service):
    flags, environment, *rest = node
    service.answers["PUT /put?sig=x"] = (200, "")
    more = ["--spot-notice", f"aws={service.url}", "--flush-put", f"{service.url}/put?sig=x", "--window", "60"]
    agent = start(([*flags, *more], environment, *rest))
    try:
        until(lambda: any(path.endswith("instance-action") for _, path, _ in service.asked), 10)
        assert puts(service) == []
        time.sleep(1)
        service.answers[ACTION] = (200, json.dumps({"action": "terminate", "time": "2026-01-01T00:02:00Z"}))
        (first,) = until(lambda: puts(service), 8)
        assert agent.poll() is None
        # The open minute, as far as it went.
        usages = [record.usage for record in first.records if record.WhichOneof("body") == "usage"]
        assert {usage.pod for usage in usages} >= {"busy", "light", "mig"}
        assert all(0 < usage.held_ns < 60e9 for usage in usages if usage.pod == "busy")
        time.sleep(1)
        agent.send_signal(signal.SIGTERM)
        _, errors = agent.communicate(timeout=15)
    finally:
        agent.kill()
        agent.communicate()
    assert agent.returncode == 0
    assert "this node is taken away: terminate at 2026-01-01T00:02:00Z" in errors
    last = puts(service)[-1]
    assert last.records[0].seq == 1, "the last one carries everything"
    assert len(last.records) > len(first.records)
    held = sum(r.usage.held_ns for r in last.records if r.usage.pod == "busy")
    assert held > sum(usage.held_ns for usage in usages if usage.pod == "busy")
