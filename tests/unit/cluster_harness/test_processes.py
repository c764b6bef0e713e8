"""Starting and ending child processes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from tests.cluster.errors import ClusterError
from tests.cluster.processes import Child, Supervisor, wait_until

if TYPE_CHECKING:
    from pathlib import Path

# It says when it listens to the signal, writes its name when it gets it, and waits without using time.
_NOTES_ITS_END = "trap 'echo {name} >> {file}; exit 0' TERM; echo up; mkfifo {name}.wait; read -r _ < {name}.wait"
_IGNORES_TERM = "trap '' TERM; echo up; mkfifo deaf.wait; while true; do read -r _ < deaf.wait; done"


@pytest.fixture
def supervisor(tmp_path: Path) -> Supervisor:
    return Supervisor(logs=tmp_path)


def shell(supervisor: Supervisor, name: str, script: str, folder: Path) -> Child:
    """Start a shell script; return once it has said something or ended."""
    child = supervisor.start(name, ["/bin/sh", "-c", script], environment={"PATH": os.defpath}, folder=folder)
    wait_until(
        lambda: bool(child.log.read_text()) or child.process.poll() is not None,
        what="first output",
        deadline_seconds=5,
        meanwhile=lambda: None,
    )
    return child


def test_children_end_in_the_opposite_order(supervisor: Supervisor, tmp_path: Path) -> None:
    for name in ("etcd", "apiserver", "scheduler"):
        shell(supervisor, name, _NOTES_ITS_END.format(name=name, file="ended"), tmp_path)
    supervisor.stop(grace_seconds=5)
    assert (tmp_path / "ended").read_text().split() == ["scheduler", "apiserver", "etcd"]


def test_a_child_that_ignores_the_signal_is_killed(supervisor: Supervisor, tmp_path: Path) -> None:
    child = shell(supervisor, "deaf", _IGNORES_TERM, tmp_path)
    supervisor.stop(grace_seconds=0.05)
    assert child.process.returncode == -9


def test_stopping_twice_is_harmless(supervisor: Supervisor, tmp_path: Path) -> None:
    shell(supervisor, "short", "exit 0", tmp_path)
    supervisor.stop()
    supervisor.stop()


def test_the_end_of_a_child_is_reported_with_its_words(supervisor: Supervisor, tmp_path: Path) -> None:
    child = shell(supervisor, "etcd", "seq 1 40; echo disk full >&2; exit 7", tmp_path)
    child.process.wait(5)
    with pytest.raises(ClusterError, match=r"etcd ended with status 7:\n22\n(.*\n)+disk full") as caught:
        supervisor.check_alive()
    assert "\n21\n" not in str(caught.value)
    supervisor.forget(child)
    supervisor.check_alive()


def test_waiting_gives_up_at_the_deadline() -> None:
    with pytest.raises(ClusterError, match="the moon rising did not happen within 0 s"):
        wait_until(lambda: False, what="the moon rising", deadline_seconds=0, meanwhile=lambda: None)


def test_waiting_gives_up_when_meanwhile_raises(supervisor: Supervisor, tmp_path: Path) -> None:
    child = shell(supervisor, "etcd", "exit 7", tmp_path)
    child.process.wait(5)
    with pytest.raises(ClusterError, match="etcd ended with status 7"):
        wait_until(lambda: False, what="x", deadline_seconds=60, meanwhile=supervisor.check_alive)
