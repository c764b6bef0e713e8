"""The C headers: every record and every product is there, and the geometry is that of the facts."""

from __future__ import annotations

import ctypes
import re

import pytest
from tests.sim.nvml import layout
from tests.sim.nvml.generate import layout_header, products_header

from gpuwaste_agent.products import PRODUCTS

RECORDS = [value for value in vars(layout).values() if isinstance(value, type) and hasattr(value, "c_name")]
ROWS = dict(re.findall(r'^    \{"([^"]+)", (.*)$', products_header(), re.MULTILINE))


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.c_name)
def test_record_has_its_size_checked(record):
    header = layout_header()
    assert f"struct {record.c_name} {{" in header
    assert f"_Static_assert(sizeof(struct {record.c_name}) == {ctypes.sizeof(record)}," in header
    assert ctypes.sizeof(record) % 8 == 0


def test_every_product():
    assert set(ROWS) == set(PRODUCTS)


def profile_lines(product):
    block = products_header().split(f'{{"{product}", ', 1)[1].split("    }},")[0]
    return re.findall(r'\{"([^"]+)", ([0-9, ]+), \{([0-9, ]+)\}\}', block)


@pytest.mark.parametrize("product", PRODUCTS.values(), ids=list(PRODUCTS))
def test_profiles(product):
    found = profile_lines(product.name)
    assert [name for name, _, _ in found] == [profile.name for profile in product.profiles]
    for (_, numbers, starts), profile in zip(found, product.profiles, strict=True):
        gi_id, _, slices, size, most, media, *_ = (int(number) for number in numbers.split(","))
        assert (gi_id, slices, size, most) == (
            profile.gi_profile_id,
            profile.compute_slices,
            profile.memory_units,
            profile.max_count,
        )
        assert bool(media) == profile.media
        assert tuple(int(start) for start in starts.split(",")) == profile.starts


@pytest.mark.parametrize("product", [name for name, facts in PRODUCTS.items() if facts.mig_capable])
def test_no_two_profiles_share_an_nvml_number(product):
    numbers = [numbers.split(",")[1] for _, numbers, _ in profile_lines(product)]
    assert len(numbers) == len(set(numbers))


# SMs and MiB as `nvidia-smi mig -lgip` lists them, where such a listing is known.
LISTED = {
    ("A100-40GB", "1g.5gb"): (14, 4864),
    ("A100-40GB", "7g.40gb"): (98, None),
    ("A100-80GB", "1g.10gb"): (14, 9728),
    ("A100-80GB", "3g.40gb"): (42, 40192),
    ("A100-80GB", "7g.80gb"): (98, 80896),
    ("H100-80GB", "1g.10gb"): (16, 9984),
    ("H100-80GB", "1g.20gb"): (26, None),
    ("H100-80GB", "3g.40gb"): (60, None),
    ("H100-80GB", "7g.80gb"): (132, None),
    ("RTX-PRO-6000-96GB", "1g.24gb"): (46, 24186),
    ("RTX-PRO-6000-96GB", "2g.48gb"): (94, 48517),
    ("RTX-PRO-6000-96GB", "4g.96gb"): (188, 97280),
}


@pytest.mark.parametrize(("which", "expected"), LISTED.items(), ids=["/".join(which) for which in LISTED])
def test_listed_sizes(which, expected):
    product, name = which
    (numbers,) = (numbers for found, numbers, _ in profile_lines(product) if found == name)
    sms, memory = (int(number) for number in numbers.split(",")[7:9])
    assert (sms, memory if expected[1] else None) == expected
