import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwaste.packing.gpu_patterns import maximal_patterns, pack_shares


def fits_by_force(shares, gpus):
    return any(
        all(sum(s for s, g in zip(shares, places, strict=True) if g == gpu) <= 1000 for gpu in range(gpus))
        for places in itertools.product(range(gpus), repeat=len(shares))
    )


@given(st.lists(st.integers(1, 999), max_size=7), st.integers(1, 3))
def test_packing_is_found_exactly_when_one_exists(shares, gpus):
    packed = pack_shares(shares, gpus)
    assert (packed is not None) == fits_by_force(shares, gpus)
    if packed is not None:
        assert sorted(itertools.chain.from_iterable(packed)) == list(range(len(shares)))
        assert all(sum(shares[i] for i in gpu) <= 1000 for gpu in packed)


def test_search_succeeds_where_first_fit_decreasing_fails():
    shares = [350, 350, 300, 500, 500, 330, 330, 340]
    packed = pack_shares(shares, 3)
    assert packed is not None
    assert [sum(shares[i] for i in gpu) for gpu in packed] == [1000, 1000, 1000]


@given(st.sets(st.integers(60, 999), min_size=1, max_size=5))
def test_patterns_are_all_the_maximal_ones(sizes):
    ordered = sorted(sizes)
    patterns = {tuple(row) for row in maximal_patterns(ordered, limit=100_000).tolist()}
    ranges = [range(1000 // size + 1) for size in ordered]
    full = {
        counts
        for counts in itertools.product(*ranges)
        if 1000 - ordered[0] < sum(c * s for c, s in zip(counts, ordered, strict=True)) <= 1000
    }
    assert patterns == full


def test_openb_like_sizes_have_few_patterns():
    sizes = [50, 110, 140, 160, 220, 230, 270, 290, 320, 330, 350, 370, 440, 460, 470, 480, 550, 590, 650, 810]
    assert len(maximal_patterns(sizes, limit=4000)) == 1871


def test_too_many_patterns_are_refused():
    assert maximal_patterns([10, 20, 30, 40], limit=50) is None


@pytest.mark.parametrize(("shares", "gpus"), [([], 0), ([], 2), ([999], 1)])
def test_small_cases_pack(shares, gpus):
    assert pack_shares(shares, gpus) is not None
