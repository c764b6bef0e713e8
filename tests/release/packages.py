"""The Python packages of a release: a wheel and a source archive that hold what they should, made twice alike."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

__all__ = ["ReleaseError", "build_packages", "check_packages"]

_SOURCE_ROOTS = ("operator/gpuwaste", "agent/gpuwaste_agent")
_BUILD_SECONDS = 300
_EPOCH = "1735689600"  # files in archives bear this time; any one will do


class ReleaseError(Exception):
    """A part of the release cannot be made; the message says why."""


def build_packages(root: Path, out: Path) -> tuple[Path, Path]:
    """Make wheel and source archive in `out`.

    Raises:
        ReleaseError: the build failed.
    """
    _run([sys.executable, "-m", "hatchling", "build", "-d", str(out)], folder=root)
    (wheel,), (archive,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, archive


def check_packages(root: Path, wheel: Path, archive: Path) -> list[str]:
    """One line for each thing that is wrong with them."""
    lines = []
    shipped = set(_names_in(wheel))
    expected = _tracked(root)
    lines += [f"{wheel.name} lacks {name}" for name in sorted(expected - shipped)]
    lines += [
        f"{wheel.name} holds {name}, which is not committed below {' or '.join(_SOURCE_ROOTS)}"
        for name in sorted(shipped - expected)
        if ".dist-info/" not in name
    ]
    with tempfile.TemporaryDirectory() as folder:
        again, _ = build_packages(root, Path(folder) / "again")
        if again.read_bytes() != wheel.read_bytes():
            lines.append(f"{wheel.name} is another one each time it is made")
        # A source archive that lacks something makes a smaller wheel, or none.
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        _run(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", f"{folder}/of-archive"],
            folder=Path(folder) / archive.name.removesuffix(".tar.gz"),
        )
        (of_archive,) = Path(folder, "of-archive").glob("*.whl")
        lines += [
            f"a wheel made of {archive.name} lacks {name}" for name in sorted(shipped - set(_names_in(of_archive)))
        ]
        lines += _starts(wheel, Path(folder) / "installed")
    return lines


def _names_in(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as opened:
        return opened.namelist()


def _tracked(root: Path) -> set[str]:
    """Committed files of both packages, by their place in a wheel."""
    listed = _run(["git", "ls-files", "-z", "--", *_SOURCE_ROOTS], folder=root).split("\0")
    return {name.split("/", 1)[1] for name in listed if name}


def _starts(wheel: Path, target: Path) -> list[str]:
    """Whether the commands of the wheel, and not of this checkout, answer with its version."""
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(target)  # noqa: S202 - made here a moment ago
    version = wheel.name.split("-")[1]
    lines = []
    for module in ("gpuwaste.cli.main", "gpuwaste_agent.main"):
        code = f"import sys; sys.path.insert(0, {str(target)!r}); from {module} import main; sys.exit(main())"
        # Isolated: neither the folder nor the environment adds another place to import from.
        said = _run([sys.executable, "-I", "-c", code, "--version"], folder=target)
        if version not in said:
            lines.append(f"{module} of {wheel.name} says it is {said.strip()!r}")
    return lines


def _run(argv: list[str], *, folder: Path) -> str:
    environment = {**os.environ, "SOURCE_DATE_EPOCH": _EPOCH}
    done = subprocess.run(
        argv, cwd=folder, env=environment, capture_output=True, text=True, timeout=_BUILD_SECONDS, check=False
    )
    if done.returncode:
        end = (done.stderr.strip() or done.stdout.strip()).splitlines()[-5:]
        raise ReleaseError(f"{' '.join(argv[:5])} … ended with {done.returncode}: {' | '.join(end)}")
    return done.stdout
