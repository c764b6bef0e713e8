"""Compute a few items ahead of their consumer, in order, on threads: Arrow and numpy release the interpreter's lock."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["ahead"]

_WORKERS: Final = 2
"""Two keep both cores of a small machine busy, and bound the memory to three items."""

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def ahead(function: Callable[[Item], Answer], items: Iterable[Item]) -> Iterator[Answer]:
    """`map(function, items)`, but while one answer is used the next two are computed.

    An error of the function is raised where its answer would have come; what was not begun by then is not begun.
    """
    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="focus") as pool:
        waiting: deque[Future[Answer]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > _WORKERS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
