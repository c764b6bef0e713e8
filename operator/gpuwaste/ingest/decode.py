"""Usage messages to tables: protobuf batches from agents, and the same messages as JSON lines from files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from google.protobuf import json_format
from google.protobuf.message import DecodeError

from gpuwaste.ingest.check import check_windows
from gpuwaste.model.errors import InputError
from gpuwaste.model.windows import FIGURES, QUALITY_OF, WINDOW_SCHEMA
from gpuwaste_agent.wire import usage_pb2 as wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["DecodedBatch", "decode_batch", "gap_row", "read_jsonl_lines"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedBatch:
    """One answer of an agent: its frame, and its records as a table of WINDOW_SCHEMA."""

    journal_id: str
    node: str
    node_uid: str
    cluster: str
    first_seq: int
    next_seq: int
    more: bool
    windows: pa.Table


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a record came from: the frame that the batch gives to all of its records."""

    journal_id: str
    node: str
    node_uid: str
    cluster: str


def decode_batch(body: bytes, *, where: str) -> DecodedBatch:
    """Decode a protobuf `Batch`.

    Args:
        body: the message.
        where: the agent, for messages.

    Raises:
        InputError: the bytes are no batch, or a record breaks a rule of the windows.
    """
    batch = wire.Batch()
    try:
        batch.ParseFromString(body)
    except DecodeError as error:
        raise InputError(f"the answer is no usage batch ({error})", where=where) from None
    if not batch.journal_id or not batch.node:
        raise InputError("the batch names no journal or no node", where=where, fix="is this a gpuwaste agent?")
    source = _Source(batch.journal_id, batch.node, batch.node_uid, batch.cluster)
    table = _table([source] * len(batch.records), list(batch.records))
    check_windows(table, where=lambda row: f"{where}: record {table['seq'][row]}")
    return DecodedBatch(
        journal_id=batch.journal_id,
        node=batch.node,
        node_uid=batch.node_uid,
        cluster=batch.cluster,
        first_seq=batch.first_seq,
        next_seq=batch.next_seq,
        more=batch.more,
        windows=table,
    )


def read_jsonl_lines(lines: Iterable[str], *, where: str) -> pa.Table:
    """Read windows as JSON lines: a `Record` with its frame, or a whole `Batch`, on each line.

    Args:
        lines: text lines; empty ones are passed over.
        where: the file, for messages.

    Raises:
        InputError: names file, line and field.
    """
    sources: list[_Source] = []
    records: list[Any] = []
    line_of: list[int] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        message = wire.Batch() if '"records"' in line else wire.Record()
        try:
            json_format.Parse(line, message)
        except (json_format.ParseError, RecursionError) as error:
            raise InputError(
                f"not a usage record: {error}",
                where=f"{where}, line {number}",
                fix="each line is one Record or Batch of usage.proto as proto3 JSON",
            ) from None
        found = list(message.records) if isinstance(message, wire.Batch) else [message]
        source = _Source(message.journal_id, message.node, message.node_uid, message.cluster)
        for name in ("journal_id", "node"):
            if not getattr(source, name):
                raise InputError(f"field `{name}` is missing", where=f"{where}, line {number}")
        sources += [source] * len(found)
        records += found
        line_of += [number] * len(found)
    table = _table(sources, records)
    check_windows(table, where=lambda row: f"{where}, line {line_of[row]}")
    return table


def gap_row(
    *, journal_id: str, cluster: str, node: str, node_uid: str, first_seq: int, last_seq: int, at_unix_ns: int
) -> pa.Table:
    """One row that stands for records which an agent no longer has, so that the cursor can pass them."""
    record = wire.Record(
        seq=first_seq,
        window_start_unix_ns=at_unix_ns,
        window_ns=0,
        gap=wire.Gap(
            from_unix_ns=at_unix_ns,
            to_unix_ns=at_unix_ns,
            reason="records dropped by the agent before they were read",
            lost_records=last_seq - first_seq + 1,
        ),
    )
    return _table([_Source(journal_id, node, node_uid, cluster)], [record])


