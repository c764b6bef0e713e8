"""Things made once per machine and kept: a folder in the user's cache, filled under a lock."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

__all__ = ["cache_folder", "digest_of", "made_once"]


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Where finished things are kept: `$XDG_CACHE_HOME/gpuwaste`, else `~/.cache/gpuwaste`."""
    base = environment.get("XDG_CACHE_HOME", "")
    # The standard says to ignore a relative path there.
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "gpuwaste"


def digest_of(files: Iterable[Path], *more: str) -> str:
    """Sixteen hex digits that change with any byte or name of `files` and with any string of `more`."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        digest.update(file.read_bytes())
    for text in more:
        digest.update(f"\0{text}".encode())
    return digest.hexdigest()[:16]


def made_once(target: Path, make: Callable[[Path], None]) -> Path:
    """Return `target`, a folder; if it does not exist, let `make` fill it first.

    `make` gets an empty folder beside the target, which is renamed to it when `make` returns: a killed
    build leaves no half-filled target. A lock keeps two processes from making the same thing at once.
    """
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.with_name(f"{target.name}.lock")):
        if target.is_dir():  # another process made it while this one waited
            return target
        draft = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
        try:
            make(draft)
            draft.chmod(0o755)
            draft.rename(target)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
    return target


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
