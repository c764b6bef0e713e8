from decimal import Decimal, localcontext

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuwaste.focus.ratios import (
    decimals_used,
    largest_remainder_units,
    multiply_exact,
    ratio_decimals,
    scaled_decimal,
)
from gpuwaste.model.apportion import apportion_ratios

WEIGHTS = st.lists(st.integers(0, 10**15), min_size=1, max_size=12).filter(any)


@settings(deadline=None)
@given(st.lists(st.tuples(WEIGHTS, st.integers(0, 12)), min_size=1, max_size=6))
def test_units_are_those_of_the_reference_and_add_up_to_one(groups):
    weight = np.array([w for weights, _ in groups for w in weights], np.int64)
    group = np.repeat(np.arange(len(groups)), [len(weights) for weights, _ in groups])
    units = largest_remainder_units(weight, group, np.array([d for _, d in groups], np.int64))
    expected = [
        int(ratio.scaleb(decimals))
        for weights, decimals in groups
        for ratio in apportion_ratios(weights, scale=decimals)
    ]
    assert units.tolist() == expected


def test_equal_parts_give_the_last_unit_to_the_first():
    units = largest_remainder_units(np.array([1, 1, 1]), np.zeros(3, np.int64), np.array([2]))
    assert units.tolist() == [34, 33, 33]


@pytest.mark.parametrize("weights", [[0, 0], [-1, 2]], ids=["nothing to divide by", "negative"])
def test_weights_that_make_no_ratio_are_refused(weights):
    with pytest.raises(ValueError, match="non-negative"):
        largest_remainder_units(np.array(weights), np.zeros(2, np.int64), np.array([3]))


def test_weights_too_large_for_long_division_are_refused():
    with pytest.raises(OverflowError):
        largest_remainder_units(np.array([2**62]), np.zeros(1, np.int64), np.array([3]))


@settings(deadline=None)
@given(st.decimals(0, 10**6, places=22), st.integers(0, 10**6))
def test_products_are_exact(amount, millionths):
    product = multiply_exact(
        pa.array([amount], pa.decimal128(38, 28)), scaled_decimal(np.array([millionths], np.int64), 6)
    )
    with localcontext(prec=60):
        assert product[0].as_py() == amount * Decimal(millionths).scaleb(-6)


def test_a_product_that_does_not_fit_is_an_error_and_never_rounded():
    with pytest.raises(pa.ArrowInvalid):
        multiply_exact(
            pa.array([Decimal("0.1234567890123456789012345679")], pa.decimal128(38, 28)),
            pa.array([Decimal("0.5")], pa.decimal128(38, 1)),
        )


def test_decimals_used_ignores_trailing_zeros():
    amounts = pa.array([Decimal("1.500"), None, Decimal("0.000001"), Decimal(7)], pa.decimal128(38, 28))
    assert decimals_used(amounts).tolist() == [1, 0, 6, 0]


def test_ratios_get_what_the_amounts_leave():
    assert ratio_decimals(np.array([0, 16, 18, 22])).tolist() == [12, 12, 10, 6]
