"""The harness: a control plane that answers, and that is gone when it is stopped, however that happens."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.cluster import ports
from tests.cluster.control_plane import running_control_plane
from tests.cluster.errors import ClusterError
from tests.cluster.folders import sweep
from tests.cluster.programs import KUBERNETES_VERSION, find_binaries

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cluster.access import ControlPlane

_ROOT = Path(__file__).parents[2]


def processes_of(folder: Path) -> list[str]:
    """Command lines of the running processes that name `folder`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it ended meanwhile
            continue
        if str(folder) in line:
            found.append(line)
    return found


def eventually(question: Callable[[], bool], *, deadline_seconds: float = 20.0) -> bool:
    """Whether the answer turns True in time."""
    deadline = time.monotonic() + deadline_seconds
    while not (answer := question()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return answer


def test_api_server_answers_in_the_pinned_version(control_plane: ControlPlane) -> None:
    assert control_plane.kubectl("get", "--raw", "/readyz") == "ok"
    versions = json.loads(control_plane.kubectl("version", "-o", "json"))
    if not os.environ.get("KUBEBUILDER_ASSETS"):
        assert versions["serverVersion"]["gitVersion"] == KUBERNETES_VERSION
    assert versions["clientVersion"]["gitVersion"].startswith("v1.")


def test_access_is_refused_without_the_token(control_plane: ControlPlane) -> None:
    config = json.loads(control_plane.kubeconfig.read_text())
    assert config["users"][0]["user"] == {"token": control_plane.token}
    with pytest.raises(ClusterError, match=r"Unauthorized|logged in"):
        control_plane.kubectl("get", "pods", "--token=wrong")
    assert control_plane.kubeconfig.stat().st_mode & 0o077 == 0


def test_objects_are_kept(control_plane: ControlPlane, namespace: str) -> None:
    control_plane.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "written", "namespace": namespace},
            "data": {"answer": "42"},
        }
    )
    assert control_plane.get("configmap", "written", "-n", namespace)["data"] == {"answer": "42"}


def test_a_pod_and_its_node_stay_as_a_test_writes_them(control_plane: ControlPlane, namespace: str) -> None:
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"node-of-{namespace}"}}
    spec = {"nodeName": f"node-of-{namespace}", "containers": [{"name": "main", "image": "none"}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": namespace}, "spec": spec}
    control_plane.apply(node, pod)
    patch = json.dumps({"status": {"phase": "Running", "startTime": "2026-01-01T00:00:00Z"}})
    control_plane.kubectl("patch", "pod", "p", "-n", namespace, "--subresource=status", "--type=merge", "-p", patch)
    status = control_plane.get("pod", "p", "-n", namespace)["status"]
    assert (status["phase"], status["startTime"]) == ("Running", "2026-01-01T00:00:00Z")


def test_helm_installs_and_uninstalls_a_chart(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text("apiVersion: v2\nname: small\nversion: 0.1.0\n")
    template = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}\ndata:\n"
    (tmp_path / "templates" / "map.yaml").write_text(template + "  size: {{ .Values.size | quote }}\n")
    control_plane.helm("install", "small", str(tmp_path), "-n", namespace, "--set", "size=7")
    assert control_plane.get("configmap", "small", "-n", namespace)["data"] == {"size": "7"}
    control_plane.helm("uninstall", "small", "-n", namespace)
    assert "small" not in control_plane.kubectl("get", "configmap", "-n", namespace, "-o", "name")


@pytest.mark.parametrize("flag", ["--server=https://127.0.0.1:1", "--kubeconfig", "--context=other", "-s"])
def test_a_command_cannot_be_pointed_at_another_cluster(control_plane: ControlPlane, flag: str) -> None:
    with pytest.raises(ClusterError, match="another cluster"):
        control_plane.kubectl("get", "pods", flag)


def test_a_kubeconfig_of_the_user_is_not_used(
    control_plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "kubeconfig"
    other.write_text(control_plane.kubeconfig.read_text().replace(control_plane.server, "https://127.0.0.1:1"))
    monkeypatch.setenv("KUBECONFIG", str(other))
    assert control_plane.kubectl("config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}") == (
        control_plane.server
    )


def test_controllers_and_scheduler_do_their_work(managed_control_plane: ControlPlane) -> None:
    access = managed_control_plane
    access.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "worker"}})
    capacity = {"cpu": "4", "memory": "8Gi", "pods": "10", "nvidia.com/gpu": "2"}
    ready = {"type": "Ready", "status": "True", "reason": "Test", "lastHeartbeatTime": _now()}
    status = {"capacity": capacity, "allocatable": capacity, "conditions": [ready]}
    access.kubectl(
        "patch", "node", "worker", "--subresource=status", "--type=merge", "-p", json.dumps({"status": status})
    )
    container = {"name": "main", "image": "none", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
    template = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [container]}}
    spec = {"replicas": 3, "selector": {"matchLabels": {"app": "a"}}, "template": template}
    access.apply(
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "namespace": "default"}, "spec": spec}
    )

    def placed() -> list[str]:
        return sorted(pod["spec"].get("nodeName", "") for pod in access.get("pods", "-l", "app=a")["items"])

    assert eventually(lambda: placed() == ["", "worker", "worker"]), placed()
    assert "BEGIN CERTIFICATE" in access.get("configmap", "kube-root-ca.crt")["data"]["ca.crt"]


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def test_a_second_one_runs_beside_the_first_and_leaves_nothing(control_plane: ControlPlane) -> None:
    with running_control_plane(controllers=False) as second:
        assert second.server != control_plane.server
        second.kubectl("create", "namespace", "only-here")
        assert "only-here" not in control_plane.kubectl("get", "namespaces", "-o", "name")
        assert len(processes_of(second.folder)) == 2
    assert processes_of(second.folder) == []
    assert not second.folder.exists()
    assert control_plane.kubectl("get", "--raw", "/readyz") == "ok"


