"""Spark in local mode, installed once into an environment in the user's cache; it runs on this machine's Java."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.cluster.cache import cache_folder, digest_of, made_once
from tests.cluster.pytest_support import skip_or_fail

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["spark_rows"]

_BUILD = Path(__file__).with_name("build-requirements.txt")
_REQUIREMENTS = Path(__file__).with_name("requirements.txt")
_RUNNER = Path(__file__).with_name("runner.py")
_OLDEST_JAVA = 17
_RUN_SECONDS = 180


def _checked_java() -> None:
    if shutil.which("java") is None:
        pytest.skip("SKIPPED, not tested here: Spark needs Java 17 or newer, and there is no `java`")
    done = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False)
    version = re.search(r'version "(?:1\.)?(\d+)', done.stderr)
    if done.returncode or version is None or int(version[1]) < _OLDEST_JAVA:
        skip_or_fail(f"Spark needs Java {_OLDEST_JAVA} or newer, and `java -version` says: {done.stderr.strip()[:200]}")


def _installed() -> Path:
    def make(folder: Path) -> None:
        venv.create(folder, with_pip=True, symlinks=True)
        pip = [
            str(folder / "bin/python"),
            "-m",
            "pip",
            "install",
            "-q",
            "--disable-pip-version-check",
            "--no-cache-dir",
        ]
        for more in (["-r", str(_BUILD)], ["--no-build-isolation", "-r", str(_REQUIREMENTS)]):
            done = subprocess.run([*pip, "--require-hashes", *more], capture_output=True, text=True, check=False)
            if done.returncode:
                skip_or_fail(f"Spark cannot be installed: {done.stderr.strip()[-500:]}")

    return made_once(cache_folder(os.environ) / f"spark-{digest_of([_BUILD, _REQUIREMENTS], sys.version)}", make)


def spark_rows(ledger: Path, queries: Mapping[str, str], work: Path) -> dict[str, list[dict[str, Any]]]:
    """Run queries over the files below a folder, which are the table `ledger`.

    Args:
        ledger: a folder of Parquet files.
        queries: SQL by name.
        work: an empty folder for what Spark leaves.

    Returns:
        By name the rows in their order; decimals are texts, times texts in UTC.
    """
    _checked_java()
    folder = _installed()
    packages = next(folder.glob("lib/python*/site-packages"))
    (work / "queries.json").write_text(json.dumps(dict(queries)))
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(work),
        "PYTHONPATH": str(packages),
        "PYSPARK_PYTHON": str(folder / "bin/python"),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "TZ": "UTC",
        **({"JAVA_HOME": os.environ["JAVA_HOME"]} if "JAVA_HOME" in os.environ else {}),
    }
    command = [str(folder / "bin/python"), str(_RUNNER), str(ledger), "queries.json", "rows.json"]
    done = subprocess.run(
        command, cwd=work, env=environment, capture_output=True, text=True, check=False, timeout=_RUN_SECONDS
    )
    if done.returncode:
        pytest.fail(f"Spark ended with {done.returncode}:\n{done.stderr[-3000:]}", pytrace=False)
    rows: dict[str, list[dict[str, Any]]] = json.loads((work / "rows.json").read_text())
    return rows
