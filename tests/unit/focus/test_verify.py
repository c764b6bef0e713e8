import json
from datetime import timedelta
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.unit.focus.bills import bill, usage
from tests.unit.focus.ledgers import free, holder, ledger

from gpuwaste.focus.bill import split_bill
from gpuwaste.focus.bill_files import read_bill
from gpuwaste.focus.columns import coded_schema
from gpuwaste.focus.details_rules import check_details
from gpuwaste.focus.files import open_sink
from gpuwaste.focus.node_hours import collect_hours
from gpuwaste.focus.options import ExportOptions
from gpuwaste.focus.split import split_ledger
from gpuwaste.focus.verify import verify
from gpuwaste.model.errors import InputError

SPLIT = "DataGeneratorCalculatedSplitCostAllocationHandling"
DETAILS = "CAU-AllocatedMethodDetailsObject"


def exported(**options):
    rows = [holder("a", 0.3, duty=0.2), holder("b", 0.2), free(0.5), holder("a", 1, hour=1, price="2.123456789012")]
    return split_ledger(ledger(*rows), ExportOptions(**options)).rows


def rules_of(path, table, **options):
    pq.write_table(table, path)
    return {violation.rule for violation in verify(path, **options) if not violation.note}


def changed(table, column, value, row=0):
    values = table[column].to_pylist()
    values[row] = value(values[row]) if callable(value) else value
    return table.set_column(table.column_names.index(column), column, pa.array(values, table.schema.field(column).type))


@pytest.mark.parametrize("version", ["1.3", "1.4"])
@pytest.mark.parametrize("grouping", ["namespace", "workload", "team"])
def test_an_export_breaks_no_rule(tmp_path, version, grouping):
    assert rules_of(tmp_path / "f.parquet", exported(version=version, grouping=grouping), version=version) == set()


def element(**changes):
    """Change keys of the first element of AllocatedMethodDetails; None takes a key away."""

    def change(text):
        details = json.loads(text)
        details["Elements"][0] |= changes
        details["Elements"][0] = {key: value for key, value in details["Elements"][0].items() if value is not None}
        return json.dumps(details)

    return change


def more(amount):
    return lambda value: value + Decimal(amount)


DAY = timedelta(days=1)
SUM = f"{SPLIT}-A-003-C"
DIMENSION = f"{SPLIT}-A-004-C"

