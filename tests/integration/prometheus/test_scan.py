"""`gpuwaste scan` against a real API server and a real Prometheus, with many rights, few and none."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow.compute as pc
import pytest
import yaml
from click.testing import CliRunner
from tests.cluster.access import kubeconfig
from tests.cluster.errors import MissingToolsError
from tests.cluster.prometheus import running_prometheus
from tests.cluster.pytest_support import control_plane_or_skip, skip_or_fail
from tests.integration.prometheus.server_objects import put_on_server
from tests.integration.prometheus.world import facts_of, ledger_of, make_day
from tests.sim.exporters import ExporterStyle

from gpuwaste.cli.main import cli
from gpuwaste.cluster.files import load_objects
from gpuwaste.model.units import NS_PER_HOUR, format_time, hour_start
from gpuwaste.waste.figures import summarise

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cluster.access import ControlPlane
    from tests.integration.prometheus.world import Day


@pytest.fixture(scope="module")
def plane(pytestconfig: pytest.Config) -> Iterator[ControlPlane]:
    """A control plane of its own: a scan looks at all of a cluster."""
    with control_plane_or_skip(pytestconfig, controllers=False) as access:
        yield access


END = hour_start(datetime.now(UTC) - timedelta(minutes=5))
"""Of the day that is scanned. Scans are told so: the next hour may begin before the last of them."""
UNTIL = ("--until", format_time(END))


@pytest.fixture(scope="module")
def scanned(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Day:
    try:
        return make_day(
            tmp_path_factory.mktemp("scanned"),
            nodes=4,
            seed=3,
            style=ExporterStyle(honor_labels=True, host="hostname"),
            end=END,
            changed=lambda objects: put_on_server(plane.kubeconfig, objects),
        )
    except MissingToolsError as error:
        skip_or_fail(str(error))


@pytest.fixture(scope="module")
def url(scanned: Day) -> Iterator[str]:
    with running_prometheus(data=scanned.blocks) as running:
        yield running.url


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(cli, list(arguments))
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.output


def guest(plane: ControlPlane, tmp_path: Path, name: str) -> Path:
    """A kubeconfig of somebody with no rights but those that are bound to the name."""
    pair = plane.authority.issue(name, common_name=name)
    path = tmp_path / f"{name}.kubeconfig"
    text = kubeconfig(
        server=plane.server,
        certificate_authority=plane.certificate_authority,
        client=(pair.certificate, pair.key),
    )
    path.write_text(text)
    return path


def scan(plane: ControlPlane, url: str, *more: str, config: Path | None = None) -> dict:
    arguments = (
        "scan",
        "--prometheus",
        url,
        "--kubeconfig",
        str(config or plane.kubeconfig),
        *UNTIL,
        "-o",
        "json",
        *more,
    )
    return json.loads(run(*arguments))


def held_hours(document: dict) -> dict:
    return {
        (row["namespace"], row["workload_kind"], row["workload_name"]): float(row["held_gpu_hours"])
        for row in document["workloads"]
    }


@pytest.fixture(scope="module")
def whole(plane: ControlPlane, url: str, scanned: Day) -> dict:
    del scanned
    return scan(plane, url)


def test_a_scan_says_what_the_agents_would(whole, scanned, tmp_path):
    # The agents saw the UIDs of the simulation, the API server has its own.
    simulated = facts_of(load_objects(scanned.journals / "objects.jsonl"))
    agents = ledger_of(tmp_path, scanned.agents_windows(), simulated)
    holders = pc.and_(pc.equal(agents["row_kind"], "holder"), pc.equal(agents["resource"], "gpu"))
    truth = summarise(agents.filter(holders), ("namespace", "workload_name"))
    assert (whole["from"], whole["to"], whole["hours"]) == (format_time(scanned.start), format_time(scanned.end), 24)
    assert whole["gpus"] == sum(len(node.gpus) for node in scanned.cluster.scenario.nodes)
    shown = {(row["namespace"], row["workload_name"]): row for row in whole["workloads"]}
    gpu = {key for key, figures in truth.items() if figures["held"]}
    assert set(shown) == gpu
    for key in gpu:
        held = truth[key]["held"] / NS_PER_HOUR
        assert float(shown[key]["held_gpu_hours"]) == pytest.approx(held, rel=0.01)
    assert {row["workload_kind"] for row in whole["workloads"]} >= {"Deployment", "StatefulSet", "Job"}


def test_it_names_three_findings_a_saving_and_everything_it_could_not_see(whole):
    assert len(whole["findings"]) == 3
    costs = [float(one["waste_cost"]) for one in whole["findings"] if one["waste_cost"]]
    assert costs == sorted(costs, reverse=True)
    assert float(whole["saving"]["gpus"]) > 0
    assert float(whole["saving"]["per_month"]["USD"]) > 0
    assert not [one for one in whole["unseen"] if "list" in one["what"]]
    assert all(one["what"] and one["why"] and one["fix"] for one in whole["unseen"])


def test_the_rights_of_view_do_and_what_they_lack_is_said(plane, url, whole, tmp_path):
    """The built-in `view` has no nodes: kube-state-metrics tells of them, and that they are missing is said."""
    config = guest(plane, tmp_path, "viewer")
    plane.kubectl("create", "clusterrolebinding", "viewer", "--clusterrole=view", "--user=viewer")
    found = scan(plane, url, config=config)
    (refused,) = [one for one in found["unseen"] if "lists" in one["what"]]
    assert "nodes" in refused["what"]
    assert "ClusterRole" in refused["fix"]
    assert held_hours(found) == pytest.approx(held_hours(whole), rel=1e-6)


def test_one_namespace_is_enough_to_begin_with(plane, url, whole, tmp_path, scanned):
    namespace = whole["workloads"][0]["namespace"]
    config = guest(plane, tmp_path, "tenant")
    plane.kubectl("create", "rolebinding", "tenant", "--clusterrole=view", "--user=tenant", "-n", namespace)
    found = scan(plane, url, "--namespace", namespace, config=config)
    (refused,) = [one["what"] for one in found["unseen"] if "lists" in one["what"]]
    assert "nodes" in refused
    assert "namespaces" in refused
    mine = {key: hours for key, hours in held_hours(whole).items() if key[0] == namespace}
    assert {key: hours for key, hours in held_hours(found).items() if key[0] == namespace} == pytest.approx(mine)


def test_without_any_rights_kube_state_metrics_tells(plane, url, whole, tmp_path):
    found = scan(plane, url, config=guest(plane, tmp_path, "nobody"))
    assert held_hours(found) == pytest.approx(held_hours(whole), rel=0.01)


def test_without_a_cluster_kube_state_metrics_tells(url, whole):
    found = json.loads(run("scan", "--prometheus", url, "--without-cluster", *UNTIL, "-o", "json"))
    assert held_hours(found) == pytest.approx(held_hours(whole), rel=0.01)


def test_what_is_kept_is_a_ledger_like_any_other_beside_those_of_other_clusters(plane, url, scanned, tmp_path):
    kept, again = tmp_path / "kept", tmp_path / "again"
    arguments = ("--cluster", "kept", "--ledger", str(kept))
    first = scan(plane, url, *arguments)
    files = {path.relative_to(kept): path.read_bytes() for path in kept.rglob("*") if path.is_file()}
    assert scan(plane, url, *arguments) == first
    assert {path.relative_to(kept): path.read_bytes() for path in kept.rglob("*") if path.is_file()} == files
    run("ledger", "verify", "--ledger", str(kept), "--inputs", str(kept))
    run("replay", "--inputs", str(kept), "--ledger", str(again))
    for name, data in files.items():
        if name.parts[0] == "ledger":
            assert (again / name.relative_to("ledger")).read_bytes() == data
    rows = json.loads(run("report", "--ledger", str(kept), "--by", "team", "-o", "json"))
    assert {row["team"] for row in rows} == {row["team"] for row in first["teams"]}
    scan(plane, url, "--cluster", "other", "--ledger", str(kept))
    rows = json.loads(run("report", "--ledger", str(kept), "--by", "cluster", "-o", "json"))
    assert {(row["cluster"], row["owned_gpu_hours"]) for row in rows} == {
        (name, rows[0]["owned_gpu_hours"]) for name in ("kept", "other")
    }
    assert {row["cluster"] for row in json.loads(run("top", "--ledger", str(kept), "-o", "json"))} == {"kept", "other"}


def test_people_tables_csv_yaml_and_the_page(plane, url, whole, tmp_path):
    page = tmp_path / "scan.html"
    common = ("scan", "--prometheus", url, "--kubeconfig", str(plane.kubeconfig), *UNTIL)
    text = run(*common, "--html", str(page))
    assert max(map(len, text.splitlines())) <= 100
    for words in ("Waste by team", "Dearest workloads", "three dearest findings", "Saving:", "could not be seen"):
        assert words in text
    html = page.read_text()
    assert "Dearest findings" in html
    assert "What could not be seen" in html
    lines = run(*common, "-o", "csv").splitlines()
    assert lines[0].startswith("team,cluster,namespace,workload_kind,workload_name,")
    assert len(lines) == len(whole["workloads"]) + 1
    assert yaml.safe_load(run(*common, "-o", "yaml"))["teams"] == whole["teams"]


def test_a_time_of_the_past_is_scanned(url, scanned, whole):
    """Half the day, in whose second half nothing is looked at."""
    noon = scanned.start + (scanned.end - scanned.start) / 2
    command = ("scan", "--prometheus", url, "--without-cluster", "-o", "json", "--until")
    found = json.loads(run(*command, format_time(noon + timedelta(minutes=7)), "--hours", "12"))
    assert (found["from"], found["to"], found["hours"]) == (format_time(scanned.start), format_time(noon), 12)
    assert 0 < sum(held_hours(found).values()) < sum(held_hours(whole).values())
    assert not [one for one in found["unseen"] if "minutes old" in one["why"]]
    nothing = run(*command, format_time(scanned.start), "--hours", "3", code=1)
    assert f"holds no metric of dcgm-exporter (DCGM_FI_…) of the day before {format_time(scanned.start)}" in nothing
    assert "is not over yet" in run(*command, "2999-01-01T00:00:00Z", code=2)
