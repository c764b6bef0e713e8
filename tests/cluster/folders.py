"""Temporary folders that say who uses them, so that those of killed runs can be swept."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["owned_folder", "sweep"]

_PREFIX = "gpuwaste-cluster-"
_LOCK = "lock"


@contextmanager
def owned_folder(parent: Path | None = None) -> Iterator[Path]:
    """A new folder in `parent` (default: where temporary files go), removed at the end.

    It holds a locked file for as long as this process lives. Folders of processes that are gone are removed
    at the start.
    """
    parent = parent or Path(tempfile.gettempdir())
    sweep(parent)
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=_PREFIX))
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder)
        os.close(descriptor)


def sweep(parent: Path) -> list[Path]:
    """Remove the folders in `parent` whose owner is gone, and say which."""
    swept = []
    for folder in sorted(parent.glob(f"{_PREFIX}*")):
        # Another user's folder cannot be opened, and one without the file is being made or removed just now.
        with suppress(OSError):
            descriptor = os.open(folder / _LOCK, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
                swept.append(folder)
            finally:
                os.close(descriptor)
    return swept
