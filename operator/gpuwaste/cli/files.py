"""Files that a command leaves behind: there completely, or not at all."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["atomic_text"]


@contextmanager
def atomic_text(path: Path) -> Iterator[IO[str]]:
    """Write UTF-8 text beside `path` and rename it into place at the end; on an error nothing is left."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as stream:
            yield stream
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
