"""Draws the figures of the benchmark: gaps against what is accepted, and schedulers' rules as ratios.

    python -m tests.perf.packing.chart FIGURES.json docs/images/packing.svg

FIGURES.json is what `bench --json` writes.
"""

from __future__ import annotations

import argparse
import json
from html import escape
from pathlib import Path

ROW, LEFT, WIDTH, TOP = 22, 190, 300, 46
FONT = 'font-family="sans-serif" font-size="12"'
RULES = ("first-fit", "best-fit", "first-fit-decreasing", "dot-product", "fgd")
COLOURS = ("#4878a8", "#e0903c", "#6aa56a", "#b05a7a", "#8a7ab8")


def chart(figures):
    """SVG of the cases that have a gap, in the order of the figures."""
    value = {one["name"]: one for one in figures}
    names = [name.removesuffix(".gap") for name in value if name.endswith(".gap") and f"{name[:-4]}.unplaced" in value]
    height = TOP + ROW * len(names) + 40
    width = LEFT + 2 * WIDTH + 220
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" {FONT}>',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT}" y="18" font-weight="bold">gap to the proven bound, as part of what is accepted</text>',
        f'<text x="{LEFT + WIDTH + 180}" y="18" font-weight="bold">cost of a rule over ours</text>',
        f'<line x1="{LEFT + WIDTH}" y1="{TOP - 14}" x2="{LEFT + WIDTH}" y2="{TOP + ROW * len(names)}" stroke="#999"/>',
    ]
    for index, (rule, colour) in enumerate(zip(RULES, COLOURS, strict=True)):
        x = LEFT + WIDTH + 180 + 68 * index
        parts.append(f'<circle cx="{x}" cy="30" r="4" fill="{colour}"/>')
        label = rule.replace("first-fit-decreasing", "FFD").replace("dot-product", "dot")
        parts.append(f'<text x="{x + 7}" y="34">{label}</text>')
    for row, name in enumerate(names):
        parts += _row(name, value, TOP + ROW * row)
    scale = "".join(
        f'<text x="{_ratio_x(ratio)}" y="{height - 22}" text-anchor="middle">{ratio:.2f}</text>'
        for ratio in (1.0, 1.05, 1.1)
    )
    parts.append(scale)
    parts.append(
        f'<text x="{LEFT}" y="{height - 6}" fill="#555">'
        "A rule without a point left pods out that ours placed.</text></svg>"
    )
    return "\n".join(parts) + "\n"


def _row(name, value, y):
    gap = value[f"{name}.gap"]
    length = WIDTH * min(gap["value"] / gap["most"], 1.2)
    colour = "#4878a8" if gap["ok"] else "#c03030"
    yield f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{escape(name)}</text>'
    yield f'<rect x="{LEFT}" y="{y - 7}" width="{length:.1f}" height="14" fill="{colour}"/>'
    label = f"{gap['value']:.3f} % of {gap['most']:g} %"
    yield f'<text x="{LEFT + length + 5:.1f}" y="{y + 4}" fill="#333">{label}</text>'
    for rule, point in zip(RULES, COLOURS, strict=True):
        ratio = value.get(f"{name}.{rule}.ratio")
        if ratio is not None:
            yield f'<circle cx="{_ratio_x(ratio["value"]):.1f}" cy="{y}" r="4" fill="{point}" fill-opacity="0.8"/>'


def _ratio_x(ratio):
    return LEFT + WIDTH + 180 + (min(ratio, 1.15) - 1) * 2000


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("figures", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    options.out.write_text(chart(json.loads(options.figures.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
