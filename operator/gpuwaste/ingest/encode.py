"""Tables of usage windows back to JSON lines: what `read_jsonl_lines` turns into the same table again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf import json_format

from gpuwaste.model.windows import FIGURES, QUALITY_OF
from gpuwaste_agent.wire import usage_pb2 as wire

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
    "mig_profile",
    "allocatable_ns",
    "unhealthy_ns",
)
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
    "held_ns",
    "missed_processes",
)


def write_jsonl_lines(windows: pa.Table) -> Iterator[str]:
    """One line a row, each a `Record` with its frame as proto3 JSON under the names of usage.proto.

    Args:
        windows: rows of WINDOW_SCHEMA, in the order in which the lines come.
    """
    for batch in windows.to_batches(max_chunksize=_BATCH_ROWS):
        for row in batch.to_pylist():
            record = _record(row)
            yield (
                json_format.MessageToJson(record, preserving_proto_field_name=True, indent=None, ensure_ascii=False)
                + "\n"
            )


def _record(row: dict[str, Any]) -> Any:
    record = wire.Record(
        seq=row["seq"],
        window_start_unix_ns=row["window_start_ns"],
        window_ns=row["window_ns"],
        **{name: row[name] for name in _FRAME},
    )
    kind = row["kind"]
    body = getattr(record, kind)
    body.SetInParent()  # a body whose every field has its default value is there all the same
    if kind == "device":
        _fill(body, row, _DEVICE)
        body.sharing = wire.Sharing.Value(row["sharing"])
        body.xids.extend(row["xids"] or ())
        _fill_figures(body.figures, row)
        _fill_given(body.unattributed, row, prefix="unattributed_")
    elif kind == "usage":
        _fill(body, row, _USAGE)
        body.join = wire.Join.Value(row["join"])
        body.held_since_unix_ns = row["held_since_ns"]
        if row["first_activity_ns"] is not None:
            body.first_activity_unix_ns = row["first_activity_ns"]
        _fill_figures(body.figures, row)
    else:
        json_format.Parse(row["body_json"], body)
    return record


def _fill(message: Any, row: dict[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        setattr(message, name, row[name])


def _fill_given(figures: Any, row: dict[str, Any], *, prefix: str = "") -> None:
    for name in FIGURES:
        if row[f"{prefix}{name}"] is not None:
            setattr(figures, name, row[f"{prefix}{name}"])


def _fill_figures(figures: Any, row: dict[str, Any]) -> None:
    _fill_given(figures, row)
    figures.histogram_ns.extend(row["histogram_ns"] or ())
    for prefix in QUALITY_OF.values():
        if row[f"{prefix}_origin"] is None:
            continue
        quality = getattr(figures, f"{prefix}_quality")
        quality.SetInParent()
        quality.origin = wire.Origin.Value(row[f"{prefix}_origin"])
        quality.coverage_ppm = row[f"{prefix}_coverage_ppm"]
        quality.resolution_ms = row[f"{prefix}_resolution_ms"]
        for bound in ("low", "high"):
            if row[f"{prefix}_{bound}"] is not None:
                setattr(quality, bound, row[f"{prefix}_{bound}"])
