"""Rows of the ledger before they have labels: parts of windows summed over the hour, by who had them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from gpuwaste.ledger.columns import Texts
from gpuwaste.ledger.schema import AMOUNT_COLUMNS, FREE_CATEGORIES, HOLDER_CATEGORIES
from gpuwaste.model.grouping import group_numbers, sum_by

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpuwaste.ledger.accounting import Split
    from gpuwaste.ledger.columns import Int64s
    from gpuwaste.ledger.windows import HolderWindows, ParentWindows

__all__ = ["HOUR_ROWS", "ROW_KEY", "free_rows", "holder_rows", "hour_rows", "sum_hour", "unattributed_rows"]

ROW_KEY: Final = ("row_kind", "node", "resource", "gpu_uuid", "parent_id", "slice_id", "pod_uid", "container")
_NAMES: Final = ("namespace", "pod", "origin")
HOUR_ROWS: Final = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in ROW_KEY),
        *(pa.field(name, pa.string()) for name in _NAMES),
        *(pa.field(name, pa.int64()) for name in AMOUNT_COLUMNS),
        pa.field("covered", pa.int64()),
    ]
)
"""Key, names and sums of a row; `covered` is Σ held × the part that readings cover."""


def hour_rows(count: int, keys: Mapping[str, Any], amounts: Mapping[str, Any]) -> pa.Table:
    """Rows of HOUR_ROWS from arrays of `count`; a text that is not given is empty, an amount 0."""
    columns: dict[str, Any] = {}
    for name in HOUR_ROWS.names:
        if name in AMOUNT_COLUMNS or name == "covered":
            value = amounts.get(name)
            columns[name] = pa.array(np.zeros(count, np.int64)) if value is None else value
        else:
            value = keys.get(name)
            columns[name] = pa.array([""] * count, pa.string()) if value is None else value
    if "resource" not in keys:
        columns["resource"] = pa.array(["gpu"] * count, pa.string())
    return pa.table(columns, schema=HOUR_ROWS)


def _summed(kind: str, keys: Mapping[str, Texts], amounts: Mapping[str, Int64s], known: Int64s | None) -> pa.Table:
    """Sum windows by their key.

    Args:
        kind: the row_kind of all of them.
        keys: columns of the key, and of names, of which the last in their order is kept.
        amounts: columns of int64[n].
        known: which of the windows have a duty and an effective amount; None where all have.
    """
    grouped = [name for name in ROW_KEY if name in keys]
    groups = group_numbers([keys[name].codes for name in grouped])
    count = len(groups.first)
    columns: dict[str, Any] = {name: keys[name].take(groups.first).arrow() for name in grouped}
    for name in _NAMES:
        if name in keys:
            last = np.zeros(count, np.int64)
            np.maximum.at(last, groups.of, keys[name].codes)
            columns[name] = Texts(codes=last, names=keys[name].names).arrow()
    columns["row_kind"] = pa.array([kind] * count, pa.string())
    sums: dict[str, Any] = {name: sum_by(groups.of, values, count) for name, values in amounts.items()}
    if known is not None:
        unknown = sum_by(groups.of, known, count) == 0
        for name in ("duty", "effective", "effective_low", "effective_high"):
            sums[name] = pa.array(sums[name], mask=unknown)
    return hour_rows(count, columns, sums)


def holder_rows(holding: HolderWindows, split: Split, pod_uids: Texts) -> pa.Table:
    """What each holder had in the hour; duty and effective are null where no window of it was measured.

    Args:
        holding: its windows.
        split: the parts of them.
        pod_uids: UIDs of the pods, those that windows do not name among them.
    """
    holders = holding.holders
    measured = holders.measured.astype(np.int64)
    effective = split.effective * measured
    # Scaling to capacity may have pushed the point below or above the interval it came from.
    amounts = {
        "owned": holders.held,
        "held": holders.held,
        "duty": holders.duty * measured,
        "effective": effective,
        "effective_low": np.minimum(holding.low, effective) * measured,
        "effective_high": np.maximum(holding.high, effective) * measured,
        "borrowed": split.borrowed,
        "lent": split.holder_lent,
        **{name: split.holder[name] for name in HOLDER_CATEGORIES},
        "covered": holding.covered,
    }
    return _summed("holder", {**holding.names, "pod_uid": pod_uids}, amounts, measured)


def free_rows(parents: ParentWindows, split: Split) -> pa.Table:
    """What nobody held of each parent."""
    gross = sum((split.free_gross[name] for name in FREE_CATEGORIES), np.zeros(len(parents.start), np.int64))
    some = gross > 0
    amounts = {"owned": gross[some], "lent": split.free_lent[some]}
    amounts |= {name: split.free[name][some] for name in FREE_CATEGORIES}
    return _summed("free", {name: column.take(some) for name, column in parents.names.items()}, amounts, None)


def unattributed_rows(parents: ParentWindows, split: Split) -> pa.Table:
    """What ran on each parent without a known holder."""
    some = split.unattributed > 0
    ran = split.unattributed[some]
    same = ("duty", "effective", "effective_low", "effective_high", "borrowed")
    names = {name: column.take(some) for name, column in parents.names.items()}
    return _summed("unattributed", names, dict.fromkeys(same, ran), None)


def sum_hour(rows: pa.Table) -> pa.Table:
    """One row a key. A sum over rows of which none was measured stays null."""
    table = rows.group_by(list(ROW_KEY), use_threads=False).aggregate(
        [*((name, "sum") for name in (*AMOUNT_COLUMNS, "covered")), *((name, "max") for name in _NAMES)]
    )
    names = [name.removesuffix("_sum").removesuffix("_max") for name in table.schema.names]
    return table.rename_columns(names)