def test_a_port_that_somebody_takes_is_replaced(control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        first = iter([taken.getsockname()[1]])
        real = ports.free_port
        monkeypatch.setattr(ports, "free_port", lambda address: next(first, None) or real(address))
        with running_control_plane(controllers=False) as access:
            assert access.kubectl("get", "--raw", "/readyz") == "ok"
            assert not access.server.endswith(f":{taken.getsockname()[1]}")


def test_a_failed_start_says_why_and_leaves_nothing(
    control_plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = find_binaries(controllers=False, environment=os.environ, report=print)
    assets = tmp_path / "assets"
    assets.mkdir()
    (assets / "etcd").symlink_to(real.etcd)
    (assets / "kube-apiserver").write_text("#!/bin/sh\necho the store is on fire >&2\nexit 3\n")
    (assets / "kube-apiserver").chmod(0o755)
    temporary = tmp_path / "t"
    temporary.mkdir()
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    with (
        pytest.raises(ClusterError, match=r"kube-apiserver ended with status 3:\nthe store is on fire"),
        running_control_plane(controllers=False),
    ):
        pytest.fail("it must not start")
    assert list(temporary.iterdir()) == []
    assert processes_of(temporary) == []


def test_killing_the_harness_ends_its_processes(control_plane: ControlPlane, tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from tests.cluster.control_plane import running_control_plane\n"
        "with running_control_plane(controllers=False) as access:\n"
        "    print(access.folder, flush=True)\n"
        "    time.sleep(600)\n"
    )
    command = [sys.executable, "-c", script]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, cwd=_ROOT, env=environment, stdout=subprocess.PIPE, text=True) as harness:
        assert harness.stdout is not None
        folder = Path(harness.stdout.readline().strip())
        assert len(processes_of(folder)) == 2
        harness.send_signal(signal.SIGKILL)
    assert eventually(lambda: processes_of(folder) == []), processes_of(folder)
    assert folder.exists()
    assert sweep(tmp_path) == [folder]


def test_a_person_can_leave_one_running_and_end_it(control_plane: ControlPlane, tmp_path: Path) -> None:
    def cluster(*args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tests.cluster", "--state", str(tmp_path / "state"), *args]
        return subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=120, check=False)

    started = cluster("up", "--detach")
    try:
        assert started.returncode == 0, started.stderr
        assert started.stdout == f"export KUBECONFIG={tmp_path}/state/kubeconfig\n"
        environment = {**os.environ, "KUBECONFIG": str(tmp_path / "state" / "kubeconfig")}
        accounts = subprocess.run(
            [control_plane.kubectl_program, "get", "serviceaccounts", "-n", "default", "-o", "name"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
        assert accounts.stdout == "serviceaccount/default\n"
        second = cluster("up", "--detach")
        assert second.returncode == 1
        assert "already running" in second.stderr
    finally:
        stopped = cluster("down")
    assert (stopped.returncode, stopped.stdout) == (0, "the local cluster is stopped\n")
    assert not (tmp_path / "state").exists()
    again = cluster("down")
    assert (again.returncode, again.stdout) == (0, "no local cluster is running\n")


@pytest.mark.parametrize(
    ("ci", "outcome", "status"), [("", "1 skipped", 0), ("true", "1 error", 1)], ids=["elsewhere", "on CI"]
)
def test_without_go_the_tests_say_what_to_install(ci: str, outcome: str, status: int, tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": "/nowhere", "XDG_CACHE_HOME": str(tmp_path), "CI": ci}
    environment.pop("KUBEBUILDER_ASSETS", None)
    test = f"{Path(__file__).relative_to(_ROOT)}::test_api_server_answers_in_the_pinned_version"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test]
    done = subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done.stdout
    assert outcome in done.stdout
    saying = [line for line in done.stdout.splitlines() if "needs Go 1.26 or newer" in line and "install one" in line]
    assert saying, done.stdout
