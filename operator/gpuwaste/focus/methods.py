"""The documented ways to divide a charge. A change of what one does is a new id; `docs/methods` has a page for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from gpuwaste.model.errors import InputError

__all__ = ["DEFAULT_METHOD", "METHODS", "REMAINDER_KINDS", "Basis", "Method", "parse_method"]

Basis = Literal["held", "effective", "larger"]

REMAINDER_KINDS: Final = (
    "Idle",
    "Lent",
    "Starting",
    "Stranded",
    "Unallocated",
    "Unattributed",
    "Underused",
    "Unhealthy",
    "Unmeasured",
)
"""What of a charge no receiver may have; each kind is a row of its own, or is smeared over the receivers."""

_FREE_KINDS: Final = ("Lent", "Stranded", "Unallocated", "Unhealthy")
_SMEAR: Final = "+proportional."


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """How weights are found.

    Attributes:
        id: as it stands in AllocatedMethodId.
        basis: what a receiver weighs: what it held, what it used effectively, or the larger of both.
        smeared: kinds of remainder that the receivers carry in proportion to their weights.
    """

    id: str
    basis: Basis
    smeared: tuple[str, ...] = ()


METHODS: Final = {
    method.id: method
    for method in (
        Method(id="gpuwaste-held-v1", basis="held"),
        Method(id="gpuwaste-effective-v1", basis="effective"),
        Method(id="gpuwaste-max-v1", basis="larger"),
        Method(id="gpuwaste-proportional-v1", basis="held", smeared=_FREE_KINDS),
    )
}
DEFAULT_METHOD: Final = "gpuwaste-held-v1"


def parse_method(text: str) -> Method:
    """A method by its id, with the kinds of remainder that are smeared behind it if it is not the plain one.

    `gpuwaste-held-v1+proportional.stranded.unallocated` is `gpuwaste-held-v1` whose stranded and unallocated time is
    carried by the receivers. The id that results names the kinds in the order of the alphabet.

    Raises:
        InputError: an unknown method or kind.
    """
    base, plus, suffix = text.partition(_SMEAR)
    if base not in METHODS:
        raise InputError(f"{base!r} is no known method", where="method", fix=f"use one of {', '.join(METHODS)}")
    method = METHODS[base]
    if not plus:
        return method
    kinds = {kind.lower(): kind for kind in REMAINDER_KINDS}
    wanted = sorted(set(suffix.split(".")))
    unknown = [kind for kind in wanted if kind not in kinds]
    if unknown or method.smeared:
        raise InputError(
            f"{unknown[0]!r} is no kind of remainder" if unknown else f"{base} already smears what nobody held",
            where="method",
            fix=f"write it like gpuwaste-held-v1{_SMEAR}unallocated, with kinds out of {', '.join(kinds)}",
        )
    return Method(id=f"{base}{_SMEAR}{'.'.join(wanted)}", basis=method.basis, smeared=tuple(kinds[k] for k in wanted))
