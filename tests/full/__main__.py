"""Run everything, part by part: `python -m tests.full tests` or `benches`.

What passed with the sources as they are now is not run again, so an ended run goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.full.evidence import FOLDER, Evidence, EvidenceError, sources_digest
from tests.full.parts import bench_parts, run_bench, run_tests, test_parts

if TYPE_CHECKING:
    from collections.abc import Callable

_ROOT = Path(__file__).parents[2]


def run_all(
    parts: list[str],
    evidence: Evidence,
    run: Callable[[str], tuple[bool, dict[str, Any]]],
    digest: Callable[[], str],
) -> list[str]:
    """Run what is not known to pass, keep what each shows, and return the parts that failed.

    Raises:
        EvidenceError: the sources changed meanwhile, so that nobody knows what the last part tried.
    """
    failed = []
    for number, name in enumerate(parts, start=1):
        if evidence.known(name) is not None:
            continue
        print(f"\n=== {number} of {len(parts)}: {name}", flush=True)
        began = time.monotonic()
        passed, shown = run(name)
        if digest() != evidence.sources:
            raise EvidenceError(f"the sources changed while {name} ran: start again, what passed before stands")
        shown = {**shown, "wall_seconds": round(time.monotonic() - began, 1)}
        shown["ended"] = datetime.now(UTC).isoformat(timespec="seconds")
        evidence.keep(name, passed=passed, shown=shown, among=parts)
        if not passed:
            failed.append(name)
    return failed


def main(argv: list[str]) -> int:
    """Run the tests or the benchmarks; 0 when all passed, 1 when not, 2 for wrong flags."""
    parser = argparse.ArgumentParser(prog="python -m tests.full", description=__doc__)
    parser.add_argument("what", choices=["tests", "benches"])
    parser.add_argument("--again", action="store_true", help="also what passed with these sources")
    chosen = parser.parse_args(argv)
    path = _ROOT / FOLDER / f"{chosen.what}.json"
    if chosen.again:
        path.unlink(missing_ok=True)
    parts, run = (test_parts, run_tests) if chosen.what == "tests" else (bench_parts, run_bench)
    names = parts(_ROOT)
    try:
        evidence = Evidence(path, sources=sources_digest(_ROOT))
        failed = run_all(names, evidence, lambda name: run(_ROOT, name), lambda: sources_digest(_ROOT))
    except EvidenceError as error:
        print(error, file=sys.stderr)
        return 1
    print(
        f"\n{len(names) - len(failed)} of {len(names)} parts passed; what each showed is in {path.relative_to(_ROOT)}"
    )
    for name in failed:
        print(f"failed: {name}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
