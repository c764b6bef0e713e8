"""Weights of shares: valid for every filling of a GPU, and no known function weighs more."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuwaste.packing import cutting_stock
from gpuwaste.packing.cutting_stock import cutting_stock_weights, dearest_filling
from gpuwaste.packing.gpu_patterns import maximal_patterns, share_weights

shares = st.lists(st.integers(60, 999), min_size=1, max_size=7, unique=True)


@given(shares, st.data())
def test_no_filling_of_a_gpu_weighs_more_than_one(sizes, data):
    demand = data.draw(st.lists(st.integers(0, 9), min_size=len(sizes), max_size=len(sizes)))
    weights = cutting_stock_weights(np.array(sizes), np.array(demand))
    patterns = maximal_patterns(sizes, limit=1_000_000)
    assert (patterns @ weights).max() <= 1.0


@given(shares, st.data())
def test_they_weigh_no_less_than_the_dual_feasible_functions(sizes, data):
    demand = np.array(data.draw(st.lists(st.integers(1, 9), min_size=len(sizes), max_size=len(sizes))))
    share = np.array(sizes)
    mine = cutting_stock_weights(share, demand) @ demand
    for known in share_weights(share, np.zeros(len(share), dtype=np.int64)):
        assert mine >= (1 - 2e-3) * (known @ demand)


@given(shares, st.data())
def test_the_dearest_filling_is_the_dearest(sizes, data):
    price = np.array(data.draw(st.lists(st.floats(0, 1), min_size=len(sizes), max_size=len(sizes))))
    worth, filling = dearest_filling(np.array(sizes), price)
    assert filling @ np.array(sizes) <= 1000
    assert filling @ price == pytest.approx(worth, abs=1e-9)
    assert worth == pytest.approx((maximal_patterns(sizes, limit=1_000_000) @ price).max(), abs=1e-9)


@settings(max_examples=2, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_sizes_taken_together_stay_valid(seed):
    random = np.random.default_rng(seed)
    share = random.integers(1, 1001, 200)
    weights = cutting_stock_weights(share, np.ones(200, dtype=np.int64))
    sizes, first = np.unique(share, return_index=True)
    worth, _ = dearest_filling(sizes, weights[first])
    assert worth <= 1 + 1e-6
    assert all(weights[share == size].min() == weights[share == size].max() for size in sizes[:20])


def test_pods_without_a_share_weigh_nothing():
    assert cutting_stock_weights(np.array([0, 0]), np.array([3, 1])).tolist() == [0.0, 0.0]
    assert cutting_stock_weights(np.array([500, 0]), np.array([0, 1])).tolist() == [0.0, 0.0]


def test_shares_above_a_half_are_told_from_those_up_to_it(monkeypatch):
    monkeypatch.setattr(cutting_stock, "_MOST_SIZES", 1)
    weights = cutting_stock_weights(np.array([499, 500, 502, 510]), np.array([1, 1, 1, 1]))
    assert weights == pytest.approx([0.5, 0.5, 1.0, 1.0], abs=1e-6)
