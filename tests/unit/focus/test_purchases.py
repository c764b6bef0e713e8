"""Purchased capacity: what of it is used, what is missing, and who pays for what nobody holds."""

import json
from decimal import Decimal

import pytest
from click.testing import CliRunner
from tests.unit.focus.bills import bill, usage
from tests.unit.focus.ledgers import free, holder, ledger, unprovisioned
from tests.unit.focus.test_split import ratio_of

from gpuwaste.cli.focus import focus
from gpuwaste.focus.bill import split_bill
from gpuwaste.focus.columns import coded_schema
from gpuwaste.focus.files import open_sink
from gpuwaste.focus.methods import METHODS, parse_method, with_remainder_owners
from gpuwaste.focus.node_hours import collect_hours
from gpuwaste.focus.options import ExportOptions
from gpuwaste.focus.split import split_ledger
from gpuwaste.focus.verify import verify
from gpuwaste.model.errors import InputError

POOL = {"pool": "A100-80GB/default"}
COVERED = POOL | {"price_source": "Reservation", "price": "1.5"}


def purchase(hours, *, identity="cr-1", team="vision", **values):
    """An hour's row of a purchase, as the ledger has one also where nothing of it is missing."""
    labels = {"parent_id": identity, "slice_id": "4", "node": "", "node_uid": "", "team": team, "namespace": ""}
    return unprovisioned(hours, **(COVERED | labels | values))


HALF_USED = [
    holder("a", 0.5, team="speech", **COVERED),
    free(0.5, **COVERED),
    purchase(3),
    holder("b", 1, node="node-2", gpu="GPU-2", **POOL),
]


def rows_of(*rows, **options):
    return split_ledger(ledger(*rows), ExportOptions(**options)).rows.to_pylist()


def test_used_and_unused_capacity_of_a_purchase():
    rows = rows_of(*HALF_USED)
    names = ("ResourceId", "x_RemainderReason", "CommitmentDiscountId", "CommitmentDiscountStatus", "PricingCategory")
    quantities = ("PricingQuantity", "ConsumedQuantity", "CommitmentDiscountQuantity", "EffectiveCost")
    assert [tuple(row[name] for name in (*names, *quantities)) for row in rows] == [
        ("cr-1", "Unprovisioned", "cr-1", "Unused", "Committed", 3, None, 3, Decimal("4.5")),
        (
            "uid-node-1",
            None,
            "cr-1",
            "Used",
            "Committed",
            Decimal("0.5"),
            Decimal("0.5"),
            Decimal("0.5"),
            Decimal("0.75"),
        ),
        ("uid-node-1", "Unallocated", "cr-1", "Used", "Committed", *[Decimal("0.5")] * 3, Decimal("0.75")),
        ("uid-node-2", None, None, None, "Standard", 1, 1, None, 2),
    ]
    assert [row["CapacityReservationStatus"] for row in rows] == ["Unused", "Used", "Used", None]
    assert [row["ResourceType"] for row in rows] == ["GPU Reservation", *["Kubernetes Node"] * 3]
    assert [row["ConsumedUnit"] for row in rows] == [None, "Hours", "Hours", "Hours"]
    assert [row["ResourceName"] for row in rows] == [None, "node-1", "node-1", "node-2"]


def test_a_purchase_of_which_nothing_is_missing_is_known():
    rows = rows_of(holder("a", 1, **COVERED), purchase(0))
    assert [(row["CommitmentDiscountId"], row["CommitmentDiscountStatus"]) for row in rows] == [("cr-1", "Used")]


@pytest.mark.parametrize(("price", "wanted"), [("1.75", "cr-2"), ("1.5", None)], ids=["told apart by price", "alike"])
def test_two_purchases_are_not_mixed_up(price, wanted):
    rows = rows_of(
        holder("a", 1, **(COVERED | {"price": "1.75"})), purchase(0), purchase(0, identity="cr-2", price=price)
    )
    assert [row["CommitmentDiscountId"] for row in rows if row["AllocatedResourceId"]] == [wanted]


def test_a_machine_that_boots_is_its_own_resource():
    booting = unprovisioned(0.25, node="node-3", node_uid="uid-3", parent_id="booting", slice_id="A100-80GB", **POOL)
    (row,) = rows_of(booting)
    assert (row["ResourceId"], row["x_RemainderReason"], row["CommitmentDiscountId"]) == (
        "uid-3",
        "Unprovisioned",
        None,
    )


@pytest.mark.parametrize("grouping", ["team", "namespace"])
def test_the_owner_of_a_reservation_pays_what_nobody_holds(grouping):
    method = parse_method("gpuwaste-held-v1+reservation-owner.unallocated.unprovisioned")
    rows = [row | ({"namespace": "vision"} if row["row_kind"] == "unprovisioned" else {}) for row in HALF_USED]
    found = rows_of(*rows, free(1, node="node-4", gpu="GPU-4", **POOL), method=method, grouping=grouping)
    first = "speech" if grouping == "team" else "a"
    paid = sorted((row["AllocatedResourceName"] or "", str(row["EffectiveCost"].normalize())) for row in found)
    assert paid == sorted([("", "2"), ("b", "2"), (first, "0.75"), ("vision", "0.75"), ("vision", "4.5")])
    assert {row["AllocatedMethodId"] for row in found} == {method.id}
    (whole,) = [row for row in found if row["EffectiveCost"] == Decimal("4.5")]
    (element,) = json.loads(whole["AllocatedMethodDetails"])["Elements"]
    assert (element["AllocatedRatio"], element["x_SmearedGpuHours"], element["x_HeldGpuHours"]) == (1, 3, 0)


