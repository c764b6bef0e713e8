"""Parquet and CSV files of any engine, piece by piece, before their values have types."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from gpuwaste.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

__all__ = ["is_csv", "raw_batches", "read_names", "read_parquet_schema"]

_BATCH_ROWS: Final = 65_536
_BLOCK_BYTES: Final = 1 << 25
"""Of a CSV: some ten thousand rows."""
_MANY_LINES: Final = pa_csv.ParseOptions(newlines_in_values=True)


def is_csv(path: Path) -> bool:
    """Whether a file is a CSV by its name, perhaps a packed one; every other is taken for Parquet."""
    return path.name.lower().endswith((".csv", ".csv.gz"))


def read_names(path: Path) -> tuple[str, ...]:
    """The names of a file's columns.

    Raises:
        InputError: there is no such file, it is neither Parquet nor CSV, or two columns have one name.
    """
    if path.is_dir():
        raise InputError("is a folder", where=str(path), fix="name one of its .parquet or .csv files")
    if not path.is_file():
        raise InputError("there is no such file", where=str(path))
    if is_csv(path):
        with _readable(path), pa_csv.open_csv(path, parse_options=_MANY_LINES) as reader:
            names = tuple(reader.schema.names)
    else:
        names = tuple(read_parquet_schema(path).names)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(f"has several columns {twice[0]}", where=str(path))
    return names


def read_parquet_schema(path: Path) -> pa.Schema:
    """The schema of a Parquet file.

    Raises:
        InputError: it is none.
    """
    with _readable(path):
        return pq.read_schema(path)


def raw_batches(
    path: Path,
    columns: Sequence[str],
    *,
    wanted: Callable[[int], bool] = lambda _: True,
    quoted_can_be_null: bool = True,
    dictionaries: Sequence[str] = (),
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The rows of a file in order, with the number of the piece that they stand in: a row group, or a block of a CSV.

    Args:
        path: of a file that `read_names` accepts.
        columns: the names of the columns to read; those of a CSV come as texts.
        wanted: which pieces to read; the others are passed over, as cheaply as the format allows.
        quoted_can_be_null: whether `""` in a CSV is null, and not an empty text.
        dictionaries: the columns of a Parquet file that are to come as dictionaries where they are texts.

    Raises:
        InputError: the file is damaged.
    """
    with _readable(path):
        if is_csv(path):
            for number, batch in enumerate(_open_csv(path, columns, quoted_can_be_null=quoted_can_be_null)):
                if wanted(number):
                    yield number, batch
            return
        texts = {field.name for field in pq.read_schema(path) if pa.types.is_string(field.type)}
        coded = [name for name in dictionaries if name in texts]
        with pq.ParquetFile(path, read_dictionary=coded, pre_buffer=False) as file:
            for number in range(file.num_row_groups):
                if wanted(number):
                    for batch in file.iter_batches(_BATCH_ROWS, row_groups=[number], columns=list(columns)):
                        yield number, batch


def _open_csv(path: Path, columns: Sequence[str], *, quoted_can_be_null: bool) -> pa_csv.CSVStreamingReader:
    texts = pa_csv.ConvertOptions(
        column_types=dict.fromkeys(columns, pa.string()),
        strings_can_be_null=True,
        quoted_strings_can_be_null=quoted_can_be_null,
        null_values=[""],
        include_columns=list(columns),
    )
    return pa_csv.open_csv(
        path, pa_csv.ReadOptions(block_size=_BLOCK_BYTES), parse_options=_MANY_LINES, convert_options=texts
    )


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Say which file is damaged, in one line; what the system says of a file stays as it is."""

    def refused(error: Exception) -> InputError:
        return InputError(f"not readable as Parquet or CSV: {' '.join(str(error).split())}", where=str(path))

    try:
        yield
    except pa.ArrowException as error:
        raise refused(error) from None
    except OSError as error:
        if error.strerror is not None:
            raise
        raise refused(error) from None
