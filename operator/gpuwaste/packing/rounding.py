"""From fillings that cover the demand to fillings that hold exactly the pods there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.packing.columns import Filling

if TYPE_CHECKING:
    from gpuwaste.packing.instance import Ints
    from gpuwaste.packing.shapes import Problem

__all__ = ["trim"]


def trim(problem: Problem, filling: Filling) -> Filling:
    """Take out pods that are covered more often than they exist, from the nodes with least on them first."""
    surplus = filling.placed - problem.demand
    kinds: list[int] = filling.kind.tolist()
    rows: list[Ints] = list(filling.pattern.copy())
    copies: list[int] = filling.copies.tolist()
    gpus = np.maximum(problem.type_gpus, 1)
    weight = np.maximum(problem.total_milli, 1)
    for shape in np.flatnonzero(surplus > 0).tolist():
        left = int(surplus[shape])
        fullness = [float(row @ weight) / int(gpus[kind]) for kind, row in zip(kinds, rows, strict=True)]
        for group in sorted(range(len(rows)), key=fullness.__getitem__):
            each = int(rows[group][shape])
            if left == 0:
                break
            if each == 0:
                continue
            whole = min(left // each, copies[group])
            part = left - whole * each if whole < copies[group] else 0
            left -= whole * each + part
            # Nodes that keep all of them, nodes that lose all, and at most one that loses some.
            for count, lost in ((whole, each), (1 if part else 0, part)):
                if count:
                    rows.append(rows[group].copy())
                    rows[-1][shape] -= lost
                    kinds.append(kinds[group])
                    copies.append(count)
                    copies[group] -= count
    width = len(problem.demand)
    return Filling.joined(
        np.array(kinds, dtype=np.int64),
        np.array(rows, dtype=np.int64).reshape(-1, width),
        np.array(copies, dtype=np.int64),
    )
