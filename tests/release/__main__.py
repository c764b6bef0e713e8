"""Make everything that a release holds, check it, and publish nothing: `python -m tests.release`."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cluster.errors import ClusterError
from tests.cluster.programs import find_clients
from tests.release.charts import pack_charts
from tests.release.dockerfiles import lint
from tests.release.packages import ReleaseError, build_packages, check_packages
from tests.release.versions import differing_versions

from gpuwaste.api.generate import drifted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ROOT = Path(__file__).parents[2]


def checks(root: Path, out: Path) -> Iterator[tuple[str, Callable[[], list[str]]]]:
    """Each check with its name; it returns what is wrong, and leaves what it makes in `out`."""
    yield "versions", lambda: differing_versions(root)
    yield "definitions", lambda: drifted(root)
    yield "packages", lambda: check_packages(root, *build_packages(root, out))
    yield "charts", lambda: _charts(root, out)
    for path in sorted((root / "images").glob("*/Dockerfile")):
        yield f"image {path.parent.name}", lambda path=path: lint(path, root=root)


def _charts(root: Path, out: Path) -> list[str]:
    _, helm = find_clients(os.environ, lambda line: print(line, file=sys.stderr))
    return pack_charts(root, out, helm=helm)[1]


def run(root: Path, out: Path) -> int:
    """Run all checks, a line each; returns how many failed."""
    failed = 0
    for name, check in checks(root, out):
        try:
            problems = check()
        except (ReleaseError, ClusterError) as error:
            problems = [str(error)]
        print(f"{name}: {'failed' if problems else 'ok'}")
        for problem in problems:
            print(f"  {problem}")
        failed += bool(problems)
    return failed


def main(argv: list[str]) -> int:
    """Check; 0 when all is well, 1 when not, 2 for wrong flags."""
    parser = argparse.ArgumentParser(prog="python -m tests.release", description=__doc__)
    parser.add_argument("--out", type=Path, metavar="DIR", help="leave packages and charts there; it must be empty")
    chosen = parser.parse_args(argv)
    if chosen.out and chosen.out.is_dir() and any(chosen.out.iterdir()):
        parser.error(f"{chosen.out} is not empty")
    with tempfile.TemporaryDirectory(prefix="gpuwaste-release-") as folder:
        out = chosen.out.absolute() if chosen.out else Path(folder)
        out.mkdir(parents=True, exist_ok=True)
        failed = run(_ROOT, out)
        for file in sorted(out.iterdir()):
            print(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
