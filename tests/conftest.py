"""What all tests share."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

from hypothesis import settings

if TYPE_CHECKING:
    import pytest

# How long an example takes says nothing on a shared machine; benchmarks live in tests/perf and compare ratios.
# On CI the examples are the same in every run, so that a change is judged by itself.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI", "").lower() in {"1", "true"} else "local")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Say once, at the very end, what this machine lacks and how many tests that left out."""
    reporter = config.pluginmanager.getplugin("terminalreporter")
    skipped = reporter.stats.get("skipped", ()) if reporter is not None else ()
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ") for report in skipped if isinstance(report.longrepr, tuple)
    )
    for reason, count in reasons.most_common():
        reporter.write_line(f"NOT RUN: {count} tests: {reason}", yellow=True, bold=True)
