from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.unit.focus.bills import bill, usage
from tests.unit.focus.ledgers import holder, ledger
from tests.unit.focus.mutants import DETAILS, MUTANTS, SPLIT, SUM, changed, exported, more

from gpuwaste.focus.bill import split_bill
from gpuwaste.focus.bill_files import read_bill
from gpuwaste.focus.columns import coded_schema
from gpuwaste.focus.details_rules import check_details
from gpuwaste.focus.files import open_sink
from gpuwaste.focus.node_hours import collect_hours
from gpuwaste.focus.options import ExportOptions
from gpuwaste.focus.verify import verify
from gpuwaste.model.errors import InputError


def rules_of(path, table, **options):
    pq.write_table(table, path)
    return {violation.rule for violation in verify(path, **options) if not violation.note}


@pytest.mark.parametrize("version", ["1.3", "1.4"])
@pytest.mark.parametrize("grouping", ["namespace", "workload", "team"])
def test_an_export_breaks_no_rule(tmp_path, version, grouping):
    assert rules_of(tmp_path / "f.parquet", exported(version=version, grouping=grouping), version=version) == set()


@pytest.mark.parametrize(("change", "rule"), MUTANTS.values(), ids=MUTANTS.keys())
def test_a_mutant_is_caught(tmp_path, change, rule):
    assert rule in rules_of(tmp_path / "f.parquet", change(exported()))


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