MUTANTS = {
    # Sums
    "a part costs more at list": ("ListCost", more("1e-28"), SUM),
    "a part costs more by contract": ("ContractedCost", more("1e-28"), SUM),
    "a part costs less effectively": ("EffectiveCost", more("-0.01"), SUM),
    "a part is billed more": ("BilledCost", more("1e-28"), SUM),
    "a part consumed more": ("ConsumedQuantity", more("0.000001"), SUM),
    "a part is priced for more": ("PricingQuantity", more("0.000001"), SUM),
    "a part costs more in the pricing currency": ("PricingCurrencyEffectiveCost", more("1e-12"), SUM),
    "a charge costs other than price times quantity": ("ListCost", more("1"), "CAU-ListCost-C-009-C"),
    "a charge costs other than contract price times quantity": (
        "ContractedCost",
        more("1"),
        "CAU-ContractedUnitPrice-C-011-C",
    ),
    # Ratios and details
    "ratios below 1": ("AllocatedMethodDetails", element(AllocatedRatio=0.29), f"{DETAILS}-O-014-M"),
    "a ratio above 1": ("AllocatedMethodDetails", element(AllocatedRatio=1.3), f"{DETAILS}-O-013-M"),
    "a negative ratio": ("AllocatedMethodDetails", element(AllocatedRatio=-0.3), f"{DETAILS}-O-013-M"),
    "a ratio in words": ("AllocatedMethodDetails", element(AllocatedRatio="a third"), f"{DETAILS}-O-013-M"),
    "no ratio": ("AllocatedMethodDetails", element(AllocatedRatio=None), f"{DETAILS}-O-012-M"),
    "no elements": ("AllocatedMethodDetails", '{"Elements":[]}', f"{DETAILS}-O-001-M"),
    "elements no list": ("AllocatedMethodDetails", '{"Elements":{}}', f"{DETAILS}-O-001-M"),
    "details no JSON": ("AllocatedMethodDetails", "{", f"{DETAILS}-O-001-M"),
    "a number with a zero in front": (
        "AllocatedMethodDetails",
        lambda text: text.replace(":0.", ":00."),
        f"{DETAILS}-O-001-M",
    ),
    "an element that is no object": ("AllocatedMethodDetails", '{"Elements":[1]}', f"{DETAILS}-O-002-M"),
    "an element with depth": ("AllocatedMethodDetails", element(x_Gpu={"n": 1}), f"{DETAILS}-O-003-M"),
    "a key without prefix": ("AllocatedMethodDetails", element(Gpu=1), f"{DETAILS}-O-009-C"),
    "a quantity without unit": ("AllocatedMethodDetails", element(UsageUnit=None), f"{DETAILS}-O-016-C"),
    "a unit in small letters": ("AllocatedMethodDetails", element(UsageUnit="gpu-hours"), f"{DETAILS}-O-018-O"),
    "a quantity in words": ("AllocatedMethodDetails", element(UsageQuantity="1"), f"{DETAILS}-O-021-M"),
    # Dimensions and unit prices of one part
    "another service": ("ServiceName", "Other", DIMENSION),
    "another resource": ("ResourceId", "uid-node-2", DIMENSION),
    "another region": ("RegionId", "eu-1", DIMENSION),
    "another SKU": ("SkuId", "gpu-node/other", DIMENSION),
    "another invoice": ("InvoiceId", "INV-2", DIMENSION),
    "another account": ("SubAccountId", "c2", DIMENSION),
    "another start": ("ChargePeriodStart", lambda start: start - DAY, DIMENSION),
    "another list price": ("ListUnitPrice", Decimal(9), DIMENSION),
    "another contract price": ("ContractedUnitPrice", Decimal(9), DIMENSION),
    "another provider": ("ServiceProviderName", "AWS", DIMENSION),
    # Tags
    "tags dropped": ("Tags", None, f"{SPLIT}-A-005-C"),
    "a tag changed": ("Tags", '{"gpuwaste.dev/cluster":"c2"}', f"{SPLIT}-A-005-C"),
    "tags nested": ("Tags", '{"a":{"b":1}}', "KeyValueFormat-A-004-M"),
    "tags with a list": ("AllocatedTags", '{"a":[1]}', "KeyValueFormat-A-004-M"),
    "tags no JSON": ("AllocatedTags", "a=1", "KeyValueFormat-A-001-M"),
    "tags no object": ("AllocatedTags", "[1]", "KeyValueFormat-A-001-M"),
    "a tag twice": ("AllocatedTags", '{"a":1,"a":2}', "KeyValueFormat-A-002-M"),
    "tags repeated": ("AllocatedTags", '{"gpuwaste.dev/pool":"x"}', "CAU-AllocatedTags-C-006-M"),
    # Who receives
    "no method": ("AllocatedMethodId", None, "CAU-AllocatedMethodId-C-005-C"),
    "two methods": ("AllocatedMethodId", "other-v1", "CAU-AllocatedMethodId-C-006-M"),
    "a receiver twice": ("AllocatedResourceId", "k8s://c1/namespaces/b", "CAU-AllocatedResourceId-C-008-O"),
    "a receiver without name": ("AllocatedResourceName", None, "CAU-AllocatedResourceName-C-005-C"),
    "a name without receiver": ("AllocatedResourceId", None, "CAU-AllocatedResourceName-C-004-C"),
    # Single rows
    "an empty text": ("SkuMeter", "", "StringHandling-A-007-O"),
    "a blank text": ("ResourceName", "  ", "StringHandling-A-007-O"),
    "an empty receiver": ("AllocatedResourceId", "", "StringHandling-A-007-O"),
    "one bad category": ("ChargeCategory", "Use", "CAU-ChargeCategory-C-003-M"),
    "one bad pricing category": ("PricingCategory", "Spot", "CAU-PricingCategory-C-007-M"),
    "one bad frequency": ("ChargeFrequency", "Hourly", "CAU-ChargeFrequency-C-003-M"),
    "one bad service category": ("ServiceCategory", "GPU", "CAU-ServiceCategory-C-003-M"),
    "a subcategory of another category": ("ServiceSubcategory", "Bots", "CAU-ServiceSubcategory-C-004-M"),
    "lower-case currency": ("BillingCurrency", "usd", "CAU-BillingCurrency-C-003-M"),
    "half a second": (
        "ChargePeriodEnd",
        lambda end: end + timedelta(milliseconds=500),
        "DateTimeFormat-A-003-M",
    ),
    "a period that ends first": ("ChargePeriodEnd", lambda end: end - DAY, "CAU-ChargePeriodEnd-C-004-M"),
    "no unit": ("PricingUnit", None, "CAU-PricingUnit-C-006-C"),
    "a unit of nothing": ("CommitmentDiscountUnit", "Hours", "CAU-CommitmentDiscountUnit-C-005-C"),
    "no SKU on Usage": ("SkuId", None, "CAU-SkuId-C-005-C"),
    "a reservation without status": ("CapacityReservationId", "cr-1", "CAU-CapacityReservationStatus-C-004-C"),
    "a status without commitment": ("CommitmentDiscountStatus", "Used", "CAU-CommitmentDiscountStatus-C-003-C"),
    "a negative price": ("ListUnitPrice", Decimal(-1), "CAU-ListUnitPrice-C-008-M"),
}


