import json
from collections import defaultdict
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.focus.clusters import random_ledger
from tests.unit.focus.ledgers import free, holder, ledger, unattributed, unprovisioned

from gpuwaste.focus.columns import SUMMABLE, coded_schema, columns_of
from gpuwaste.focus.methods import METHODS, parse_method
from gpuwaste.focus.options import ExportOptions
from gpuwaste.focus.split import split_ledger
from gpuwaste.model.errors import InputError, InvariantError


def rows_of(*rows, **options):
    return split_ledger(ledger(*rows), ExportOptions(**options)).rows.to_pylist()


def ratio_of(row):
    details = json.loads(row["AllocatedMethodDetails"], parse_float=Decimal, parse_int=Decimal)
    return sum(element["AllocatedRatio"] for element in details["Elements"])


@st.composite
def ledgers(draw):
    places = draw(st.integers(0, 12))
    return random_ledger(
        np.random.default_rng(draw(st.integers(0, 2**32))),
        nodes=draw(st.integers(1, 3)),
        gpus=draw(st.integers(1, 3)),
        hours=draw(st.integers(1, 3)),
        holders=draw(st.integers(1, 4)),
        namespaces=draw(st.integers(1, 5)),
        prices=[str(draw(st.decimals(0, 99, places=places))) for _ in range(2)],
    )


@settings(max_examples=12, deadline=None)
@given(ledgers(), st.sampled_from(["hour", "day"]), st.sampled_from(["namespace", "workload", "team"]))
@pytest.mark.parametrize("version", ["1.3", "1.4"])
@pytest.mark.parametrize("method", [*METHODS, "gpuwaste-effective-v1+proportional.idle.stranded"])
def test_parts_add_up_to_their_charge_to_the_last_digit(method, version, table, grain, grouping):
    options = ExportOptions(grain=grain, grouping=grouping, method=parse_method(method), version=version)
    parts = defaultdict(list)
    for row in split_ledger(table, options).rows.to_pylist():
        parts[row["x_OriginChargeId"]].append(row)
    with localcontext(prec=60):
        for charge in parts.values():
            assert sum(map(ratio_of, charge)) == 1
            assert all(ratio_of(row) >= 0 for row in charge)
            totals = {name: sum(row[name] or 0 for row in charge) for name in SUMMABLE}
            for row in charge:
                assert row["ListCost"] == row["ListUnitPrice"] * row["PricingQuantity"]
                assert row["ContractedCost"] == row["ContractedUnitPrice"] * row["PricingQuantity"]
                for name in set(SUMMABLE) - {"CommitmentDiscountQuantity"}:
                    assert row[name] == ratio_of(row) * totals[name]
            assert totals["ListCost"] == charge[0]["ListUnitPrice"] * totals["PricingQuantity"]
            assert totals["PricingQuantity"] == (1 if grain == "hour" else len(table["hour"].unique()))


@settings(max_examples=10, deadline=None)
@given(ledgers())
def test_all_methods_divide_the_same_charges(table):
    totals = set()
    for method in METHODS.values():
        rows = split_ledger(table, ExportOptions(method=method)).rows
        sums = rows.group_by("x_OriginChargeId").aggregate([("EffectiveCost", "sum"), ("PricingQuantity", "sum")])
        totals.add(frozenset(zip(*sums.to_pydict().values(), strict=True)))
    assert len(totals) == 1


def shares(rows, method):
    found = rows_of(*rows, method=parse_method(method))
    return {row["AllocatedResourceName"] or row["x_RemainderReason"]: ratio_of(row) for row in found}


SHARED_GPU = [
    # b borrows a quarter hour: an eighth from a's idle half and an eighth from the free quarter.
    holder("a", 0.5, duty=0.25, effective=0.25, idle=450_000_000_000, lent=450_000_000_000),
    holder("b", 0.25, duty=0.5, effective=0.5, borrowed=900_000_000_000),
    free(0.25, lent=0.125),
]


