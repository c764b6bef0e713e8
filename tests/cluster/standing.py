"""The one local cluster of a checkout that a person starts, finds again and ends."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cluster.errors import ClusterError
from tests.cluster.folders import sweep
from tests.cluster.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["Standing"]

_START_SECONDS = 1900.0  # the first start builds
_STOP_SECONDS = 60.0


class Standing:
    """The state in one folder: `lock` holds the owner's process id and is locked while it lives."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = folder / "lock"
        self._kubeconfig = folder / "kubeconfig"
        self._log = folder / "log"

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Be the owner; raise ClusterError if another process is."""
        self.folder.mkdir(exist_ok=True)
        with self._lock.open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ClusterError("a local cluster is already running: end it by `make clean-cluster`") from None
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            try:
                yield
            finally:
                self._kubeconfig.unlink(missing_ok=True)

    def publish(self, kubeconfig: Path) -> Path:
        """Copy the kubeconfig to where people and scripts look for it, and return that path."""
        draft = self.folder / ".kubeconfig"
        shutil.copy(kubeconfig, draft)  # keeps the mode, which is private
        return draft.rename(self._kubeconfig)

    def detached(self, argv: Sequence[str], *, working_folder: Path, report: Callable[[str], None]) -> Path:
        """Start `argv`, which claims and publishes, as a process of its own; return the kubeconfig's path."""
        if self._owner() is not None:
            raise ClusterError("a local cluster is already running: end it by `make clean-cluster`")
        self.folder.mkdir(exist_ok=True)
        self._kubeconfig.unlink(missing_ok=True)
        with self._log.open("wb") as log:
            child = subprocess.Popen(
                argv, cwd=working_folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        shown = 0

        def meanwhile() -> None:
            nonlocal shown
            text = self._log.read_text()
            if child.poll() is not None:
                raise ClusterError(f"the local cluster did not start:\n{text.strip()}")
            end = text.rfind("\n") + 1
            for line in text[shown:end].splitlines():
                report(line)
            shown = end

        try:
            wait_until(
                self._kubeconfig.exists,
                what="the start of the local cluster",
                deadline_seconds=_START_SECONDS,
                meanwhile=meanwhile,
            )
            meanwhile()  # what it said last
        except BaseException:
            child.terminate()
            child.wait(_STOP_SECONDS)
            raise
        child.returncode = 0  # it lives on without us; Popen need not warn that nobody waited for it
        return self._kubeconfig

    def stop(self) -> bool:
        """End the owner if there is one, sweep up after killed ones, and say whether there was one."""
        owner = self._owner()
        if owner is not None:
            os.kill(owner, signal.SIGTERM)
            wait_until(
                lambda: self._owner() != owner,
                what=f"the end of process {owner}, which runs the local cluster,",
                deadline_seconds=_STOP_SECONDS,
                meanwhile=lambda: None,
            )
        sweep(Path(tempfile.gettempdir()))
        shutil.rmtree(self.folder, ignore_errors=True)
        return owner is not None

    def _owner(self) -> int | None:
        """Process id of the owner, or None; a locked file cannot name a process that is gone."""
        with suppress(FileNotFoundError), self._lock.open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(lock.read() or 0) or None
        return None
