"""Group the rows of a table by some of its columns, as numbers: the work of GROUP BY without leaving numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Groups", "group_numbers", "group_rows", "sum_by"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """The groups of n rows, numbered from 0 in the order of their keys (nulls last).

    Attributes:
        of: int64[n], the group of each row.
        first: int64[n_groups], one row of each group.
    """

    of: NDArray[np.int64]
    first: NDArray[np.int64]


def group_rows(columns: Sequence[pa.ChunkedArray | pa.Array]) -> Groups:
    """Group by columns of any type, the first being the highest in the order."""
    return group_numbers([_ranks(column) for column in columns])


def group_numbers(keys: Sequence[NDArray[np.int64]]) -> Groups:
    """Group by columns of non-negative numbers."""
    of = np.zeros(len(keys[0]), np.int64)
    first = np.zeros(min(len(of), 1), np.int64)
    for key in keys:
        # Numbering anew after each key keeps the product of both below n²; a group never grows past the rows.
        width = int(key.max(initial=0)) + 1
        if width == 1:
            continue
        _, first, of = np.unique(of * width + key, return_index=True, return_inverse=True)
    return Groups(of=of, first=first)


def _ranks(column: pa.ChunkedArray | pa.Array) -> NDArray[np.int64]:
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
