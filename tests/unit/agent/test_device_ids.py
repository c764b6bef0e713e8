"""Device ids of every plugin and driver, resolved to parents."""

from __future__ import annotations

import pytest

from gpuwaste_agent.device_ids import ParentIndex
from gpuwaste_agent.telemetry import GpuInfo, ParentInfo

GPU = "GPU-8e1f7c2a-3b5d-4e6f-9a0b-1c2d3e4f5a6b"
MIG_GPU = "GPU-11111111-3b5d-4e6f-9a0b-1c2d3e4f5a6b"
MIG = "MIG-22222222-3b5d-4e6f-9a0b-1c2d3e4f5a6b"
MEDIA = "MIG-33333333-3b5d-4e6f-9a0b-1c2d3e4f5a6b"


def gpu(uuid: str, index: int, minor: int, *parents: ParentInfo) -> GpuInfo:
    return GpuInfo(
        uuid=uuid,
        index=index,
        minor=minor,
        model="m",
        product="",
        memory_bytes=1,
        pci_bus_id="",
        architecture="",
        mig_enabled=bool(parents),
        idle_watts=0,
        parents=parents or (ParentInfo(parent_id=uuid),),
    )


INDEX = ParentIndex(
    [
        gpu(GPU, 0, 4),
        gpu(
            MIG_GPU,
            1,
            5,
            ParentInfo(parent_id=MIG, profile="3g.40gb", start=4, gi_id=1, ci_id=0),
            ParentInfo(parent_id=MEDIA, profile="1g.10gb+me", start=0, gi_id=7, ci_id=0),
        ),
    ]
)


@pytest.mark.parametrize(
    ("device_id", "parent"),
    [
        (GPU, GPU),
        (f"{GPU}::0", GPU),
        (f"{GPU}::12", GPU),
        (f"{GPU}-7", GPU),
        (MIG, MIG),
        (f"{MIG}-0", MIG),
        (f"{MIG}::1", MIG),
        (f"MIG-{MIG_GPU}/1/0", MIG),
        (f"MIG-{MIG_GPU}/7/0", MEDIA),
        ("nvidia4", GPU),
        ("nvidia4/vgpu3", GPU),
        ("nvidia5/gi1", MIG),
        ("nvidia5/gi7/vgpu0", MEDIA),
        ("nvidia5", None),
        ("nvidia5/gi2", None),
        ("nvidia0", None),
        ("nvidia1/gi1", None),
        (MIG_GPU, None),
        (f"MIG-{MIG_GPU}/1/1", None),
        (f"MIG-{GPU}x/1/0", None),
        ("mlx5_0", None),
        ("", None),
    ],
)
def test_device_plugin_ids(device_id, parent):
    assert INDEX.resolve(device_id) == parent


@pytest.mark.parametrize(
    ("name", "parent"),
    [
        ("gpu-4", GPU),
        ("gpu-5", None),
        ("gpu-0", None),
        ("gpu-5-mig-3g40gb-9-4", MIG),
        ("gpu-5-mig-1g10gb-me-20-0", MEDIA),
        ("gpu-5-mig-3g40gb-9-0", None),
        ("gpu-4-mig-3g40gb-9-4", None),
        ("tpu-4", None),
    ],
)
def test_dra_device_names(name, parent):
    assert INDEX.resolve_dra(name) == parent


def test_a_dra_name_means_an_instance_of_unknown_place_only_where_it_has_no_twin():
    twins = [ParentInfo(parent_id=f"MIG-{n}", profile="1g.10gb", start=None, gi_id=n, ci_id=0) for n in (7, 8)]
    alone = ParentInfo(parent_id=MIG, profile="3g.40gb", start=None, gi_id=1, ci_id=0)
    index = ParentIndex([gpu(MIG_GPU, 1, 5, alone, *twins)])
    assert index.resolve_dra("gpu-5-mig-3g40gb-9-4") == MIG
    assert index.resolve_dra("gpu-5-mig-1g10gb-19-0") is None
