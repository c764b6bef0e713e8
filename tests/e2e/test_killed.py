"""A run that is killed in the middle: nothing of it survives, and the next one starts as if it had not been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.cluster.errors import ClusterError, MissingToolsError
from tests.cluster.nodes.cluster import running_nodes
from tests.cluster.nodes.pods import pod, wait_for_pod
from tests.cluster.pytest_support import reporter, skip_or_fail

if TYPE_CHECKING:
    from collections.abc import Callable

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


def left_behind() -> dict[str, list[str]]:
    """What of a node cluster there is on this machine."""
    links = json.loads(subprocess.run(["ip", "-json", "link"], capture_output=True, check=True).stdout)
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return {
        "processes": processes(),
        "links": [link["ifname"] for link in links if link["ifname"].startswith("gpuwaste")],
        "namespaces": [file.name for file in Path("/run/netns").glob("gpuwaste*")],
        "groups": [str(group) for group in Path("/sys/fs/cgroup").glob("**/gpuwaste*")],
        "mounts": [line for line in mounts if "gpuwaste-cluster" in line or "/run/netns" in line],
    }


def processes() -> list[str]:
    """Command lines of the daemons of any cluster."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it ended meanwhile
            continue
        if "gpuwaste-cluster-" in line:
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
        with running_nodes(count=1, report=report), pytest.raises(ClusterError, match="another cluster with nodes"):
            running_nodes(count=1, report=report).__enter__()
    except MissingToolsError as error:
        skip_or_fail(str(error))
    assert not any(left_behind().values()), left_behind()

    command = [sys.executable, "-c", _KILLED]
    with subprocess.Popen(command, cwd=_ROOT, env=dict(os.environ), stdout=subprocess.PIPE, text=True) as harness:
        assert harness.stdout is not None
        folder = Path(harness.stdout.readline().strip())
        assert folder.name.startswith("gpuwaste-cluster-")
        assert len(processes()) > 4
        harness.send_signal(signal.SIGKILL)
    assert eventually(lambda: not processes()), processes()
    assert left_behind()["links"], "what no process holds stays until the next start"

    with running_nodes(count=2, report=report) as cluster:
        assert not folder.exists()
        cluster.access.apply(pod("next"))
        wait_for_pod(cluster.access, "next")
    assert not any(left_behind().values()), left_behind()
