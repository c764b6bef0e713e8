"""Fillings of nodes, equal ones together, and the pool of them from which the master chooses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gpuwaste.packing.instance import Ints

__all__ = ["ColumnPool", "Filling"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filling:
    """Nodes in use, equal ones together: Q groups.

    Attributes:
        kind: int64[Q] node type.
        pattern: int64[Q, S] pods of each shape on one node.
        copies: int64[Q] how many nodes are filled so, >= 1.
    """

    kind: Ints
    pattern: Ints
    copies: Ints

    @property
    def placed(self) -> Ints:
        """int64[S]: pods of each shape on all nodes."""
        return np.asarray(self.copies @ self.pattern, dtype=np.int64)

    def nodes_of_kinds(self, kinds: int) -> Ints:
        """int64[kinds]: nodes in use of each type."""
        used = np.zeros(kinds, dtype=np.int64)
        np.add.at(used, self.kind, self.copies)
        return used

    @classmethod
    def joined(cls, kind: Ints, pattern: Ints, copies: Ints) -> Filling:
        """Put equal rows together and drop what is empty; int64[R], int64[R, S], int64[R]."""
        keep = (copies > 0) & pattern.any(axis=1)
        kind, pattern, copies = kind[keep], np.ascontiguousarray(pattern[keep]), copies[keep]
        groups: dict[tuple[int, bytes], int] = {}
        member = np.array(
            [groups.setdefault((k, row.tobytes()), len(groups)) for k, row in zip(kind.tolist(), pattern, strict=True)],
            dtype=np.int64,
        )
        _, first = np.unique(member, return_index=True)
        total = np.zeros(len(groups), dtype=np.int64)
        np.add.at(total, member, copies)
        return cls(kind=kind[first], pattern=pattern[first], copies=total)

    @classmethod
    def of_nodes(cls, kind: Ints, nodes: Ints) -> Filling:
        """Group equal nodes; int64[N] and int64[N, S]; empty nodes are dropped."""
        return cls.joined(kind, nodes, np.ones(len(kind), dtype=np.int64))


@dataclass(slots=True)
class ColumnPool:
    """Distinct (type, filling) pairs in the order they were found."""

    kinds: list[int] = field(default_factory=list)
    patterns: list[Ints] = field(default_factory=list)
    _index: dict[tuple[int, bytes], int] = field(default_factory=dict)

    def add(self, kind: int, pattern: Ints) -> bool:
        """Add a filling; False if it was there."""
        key = (kind, pattern.tobytes())
        if key in self._index:
            return False
        self._index[key] = len(self.kinds)
        self.kinds.append(kind)
        self.patterns.append(pattern)
        return True

    def add_filling(self, filling: Filling) -> None:
        """Add every group of a filling."""
        for kind, pattern in zip(filling.kind.tolist(), filling.pattern, strict=True):
            self.add(kind, pattern)

    def position(self, kind: int, pattern: Ints) -> int | None:
        """Where a filling stands in the pool; None if it does not."""
        return self._index.get((kind, pattern.tobytes()))

    def __len__(self) -> int:
        return len(self.kinds)
