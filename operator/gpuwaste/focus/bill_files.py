"""Read a provider's FOCUS bill of any version (Parquet or CSV) into typed columns, without changing a value."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from gpuwaste.focus.columns import COLUMNS, TIME_TYPE
from gpuwaste.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["BillFile", "exact_amounts", "open_bill", "read_bill"]

_KINDS = {column.name: column.kind for column in COLUMNS}
_MAX_DIGITS = 76
_BATCH_ROWS = 65_536
_BLOCK_BYTES = 1 << 25
_PLAIN = r"^-?[0-9]+(\.[0-9]+)?$"


@dataclass(frozen=True, slots=True, kw_only=True)
class BillFile:
    """A bill that is read in pieces: row groups of a Parquet file, blocks of a CSV."""

    path: Path

    def batches(self, wanted: Callable[[int], bool] = lambda _: True) -> Iterator[tuple[int, pa.Table]]:
        """The pieces by their number, in order, as typed tables of at most 65,536 rows.

        Args:
            wanted: which pieces to read; the others are passed over, as cheaply as the format allows.

        Raises:
            InputError: a value is not of its column's type; names the column.
        """
        for number, batch in self._raw(wanted):
            columns = [_typed(name, batch.column(name), self.path) for name in batch.schema.names]
            yield number, pa.table(columns, names=batch.schema.names)

    def _raw(self, wanted: Callable[[int], bool]) -> Iterator[tuple[int, pa.RecordBatch]]:
        if self.path.suffix == ".csv":
            for number, batch in enumerate(_open_csv(self.path)):
                if wanted(number):
                    yield number, batch
            return
        with pq.ParquetFile(self.path, pre_buffer=False) as file:
            for number in range(file.num_row_groups):
                if wanted(number):
                    for batch in file.iter_batches(_BATCH_ROWS, row_groups=[number]):
                        yield number, batch


def open_bill(path: Path) -> BillFile:
    """Open a bill.

    Raises:
        InputError: the file cannot be read, is empty or is no FOCUS bill.
    """
    if not path.is_file():
        raise InputError("there is no such file", where=str(path))
    try:
        names = _csv_names(path) if path.suffix == ".csv" else pq.read_schema(path).names
    except pa.ArrowInvalid as error:
        raise InputError(f"not readable as Parquet or CSV: {error}", where=str(path)) from None
    if "ChargeCategory" not in names:
        raise InputError("column ChargeCategory is missing: this is no FOCUS bill", where=str(path))
    return BillFile(path=path)


def read_bill(path: Path) -> pa.Table:
    """Read a whole bill: metrics as exact decimals (decimal256 where 38 digits are too few), times in UTC, else text.

    Raises:
        InputError: the file cannot be read, is empty, or a value is not of its column's type; names the column.
    """
    open_bill(path)
    table = _read_csv(path) if path.suffix == ".csv" else pq.read_table(path)
    columns = [_typed(name, table[name].combine_chunks(), path) for name in table.column_names]
    return pa.table(columns, names=table.column_names)


def _csv_names(path: Path) -> list[str]:
    with pa_csv.open_csv(path) as reader:
        return list(reader.schema.names)


def _as_texts(path: Path) -> pa_csv.ConvertOptions:
    return pa_csv.ConvertOptions(
        column_types=dict.fromkeys(_csv_names(path), pa.string()), strings_can_be_null=True, null_values=[""]
    )


def _open_csv(path: Path) -> pa_csv.CSVStreamingReader:
    return pa_csv.open_csv(path, pa_csv.ReadOptions(block_size=_BLOCK_BYTES), convert_options=_as_texts(path))


def _read_csv(path: Path) -> pa.Table:
    return pa_csv.read_csv(path, convert_options=_as_texts(path))


def _typed(name: str, column: pa.Array, path: Path) -> pa.Array:
    where = f"{path}, column {name}"
    kind = _KINDS.get(name)
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if kind == "decimal":
        return exact_amounts(column, where=where)
    if kind == "time":
        return _times(column, where=where)
    if pa.types.is_nested(column.type):
        return pa.array([_json(value) for value in column.to_pylist()], pa.string())
    if kind is None and not pa.types.is_null(column.type):
        return column
    return column.cast(pa.string())


def _json(value: Any) -> str | None:
    # Some providers deliver tags as a map, which Arrow gives as a list of pairs.
    if value is None:
        return None
    return json.dumps(dict(value) if isinstance(value, list) else value, default=str)


def exact_amounts(column: pa.Array, *, where: str) -> pa.Array:
    """Numbers of any type as decimals of one scale, none of them rounded.

    A binary floating point number stands for the shortest decimal that is read back as it: that is what was written.

    Raises:
        InputError: a value is no number, or needs more than 76 digits.
    """
    if pa.types.is_decimal(column.type):
        return column
    if pa.types.is_null(column.type) or pa.types.is_integer(column.type):
        return column.cast(pa.decimal128(38, 0))
    plain = _plain_amounts(column) if pa.types.is_string(column.type) else None
    if plain is not None:
        return plain
    coded = pc.dictionary_encode(column)
    values = [_number(value, where) for value in coded.dictionary.to_pylist()]
    scale = max((max(-int(value.as_tuple().exponent), 0) for value in values), default=0)
    whole = max((max(value.adjusted() + 1, 1) for value in values), default=1)
    if scale + whole > _MAX_DIGITS:
        raise InputError(f"needs {scale + whole} digits and may have {_MAX_DIGITS}", where=where)
    kind = pa.decimal128(38, scale) if scale + whole <= _MAX_DIGITS // 2 else pa.decimal256(76, scale)
    return pa.array(values, kind).take(coded.indices)


def _plain_amounts(texts: pa.Array) -> pa.Array | None:
    """Numbers without an exponent, all at once; None where some text is another, or 38 digits are too few."""
    if not pc.all(pc.match_substring_regex(texts, _PLAIN), min_count=0).as_py():
        return None
    length, point = pc.utf8_length(texts), pc.find_substring(texts, ".")
    has_point = pc.greater_equal(point, 0)
    decimals = pc.max(pc.if_else(has_point, pc.subtract(pc.subtract(length, point), 1), 0)).as_py() or 0
    whole = pc.max(pc.if_else(has_point, point, length)).as_py() or 1
    if whole + decimals > _MAX_DIGITS // 2:
        return None
    return texts.cast(pa.decimal128(_MAX_DIGITS // 2, decimals))


def _number(value: Any, where: str) -> Decimal:
    try:
        number = Decimal(repr(value) if isinstance(value, float) else str(value))
    except InvalidOperation:
        raise InputError(f"{value!r} is no number", where=where) from None
    if not number.is_finite():
        raise InputError(f"{value!r} is no finite number", where=where)
    return number


def _times(column: pa.Array, *, where: str) -> pa.Array:
    try:
        if pa.types.is_timestamp(column.type) and column.type.tz is None:
            return column.cast(pa.timestamp("us")).cast(TIME_TYPE)
        return column.cast(TIME_TYPE)
    except pa.ArrowInvalid as error:
        raise InputError(f"is no time in UTC: {error}", where=where) from None
