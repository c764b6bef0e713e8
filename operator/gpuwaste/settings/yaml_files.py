"""YAML that people write: refused with the place of the mistake, and checked against frozen models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ConfigDict

from gpuwaste.model.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FileModel", "parse_yaml", "read_yaml"]


def _camel_case(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)


class FileModel(BaseModel):
    """A mapping in a file: names in camelCase there, no other names allowed, never changed."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=_camel_case, populate_by_name=True)


class _OnceLoader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping: the second would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        keys: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in keys:
                raise yaml.constructor.ConstructorError(None, None, f"`{key.value}` stands twice", key.start_mark)
            keys.add(key.value if isinstance(key, yaml.ScalarNode) else "")
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path) -> Any:
    """Read one document of a file.

    Raises:
        InputError: the file cannot be read, or is no YAML.
    """
    try:
        return parse_yaml(path.read_bytes(), where=str(path))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", where=str(path)) from None


def parse_yaml(text: str | bytes, *, where: str) -> Any:
    """Read one document.

    Raises:
        InputError: it is no YAML; names the line.
    """
    try:
        return yaml.load(text, Loader=_OnceLoader)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise InputError(f"is no YAML: {problem}", where=f"{where}, line {mark.line + 1}" if mark else where) from None
