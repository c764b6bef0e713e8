"""The product table: generated once for both packages, and its MIG geometry against NVIDIA's counts."""

import importlib.util
from fractions import Fraction
from pathlib import Path

import pytest
import yaml

from gpuwaste_agent.products import PRODUCTS, GpuProduct, MigProfile, find_product

ROOT = Path(__file__).resolve().parents[3]


def load_generator():
    spec = importlib.util.spec_from_file_location("generate_products", ROOT / "proto" / "generate_products.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def layouts(profiles: list[MigProfile]) -> set[tuple[str, ...]]:
    """Every non-empty legal multiset of profile names on an empty GPU, by filling the axis from the left."""
    found: set[tuple[str, ...]] = set()

    def place(position: int, names: tuple[str, ...], *, media: bool) -> None:
        if names:
            found.add(tuple(sorted(names)))
        for profile in profiles:
            if profile.media and media:
                continue
            if names.count(profile.name) >= profile.max_count:
                continue
            for start in profile.starts:
                if start >= position:
                    place(start + profile.memory_units, (*names, profile.name), media=media or profile.media)

    place(0, (), media=False)
    return found


def maximal(found: set[tuple[str, ...]]) -> int:
    def contains(big: tuple[str, ...], small: tuple[str, ...]) -> bool:
        return all(big.count(name) >= small.count(name) for name in set(small))

    return sum(not any(other != one and contains(other, one) for other in found) for one in found)


def test_both_packages_hold_what_the_generator_writes():
    generator = load_generator()
    text = generator.render(generator.SOURCE.read_text())
    for path in generator.TARGETS:
        assert path.read_text() == text, f"{path.relative_to(ROOT)} is stale: run proto/generate_products.py"


GEOMETRY = ROOT.parent / "shared" / "facts" / "mig_geometry.yaml"


@pytest.mark.skipif(not GEOMETRY.exists(), reason="the shared folder with the published MIG geometry is not here")
def test_geometry_is_the_published_one():
    published = yaml.safe_load(GEOMETRY.read_text())
    for name, row in published["products"].items():
        layout = published["layouts"][row.pop("layout")]
        product = PRODUCTS[name]
        assert (product.axis_units, product.compute_slices) == (layout["memory_slices"], layout["compute_slices"])
        for kind, shape in layout["profiles"].items():
            found = product.profile(row[kind])
            assert (found.compute_slices, found.memory_units) == (shape["compute"], shape["size"]), (name, kind)
            assert (list(found.starts), found.max_count) == (shape["starts"], shape["max"]), (name, kind)


EIGHT = [p for p in PRODUCTS.values() if p.axis_units == 8]


@pytest.mark.parametrize("product", EIGHT, ids=lambda p: p.name)
def test_eight_unit_products_have_nvidias_number_of_layouts(product: GpuProduct):
    plain = [p for p in product.profiles if not p.media]
    wide = [p for p in plain if p.compute_slices == 1 and p.memory_units == 2]
    narrow = [p for p in plain if p not in wide]
    counts = [(len(found), maximal(found)) for found in map(layouts, (narrow, plain, list(product.profiles)))]
    assert counts == [(37, 12), (77, 28), (127, 44)]


@pytest.mark.parametrize("product", EIGHT, ids=lambda p: p.name)
def test_weights_of_every_legal_layout_stay_within_the_gpu(product: GpuProduct):
    weight = {p.name: p.weight for p in product.profiles}
    heaviest = max(sum(weight[name] for name in names) for names in layouts(list(product.profiles)))
    assert heaviest == Fraction(1)


def test_a30_has_four_maximal_layouts():
    plain = [p for p in PRODUCTS["A30-24GB"].profiles if not p.media]
    assert maximal(layouts(plain)) == 4


def test_names_are_unique_and_complete():
    table = yaml.safe_load((ROOT / "proto" / "gpu-products.yaml").read_text())
    assert [product["name"] for product in table["products"]] == list(PRODUCTS)
    for product in PRODUCTS.values():
        assert len({p.name for p in product.profiles}) == len(product.profiles)
        assert len({p.gi_profile_id for p in product.profiles}) == len(product.profiles)


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("H100-80GB", "H100-80GB"),
        ("NVIDIA H100 80GB HBM3", "H100-80GB"),
        ("NVIDIA-H100-80GB-HBM3-MIG-1g.10gb-SHARED", "H100-80GB"),
        ("NVIDIA-A100-SXM4-40GB-MIG-3g.20gb", "A100-40GB"),
        ("Tesla-T4-SHARED", "T4-16GB"),
        ("t4", "T4-16GB"),
        ("nvidia-tesla-v100", "V100-16GB"),
    ],
)
def test_a_product_is_found_by_every_spelling(spelling: str, name: str):
    found = find_product(spelling)
    assert found is not None
    assert found.name == name


def test_an_unknown_product_is_none_and_an_unknown_profile_names_those_there_are():
    assert find_product("Voodoo 2") is None
    with pytest.raises(KeyError, match=r"no MIG profile `9g\.1gb`.*1g\.10gb"):
        PRODUCTS["H100-80GB"].profile("9g.1gb")


def test_media_profiles_have_their_own_resource_name():
    assert PRODUCTS["H100-80GB"].profile("1g.10gb+me").resource_name == "nvidia.com/mig-1g.10gb.me"
    assert PRODUCTS["RTX-PRO-6000-96GB"].profile("1g.24gb-me").resource_name == "nvidia.com/mig-1g.24gb-me"
