"""Files of an export: streamed to a temporary name and renamed into place when whole."""

from __future__ import annotations

import json
import uuid
from base64 import b64encode
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from gpuwaste.focus.columns import AMOUNT_TYPE, TIME_TYPE
from gpuwaste.focus.json_values import json_column
from gpuwaste.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["RowSink", "metadata_path", "open_sink", "write_json"]

_ROW_GROUP_ROWS = 131_072
_UNIQUE = ("AllocatedMethodDetails",)
_SEARCHED = ("BillingPeriodStart", "ChargePeriodEnd", "ChargePeriodStart", "ResourceId")
"""What readers look for by range or value; statistics of the other columns would cost a third of the writing."""


class RowSink(Protocol):
    """Takes the rows of one file, piece by piece."""

    def write(self, rows: pa.Table) -> None:
        """Append rows of the schema that the sink was opened with."""


@contextmanager
def open_sink(path: Path, schema: pa.Schema) -> Iterator[RowSink]:
    """Open a Parquet or CSV file by the end of its name; it appears under that name only when the block ends well.

    Raises:
        InputError: the name ends in neither `.parquet` nor `.csv`.
    """
    sinks: dict[str, type[_ParquetSink | _CsvSink]] = {".parquet": _ParquetSink, ".csv": _CsvSink}
    if path.suffix not in sinks:
        raise InputError("an export must end in .parquet or .csv", where=str(path))
    with _renamed(path) as temporary:
        sink = sinks[path.suffix](temporary, schema)
        try:
            yield sink
        finally:
            sink.close()


class _ParquetSink:
    def __init__(self, path: Path, schema: pa.Schema) -> None:
        # Amounts are mostly all different, so a dictionary of them would only cost time.
        texts = [name for name in schema.names if schema.field(name).type != AMOUNT_TYPE and name not in _UNIQUE]
        self._writer = pq.ParquetWriter(
            path,
            schema,
            compression="zstd",
            use_dictionary=texts,
            write_statistics=list(_SEARCHED),
            version="2.6",
            store_schema=False,
        )

    def write(self, rows: pa.Table) -> None:
        self._writer.write_table(rows, row_group_size=_ROW_GROUP_ROWS)

    def close(self) -> None:
        self._writer.close()


class _CsvSink:
    def __init__(self, path: Path, schema: pa.Schema) -> None:
        texts = pa.schema([pa.field(field.name, pa.string()) for field in schema])
        self._writer = pa_csv.CSVWriter(path, texts, write_options=pa_csv.WriteOptions(quoting_style="needed"))

    def write(self, rows: pa.Table) -> None:
        self._writer.write_table(pa.table([_as_text(column) for column in rows.columns], names=rows.column_names))

    def close(self) -> None:
        self._writer.close()


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if column.type == TIME_TYPE:
        return pc.strftime(column.cast(pa.timestamp("s", tz="UTC")), format="%Y-%m-%dT%H:%M:%SZ")
    if pa.types.is_nested(column.type):
        return pa.chunked_array([json_column(chunk) for chunk in column.chunks], pa.string())
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        texts = [value if value is None else b64encode(value).decode() for value in column.to_pylist()]
        return pa.chunked_array([texts], pa.string())
    return column.cast(pa.string())


def metadata_path(path: Path) -> Path:
    """Where the metadata of a data file lies: beside it, under the same name."""
    return path.with_suffix(".metadata.json")


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write one JSON document, whole or not at all."""
    with _renamed(path) as temporary:
        temporary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _renamed(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
