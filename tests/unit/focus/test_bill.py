import json
from collections import defaultdict
from decimal import Decimal, localcontext

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.focus.bills import bill, correction, other, purchase, traffic, usage
from tests.unit.focus.clusters import random_ledger
from tests.unit.focus.ledgers import free, holder, ledger

from gpuwaste.focus.bill import split_bill
from gpuwaste.focus.bill_files import read_bill
from gpuwaste.focus.columns import DIMENSIONS, SUMMABLE, UNIT_PRICES
from gpuwaste.focus.methods import METHODS
from gpuwaste.focus.node_hours import collect_hours
from gpuwaste.focus.options import ExportOptions
from gpuwaste.model.errors import InputError

NODE = {"provider_id": "aws:///use1-az1/i-0"}


def halves(hour=0, **where):
    return [holder("a", 0.5, hour=hour, **NODE, **where), free(0.5, hour=hour, **NODE, **where)]


def read(table, tmp_path):
    pq.write_table(table, tmp_path / "bill.parquet")
    return read_bill(tmp_path / "bill.parquet")


def divided(table, *days, **options):
    chosen = ExportOptions(**options)
    return split_bill(table, collect_hours(days, chosen), chosen)


def ratio_of(row):
    details = json.loads(row["AllocatedMethodDetails"], parse_float=Decimal, parse_int=Decimal)
    return sum(element["AllocatedRatio"] for element in details["Elements"])


def test_only_the_time_of_nodes_is_divided_and_the_rest_stays_as_it_came(tmp_path):
    table = bill(purchase(), usage(), traffic(), usage(7), other("Tax", "8"), other("Credit", "-3"), correction())
    split = divided(read(table, tmp_path), ledger(*halves()))
    rows = split.rows.to_pylist()
    assert [(row["ChargeCategory"], row["AllocatedResourceId"], row["BilledCost"]) for row in rows] == [
        ("Purchase", None, Decimal(1000)),
        ("Usage", "k8s://c1/namespaces/a", Decimal("49.16")),
        ("Usage", None, Decimal("49.16")),
        ("Usage", None, Decimal("1.125")),
        ("Usage", None, Decimal("98.32")),
        ("Tax", None, Decimal(8)),
        ("Credit", None, Decimal(-3)),
        ("Usage", "k8s://c1/namespaces/a", Decimal("-2.5")),
        ("Usage", None, Decimal("-2.5")),
    ]
    parts = [row["x_OriginChargeId"] is not None for row in rows]
    assert parts == [row["AllocatedMethodId"] is not None for row in rows]
    assert sum(parts) == 4
    assert split.charges == 2
    for before, after in ((0, 0), (1, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 7)):
        same = {name for name in DIMENSIONS if name in table.column_names} | set(UNIT_PRICES)
        assert {name: rows[after][name] for name in same} == {name: table.to_pylist()[before][name] for name in same}


def test_a_daily_row_is_divided_by_what_each_hour_cost(tmp_path):
    hours = [holder("a", 1, hour=0, **NODE), *halves(hour=1), free(0.5, hour=2, **NODE)]
    rows = divided(read(bill(usage(hours=24)), tmp_path), ledger(*hours)).rows.to_pylist()
    assert [(row["AllocatedResourceName"], ratio_of(row)) for row in rows] == [
        ("a", Decimal("0.6")),
        (None, Decimal("0.4")),
    ]


def test_days_are_joined_and_receivers_keep_one_name(tmp_path):
    days = [ledger(*halves(hour=23, team="x")), ledger(*halves(hour=24, team="y"))]
    rows = divided(read(bill(usage(hour=23, hours=2)), tmp_path), *days).rows.to_pylist()
    assert [(row["AllocatedResourceName"], row["x_Team"], ratio_of(row)) for row in rows] == [
        ("a", None, Decimal("0.5")),
        (None, None, Decimal("0.5")),
    ]


def test_rows_without_a_ledger_pass_through_and_are_named(tmp_path):
    split = divided(read(bill(usage(hour=5)), tmp_path), ledger(*halves()))
    assert split.rows["AllocatedMethodId"].null_count == 1
    assert "node node-1: 1 rows of the bill lie in hours without a ledger" in str(split.findings[0])


