"""Conditions: the closed lists of types and reasons, and how one follows another."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated

from pydantic import Field

from gpuwaste.api.base import ApiModel, Generation, Message, Time
from gpuwaste.api.markers import ListMap
from gpuwaste.model.errors import InvariantError

__all__ = [
    "REASONS",
    "Condition",
    "ConditionStatus",
    "ConditionType",
    "Conditions",
    "Reason",
    "find_condition",
    "make_condition",
    "set_condition",
]

_MAX_MESSAGE = 1024


class ConditionStatus(StrEnum):
    """What a condition says of its type."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class ConditionType(StrEnum):
    """What can be said of an object: adjectives and past participles."""

    READY = "Ready"  # the summary of what lasts
    SUCCEEDED = "Succeeded"  # the summary of what ends
    PRICED = "Priced"
    MEASURED = "Measured"
    CONSERVED = "Conserved"
    CLOSED = "Closed"
    PROVISIONED = "Provisioned"
    STORED = "Stored"
    BACKFILLED = "Backfilled"
    VALID = "Valid"
    APPROVED = "Approved"
    REVALIDATED = "Revalidated"
    UNDO_STORED = "UndoStored"
    APPLIED = "Applied"
    VERIFIED = "Verified"
    ROLLED_BACK = "RolledBack"


class Reason(StrEnum):
    """Why a condition is as it is; `REASONS` says which belong to which type."""

    PENDING = "Pending"
    COLLECTING = "Collecting"
    UP_TO_DATE = "UpToDate"
    STALE = "Stale"
    NO_DATA = "NoData"
    PRICE_KNOWN = "PriceKnown"
    PRICE_UNKNOWN = "PriceUnknown"
    CURRENCIES_DIFFER = "CurrenciesDiffer"
    BILL_REFUSED = "BillRefused"
    ALL_MEASURED = "AllMeasured"
    PARTLY_MEASURED = "PartlyMeasured"
    UNMEASURED = "Unmeasured"
    SUMS_HOLD = "SumsHold"
    SUMS_BROKEN = "SumsBroken"
    ALL_PROVISIONED = "AllProvisioned"
    PARTLY_PROVISIONED = "PartlyProvisioned"
    HAS_ROOM = "HasRoom"
    VOLUME_FILLING = "VolumeFilling"
    WAITING = "Waiting"
    NOT_STARTED = "NotStarted"
    EXPIRED = "Expired"
    ACCEPTED = "Accepted"
    INVALID = "Invalid"
    CONFLICTING = "Conflicting"
    OPTIMAL = "Optimal"
    FEASIBLE = "Feasible"
    NOTHING_TO_SAVE = "NothingToSave"
    SOLVER_FAILED = "SolverFailed"
    AWAITING_APPROVAL = "AwaitingApproval"
    APPROVED_BY_PERSON = "ApprovedByPerson"
    APPROVED_BY_POLICY = "ApprovedByPolicy"
    REJECTED = "Rejected"
    SPEC_HASH_DIFFERS = "SpecHashDiffers"
    STILL_VALID = "StillValid"
    NO_LONGER_VALID = "NoLongerValid"
    STORED = "Stored"
    TOO_LARGE = "TooLarge"
    OUTSIDE_WINDOW = "OutsideWindow"
    RATE_LIMITED = "RateLimited"
    PAUSED = "Paused"
    DRY_RUN = "DryRun"
    APPLYING = "Applying"
    APPLIED = "Applied"
    APPLY_FAILED = "ApplyFailed"
    WATCHING = "Watching"
    SAVING_CONFIRMED = "SavingConfirmed"
    SAVING_MISSED = "SavingMissed"
    WATCH_FAILED = "WatchFailed"
    NOT_NEEDED = "NotNeeded"
    ROLLING_BACK = "RollingBack"
    ROLLED_BACK = "RolledBack"
    ROLLBACK_FAILED = "RollbackFailed"
    IRREVERSIBLE = "Irreversible"
    RUNNING = "Running"
    DONE = "Done"
    FAILED = "Failed"
    WRITTEN = "Written"
    WRITE_FAILED = "WriteFailed"
    GRACE_RUNNING = "GraceRunning"
    ALL_CLOSED = "AllClosed"


