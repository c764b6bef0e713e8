"""The status of purchases: what of them is there, held and used, and the conditions that say so."""

from datetime import timedelta
from decimal import Decimal

import pytest
from tests.helpers import facts as fact
from tests.helpers.facts import HOUR
from tests.unit.ledger.test_hour import Journal, build, minutes

from gpuwaste.api import GPUReservation
from gpuwaste.runtime.reservations import gpu_hour_price, parse_reservations, reservation_facts
from gpuwaste.waste.reservations import ReservationUse, bought_by_pool, reservation_object, reservation_uses

NOW = HOUR + timedelta(hours=1)


def bought(count=4, *, start="2026-01-01T00:00:00Z", end="2027-01-01T00:00:00Z", price=None, **more):
    spec = {
        "count": count,
        "gpuModel": "H100-80GB",
        "term": {"startTime": start, **({"endTime": end} if end else {})},
        "price": price or {"perGPUHour": "2.5", "currency": "USD"},
        **more,
    }
    body = {
        "apiVersion": "gpuwaste.dev/v1alpha1",
        "kind": "GPUReservation",
        "metadata": {"name": "bought", "uid": "uid-bought", "generation": 3},
        "spec": spec,
    }
    return GPUReservation.parse(body)


def status(one, use=None, *, through=NOW, now=NOW):
    price = gpu_hour_price(one.spec)
    shown = reservation_object(one, use or ReservationUse(), price=price, through=through, now=now).status
    return shown, {c.type: (c.status, c.reason) for c in shown.conditions}


def test_what_is_there_and_in_use():
    journal = Journal()
    for at in minutes():
        for gpu in ("gpu-1", "gpu-2"):
            journal.device(at, gpu)
        journal.usage(at, "gpu-1", "web", duty=0.5, sm=0.25, first_activity=at)
    reserved = reservation_facts([bought()])
    facts = [fact.node(gpus=2), fact.gpu("gpu-1"), fact.gpu("gpu-2"), fact.pod("web"), *reserved]
    uses = reservation_uses(facts, build([journal], facts), at=NOW, pool_label="")
    shown, conditions = status(bought(), uses["uid-bought"])
    assert (shown.provisioned_gpus, shown.unprovisioned_gpus) == (2, 2)
    assert (shown.held_gpus, shown.effective_gpus, shown.used) == (1, Decimal("0.25"), "1 of 4")
    assert shown.price_per_gpu_hour == Decimal("2.5")
    assert conditions["Provisioned"] == ("False", "PartlyProvisioned")
    assert conditions["Ready"] == ("True", "UpToDate")
    assert bought_by_pool(facts, at=NOW, pool_label="") == {"H100-80GB/default": (2, 2)}


def test_a_part_of_a_node_counts_as_that_part():
    journal = Journal()
    for at in minutes():
        for number in range(4):
            journal.device(at, f"gpu-{number}").usage(at, f"gpu-{number}", "web", duty=1.0, sm=1.0)
    facts = [fact.node(gpus=4), *(fact.gpu(f"gpu-{n}") for n in range(4)), *reservation_facts([bought(1)])]
    use = reservation_uses(facts, build([journal], facts), at=NOW, pool_label="")["uid-bought"]
    shown, _ = status(bought(1), use)
    assert (shown.provisioned_gpus, shown.held_gpus, shown.effective_gpus) == (1, 1, 1)


@pytest.mark.parametrize(
    ("term", "ready"),
    [
        ({"start": "2026-12-01T00:00:00Z"}, "NotStarted"),
        ({"end": "2026-11-01T00:00:00Z"}, "Expired"),
        ({"end": None}, "UpToDate"),
    ],
)
def test_the_term_decides(term, ready):
    shown, conditions = status(bought(**term), ReservationUse(present=4))
    assert conditions["Ready"][1] == ready
    assert (shown.unprovisioned_gpus is None) == (ready != "UpToDate")


def test_a_sum_is_spread_over_the_term_to_the_hour():
    one = bought(2, price={"total": "35040", "currency": "USD"})
    assert gpu_hour_price(one.spec) == 2
    (reserved,) = reservation_facts([one])
    assert (reserved.data.price, reserved.data.prepaid) == ("2", True)
    assert (reserved.valid_from.year, reserved.valid_to.year) == (2026, 2027)


def test_a_team_or_a_namespace_owns_it():
    (team,) = reservation_facts([bought(owner={"kind": "Team", "name": "research"})])
    (space,) = reservation_facts([bought(owner={"kind": "Namespace", "name": "ml"})])
    assert (team.data.owner_team, team.data.owner_namespace) == ("research", "")
    assert (space.data.owner_team, space.data.owner_namespace) == ("", "ml")


def test_what_nobody_understands_is_left_out():
    assert parse_reservations([{"apiVersion": "gpuwaste.dev/v1alpha1", "kind": "GPUReservation", "metadata": {}}]) == []


def test_what_is_of_a_model_that_nobody_knows_is_not_billed():
    good, bad = bought().manifest(), bought().manifest()
    bad["spec"]["gpuModel"] = "H1000"
    assert [one.spec.gpu_model for one in parse_reservations([bad, good])] == [good["spec"]["gpuModel"]]


def test_the_condition_of_the_checker_is_left_to_it():
    one = bought()
    checked = one.model_copy(update={"status": None})
    shown, conditions = status(checked)
    assert "Valid" not in conditions
    assert {c.observed_generation for c in shown.conditions} == {3}
