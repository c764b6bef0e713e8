"""NVLink islands: which GPUs pods get whose GPUs must be joined, and what that takes as a resource.

With islands of up to four GPUs a count says exactly whether such pods fit: in an island of four a pod of three or four
takes all of it and a pair half, in smaller ones every pod takes all of it. Pods that need no island take what is left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpuwaste.packing.instance import Instance, Ints

__all__ = ["island_resources", "whole_gpus"]

_LARGEST = 4
_WIDEST_HALF = 2
_NEVER, _ALWAYS = 10**6, 10**9
"""What a pod wider than the island takes of it, and what a node without such islands has."""


def island_resources(instance: Instance) -> tuple[Ints, Ints]:
    """A resource for each size of islands: int64[P, I] what pods take, int64[N, I] what nodes have.

    Raises:
        InputError: a node has several islands of more than four GPUs each.
    """
    several = instance.islands < instance.node_gpus
    sizes = np.unique(instance.islands[several]).tolist() if instance.in_island.any() else []
    takes = np.zeros((len(instance.pod_names), len(sizes)), dtype=np.int64)
    has = np.full((len(instance.node_names), len(sizes)), _ALWAYS, dtype=np.int64)
    for column, size in enumerate(sizes):
        mine = several & (instance.islands == size)
        if size > _LARGEST:
            name = instance.node_names[int(mine.argmax())]
            raise InputError(
                f"node {name} has several islands of {size} GPUs; more than {_LARGEST} are not supported",
                where="node_island_gpus",
                fix="leave the islands out, and keep pods that need them off the node",
            )
        halves = 2 if size == _LARGEST else 1
        has[mine, column] = halves * (instance.node_gpus[mine] // size)
        width = instance.pod_gpus
        need = np.where(width > size, _NEVER, np.where(width <= _WIDEST_HALF, 1, halves))
        takes[:, column] = np.where(instance.in_island, need, 0)
    return takes, has


def whole_gpus(
    widths: Sequence[int], joined: Sequence[bool], *, gpus: int, island: int
) -> list[tuple[int, ...]] | None:
    """GPU indexes of each pod of whole GPUs on one node; None if they do not fit.

    The last GPUs are taken, so that shares find the first ones free; pods of one island first, the widest first, each
    in the fullest island that has room.

    Args:
        widths: GPUs of each pod.
        joined: whether they must be in one island.
        gpus: of the node.
        island: GPUs of each island.
    """
    free = [list(range(first, min(first + island, gpus))) for first in range(0, gpus, max(island, 1))]
    found: list[tuple[int, ...]] = [()] * len(widths)
    for pod in sorted((pod for pod, yes in enumerate(joined) if yes), key=lambda pod: -widths[pod]):
        able = [one for one in reversed(free) if len(one) >= widths[pod]]
        if not able:
            return None
        chosen = min(able, key=len)
        found[pod] = tuple(chosen[-widths[pod] :])
        del chosen[-widths[pod] :]
    rest = [gpu for one in free for gpu in one]
    other = [pod for pod, yes in enumerate(joined) if not yes]
    first = len(rest) - sum(widths[pod] for pod in other)
    if first < 0:
        return None
    for pod in other:
        found[pod] = tuple(rest[first : first + widths[pod]])
        first += widths[pod]
    return found
