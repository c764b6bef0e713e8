"""Read a FOCUS file of any engine in batches, texts as dictionaries, amounts as exact decimals."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.focus.bill_files import exact_amounts, narrow_amounts
from gpuwaste.focus.columns import COLUMNS, TIME_TYPE
from gpuwaste.focus.json_values import json_column
from gpuwaste.focus.table_files import is_csv, raw_batches, read_names, read_parquet_schema
from gpuwaste.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["Batch", "FocusFile", "open_file"]

_KINDS: Final = {column.name: column.kind for column in COLUMNS}
_LONG: Final = ("AllocatedMethodDetails",)
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_NUMBER: Final = re.compile(r"-?(\d+\.?\d*|\.\d+)([eE]-?\d+)?")
_PLAIN_NUMBER: Final = r"^-?[0-9]+(\.[0-9]+)?$"


Problem = tuple[str, "NDArray[np.int64]", str]
"""A broken rule, the rows of a batch that break it, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Rows of a file, the first of which has the number `start` (from 0).

    Attributes:
        problems: what could be seen only before the values had their types: how a CSV writes times and numbers.
    """

    start: int
    table: pa.Table
    problems: tuple[Problem, ...] = ()


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
        for pieces in self._pieces([name for name in columns if name in self.names]):
            problems: list[Problem] = []
            table = pa.table({name: self._typed(name, piece, problems) for name, piece in pieces.items()})
            yield Batch(start=start, table=table, problems=tuple(problems))
            start += len(table)

    def _pieces(self, columns: list[str]) -> Iterator[dict[str, pa.Array]]:
        texts = [name for name in columns if _KINDS.get(name) in {"string", "json", None} and name not in _LONG]
        for _, batch in raw_batches(self.path, columns, quoted_can_be_null=False, dictionaries=texts):
            yield {name: batch.column(name) for name in batch.schema.names}

    def _typed(self, name: str, column: pa.Array, problems: list[Problem]) -> pa.Array:
        where = f"{self.path}, column {name}"
        kind = _KINDS.get(name)
        try:
            if kind in _CHECKED and pa.types.is_string(column.type):
                found, column = _CHECKED[kind](name, column)
                problems += found
            if kind == "decimal":
                return narrow_amounts(exact_amounts(column, where=where), where=where)
            if kind == "time":
                return column if column.type == TIME_TYPE else column.cast(TIME_TYPE)
            if pa.types.is_nested(column.type):
                column = json_column(column)
            if name in _LONG:
                return column.cast(pa.string())
            if pa.types.is_dictionary(column.type):
                return column
            return pc.dictionary_encode(column.cast(pa.string()))
        except pa.ArrowException as error:
            raise InputError(f"has a value that is no {kind or 'text'}: {error}", where=where) from None


def _checked_times(name: str, texts: pa.Array) -> tuple[list[Problem], pa.Array]:
    """Times written otherwise than FOCUS writes them, and the times as values; null where a text is no time."""
    coded = pc.dictionary_encode(texts)
    words = coded.dictionary.to_pylist()
    problems = _misspelt(name, coded, [_time_problem(word) for word in words])
    return problems, pa.array([_time(word) for word in words], TIME_TYPE).take(coded.indices)


def _time_problem(word: str) -> tuple[str, str] | None:
    if _TIME.fullmatch(word):
        return None
    if _time(word) is None:
        return "DateTimeFormat-A-003-M", f"{word!r} is no time like 2026-11-01T00:00:00Z"
    if "T" not in word:
        return "DateTimeFormat-A-004-M", f"{word!r} must have a T between date and time"
    if not word.endswith("Z"):
        return "DateTimeFormat-A-006-M", f"{word!r} must end with Z, for UTC"
    return "DateTimeFormat-A-003-M", f"{word!r} must be written like 2026-11-01T00:00:00Z"


def _time(word: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(word)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _checked_numbers(name: str, texts: pa.Array) -> tuple[list[Problem], pa.Array]:
    """Numbers written otherwise than FOCUS writes them, and the texts; null where one is no number."""
    plain = pc.fill_null(pc.match_substring_regex(texts, _PLAIN_NUMBER), fill_value=True)
    if pc.all(plain).as_py():
        return [], texts
    coded = pc.dictionary_encode(texts)
    words = coded.dictionary.to_pylist()
    problems = _misspelt(name, coded, [_number_problem(word) for word in words])
    kept = [word if _NUMBER.fullmatch(word) else _unsigned(word) for word in words]
    return problems, pa.array(kept, pa.string()).take(coded.indices)


def _number_problem(word: str) -> tuple[str, str] | None:
    if _NUMBER.fullmatch(word):
        return None
    if _unsigned(word) is not None:
        return "NumericFormat-A-010-M", f"{word!r} must not have a sign for a positive value"
    if "," in word:
        return "NumericFormat-A-009-M", f"{word!r} must not have commas"
    return "NumericFormat-A-002-M", f"{word!r} is no number"


def _unsigned(word: str) -> str | None:
    bare = word.removeprefix("+").replace("E+", "E").replace("e+", "e")
    return bare if _NUMBER.fullmatch(bare) else None


def _misspelt(name: str, coded: pa.DictionaryArray, found: Sequence[tuple[str, str] | None]) -> list[Problem]:
    codes = pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False)
    return [
        (problem[0], np.flatnonzero(codes == code), f"{name} {problem[1]}")
        for code, problem in enumerate(found)
        if problem
    ]


_CHECKED: Final[dict[str | None, Callable[[str, pa.Array], tuple[list[Problem], pa.Array]]]] = {
    "time": _checked_times,
    "decimal": _checked_numbers,
}


def open_file(path: Path) -> FocusFile:
    """Open a Parquet or CSV file.

    Raises:
        InputError: it is not there, or is neither.
    """
    names = read_names(path)
    if is_csv(path):
        return FocusFile(path=path, names=names, exact=True)
    schema = read_parquet_schema(path)
    binary = any(pa.types.is_floating(field.type) for field in schema if _KINDS.get(field.name) == "decimal")
    return FocusFile(path=path, names=names, exact=not binary)
