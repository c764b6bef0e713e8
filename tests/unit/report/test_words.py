"""Figures as people read them."""

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest

from gpuwaste.report.words import hours_text, money_text, percent_text, price_text, time_text


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
