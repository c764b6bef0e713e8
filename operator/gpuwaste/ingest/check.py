"""Rules that every usage window must satisfy before it is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.model.errors import InputError
from gpuwaste.model.units import NS_PER_HOUR, NS_PER_MINUTE
from gpuwaste.model.windows import QUALITY_OF

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

__all__ = ["check_windows"]

_TIMES = (
    "duty_ns",
    "sm_ns",
    "tensor_ns",
    "dram_ns",
    "enc_ns",
    "dec_ns",
    "copy_ns",
    "held_ns",
    "allocatable_ns",
    "unhealthy_ns",
    "unattributed_duty_ns",
    "unattributed_sm_ns",
)
_HISTOGRAM_BUCKETS = 21
_PPM = 1_000_000
_NS_PER_MS = 1_000_000


def check_windows(table: pa.Table, *, where: Callable[[int], str]) -> None:
    """Refuse the table if one row of it breaks a rule.

    Args:
        table: rows of WINDOW_SCHEMA.
        where: names the place of a row, for the message.

    Raises:
        InputError: the first broken rule: place, field, what it must be.
    """
    for broken, message in _rules(table):
        if broken.any():
            raise InputError(message, where=where(int(np.argmax(broken))), fix="nothing of this input was stored")


def _column(table: pa.Table, name: str, *, absent: int) -> NDArray[np.int64]:
    values: NDArray[np.int64] = pc.fill_null(table[name], absent).to_numpy()
    return values


def _equals(table: pa.Table, name: str, value: str) -> NDArray[np.bool_]:
    equal: NDArray[np.bool_] = pc.fill_null(pc.equal(table[name], value), fill_value=False).to_numpy()
    return equal


def _rules(table: pa.Table) -> Iterator[tuple[NDArray[np.bool_], str]]:
    """Pairs of (rows that break it, what the field must be)."""
    window = _column(table, "window_ns", absent=0)
    start = _column(table, "window_start_ns", absent=0)
    usage, device = _equals(table, "kind", "usage"), _equals(table, "kind", "device")
    measured = usage | device
    yield _equals(table, "kind", ""), "the record must hold one of `usage`, `device`, `node_facts` or `gap`"
    yield _column(table, "seq", absent=0) <= 0, "field `seq` must be 1 or more"
    yield start <= 0, "field `window_start_unix_ns` must be a time after 1970"
    # Readings of a store may lie further apart than a minute; then a window is as long as they are apart.
    resolution = np.maximum(*(_column(table, f"{name}_resolution_ms", absent=0) for name in ("duty", "sm")))
    longest = np.clip(resolution.astype(np.int64) * _NS_PER_MS, NS_PER_MINUTE, NS_PER_HOUR)
    yield (
        measured & ((window <= 0) | (window > longest)),
        "field `window_ns` must be above 0, at most a minute (or the resolution of its readings, at most an hour)",
    )
    yield (
        measured & (window > NS_PER_MINUTE) & (NS_PER_HOUR % np.maximum(window, 1) != 0),
        "field `window_ns` above a minute must divide an hour",
    )
    yield (
        measured & (start % np.maximum(window, 1) != 0),
        "field `window_start_unix_ns` must be a multiple of `window_ns`",
    )
    yield measured & _equals(table, "gpu_uuid", ""), "field `gpu_uuid` must not be empty"
    yield measured & _equals(table, "parent_id", ""), "field `parent_id` must not be empty"
    held = _column(table, "held_ns", absent=0) > 0
    yield usage & held & _equals(table, "slice_id", ""), "field `slice_id` must not be empty where time was held"
    yield usage & _equals(table, "pod", "") & _equals(table, "pod_uid", ""), "one of `pod` and `pod_uid` must be set"
    num, den = _column(table, "weight_num", absent=1), _column(table, "weight_den", absent=1)
    yield device & ((num <= 0) | (den <= 0) | (num > den)), "`weight_num` / `weight_den` must be above 0 and at most 1"
    yield device & (_column(table, "replicas", absent=1) <= 0), "field `replicas` must be 1 or more"
    for name in _TIMES:
        values = _column(table, name, absent=0)
        yield (values < 0) | (measured & (values > window)), f"field `{name}` must not be below 0 or above the window"
    for name in ("memory_byte_s", "unattributed_memory_byte_s"):
        column = pc.fill_null(table[name], 0.0).to_numpy()
        yield ~np.isfinite(column) | (column < 0), f"field `{name}` must be a finite number, 0 or more"
    for prefix in QUALITY_OF.values():
        covered = _column(table, f"{prefix}_coverage_ppm", absent=0)
        yield covered > _PPM, f"field `{prefix}_quality.coverage_ppm` must be at most {_PPM}"
    buckets = pc.fill_null(pc.list_value_length(table["histogram_ns"]), _HISTOGRAM_BUCKETS).to_numpy()
    yield buckets != _HISTOGRAM_BUCKETS, f"field `histogram_ns` must have {_HISTOGRAM_BUCKETS} entries or none"
