"""One finding of a check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["CheckFinding", "State", "listed"]

State = Literal["ok", "info", "warning", "failed"]
_NAMES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckFinding:
    """What a check found.

    Attributes:
        check: name of the check.
        state: `failed` makes doctor end with 1; `warning` is less than could be; `info` is good to know.
        message: what was seen.
        fix: what to do; empty where there is nothing to do.
    """

    check: str
    state: State
    message: str
    fix: str = ""


def listed(names: list[str]) -> str:
    """The first few names, and how many more."""
    more = len(names) - _NAMES
    return ", ".join(names[:_NAMES]) + (f" and {more} more" if more > 0 else "")
