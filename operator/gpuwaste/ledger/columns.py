"""The stored windows of an hour as numpy columns; texts are numbers whose order is that of the texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.model.grouping import Groups, group_numbers, group_rows, sum_by

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Int64s = NDArray[np.int64]
    Bools = NDArray[np.bool_]

__all__ = ["COMPUTED_FROM", "Texts", "WindowColumns", "coded", "largest_by", "ranks", "smallest_by", "sum_known_by"]

COMPUTED_FROM: Final = (
    "journal_id",
    "seq",
    "kind",
    "node",
    "node_uid",
    "window_start_ns",
    "window_ns",
    "gpu_uuid",
    "parent_id",
    "weight_num",
    "weight_den",
    "replicas",
    "allocatable_ns",
    "unhealthy_ns",
    "slice_id",
    "namespace",
    "pod",
    "pod_uid",
    "container",
    "held_ns",
    "held_since_ns",
    "first_activity_ns",
    "duty_ns",
    "duty_origin",
    "duty_coverage_ppm",
    "sm_ns",
    "sm_origin",
    "sm_coverage_ppm",
    "sm_low",
    "sm_high",
    "unattributed_duty_ns",
    "unattributed_sm_ns",
    "body_json",
)
"""The columns of WINDOW_SCHEMA that a ledger hour is computed from, in the order of the schema; all others are for
advice and plans, and change nothing in the ledger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """A column of texts: `codes` int64[n] into `names`, which is sorted; null reads as the empty text."""

    codes: Int64s
    names: NDArray[np.object_]

    def take(self, rows: NDArray[np.int64] | Bools) -> Texts:
        """Some of its rows."""
        return Texts(codes=self.codes[rows], names=self.names)

    def arrow(self) -> pa.Array:
        """The texts themselves."""
        return pa.array(self.names, pa.string()).take(pa.array(self.codes))


def coded(column: pa.ChunkedArray | pa.Array) -> Texts:
    """Number the texts of a column in their order; a dictionary column is not decoded for it."""
    chunked = column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])
    encoded = pc.dictionary_encode(chunked).unify_dictionaries().combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):  # no chunk at all
        encoded = pa.array([], pa.string()).dictionary_encode()
    texts = pa.concat_arrays([encoded.dictionary.cast(pa.string()), pa.array([""])])
    distinct = pc.unique(texts)  # sorted as Python sorts texts: by code point
    distinct = distinct.take(pc.array_sort_indices(distinct))
    place = pc.index_in(texts, distinct).to_numpy()
    at = pc.fill_null(encoded.indices.cast(pa.int64()), len(texts) - 1).to_numpy(zero_copy_only=False)
    return Texts(codes=place[at].astype(np.int64), names=np.array(distinct.to_pylist(), object))


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowColumns:
    """Records of one kind. Columns are read when they are asked for, and not kept.

    Attributes:
        table: rows of WINDOW_SCHEMA, or of its columns COMPUTED_FROM.
        rows: int64[n], which rows of the table.
    """

    table: pa.Table
    rows: Int64s

    @classmethod
    def of_kind(cls, table: pa.Table, kind: str, *, start: int, end: int) -> WindowColumns:
        """The records of a kind whose window starts in [start, end), Unix nanoseconds."""
        kinds = coded(table["kind"])
        at = table["window_start_ns"].to_numpy()
        wanted = int(np.searchsorted(kinds.names, kind))
        present = wanted < len(kinds.names) and kinds.names[wanted] == kind
        mask = (kinds.codes == wanted) & (at >= start) & (at < end) if present else np.zeros(len(at), bool)
        return cls(table=table, rows=np.flatnonzero(mask))

    def texts(self, name: str) -> Texts:
        """A column of texts."""
        return coded(self.table[name]).take(self.rows)

    def ints(self, name: str, absent: int = 0) -> Int64s:
        """A column of whole numbers, int64[n], with `absent` for null."""
        column = self.table[name]
        if column.null_count == len(column):
            return np.full(len(self.rows), absent, np.int64)
        values: Int64s = pc.fill_null(column, absent).to_numpy()[self.rows].astype(np.int64)
        return values

    def rounded(self, name: str) -> Int64s:
        """A column of real numbers that stand for nanoseconds, rounded, with −1 for null."""
        column = self.table[name]
        if column.null_count == len(column):
            return np.full(len(self.rows), -1, np.int64)
        values: Int64s = np.rint(pc.fill_null(column, -1.0).to_numpy()[self.rows]).astype(np.int64)
        return values

    def group(self, texts: Mapping[str, Texts], names: Sequence[str], starts: Int64s) -> Groups:
        """Number the rows by texts and window, in the order of the texts and then of the windows.

        Args:
            texts: columns of texts of these rows.
            names: which of them, the first being the highest in the order; the window comes after `parent_id`.
            starts: int64[n], when each window starts.
        """
        keys: list[Int64s] = []
        for name in names:
            keys.append(texts[name].codes)
            if name == "parent_id":
                keys.append(ranks(starts))
        return group_numbers(keys)


def ranks(values: Int64s) -> Int64s:
    """int64[n], the place of each value among the distinct ones; quick where these are few."""
    return group_rows([pa.array(values)]).of


def sum_known_by(groups: Groups, values: Int64s) -> Int64s:
    """int64[n_groups], the sum of the values of each group that are not −1; −1 where all are."""
    count = len(groups.first)
    if count == len(values):
        single: Int64s = values[groups.first]
        return single
    known = values >= 0
    total = sum_by(groups.of, np.where(known, values, 0), count)
    some = sum_by(groups.of, known.astype(np.int64), count) > 0
    summed: Int64s = np.where(some, total, -1)
    return summed


def largest_by(groups: Groups, values: Int64s) -> Int64s:
    """int64[n_groups], the largest value of each group."""
    if len(groups.first) == len(values):
        single: Int64s = values[groups.first]
        return single
    largest = np.full(len(groups.first), np.iinfo(np.int64).min)
    np.maximum.at(largest, groups.of, values)
    return largest


def smallest_by(groups: Groups, values: Int64s) -> Int64s:
    """int64[n_groups], the smallest value of each group."""
    return -largest_by(groups, -values)
