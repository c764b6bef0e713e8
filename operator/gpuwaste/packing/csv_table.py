"""A CSV file whose columns are found by name and whose faults are told by row and field."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pv

from gpuwaste.model.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from gpuwaste.packing.instance import Floats, Ints

__all__ = ["CsvTable"]

_LARGEST = 2**53


class CsvTable:
    """The named columns of a CSV file; others are ignored.

    Args:
        path: the file.
        columns: names its first line must have.
        others: read the other columns, too.

    Raises:
        InputError: the file cannot be read, is no CSV, or lacks a column.
    """

    def __init__(self, path: Path, columns: tuple[str, ...], *, others: bool = False) -> None:
        self.path = path
        self._table = _read(path, columns, others=others)

    def has(self, field: str) -> bool:
        """Whether there is one such column."""
        return field in self._table.column_names

    @property
    def rows(self) -> int:
        """How many rows there are below the first line."""
        return int(self._table.num_rows)

    def where(self, row: int, field: str) -> str:
        """File, row and field, for a message."""
        return f"{self.path}, row {row + 1} (line {row + 2}), field {field}"

    def text(self, field: str) -> pa.Array:
        """The column as it is written, without blanks around it."""
        column = self._table[field]
        array = column.chunk(0) if column.num_chunks else pa.array([], pa.string())
        return pc.utf8_trim_whitespace(array)

    def numbers(self, field: str, *, empty_as: str | None = None) -> Floats:
        """float64[rows] of 0 or more.

        Raises:
            InputError: a value is no finite number, negative or above 2^53.
        """
        text = self.text(field)
        if empty_as is not None:
            text = pc.if_else(pc.equal(text, ""), empty_as, text)
        fix = "write a number of 0 or more"
        try:
            values: Floats = pc.cast(text, pa.float64()).to_numpy(zero_copy_only=False)
        except pa.ArrowInvalid:
            row, value = next((i, v) for i, v in enumerate(text.to_pylist()) if not _is_number(v))
            raise InputError(f"'{value}' is not a number", where=self.where(row, field), fix=fix) from None
        wrong = ~np.isfinite(values) | (values < 0) | (values > _LARGEST)
        if wrong.any():
            row = int(wrong.argmax())
            value = text[row].as_py()
            what = "is not a number" if np.isnan(values[row]) else "is too large"
            what = "is negative" if values[row] < 0 else what
            raise InputError(f"{value} {what}", where=self.where(row, field), fix=fix)
        return values

    def measured(self, field: str) -> Floats:
        """float64[rows] of 0 or more; NaN where the field is empty: not measured, which is not 0.

        Raises:
            InputError: as `numbers`.
        """
        values = self.numbers(field, empty_as="0").copy()
        values[pc.equal(self.text(field), "").to_numpy(zero_copy_only=False)] = np.nan
        return values

    def whole(self, field: str, *, empty_as: str | None = None) -> Ints:
        """int64[rows] of 0 or more.

        Raises:
            InputError: as `numbers`, and where a value has a fraction.
        """
        values = self.numbers(field, empty_as=empty_as)
        wrong = values != np.floor(values)
        if wrong.any():
            row = int(wrong.argmax())
            raise InputError(f"{self.text(field)[row].as_py()} is not a whole number", where=self.where(row, field))
        return values.astype(np.int64)


def _read(path: Path, columns: tuple[str, ...], *, others: bool) -> pa.Table:
    try:
        with path.open("rb") as handle:
            header = handle.readline().decode("utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read ({error})", where=str(path)) from error
    present = [name.strip().strip('"') for name in header.split(",")]
    missing = [name for name in columns if name not in present]
    if missing:
        raise InputError(
            f"has no column {', '.join(missing)}", where=str(path), fix=f"its first line must name {','.join(columns)}"
        )
    twice = [name for name in columns if present.count(name) > 1]
    if twice:
        raise InputError(f"names column {twice[0]} twice", where=str(path), fix="keep one of them")
    named = columns if not others else tuple(name for name in present if name and present.count(name) == 1)
    try:
        return pv.read_csv(
            path,
            read_options=pv.ReadOptions(use_threads=False, column_names=present, skip_rows=1),
            convert_options=pv.ConvertOptions(
                column_types={name: pa.string() for name in named},
                include_columns=list(named),
                strings_can_be_null=False,
            ),
        ).combine_chunks()
    except pa.ArrowInvalid as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"is no well-formed CSV ({reason})", where=str(path)) from error


def _is_number(text: str) -> bool:
    try:
        pc.cast(pa.array([text]), pa.float64())
    except pa.ArrowInvalid:
        return False
    return True
