"""Group the rows of a table by some of its columns, as numbers: the work of GROUP BY without leaving numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Groups", "group_numbers", "group_rows", "only", "sum_by"]

_MAX_COMBINED: Final = 1 << 62
_DENSE: Final = 8
"""Up to so many possible keys a row a table of all of them is quicker than sorting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """The groups of n rows, numbered from 0 in the order of their keys (nulls last).

    Attributes:
        of: int64[n], the group of each row.
        first: int64[n_groups], one row of each group, always the same one.
    """

    of: NDArray[np.int64]
    first: NDArray[np.int64]


def group_rows(columns: Sequence[pa.ChunkedArray | pa.Array]) -> Groups:
    """Group by columns of any type, the first being the highest in the order."""
    return group_numbers([_ranks(column) for column in columns])


def group_numbers(keys: Sequence[NDArray[np.int64]]) -> Groups:
    """Group by columns of non-negative numbers."""
    combined = np.zeros(len(keys[0]), np.int64)
    width = 1
    for key in keys:
        wide = int(key.max(initial=0)) + 1
        if width * wide > _MAX_COMBINED:
            groups = _number(combined, width)
            combined, width = groups.of, len(groups.first)
        combined, width = combined * wide + key, width * wide
    return _number(combined, width)


def _number(keys: NDArray[np.int64], width: int) -> Groups:
    """Number the distinct keys, all below `width`, in their order."""
    if width > _DENSE * len(keys):
        _, first, of = np.unique(keys, return_index=True, return_inverse=True)
        return Groups(of=of, first=first)
    row = np.full(width, -1, np.int64)
    row[keys] = np.arange(len(keys))
    present = row >= 0
    return Groups(of=(np.cumsum(present) - 1)[keys], first=row[present])


def _ranks(column: pa.ChunkedArray | pa.Array) -> NDArray[np.int64]:
    if not len(column):  # Arrow cannot join no chunks of encoded times
        return np.zeros(0, np.int64)
    coded = pc.dictionary_encode(column)
    if isinstance(coded, pa.ChunkedArray):
        coded = coded.unify_dictionaries().combine_chunks()
    count = len(coded.dictionary)
    rank = np.empty(count + 1, np.int64)
    rank[pc.sort_indices(coded.dictionary).to_numpy()] = np.arange(count)
    rank[count] = count
    ranks: NDArray[np.int64] = rank[pc.fill_null(coded.indices, count).to_numpy(zero_copy_only=False)]
    return ranks


def sum_by(group: NDArray[np.int64], values: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """int64[count], the exact sum of each group."""
    total = np.zeros(count, np.int64)
    np.add.at(total, group, values)
    return total


def only(table: pa.Table, mask: pa.ChunkedArray | pa.Array) -> pa.Table:
    """The rows where the mask is true; the table itself, uncopied, where it is true everywhere."""
    if pc.all(mask, min_count=0).as_py():
        return table
    return table.filter(mask)
