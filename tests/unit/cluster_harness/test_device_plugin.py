"""The device-plugin stand-in's configuration, and what it offers."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cluster.nodes.gpus import a_gpu, an_instance
from tests.sim.deviceplugin.config import ConfigError, PluginConfig, parse_config
from tests.sim.deviceplugin.offer import labels, offer, parent_of, preferred

_LAYOUT = [an_instance(0, 1, "3g.40gb", 0), an_instance(0, 1, "1g.10gb+me", 4), an_instance(0, 1, "1g.10gb", 5)]
_GPUS = (a_gpu(0, 0, "A100-80GB"), a_gpu(0, 1, "A100-80GB", _LAYOUT))


def test_everything_a_configuration_can_say() -> None:
    config = parse_config("""
version: v1
flags: {migStrategy: mixed, plugin: {sharedDevicesAllocationPolicy: packed}}
sharing:
  timeSlicing:
    renameByDefault: true
    failRequestsGreaterThanOne: true
    resources: [{name: gpu, replicas: 4}, {name: nvidia.com/mig-1g.10gb, replicas: 2}]
""")
    assert config == PluginConfig(
        mig_strategy="mixed",
        sharing="time-slicing",
        replicas={"nvidia.com/gpu": 4, "nvidia.com/mig-1g.10gb": 2},
        rename=True,
        refuse_many=True,
        packed=True,
    )


def test_mps_wins_over_time_slicing_and_refuses_many_by_default() -> None:
    resources = "{resources: [{name: nvidia.com/gpu, replicas: %d}]}"
    config = parse_config(f"version: v1\nsharing: {{timeSlicing: {resources % 4}, mps: {resources % 8}}}")
    assert (config.sharing, dict(config.replicas)) == ("mps", {"nvidia.com/gpu": 8})
    assert config.refuse_many


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: v2", "`version` must be v1"),
        ("- a", "`version` must be v1"),
        ("version: [", "no YAML"),
        ("version: v1\nflags: {migStrategy: some}", "must be one of none, single, mixed, not `some`"),
        ("version: v1\nsharing: {timeSlicing: {renameByDefault: true}}", "at least one resource"),
        ("version: v1\nsharing: {timeSlicing: {resources: [{name: gpu, replicas: 1}]}}", "at least 2, not 1"),
        ("version: v1\nsharing: {timeSlicing: {resources: [{name: gpu, replicas: true}]}}", "at least 2"),
        ("version: v1\nsharing: {mps: {resources: [{name: mig-1g.10gb, replicas: 2}]}}", "nvidia.com/gpu only"),
        (f"version: v1\nsharing: {{mps: {{resources: [{{name: {'g' * 60}, replicas: 2}}]}}}}", "at most 63"),
    ],
    ids=lambda value: value[:40],
)
def test_a_bad_configuration_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse_config(text)


@pytest.mark.parametrize(
    ("strategy", "wanted"),
    [
        ("none", {"nvidia.com/gpu": 2}),
        ("single", {"nvidia.com/gpu": 4}),
        (
            "mixed",
            {
                "nvidia.com/gpu": 1,
                "nvidia.com/mig-3g.40gb": 1,
                "nvidia.com/mig-1g.10gb.me": 1,
                "nvidia.com/mig-1g.10gb": 1,
            },
        ),
    ],
)
def test_mig_strategies(strategy: str, wanted: dict[str, int]) -> None:
    offered = offer(_GPUS, PluginConfig(mig_strategy=strategy))
    assert {name: len(devices) for name, devices in offered.items()} == wanted


def test_replicas_and_their_names() -> None:
    replicas = {"nvidia.com/gpu": 2, "nvidia.com/mig-1g.10gb": 3}
    config = PluginConfig(mig_strategy="mixed", sharing="time-slicing", replicas=replicas, rename=True)
    offered = offer(_GPUS, config, unhealthy={_GPUS[1].uuid})
    assert [device.id for device in offered["nvidia.com/gpu.shared"]] == [f"{_GPUS[0].uuid}::{n}" for n in range(2)]
    assert len(offered["nvidia.com/mig-1g.10gb.shared"]) == 3
    assert len(offered["nvidia.com/mig-3g.40gb"]) == 1
    healthy = {name: {device.healthy for device in devices} for name, devices in offered.items()}
    assert healthy["nvidia.com/gpu.shared"] == {True}
    assert healthy["nvidia.com/mig-1g.10gb.shared"] == healthy["nvidia.com/mig-3g.40gb"] == {False}


@given(
    free=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 7)), unique=True, min_size=1, max_size=20),
    count=st.integers(1, 8),
    packed=st.booleans(),
)
def test_preferred_devices_are_free_and_as_many_as_wanted(
    *, free: list[tuple[int, int]], count: int, packed: bool
) -> None:
    available = [f"GPU-{gpu}::{replica}" for gpu, replica in free]
    chosen = preferred(available, available[:1], count, packed=packed)
    assert len(chosen) == len(set(chosen)) == min(count, len(available))
    assert set(chosen) <= set(available)
    assert available[0] in chosen


@pytest.mark.parametrize(("packed", "parents"), [(False, 3), (True, 1)], ids=["distributed", "packed"])
def test_replicas_are_spread_or_packed(*, packed: bool, parents: int) -> None:
    available = [f"GPU-{gpu}::{replica}" for gpu in range(3) for replica in range(4)]
    chosen = preferred(available, [], 3, packed=packed)
    assert len(set(map(parent_of, chosen))) == parents


@pytest.mark.parametrize(
    ("config", "product", "memory"),
    [
        (PluginConfig(), "NVIDIA-A100-SXM4-80GB", "81920"),
        (PluginConfig(replicas={"nvidia.com/gpu": 4}), "NVIDIA-A100-SXM4-80GB-SHARED", "81920"),
        (PluginConfig(replicas={"nvidia.com/gpu": 4}, rename=True), "NVIDIA-A100-SXM4-80GB", "81920"),
        (PluginConfig(mig_strategy="mixed"), "NVIDIA-A100-SXM4-80GB", "81920"),
        (PluginConfig(mig_strategy="single"), "NVIDIA-A100-SXM4-80GB-MIG-INVALID", "40960"),
    ],
    ids=["whole", "shared", "renamed", "mixed", "single"],
)
def test_product_and_memory_labels(config: PluginConfig, product: str, memory: str) -> None:
    found = labels(_GPUS, config)
    assert found["nvidia.com/gpu.product"] == product
    assert found["nvidia.com/gpu.memory"] == memory
    assert found["nvidia.com/gpu.count"] == "2"


def test_labels_of_instances_under_the_mixed_strategy() -> None:
    found = labels(_GPUS, PluginConfig(mig_strategy="mixed"))
    assert found["nvidia.com/mig-1g.10gb.me.count"] == "1"
    assert found["nvidia.com/mig-3g.40gb.memory"] == "40960"
    assert found["nvidia.com/mig-3g.40gb.slices.gi"] == "3"
    assert found["nvidia.com/mig-3g.40gb.product"] == "NVIDIA-A100-SXM4-80GB-MIG-3g.40gb"
    assert found["nvidia.com/mig-3g.40gb.multiprocessors"] == "46"
    assert found["nvidia.com/mig-3g.40gb.sharing-strategy"] == "none"
    assert labels((), PluginConfig()) == {}
