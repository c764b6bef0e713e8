"""One way to print a table: aligned for people, or JSON, YAML and CSV for programs."""

from __future__ import annotations

import csv
import io
import json
import sys
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import click
import yaml

from gpuwaste.model.units import format_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["Column", "OutputFormat", "echo_table", "output_option", "plain_value", "render_table"]

OutputFormat = Literal["table", "json", "yaml", "csv"]
_FORMATS = ("table", "json", "yaml", "csv")
UNKNOWN = "<unknown>"
_Function = TypeVar("_Function", bound="Callable[..., Any]")


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        key: name of the value in a row, and in JSON, YAML and CSV; it never changes.
        header: what stands above it for people; empty leaves the column out of the table for people.
        show: how a value that is not None looks to people.
        unknown: what people see for None.
        right: whether numbers stand right-aligned.
    """

    key: str
    header: str
    show: Callable[[Any], str] = str
    unknown: str = UNKNOWN
    right: bool = False


def output_option(function: _Function) -> _Function:
    """Add `-o table|json|yaml|csv` to a command; it arrives as `output`."""
    decorate = click.option(
        "-o",
        "--output",
        type=click.Choice(_FORMATS),
        default="table",
        show_default=True,
        help="How to print: for people, or for programs.",
    )
    return decorate(function)


def plain_value(value: Any) -> Any:
    """A value as JSON and YAML hold it: decimals as strings without an exponent, times in RFC 3339."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime):
        return format_time(value)
    if isinstance(value, dict):
        return {str(key): plain_value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(inner) for inner in value]
    return value


def _machine_rows(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{column.key: plain_value(row[column.key]) for column in columns} for row in rows]


def _csv_line(values: Iterable[Any]) -> str:
    """One row that ends in a newline; written with the default ending, for only then is a lone CR quoted."""
    sink = io.StringIO()
    csv.writer(sink).writerow(["" if value is None else value for value in values])
    return sink.getvalue().removesuffix("\r\n") + "\n"


def _csv(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [[column.key for column in columns], *(row.values() for row in _machine_rows(columns, rows))]
    return "".join(_csv_line(map(_csv_value, line)) for line in lines)


def _csv_value(value: Any) -> Any:
    """A value as one cell: what has parts is written as JSON."""
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return value


def _cells(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    return [
        [column.unknown if row[column.key] is None else column.show(row[column.key]) for column in columns]
        for row in rows
    ]


def _aligned(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [[column.header for column in columns], *_cells(columns, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    text = [
        "  ".join(
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        ).rstrip()
        for line in lines
    ]
    return "\n".join(text) + "\n"


def _rich(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.header, justify="right" if column.right else "left", no_wrap=column.right)
    for line in _cells(columns, rows):
        table.add_row(*(Text(cell) for cell in line))
    Console().print(table)


def render_table(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]], output: OutputFormat) -> str:
    """The whole table as text; `table` gives plain aligned columns.

    Args:
        columns: in the order in which they stand.
        rows: one mapping a row that has every column's key.
        output: the format.
    """
    if output == "json":
        return json.dumps(_machine_rows(columns, rows), indent=2, ensure_ascii=False) + "\n"
    if output == "yaml":
        text: str = yaml.safe_dump(_machine_rows(columns, rows), sort_keys=False)
        return text
    if output == "csv":
        return _csv(columns, rows)
    return _aligned([column for column in columns if column.header], rows)


def echo_table(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]], output: str) -> None:
    """Print a table to stdout: with colours and fitted to the width only where stdout is a terminal."""
    if output == "table" and sys.stdout.isatty():
        _rich([column for column in columns if column.header], rows)
        return
    click.echo(render_table(columns, rows, cast("OutputFormat", output)), nl=False)
