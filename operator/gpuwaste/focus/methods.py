"""The documented ways to divide a charge. A change of what one does is a new id; `docs/methods` has a page for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from gpuwaste.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "DEFAULT_METHOD",
    "METHODS",
    "OWNED_KINDS",
    "REMAINDER_KINDS",
    "Basis",
    "Method",
    "parse_method",
    "with_remainder_owners",
]

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

OWNED_KINDS: Final = ("Lent", "Stranded", "Unallocated", "Unhealthy", "Unprovisioned")
"""What of these lies in purchased capacity can be charged to whom it was bought for."""

_FREE_KINDS: Final = ("Lent", "Stranded", "Unallocated", "Unhealthy")
_SMEAR: Final = "+proportional."
_OWNER: Final = "+reservation-owner."


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """How weights are found.

    Attributes:
        id: as it stands in AllocatedMethodId.
        basis: what a receiver weighs: what it held, what it used effectively, or the larger of both.
        smeared: kinds of remainder that the receivers carry in proportion to their weights.
        owned: kinds of remainder that are charged to the owner of the reservation they lie in, where it has one.
    """

    id: str
    basis: Basis
    smeared: tuple[str, ...] = ()
    owned: tuple[str, ...] = ()


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
    """A method by its id, with who pays what nobody holds behind it if that is not the plain one.

    `gpuwaste-held-v1+proportional.stranded+reservation-owner.unallocated` is `gpuwaste-held-v1` whose stranded time is
    carried by the receivers, and whose unallocated time by the owners of the reservations it lies in. The id that
    results names the kinds in the order of the alphabet.

    Raises:
        InputError: an unknown method or kind.
    """
    rest, _, owned = text.partition(_OWNER)
    base, _, smeared = rest.partition(_SMEAR)
    if base not in METHODS:
        raise InputError(f"{base!r} is no known method", where="method", fix=f"use one of {', '.join(METHODS)}")
    method = METHODS[base]
    to_receivers = _kinds(smeared, REMAINDER_KINDS, f"{base}{_SMEAR}unallocated") if _SMEAR in rest else ()
    to_owners = _kinds(owned, OWNED_KINDS, f"{base}{_OWNER}unallocated") if _OWNER in text else ()
    if method.smeared and (to_receivers or to_owners):
        raise InputError(
            f"{base} already smears what nobody held", where="method", fix="say who pays for gpuwaste-held-v1 instead"
        )
    twice = sorted(set(to_receivers) & set(to_owners))
    if twice:
        raise InputError(f"{twice[0].lower()!r} can be paid for by one only", where="method", fix="name it once")
    name = base
    for sign, kinds in ((_SMEAR, to_receivers), (_OWNER, to_owners)):
        name += sign + ".".join(kind.lower() for kind in kinds) if kinds else ""
    return Method(id=name, basis=method.basis, smeared=method.smeared or to_receivers, owned=to_owners)


def _kinds(text: str, allowed: tuple[str, ...], example: str) -> tuple[str, ...]:
    known = {kind.lower(): kind for kind in allowed}
    wanted = sorted(set(text.split(".")))
    unknown = [kind for kind in wanted if kind not in known]
    if unknown:
        raise InputError(
            f"{unknown[0]!r} is no kind of remainder that it can be",
            where="method",
            fix=f"write it like {example}, with kinds out of {', '.join(known)}",
        )
    return tuple(known[kind] for kind in wanted)


def with_remainder_owners(method: str, owners: Sequence[str]) -> str:
    """The id of a method by which each kind of remainder is paid for by somebody.

    Args:
        method: id of a method that says nothing of it.
        owners: texts like `Unallocated=ReservationOwner`; the owners are Platform, Proportional and ReservationOwner.

    Raises:
        InputError: a text that is not of this form, a kind twice, or a kind that the owner cannot have.
    """
    kinds: dict[str, str] = {}
    for text in owners:
        kind, _, owner = text.partition("=")
        if owner not in {"Platform", "Proportional", "ReservationOwner"} or kind.lower() in kinds:
            raise InputError(
                f"{text!r} must be a kind of remainder once, `=`, and Platform, Proportional or ReservationOwner",
                where="remainder owner",
                fix="write it like Unallocated=ReservationOwner",
            )
        kinds[kind.lower()] = owner
    unknown = sorted(set(kinds) - {kind.lower() for kind in (*REMAINDER_KINDS, *OWNED_KINDS)})
    if unknown:
        raise InputError(f"{unknown[0]!r} is no kind of remainder", where="remainder owner", fix="see docs/focus.md")
    name = method
    for sign, owner in ((_SMEAR, "Proportional"), (_OWNER, "ReservationOwner")):
        mine = sorted(kind for kind, found in kinds.items() if found == owner)
        name += sign + ".".join(mine) if mine else ""
    return parse_method(name).id
