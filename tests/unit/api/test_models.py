"""Reading leniently, writing strictly, and what survives both."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.unit.api import samples

from gpuwaste import api
from gpuwaste.model.errors import InputError


def whole(resource: api.AnyResource) -> dict[str, Any]:
    return resource.manifest() | {"status": resource.status_manifest()["status"]}


@pytest.mark.parametrize("kind", api.KINDS)
def test_what_is_written_reads_back(kind: str) -> None:
    resource = samples.all_kinds()[kind]
    through_json = json.loads(json.dumps(whole(resource), allow_nan=False))
    assert whole(api.parse(through_json)) == whole(resource)


@pytest.mark.parametrize("kind", api.KINDS)
def test_unknown_fields_are_ignored_on_the_way_in(kind: str) -> None:
    manifest = whole(samples.all_kinds()[kind])
    strange = copy.deepcopy(manifest)
    _add_everywhere(strange)
    assert whole(api.parse(strange)) == manifest


def _add_everywhere(value: object) -> None:
    if isinstance(value, dict):
        for inner in value.values():
            _add_everywhere(inner)
        value["fromAVersionToCome"] = {"x": 1}
    elif isinstance(value, list):
        for inner in value:
            _add_everywhere(inner)


def test_unknown_names_are_refused_on_the_way_out() -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        api.GPUPoolSpec(gpu_model="A10", node_pool="default", nodepol="x")


def test_models_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        samples.gpuwaste().spec.workload_ref.name = "other"


def test_a_manifest_holds_no_status_and_nothing_of_the_servers() -> None:
    resource = samples.gpuwaste()
    meta = resource.metadata.model_copy(update={"uid": "u", "resource_version": "7", "labels": {"a": "b"}})
    manifest = resource.model_copy(update={"metadata": meta}).manifest()
    assert set(manifest) == {"apiVersion", "kind", "metadata", "spec"}
    assert manifest["metadata"] == {"name": meta.name, "namespace": "team-a", "labels": {"a": "b"}}
    status = resource.model_copy(update={"metadata": meta}).status_manifest()
    assert set(status) == {"apiVersion", "kind", "metadata", "status"}
    assert status["metadata"] == {"name": meta.name, "namespace": "team-a"}


def test_what_is_not_measured_is_absent_and_zero_is_zero() -> None:
    window = api.WorkloadWindow(
        window="1h",
        from_time=samples.NOW - timedelta(hours=1),
        to_time=samples.NOW,
        held_gpu_hours=Decimal(1),
        borrowed_gpu_hours=Decimal(0),
    ).to_json()
    assert "effectiveGPUHours" not in window
    assert window["borrowedGPUHours"] == "0"


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another kind": ({"kind": "Pod"}, "`kind` must be one of GPUWaste, "),
    "another version": ({"apiVersion": "gpuwaste.dev/v9"}, "must be gpuwaste.dev/v1alpha1 GPUReservation"),
    "a negative count": ({"spec": {"count": -1}}, "GPUReservation/h100-2026: spec.count: "),
    "a float": ({"spec": {"price": {"perGPUHour": 1.5}}}, "spec.price.perGPUHour: must be a decimal string"),
    "a word for a price": ({"spec": {"price": {"perGPUHour": "two"}}}, "spec.price.perGPUHour: "),
    "a time without an offset": ({"spec": {"term": {"startTime": "2026-01-01T00:00:00"}}}, "spec.term.startTime: "),
    "nothing": ({"spec": None}, "GPUReservation/h100-2026: spec: "),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_bad_objects_are_named_in_one_line(change: dict[str, Any], message: str) -> None:
    manifest = samples.all_kinds()["GPUReservation"].manifest()
    with pytest.raises(InputError) as refused:
        api.parse(_merged(manifest, change))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def _merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


@given(amount=st.decimals(min_value=-(10**17), max_value=10**17, places=18, allow_nan=False, allow_infinity=False))
def test_money_is_exact_through_json(amount: Decimal) -> None:
    made = api.Amount(amount=amount, currency="USD").to_json()
    assert isinstance(made["amount"], str)
    assert "E" not in made["amount"]
    assert api.Amount.model_validate(made).amount == amount


@pytest.mark.parametrize("text", ["1E+3", "1000"])
def test_money_has_no_exponent(text: str) -> None:
    assert api.Amount(amount=Decimal(text), currency="USD").to_json()["amount"] == "1000"


@pytest.mark.parametrize("bad", [1.5, float("nan"), "NaN", "Infinity", True, "1e-19", "", None])
def test_what_is_no_money_is_refused(bad: object) -> None:
    with pytest.raises(ValidationError):
        api.Amount(amount=bad, currency="USD")


def test_times_are_written_in_utc() -> None:
    evening = datetime(2026, 11, 1, 23, 30, 0, 999, tzinfo=timezone(timedelta(hours=2)))
    evidence = api.Evidence(ledger_query="q", from_time=evening, to_time=datetime(2026, 11, 2, tzinfo=UTC)).to_json()
    assert (evidence["fromTime"], evidence["toTime"]) == ("2026-11-01T21:30:00Z", "2026-11-02T00:00:00Z")


def test_the_longest_workload_fits_into_a_column() -> None:
    longest = f"{'K' * 63}/{'n' * 253}"
    summary = samples.gpuwaste().status.summary
    made = api.WasteSummary.model_validate({**summary.to_json(), "workload": longest})
    assert made.workload == longest
