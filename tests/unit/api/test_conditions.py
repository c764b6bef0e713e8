"""Conditions: closed reasons, and when the time of transition moves."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.unit.api.samples import NOW

from gpuwaste.api import (
    REASONS,
    Condition,
    ConditionStatus,
    ConditionType,
    Reason,
    find_condition,
    make_condition,
    set_condition,
)
from gpuwaste.model.errors import InvariantError

LATER = NOW + timedelta(hours=1)


def ready(status: ConditionStatus, reason: Reason, *, message: str = "m", now=NOW) -> Condition:
    return make_condition(ConditionType.READY, status, reason, message, observed_generation=3, now=now)


def test_every_type_has_reasons_and_every_reason_a_type() -> None:
    assert set(REASONS) == set(ConditionType)
    assert frozenset().union(*REASONS.values()) == set(Reason)
    assert all(Reason.PENDING in reasons for reasons in REASONS.values()), "the first sight of every type"


def test_a_reason_of_another_type_is_a_bug() -> None:
    with pytest.raises(InvariantError, match="Ready has no reason RolledBack"):
        ready(ConditionStatus.FALSE, Reason.ROLLED_BACK)


def test_the_transition_time_moves_with_the_status_alone() -> None:
    first = set_condition((), ready(ConditionStatus.FALSE, Reason.COLLECTING))
    same = set_condition(first, ready(ConditionStatus.FALSE, Reason.STALE, now=LATER))
    assert [(one.reason, one.last_transition_time) for one in same] == [("Stale", NOW)]
    turned = set_condition(same, ready(ConditionStatus.TRUE, Reason.UP_TO_DATE, now=LATER))
    assert [(one.reason, one.last_transition_time) for one in turned] == [("UpToDate", LATER)]


def test_conditions_keep_their_places() -> None:
    priced = make_condition(
        ConditionType.PRICED, ConditionStatus.UNKNOWN, Reason.PENDING, "", observed_generation=1, now=NOW
    )
    both = set_condition(set_condition((), ready(ConditionStatus.UNKNOWN, Reason.PENDING)), priced)
    again = set_condition(both, ready(ConditionStatus.TRUE, Reason.UP_TO_DATE))
    assert [one.type for one in again] == ["Ready", "Priced"]
    assert find_condition(again, "Priced") == priced
    assert find_condition(again, "Verified") is None


@pytest.mark.parametrize("length", [1023, 1024, 1025, 40_000])
def test_long_messages_are_cut(length: int) -> None:
    message = ready(ConditionStatus.FALSE, Reason.STALE, message="x" * length).message
    assert len(message) == min(length, 1024)
    assert message.endswith("…") == (length > 1024)
