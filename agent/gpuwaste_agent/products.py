"""What is known about GPU products where none can be asked: names, memory, telemetry and MIG geometry.

Written by `proto/generate_products.py` from `proto/gpu-products.yaml`; edit that file, not this one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ALIASES", "PRODUCTS", "GpuProduct", "MigProfile", "find_product"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MigProfile:
    """A GPU instance profile of one product.

    Attributes:
        name: As NVIDIA prints it, for example `1g.10gb+me`.
        gi_profile_id: NVML's GPU instance profile id.
        compute_slices: The number before the `g`.
        memory_units: Units taken on the memory axis.
        axis_units: Length of that axis; placements that overlap on it exclude each other.
        starts: Legal first units.
        max_count: Most instances of this profile on one GPU.
        media: The instance owns the media engines; a GPU has at most one such instance.
    """

    name: str
    gi_profile_id: int
    compute_slices: int
    memory_units: int
    axis_units: int
    starts: tuple[int, ...]
    max_count: int
    media: bool = False

    @property
    def weight(self) -> Fraction:
        """The part of the GPU this instance is: memory units / units of the axis."""
        return Fraction(self.memory_units, self.axis_units)

    @property
    def resource_name(self) -> str:
        """The extended resource of NVIDIA's device plugin under `migStrategy: mixed`."""
        return "nvidia.com/mig-" + self.name.replace("+", ".")


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProduct:
    """One GPU product.

    Attributes:
        name: `<product>-<memory>GB`, the name used in every command and file.
        nvml_names: Product names NVML gives.
        aliases: Other spellings: cloud labels, short names.
        memory_mib: Framebuffer that NVML reports (nominal).
        architecture: NVIDIA's architecture name in lower case.
        compute_capability: CUDA compute capability.
        sm_count: Streaming multiprocessors.
        gpm: NVML's GPM counters answer: SM, tensor and DRAM activity can be measured without DCGM.
        idle_watts: Board power at rest (nominal).
        max_watts: Board power limit (nominal).
        axis_units: Length of the MIG memory axis; 0 without MIG.
        compute_slices: Compute slices of the whole GPU under MIG; 0 without MIG.
        profiles: MIG profiles; empty without MIG.
    """

    name: str
    nvml_names: tuple[str, ...]
    aliases: tuple[str, ...]
    memory_mib: int
    architecture: str
    compute_capability: str
    sm_count: int
    gpm: bool
    idle_watts: int
    max_watts: int
    axis_units: int = 0
    compute_slices: int = 0
    profiles: tuple[MigProfile, ...] = ()

    @property
    def mig_capable(self) -> bool:
        """Whether the product has MIG."""
        return self.axis_units > 0

    def profile(self, name: str) -> MigProfile:
        """Return the profile of that name.

        Raises:
            KeyError: The product has no such profile; the message lists those it has.
        """
        for profile in self.profiles:
            if profile.name == name:
                return profile
        known = ", ".join(profile.name for profile in self.profiles) or "none: it has no MIG"
        message = f"{self.name} has no MIG profile `{name}` (it has: {known})"
        raise KeyError(message)


