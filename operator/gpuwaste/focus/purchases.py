"""Which purchase of capacity (GPUReservation) a charge is of, and for whom it was bought, as the ledger tells it.

A purchase has a row in every hour of its term. GPUs that are there say by their price that a reservation covers them;
which one it is follows from their model, pool and price.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.ledger.unprovisioned import BOOTING
from gpuwaste.model.grouping import group_rows

if TYPE_CHECKING:
    from typing import Any

__all__ = ["PURCHASE_COLUMNS", "purchases_of"]

PURCHASE_COLUMNS: Final = ("purchase", "owner_namespace", "owner_team")
_SOURCE: Final = "Reservation"
_ANY_POOL: Final = "default"
_KEY: Final = ("cluster", "gpu_model", "pool", "effective_unit_cost")


def purchases_of(ledger: pa.Table, rows: pa.Table) -> dict[str, pa.Array]:
    """For each row the identity of its purchase, and the namespace and team it was bought for; empty where none is.

    A GPU that several purchases may cover at the same price is of none of them: a guess would be charged to somebody.

    Args:
        ledger: all rows of the hours, purchases of which nothing is missing among them.
        rows: rows of GPUs and of missing capacity.
    """
    nothing = {name: pa.array([""]).take(pa.array([0] * len(rows), pa.int32())) for name in PURCHASE_COLUMNS}
    missing = pc.and_(pc.equal(ledger["row_kind"], "unprovisioned"), pc.not_equal(ledger["parent_id"], BOOTING))
    bought = ledger.filter(pc.and_(missing, pc.not_equal(ledger["parent_id"], "")))
    if not len(bought):
        return nothing
    groups = group_rows([bought[name] for name in (*_KEY, "parent_id")])
    known = bought.take(pa.array(groups.first)).to_pylist()
    kinds = group_rows([rows[name] for name in (*_KEY, "row_kind", "parent_id", "price_source")])
    found = [_purchase(row, known) for row in rows.take(pa.array(kinds.first)).to_pylist()]
    at = pa.array(kinds.of)
    return {name: pa.array([purchase[name] for purchase in found], pa.string()).take(at) for name in PURCHASE_COLUMNS}


def _purchase(row: dict[str, Any], known: list[dict[str, Any]]) -> dict[str, str]:
    """The purchase of a row: its own, or the one that covers it."""
    if row["row_kind"] == "unprovisioned":
        if row["parent_id"] in {"", BOOTING}:
            return dict.fromkeys(PURCHASE_COLUMNS, "")
        return _named(row)
    pool = (row["pool"], f"{row['gpu_model']}/{_ANY_POOL}")
    may = [
        one
        for one in known
        if row["price_source"] == _SOURCE
        and (one["cluster"], one["gpu_model"]) == (row["cluster"], row["gpu_model"])
        and one["pool"] in pool
    ]
    if len({one["parent_id"] for one in may}) > 1:
        may = [one for one in may if one["effective_unit_cost"] == row["effective_unit_cost"]]
    names = {one["parent_id"] for one in may}
    return _named(may[0]) if len(names) == 1 else dict.fromkeys(PURCHASE_COLUMNS, "")


def _named(row: dict[str, Any]) -> dict[str, str]:
    return {"purchase": row["parent_id"], "owner_namespace": row["namespace"], "owner_team": row["team"]}
