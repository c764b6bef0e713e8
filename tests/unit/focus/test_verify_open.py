"""Charges that do not lie together in a file, and files of other engines."""

import json
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.focus.clusters import random_ledger
from tests.unit.focus.mutants import DETAILS, MUTANTS, RATIOS, SUM, TAGS, changed, exported
from tests.unit.focus.test_split import ratio_of

from gpuwaste.focus import table_files, verify_open
from gpuwaste.focus.columns import METRICS, SUMMABLE, coded_schema
from gpuwaste.focus.files import open_sink
from gpuwaste.focus.methods import METHODS
from gpuwaste.focus.options import ExportOptions
from gpuwaste.focus.split import split_ledger
from gpuwaste.focus.verify import verify

PRICE = '"2.1234567890120000000000000000"'


def rules_of(path, table, **options):
    pq.write_table(table, path)
    return {violation.rule for violation in verify(path, **options) if not violation.note}


@pytest.fixture
def small(monkeypatch):
    """Batches of two rows, and a handful of rows that may wait in memory."""
    monkeypatch.setattr(table_files, "_BATCH_ROWS", 2)
    monkeypatch.setattr(verify_open, "_MAX_OPEN_ROWS", 4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.usefixtures("small")
def test_the_order_of_rows_makes_no_difference(tmp_path, method):
    rng = np.random.default_rng(5)
    day = random_ledger(rng, nodes=1, gpus=2, hours=2, holders=2, namespaces=3, prices=("2", "2.123456789012"))
    rows = split_ledger(day, ExportOptions(method=METHODS[method])).rows
    mixed = rows.take(pa.array(rng.permutation(len(rows))))
    assert rules_of(tmp_path / "f.parquet", rows) == set()
    assert rules_of(tmp_path / "f.parquet", mixed) == set()
    part = next(at for at, row in enumerate(mixed.to_pylist()) if 0 < ratio_of(row) < 1)
    wrong = changed(mixed, "BilledCost", lambda cost: cost + Decimal("1e-26"), row=part)
    assert rules_of(tmp_path / "f.parquet", wrong) == {SUM}


@pytest.mark.parametrize(
    "name",
    [
        "a charge twice",
        "a part left out",
        "a part twice",
        "a charge of one part twice",
        "a part without details",
        "another host",
        "no method",
        "tags dropped",
        "the origin kept beside its parts",
        "two parts with each other's bill",
    ],
)
@pytest.mark.usefixtures("small")
def test_a_mutant_is_caught_across_batches(tmp_path, name):
    change, rule = MUTANTS[name]
    assert rule in rules_of(tmp_path / "f.parquet", change(exported()))


@settings(max_examples=12, deadline=None)
@given(st.permutations(range(4)), st.sampled_from(sorted(MUTANTS)))
def test_a_mutant_is_caught_in_any_order(tmp_path_factory, order, name):
    path = tmp_path_factory.mktemp("focus") / "f.parquet"
    change, rule = MUTANTS[name]
    table = change(exported())
    order = [*order, *range(4, len(table))][: len(table)]
    assert rule in rules_of(path, table.take(pa.array([at for at in order if at < len(table)])))


def with_metrics(table, change):
    for name in METRICS:
        values = [None if value is None else change(name, value) for value in table[name].to_pylist()]
        table = table.set_column(table.column_names.index(name), name, pa.array(values, pa.decimal128(38, 6)))
    return table


def foreign(**changes):
    """A file of an engine that rounds costs to cents, prints four digits of a ratio and has no columns of its own."""
    table = exported(**changes)
    own = [name for name in table.column_names if name.startswith("x_")]
    table = table.drop_columns(own).slice(0, 3)
    methods = pa.array(["other-v1"] * 3)
    table = table.set_column(table.column_names.index("AllocatedMethodId"), "AllocatedMethodId", methods)
    prices = {
        "ListUnitPrice",
        "ContractedUnitPrice",
        "PricingCurrencyListUnitPrice",
        "PricingCurrencyContractedUnitPrice",
    }
    return with_metrics(table, lambda name, value: value if name in prices else round(value, 2))


def test_rounded_costs_of_another_engine_are_no_mistake(tmp_path):
    table = foreign()
    # 0.60 + 0.40 + 1.00; a cent is moved so that no part is its ratio exactly, and the sum stays.
    for name, amount in (("BilledCost", "0.01"), ("EffectiveCost", "0.01")):
        table = changed(table, name, lambda value, amount=amount: value + Decimal(amount), row=0)
        table = changed(table, name, lambda value, amount=amount: value - Decimal(amount), row=1)
    assert rules_of(tmp_path / "f.parquet", table) == set()
    wrong = changed(table, "BilledCost", lambda value: value + Decimal("0.5"))
    assert rules_of(tmp_path / "f.parquet", wrong) == {SUM}


def test_a_file_without_details_is_held_to_its_dimensions(tmp_path):
    table = foreign()
    for row in range(3):
        table = changed(table, "AllocatedMethodDetails", None, row)
    assert rules_of(tmp_path / "f.parquet", table) == set()
    assert rules_of(tmp_path / "f.parquet", changed(table, "Tags", None)) == {TAGS}


def test_tags_may_be_written_in_another_order(tmp_path):
    def turned(text):
        return json.dumps(dict(reversed(json.loads(text).items())))

    assert rules_of(tmp_path / "f.parquet", changed(exported(), "Tags", turned)) == set()


def test_a_zeroed_origin_is_no_second_count(tmp_path):
    table = MUTANTS["the origin kept beside its parts"][0](exported())
    for name in SUMMABLE:
        if table[name][4].as_py() is not None:
            table = changed(table, name, Decimal(0), row=4)
    assert rules_of(tmp_path / "f.parquet", table) == set()


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("2026-11-01T01:00:00Z", "2026-11-01T01:00:00.500Z", "DateTimeFormat-A-003-M"),
        ("2026-11-01T01:00:00Z", "2026-11-01T03:00:00+02:00", "DateTimeFormat-A-006-M"),
        ("2026-11-01T01:00:00Z", "2026-11-01 01:00:00Z", "DateTimeFormat-A-004-M"),
        ("2026-11-01T01:00:00Z", "soon", "DateTimeFormat-A-003-M"),
        (PRICE, '"+2.123456789012"', "NumericFormat-A-010-M"),
        (PRICE, '"2,123456789012"', "NumericFormat-A-009-M"),
        (PRICE, '"$2.123456789012"', "NumericFormat-A-002-M"),
        ('"Hours"', '""', "StringHandling-A-007-O"),
    ],
    ids=["half a second", "an offset", "a blank for T", "a word", "a plus", "a comma", "a dollar", "a quoted nothing"],
)
def test_how_a_csv_writes_values_is_checked(tmp_path, old, new, rule):
    path = tmp_path / "f.csv"
    with open_sink(path, coded_schema("1.3")) as sink:
        sink.write(exported())
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    assert rule in {violation.rule for violation in verify(path)}


def test_numbers_with_an_exponent_are_numbers(tmp_path):
    path = tmp_path / "f.csv"
    with open_sink(path, coded_schema("1.3")) as sink:
        sink.write(exported())
    path.write_text(path.read_text().replace(PRICE, "2123456789012E-12"))
    assert list(verify(path)) == []


def test_a_charge_that_goes_on_after_it_was_whole_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(table_files, "_BATCH_ROWS", 4)
    pq.write_table(pa.concat_tables([exported(), exported().slice(1, 1)]), tmp_path / "f.parquet")
    found = [violation for violation in verify(tmp_path / "f.parquet") if violation.rule == RATIOS]
    assert ["add up to 1.2 and not to 1" in violation.why for violation in found] == [True]
    assert DETAILS in RATIOS
