"""From fillings that cover the demand to one node after the other that holds exactly the pods there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gpuwaste.packing.columns import Filling
    from gpuwaste.packing.instance import Ints
    from gpuwaste.packing.shapes import Problem

__all__ = ["trim"]


def trim(problem: Problem, filling: Filling) -> tuple[Ints, Ints]:
    """Take out pods that are covered more often than they exist, from the nodes with least on them first.

    Returns:
        int64[N] type and int64[N, S] pods of each node in use.
    """
    kind = np.repeat(filling.kind, filling.copies)
    nodes = np.repeat(filling.pattern, filling.copies, axis=0)
    surplus = nodes.sum(axis=0) - problem.demand
    fullness = nodes @ np.maximum(problem.total_milli, 1) / np.maximum(problem.type_gpus[kind], 1)
    order = np.argsort(fullness, kind="stable")
    for shape in np.flatnonzero(surplus > 0).tolist():
        column = nodes[order, shape]
        before = np.cumsum(column) - column
        nodes[order, shape] = column - np.clip(surplus[shape] - before, 0, column)
    used = nodes.any(axis=1)
    return kind[used], nodes[used]
