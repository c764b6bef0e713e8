"""What containers held and did in windows, in the parent's own time: before slice weights are applied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from gpuwaste.ledger.columns import Texts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from gpuwaste.ledger.columns import Int64s

__all__ = ["FIGURES", "HolderRows", "added_rows"]

FIGURES: Final = ("sm", "duty", "sm_low", "sm_high", "coverage_ppm")


@dataclass(frozen=True, slots=True, kw_only=True)
class HolderRows:
    """One row a parent, slice and container in a window.

    Attributes:
        names: columns of the parent's key, of the holder's, and `origin`.
        numbers: int64[m] each: `parent`, index of the parent-window; `start`, Unix nanoseconds; `held`, how long in
            the window; `since` and `first`, of allocation and first activity, the largest int64 where unknown;
            `share`, billionths of the parent where a scheduler says them, else −1; and FIGURES, −1 where unmeasured.
    """

    names: dict[str, Texts]
    numbers: dict[str, Int64s]

    def __len__(self) -> int:
        return len(self.numbers["parent"])

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> HolderRows:
        """Some of the rows."""
        return HolderRows(
            names={name: column.take(rows) for name, column in self.names.items()},
            numbers={name: column[rows] for name, column in self.numbers.items()},
        )

    def with_numbers(self, **changed: Int64s) -> HolderRows:
        """The same with other numbers."""
        return HolderRows(names=self.names, numbers={**self.numbers, **changed})


def added_rows(rows: HolderRows, more: Sequence[tuple[Mapping[str, str], HolderRows]]) -> HolderRows:
    """The rows, and behind them others that are alike but for some names, which are the same in each of the others."""
    names = {}
    for name, column in rows.names.items():
        given = {changed[name] for changed, _ in more if name in changed}
        # In any order of their own: codes follow the sorted texts.
        known = np.array(sorted({*column.names.tolist(), *given}), object)
        place = np.searchsorted(known, column.names)
        pieces = [place[column.codes]]
        for changed, other in more:
            if name in changed:
                pieces.append(np.full(len(other), np.searchsorted(known, changed[name])))
            else:
                pieces.append(place[other.names[name].codes])
        names[name] = Texts(codes=np.concatenate(pieces), names=known)
    numbers = {
        name: np.concatenate([column, *(other.numbers[name] for _, other in more)])
        for name, column in rows.numbers.items()
    }
    return HolderRows(names=names, numbers=numbers)