@pytest.mark.parametrize(
    ("method", "wanted"),
    [
        ("gpuwaste-held-v1", {"a": "0.5", "b": "0.25", "Unallocated": "0.125", "Lent": "0.125"}),
        ("gpuwaste-effective-v1", {"a": "0.25", "b": "0.5", "Idle": "0.125", "Unallocated": "0.125"}),
        # Claims of 1/2, 1/2 and 1/8 add up to 9/8 and are scaled.
        ("gpuwaste-max-v1", {"a": "0.444444444445", "b": "0.444444444444", "Unallocated": "0.111111111111"}),
        ("gpuwaste-proportional-v1", {"a": "0.666666666667", "b": "0.333333333333"}),
        (
            "gpuwaste-held-v1+proportional.lent",
            {"a": "0.583333333333", "b": "0.291666666667", "Unallocated": "0.125"},
        ),
    ],
)
def test_what_each_method_charges(method, wanted):
    assert shares(SHARED_GPU, method) == {name: Decimal(ratio) for name, ratio in wanted.items()}


def test_what_nobody_held_stays_where_nobody_can_carry_it():
    assert shares([free(1)], "gpuwaste-proportional-v1") == {"Unallocated": 1}


def test_a_method_is_named_by_the_kinds_it_smears():
    assert parse_method("gpuwaste-held-v1+proportional.unallocated.stranded").id == (
        "gpuwaste-held-v1+proportional.stranded.unallocated"
    )


@pytest.mark.parametrize(
    "text",
    ["guess", "gpuwaste-held-v1+proportional.mood", "gpuwaste-proportional-v1+proportional.idle"],
    ids=["unknown", "unknown kind", "smeared already"],
)
def test_unknown_methods_are_refused(text):
    with pytest.raises(InputError, match="method: "):
        parse_method(text)


def test_an_hour_of_a_shared_node():
    rows = rows_of(
        holder("team-a", 0.5, duty=0.4, effective=0.2),
        holder("team-b", 0.25, price="2"),
        free(0.25, lent=0.1),
        free(1, gpu="GPU-1", kind="stranded"),
        unattributed(0.1),
    )
    seen = [(r["AllocatedResourceId"], r["x_RemainderReason"], r["PricingQuantity"], r["ListCost"]) for r in rows]
    assert seen == [
        ("k8s://c1/namespaces/team-a", None, Decimal("0.25"), Decimal(1)),
        ("k8s://c1/namespaces/team-b", None, Decimal("0.125"), Decimal("0.5")),
        (None, "Lent", Decimal("0.05"), Decimal("0.2")),
        (None, "Stranded", Decimal("0.5"), Decimal(2)),
        (None, "Unallocated", Decimal("0.075"), Decimal("0.3")),
    ]
    assert json.loads(rows[0]["AllocatedMethodDetails"])["Elements"] == [
        {
            "AllocatedRatio": 0.25,
            "UsageUnit": "GPU-Hours",
            "UsageQuantity": 0.5,
            "x_ReservedGpuHours": 0.5,
            "x_HeldGpuHours": 0.5,
            "x_DutyGpuHours": 0.4,
            "x_EffectiveGpuHours": 0.2,
            "x_UnmeasuredGpuHours": 0,
            "x_MigGpuHours": 0,
            "x_SharedGpuHours": 0,
        }
    ]
    assert json.loads(rows[0]["AllocatedTags"]) == {"gpuwaste.dev/namespace": "team-a", "gpuwaste.dev/team": "team-a"}


def test_what_was_not_measured_is_null_and_not_zero():
    (row,) = rows_of(holder("a", 1))
    (element,) = json.loads(row["AllocatedMethodDetails"])["Elements"]
    assert element["x_DutyGpuHours"] is None
    assert element["x_EffectiveGpuHours"] is None


def test_a_day_is_one_charge_a_price():
    rows = rows_of(*(holder("a", 1, hour=hour, price="3" if hour == 5 else "2") for hour in range(24)), grain="day")
    assert [(r["PricingQuantity"], r["ListCost"], r["x_OriginChargeId"][-2:]) for r in rows] == [
        (Decimal(23), Decimal(46), "/0"),
        (Decimal(1), Decimal(3), "/1"),
    ]
    assert {(r["ChargePeriodEnd"] - r["ChargePeriodStart"]).days for r in rows} == {1}