# Per MIG layout: length of the memory axis, and its shapes as (key, GPU instance profile id, compute slices,
# memory units, starts, most on a GPU, suffix of the name, media).
_Shape = tuple[str, int, int, int, tuple[int, ...], int, str, bool]
_LAYOUTS: dict[str, tuple[int, tuple[_Shape, ...]]] = {
    "eight": (
        8,
        (
            ("g1", 19, 1, 1, (0, 1, 2, 3, 4, 5, 6), 7, "", False),
            ("g1", 20, 1, 1, (0, 1, 2, 3, 4, 5, 6), 1, "+me", True),
            ("g1wide", 15, 1, 2, (0, 2, 4, 6), 4, "", False),
            ("g2", 14, 2, 2, (0, 2, 4), 3, "", False),
            ("g3", 9, 3, 4, (0, 4), 2, "", False),
            ("g4", 5, 4, 4, (0,), 1, "", False),
            ("g7", 0, 7, 8, (0,), 1, "", False),
        ),
    ),
    "four": (
        4,
        (
            ("g1", 14, 1, 1, (0, 1, 2, 3), 4, "", False),
            ("g1", 21, 1, 1, (0, 1, 2, 3), 1, "+me", True),
            ("g2", 5, 2, 2, (0, 2), 2, "", False),
            ("g2", 6, 2, 2, (0, 2), 1, "+me", True),
            ("g4", 0, 4, 4, (0,), 1, "", False),
        ),
    ),
    "twelve": (
        12,
        (
            ("g1", 14, 1, 3, (0, 3, 6, 9), 4, "", False),
            ("g1", 21, 1, 3, (0, 3, 6, 9), 1, "+me", True),
            ("g1", 47, 1, 3, (0, 3, 6, 9), 4, "+gfx", False),
            ("g1", 65, 1, 3, (0, 3, 6, 9), 1, "+me.all", True),
            ("g1", 67, 1, 3, (0, 3, 6, 9), 4, "-me", False),
            ("g2", 5, 2, 6, (0, 6), 2, "", False),
            ("g2", 35, 2, 6, (0, 6), 2, "+gfx", False),
            ("g2", 64, 2, 6, (0, 6), 1, "+me.all", True),
            ("g2", 66, 2, 6, (0, 6), 2, "-me", False),
            ("g4", 0, 4, 12, (0,), 1, "", False),
            ("g4", 32, 4, 12, (0,), 1, "+gfx", False),
        ),
    ),
}


def _profiles(layout: str, **gigabytes: int) -> tuple[MigProfile, ...]:
    units, shapes = _LAYOUTS[layout]
    return tuple(
        MigProfile(
            name=f"{compute}g.{gigabytes[key]}gb{suffix}",
            gi_profile_id=profile_id,
            compute_slices=compute,
            memory_units=size,
            axis_units=units,
            starts=starts,
            max_count=most,
            media=media,
        )
        for key, profile_id, compute, size, starts, most, suffix, media in shapes
    )


