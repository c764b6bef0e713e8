"""A real Prometheus on loopback, for tests: Debian's, with a store that was filled beforehand or by scraping."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from tests.cluster import ports
from tests.cluster.errors import ClusterError, MissingToolsError
from tests.cluster.folders import owned_folder
from tests.cluster.processes import Supervisor, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

__all__ = ["Prometheus", "blocks_from", "running_prometheus"]

_READY_SECONDS = 30.0
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Prometheus:
    """Where it answers."""

    url: str
    folder: Path


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise MissingToolsError(f"{name} is missing: install the Debian package prometheus (make deps)")
    return found


def blocks_from(lines: Iterable[str], folder: Path) -> None:
    """Make a store's blocks from OpenMetrics text, without a server.

    Raises:
        MissingToolsError: there is no promtool.
        ClusterError: promtool refused the text.
    """
    promtool = _program("promtool")
    text = folder.with_name(f"{folder.name}.txt")
    with text.open("w", encoding="utf-8") as stream:
        stream.writelines(lines)
    command = [promtool, "tsdb", "create-blocks-from", "openmetrics", "--quiet", "--max-block-duration=48h"]
    done = subprocess.run([*command, str(text), str(folder)], capture_output=True, text=True, check=False)
    text.unlink()
    if done.returncode:
        raise ClusterError(f"promtool: {done.stderr[-1000:]}")


@contextmanager
def running_prometheus(
    *, data: Path | None = None, targets: Sequence[str] = (), scrape: str = "1s", flags: Sequence[str] = ()
) -> Iterator[Prometheus]:
    """A Prometheus as long as the block runs.

    Args:
        data: a folder with blocks; it is moved into the server's own.
        targets: addresses to scrape.
        scrape: how often.
        flags: more of its flags.

    Raises:
        MissingToolsError: there is none here.
    """
    program = _program("prometheus")
    with owned_folder() as folder:
        store = folder / "data"
        if data is not None:
            shutil.move(data, store)
        jobs = [{"job_name": "test", "honor_labels": False, "static_configs": [{"targets": list(targets)}]}]
        config = {"global": {"scrape_interval": scrape}, "scrape_configs": jobs if targets else []}
        (folder / "prometheus.yml").write_text(json.dumps(config), encoding="utf-8")
        (folder / "logs").mkdir()
        supervisor = Supervisor(logs=folder / "logs")
        try:
            yield Prometheus(url=_started(program, supervisor, folder, flags), folder=folder)
        finally:
            supervisor.stop()


def _started(program: str, supervisor: Supervisor, folder: Path, flags: Sequence[str]) -> str:
    for attempt in range(1, _ATTEMPTS + 1):
        url = f"127.0.0.1:{ports.free_port()}"
        argv = [program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
        argv += [f"--web.listen-address={url}", "--storage.tsdb.retention.time=400d", *flags]
        child = supervisor.start("prometheus", argv, environment={"PATH": os.defpath}, folder=folder)
        try:
            wait_until(
                partial(_answers, f"http://{url}/-/ready"),
                what=f"Prometheus at {url}",
                deadline_seconds=_READY_SECONDS,
                meanwhile=supervisor.check_alive,
            )
        except ClusterError:
            if "address already in use" not in child.log_tail() or attempt == _ATTEMPTS:
                raise
            supervisor.forget(child)
        else:
            return f"http://{url}"
    raise AssertionError("the last attempt returns or raises")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 (loopback)
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
