import json
from collections import defaultdict
from decimal import Decimal, localcontext

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.focus.ledgers import HOUR_NS, free, holder, ledger, unattributed, unprovisioned

from gpuwaste.focus.columns import SUMMABLE, columns_of, schema_of
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
    rows = []
    for node in range(draw(st.integers(1, 3))):
        price = str(draw(st.decimals(0, 99, places=12)))
        for hour in range(draw(st.integers(1, 2))):
            for gpu in range(draw(st.integers(1, 3))):
                cuts = sorted(draw(st.lists(st.integers(1, HOUR_NS - 1), min_size=1, max_size=4, unique=True)))
                spans = [end - start for start, end in zip([0, *cuts], cuts, strict=False)]
                where = {"node": f"n{node}", "gpu": f"GPU-{node}-{gpu}", "hour": hour, "price": price}
                rows += [
                    holder(draw(st.sampled_from("abc")), 0, owned=span, held=span, pod_uid=f"p{i}", **where)
                    for i, span in enumerate(spans)
                ]
                kind = draw(st.sampled_from(["unallocated", "stranded", "unhealthy"]))
                rest = HOUR_NS - cuts[-1]
                lent = draw(st.integers(0, rest))
                rows.append(free(0, **where) | {"owned": rest, kind: rest - lent, "lent": lent})
    return rows


@settings(max_examples=20, deadline=None)
@given(ledgers(), st.sampled_from(["hour", "day"]), st.sampled_from(["namespace", "workload", "team"]))
def test_parts_add_up_to_their_charge_to_the_last_digit(rows, grain, grouping):
    parts = defaultdict(list)
    for row in rows_of(*rows, grain=grain, grouping=grouping):
        parts[row["x_OriginChargeId"]].append(row)
    with localcontext(prec=60):
        for charge in parts.values():
            assert sum(map(ratio_of, charge)) == 1
            totals = {name: sum(row[name] or 0 for row in charge) for name in SUMMABLE}
            for row in charge:
                assert row["ListCost"] == row["ListUnitPrice"] * row["PricingQuantity"]
                assert row["ContractedCost"] == row["ContractedUnitPrice"] * row["PricingQuantity"]
                for name in set(SUMMABLE) - {"CommitmentDiscountQuantity"}:
                    assert row[name] == ratio_of(row) * totals[name]
            assert totals["ListCost"] == charge[0]["ListUnitPrice"] * totals["PricingQuantity"]
            assert totals["PricingQuantity"] == round(totals["PricingQuantity"], 6)


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
        }
    ]
    assert json.loads(rows[0]["AllocatedTags"]) == {"gpuwaste.dev/namespace": "team-a", "gpuwaste.dev/team": "team-a"}


def test_what_was_not_measured_is_left_out_and_not_zero():
    (row,) = rows_of(holder("a", 1))
    assert "x_DutyGpuHours" not in row["AllocatedMethodDetails"]


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
    with pytest.raises(InvariantError, match="node-1"):
        rows_of(free(1, unallocated=5))


@pytest.mark.parametrize("version", ["1.3", "1.4"])
def test_columns_of_a_version(version):
    table = split_ledger(ledger(holder("a", 1)), ExportOptions(version=version)).rows
    assert table.schema == schema_of(version)
    assert len(columns_of(version)) == 65
    assert ("ProviderName" in table.column_names) == (version == "1.3")


@pytest.mark.parametrize(
    "options",
    [{"provider": "Überall"}, {"provider": " "}, {"method": "guess"}, {"service_subcategory": "Bots"}],
    ids=["not ASCII", "empty", "unknown method", "subcategory of another category"],
)
def test_options_that_no_file_can_hold_are_refused(options):
    with pytest.raises(InputError):
        ExportOptions(**options)
