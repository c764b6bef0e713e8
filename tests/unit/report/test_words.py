"""Figures as people read them."""

import re
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwaste.model.units import NS_PER_HOUR
from gpuwaste.report.totals import CATEGORIES, MEASURES, Totals
from gpuwaste.report.words import (
    headline_money,
    hours_text,
    money_text,
    percent_text,
    price_text,
    shown_parts,
    time_text,
    waterfall_money,
)


@pytest.mark.parametrize(
    ("cost", "short", "text"),
    [
        ({}, False, "unknown"),
        ({"USD": Decimal("1234.5")}, False, "$1,234.50"),
        ({"USD": Decimal("-1234.5")}, False, "−$1,234.50"),
        ({"USD": Decimal("-0.001")}, False, "$0.00"),
        ({"USD": Decimal("123456.7")}, True, "$123,457"),
        ({"EUR": Decimal(1), "CHF": Decimal(2)}, False, "€1.00 + 2.00 CHF"),
    ],
)
def test_money(cost, short, text):
    assert money_text(cost, short=short) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (None, "–"),
        (Fraction(0), "0 %"),
        (Fraction(1), "100 %"),
        (Fraction(1, 1000), "<1 %"),
        (Fraction(999, 1000), ">99 %"),
        (Fraction(1, 4), "25 %"),
    ],
)
def test_percent(share, text):
    assert percent_text(share) == text


@pytest.mark.parametrize(
    ("ns", "text"), [(None, "unmeasured"), (5_400 * 10**9, "1.5"), (1_234_567 * 3_600 * 10**9, "1,234,567")]
)
def test_hours(ns, text):
    assert hours_text(ns) == text


@pytest.mark.parametrize(
    ("price", "text"), [("2", "$2.00"), ("2.125", "$2.125"), ("100", "$100.00"), ("2.100000000000000000", "$2.10")]
)
def test_price(price, text):
    assert price_text("USD", Decimal(price)) == text


def test_an_unknown_price():
    assert price_text(None, None) == "unknown"


def test_time():
    assert time_text(datetime(2026, 11, 2, 9, tzinfo=UTC)) == "2 Nov 2026 09:00"


@given(st.lists(st.decimals(0, 20_000, places=12), min_size=1, max_size=6), st.sampled_from([0, 2]))
def test_parts_add_up_as_they_are_shown(parts, decimals):
    whole = sum(parts, Decimal(0))
    shown = shown_parts(whole, parts, decimals=decimals)
    assert sum(shown) == round(whole, decimals)
    assert all(abs(a - b) < Decimal(1).scaleb(-decimals) for a, b in zip(shown, parts, strict=True))


@pytest.mark.parametrize(
    ("effective", "idle", "unmeasured", "texts"),
    [
        ("1.005", "1.005", "0", ("$2.01", "$1.01", "$1.00", "")),
        ("1.004", "0.503", "0.503", ("$2.01", "$1.00", "$1.01", "$0.51")),
        ("10000.5", "9999", "1.5", ("$20,001", "$10,001", "$10,000", "$1")),
        ("9999.4", "0", "5000", ("$14,999", "$9,999", "$5,000", "$5,000")),
    ],
)
def test_the_headline_adds_up(effective, idle, unmeasured, texts):
    amounts = {"effective": Decimal(effective), "idle": Decimal(idle), "unmeasured": Decimal(unmeasured)}
    amounts["owned"] = sum(amounts.values(), Decimal(0))
    money = {name: amounts.get(name, Decimal(0)) * NS_PER_HOUR for name in MEASURES}
    found = headline_money(Totals(money_ns={"USD": money}))
    assert tuple(found[name] for name in ("owned", "effective", "waste", "unmeasured")) == texts


@given(st.lists(st.decimals(0, 9_999, places=12), min_size=len(CATEGORIES) + 1, max_size=len(CATEGORIES) + 1))
def test_the_waterfall_adds_up_and_says_what_the_headline_says(parts):
    amounts = dict(zip(("effective", *CATEGORIES), parts, strict=True)) | {"owned": sum(parts, Decimal(0))}
    totals = Totals(money_ns={"USD": {name: amounts.get(name, Decimal(0)) * NS_PER_HOUR for name in MEASURES}})
    cents = {name: Decimal(re.sub(r"[$,]", "", text)) for name, text in waterfall_money(totals).items()}
    assert cents["effective"] + sum(cents[name] for name in CATEGORIES) == cents["owned"]
    if amounts["owned"] < 10_000:
        headline = headline_money(totals)
        assert headline["effective"] == waterfall_money(totals)["effective"]
        assert headline["unmeasured"] in ("", waterfall_money(totals)["unmeasured"])
