"""What a plan leaves as it is, in a few lines for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gpuwaste.api import Refusal

__all__ = ["refusal_lines"]

_NAMES = 3


def refusal_lines(refused: Iterable[Refusal], *, most: int, rest: str) -> list[str]:
    """One line a reason, with the names of all that share it.

    Args:
        refused: of a plan.
        most: lines at most; one more says how many reasons are left out.
        rest: where the others are found.
    """
    names: dict[str, list[str]] = {}
    for refusal in refused:
        target = refusal.target
        names.setdefault(refusal.message, []).append("/".join(filter(None, (target.namespace, target.name))))
    lines = [f"{_joined(found)}: {message}" for message, found in names.items()]
    more = len(lines) - most
    return [*lines[:most], f"and {more} more reason{'s' if more > 1 else ''}; {rest}"] if more > 0 else lines


def _joined(names: list[str]) -> str:
    if len(names) <= _NAMES + 1:
        return ", ".join(names)
    return f"{', '.join(names[:_NAMES])} and {len(names) - _NAMES} more"