_R = Reason
REASONS: Mapping[ConditionType, frozenset[Reason]] = MappingProxyType(
    {
        ConditionType.READY: frozenset(
            {
                _R.PENDING, _R.COLLECTING, _R.UP_TO_DATE, _R.STALE, _R.NO_DATA, _R.ACCEPTED, _R.INVALID,
                _R.CONFLICTING, _R.PAUSED, _R.OPTIMAL, _R.FEASIBLE, _R.NOTHING_TO_SAVE, _R.SOLVER_FAILED,
                _R.WRITTEN, _R.WRITE_FAILED, _R.NOT_STARTED, _R.EXPIRED,
            }
        ),
        ConditionType.SUCCEEDED: frozenset(
            {_R.PENDING, _R.RUNNING, _R.DONE, _R.FAILED, _R.REJECTED, _R.ROLLED_BACK, _R.NO_LONGER_VALID, _R.DRY_RUN}
        ),
        ConditionType.PRICED: frozenset(
            {_R.PENDING, _R.PRICE_KNOWN, _R.PRICE_UNKNOWN, _R.CURRENCIES_DIFFER, _R.BILL_REFUSED}
        ),
        ConditionType.MEASURED: frozenset({_R.PENDING, _R.ALL_MEASURED, _R.PARTLY_MEASURED, _R.UNMEASURED}),
        ConditionType.CONSERVED: frozenset({_R.PENDING, _R.SUMS_HOLD, _R.SUMS_BROKEN}),
        ConditionType.CLOSED: frozenset({_R.PENDING, _R.GRACE_RUNNING, _R.ALL_CLOSED, _R.WRITE_FAILED, _R.NO_DATA}),
        ConditionType.STORED: frozenset({_R.PENDING, _R.HAS_ROOM, _R.VOLUME_FILLING}),
        ConditionType.BACKFILLED: frozenset({_R.PENDING, _R.RUNNING, _R.WAITING, _R.DONE, _R.FAILED}),
        ConditionType.PROVISIONED: frozenset(
            {_R.PENDING, _R.ALL_PROVISIONED, _R.PARTLY_PROVISIONED, _R.NOT_STARTED, _R.EXPIRED}
        ),
        ConditionType.VALID: frozenset({_R.PENDING, _R.ACCEPTED, _R.INVALID, _R.CONFLICTING}),
        ConditionType.APPROVED: frozenset(
            {
                _R.PENDING, _R.AWAITING_APPROVAL, _R.APPROVED_BY_PERSON, _R.APPROVED_BY_POLICY, _R.REJECTED,
                _R.SPEC_HASH_DIFFERS,
            }
        ),
        ConditionType.REVALIDATED: frozenset({_R.PENDING, _R.STILL_VALID, _R.NO_LONGER_VALID}),
        ConditionType.UNDO_STORED: frozenset({_R.PENDING, _R.STORED, _R.TOO_LARGE, _R.IRREVERSIBLE}),
        ConditionType.APPLIED: frozenset(
            {
                _R.PENDING, _R.OUTSIDE_WINDOW, _R.RATE_LIMITED, _R.PAUSED, _R.DRY_RUN, _R.APPLYING, _R.APPLIED,
                _R.APPLY_FAILED,
            }
        ),
        ConditionType.VERIFIED: frozenset(
            {_R.PENDING, _R.WATCHING, _R.SAVING_CONFIRMED, _R.SAVING_MISSED, _R.WATCH_FAILED}
        ),
        ConditionType.ROLLED_BACK: frozenset(
            {_R.PENDING, _R.NOT_NEEDED, _R.ROLLING_BACK, _R.ROLLED_BACK, _R.ROLLBACK_FAILED, _R.IRREVERSIBLE}
        ),
    }
)  # fmt: skip


class Condition(ApiModel):
    """One observation of the object's state."""

    type: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z]*$", min_length=1, max_length=64)]
    """is what the condition is about, such as Ready."""
    status: ConditionStatus
    """is True, False or Unknown."""
    observed_generation: Generation
    """is the generation of the spec that the condition was set for."""
    last_transition_time: Time
    """is when status last changed."""
    reason: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z]*$", min_length=1, max_length=64)]
    """is why, as one CamelCase word of a closed list."""
    message: Message
    """says the same to a person, with what to do about it."""


Conditions = Annotated[tuple[Condition, ...], Field(max_length=16), ListMap("type")]


def make_condition(
    of: ConditionType,
    status: ConditionStatus,
    reason: Reason,
    message: str,
    *,
    observed_generation: int,
    now: datetime,
) -> Condition:
    """A condition that has just become so; a long message is cut to 1,024 characters.

    Raises:
        InvariantError: the reason is none of those that belong to the type.
    """
    if reason not in REASONS[of]:
        raise InvariantError(f"condition {of} has no reason {reason}; add it to REASONS in gpuwaste.api.conditions")
    text = message if len(message) <= _MAX_MESSAGE else message[: _MAX_MESSAGE - 1] + "…"
    return Condition(
        type=of,
        status=status,
        reason=reason,
        message=text,
        observed_generation=observed_generation,
        last_transition_time=now,
    )


def set_condition(conditions: Sequence[Condition], new: Condition) -> tuple[Condition, ...]:
    """The conditions with `new` in the place of the one of its type, else at the end.

    `last_transition_time` moves only where the status did.
    """
    old = find_condition(conditions, new.type)
    if old is None:
        return (*conditions, new)
    if old.status == new.status:
        new = new.model_copy(update={"last_transition_time": old.last_transition_time})
    return tuple(new if one.type == new.type else one for one in conditions)


def find_condition(conditions: Sequence[Condition], of: str) -> Condition | None:
    """The condition of a type, None where it was never set."""
    return next((one for one in conditions if one.type == of), None)
