"""Writes the C headers of the simulated driver: the state file's layout, and the product table.

`python -m tests.sim.nvml.generate FOLDER` writes `layout.h` and `products.h` there.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

import yaml
from tests.sim.nvml import layout

from gpuwaste_agent.products import PRODUCTS, GpuProduct, MigProfile

__all__ = ["layout_header", "main", "products_header"]

_BOARDS = Path(__file__).with_name("boards.yaml")
_C_TYPES = {
    ctypes.c_uint32: "uint32_t",
    ctypes.c_uint64: "uint64_t",
    ctypes.c_int64: "int64_t",
    ctypes.c_double: "double",
    ctypes.c_char: "char",
}
_RECORDS = (layout.Clock, layout.Gpu, layout.Instance, layout.Compute, layout.Point, layout.Process, layout.Fault)

# NVML_GPU_INSTANCE_PROFILE_* by compute slices and what follows the name.
_NVML_PROFILES = {
    (1, ""): 0x0,
    (2, ""): 0x1,
    (3, ""): 0x2,
    (4, ""): 0x3,
    (7, ""): 0x4,
    (1, "+me"): 0x7,
    (2, "+me"): 0x8,
    (1, "wide"): 0x9,
    (1, "+gfx"): 0xA,
    (2, "+gfx"): 0xB,
    (4, "+gfx"): 0xC,
    (1, "-me"): 0xD,
    (2, "-me"): 0xE,
    (1, "+me.all"): 0xF,
    (2, "+me.all"): 0x10,
}
_ARCHITECTURES = {"pascal": 4, "volta": 5, "turing": 6, "ampere": 7, "ada": 8, "hopper": 9, "blackwell": 10}
_MOST_STARTS = 8
_RESERVE = 0.975  # what of its memory units an instance gets, about, where no listing is known


def _field(name: str, kind: Any) -> str:
    if hasattr(kind, "_length_"):
        return f"    {_type(kind._type_)} {name}[{kind._length_}];"
    return f"    {_type(kind)} {name};"


def _type(kind: Any) -> str:
    return _C_TYPES.get(kind) or f"struct {kind.c_name}"


def layout_header() -> str:
    """C structs equal to the classes of `layout`; the compiler checks every size and offset."""
    lines = [
        "/* Written by generate.py from layout.py. */",
        "#pragma once",
        "#include <stddef.h>",
        "#include <stdint.h>",
    ]
    lines += [f"#define SIM_MAGIC UINT64_C({layout.MAGIC})", f"#define SIM_ANY UINT32_C({layout.ANY})"]
    lines += [
        f"#define SIM_{name} {value}" + ("LL" if value >= 1 << 31 else "") for name, value in layout.CONSTANTS.items()
    ]
    for record in (*_RECORDS, layout.State):
        name = record.c_name
        lines += ["", f"struct {name} {{", *(_field(*field) for field in record._fields_), "};"]
        lines.append(f'_Static_assert(sizeof(struct {name}) == {ctypes.sizeof(record)}, "{name}");')
        for field in record._fields_:
            offset = getattr(record, field[0]).offset
            lines.append(f'_Static_assert(offsetof(struct {name}, {field[0]}) == {offset}, "{name}.{field[0]}");')
    return "\n".join(lines) + "\n"


def _suffix(profile: MigProfile) -> str:
    tail = profile.name.split("gb", maxsplit=1)[1]
    plain_size = profile.axis_units // 8 * profile.compute_slices
    # The profile with twice the memory of a slice has no suffix of its own.
    return "wide" if not tail and profile.axis_units == 8 and profile.memory_units == 2 * plain_size == 2 else tail


def _sm_count(product: GpuProduct, profile: MigProfile, board: dict[str, Any]) -> int:
    known = board.get("sms_by_id", {}).get(profile.gi_profile_id) or board.get("sms", {}).get(profile.compute_slices)
    if known:
        return int(known)
    if profile.memory_units == profile.axis_units:
        return product.sm_count
    return product.sm_count // product.compute_slices // 2 * 2 * profile.compute_slices


def _memory_mib(product: GpuProduct, profile: MigProfile, board: dict[str, Any]) -> int:
    known = board.get("memory_mib", {}).get(profile.gi_profile_id)
    part = product.memory_mib * profile.memory_units / profile.axis_units
    return int(known or part * _RESERVE // 64 * 64)


def _profile_line(
    product: GpuProduct, profile: MigProfile, board: dict[str, Any], engines: dict[int, list[int]]
) -> str:
    suffix = _suffix(profile)
    copy, decoder, encoder, jpeg, ofa = engines[profile.compute_slices]
    if suffix.startswith("+me"):
        decoder, jpeg, ofa = max(decoder, 1), 1, 1
    if suffix == "-me":
        decoder, encoder, jpeg, ofa = 0, 0, 0, 0
    starts = ", ".join(str(start) for start in profile.starts)
    numbers = (
        profile.gi_profile_id,
        _NVML_PROFILES[(profile.compute_slices, suffix)],
        profile.compute_slices,
        profile.memory_units,
        profile.max_count,
        int(profile.media),
        int("gfx" in suffix),
        _sm_count(product, profile, board),
        _memory_mib(product, profile, board),
        copy,
        decoder,
        encoder,
        jpeg,
        ofa,
        len(profile.starts),
    )
    return f'        {{"{profile.name}", {", ".join(str(number) for number in numbers)}, {{{starts}}}}},'


def products_header() -> str:
    """The product table of the agent, with `boards.yaml`, as a C array."""
    table = yaml.safe_load(_BOARDS.read_text(encoding="utf-8"))
    missing = set(PRODUCTS) ^ set(table["boards"])
    if missing:
        raise SystemExit(f"{_BOARDS.name} and gpu-products.yaml differ in: {', '.join(sorted(missing))}")
    lines = [
        "/* Written by generate.py from gpu-products.yaml and boards.yaml. */",
        "static const struct sim_product SIM_PRODUCTS[] = {",
    ]
    for product in PRODUCTS.values():
        board = table["boards"][product.name]
        major, _, minor = product.compute_capability.partition(".")
        numbers = (
            _ARCHITECTURES[product.architecture],
            major,
            minor,
            product.sm_count,
            product.memory_mib,
            int(product.gpm),
            product.idle_watts,
            product.max_watts,
            product.axis_units,
            product.compute_slices,
            board["sm_mhz"],
            board["memory_mhz"],
            board["pci"],
            len(product.profiles),
        )
        lines.append(f'    {{"{product.name}", "{product.nvml_names[0]}", {", ".join(str(n) for n in numbers)}, {{')
        engines = table["engines"][board["engines"]] if product.profiles else {}
        lines += [_profile_line(product, profile, board, engines) for profile in product.profiles]
        if not product.profiles:
            lines.append("        {0},")
        lines.append("    }},")
    return "\n".join([*lines, "};", ""])


def main(argv: list[str]) -> int:
    """Write both headers into the folder named."""
    folder = Path(argv[0])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("layout.h", layout_header()), ("products.h", products_header())):
        draft = folder / f".{name}"
        draft.write_text(text, encoding="utf-8")
        draft.rename(folder / name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