@pytest.mark.parametrize(("column", "value", "rule"), MUTANTS.values(), ids=MUTANTS.keys())
def test_a_mutant_is_caught(tmp_path, column, value, rule):
    assert rule in rules_of(tmp_path / "f.parquet", changed(exported(), column, value))


def test_a_mutant_is_caught_in_csv(tmp_path):
    with open_sink(tmp_path / "f.csv", coded_schema("1.3")) as sink:
        sink.write(exported())
    assert list(verify(tmp_path / "f.csv")) == []
    text = (tmp_path / "f.csv").read_text()
    (tmp_path / "f.csv").write_text(text.replace('""AllocatedRatio"":0.3', '""AllocatedRatio"":0.2'))
    assert f"{DETAILS}-O-014-M" in {violation.rule for violation in verify(tmp_path / "f.csv")}


def test_numbers_in_binary_are_held_to_the_tolerance_of_the_official_validator(tmp_path):
    table = exported()
    for position, field in enumerate(table.schema):
        if pa.types.is_decimal(field.type):
            table = table.set_column(position, field.name, table[field.name].cast(pa.float64()))
    assert rules_of(tmp_path / "f.parquet", table) == set()
    worse = changed(table, "BilledCost", lambda cost: cost + 1e-6)
    assert SUM in rules_of(tmp_path / "f.parquet", worse)


def test_a_file_of_another_engine_needs_no_column_of_ours(tmp_path):
    table = exported()
    own = [name for name in table.column_names if name.startswith("x_")]
    assert rules_of(tmp_path / "f.parquet", table.drop_columns(own)) == set()
    assert SUM in rules_of(tmp_path / "f.parquet", changed(table.drop_columns(own), "BilledCost", more("1")))


def test_details_of_other_shapes_are_read_one_by_one():
    texts = [
        '{"Elements":[{"AllocatedRatio":0.05},{"AllocatedRatio":1E-1,"x_Of":"Memory"}]}',
        '{"Elements": [{"AllocatedRatio": 0.1250}]}',
        '{"Elements": [{"AllocatedRatio": 0.8750}]}',
        None,
    ]
    check = check_details(pa.array(texts))
    assert check.ratio.to_pylist() == [Decimal("0.15"), Decimal("0.125"), Decimal("0.875"), None]
    assert check.problems == []


def test_an_inexact_charge_of_the_bill_is_named_and_no_error(tmp_path):
    table = read_bill_of(tmp_path, usage() | {"ListCost": Decimal("98.3200000001")})
    days = [ledger(holder("a", 1, provider_id="aws:///z/i-0"))]
    split = split_bill(table, collect_hours(days, ExportOptions()), ExportOptions())
    pq.write_table(split.rows, tmp_path / "f.parquet")
    (note,) = verify(tmp_path / "f.parquet")
    assert note.note
    assert "i-0/2026-11-01T00:00:00Z/0: ListCost is 0.0000000001 off" in str(note)


def read_bill_of(folder, *rows):
    pq.write_table(bill(*rows), folder / "bill.parquet")
    return read_bill(folder / "bill.parquet")


def test_a_missing_part_is_caught(tmp_path):
    rules = rules_of(tmp_path / "f.parquet", exported().slice(1))
    assert f"{DETAILS}-O-014-M" in rules


def test_a_missing_column_is_caught(tmp_path):
    assert rules_of(tmp_path / "f.parquet", exported().drop_columns(["AllocatedTags"])) == {"CAU-CostAndUsage-D-001-M"}


def test_the_bill_is_compared(tmp_path):
    whole = exported()
    pq.write_table(whole, tmp_path / "bill.parquet")
    assert rules_of(tmp_path / "f.parquet", whole, origin=tmp_path / "bill.parquet") == set()
    pq.write_table(changed(whole, "BilledCost", Decimal(7), row=3), tmp_path / "bill.parquet")
    assert rules_of(tmp_path / "f.parquet", whole, origin=tmp_path / "bill.parquet") == {f"{SPLIT}-A-003-C"}


def test_a_file_that_cannot_be_read_is_one_clear_line(tmp_path):
    (tmp_path / "f.parquet").write_text("no parquet")
    with pytest.raises(InputError, match=r"f\.parquet: not readable"):
        list(verify(tmp_path / "f.parquet"))
    with pytest.raises(InputError, match="no such file"):
        list(verify(tmp_path / "g.parquet"))
