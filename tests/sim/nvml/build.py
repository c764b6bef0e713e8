"""Builds the simulated driver's library once per version of its sources, into the user's cache.

`python -m tests.sim.nvml.build` prints the folder that holds `libnvidia-ml.so.1` and `gpuwaste-load`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.cluster.cache import cache_folder, digest_of, made_once

from gpuwaste_agent import products

__all__ = ["SANITIZE", "BuildError", "built"]

_HERE = Path(__file__).parent
_ROOT = _HERE.parents[2]
_REQUIREMENTS = _HERE / "requirements.txt"
SANITIZE = "-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer"


class BuildError(Exception):
    """The library cannot be built; the message ends with what the compiler or pip said."""


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=_ROOT)
    if done.returncode:
        tail = (done.stderr + done.stdout).strip()[-2000:]
        raise BuildError(f"`{' '.join(command[:6])} …` failed with {done.returncode}:\n{tail}")


def header_folder() -> Path:
    """The folder with NVIDIA's `nvml.h`, from the package index at the pinned version."""

    def make(folder: Path) -> None:
        pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
        _run([*pip, "--only-binary=:all:", "--require-hashes", "-r", str(_REQUIREMENTS), "-d", str(folder)])
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith("/include/nvml.h"))
            (folder / "nvml.h").write_bytes(archive.read(name))
        wheel.unlink()

    return made_once(cache_folder(os.environ) / f"nvml-header-{digest_of([_REQUIREMENTS])}", make)


def built(sanitize: str = "") -> Path:
    """Return the folder with the library and the load program, building them where their sources changed.

    Args:
        sanitize: compiler flags of sanitizers; empty for none.

    Raises:
        BuildError: the header cannot be had, or the compiler refuses.
    """
    sources = sorted(
        path
        for pattern in ("src/*", "layout.py", "generate.py", "*.yaml", "Makefile", "requirements.txt")
        for path in _HERE.glob(pattern)
    )
    digest = digest_of([*sources, Path(str(products.__file__))], sanitize)
    header = header_folder()

    def make(folder: Path) -> None:
        settings = [f"OUT={folder}", f"INCLUDE={header}", f"PYTHON={sys.executable}", f"SANITIZE={sanitize}"]
        _run(["nice", "-n", "5", "make", "-s", "-f", str(_HERE / "Makefile"), *settings])

    return made_once(cache_folder(os.environ) / f"nvml-{digest}", make)


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{built()}\n")
    except BuildError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(3)
