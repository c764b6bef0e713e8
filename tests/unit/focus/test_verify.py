import json
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.unit.focus.ledgers import free, holder, ledger

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
    return {violation.rule for violation in verify(path, **options)}


def changed(table, column, value, row=0):
    values = table[column].to_pylist()
    values[row] = value(values[row]) if callable(value) else value
    return table.set_column(table.column_names.index(column), column, pa.array(values, table.schema.field(column).type))


@pytest.mark.parametrize("version", ["1.3", "1.4"])
@pytest.mark.parametrize("grouping", ["namespace", "workload", "team"])
def test_an_export_breaks_no_rule(tmp_path, version, grouping):
    assert rules_of(tmp_path / "f.parquet", exported(version=version, grouping=grouping), version=version) == set()


def ratio(value):
    def change(text):
        details = json.loads(text)
        details["Elements"][0]["AllocatedRatio"] = value
        return json.dumps(details)

    return change


def dearer(cost):
    return cost + Decimal("1e-28")


MUTANTS = {
    "a part costs more": (
        "ListCost",
        dearer,
        {"CAU-ListCost-C-009-C", f"{SPLIT}-A-003-C"},
    ),
    "a part is billed more": ("BilledCost", dearer, {f"{SPLIT}-A-003-C"}),
    "ratios below 1": ("AllocatedMethodDetails", ratio(0.29), {f"{DETAILS}-O-014-M"}),
    "no ratio": (
        "AllocatedMethodDetails",
        '{"Elements":[{"UsageUnit":"GPU-Hours"}]}',
        {f"{DETAILS}-O-012-M"},
    ),
    "no elements": ("AllocatedMethodDetails", '{"Elements":[]}', {f"{DETAILS}-O-001-M"}),
    "details no JSON": ("AllocatedMethodDetails", "{", {f"{DETAILS}-O-001-M"}),
    "another service": ("ServiceName", "Other", {f"{SPLIT}-A-004-C"}),
    "another unit price": ("ListUnitPrice", Decimal(9), {f"{SPLIT}-A-004-C"}),
    "tags dropped": ("Tags", None, {f"{SPLIT}-A-005-C"}),
    "tags nested": ("Tags", '{"a":{"b":1}}', {"KeyValueFormat-A-004-M"}),
    "tags repeated": ("AllocatedTags", '{"gpuwaste.dev/pool":"x"}', {"CAU-AllocatedTags-C-006-M"}),
    "no method": ("AllocatedMethodId", None, {"CAU-AllocatedMethodId-C-005-C"}),
    "two methods": ("AllocatedMethodId", "other-v1", {"CAU-AllocatedMethodId-C-006-M"}),
    "a receiver twice": ("AllocatedResourceId", "k8s://c1/namespaces/b", {"CAU-AllocatedResourceId-C-008-O"}),
    "a receiver without name": ("AllocatedResourceName", None, {"CAU-AllocatedResourceName-C-005-C"}),
    "an empty text": ("SkuMeter", "", {"StringHandling-A-007-O"}),
    "one bad category": ("ChargeCategory", "Use", {"CAU-ChargeCategory-C-003-M"}),
    "one bad pricing category": ("PricingCategory", "Spot", {"CAU-PricingCategory-C-007-M"}),
    "lower-case currency": ("BillingCurrency", "usd", {"CAU-BillingCurrency-C-003-M"}),
}


@pytest.mark.parametrize(("column", "value", "wanted"), MUTANTS.values(), ids=MUTANTS.keys())
def test_a_mutant_is_caught(tmp_path, column, value, wanted):
    assert wanted <= rules_of(tmp_path / "f.parquet", changed(exported(), column, value))


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
