"""What a validation found, in words for the person who wrote the file."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

__all__ = ["problems"]


def problems(error: ValidationError, model: type[BaseModel]) -> tuple[str, ...]:
    """One line a finding: the field's path in the file, what is wrong, and the nearest known name of an unknown one."""
    return tuple(_line(one, model) for one in error.errors(include_url=False))


def _line(found: ErrorDetails, model: type[BaseModel]) -> str:
    place = found["loc"]
    path = ".".join(str(part) for part in place)
    if found["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(place[-1]), _names(model, place[:-1]), n=1)
        return f"field `{path}` is not known{f'; did you mean `{near[0]}`?' if near else ''}"
    if found["type"] == "missing":
        return f"field `{path}` is missing"
    message = found["msg"].removeprefix("Value error, ")
    if not path:
        return "must be a mapping of settings"
    return f"field `{path}`: {message[:1].lower()}{message[1:]}"


def _names(model: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """The names that are known at a place in the file."""
    for part in place:
        if isinstance(part, int):
            continue
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        inner = _model_in(fields[part].annotation) if part in fields else None
        if inner is None:
            return []
        model = inner
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, getattr(annotation, "__args__", ()))), None)
