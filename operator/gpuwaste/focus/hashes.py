"""Rows as numbers of 64 bits, for telling the rows of a file apart without keeping them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.focus.verify_rows import column_codes

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["row_hashes"]

_MIX: Final = np.uint64(0x9E3779B97F4A7C15)
_HALF: Final = np.uint64(32)


def row_hashes(table: pa.Table) -> NDArray[np.uint64]:
    """uint64[n], equal where all columns are; of so many bits that two rows hardly ever share one.

    The numbers are of this process: another one gives others.
    """
    mixed = np.zeros(len(table), np.uint64)
    if not len(table):
        return mixed
    for column in table.columns:
        coded = column if pa.types.is_dictionary(column.type) else pc.dictionary_encode(column)
        if isinstance(coded, pa.ChunkedArray):
            coded = coded.unify_dictionaries().combine_chunks()
        words = np.array([hash(word) for word in coded.dictionary.to_pylist()] + [0], np.int64).view(np.uint64)
        mixed = (mixed ^ words[column_codes(coded)]) * _MIX
        mixed ^= mixed >> _HALF
    return mixed