@pytest.mark.parametrize(
    ("owner", "identity"),
    [
        ({"namespace": "vision", "team": "eyes"}, "k8s://c1/namespaces/vision"),
        ({"team": "eyes"}, "k8s://c1/teams/eyes"),
    ],
    ids=["namespace", "team"],
)
def test_by_workload_an_owner_is_a_receiver_without_a_workload(owner, identity):
    method = parse_method("gpuwaste-held-v1+reservation-owner.unallocated")
    rows = [holder("a", 0.5, **COVERED), free(0.5, **COVERED), purchase(0, **owner)]
    found = rows_of(*rows, method=method, grouping="workload")
    names = ("AllocatedResourceId", "AllocatedResourceName", "x_Namespace", "x_Team", "x_WorkloadName")
    assert sorted((tuple(row[name] for name in names) for row in found), key=str) == [
        ("k8s://c1/namespaces/a/Deployment/web", "a/Deployment/web", "a", "a", "web"),
        (identity, identity.rpartition("/")[2], owner.get("namespace"), "eyes", None),
    ]


@pytest.mark.parametrize("grouping", ["team", "namespace", "workload"])
def test_where_a_bill_is_divided_the_owner_of_a_reservation_pays_too(grouping):
    method = parse_method("gpuwaste-held-v1+reservation-owner.unallocated")
    options = ExportOptions(method=method, grouping=grouping)
    where = {"provider_id": "aws:///use1-az1/i-0"}
    of_another = POOL | where | {"gpu": "GPU-1", "gpu_model": "L4-24GB"}
    rows = [holder("a", 0.5, **COVERED, **where), free(0.5, **COVERED, **where), free(1, **of_another)]
    hours = collect_hours([ledger(*rows, purchase(0, namespace="vision"))], options)
    found = split_bill(bill(usage(price="4")), hours, options).rows.to_pylist()
    receiver = "a/Deployment/web" if grouping == "workload" else "a"
    assert {row["AllocatedResourceName"]: row["EffectiveCost"] for row in found} == {
        receiver: 1,
        "vision": 1,
        None: 2,
    }


def test_an_owner_that_holds_too_has_one_row():
    rows = rows_of(
        holder("a", 0.5, team="vision", **COVERED),
        free(0.5, **COVERED),
        purchase(0),
        method=parse_method("gpuwaste-held-v1+reservation-owner.unallocated"),
        grouping="team",
    )
    assert [(row["AllocatedResourceName"], ratio_of(row)) for row in rows] == [("vision", 1)]


@pytest.mark.parametrize(
    "method", [*METHODS, "gpuwaste-effective-v1+proportional.stranded+reservation-owner.unallocated"]
)
@pytest.mark.parametrize("grain", ["hour", "day"])
def test_no_rule_breaks(tmp_path, method, grain):
    path = tmp_path / "f.parquet"
    options = ExportOptions(method=parse_method(method), grain=grain, grouping="team")
    rows = [*HALF_USED, free(1, kind="stranded", gpu="GPU-1", **COVERED)]
    rows = [row | ({"unmeasured": row["held"]} if row["row_kind"] == "holder" else {}) for row in rows]
    with open_sink(path, coded_schema("1.3")) as sink:
        sink.write(split_ledger(ledger(*rows), options).rows)
    assert list(verify(path)) == []


def test_who_pays_is_part_of_the_id():
    owners = ["Unallocated=ReservationOwner", "Stranded=Proportional", "Unhealthy=Platform"]
    wanted = "gpuwaste-held-v1+proportional.stranded+reservation-owner.unallocated"
    assert with_remainder_owners("gpuwaste-held-v1", owners) == wanted
    assert with_remainder_owners("gpuwaste-held-v1", []) == "gpuwaste-held-v1"
    assert parse_method(wanted).id == wanted


@pytest.mark.parametrize(
    "owners",
    [["Unallocated"], ["Unallocated=Nobody"], ["Mood=Platform"], ["Idle=ReservationOwner"], ["Lent=Platform"] * 2],
    ids=["no owner", "unknown owner", "unknown kind", "a kind no owner can have", "twice"],
)
def test_mistakes_are_named(owners):
    with pytest.raises(InputError, match="remainder"):
        with_remainder_owners("gpuwaste-held-v1", owners)


def test_the_command_takes_owners(tmp_path):
    asked = ["export", "--ledger", str(tmp_path), "--from", "2026-11-01", "--to", "2026-11-01", "--out", "f.parquet"]
    answer = CliRunner().invoke(focus, [*asked, "--remainder-owner", "Mood=Platform"])
    assert "'mood' is no kind of remainder" in str(answer.exception)
