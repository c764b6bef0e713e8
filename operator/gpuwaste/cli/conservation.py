"""Check a stored ledger against the laws of the accounting, and against the inputs it was computed from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.ledger.catalog import find_hours, hour_footers
from gpuwaste.ledger.inputs import InputStore
from gpuwaste.ledger.read import read_hours
from gpuwaste.ledger.schema import AMOUNT_COLUMNS, KEY_COLUMNS, WASTE_CATEGORIES
from gpuwaste.model.units import HOUR, NS_PER_HOUR

if TYPE_CHECKING:
    from datetime import datetime

    from gpuwaste.ledger.catalog import HourPlace
    from gpuwaste.ledger.store import Store

__all__ = ["broken_laws", "check_rows", "stale_hours"]

_ROW_LAWS = {
    "holder": "held + borrowed = effective + net waste + lent",
    "free": "owned = net waste + lent",
}
_GPU_LAW = "owned = effective + net waste"
_STALE = "the ledger was not computed from the stored inputs; run `gpuwaste replay`"
_LENDING_LAW = "lent = borrowed"


def broken_laws(store: Store, cluster: str, *hours: datetime) -> list[dict[str, Any]]:
    """What is wrong with hours of a ledger: rows `cluster, hour, place, law, difference_ns`; none where all holds.

    Raises:
        InputError: a file has other columns than the ledger.
    """
    stored = find_hours(store, start=min(hours), end=max(hours) + HOUR).get(cluster, {})
    return [
        {"cluster": cluster, "hour": place.hour, **finding}
        for place, table in read_hours(store, [stored[hour] for hour in hours])
        for finding in _broken_in(place, table)
    ]


def _broken_in(stored: HourPlace, table: pa.Table) -> list[dict[str, Any]]:
    found = check_rows(table)
    hour = pa.scalar(stored.hour, table["hour"].type)
    elsewhere = pc.or_(pc.not_equal(table["cluster"], stored.cluster), pc.not_equal(table["hour"], hour))
    lost = pc.sum(elsewhere).as_py()
    if lost:
        found.append(_finding("", f"rows are of the cluster and hour that their place names ({lost} are not)", None))
    ordered = table.sort_by([(key, "ascending") for key in KEY_COLUMNS])
    if not ordered.select(KEY_COLUMNS).equals(table.select(KEY_COLUMNS)):
        found.append(_finding("", "rows are sorted by key", None))
    distinct = table.group_by(list(KEY_COLUMNS)).aggregate([]).num_rows
    if distinct != table.num_rows:
        found.append(_finding("", f"each key stands once ({table.num_rows - distinct} do not)", None))
    return found


def _finding(place: str, law: str, difference_ns: int | None) -> dict[str, Any]:
    return {"place": place, "law": law, "difference_ns": difference_ns}


def check_rows(table: pa.Table) -> list[dict[str, Any]]:
    """The laws of single rows, and of whole GPUs and whole nodes, over the rows of one hour."""
    row = ("node", "resource", "gpu_uuid", "slice_id", "pod")
    found = []
    for kind, law in _ROW_LAWS.items():
        rows = table.filter(pc.equal(table["row_kind"], kind))
        owned = pc.add(_filled(rows, "held"), _filled(rows, "borrowed")) if kind == "holder" else _filled(rows, "owned")
        gap = pc.subtract(owned, pc.add(pc.add(_filled(rows, "effective"), _waste(rows)), _filled(rows, "lent")))
        found += _findings(_with_gap(rows, gap), row, law)
    place = ("node", "resource", "gpu_uuid")
    there = table.filter(pc.not_equal(table["row_kind"], "unprovisioned"))
    columns = {name: _filled(there, name) for name in ("owned", "effective", "borrowed", "lent")}
    sums = pa.table({**{name: there[name] for name in place}, **columns, "waste": _waste(there)})
    sums = sums.group_by(list(place), use_threads=False).aggregate([(n, "sum") for n in (*columns, "waste")])
    parts = pc.add(sums["effective_sum"], sums["waste_sum"])
    found += _findings(_with_gap(sums, pc.subtract(sums["owned_sum"], parts)), place, _GPU_LAW)
    lending = pc.subtract(sums["lent_sum"], sums["borrowed_sum"])
    found += _findings(_with_gap(sums, lending), place, _LENDING_LAW)
    gpus = sums.filter(pc.equal(sums["resource"], "gpu"))
    beyond = pc.max_element_wise(pc.subtract(gpus["owned_sum"], NS_PER_HOUR), 0)
    found += _findings(_with_gap(gpus, beyond), place, "owned is at most the hour")
    for name in AMOUNT_COLUMNS:
        below = table.filter(pc.less(_filled(table, name), 0))
        found += _findings(_with_gap(below, _filled(below, name)), row, f"{name} is 0 or more")
    return found


def _with_gap(table: pa.Table, gap: pa.ChunkedArray) -> pa.Table:
    return table.append_column("gap", gap)


def _filled(table: pa.Table, name: str) -> pa.ChunkedArray:
    return pc.fill_null(table[name], 0)


def _waste(table: pa.Table) -> pa.ChunkedArray:
    total = _filled(table, WASTE_CATEGORIES[0])
    for name in WASTE_CATEGORIES[1:]:
        total = pc.add(total, _filled(table, name))
    return total


def _findings(table: pa.Table, place: tuple[str, ...], law: str) -> list[dict[str, Any]]:
    broken = table.filter(pc.not_equal(table["gap"], 0)).select([*place, "gap"])
    return [_finding(" ".join(row[name] for name in place if row[name]), law, row["gap"]) for row in broken.to_pylist()]


def stale_hours(store: Store, inputs: Store, cluster: str) -> list[dict[str, Any]]:
    """Hours of a cluster whose ledger was not computed from the inputs that are stored now.

    Hours before the oldest stored inputs are left out: inputs are not kept for good.
    """
    stored = find_hours(store).get(cluster, {})
    given = InputStore(inputs, cluster)
    expected = set(given.hours())
    found = []
    oldest = min(expected, default=None)
    due = {hour: place for hour, place in stored.items() if oldest is None or hour >= oldest}
    hashes = {place.hour: footer.get("input_hash", "") for place, footer in hour_footers(store, due.values())}
    for hour in sorted({*due, *expected}):
        if hour not in expected:
            found.append(_finding("", "no inputs of the hour are stored", None) | {"cluster": cluster, "hour": hour})
            continue
        if hashes.get(hour, "") != given.load(hour).input_hash():
            what = _STALE if hour in stored else "the hour is not in the ledger"
            found.append(_finding("", what, None) | {"cluster": cluster, "hour": hour})
    return found
