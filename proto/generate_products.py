# ruff: noqa: INP001 - a script beside the files it reads, no package
"""Writes the GPU product table as one pure-Python module into both packages.

`python proto/generate_products.py` reads `proto/gpu-products.yaml` and writes
`agent/gpuwaste_agent/products.py` and `operator/gpuwaste/model/gpu_products.py`, byte for byte the same.
`--check` writes nothing and exits 1 when a file differs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "proto" / "gpu-products.yaml"
LINE_LENGTH = 110
TARGETS = (
    ROOT / "agent" / "gpuwaste_agent" / "products.py",
    ROOT / "operator" / "gpuwaste" / "model" / "gpu_products.py",
)

HEADER = '''\
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
'''

BUILDER = """\
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

"""

FOOTER = '''

def _key(name: str) -> str:
    return re.sub(r"[\\s_-]+", "-", name.strip()).casefold()


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
'''


def shape_line(shape: dict[str, Any]) -> str:
    """Source of one MIG shape: key, profile id, compute, size, starts, most on a GPU, suffix, media."""
    starts = ", ".join(str(start) for start in shape["starts"]) + ("," if len(shape["starts"]) == 1 else "")
    numbers = f"{shape['id']}, {shape['compute']}, {shape['size']}, ({starts}), {shape['max']}"
    return f'        ("{shape["key"]}", {numbers}, "{shape.get("suffix", "")}", {bool(shape.get("media"))}),'


def field_lines(name: str, values: list[str]) -> list[str]:
    """A tuple of strings as a keyword argument, broken where it would pass the line length."""
    quoted = [f'"{value}"' for value in values]
    inner = quoted[0] + "," if len(quoted) == 1 else ", ".join(quoted)
    line = f"        {name}=({inner}),"
    if len(line) <= LINE_LENGTH:
        return [line]
    return [f"        {name}=(", *[f"            {value}," for value in quoted], "        ),"]


def product_lines(product: dict[str, Any], layouts: dict[str, Any]) -> list[str]:
    """Source lines of one entry of PRODUCTS."""
    lines = [
        f'    "{product["name"]}": GpuProduct(',
        f'        name="{product["name"]}",',
        *field_lines("nvml_names", product["nvml"]),
        *field_lines("aliases", product["aliases"]),
        f"        memory_mib={product['memory_mib']},",
        f'        architecture="{product["architecture"]}",',
        f'        compute_capability="{product["capability"]}",',
        f"        sm_count={product['sms']},",
        f"        gpm={product['gpm']},",
        f"        idle_watts={product['idle_watts']},",
        f"        max_watts={product['max_watts']},",
    ]
    if "layout" in product:
        layout = layouts[product["layout"]]
        sizes = ", ".join(f"{key}={value}" for key, value in product["gb"].items())
        lines += [
            f"        axis_units={layout['units']},",
            f"        compute_slices={layout['compute']},",
            f'        profiles=_profiles("{product["layout"]}", {sizes}),',
        ]
    return [*lines, "    ),"]


def render(source: str) -> str:
    """The whole module for the text of `gpu-products.yaml`."""
    table = yaml.safe_load(source)
    lines = ["_LAYOUTS: dict[str, tuple[int, tuple[_Shape, ...]]] = {"]
    for name, layout in table["layouts"].items():
        lines += [f'    "{name}": (', f"        {layout['units']},", "        ("]
        lines += ["    " + shape_line(shape) for shape in layout["shapes"]]
        lines += ["        ),", "    ),"]
    lines += ["}", "", "", BUILDER, "_TABLE = {"]
    for product in table["products"]:
        lines += product_lines(product, table["layouts"])
    lines += ["}", "", "PRODUCTS: Mapping[str, GpuProduct] = MappingProxyType(_TABLE)", ""]
    return HEADER + "\n".join(lines) + FOOTER


def main() -> int:
    """Write or check both modules."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file differs")
    check = parser.parse_args().check
    text = render(SOURCE.read_text())
    stale = [path for path in TARGETS if not path.exists() or path.read_text() != text]
    for path in stale:
        if check:
            sys.stderr.write(f"{path.relative_to(ROOT)} is stale: run `python proto/generate_products.py`\n")
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".py.tmp")
        temporary.write_text(text)
        temporary.replace(path)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
