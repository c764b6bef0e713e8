"""`gpuwaste doctor` on a real API server: as an administrator, as a guest, and with things in the way."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING

import pytest
import yaml
from click.testing import CliRunner
from tests.builders import make_node
from tests.cluster.access import kubeconfig
from tests.cluster.pytest_support import control_plane_or_skip

from gpuwaste.cli.main import cli
from gpuwaste.runtime.doctor.checks import OPERATOR_RIGHTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.access import ControlPlane

AGENT = {"app.kubernetes.io/name": "gpuwaste", "app.kubernetes.io/component": "agent"}


@pytest.fixture(scope="module")
def plane(pytestconfig: pytest.Config) -> Iterator[ControlPlane]:
    """A cluster with two GPU nodes, one of them tainted, and the agent's DaemonSet."""
    with control_plane_or_skip(pytestconfig, controllers=False) as access:
        taint = {"key": "team", "value": "ml", "effect": "NoSchedule"}
        for name, taints in (("gpu-a", []), ("gpu-b", [taint])):
            body = make_node(name).gpu(4).obj(uid=None)
            body["spec"]["taints"] = taints
            access.apply({key: value for key, value in body.items() if key != "status"})
            access.api().merge(f"/api/v1/nodes/{name}/status", {"status": {"capacity": {"nvidia.com/gpu": "4"}}})
        template = {
            "metadata": {"labels": AGENT},
            "spec": {"containers": [{"name": "agent", "image": "gpuwaste-agent:1"}]},
        }
        meta = {"name": "gpuwaste-agent", "namespace": "default", "labels": AGENT}
        spec = {"selector": {"matchLabels": AGENT}, "template": template}
        access.apply({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": meta, "spec": spec})
        yield access


def doctor(*arguments: str, code: int) -> list[dict]:
    result = CliRunner().invoke(cli, ["doctor", "-o", "json", *arguments])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def messages(found: list[dict], check: str, state: str) -> str:
    return " | ".join(one["message"] for one in found if (one["check"], one["state"]) == (check, state))


def test_an_administrator_sees_everything_and_what_is_in_the_way(plane, tmp_path):
    found = doctor("--kubeconfig", str(plane.kubeconfig), "--store", str(tmp_path / "store"), code=1)
    assert "the API server answers (v1." in messages(found, "api", "ok")
    assert "agrees" in messages(found, "clock", "ok")
    assert "rights that are needed are given" in messages(found, "rights", "ok")
    assert "no agent on gpu-b: it does not tolerate the taint team=ml:NoSchedule" in messages(found, "agents", "failed")
    assert "no agent on gpu-a: the DaemonSet has made no pod yet" in messages(found, "agents", "failed")
    assert "the custom resources are not there" in messages(found, "crds", "warning")
    assert "can be written" in messages(found, "storage", "ok")
    assert "no Prometheus was named" in messages(found, "prometheus", "info")
    assert all(one["fix"] for one in found if one["state"] in ("failed", "warning"))


def test_a_guest_is_told_right_by_right(plane, tmp_path):
    pair = plane.authority.issue("guest", common_name="guest")
    config = tmp_path / "guest"
    files = (pair.certificate, pair.key)
    config.write_text(kubeconfig(server=plane.server, certificate_authority=plane.certificate_authority, client=files))
    found = doctor("--kubeconfig", str(config), code=1)
    denied = messages(found, "rights", "failed")
    for right in ("list pods", "list nodes", "get deployments.apps", "get cronjobs.batch"):
        assert f"not allowed: {right}" in denied
    assert "nodes cannot be listed" in messages(found, "rights", "warning")


def test_the_operators_settings_name_its_rights_store_and_prometheus(plane, tmp_path):
    config = tmp_path / "settings.yaml"
    config.write_text(
        yaml.safe_dump({"store": str(tmp_path / "store"), "prometheus": {"url": "http://127.0.0.1:9", "retries": 0}})
    )
    found = doctor("--kubeconfig", str(plane.kubeconfig), "--config", str(config), code=1)
    assert f"all {len(OPERATOR_RIGHTS)} rights that are needed are given" in messages(found, "rights", "ok")
    assert "cannot be reached" in messages(found, "prometheus", "failed")
    assert "can be written" in messages(found, "storage", "ok")


def test_no_api_server_is_one_failed_check_and_the_rest_goes_on(tmp_path):
    config = tmp_path / "config"
    config.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "x",
                "clusters": [{"name": "x", "cluster": {"server": "http://127.0.0.1:9"}}],
                "users": [{"name": "x", "user": {}}],
                "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
            }
        )
    )
    found = doctor("--kubeconfig", str(config), "--store", str(tmp_path / "store"), code=1)
    assert "did not answer" in messages(found, "api", "failed")
    assert "can be written" in messages(found, "storage", "ok")
    missing = doctor("--kubeconfig", str(tmp_path / "absent"), code=1)
    assert "no such kubeconfig" in messages(missing, "api", "failed")


def test_tables_yaml_and_csv(plane):
    arguments = ["doctor", "--kubeconfig", str(plane.kubeconfig)]
    text = CliRunner().invoke(cli, arguments)
    assert text.exit_code == 1
    assert "FAILED" in text.stdout
    assert "-> " in text.stdout
    assert max(map(len, text.stdout.splitlines())) <= 100
    rows = yaml.safe_load(CliRunner().invoke(cli, [*arguments, "-o", "yaml"]).stdout)
    lines = list(csv.DictReader(io.StringIO(CliRunner().invoke(cli, [*arguments, "-o", "csv"]).stdout)))
    assert [row["message"] for row in rows] == [line["message"] for line in lines]
    assert list(lines[0]) == ["check", "state", "message", "fix"]


def test_a_store_alone_passes(tmp_path):
    found = doctor("--without-cluster", "--store", str(tmp_path), code=0)
    assert {one["state"] for one in found} == {"ok", "info"}
