"""A Prometheus that is down, slow, refuses, lies about times, or answers in part: one clear line each."""

from __future__ import annotations

import json
import re
import shutil
import ssl
import threading
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest
import trustme
from click.testing import CliRunner
from tests.cluster.prometheus import blocks_from, running_prometheus
from tests.integration.prometheus.proxy import Misbehaviour, misbehaving

from gpuwaste.cli.main import cli
from gpuwaste.ingest.prometheus.client import open_store
from gpuwaste.ingest.prometheus.store import Query
from gpuwaste.model.errors import UnreachableError
from gpuwaste.settings.prometheus import PrometheusSettings

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.prometheus.world import Day

UTIL = "DCGM_FI_DEV_GPU_UTIL"
NOW = datetime.now(UTC)
SHORT, WHOLE = NOW.hour + 3, NOW.hour + 25
"""Hours back from now that reach three hours, or all, into the day that ended at midnight."""


def scan(url: str, *more: str, hours: int = SHORT):
    arguments = ["scan", "--prometheus", url, "--without-cluster", "--hours", str(hours), "-o", "json", *more]
    return CliRunner().invoke(cli, arguments)


def refused(result, code: int) -> str:
    """The one line of a scan that ended with this code."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("gpuwaste: ")
    return line


def unseen(result) -> str:
    assert result.exit_code == 0, result.output
    return " | ".join(f"{one['what']}: {one['why']}; {one['fix']}" for one in json.loads(result.stdout)["unseen"])


def test_a_store_that_is_down():
    assert "cannot be reached" in refused(scan("http://127.0.0.1:9"), 3)


def test_a_store_that_is_slow():
    with misbehaving(Misbehaviour(delay_seconds=20)) as url:
        assert "did not answer within 0.3 s" in refused(scan(url, "--timeout", "0.3"), 3)


@pytest.mark.parametrize(
    ("status", "body", "code", "words"),
    [
        (401, b"no", 3, "refuses these credentials (401)"),
        (403, b'{"status":"error","error":"not this tenant"}', 3, "refuses these credentials (403): not this tenant"),
        (404, b"<html>not here</html>", 1, "does not speak Prometheus' query API: 404"),
        (200, b"<html>please log in</html>", 1, "its answer is no JSON"),
        (200, b'{"status":"success"}', 1, "its answer is not that of a query"),
        (
            400,
            b'{"status":"error","errorType":"bad_data","error":"parse error: unexpected"}',
            1,
            "parse error: unexpected",
        ),
    ],
)
def test_something_else_answers(status, body, code, words):
    with misbehaving(Misbehaviour(status=status, body=body)) as url:
        assert words in refused(scan(url), code)


def test_a_store_that_fails_for_a_while_is_asked_again(prometheus):
    how = Misbehaviour(target=prometheus.url, status=503, body=b"busy", failures=0)
    retried = Misbehaviour(target=prometheus.url, status=502, body=b"bad gateway", failures=2)
    for one in (how, retried):
        with misbehaving(one) as url:
            store = open_store(PrometheusSettings(url=url))
            assert store.instant(Query(template="vector(1)"), at=NOW)[0].value == 1.0
    assert len(retried.paths) == 3
    stubborn = Misbehaviour(target=prometheus.url, status=502, body=b"bad gateway")
    with misbehaving(stubborn) as url, pytest.raises(UnreachableError, match="cannot answer now"):
        open_store(PrometheusSettings(url=url, retries=1)).instant(Query(template="vector(1)"), at=NOW)
    assert len(stubborn.paths) == 2


def test_no_metric_of_dcgm_exporter():
    with running_prometheus() as empty:
        line = refused(scan(empty.url), 1)
    assert "holds no metric of dcgm-exporter" in line
    assert "install dcgm-exporter" in line


def test_an_exporter_that_ran_for_two_hours_of_the_day_is_found(tmp_path: Path):
    """It was silent now, six hours ago and a day ago."""
    stamps = [int((NOW - timedelta(minutes=n)).timestamp()) for n in range(240, 110, -1)]
    labels = 'UUID="GPU-1",gpu="0",Hostname="node-a",modelName="Tesla T4",namespace="ml",pod="web",container="main"'
    blocks_from(["".join(f"{UTIL}{{{labels}}} 50 {at}\n" for at in stamps), "# EOF\n"], tmp_path / "blocks")
    with running_prometheus(data=tmp_path / "blocks") as running:
        result = scan(running.url, hours=12)
    assert re.search(r"its newest reading of a GPU is about 1\d\d minutes old", unseen(result))
    (row,) = json.loads(result.stdout)["workloads"]
    assert float(row["held_gpu_hours"]) > 1


def test_a_clock_that_is_wrong_is_said_and_nothing_is_written(prometheus, tmp_path):
    with misbehaving(Misbehaviour(target=prometheus.url, skew_seconds=-300)) as url:
        assert "its clock is 300 s behind this machine's" in unseen(scan(url)).replace("299", "300").replace(
            "301", "300"
        )
        kept = tmp_path / "ledger"
        line = refused(scan(url, "--ledger", str(kept)), 1)
    assert "nothing was written" in line
    assert not kept.exists()


def test_samples_of_the_future_are_said(day: Day, tmp_path: Path):
    """An exporter or a scraper whose clock is an hour ahead."""
    ahead = NOW + timedelta(hours=1)
    stamps = [int((ahead - timedelta(minutes=n)).timestamp()) for n in range(180, -1, -1)]
    labels = 'UUID="GPU-1",gpu="0",Hostname="node-a",modelName="Tesla T4",namespace="ml",pod="web",container="main"'
    lines = ["".join(f"{UTIL}{{{labels}}} 50 {at}\n" for at in stamps), "# EOF\n"]
    blocks_from(lines, tmp_path / "blocks")
    with running_prometheus(data=tmp_path / "blocks") as running:
        result = scan(running.url)
        assert "samples of the future" in unseen(result)
        refused(scan(running.url, "--ledger", str(tmp_path / "ledger")), 1)


def test_missing_kube_state_metrics_and_profiling_fields_are_said(tmp_path: Path):
    stamps = [int((NOW - timedelta(minutes=n)).timestamp()) for n in range(600, 0, -1)]
    labels = 'UUID="GPU-1",gpu="0",Hostname="node-a",modelName="Tesla T4",namespace="ml",pod="web",container="main"'
    lines = ["".join(f"{UTIL}{{{labels}}} 50 {at}\n" for at in stamps), "# EOF\n"]
    blocks_from(lines, tmp_path / "blocks")
    with running_prometheus(data=tmp_path / "blocks") as running:
        result = scan(running.url, hours=12)
    text = unseen(result)
    assert "no metric of kube-state-metrics" in text
    assert "DCGM_FI_PROF_SM_ACTIVE is not exported" in text
    (row,) = json.loads(result.stdout)["workloads"]
    assert (row["namespace"], row["workload_kind"], row["workload_name"]) == ("ml", "Pod", "web")
    assert float(row["effective_gpu_hours"]) == pytest.approx(float(row["held_gpu_hours"]) / 2, rel=0.01)


@pytest.mark.parametrize(
    ("flavour", "change", "words"),
    [
        (
            "thanos",
            lambda body: body.rstrip().removesuffix(b"}") + b',"warnings":["store 10.0.0.7:10901 is unavailable"]}',
            "store 10.0.0.7:10901 is unavailable",
        ),
        (
            "victoriametrics",
            lambda body: body.replace(b'{"status":"success",', b'{"status":"success","isPartial":true,', 1),
            "the answer is partial",
        ),
    ],
)
def test_partial_answers_are_said_and_never_stored(prometheus, flavour, change, words, tmp_path):
    with misbehaving(Misbehaviour(target=prometheus.url, change=change)) as url:
        assert words in unseen(scan(url, "--flavour", flavour))
        line = refused(scan(url, "--flavour", flavour, "--ledger", str(tmp_path / "ledger")), 3)
    assert "can answer in part only, of which nothing is stored" in line
    assert not (tmp_path / "ledger").exists()


@pytest.mark.parametrize(
    ("flavour", "status", "error"),
    [
        ("thanos", 422, "expanding series: proxy Series(): rpc error: code = Aborted desc = fetch series for store"),
        ("victoriametrics", 503, "cannot return partial response, since 1 of 2 vmstorage nodes are unavailable"),
    ],
)
def test_a_store_that_would_answer_in_part_is_asked_not_to(flavour, status, error):
    body = json.dumps({"status": "error", "error": error}).encode()
    how = Misbehaviour(status=status, body=body)
    with misbehaving(how) as url:
        store = open_store(PrometheusSettings(url=url, flavour=flavour, retries=0), whole=True)
        with pytest.raises(UnreachableError, match="can answer in part only"):
            store.instant(Query(template="vector(1)"), at=NOW)
    asked = {"thanos": "partial_response=false", "victoriametrics": "deny_partial_response=1"}
    assert asked[flavour] in how.paths[0]


def test_warnings_that_tell_of_no_lack_stop_nothing(prometheus):
    """Annotations of PromQL, and Thanos of a time of which no store has data."""
    for flavour, text in (("prometheus", "PromQL info: might not be a counter"), ("thanos", "No StoreAPIs matched")):
        more = f',"warnings":["{text}"]}}'.encode()

        def warned(body: bytes, more: bytes = more) -> bytes:
            return body.rstrip().removesuffix(b"}") + more

        how = Misbehaviour(target=prometheus.url, change=warned)
        with misbehaving(how) as url:
            store = open_store(PrometheusSettings(url=url, flavour=flavour), whole=True)
            assert store.instant(Query(template="vector(1)"), at=NOW)[0].value == 1.0
            assert text in store.warnings[0]


def test_queries_that_are_too_large_are_divided_and_say_the_same(day: Day, prometheus, tmp_path: Path):
    """The same store with a limit below what one query reads."""
    whole = json.loads(scan(prometheus.url, hours=WHOLE).stdout)
    left_out = shutil.ignore_patterns("lock", "queries.active")
    shutil.copytree(prometheus.folder / "data", tmp_path / "data", ignore=left_out)
    with running_prometheus(data=tmp_path / "data", flags=["--query.max-samples=40000"]) as limited:
        window = f"start={day.start.timestamp():.0f}&end={day.end.timestamp():.0f}&step=60"
        with pytest.raises(urllib.error.HTTPError, match="422"):
            urllib.request.urlopen(f"{limited.url}/api/v1/query_range?query={UTIL}&{window}", timeout=30)  # noqa: S310
        result = scan(limited.url, hours=WHOLE)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["teams"] == whole["teams"]


def test_credentials_tenant_and_matchers_are_sent(prometheus, tmp_path: Path):
    token = tmp_path / "token"
    token.write_text("secret\n")
    how = Misbehaviour(target=prometheus.url)
    with misbehaving(how) as url:
        settings = PrometheusSettings(
            url=url, flavour="thanos", bearer_token_file=token, tenant="team-a", match='{job="dcgm"}'
        )
        store = open_store(settings)
        assert store.instant(Query(template=f"count({UTIL}{{$selector}})"), at=NOW - timedelta(hours=20)) is not None
        assert (how.headers["Authorization"], how.headers["X-Scope-OrgID"]) == ("Bearer secret", "team-a")
        assert "job%3D%22dcgm%22" in how.paths[-1]
        assert "max_source_resolution=5m" in how.paths[-1]
        open_store(
            PrometheusSettings(url=url, username="me", password_file=token, flavour="victoriametrics", tenant="7")
        )._client.url.endswith("/select/7/prometheus")
        basic = open_store(PrometheusSettings(url=url, username="me", password_file=token))
        basic.instant(Query(template="vector(1)"), at=NOW)
        assert how.headers["Authorization"].startswith("Basic ")
    assert open_store(PrometheusSettings(url="http://mimir", flavour="mimir"))._client.url == "http://mimir/prometheus"


def test_mutual_tls(tmp_path: Path):
    """A server that wants a client certificate gets it, and refuses whoever has none."""
    authority = trustme.CA()
    server_pair, client_pair = authority.issue_cert("127.0.0.1"), authority.issue_cert("client@test")
    for name, blob in (
        ("ca.pem", authority.cert_pem),
        ("client.pem", client_pair.cert_chain_pems[0]),
        ("client.key", client_pair.private_key_pem),
    ):
        blob.write_to_path(str(tmp_path / name))

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            body = b'{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"1"]}]}}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    class Quiet(HTTPServer):
        def handle_error(self, *_):
            pass

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_pair.configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    with Quiet(("127.0.0.1", 0), Answer) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"https://127.0.0.1:{server.server_address[1]}"
        ca = tmp_path / "ca.pem"
        good = PrometheusSettings(
            url=url, ca=ca, certificate=tmp_path / "client.pem", key=tmp_path / "client.key", retries=0
        )
        assert open_store(good).instant(Query(template="vector(1)"), at=NOW)[0].value == 1.0
        for bad in (PrometheusSettings(url=url, ca=ca, retries=0), PrometheusSettings(url=url, retries=0)):
            with pytest.raises(UnreachableError):
                open_store(bad).instant(Query(template="vector(1)"), at=NOW)
        server.shutdown()