def test_a_partial_hour_is_a_part_of_the_node_hour():
    (row,) = rows_of(holder("a", 1 / 3))
    assert row["PricingQuantity"] == Decimal("0.333333")
    assert row["ListCost"] == Decimal("0.666666")


@pytest.mark.parametrize(
    ("grouping", "identity", "name"),
    [
        ("namespace", "k8s://c1/namespaces/a", "a"),
        ("workload", "k8s://c1/namespaces/a/Deployment/web", "a/Deployment/web"),
        ("team", "k8s://c1/teams/vision", "vision"),
    ],
)
def test_receivers(grouping, identity, name):
    (row,) = rows_of(holder("a", 1, team="vision"), grouping=grouping)
    assert (row["AllocatedResourceId"], row["AllocatedResourceName"]) == (identity, name)


def test_a_holder_that_nobody_knows_is_a_remainder():
    (row,) = rows_of(holder("", 1, team=""))
    assert (row["AllocatedResourceId"], row["x_RemainderReason"]) == (None, "Unidentified")


def test_other_characters_than_ascii_are_encoded_and_kept_in_the_tags():
    (row,) = rows_of(holder("a", 1, team="Bildverständnis"), grouping="team")
    assert row["AllocatedResourceName"] == "Bildverst%C3%A4ndnis"
    assert row["AllocatedTags"].isascii()
    assert json.loads(row["AllocatedTags"])["gpuwaste.dev/team"] == "Bildverständnis"


def test_a_node_without_a_price_is_named_and_left_out():
    split = split_ledger(ledger(holder("a", 1), holder("a", 1, node="node-2", price=None)), ExportOptions())
    assert {row["ResourceName"] for row in split.rows.to_pylist()} == {"node-1"}
    (finding,) = split.findings
    assert str(finding) == (
        "node node-2 (A100-80GB): no price for 1.00 GPU-hours from 2026-11-01T00:00Z on; left out of the export;"
        " add the GPU model to the price list and replay the ledger"
    )


def test_several_currencies_are_refused_unless_one_is_chosen():
    rows = [holder("a", 1), holder("a", 1, node="node-2", currency="EUR")]
    with pytest.raises(InputError, match="EUR, USD"):
        rows_of(*rows)
    assert [row["BillingCurrency"] for row in rows_of(*rows, currency="EUR")] == ["EUR"]


def test_bought_and_absent_capacity_is_charged_by_the_gpu_hour():
    (row,) = rows_of(unprovisioned(2))
    assert (row["PricingUnit"], row["PricingQuantity"], row["x_RemainderReason"]) == (
        "GPU-Hours",
        Decimal(2),
        "Unprovisioned",
    )


def test_a_ledger_that_breaks_its_law_is_not_exported():
    with pytest.raises(InvariantError, match="law of the accounting"):
        rows_of(free(1, unallocated=5))


@pytest.mark.parametrize("version", ["1.3", "1.4"])
def test_columns_of_a_version(version):
    table = split_ledger(ledger(holder("a", 1)), ExportOptions(version=version)).rows
    assert table.schema == coded_schema(version)
    assert len(columns_of(version)) == 65
    assert ("ProviderName" in table.column_names) == (version == "1.3")


@pytest.mark.parametrize(
    "options",
    [{"provider": "Überall"}, {"provider": " "}, {"service_subcategory": "Bots"}],
    ids=["not ASCII", "empty", "subcategory of another category"],
)
def test_options_that_no_file_can_hold_are_refused(options):
    with pytest.raises(InputError):
        ExportOptions(**options)


@pytest.mark.parametrize(
    ("source", "category"),
    [("SpotPriceList", "Dynamic"), ("SpotBill", "Dynamic"), ("PriceList", "Standard"), ("Bill", "Standard")],
)
def test_what_a_spot_node_costs_is_priced_dynamically(source, category):
    rows = split_ledger(ledger(holder("a", 1, price_source=source)), ExportOptions()).rows.to_pylist()
    assert [row["PricingCategory"] for row in rows] == [category]
