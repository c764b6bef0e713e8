"""The rest of a node: the CPU and memory that pods hold beside its GPUs, where they carry a part of its price.

A node's price may be divided between its GPUs, its CPU and its memory. In each hour of a charge the weight of the
whole node, the owned nanoseconds of its GPUs, is divided among the three by what each costs, and each of the three
parts among those who hold it. What pods do with CPU and memory is not measured, so these are divided by what was held,
whatever the method.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.ledger.schema import UNITS_PER_HOUR
from gpuwaste.model.grouping import group_rows, only

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Int64s = NDArray[np.int64]

__all__ = ["REST", "budgets", "money_by", "node_cells", "rest_rows"]

REST: Final = ("cpu", "memory")
_NODE_HOUR: Final = ("cluster", "node_uid", "hour")


def rest_rows(ledger: pa.Table) -> pa.Table:
    """The rows of CPU and memory that cost something."""
    if pc.all(pc.equal(ledger["resource"], "gpu"), min_count=0).as_py():
        return ledger.slice(0, 0)
    costs = pc.greater(pc.fill_null(ledger["effective_unit_cost"].cast(pa.float64()), 0.0), 0.0)
    owned = pc.greater(ledger["owned"], 0)
    return only(ledger, pc.and_(pc.not_equal(ledger["resource"], "gpu"), pc.and_(costs, owned)))


def node_cells(gpus: pa.Table, cells: Int64s, rest: pa.Table) -> Int64s:
    """int64[n_rest], the first cell of GPUs of the same node and hour; −1 where there is none.

    Args:
        gpus: rows of GPUs.
        cells: int64[n_gpus], the cell of each.
        rest: rows of CPU and memory.
    """
    both = group_rows([pa.chunked_array([*gpus[name].chunks, *rest[name].chunks]) for name in _NODE_HOUR])
    nowhere = np.iinfo(np.int64).max
    first = np.full(len(both.first), nowhere, np.int64)
    np.minimum.at(first, both.of[: len(gpus)], cells)
    found = first[both.of[len(gpus) :]]
    return np.where(found == nowhere, -1, found)


def budgets(rows: pa.Table, cell: Int64s, owned: Int64s) -> dict[str, Int64s]:
    """How many of each cell's owned nanoseconds stand for its GPUs, its CPU and its memory, by what each costs.

    Args:
        rows: of all three.
        cell: int64[n], the cell of each.
        owned: int64[n_cells].
    """
    unit = np.select(
        [pc.equal(rows["resource"], name).to_numpy() for name in REST], [1.0 / UNITS_PER_HOUR[r] for r in REST]
    )
    unit = np.where(unit == 0, 1.0 / UNITS_PER_HOUR["gpu"], unit)
    price = pc.fill_null(rows["effective_unit_cost"].cast(pa.float64()), 0.0).to_numpy()
    cost = price * rows["owned"].to_numpy() * unit
    total = np.bincount(cell, weights=cost, minlength=len(owned))
    found = {}
    for name in REST:
        mine = pc.equal(rows["resource"], name).to_numpy()
        part = np.bincount(cell[mine], weights=cost[mine], minlength=len(owned))
        share = np.divide(part, total, out=np.zeros(len(owned)), where=total > 0)
        found[name] = np.floor(share * owned).astype(np.int64)
    return found | {"gpu": owned - found["cpu"] - found["memory"]}


def money_by(rows: pa.Table, group: Int64s, groups: int, price: str) -> Sequence[Decimal]:
    """What the CPU and memory of each group cost, to the last digit that a sum of sixty digits has.

    Args:
        rows: of CPU and memory.
        group: int64[n], the group of each.
        groups: the number of groups.
        price: the column with the cost of a resource-hour.
    """
    totals = [Decimal(0)] * groups
    table = pa.table({"group": group, **{name: rows[name] for name in ("resource", price, "owned")}})
    sums = table.group_by(["group", "resource", price]).aggregate([("owned", "sum")])
    for row in sums.to_pylist():
        if row[price] is not None:
            totals[row["group"]] += row[price] * row["owned_sum"] / UNITS_PER_HOUR[row["resource"]]
    return totals
