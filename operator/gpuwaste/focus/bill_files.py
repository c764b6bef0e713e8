"""Read a provider's FOCUS bill of any version (Parquet or CSV) into typed columns, without changing a value."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.focus.columns import COLUMNS, TIME_TYPE
from gpuwaste.focus.json_values import json_column
from gpuwaste.focus.ratios import AMOUNT_DECIMALS, AMOUNT_DIGITS, decimals_used, digits_used
from gpuwaste.focus.table_files import is_csv, raw_batches, read_names, read_parquet_schema
from gpuwaste.model.errors import InputError
from gpuwaste.pricing.bills import bill_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["BillFile", "amount_type", "exact_amounts", "narrow_amounts", "open_bill", "read_bill"]

_KINDS = {column.name: column.kind for column in COLUMNS}
_MAX_DIGITS = 76
_PLAIN = r"^-?[0-9]+(\.[0-9]+)?$"
_PIECES_OF_A_FILE = 1 << 32


@dataclass(frozen=True, kw_only=True)
class BillFile:
    """A bill that is read in pieces: row groups of Parquet files, blocks of CSV files.

    Attributes:
        path: a file, or a folder whose files together are the bill.
    """

    path: Path

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """The files of the bill, by name.

        Raises:
            InputError: there is none.
        """
        return tuple(bill_files([self.path]))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The columns that any of the files has.

        Raises:
            InputError: a file cannot be read.
        """
        return tuple(dict.fromkeys(name for path in self.files for name in read_names(path)))

    @cached_property
    def _own(self) -> dict[str, pa.DataType]:
        """The types of the columns that FOCUS does not have: all files have them, as nulls where need be."""
        found: dict[str, pa.DataType] = {}
        for path in self.files:
            kinds = dict.fromkeys(read_names(path), pa.string()) if is_csv(path) else _kinds(path)
            for name in kinds.keys() - _KINDS.keys():
                known = found.setdefault(name, kinds[name])
                if known != kinds[name]:
                    raise InputError(
                        f"has column {name} as {kinds[name]}, and a file before it as {known}",
                        where=str(path),
                        fix="deliver files with equal columns",
                    )
        return found

    def batches(self, wanted: Callable[[int], bool] = lambda _: True) -> Iterator[tuple[int, pa.Table]]:
        """The pieces by their number, in order, as typed tables of at most 65,536 rows.

        Args:
            wanted: which pieces to read; the others are passed over, as cheaply as the format allows.

        Raises:
            InputError: a value is not of its column's type; names the file and column.
        """
        for at, path in enumerate(self.files):
            first = at * _PIECES_OF_A_FILE

            def chosen(number: int, first: int = first) -> bool:
                return wanted(first + number)

            for number, batch in raw_batches(path, read_names(path), wanted=chosen):
                table = pa.table(
                    [_typed(name, batch.column(name), path) for name in batch.schema.names], names=batch.schema.names
                )
                for name in [name for name in self._own if name not in table.column_names]:
                    table = table.append_column(name, pa.nulls(len(table), self._own[name]))
                yield first + number, table


def _kinds(path: Path) -> dict[str, pa.DataType]:
    """The type that each column of a Parquet file has after `_typed`."""
    kinds = {field.name: field.type for field in read_parquet_schema(path)}
    kinds = {name: kind.value_type if pa.types.is_dictionary(kind) else kind for name, kind in kinds.items()}
    return {name: pa.string() if pa.types.is_null(kind) else kind for name, kind in kinds.items()}


def open_bill(path: Path) -> BillFile:
    """Open a bill: a file, or a folder of files.

    Raises:
        InputError: a file cannot be read, is empty or is no FOCUS bill.
    """
    bill = BillFile(path=path)
    for file in bill.files:
        if "ChargeCategory" not in read_names(file):
            raise InputError("column ChargeCategory is missing: this is no FOCUS bill", where=str(file))
    return bill


def read_bill(path: Path) -> pa.Table:
    """Read a whole bill: metrics as exact decimals (decimal256 where 38 digits are too few), times in UTC, else text.

    Raises:
        InputError: the file cannot be read, is empty, or a value is not of its column's type; names the column.
    """
    tables = [table for _, table in open_bill(path).batches()]
    if not tables:
        raise InputError("has no rows", where=str(path))
    return pa.concat_tables(tables, promote_options="permissive").combine_chunks()


def _typed(name: str, column: pa.Array, path: Path) -> pa.Array:
    where = f"{path}, column {name}"
    kind = _KINDS.get(name)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if kind == "decimal":
        return exact_amounts(column, where=where)
    if kind == "time":
        return _times(column, where=where)
    if kind is None and not pa.types.is_null(column.type):
        return column
    if pa.types.is_nested(column.type):
        return json_column(column)
    try:
        return column.cast(pa.string())
    except pa.ArrowException as error:
        raise InputError(f"has values that are no text: {error}", where=where) from None


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
    distinct = coded.dictionary
    if pa.types.is_floating(distinct.type):
        distinct = distinct.cast(pa.string())
    values = [_number(value, where) for value in distinct.to_pylist()]
    scale = max((max(-int(value.as_tuple().exponent), 0) for value in values), default=0)
    whole = max((max(value.adjusted() + 1, 1) for value in values), default=1)
    if scale + whole > _MAX_DIGITS:
        raise InputError(f"needs {scale + whole} digits and may have {_MAX_DIGITS}", where=where)
    kind = pa.decimal128(38, scale) if scale + whole <= _MAX_DIGITS // 2 else pa.decimal256(76, scale)
    return pa.array(values, kind).take(coded.indices)


def amount_type(where: str, digits: int, decimals: int) -> pa.DataType:
    """DECIMAL(38,28), or another scale where values of so many digits and decimals do not fit into that.

    Raises:
        InputError: no scale holds them.
    """
    if digits + AMOUNT_DECIMALS <= AMOUNT_DIGITS and decimals <= AMOUNT_DECIMALS:
        return pa.decimal128(AMOUNT_DIGITS, AMOUNT_DECIMALS)
    if digits + decimals > AMOUNT_DIGITS:
        raise InputError(
            f"has values of {digits} digits before and of {decimals} behind the point, and {AMOUNT_DIGITS} is the most",
            where=where,
            fix="deliver the bill's amounts with fewer decimals",
        )
    return pa.decimal128(AMOUNT_DIGITS, AMOUNT_DIGITS - digits)


def narrow_amounts(amounts: pa.Array, *, where: str) -> pa.Array:
    """Decimals in 38 digits.

    Raises:
        InputError: no scale of 38 digits holds them all.
    """
    if pa.types.is_decimal128(amounts.type):
        return amounts
    digits, decimals = (int(np.max(used(amounts), initial=0)) for used in (digits_used, decimals_used))
    return amounts.cast(amount_type(where, digits, decimals))


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
        number = Decimal(str(value))
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