def test_rows_that_broke_a_rule_before_are_named_and_kept(tmp_path):
    rows = [usage(), usage(1, PricingCategory="Spot"), usage(2, Tags='{"a":{"b":1}}')]
    split = divided(read(bill(*rows), tmp_path), ledger(*halves()))
    pricing, tags = map(str, split.findings)
    assert pricing.startswith("bill row 2: CAU-PricingCategory-C-007-M: PricingCategory must be one of Committed")
    assert tags.startswith("bill row 3: KeyValueFormat-A-004-M: Tags must hold numbers, texts, true, false and null")
    assert tags.endswith("; kept as it came")
    assert split.rows["PricingCategory"].to_pylist() == ["Standard", "Standard", "Spot", "Standard"]


def test_amounts_that_are_too_fine_or_too_large_pass_through_and_are_named(tmp_path):
    fine = usage() | {"BilledCost": Decimal("0.00000000000000000000001")}
    large = usage() | {"ConsumedQuantity": Decimal(10) ** 11}
    table = bill(fine, large, usage(), metric=pa.decimal128(38, 23))
    split = divided(read(table, tmp_path), ledger(*halves()))
    assert [str(finding).split(";")[0] for finding in split.findings if "node" in finding.where] == [
        "bill row 1, node node-1: an amount has 2 digits and 23 decimals",
        "bill row 2, node node-1: an amount has 12 digits and 2 decimals",
    ]
    rows = split.rows.to_pylist()
    assert len(rows) == 4
    assert rows[0]["BilledCost"] == Decimal("0.00000000000000000000001")
    assert rows[1]["ConsumedQuantity"] == Decimal(10) ** 11
    assert split.rows.schema.field("ConsumedQuantity").type == pa.decimal128(38, 26)


def test_columns_that_an_older_version_lacks_are_filled_by_the_table(tmp_path):
    lacking = [
        "ServiceProviderName",
        "HostProviderName",
        "BillingAccountType",
        "SubAccountType",
        "PricingCurrency",
        "PricingCurrencyEffectiveCost",
        "PricingCurrencyListUnitPrice",
        "PricingCurrencyContractedUnitPrice",
        "ServiceSubcategory",
        "AllocatedMethodId",
        "AllocatedResourceId",
    ]
    (row, _) = divided(read(bill(usage(), without=lacking), tmp_path), ledger(*halves())).rows.to_pylist()
    wanted = {
        "ServiceProviderName": "AWS",
        "HostProviderName": "AWS",
        "BillingAccountType": "Billing Account",
        "SubAccountType": "Sub Account",
        "PricingCurrency": "USD",
        "PricingCurrencyEffectiveCost": Decimal("49.16"),
        "PricingCurrencyListUnitPrice": Decimal("98.32"),
        "ServiceSubcategory": "Other (Compute)",
    }
    assert {name: row[name] for name in wanted} == wanted


def test_the_newer_version_drops_what_it_no_longer_has_and_keeps_own_columns(tmp_path):
    rows = divided(read(bill(usage(x_Operation="RunInstances")), tmp_path), ledger(*halves()), version="1.4").rows
    assert "ProviderName" not in rows.column_names
    assert "InvoiceDetailId" in rows.column_names
    assert rows.column_names[-1] == "x_Operation"
    assert rows["x_Operation"].to_pylist() == ["RunInstances"] * 2


def test_what_a_commitment_covers_is_applied_in_parts(tmp_path):
    applied = '{"Elements":[{"ContractId":"c","ContractCommitmentAppliedCost":98.32,"x_Note":"n"}]}'
    rows = divided(read(bill(usage(ContractApplied=applied)), tmp_path), ledger(*halves())).rows.to_pylist()
    found = [json.loads(row["ContractApplied"])["Elements"][0] for row in rows]
    assert found == [{"ContractId": "c", "ContractCommitmentAppliedCost": 49.16, "x_Note": "n"}] * 2


