"""Objects that people write are told what is wrong with them."""

from datetime import UTC, datetime

import pytest
from tests.unit.api.samples import all_kinds

from gpuwaste.handlers.resources import check_object

NOW = datetime(2026, 11, 2, tzinfo=UTC)


def reservation(**spec):
    body = all_kinds()["GPUReservation"].manifest()
    return {**body, "metadata": {**body["metadata"], "generation": 3}, "spec": {**body["spec"], **spec}}


def test_a_good_object_is_accepted():
    condition = check_object(reservation(), now=NOW)
    assert (condition.type, condition.status, condition.reason) == ("Valid", "True", "Accepted")
    assert condition.observed_generation == 3


@pytest.mark.parametrize(
    ("spec", "message"),
    [({"gpuModel": "H1000"}, "'H1000' is no GPU product known here"), ({"count": -1}, "spec.count")],
)
def test_a_bad_one_is_told_why(spec, message):
    condition = check_object(reservation(**spec), now=NOW)
    assert (condition.status, condition.reason) == ("False", "Invalid")
    assert message in condition.message
