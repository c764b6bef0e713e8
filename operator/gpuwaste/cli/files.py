"""Files that a command leaves behind: there completely, or not at all."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from gpuwaste.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["atomic_text"]


@contextmanager
def atomic_text(path: Path) -> Iterator[IO[str]]:
    """Write UTF-8 text beside `path` and rename it into place at the end; on an error nothing is left.

    Raises:
        InputError: there is no such folder.
    """
    if not path.absolute().parent.is_dir():
        raise InputError("its folder does not exist", where=str(path), fix=f"mkdir -p {path.parent}")
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as stream:
            yield stream
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
