"""The ledger's columns: one row a holder, or a part that nobody holds, of one resource in one hour."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

__all__ = [
    "AMOUNT_COLUMNS",
    "FREE_CATEGORIES",
    "HOLDER_CATEGORIES",
    "KEY_COLUMNS",
    "LABEL_COLUMNS",
    "LEDGER_SCHEMA",
    "PRICE_COLUMNS",
    "ROW_KINDS",
    "SCHEMA_VERSION",
    "UNITS_PER_HOUR",
    "UNIT_COST_TYPE",
    "WASTE_CATEGORIES",
]

SCHEMA_VERSION: Final = "1"
UNIT_COST_TYPE: Final = pa.decimal128(38, 18)
ROW_KINDS: Final = ("holder", "free", "unattributed", "unprovisioned")

UNITS_PER_HOUR: Final = {"gpu": 3_600 * 10**9, "cpu": 3_600 * 10**6, "memory": 3_600 << 30}
"""By resource, how much of an amount column one resource-hour is, the hour that unit costs are of: a GPU-hour in
nanoseconds, a core-hour in milli-core-milliseconds, a GiB-hour in byte-seconds."""

KEY_COLUMNS: Final = (
    "hour",
    "cluster",
    "row_kind",
    "node_uid",
    "resource",
    "gpu_uuid",
    "parent_id",
    "slice_id",
    "pod_uid",
    "container",
)
LABEL_COLUMNS: Final = (
    "node",
    "provider_id",
    "pool",
    "gpu_model",
    "namespace",
    "workload_kind",
    "workload_name",
    "workload_uid",
    "pod",
    "team",
)
FREE_CATEGORIES: Final = ("unhealthy", "stranded", "unallocated")
HOLDER_CATEGORIES: Final = ("unhealthy", "unmeasured", "starting", "idle", "underused")
WASTE_CATEGORIES: Final = (
    "unhealthy",
    "stranded",
    "unallocated",
    "unmeasured",
    "starting",
    "idle",
    "underused",
)
AMOUNT_COLUMNS: Final = (
    "owned",
    "held",
    "duty",
    "effective",
    "effective_low",
    "effective_high",
    "borrowed",
    "lent",
    *WASTE_CATEGORIES,
)
"""int64 nanoseconds of GPU; of CPU milli-core-milliseconds, of memory byte-seconds.

Null duty or effective is unmeasured; a category that cannot occur is 0.
"""

PRICE_COLUMNS: Final = (
    "list_unit_cost",
    "contracted_unit_cost",
    "billed_unit_cost",
    "effective_unit_cost",
)
"""Cost of one resource-hour in `currency`; null where no price is known.

Money = unit cost × amount / UNITS_PER_HOUR.
"""

LEDGER_SCHEMA: Final = pa.schema(
    [
        pa.field("hour", pa.timestamp("us", tz="UTC"), nullable=False),
        *(pa.field(name, pa.string(), nullable=False) for name in KEY_COLUMNS[1:]),
        *(pa.field(name, pa.string(), nullable=False) for name in LABEL_COLUMNS),
        *(pa.field(name, pa.int64()) for name in AMOUNT_COLUMNS),
        *(pa.field(name, UNIT_COST_TYPE) for name in PRICE_COLUMNS),
        pa.field("currency", pa.string()),
        pa.field("price_source", pa.string()),
        pa.field("price_date", pa.string()),
        pa.field("origin", pa.string()),
        pa.field("coverage_ppm", pa.int32()),
    ],
    metadata={"gpuwaste_schema": f"ledger/{SCHEMA_VERSION}"},
)
"""Keys and labels that do not apply are empty strings, so that rows sort and group without nulls."""
