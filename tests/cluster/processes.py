"""Child processes that do not outlive their parent, and whose failure tells why."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.cluster.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

__all__ = ["Child", "Supervisor", "wait_until"]

_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """One running program."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    end_by: signal.Signals

    def check_alive(self) -> None:
        """Raise ClusterError with the end of the program's log if it has ended."""
        if self.process.poll() is not None:
            raise ClusterError(f"{self.name} ended with status {self.process.returncode}:\n{self.log_tail()}")

    def log_tail(self, lines: int = 20) -> str:
        """The last lines that the program wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Supervisor:
    """Starts programs and ends them in the opposite order, each by its own process id.

    Start them from a thread that lives as long as they shall: Linux ends them with that thread.
    """

    def __init__(self, *, logs: Path) -> None:
        self._logs = logs
        self._children: list[Child] = []

    def start(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        environment: Mapping[str, str],
        folder: Path,
        end_by: signal.Signals = signal.SIGTERM,
    ) -> Child:
        """Start one program in `folder`, its output going to a file named for it; `end_by` asks it to end."""
        log = self._logs / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*_ended_with_parent(), *map(str, argv)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                cwd=folder,
                # Ctrl-C goes to the foreground group; children outside it are stopped in order instead.
                start_new_session=True,
            )
        child = Child(name=name, process=process, log=log, end_by=end_by)
        self._children.append(child)
        return child

    def check_alive(self) -> None:
        """Raise ClusterError if any program has ended."""
        for child in self._children:
            child.check_alive()

    def forget(self, child: Child) -> None:
        """Take a program that has ended off the list, so that its end is no failure."""
        self._children.remove(child)

    def stop(self, *, grace_seconds: float = 10.0) -> None:
        """End all programs, last started first, and wait for each before the next.

        One that does not end within `grace_seconds` of being asked is killed.
        """
        while self._children:
            self.stop_one(self._children[-1], grace_seconds=grace_seconds)

    def stop_one(self, child: Child, *, grace_seconds: float = 10.0) -> None:
        """End one program and wait for its end."""
        if child.process.poll() is None:
            child.process.send_signal(child.end_by)
            try:
                child.process.wait(grace_seconds)
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
        self._children.remove(child)


def wait_until(ready: Callable[[], bool], *, what: str, deadline_seconds: float, meanwhile: Callable[[], None]) -> None:
    """Ask `ready` again and again until it says True.

    `meanwhile` runs between two questions and may raise to give up early.

    Raises:
        ClusterError: `deadline_seconds` have passed; the message names `what`.
    """
    deadline = time.monotonic() + deadline_seconds
    while not ready():
        meanwhile()
        if time.monotonic() > deadline:
            raise ClusterError(f"{what} did not happen within {deadline_seconds:.0f} s")
        time.sleep(_POLL_SECONDS)


def _ended_with_parent() -> list[str]:
    """A prefix for a command that makes Linux kill it when this process dies, however it dies.

    Elsewhere there is no such thing, and the next start sweeps up.
    """
    if not sys.platform.startswith("linux"):
        return []
    setpriv = shutil.which("setpriv", path=os.defpath)
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
