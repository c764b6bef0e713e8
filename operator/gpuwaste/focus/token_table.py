"""Calls of language models as a gateway counted them: one documented table, read from Parquet, CSV or JSON lines.

Only the columns named here are taken. Prompts, answers, keys, users and other metadata that such a log may hold never
become values here; readers step over them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from gpuwaste.focus.columns import TIME_TYPE
from gpuwaste.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from gpuwaste.focus.options import Grain

__all__ = ["KINDS", "TOKEN_SCHEMA", "read_tokens"]

KINDS: Final = ("input", "cached", "cache_write", "output")
"""Kinds of tokens that have prices of their own: read anew, read from a cache, written to one, and answered."""

TOKEN_SCHEMA: Final = pa.schema(
    [
        pa.field("time", TIME_TYPE, nullable=False),
        pa.field("team", pa.string(), nullable=False),
        pa.field("provider", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("endpoint", pa.string(), nullable=False),
        pa.field("cache_hit", pa.bool_(), nullable=False),
        *(pa.field(f"{kind}_tokens", pa.int64(), nullable=False) for kind in KINDS),
    ]
)
"""What is read, one row a call or a sum of calls; team and endpoint may be empty. Kinds never overlap.

`cache_hit` is true where the gateway itself had the answer, so that no provider charged anything.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dialect:
    """How one gateway calls the columns.

    Attributes:
        columns: its name of each of ours.
        whole_input: whether its input counts cached tokens, too.
        daily: whether a row is a sum over a day.
    """

    columns: dict[str, str]
    whole_input: bool
    daily: bool = False

    @property
    def needed(self) -> set[str]:
        return {self.columns[name] for name in ("time", "model", "input_tokens", "output_tokens")}


_OWN: Final = {name: name for name in TOKEN_SCHEMA.names}
_LITELLM: Final = {
    "team": "team_id",
    "provider": "custom_llm_provider",
    "model": "model",
    "endpoint": "api_base",
    "cache_hit": "cache_hit",
    "input_tokens": "prompt_tokens",
    "cached_tokens": "cache_read_input_tokens",
    "cache_write_tokens": "cache_creation_input_tokens",
    "output_tokens": "completion_tokens",
}
_DIALECTS: Final = (
    _Dialect(columns=_OWN, whole_input=False),
    _Dialect(columns={**_LITELLM, "time": "startTime"}, whole_input=True),
    _Dialect(columns={**_LITELLM, "time": "date"}, whole_input=True, daily=True),
)
"""Ours, LiteLLM's spend logs, and its daily team spend."""


def read_tokens(paths: Iterable[Path], *, grain: Grain) -> pa.Table:
    """Read files of calls, by the end of their names: `.parquet`, `.csv`, `.jsonl` or `.ndjson`.

    Args:
        paths: the files.
        grain: how much time is charged at once; sums over a day cannot be charged by the hour.

    Returns:
        Rows of TOKEN_SCHEMA, in the order of the files.

    Raises:
        InputError: a file cannot be read, lacks a column, or holds a value that is none; names file, row and column.
    """
    tables = [_read(path, grain) for path in paths]
    return pa.concat_tables(tables) if tables else TOKEN_SCHEMA.empty_table()


def _read(path: Path, grain: Grain) -> pa.Table:
    if not path.is_file():
        raise InputError("there is no such file", where=str(path))
    readers = {".parquet": _parquet, ".csv": _csv, ".jsonl": _json, ".ndjson": _json}
    if path.suffix not in readers:
        raise InputError("must end in .parquet, .csv, .jsonl or .ndjson", where=str(path))
    try:
        dialect, table = readers[path.suffix](path)
    except (pa.ArrowInvalid, pa.ArrowKeyError, UnicodeDecodeError) as error:
        what = " ".join(str(error).split())[:200]
        raise InputError(f"cannot be read as {path.suffix[1:]}: {what}", where=str(path)) from None
    if dialect.daily and grain == "hour":
        raise InputError("holds sums over days", where=str(path), fix="use --grain day")
    return _checked(table, dialect, path)


def _dialect(names: Iterable[str], path: Path) -> _Dialect:
    found = set(names)
    for dialect in _DIALECTS:
        if dialect.needed <= found:
            return dialect
    missing = sorted(_DIALECTS[0].needed - found)
    raise InputError(
        f"columns missing: {', '.join(missing)}",
        where=str(path),
        fix="name them so, or give LiteLLM's spend logs or daily team spend as they are",
    )


def _parquet(path: Path) -> tuple[_Dialect, pa.Table]:
    names = pq.read_schema(path).names
    dialect = _dialect(names, path)
    return dialect, pq.read_table(path, columns=[name for name in dialect.columns.values() if name in names])


