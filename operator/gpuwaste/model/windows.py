"""The table of usage windows: one row a record of an agent, as `inputs/…/windows-*.parquet` holds it."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

__all__ = ["FIGURES", "PROMETHEUS_JOURNAL", "QUALITY_OF", "RECORD_KINDS", "WINDOW_SCHEMA"]

PROMETHEUS_JOURNAL: Final = "prometheus-"
"""How the journal of windows begins that were read from a Prometheus; those of agents are plain UUIDs."""

RECORD_KINDS: Final = ("device", "usage", "node_facts", "gap")
FIGURES: Final[dict[str, pa.DataType]] = {
    "duty_ns": pa.int64(),
    "sm_ns": pa.int64(),
    "tensor_ns": pa.int64(),
    "dram_ns": pa.int64(),
    "enc_ns": pa.int64(),
    "dec_ns": pa.int64(),
    "copy_ns": pa.int64(),
    "pcie_bytes": pa.int64(),
    "nvlink_bytes": pa.int64(),
    "memory_byte_s": pa.float64(),
    "memory_peak_bytes": pa.int64(),
    "energy_mj": pa.int64(),
}
"""Integrals over the window; null is unmeasured. `*_ns` are the parent's own time, without slice weights."""

QUALITY_OF: Final[dict[str, str]] = {
    "duty_ns": "duty",
    "sm_ns": "sm",
    "tensor_ns": "tensor",
    "dram_ns": "dram",
    "enc_ns": "enc",
    "dec_ns": "dec",
    "copy_ns": "copy",
    "pcie_bytes": "pcie",
    "nvlink_bytes": "nvlink",
    "memory_byte_s": "memory",
    "energy_mj": "energy",
}
"""Which quality goes with which figure; the peak shares that of the memory integral."""


def _quality_fields() -> list[pa.Field]:
    fields = []
    for prefix in QUALITY_OF.values():
        fields += [
            pa.field(f"{prefix}_origin", pa.string()),
            pa.field(f"{prefix}_coverage_ppm", pa.int32()),
            pa.field(f"{prefix}_resolution_ms", pa.int32()),
            pa.field(f"{prefix}_low", pa.float64()),
            pa.field(f"{prefix}_high", pa.float64()),
        ]
    return fields


WINDOW_SCHEMA: Final = pa.schema(
    [
        pa.field("journal_id", pa.string(), nullable=False),
        pa.field("seq", pa.int64(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("cluster", pa.string(), nullable=False),
        pa.field("node", pa.string(), nullable=False),
        pa.field("node_uid", pa.string(), nullable=False),
        pa.field("window_start_ns", pa.int64(), nullable=False),
        pa.field("window_ns", pa.int64(), nullable=False),
        pa.field("gpu_uuid", pa.string()),
        pa.field("parent_id", pa.string()),
        # device
        pa.field("weight_num", pa.int32()),
        pa.field("weight_den", pa.int32()),
        pa.field("replicas", pa.int32()),
        pa.field("sharing", pa.string()),
        pa.field("mig_profile", pa.string()),
        pa.field("allocatable_ns", pa.int64()),
        pa.field("unhealthy_ns", pa.int64()),
        pa.field("xids", pa.list_(pa.int32())),
        # usage
        pa.field("slice_id", pa.string()),
        pa.field("resource_name", pa.string()),
        pa.field("claim", pa.string()),
        pa.field("namespace", pa.string()),
        pa.field("pod", pa.string()),
        pa.field("pod_uid", pa.string()),
        pa.field("container", pa.string()),
        pa.field("container_id", pa.string()),
        pa.field("join", pa.string()),
        pa.field("held_ns", pa.int64()),
        pa.field("held_since_ns", pa.int64()),
        pa.field("first_activity_ns", pa.int64()),
        pa.field("missed_processes", pa.int32()),
        # figures of either, and what no process explains on a device
        *(pa.field(name, kind) for name, kind in FIGURES.items()),
        pa.field("histogram_ns", pa.list_(pa.int64())),
        *_quality_fields(),
        *(pa.field(f"unattributed_{name}", kind) for name, kind in FIGURES.items()),
        # node facts and gaps, as proto3 JSON with proto field names
        pa.field("body_json", pa.string()),
    ]
)
