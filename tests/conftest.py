"""What all tests share."""

import os

from hypothesis import settings

# How long an example takes says nothing on a shared machine; benchmarks live in tests/perf and compare ratios.
# On CI the examples are the same in every run, so that a change is judged by itself.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI", "").lower() in {"1", "true"} else "local")
