"""The mig-manager stand-in's configuration file and its way of cutting up a GPU."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cluster.nodes.gpus import a_gpu
from tests.sim.migmanager.config import ConfigError, generated, parse_config, wanted_layouts
from tests.sim.migmanager.layout import place

from gpuwaste_agent.products import PRODUCTS, GpuProduct

_A100 = PRODUCTS["A100-80GB"]
_PCI = {"A100-80GB": ["0x20B2", "0x20B5"], "A30-24GB": ["0x20B7"]}


def test_entries_choose_gpus_by_index_and_product() -> None:
    configs = parse_config("""
version: v1
mig-configs:
  mine:
  - {devices: all, mig-enabled: false}
  - {devices: [1, 2], device-filter: ["0x20B510DE"], mig-enabled: true, mig-devices: {"1g.10gb": 7}}
  - {devices: [2], device-filter: "0x20b710de", mig-enabled: true, mig-devices: {}}
""")
    gpus = [a_gpu(0, 0, "A100-80GB"), a_gpu(0, 1, "A100-80GB"), a_gpu(0, 2, "A30-24GB")]
    layouts = wanted_layouts(configs["mine"], gpus, _PCI)
    assert [layouts[gpu.uuid] for gpu in gpus] == [None, Counter({"1g.10gb": 7}), Counter()]


def test_gpus_that_no_entry_means_are_left_alone() -> None:
    configs = parse_config("version: v1\nmig-configs: {mine: [{devices: [0], mig-enabled: false}]}")
    gpus = [a_gpu(0, 0, "A100-80GB"), a_gpu(0, 1, "A100-80GB")]
    assert set(wanted_layouts(configs["mine"], gpus, _PCI)) == {gpus[0].uuid}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: v2", "version"),
        ("version: v1\nmig-configs: {}", "at least one"),
        ("version: v1\nmig-configs: {a: [{devices: some, mig-enabled: false}]}", r"mig-configs\.a\[0\]\.devices"),
        ("version: v1\nmig-configs: {a: [{devices: all}]}", "mig-enabled"),
        ("version: v1\nmig-configs: {a: [{devices: all, mig-enabled: true}]}", "mig-devices"),
        ("version: v1\nmig-configs: {a: [{devices: all, mig-enabled: false, mig-devices: {1g.10gb: 1}}]}", "absent"),
    ],
    ids=["version", "empty", "devices", "mode", "enabled without list", "disabled with list"],
)
def test_a_bad_file_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(text)


@pytest.mark.parametrize("product", [p for p in PRODUCTS.values() if p.mig_capable], ids=lambda p: p.name)
def test_every_generated_layout_fits(product: GpuProduct) -> None:
    configs = parse_config(generated([product]))
    assert {"all-disabled", "all-enabled", "all-balanced"} < set(configs)
    for name, (entry,) in configs.items():
        if entry.enabled:
            assert place(product, entry.instances) is not None, name


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        ({"7g.80gb": 1}, True),
        ({"3g.40gb": 1, "1g.10gb": 4}, True),
        ({"4g.40gb": 1, "3g.40gb": 1}, True),
        ({"3g.40gb": 2, "1g.10gb": 1}, False),
        ({"4g.40gb": 2}, False),
        ({"1g.10gb": 8}, False),
        ({"1g.10gb+me": 2}, False),
        ({"1g.10gb+me": 1, "1g.10gb": 6}, True),
        ({"1g.20gb": 4}, True),
        ({"1g.20gb": 4, "1g.10gb": 1}, False),
        ({}, True),
    ],
    ids=str,
)
def test_what_fits_on_an_a100(wanted: dict[str, int], fits: bool) -> None:  # noqa: FBT001
    assert (place(_A100, wanted) is not None) == fits


@given(st.dictionaries(st.sampled_from([p.name for p in _A100.profiles]), st.integers(1, 3), max_size=3))
def test_placed_instances_are_legal_and_all_there(wanted: dict[str, int]) -> None:
    placed = place(_A100, wanted)
    if placed is None:
        return
    assert Counter(name for name, _ in placed) == Counter(wanted)
    units: list[int] = []
    for name, start in placed:
        profile = _A100.profile(name)
        assert start in profile.starts
        units += range(start, start + profile.memory_units)
    assert len(units) == len(set(units))
    assert not units or max(units) < _A100.axis_units


def test_an_unknown_profile_is_named() -> None:
    with pytest.raises(KeyError, match=r"2g\.10gb"):
        place(_A100, {"2g.10gb": 1})
