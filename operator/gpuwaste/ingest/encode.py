"""Tables of usage windows back to JSON lines: what `read_jsonl_lines` turns into the same table again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from gpuwaste.model.windows import FIGURES, QUALITY_OF

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

__all__ = ["write_jsonl_lines"]

_BATCH_ROWS = 4096
_FRAME = ("journal_id", "node", "node_uid", "cluster")
_DEVICE = (
    "gpu_uuid",
    "parent_id",
    "weight_num",
    "weight_den",
    "replicas",
    "sharing",
    "mig_profile",
    "xids",
)
_DEVICE_TIMES = ("allocatable_ns", "unhealthy_ns")
_USAGE = (
    "gpu_uuid",
    "parent_id",
    "slice_id",
    "resource_name",
    "claim",
    "namespace",
    "pod",
    "pod_uid",
    "container",
    "container_id",
    "join",
    "missed_processes",
)


def write_jsonl_lines(windows: pa.Table) -> Iterator[str]:
    """One line a row, each a `Record` with its frame as proto3 JSON under the names of usage.proto.

    Written without protobuf, whose own JSON writer takes several times as long for the same text.

    Args:
        windows: rows of WINDOW_SCHEMA, in the order in which the lines come.
    """
    for batch in windows.to_batches(max_chunksize=_BATCH_ROWS):
        for row in batch.to_pylist():
            yield json.dumps(_record(row), separators=(",", ":"), ensure_ascii=False) + "\n"


def _record(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "seq": str(row["seq"]),
        "window_start_unix_ns": str(row["window_start_ns"]),
        "window_ns": str(row["window_ns"]),
        row["kind"]: _body(row),
        **{name: row[name] for name in _FRAME if row[name]},
    }


def _body(row: dict[str, Any]) -> Any:
    """The body; what has its default value is left out, as proto3 JSON does."""
    if row["kind"] == "device":
        body = {name: row[name] for name in _DEVICE if row[name]}
        body |= {name: str(row[name]) for name in _DEVICE_TIMES if row[name]}
        unattributed = _given(row, "unattributed_")
        return body | {"figures": _figures(row)} | ({"unattributed": unattributed} if unattributed else {})
    if row["kind"] == "usage":
        body = {name: row[name] for name in _USAGE if row[name]}
        body["held_ns"], body["held_since_unix_ns"] = str(row["held_ns"]), str(row["held_since_ns"])
        if row["first_activity_ns"] is not None:
            body["first_activity_unix_ns"] = str(row["first_activity_ns"])
        return body | {"figures": _figures(row)}
    return json.loads(row["body_json"])


def _given(row: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Figures that were measured, a measured zero among them; 64-bit integers are text in proto3 JSON."""
    values = ((name, row[prefix + name]) for name in FIGURES)
    return {name: value if isinstance(value, float) else str(value) for name, value in values if value is not None}


def _figures(row: dict[str, Any]) -> dict[str, Any]:
    figures = _given(row)
    if row["histogram_ns"]:
        figures["histogram_ns"] = [str(part) for part in row["histogram_ns"]]
    for prefix in QUALITY_OF.values():
        if row[f"{prefix}_origin"] is None:
            continue
        quality = {name: row[f"{prefix}_{name}"] for name in ("origin", "coverage_ppm", "resolution_ms")}
        bounds = {name: row[f"{prefix}_{name}"] for name in ("low", "high")}
        figures[f"{prefix}_quality"] = quality | {name: value for name, value in bounds.items() if value is not None}
    return figures
