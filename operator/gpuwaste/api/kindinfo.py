"""What a kind is called, where it lives and how kubectl prints it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Column", "KindInfo", "Scope"]


class Scope(StrEnum):
    """Whether objects of a kind lie in namespaces."""

    NAMESPACED = "Namespaced"
    CLUSTER = "Cluster"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of `kubectl get`; `wide` shows it with `-o wide` only. A JSONPath cannot compute."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KindInfo:
    """Names and columns of a kind; Age is always added as the last column."""

    kind: str
    plural: str
    scope: Scope
    columns: tuple[Column, ...]
    short_names: tuple[str, ...] = ()

    @property
    def singular(self) -> str:
        """The kind in lower case."""
        return self.kind.lower()
