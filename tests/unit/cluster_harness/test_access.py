"""Kubeconfigs, environments, and what happens where the harness cannot run."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
import yaml
from tests.cluster.access import ControlPlane, kubeconfig
from tests.cluster.certificates import Authority
from tests.cluster.pytest_support import no_other_cluster, skip_or_fail


@pytest.fixture
def access(tmp_path: Path) -> ControlPlane:
    return ControlPlane(
        folder=tmp_path,
        kubeconfig=tmp_path / "kubeconfig",
        server="https://127.0.0.1:1",
        token="t",
        authority=Authority(tmp_path / "certificates"),
        kubectl_program=Path("/bin/echo"),
        helm_program=Path("/bin/echo"),
    )


def test_kubeconfig_holds_all_it_needs(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "own")
    pair = authority.issue("node", common_name="system:node:a", group="system:nodes")
    client = (pair.certificate, pair.key)
    by_certificate = yaml.safe_load(
        kubeconfig(server="https://x:1", certificate_authority=authority.certificate, client=client)
    )
    user = by_certificate["users"][0]["user"]
    assert base64.b64decode(user["client-key-data"]) == pair.key.read_bytes()
    assert base64.b64decode(user["client-certificate-data"]) == pair.certificate.read_bytes()
    by_token = json.loads(kubeconfig(server="https://x:1", certificate_authority=authority.certificate, token="secret"))
    assert by_token["users"][0]["user"] == {"token": "secret"}
    assert by_token["clusters"][0]["cluster"]["server"] == "https://x:1"
    assert pair.key.stat().st_mode & 0o077 == 0


def test_the_environment_names_this_cluster_only(access: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/elsewhere")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "elsewhere")
    monkeypatch.setenv("HELM_KUBEAPISERVER", "https://elsewhere")
    environment = access.environment()
    assert environment["KUBECONFIG"] == str(access.kubeconfig)
    assert "elsewhere" not in "".join(environment.values())


def test_flags_after_a_double_dash_belong_to_the_program_in_the_pod(access: ControlPlane) -> None:
    assert access.kubectl("exec", "p", "--", "curl", "-s", "x") == "exec p -- curl -s x\n"


def test_no_other_cluster_hides_what_the_user_has(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("KUBECONFIG", "/elsewhere")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "elsewhere")
    with no_other_cluster():
        assert os.environ["KUBECONFIG"] == os.devnull
        assert "KUBERNETES_SERVICE_HOST" not in os.environ
    assert os.environ["KUBECONFIG"] == "/elsewhere"


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        ("true", pytest.fail.Exception),
        ("1", pytest.fail.Exception),
        ("", pytest.skip.Exception),
        (None, pytest.skip.Exception),
    ],
    ids=str,
)
def test_missing_tools_skip_or_fail(
    value: str | None, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    if value is not None:
        monkeypatch.setenv("CI", value)
    with pytest.raises(outcome, match="install Go"):
        skip_or_fail("install Go")