_TABLE = {
    "P100-16GB": GpuProduct(
        name="P100-16GB",
        nvml_names=("Tesla P100-PCIE-16GB", "Tesla P100-SXM2-16GB"),
        aliases=("P100",),
        memory_mib=16384,
        architecture="pascal",
        compute_capability="6.0",
        sm_count=56,
        gpm=False,
        idle_watts=26,
        max_watts=250,
    ),
    "V100-16GB": GpuProduct(
        name="V100-16GB",
        nvml_names=("Tesla V100-SXM2-16GB", "Tesla V100-PCIE-16GB"),
        aliases=("V100M16", "nvidia-tesla-v100"),
        memory_mib=16384,
        architecture="volta",
        compute_capability="7.0",
        sm_count=80,
        gpm=False,
        idle_watts=25,
        max_watts=300,
    ),
    "V100-32GB": GpuProduct(
        name="V100-32GB",
        nvml_names=("Tesla V100-SXM2-32GB", "Tesla V100-PCIE-32GB", "Tesla V100-SXM3-32GB"),
        aliases=("V100M32",),
        memory_mib=32768,
        architecture="volta",
        compute_capability="7.0",
        sm_count=80,
        gpm=False,
        idle_watts=25,
        max_watts=300,
    ),
    "T4-16GB": GpuProduct(
        name="T4-16GB",
        nvml_names=("Tesla T4", "NVIDIA T4"),
        aliases=("T4", "nvidia-tesla-t4"),
        memory_mib=15360,
        architecture="turing",
        compute_capability="7.5",
        sm_count=40,
        gpm=False,
        idle_watts=10,
        max_watts=70,
    ),
    "A10-24GB": GpuProduct(
        name="A10-24GB",
        nvml_names=("NVIDIA A10", "NVIDIA A10G"),
        aliases=("A10", "A10G"),
        memory_mib=23028,
        architecture="ampere",
        compute_capability="8.6",
        sm_count=72,
        gpm=False,
        idle_watts=16,
        max_watts=150,
    ),
    "A30-24GB": GpuProduct(
        name="A30-24GB",
        nvml_names=("NVIDIA A30",),
        aliases=("A30",),
        memory_mib=24576,
        architecture="ampere",
        compute_capability="8.0",
        sm_count=56,
        gpm=False,
        idle_watts=28,
        max_watts=165,
        axis_units=4,
        compute_slices=4,
        profiles=_profiles("four", g1=6, g2=12, g4=24),
    ),
    "A100-40GB": GpuProduct(
        name="A100-40GB",
        nvml_names=("NVIDIA A100-SXM4-40GB", "NVIDIA A100-PCIE-40GB", "A100-SXM4-40GB", "A100-PCIE-40GB"),
        aliases=("nvidia-tesla-a100",),
        memory_mib=40960,
        architecture="ampere",
        compute_capability="8.0",
        sm_count=108,
        gpm=False,
        idle_watts=45,
        max_watts=400,
        axis_units=8,
        compute_slices=7,
        profiles=_profiles("eight", g1=5, g1wide=10, g2=10, g3=20, g4=20, g7=40),
    ),
    "A100-80GB": GpuProduct(
        name="A100-80GB",
        nvml_names=(
            "NVIDIA A100-SXM4-80GB",
            "NVIDIA A100 80GB PCIe",
            "NVIDIA A800-SXM4-80GB",
            "A100-SXM-80GB",
        ),
        aliases=("nvidia-a100-80gb",),
        memory_mib=81920,
        architecture="ampere",
        compute_capability="8.0",
        sm_count=108,
        gpm=False,
        idle_watts=55,
        max_watts=400,
        axis_units=8,
        compute_slices=7,
        profiles=_profiles("eight", g1=10, g1wide=20, g2=20, g3=40, g4=40, g7=80),
    ),
    "L4-24GB": GpuProduct(
        name="L4-24GB",
        nvml_names=("NVIDIA L4",),
        aliases=("L4",),
        memory_mib=23034,
        architecture="ada",
        compute_capability="8.9",
        sm_count=58,
        gpm=False,
        idle_watts=16,
        max_watts=72,
    ),
    "L40S-48GB": GpuProduct(
        name="L40S-48GB",
        nvml_names=("NVIDIA L40S",),
        aliases=("L40S",),
        memory_mib=46068,
        architecture="ada",
        compute_capability="8.9",
        sm_count=142,
        gpm=False,
        idle_watts=33,
        max_watts=350,
    ),
    "H100-80GB": GpuProduct(
        name="H100-80GB",
        nvml_names=("NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe", "NVIDIA H800"),
        aliases=("nvidia-h100-80gb", "H100"),
        memory_mib=81559,
        architecture="hopper",
        compute_capability="9.0",
        sm_count=132,
        gpm=True,
        idle_watts=70,
        max_watts=700,
        axis_units=8,
        compute_slices=7,
        profiles=_profiles("eight", g1=10, g1wide=20, g2=20, g3=40, g4=40, g7=80),
    ),
    "H100-NVL-94GB": GpuProduct(
        name="H100-NVL-94GB",
        nvml_names=("NVIDIA H100 NVL",),
        aliases=("H100-NVL",),
        memory_mib=95830,
        architecture="hopper",
        compute_capability="9.0",
        sm_count=132,
        gpm=True,
        idle_watts=65,
        max_watts=400,
        axis_units=8,
        compute_slices=7,
        profiles=_profiles("eight", g1=12, g1wide=24, g2=24, g3=47, g4=47, g7=94),
    ),
    "H100-96GB": GpuProduct(
        name="H100-96GB",
        nvml_names=("NVIDIA H20", "NVIDIA GH200 480GB", "NVIDIA H100 96GB HBM3"),
        aliases=("GH200-96GB", "H20", "H20-96GB"),
        memory_mib=97871,
        architecture="hopper",
        compute_capability="9.0",
        sm_count=132,
        gpm=True,
        idle_watts=75,
        max_watts=700,
        axis_units=8,
        compute_slices=7,
        profiles=_profiles("eight", g1=12, g1wide=24, g2=24, g3=48, g4=48, g7=96),
    ),
    "GH200-144GB": GpuProduct(
        name="GH200-144GB",
        nvml_names=("NVIDIA GH200 144G HBM3e",),
        aliases=(),
        memory_mib=147456,
        architecture="hopper",
        compute_capability="9.0",
        sm_count=132,
        gpm=True,
        idle_watts=80,
        max_watts=900,
        axis_units=8,
        compute_slices=7,
        profiles=_profiles("eight", g1=18, g1wide=36, g2=36, g3=72, g4=72, g7=144),
    ),
    "H200-141GB": GpuProduct(
        name="H200-141GB",
        nvml_names=("NVIDIA H200", "NVIDIA H200 NVL"),
        aliases=("H200", "nvidia-h200-141gb"),
        memory_mib=143771,
        architecture="hopper",
        compute_capability="9.0",
        sm_count=132,
        gpm=True,
        idle_watts=75,
        max_watts=700,
        axis_units=8,
        compute_slices=7,
        profiles=_profiles("eight", g1=18, g1wide=35, g2=35, g3=71, g4=71, g7=141),
    ),
    "B200-180GB": GpuProduct(
        name="B200-180GB",
        nvml_names=("NVIDIA B200",),
        aliases=("B200", "nvidia-b200"),
        memory_mib=183359,
        architecture="blackwell",
        compute_capability="10.0",
        sm_count=148,
        gpm=True,
        idle_watts=140,
        max_watts=1000,
        axis_units=8,
        compute_slices=7,
        profiles=_profiles("eight", g1=23, g1wide=45, g2=45, g3=90, g4=90, g7=180),
    ),
    "GB200-186GB": GpuProduct(
        name="GB200-186GB",
        nvml_names=("NVIDIA GB200",),
        aliases=("GB200", "nvidia-gb200"),
        memory_mib=189471,
        architecture="blackwell",
        compute_capability="10.0",
        sm_count=148,
        gpm=True,
        idle_watts=150,
        max_watts=1200,
        axis_units=8,
        compute_slices=7,
        profiles=_profiles("eight", g1=23, g1wide=47, g2=47, g3=93, g4=93, g7=186),
    ),
    "B300-269GB": GpuProduct(
        name="B300-269GB",
        nvml_names=("NVIDIA B300 SXM6 AC", "NVIDIA B300"),
        aliases=("B300",),
        memory_mib=275040,
        architecture="blackwell",
        compute_capability="10.3",
        sm_count=148,
        gpm=True,
        idle_watts=150,
        max_watts=1100,
        axis_units=8,
        compute_slices=7,
        profiles=_profiles("eight", g1=34, g1wide=67, g2=67, g3=135, g4=135, g7=269),
    ),
    "GB300-278GB": GpuProduct(
        name="GB300-278GB",
        nvml_names=("NVIDIA GB300",),
        aliases=("GB300",),
        memory_mib=284208,
        architecture="blackwell",
        compute_capability="10.3",
        sm_count=148,
        gpm=True,
        idle_watts=160,
        max_watts=1400,
        axis_units=8,
        compute_slices=7,
        profiles=_profiles("eight", g1=35, g1wide=70, g2=70, g3=139, g4=139, g7=278),
    ),
    "RTX-PRO-6000-96GB": GpuProduct(
        name="RTX-PRO-6000-96GB",
        nvml_names=(
            "NVIDIA RTX PRO 6000 Blackwell Server Edition",
            "NVIDIA RTX PRO 6000 Blackwell Workstation Edition",
        ),
        aliases=("RTX-PRO-6000", "nvidia-rtx-pro-6000"),
        memory_mib=97887,
        architecture="blackwell",
        compute_capability="12.0",
        sm_count=188,
        gpm=True,
        idle_watts=40,
        max_watts=600,
        axis_units=12,
        compute_slices=4,
        profiles=_profiles("twelve", g1=24, g2=48, g4=96),
    ),
}

PRODUCTS: Mapping[str, GpuProduct] = MappingProxyType(_TABLE)


def _key(name: str) -> str:
    return re.sub(r"[\s_-]+", "-", name.strip()).casefold()


# Every spelling, normalised (lower case, runs of blanks, `_` and `-` as one `-`), to the product's name.
ALIASES: Mapping[str, str] = MappingProxyType(
    {
        _key(spelling): product.name
        for product in PRODUCTS.values()
        for spelling in (product.name, *product.nvml_names, *product.aliases)
    }
)

_LABEL_SUFFIX = re.compile(r"(-MIG-[0-9a-z.+-]+?)?(-SHARED)?$", re.IGNORECASE)


def find_product(name: str) -> GpuProduct | None:
    """Return the product behind a name, or None for an unknown one.

    Understands the project's own names, NVML product names, the label `nvidia.com/gpu.product` (blanks as
    dashes; `-SHARED` and `-MIG-<profile>` suffixes) and the aliases of the table; case does not matter.
    """
    found = ALIASES.get(_key(name)) or ALIASES.get(_key(_LABEL_SUFFIX.sub("", name)))
    return PRODUCTS[found] if found else None
