"""Kubernetes objects from a file, one JSON object a line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from gpuwaste.model.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from gpuwaste.cluster.api import Json

__all__ = ["load_objects"]

_FIX = 'write one Kubernetes object a line, like {"apiVersion":"v1","kind":"Node","metadata":{"name":"n1"}}'


def _checked(value: object, *, where: str) -> Json:
    if not isinstance(value, dict):
        raise InputError(f"not a JSON object but {type(value).__name__}", where=where, fix=_FIX)
    metadata = value.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    for field, found in (("apiVersion", value.get("apiVersion")), ("kind", value.get("kind")), ("metadata.name", name)):
        if not isinstance(found, str) or not found:
            raise InputError(f"field `{field}` is missing or no string", where=where, fix=_FIX)
    return value


def load_objects(path: Path) -> list[Json]:
    """All objects of a JSON-lines file, in its order; blank lines are skipped.

    Raises:
        InputError: the file cannot be read, or a line is no Kubernetes object; names file, line and field.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise InputError(f"is not UTF-8 text (byte {error.start})", where=str(path)) from error
    objects = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"not JSON: {error.msg} at column {error.colno}", where=where, fix=_FIX) from None
        objects.append(_checked(value, where=where))
    return objects
