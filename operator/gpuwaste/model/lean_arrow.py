"""Arrow without what it brings along unasked, for commands whose memory matters."""

from __future__ import annotations

import contextlib
import ctypes
import sys

import pyarrow as pa

__all__ = ["lean_arrow"]

_M_ARENA_MAX = -8
"""Of glibc's `malloc.h`."""


class _Hidden:
    """A finder of modules that says of pandas that it is not installed."""

    def find_spec(self, name: str, *_: object) -> None:
        """Raise for pandas; others look for the rest."""
        if name == "pandas":
            raise ModuleNotFoundError("pandas is left out", name=name)


def lean_arrow() -> None:
    """Keep Arrow from loading pandas, and let it and all threads take memory from one heap. Call it early.

    Arrow looks for pandas once, when it first makes an array, and loads it where it is installed: 45 MB and a third
    of a second for data frames that nobody here makes. After this it has looked; others may still import pandas.
    Arrow's own allocator keeps what an hour of a large ledger needed; the system's gives it to whoever asks next. But
    glibc has a heap for every thread, and none takes from the other: with one, a tenth of a large scan is saved.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another system's library has no such call
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
    hidden = _Hidden()
    sys.meta_path.insert(0, hidden)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(hidden)
    pa.set_memory_pool(pa.system_memory_pool())
