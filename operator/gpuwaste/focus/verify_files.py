"""Read a FOCUS file of any engine in batches, texts as dictionaries, amounts as exact decimals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from gpuwaste.focus.bill_files import exact_amounts
from gpuwaste.focus.columns import AMOUNT_TYPE, COLUMNS, TIME_TYPE
from gpuwaste.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["Batch", "FocusFile", "open_file"]

_BATCH_ROWS: Final = 131_072
_KINDS: Final = {column.name: column.kind for column in COLUMNS}
_LONG: Final = ("AllocatedMethodDetails",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Rows of a file, the first of which has the number `start` (from 0)."""

    start: int
    table: pa.Table


@dataclass(frozen=True, slots=True, kw_only=True)
class FocusFile:
    """A file and its columns; `exact` unless it holds amounts as binary floating point numbers."""

    path: Path
    names: tuple[str, ...]
    exact: bool

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """The rows in order: times in UTC, texts as dictionaries, amounts as decimals.

        Raises:
            InputError: a value is not of its column's type.
        """
        start = 0
        for table in self._tables([name for name in columns if name in self.names]):
            yield Batch(start=start, table=table)
            start += len(table)

    def _tables(self, columns: list[str]) -> Iterator[pa.Table]:
        if self.path.suffix == ".csv":
            options = pa_csv.ConvertOptions(
                column_types=dict.fromkeys(self.names, pa.string()),
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                null_values=[""],
                include_columns=columns,
            )
            source: Any = pa_csv.open_csv(self.path, convert_options=options)
        else:
            texts = [name for name in columns if _KINDS.get(name) in {"string", "json", None} and name not in _LONG]
            source = pq.ParquetFile(self.path, read_dictionary=texts).iter_batches(_BATCH_ROWS, columns=columns)
        for batch in source:
            yield pa.table([self._typed(field.name, batch.column(field.name)) for field in batch.schema], columns)

    def _typed(self, name: str, column: pa.Array) -> pa.Array:
        where = f"{self.path}, column {name}"
        kind = _KINDS.get(name)
        try:
            if kind == "decimal":
                amounts = exact_amounts(column, where=where)
                return amounts if pa.types.is_decimal128(amounts.type) else amounts.cast(AMOUNT_TYPE)
            if kind == "time":
                return column if column.type == TIME_TYPE else column.cast(TIME_TYPE)
            if name in _LONG:
                return column.cast(pa.string())
            if pa.types.is_dictionary(column.type):
                return column
            return pc.dictionary_encode(column.cast(pa.string()))
        except pa.ArrowInvalid as error:
            raise InputError(f"has a value that is no {kind or 'text'}: {error}", where=where) from None


def open_file(path: Path) -> FocusFile:
    """Open a Parquet or CSV file.

    Raises:
        InputError: it is not there, or is neither.
    """
    if not path.is_file():
        raise InputError("there is no such file", where=str(path))
    try:
        if path.suffix == ".csv":
            with pa_csv.open_csv(path) as reader:
                return FocusFile(path=path, names=tuple(reader.schema.names), exact=True)
        schema = pq.read_schema(path)
    except pa.ArrowInvalid as error:
        raise InputError(f"not readable as Parquet or CSV: {error}", where=str(path)) from None
    binary = any(pa.types.is_floating(field.type) for field in schema if _KINDS.get(field.name) == "decimal")
    return FocusFile(path=path, names=tuple(schema.names), exact=not binary)