def _csv(path: Path) -> tuple[_Dialect, pa.Table]:
    with pa_csv.open_csv(path) as reader:
        names = reader.schema.names
    dialect = _dialect(names, path)
    wanted = [name for name in dialect.columns.values() if name in names]
    convert = pa_csv.ConvertOptions(
        include_columns=wanted,
        column_types=dict.fromkeys(wanted, pa.string()),
        strings_can_be_null=True,
        null_values=[""],
    )
    return dialect, pa_csv.read_csv(path, convert_options=convert, parse_options=_MANY_LINES)


_MANY_LINES: Final = pa_csv.ParseOptions(newlines_in_values=True)
"""A log of calls may hold texts of many lines; they are stepped over."""


def _json(path: Path) -> tuple[_Dialect, pa.Table]:
    counts = {one.columns[f"{kind}_tokens"] for one in _DIALECTS for kind in KINDS}
    names = dict.fromkeys(name for one in _DIALECTS for name in one.columns.values())
    wanted = pa.schema([(name, pa.int64() if name in counts else pa.string()) for name in names])
    parse = pa_json.ParseOptions(explicit_schema=wanted, unexpected_field_behavior="ignore")
    table = pa_json.read_json(path, parse_options=parse)
    # What no line has is null throughout, and so is no column of this file.
    return _dialect([name for name in names if table[name].null_count < len(table)], path), table


def _checked(table: pa.Table, dialect: _Dialect, path: Path) -> pa.Table:
    columns = {}
    for name in TOKEN_SCHEMA.names:
        theirs = dialect.columns[name]
        values = table[theirs] if theirs in table.column_names else pa.chunked_array([pa.nulls(len(table))])
        where = f"{path}, column {theirs}"
        if name.endswith("_tokens"):
            columns[name] = _counts(values, where)
        elif name == "time":
            columns[name] = _times(values, where)
        elif name == "cache_hit":
            columns[name] = pc.equal(pc.utf8_lower(pc.fill_null(values.cast(pa.string()), "")), "true")
        else:
            columns[name] = pc.fill_null(values.cast(pa.string()), "")
    if dialect.whole_input:
        cached = pc.add(columns["cached_tokens"], columns["cache_write_tokens"])
        columns["input_tokens"] = pc.subtract(columns["input_tokens"], cached)
    checked = pa.table(columns, schema=TOKEN_SCHEMA)
    for name in (f"{kind}_tokens" for kind in KINDS):
        _refuse(pc.less(checked[name], 0), f"{path}, column {dialect.columns[name]}", "is below zero")
    _refuse(pc.equal(checked["model"], ""), f"{path}, column {dialect.columns['model']}", "is empty")
    return checked


def _refuse(bad: pa.ChunkedArray, where: str, what: str) -> None:
    rows = pc.indices_nonzero(bad)
    if len(rows):
        more = f" (and {len(rows) - 1} more rows)" if len(rows) > 1 else ""
        raise InputError(f"{what}{more}", where=f"{where}, row {rows[0].as_py() + 1}")


def _counts(values: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    if pa.types.is_floating(values.type):
        _refuse(pc.fill_null(pc.not_equal(values, pc.trunc(values)), fill_value=False), where, "is no whole number")
    try:
        return pc.fill_null(values.cast(pa.int64()), 0)
    except pa.ArrowInvalid:
        row = _first_bad(values, pa.int64())
        raise InputError("is no whole number of tokens", where=f"{where}, row {row}") from None


def _times(values: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    _refuse(pc.is_null(values), where, "is empty")
    if pa.types.is_date(values.type):
        values = values.cast(pa.timestamp("us"))
    if pa.types.is_timestamp(values.type) and values.type.tz is None:
        return values.cast(pa.timestamp("us")).cast(TIME_TYPE)  # gateways write UTC
    if pa.types.is_string(values.type):
        # A time without an offset is UTC, as databases of gateways hold it.
        zoned = pc.match_substring_regex(values, r"(Z|[+-]\d\d:?\d\d)$")
        day = pc.match_substring_regex(values, r"^\d{4}-\d\d-\d\d$")
        plain = pc.if_else(day, pc.binary_join_element_wise(values, "T00:00:00", ""), values)
        values = pc.if_else(pc.and_(zoned, pc.invert(day)), plain, pc.binary_join_element_wise(plain, "Z", ""))
    try:
        return values.cast(TIME_TYPE)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        row = _first_bad(values, TIME_TYPE)
        raise InputError("is no time like 2026-11-01T13:05:00Z", where=f"{where}, row {row}") from None


def _first_bad(values: pa.ChunkedArray, kind: pa.DataType) -> int:
    for row, value in enumerate(values):
        try:
            value.cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return row + 1
    return 1
