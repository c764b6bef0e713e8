"""A run that is killed in the middle: nothing of it survives, and the next one starts as if it had not been."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.cluster.errors import ClusterError, MissingToolsError
from tests.cluster.nodes.cluster import running_nodes
from tests.cluster.nodes.pods import pod, wait_for_pod
from tests.cluster.pytest_support import reporter, skip_or_fail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ROOT = Path(__file__).parents[2]

_KILLED = """
import time
from tests.cluster.nodes.cluster import running_nodes
from tests.cluster.nodes.pods import pod, wait_for_pod
with running_nodes(count=1) as cluster:
    cluster.access.apply(pod("left"))
    wait_for_pod(cluster.access, "left")
    print(cluster.access.folder, flush=True)
    time.sleep(600)
"""


def left_behind(folder: Path) -> dict[str, list[str]]:
    """What of node clusters there is on this machine, and the processes of the one in that folder.

    Others may run a control plane without nodes meanwhile.
    """
    links = json.loads(subprocess.run(["ip", "-json", "link"], capture_output=True, check=True).stdout)
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return {
        "processes": processes(folder),
        "links": [link["ifname"] for link in links if link["ifname"].startswith("gpuwaste")],
        "namespaces": [file.name for file in Path("/run/netns").glob("gpuwaste*")],
        "groups": [str(group) for group in Path("/sys/fs/cgroup").glob("**/gpuwaste*")],
        "mounts": [line for line in mounts if "gpuwaste-cluster" in line or "/run/netns" in line],
    }


def processes(folder: Path) -> list[str]:
    """Command lines of the daemons of the cluster in that folder."""
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
    deadline = time.monotonic() + deadline_seconds
    while not (answer := question()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return answer


def test_a_killed_run_does_not_break_the_next(pytestconfig: pytest.Config) -> None:
    report = reporter(pytestconfig)
    try:
        # Says what is missing, and shows that one cluster keeps another from starting.
        with running_nodes(count=1, report=report) as first:
            with pytest.raises(ClusterError, match="another cluster with nodes"):
                running_nodes(count=1, report=report).__enter__()
            folder = first.access.folder
            assert len(processes(folder)) > 4
    except MissingToolsError as error:
        skip_or_fail(str(error))
    assert not any(left_behind(folder).values()), left_behind(folder)

    command = [sys.executable, "-c", _KILLED]
    with subprocess.Popen(command, cwd=_ROOT, env=dict(os.environ), stdout=subprocess.PIPE, text=True) as harness:
        assert harness.stdout is not None
        folder = Path(harness.stdout.readline().strip())
        assert folder.name.startswith("gpuwaste-cluster-")
        assert len(processes(folder)) > 4
        harness.send_signal(signal.SIGKILL)
    assert eventually(lambda: not processes(folder)), processes(folder)
    assert left_behind(folder)["links"], "what no process holds stays until the next start"

    with running_nodes(count=2, report=report) as cluster:
        assert not folder.exists()
        cluster.access.apply(pod("next"))
        wait_for_pod(cluster.access, "next")
        folder = cluster.access.folder
    assert not any(left_behind(folder).values()), left_behind(folder)


@pytest.fixture
def cluster_command(tmp_path: Path) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """What the make targets run, with a state of its own; it ends what the test leaves."""

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tests.cluster", "--state", str(tmp_path / "state"), *args]
        return subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=180, check=False)

    yield run
    run("down")


def test_a_persons_cluster_is_cleaned_up_after_a_crash(
    cluster_command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    started = cluster_command("up", "--nodes", "--detach")
    if "test nodes need" in started.stderr:
        skip_or_fail(started.stderr.strip())
    assert started.returncode == 0, started.stderr
    kubeconfig = started.stdout.strip().removeprefix("export KUBECONFIG=")
    programs, scenario = (
        re.search(f"{words} ([^ \n]+)", started.stderr)
        for words in ("kubectl and helm lie in", "its GPUs are those of")
    )
    assert programs is not None
    assert scenario is not None
    folder = Path(scenario[1]).parent
    assert len(processes(folder)) > 4

    def asked(*args: str) -> list[dict[str, Any]]:
        argv = [f"{programs[1]}/kubectl", f"--kubeconfig={kubeconfig}", "get", *args, "-o", "json"]
        return list(json.loads(subprocess.run(argv, capture_output=True, timeout=30, check=True).stdout)["items"])

    offered = {node["metadata"]["name"]: node["status"]["allocatable"]["nvidia.com/gpu"] for node in asked("nodes")}
    assert offered == {"gpu-node-0": "1", "gpu-node-1": "4"}
    running = ["Running"] * 6
    assert eventually(lambda: [pod["status"]["phase"] for pod in asked("pods", "--all-namespaces")] == running)
    os.kill(int((tmp_path / "state" / "lock").read_text()), signal.SIGKILL)
    ended = cluster_command("down")
    assert ended.returncode == 0, ended.stderr
    assert not any(left_behind(folder).values()), left_behind(folder)
    assert not folder.exists()
    assert not (tmp_path / "state").exists()