def _table(sources: Sequence[_Source], records: Sequence[Any]) -> pa.Table:
    kinds = [record.WhichOneof("body") for record in records]
    columns: dict[str, Sequence[Any]] = {
        "journal_id": [source.journal_id for source in sources],
        "seq": [record.seq for record in records],
        "kind": [kind or "" for kind in kinds],
        "cluster": [source.cluster for source in sources],
        "node": [source.node for source in sources],
        "node_uid": [source.node_uid for source in sources],
        "window_start_ns": [record.window_start_unix_ns for record in records],
        "window_ns": [record.window_ns for record in records],
    }
    bodies = [getattr(record, kind) if kind else None for record, kind in zip(records, kinds, strict=True)]
    device = [body if kind == "device" else None for body, kind in zip(bodies, kinds, strict=True)]
    usage = [body if kind == "usage" else None for body, kind in zip(bodies, kinds, strict=True)]
    either = [u if u is not None else d for u, d in zip(usage, device, strict=True)]
    columns["gpu_uuid"] = [None if b is None else b.gpu_uuid for b in either]
    columns["parent_id"] = [None if b is None else b.parent_id for b in either]
    columns |= _device_columns(device)
    columns |= _usage_columns(usage)
    columns |= _figure_columns([None if b is None else b.figures for b in either])
    columns |= _unattributed_columns([None if d is None else d.unattributed for d in device])
    columns["body_json"] = [
        json_format.MessageToJson(body, preserving_proto_field_name=True, indent=None)
        if body is not None and kind in ("node_facts", "gap")
        else None
        for body, kind in zip(bodies, kinds, strict=True)
    ]
    arrays = []
    for field in WINDOW_SCHEMA:
        try:
            arrays.append(pa.array(columns[field.name], field.type))
        except (OverflowError, pa.ArrowInvalid) as error:
            raise InputError(f"field `{field.name}` is out of range: {error}") from None
    return pa.Table.from_arrays(arrays, schema=WINDOW_SCHEMA)


def _each(messages: Sequence[Any], read: Callable[[Any], Any]) -> list[Any]:
    return [None if message is None else read(message) for message in messages]


def _device_columns(device: Sequence[Any]) -> dict[str, list[Any]]:
    sharing = wire.Sharing.Name
    return {
        "weight_num": _each(device, lambda d: d.weight_num),
        "weight_den": _each(device, lambda d: d.weight_den),
        "replicas": _each(device, lambda d: d.replicas),
        "sharing": _each(device, lambda d: sharing(d.sharing)),
        "mig_profile": _each(device, lambda d: d.mig_profile),
        "allocatable_ns": _each(device, lambda d: d.allocatable_ns),
        "unhealthy_ns": _each(device, lambda d: d.unhealthy_ns),
        "xids": _each(device, lambda d: list(d.xids)),
    }


def _usage_columns(usage: Sequence[Any]) -> dict[str, list[Any]]:
    join = wire.Join.Name
    columns = {
        name: [None if u is None else getattr(u, name) for u in usage]
        for name in (
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
    }
    columns["join"] = _each(usage, lambda u: join(u.join))
    columns["held_since_ns"] = _each(usage, lambda u: u.held_since_unix_ns)
    columns["first_activity_ns"] = _each(
        usage, lambda u: u.first_activity_unix_ns if u.HasField("first_activity_unix_ns") else None
    )
    return columns


def _figure_columns(figures: Sequence[Any]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    origin = dict(zip(wire.Origin.values(), wire.Origin.keys(), strict=True)).__getitem__
    for name in FIGURES:
        columns[name] = [None if f is None or not f.HasField(name) else getattr(f, name) for f in figures]
    columns["histogram_ns"] = [None if f is None or not f.histogram_ns else list(f.histogram_ns) for f in figures]
    for prefix in QUALITY_OF.values():
        columns |= _quality_columns(prefix, figures, origin)
    return columns


def _quality_columns(prefix: str, figures: Sequence[Any], origin: Callable[[int], str]) -> dict[str, list[Any]]:
    field = f"{prefix}_quality"
    quality = [getattr(f, field) if f is not None and f.HasField(field) else None for f in figures]
    names = ("origin", "coverage_ppm", "resolution_ms", "low", "high")
    if not any(q is not None for q in quality):  # most figures of most records have none
        return {f"{prefix}_{name}": [None] * len(figures) for name in names}
    return {
        f"{prefix}_origin": _each(quality, lambda q: origin(q.origin)),
        f"{prefix}_coverage_ppm": [None if q is None else q.coverage_ppm for q in quality],
        f"{prefix}_resolution_ms": [None if q is None else q.resolution_ms for q in quality],
        f"{prefix}_low": [q.low if q is not None and q.HasField("low") else None for q in quality],
        f"{prefix}_high": [q.high if q is not None and q.HasField("high") else None for q in quality],
    }


def _unattributed_columns(figures: Sequence[Any]) -> dict[str, list[Any]]:
    present = [(row, f) for row, f in enumerate(figures) if f is not None and f.ByteSize()]
    columns: dict[str, list[Any]] = {}
    for name in FIGURES:
        column: list[Any] = [None] * len(figures)
        for row, f in present:
            if f.HasField(name):
                column[row] = getattr(f, name)
        columns[f"unattributed_{name}"] = column
    return columns
