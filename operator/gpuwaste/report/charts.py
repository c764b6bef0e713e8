"""Geometry of the page's charts, in units of a drawing that is stretched to its place."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from gpuwaste.report.totals import CATEGORIES
from gpuwaste.report.words import CATEGORY_TEXT, day_text, hours_text, percent_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from gpuwaste.report.summary import Group, Summary
    from gpuwaste.report.totals import Totals

__all__ = [
    "HEIGHT",
    "WIDTH",
    "Cell",
    "HeatRow",
    "Segment",
    "Step",
    "heat",
    "scale_of",
    "segments",
    "timeline",
    "waterfall",
]

WIDTH = 1000
"""Width of every bar's drawing; only proportions matter."""
HEIGHT = 200
"""Height of the timeline's drawing."""
_HEAT_STEPS = 6
_POOL_ROWS = 12
_POOL_HOURS = 48
_DAYS = 62
_TIMELINE_HOURS = 72
_DRAWN = tuple(name for name in CATEGORY_TEXT if name in (*CATEGORIES, "effective"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A part of a bar: `kind` names its colour, `title` what a pointer or a screen reader gets."""

    kind: str
    x: float
    width: float
    title: str
    y: float = 0
    height: float = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One row of the waterfall, from `x` on."""

    kind: str
    label: str
    text: str
    ns: int
    x: float
    width: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One hour of the heat strip: `level` 0 (nothing did work) to 5; None: there is no data."""

    level: int | None
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatRow:
    """One row of the heat strip."""

    label: str
    cells: tuple[Cell, ...]


def segments(totals: Totals, *, scale_ns: int) -> list[Segment]:
    """A bar of what became of the time: work, each kind of waste, and what was lent; WIDTH is `scale_ns`."""
    found, x = [], 0.0
    for kind, (label, _) in CATEGORY_TEXT.items():
        ns = totals.time(kind)
        if ns <= 0 or scale_ns <= 0:
            continue
        width = ns / scale_ns * WIDTH
        found.append(Segment(kind=kind, x=x, width=width, title=f"{label}: {hours_text(ns)} GPU-hours"))
        x += width
    return found


def waterfall(total: Totals) -> list[Step]:
    """From all that was paid for, waste by waste, down to what did work."""
    owned = total.time("owned")
    if not owned:
        return []
    steps = [Step(kind="owned", label="Paid for", text="", ns=owned, x=0, width=WIDTH)]
    left = owned
    for name in sorted(CATEGORIES, key=lambda name: -total.time(name)):
        ns = total.time(name)
        if not ns:
            continue
        left -= ns
        label, text = CATEGORY_TEXT[name]
        steps.append(Step(kind=name, label=label, text=text, ns=ns, x=left / owned * WIDTH, width=ns / owned * WIDTH))
    label, text = CATEGORY_TEXT["effective"]
    work = total.time("effective")
    steps.append(Step(kind="effective", label=label, text=text, ns=work, x=0, width=work / owned * WIDTH))
    return steps


def _columns(summary: Summary) -> list[tuple[str, list[Group]]]:
    """The hours one by one, or where they are many, by day."""
    if len(summary.hours) <= _TIMELINE_HOURS:
        return [(f"{day_text(g.key['hour'])} {g.key['hour']:%H:%M}", [g]) for g in summary.hours]
    days: dict[datetime, list[Group]] = {}
    for group in summary.hours:
        days.setdefault(group.key["hour"].replace(hour=0), []).append(group)
    return [(day_text(day), groups) for day, groups in days.items()]


def timeline(summary: Summary) -> list[Segment]:
    """Columns of an hour (of a day, above three days) in which the parts stand on each other; 0 is the top."""
    columns = _columns(summary)
    sums = [{name: sum(g.totals.time(name) for g in groups) for name in _DRAWN} for _, groups in columns]
    top = max((sum(parts.values()) for parts in sums), default=0)
    if not top:
        return []
    width = WIDTH / len(columns)
    found = []
    for number, ((label, _), parts) in enumerate(zip(columns, sums, strict=True)):
        base = float(HEIGHT)
        for kind, ns in parts.items():
            if not ns:
                continue
            height = ns / top * HEIGHT
            base -= height
            title = f"{label}, {CATEGORY_TEXT[kind][0].lower()}: {hours_text(ns)} GPU-hours"
            found.append(Segment(kind=kind, x=number * width, width=width * 0.92, title=title, y=base, height=height))
    return found


def _cell(label: str, totals: Totals | None) -> Cell:
    share = None if totals is None else totals.share("effective")
    if share is None:
        return Cell(level=None, title=f"{label}: no data")
    level = min(_HEAT_STEPS - 1, int(share * _HEAT_STEPS))
    return Cell(level=level, title=f"{label}: {percent_text(share)} of paid GPU time did work")


def heat(summary: Summary) -> tuple[list[str], list[HeatRow]]:
    """Hours as a strip: pools by hour up to two days, else days by hour of the day. Titles of columns, and rows."""
    span = round((summary.end - summary.start).total_seconds() / 3600)
    if span <= _POOL_HOURS:
        return _pool_heat(summary, span)
    by_hour = {group.key["hour"]: group.totals for group in summary.hours}
    days = sorted({hour.replace(hour=0) for hour in by_hour})[-_DAYS:]
    rows = []
    for day in days:
        hours = [day.replace(hour=hour) for hour in range(24)]
        cells = tuple(_cell(f"{day_text(day)} {hour:%H:%M}", by_hour.get(hour)) for hour in hours)
        rows.append(HeatRow(label=f"{day:%a} {day_text(day)}", cells=cells))
    return [f"{hour:02}" for hour in range(24)], rows


def _pool_heat(summary: Summary, span: int) -> tuple[list[str], list[HeatRow]]:
    hours = [summary.start + timedelta(hours=number) for number in range(span)]
    several = len(summary.clusters) > 1
    cells: dict[tuple[str, str], dict[datetime, Totals]] = {}
    for group in summary.pool_hours:
        place = (group.key["cluster"], group.key["pool"])
        cells.setdefault(place, {})[group.key["hour"]] = group.totals
    rows = []
    for group in sorted(summary.pools, key=lambda pool: -pool.totals.time("owned"))[:_POOL_ROWS]:
        cluster, pool = group.key["cluster"], group.key["pool"]
        known = cells[cluster, pool]
        name = f"{cluster} {pool}" if several else pool
        row = tuple(_cell(f"{name}, {day_text(hour)} {hour:%H:%M}", known.get(hour)) for hour in hours)
        rows.append(HeatRow(label=name, cells=row))
    return [f"{hour:%H}" for hour in hours], rows


def scale_of(groups: Sequence[Group]) -> int:
    """The longest bar of a table of groups, in nanoseconds."""
    return max((g.totals.time("effective") + g.totals.time("waste") + g.totals.time("lent") for g in groups), default=0)
