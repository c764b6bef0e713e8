"""The parts: every test file, and every benchmark in its long form."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

__all__ = ["bench_parts", "figures_in", "run_bench", "run_tests", "test_parts"]

# `name value unit target ok|missed`: the last word may be another where there is nothing to miss.
_FIGURE = re.compile(r"^(\S+) (-?[0-9.]+(?:e[-+]?[0-9]+)?) (\S+) (\S+) (ok|missed|baseline|info)$")
_NOTHING_COLLECTED = 5


def test_parts(root: Path) -> list[str]:
    """The unit tests as one part, then every file of the others."""
    files = [path for tier in ("integration", "e2e") for path in sorted((root / "tests" / tier).rglob("test_*.py"))]
    return ["tests/unit", *(path.relative_to(root).as_posix() for path in files)]


def bench_parts(root: Path) -> list[str]:
    """Names of the benchmarks."""
    return [path.parent.name for path in sorted((root / "tests" / "perf").glob("*/bench.py"))]


def run_tests(root: Path, part: str) -> tuple[bool, dict[str, Any]]:
    """Run the tests of a part; say whether all passed, and how many did what."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", part, "-q", f"--junitxml={report}"]
        # Tests that take long, or do something many times, do all of it only where this is set.
        done = subprocess.run(command, cwd=root, env={**os.environ, "GPUWASTE_FULL": "1"}, check=False)
        counts = _counts(report) if report.exists() else {}
    return done.returncode in {0, _NOTHING_COLLECTED}, counts


def _counts(report: Path) -> dict[str, Any]:
    # Written by pytest a moment ago.
    (suite,) = ET.parse(report).getroot().iter("testsuite")  # noqa: S314
    tests, failures, errors, skipped = (int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped"))
    return {"tests": tests, "failed": failures + errors, "skipped": skipped, "seconds": float(suite.get("time", 0))}


def run_bench(root: Path, part: str) -> tuple[bool, dict[str, Any]]:
    """Run a benchmark; say whether no accepted range was missed, and what it measured."""
    command = [sys.executable, "-u", "-m", f"tests.perf.{part}.bench"]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as child:
        lines = []
        for line in child.stdout or ():
            sys.stdout.write(line)
            sys.stdout.flush()
            lines.append(line.rstrip("\n"))
    return child.returncode == 0, {"figures": figures_in(lines)}


def figures_in(lines: list[str]) -> list[dict[str, Any]]:
    """The figures among what a benchmark printed."""
    found = [match for match in map(_FIGURE.match, lines) if match]
    return [
        {"name": name, "value": float(value), "unit": unit, "target": target, "state": state}
        for name, value, unit, target, state in (match.groups() for match in found)
    ]
