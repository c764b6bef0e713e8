"""Values of nested columns as JSON texts, no number rounded and no key lost."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pyarrow as pa

__all__ = ["json_column", "json_text"]


def json_column(column: pa.Array) -> pa.Array:
    """Each value of a list, map or struct column as JSON; null stays null."""
    kind = column.type
    texts = [None if value is None else json_text(_plain(value, kind)) for value in column.to_pylist()]
    return pa.array(texts, pa.string())


def json_text(value: Any) -> str:
    """JSON with decimals as plain numbers; a list of pairs in a `_Pairs` is an object, which may have a key twice."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, dict):
        value = _Pairs(value.items())
    if isinstance(value, _Pairs):
        return "{" + ",".join(f"{json.dumps(str(key))}:{json_text(item)}" for key, item in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(json_text, value)) + "]"
    return json.dumps(value, default=str)


class _Pairs(list[tuple[Any, Any]]):
    """An object as its pairs."""


def _plain(value: Any, kind: pa.DataType) -> Any:
    """Arrow gives a map as a list of pairs, which only its type tells from a list."""
    if value is None:
        return None
    if pa.types.is_map(kind):
        return _Pairs((key, _plain(item, kind.item_type)) for key, item in value)
    if pa.types.is_struct(kind):
        return {field.name: _plain(value[field.name], field.type) for field in kind}
    if pa.types.is_nested(kind):
        return [_plain(item, kind.value_type) for item in value]
    return value