def test_two_nodes_of_one_name_are_not_mixed_up(tmp_path):
    twins = [holder("a", 1, provider_id=f"gce://p{n}/z/i-0", node=f"n{n}", gpu=f"GPU-{n}") for n in range(2)]
    split = divided(read(bill(usage(ResourceId="i-0")), tmp_path), ledger(*twins))
    assert split.charges == 0
    assert "nodes n0, n1: a bill that names only 'i-0' may mean any of them" in str(split.findings[0])


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_binary_numbers_and_texts_are_read_as_they_were_written(tmp_path, suffix):
    path = tmp_path / f"bill.{suffix}"
    table = bill(usage(price="0.1", quantity="3"), metric=pa.float64())
    pa_csv.write_csv(table, path) if suffix == "csv" else pq.write_table(table, path)
    read_back = read_bill(path)
    assert read_back["ListUnitPrice"].to_pylist() == [Decimal("0.1")]
    assert read_back["BillingAccountId"].to_pylist() == ["123456789012"]
    assert read_back["ChargePeriodStart"].to_pylist() == table["ChargePeriodStart"].to_pylist()
    assert read_back["ChargeClass"].to_pylist() == [None]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x\n1\n", "column ChargeCategory is missing"),
        ("ChargeCategory,ListCost\nUsage,ten\n", "column ListCost: 'ten' is no number"),
        ("ChargeCategory,ChargePeriodStart\nUsage,soon\n", "column ChargePeriodStart: is no time"),
    ],
)
def test_a_bill_that_cannot_be_read_is_one_clear_line(tmp_path, content, message):
    (tmp_path / "bill.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        read_bill(tmp_path / "bill.csv")


@st.composite
def bills(draw):
    rows = []
    for _ in range(draw(st.integers(1, 6))):
        price = draw(st.decimals(0, 999, places=draw(st.integers(0, 12))))
        # Nothing, and what a provider takes back, among them.
        quantity = draw(st.decimals(-24, 24, places=draw(st.integers(0, 6))))
        row = usage(
            draw(st.integers(0, 3)),
            hour=draw(st.integers(0, 3)),
            hours=draw(st.integers(1, 4)),
            price=str(price),
            quantity=str(quantity),
            BillingCurrency=draw(st.sampled_from(["USD", "EUR"])),
            BillingAccountId=draw(st.sampled_from(["1", "2"])),
            PricingUnit=draw(st.sampled_from(["Hours", "GPU-Hours", "GB"])),
        )
        if draw(st.booleans()):
            row |= {"EffectiveCost": draw(st.decimals(-999, 999, places=draw(st.integers(0, 18))))}
        if draw(st.booleans()):
            # A provider that rounds its costs: price × quantity is then not exact.
            row |= {name: round(row[name], 4) for name in ("ListCost", "BilledCost")}
        rows.append(row)
    return rows


@settings(max_examples=8, deadline=None)
@given(bills(), st.integers(0, 2**32))
@pytest.mark.parametrize("version", ["1.3", "1.4"])
@pytest.mark.parametrize("method", METHODS)
def test_parts_add_up_to_the_bill_to_the_last_digit(method, version, rows, seed):
    day = random_ledger(np.random.default_rng(seed), nodes=3, gpus=2, hours=3, holders=2, namespaces=4)
    table = bill(*rows)
    split = divided(table, day, method=METHODS[method], version=version).rows.to_pylist()
    parts = defaultdict(list)
    for row in split:
        parts[row["x_OriginChargeId"]].append(row)
    whole = parts.pop(None, [])
    with localcontext(prec=60):
        for name in SUMMABLE:
            assert sum(row[name] or 0 for row in split) == sum(row.get(name) or 0 for row in rows)
        for charge in parts.values():
            assert sum(map(ratio_of, charge)) == 1
            totals = {name: sum(row[name] or 0 for row in charge) for name in SUMMABLE}
            residual = totals["ListCost"] - charge[0]["ListUnitPrice"] * totals["PricingQuantity"]
            for row in charge:
                ratio = ratio_of(row)
                assert row["ListCost"] - row["ListUnitPrice"] * row["PricingQuantity"] == ratio * residual
                assert row["ContractedCost"] == row["ContractedUnitPrice"] * row["PricingQuantity"]
                assert all(row[name] == ratio * totals[name] for name in SUMMABLE if row[name] is not None)
    assert all(row[name] is None for row in whole for name in ("AllocatedMethodId", "AllocatedMethodDetails"))
