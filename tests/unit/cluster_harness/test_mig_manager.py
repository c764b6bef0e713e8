"""The mig-manager stand-in's configuration file and its way of cutting up a GPU."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cluster.nodes.gpus import a_gpu
from tests.sim.migmanager.config import ConfigError, generated, parse_config, wanted_layouts
from tests.sim.migmanager.layout import orders

from gpuwaste_agent.products import PRODUCTS, GpuProduct

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
def test_generated_layouts_are_no_larger_than_the_gpu(product: GpuProduct) -> None:
    configs = parse_config(generated([product]))
    assert {"all-disabled", "all-enabled", "all-balanced"} < set(configs)
    for name, (entry,) in configs.items():
        profiles = [product.profile(profile) for profile, count in entry.instances.items() for _ in range(count)]
        assert sum(profile.memory_units for profile in profiles) <= product.axis_units, name
        assert entry.enabled == (name != "all-disabled")


@given(st.dictionaries(st.sampled_from("abc"), st.integers(1, 3), max_size=3))
def test_every_different_order_comes_once(wanted: dict[str, int]) -> None:
    found = [tuple(order) for order in orders(Counter(wanted))]
    every = set(itertools.permutations(Counter(wanted).elements()))
    assert len(found) == len(every)
    assert set(found) == every
