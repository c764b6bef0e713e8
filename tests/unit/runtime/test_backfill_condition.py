"""What a backfill says of itself while it reads, waits and ends."""

from types import SimpleNamespace

import pytest

from gpuwaste.runtime.backfill import Backfill

CASES = {
    "running": ({"total": 700, "left": 697}, ("False", "Running", "3 of 700 hours are stored.")),
    "read, and not all stored": (
        {"total": 700, "left": 1, "done": True},
        ("False", "Running", "699 of 700 hours are stored."),
    ),
    "away": (
        {"total": 9, "left": 5, "problem": "http://prometheus: no answer"},
        ("False", "Waiting", "4 of 9 hours are stored; waiting: http://prometheus: no answer."),
    ),
    "clock is wrong": (
        {"done": True, "problem": "its clock is 2 h ahead"},
        ("False", "Failed", "its clock is 2 h ahead."),
    ),
    "all": ({"total": 9, "done": True}, ("True", "Done", "All 9 missing hours are stored.")),
    "nothing to do": ({"done": True}, ("True", "Done", "No hour was missing.")),
}


@pytest.mark.parametrize("name", CASES)
def test_the_condition_of_a_backfill(name):
    state, expected = CASES[name]
    none = SimpleNamespace()
    said = Backfill(source=none, inputs=none, snapshot=none, days=30, now=none, **state).condition()
    assert (said.status, said.reason, said.message) == expected
