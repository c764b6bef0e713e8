"""What was charged in a month, summed by day and receiver: the rows that other tools are given."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpuwaste.focus.archive import Archive
    from gpuwaste.focus.manifest import Manifest
    from gpuwaste.focus.periods import Period

__all__ = ["charged_rows", "published_in"]

_TIME: Final = pa.timestamp("us", tz="UTC")
_COSTS: Final = {
    "billed_cost": "BilledCost",
    "effective_cost": "EffectiveCost",
    "list_cost": "ListCost",
    "quantity": "PricingQuantity",
}
_LABELS: Final = {
    "category": "ChargeCategory",
    "currency": "BillingCurrency",
    "account": "BillingAccountId",
    "sub_account": "SubAccountId",
    "region": "RegionId",
    "provider": "ServiceProviderName",
    "service": "ServiceName",
    "service_category": "ServiceCategory",
    "service_subcategory": "ServiceSubcategory",
    "unit": "PricingUnit",
    "invoice": "InvoiceId",
    "cluster": "x_ClusterName",
    "team": "x_Team",
    "namespace": "x_Namespace",
    "workload_kind": "x_WorkloadKind",
    "workload_name": "x_WorkloadName",
    "gpu_model": "x_GpuModel",
    "remainder": "x_RemainderReason",
}
_OTHERS: Final = (
    "BillingPeriodStart",
    "ChargePeriodStart",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "AllocatedResourceId",
    "AllocatedResourceName",
    "Tags",
    "AllocatedTags",
)
_COLUMNS: Final = (*_COSTS.values(), *_LABELS.values(), *_OTHERS)
_KEY: Final = ("day", *_LABELS, "resource_id", "resource_name", "resource_type", "tags")


def published_in(archive: Archive, month: Period, *, only_closed: bool = False) -> list[tuple[Period, Manifest]]:
    """The periods that overlap a month, as first published, oldest first."""
    found = []
    for period in archive.periods():
        if period.start < month.end and period.end > month.start:
            manifest = archive.manifest(period)
            if manifest is not None and (manifest.closed or not only_closed):
                found.append((period, manifest))
    return found


def charged_rows(archive: Archive, month: Period, *, only_closed: bool = False) -> list[dict[str, Any]]:
    """What was charged in a billing month, adjustments included, one row a day, receiver, service and kind of charge.

    A row of a bill that corrects an earlier month is charged on the first day of the month that bills it. Sums are
    exact decimals.

    Args:
        archive: published periods.
        month: a billing period.
        only_closed: leave out what may still change.
    """
    pieces = [
        _summed(rows)
        for _, manifest in published_in(archive, month, only_closed=only_closed)
        for rows in _pieces(archive, manifest, month)
    ]
    if not pieces:
        return []
    whole = pa.concat_tables(pieces).group_by(list(_KEY)).aggregate([(name, "sum") for name in _COSTS])
    renamed = whole.rename_columns([name.removesuffix("_sum") for name in whole.column_names])
    rows: list[dict[str, Any]] = renamed.sort_by([(name, "ascending") for name in _KEY]).to_pylist()
    return rows


def _pieces(archive: Archive, manifest: Manifest, month: Period) -> Iterator[pa.Table]:
    (name,) = (entry.name for entry in manifest.files if entry.format == "parquet")
    with pq.ParquetFile(io.BytesIO(archive.store.read(name))) as file:
        known = [column for column in _COLUMNS if column in file.schema_arrow.names]
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group, columns=known)
            mine = pc.equal(rows["BillingPeriodStart"].cast(_TIME), pa.scalar(month.start, _TIME))
            rows = rows.filter(mine)
            if len(rows):
                yield _derived(rows, month)


def _derived(rows: pa.Table, month: Period) -> pa.Table:
    count = len(rows)

    def text(name: str) -> pa.Array:
        if name not in rows.column_names:
            return pa.nulls(count, pa.string())
        return pa.concat_arrays(rows[name].cast(pa.string()).chunks)

    charged = pa.concat_arrays(rows["ChargePeriodStart"].cast(_TIME).chunks)
    first = pa.scalar(month.start, _TIME)
    start = pc.if_else(pc.less(charged, first), first, charged)
    received, reason = text("AllocatedResourceId"), text("x_RemainderReason")
    nobody = pc.binary_join_element_wise(pc.coalesce(text("x_ClusterName"), pa.scalar("")), reason, "/")
    divided = pc.or_(pc.is_valid(received), pc.is_valid(reason))
    columns: dict[str, Any] = {
        "day": pc.strftime(start.cast(pa.timestamp("s", tz="UTC")), format="%Y-%m-%d"),
        **{name: text(column) for name, column in _LABELS.items()},
        # The node is left out: a team's part of fifty nodes is one row.
        "resource_id": pc.coalesce(received, nobody, text("ResourceId")),
        "resource_name": pc.coalesce(text("AllocatedResourceName"), reason, text("ResourceName")),
        "resource_type": pc.if_else(divided, "Share", text("ResourceType")),
        "tags": _merged(text("Tags"), text("AllocatedTags")),
        **{name: _wide(rows[column]) for name, column in _COSTS.items()},
    }
    return pa.table(columns)


def _summed(rows: pa.Table) -> pa.Table:
    summed = rows.group_by(list(_KEY)).aggregate([(name, "sum") for name in _COSTS])
    return summed.rename_columns([name.removesuffix("_sum") for name in summed.column_names])


def _wide(amounts: pa.ChunkedArray) -> pa.ChunkedArray:
    # One scale for all: the files of a series may have other ones, and their sums more digits.
    return pc.fill_null(amounts, 0).cast(pa.decimal256(76, 38))


def _merged(tags: pa.Array, allocated: pa.Array) -> pa.Array:
    """Tags of the resource and of its receiver as one JSON object, keys sorted."""
    pairs = list(zip(tags.to_pylist(), allocated.to_pylist(), strict=True))
    merged = {pair: _object(*pair) for pair in set(pairs)}
    return pa.array([merged[pair] for pair in pairs], pa.string())


def _object(tags: str | None, allocated: str | None) -> str:
    both = json.loads(tags or "{}") | json.loads(allocated or "{}")
    return json.dumps(both, sort_keys=True, separators=(",", ":"))
