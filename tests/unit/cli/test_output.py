"""Tables for people and for programs."""

import csv
import io
import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gpuwaste.cli.output import Column, render_table

COLUMNS = [
    Column("name", "NAME"),
    Column("cost", "COST", lambda cost: f"{cost:.2f}", right=True),
    Column("at", "", str),
]
ROWS = [
    {"name": "a", "cost": Decimal("1.500"), "at": datetime(2026, 11, 2, tzinfo=UTC)},
    {"name": "long name", "cost": None, "at": None},
]


def test_people_see_aligned_columns_with_a_header():
    assert render_table(COLUMNS, ROWS, "table") == (
        "NAME            COST\na               1.50\nlong name  <unknown>\n"
    )


def test_json_has_every_column_with_decimals_as_text():
    assert json.loads(render_table(COLUMNS, ROWS, "json")) == [
        {"name": "a", "cost": "1.500", "at": "2026-11-02T00:00:00Z"},
        {"name": "long name", "cost": None, "at": None},
    ]


def test_csv_has_names_and_leaves_unknown_empty():
    assert render_table(COLUMNS, ROWS, "csv") == "name,cost,at\na,1.500,2026-11-02T00:00:00Z\nlong name,,\n"


@pytest.mark.parametrize("output", ["json", "yaml", "csv", "table"])
def test_no_rows(output):
    text = render_table(COLUMNS, [], output)
    assert text in {"[]\n", "name,cost,at\n", "NAME  COST\n"}


values = st.none() | st.text(max_size=8) | st.integers() | st.decimals(allow_nan=False, allow_infinity=False)


@given(st.lists(st.fixed_dictionaries({"name": values, "cost": values, "at": st.none()}), max_size=4))
def test_yaml_csv_and_json_say_the_same(rows):
    plain = [Column("name", "NAME"), Column("cost", "COST"), Column("at", "AT")]
    said = json.loads(render_table(plain, rows, "json"))
    assert yaml.safe_load(render_table(plain, rows, "yaml")) == said
    read = list(csv.reader(io.StringIO(render_table(plain, rows, "csv"), newline="")))
    assert read[1:] == [["" if value is None else str(value) for value in row.values()] for row in said]


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_a_decimal_never_loses_a_digit(number):
    (row,) = json.loads(render_table([Column("n", "N")], [{"n": number}], "json"))
    assert Decimal(row["n"]) == number
    assert "e" not in row["n"].lower()


def test_what_has_parts_is_json_in_csv():
    rows = [{"costs": {"USD": {"cost": Decimal("1.50")}}}]
    text = render_table([Column("costs", "")], rows, "csv")
    assert json.loads(next(csv.DictReader(io.StringIO(text)))["costs"]) == {"USD": {"cost": "1.50"}}
