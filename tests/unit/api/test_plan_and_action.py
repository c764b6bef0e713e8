"""The plan file and its object, the hash that an approval names, and the size of an undo."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from pydantic import ValidationError
from tests.unit.api import samples

from gpuwaste import api


def test_the_plan_has_the_fields_of_the_contract() -> None:
    document = samples.plan().to_json()
    assert set(document) == {
        "id", "createdTime", "inputHash", "pool", "objective", "savings", "moves", "actions", "refused", "planURL",
    }  # fmt: skip
    assert set(document["objective"]) >= {"current", "planned", "bound", "gap"}
    assert set(document["refused"][0]) == {"target", "reason", "message"}
    spec = samples.action_spec().to_json()
    assert set(spec) - {"planName"} <= {
        "type", "targetRef", "nodeRef", "from", "to", "dependsOn", "reversible", "savings", "risk", "disruption",
        "confidence", "evidence", "policyRef", "specHash",
    }  # fmt: skip
    assert set(spec["savings"]) == {"cashNow", "cashAtRenewal", "capacityFreedGPUHours", "currency"}
    assert set(spec["savings"]["cashAtRenewal"][0]) == {"date", "amount"}
    assert set(spec["evidence"]) == {"ledgerQuery", "fromTime", "toTime"}


def test_a_plan_file_holds_no_float() -> None:
    def floats(value: object) -> bool:
        if isinstance(value, dict):
            return any(map(floats, value.values()))
        return any(map(floats, value)) if isinstance(value, list) else isinstance(value, float)

    assert not floats(json.loads(json.dumps(samples.plan().to_json())))


def test_a_plan_file_reads_back() -> None:
    document = samples.plan(300)
    assert api.PlanDocument.model_validate(json.loads(json.dumps(document.to_json()))) == document


def test_an_object_holds_the_100_dearest_actions() -> None:
    spec = api.plan_spec(samples.plan(250))
    assert [action.savings.cash_now for action in spec.actions] == [Decimal(i) for i in range(249, 149, -1)]
    assert (spec.action_count, spec.refused_count, len(spec.refused), spec.moves) == (250, 250, 100, 250)
    assert spec.plan_url == "file:///plans/h100-20261101.json"


def test_an_unpriced_plan_is_ordered_by_the_gpus_it_frees() -> None:
    plan = samples.plan(3)
    freed = [1, 3, 2]
    actions = tuple(
        action.model_copy(update={"savings": api.Savings(capacity_freed_gpu_hours=Decimal(hours))})
        for action, hours in zip(plan.actions, freed, strict=True)
    )
    spec = api.plan_spec(plan.model_copy(update={"actions": actions}))
    assert [action.name for action in spec.actions] == ["action-1", "action-2", "action-0"]


def test_the_hash_is_of_everything_but_itself() -> None:
    spec = samples.action_spec()
    assert api.spec_hash(spec) == spec.spec_hash
    assert api.spec_hash(spec.model_copy(update={"spec_hash": None})) == spec.spec_hash
    other = spec.model_copy(update={"disruption": api.Disruption(pods=2)})
    assert api.spec_hash(other) != spec.spec_hash


def test_the_hash_survives_the_api_server() -> None:
    action = samples.action()
    back = api.RightsizingAction.parse(json.loads(json.dumps(action.manifest())))
    assert api.spec_hash(back.spec) == action.spec.spec_hash


def undo(patch: str) -> api.Undo:
    target = api.ObjectRef(**samples.DEPLOYMENT.model_dump())
    return api.Undo(patches=(api.UndoPatch(target_ref=target, resource_version="1", field_owner="helm", patch=patch),))


def test_an_undo_of_64_kib_fits() -> None:
    assert len(undo("x" * 65_536).patches[0].patch) == 65_536


@pytest.mark.parametrize("patch", ["x" * 65_537, "ü" * 40_000], ids=["characters", "bytes"])
def test_a_larger_undo_does_not(patch: str) -> None:
    with pytest.raises(ValidationError, match="65536"):
        undo(patch)


def with_needs(plan: api.PlanDocument, needs: dict[str, tuple[str, ...]], worth: dict[str, int]) -> api.PlanDocument:
    actions = tuple(
        action.model_copy(
            update={
                "depends_on": needs.get(action.name, ()),
                "savings": api.Savings(cash_now=Decimal(worth.get(action.name, 0)), currency="USD"),
            }
        )
        for action in plan.actions
    )
    return plan.model_copy(update={"actions": actions})


def test_an_action_is_held_with_all_that_it_depends_on() -> None:
    count = 240  # of each two, the first drains and saves nothing by itself, the second releases
    names = [f"action-{i}" for i in range(count)]
    needs = {names[i + 1]: (names[i],) for i in range(0, count, 2)}
    worth = {release: int(release.removeprefix("action-")) for release in needs}
    held = [action.name for action in api.plan_spec(with_needs(samples.plan(count), needs, worth)).actions]
    assert held == [name for i in range(count - 2, count - 102, -2) for name in (names[i], names[i + 1])]


def test_an_action_that_needs_too_much_makes_room_for_the_next() -> None:
    needs = {
        "action-0": tuple(f"action-{i}" for i in range(1, 64)),
        "action-200": tuple(f"action-{i}" for i in range(100, 150)),
    }
    worth = {"action-0": 9, "action-200": 8, "action-201": 7}
    held = {action.name for action in api.plan_spec(with_needs(samples.plan(250), needs, worth)).actions}
    assert {"action-0", "action-201"} <= held
    assert "action-200" not in held
    assert len(held) == 100


def test_an_action_whose_need_is_not_in_the_plan_is_not_held() -> None:
    plan = with_needs(samples.plan(3), {"action-2": ("elsewhere",)}, {"action-2": 5})
    assert [action.name for action in api.plan_spec(plan).actions] == ["action-0", "action-1"]
