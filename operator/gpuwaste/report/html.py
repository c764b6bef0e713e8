"""The report as one HTML page that needs nothing else: no network, no script, light and dark, printable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import jinja2

from gpuwaste import __version__
from gpuwaste.model.units import HOUR, HOURS_PER_MONTH, NS_PER_HOUR
from gpuwaste.report.charts import HEIGHT, WIDTH, Segment, heat, scale_of, segments, timeline, waterfall
from gpuwaste.report.plan_view import plan_view
from gpuwaste.report.totals import CATEGORIES, Totals
from gpuwaste.report.words import (
    CATEGORY_TEXT,
    ORIGIN_TEXT,
    headline_money,
    hours_text,
    money_text,
    percent_text,
    price_text,
    time_text,
    waterfall_money,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime
    from decimal import Decimal

    from gpuwaste.report.summary import Group, PriceUse, Summary

__all__ = ["Highlight", "render_report"]

_WORKLOADS = 20
_TEAMS = 40
_PROJECTION_NEEDS_HOURS = 24
_PROJECTION_HOURS = 168


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One row of a table about groups."""

    name: str
    detail: str
    held: bool
    bar: list[Segment]
    totals: Totals
    reason: str
    advice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Highlight:
    """Something that stands out, with what to do about it.

    Attributes:
        title: what it is about.
        amount: how much, as text; may be empty.
        text: one or two sentences.
    """

    title: str
    amount: str
    text: str


def render_report(
    summary: Summary,
    *,
    title: str,
    generated_at: datetime,
    plan: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    advice: Mapping[tuple[str, str, str], str] | None = None,
    notes: Sequence[str] = (),
    highlights: Sequence[Highlight] = (),
    unseen: Sequence[Highlight] = (),
) -> str:
    """Render the page.

    Args:
        summary: of the period.
        title: stands at the top.
        generated_at: when the page is made, in UTC.
        plan: the plan document of a pool as JSON holds it, or several of them.
        advice: one sentence by (namespace, workload kind, workload name).
        notes: sentences that stand at the top, such as that the data is simulated.
        highlights: the dearest findings, first of all.
        unseen: what could not be seen, and how to see it; last of all.

    Returns:
        A whole HTML document.
    """
    given = advice or {}
    plans = [plan] if isinstance(plan, Mapping) else plan or ()
    titles, rows = heat(summary)
    workloads = [group for group in summary.workloads if group.is_held]
    return _template().render(
        title=title,
        generated_at=generated_at,
        version=__version__,
        notes=notes,
        highlights=highlights,
        unseen=unseen,
        summary=summary,
        total=summary.total,
        paid=headline_money(summary.total),
        projected=_projected(summary),
        headline_bar=segments(summary.total, scale_ns=_without_lent(summary.total)),
        steps=waterfall(summary.total),
        step_money=waterfall_money(summary.total),
        timeline=timeline(summary),
        timeline_ends=(summary.hours[0].key["hour"], summary.hours[-1].key["hour"]),
        legend=_legend(summary.total),
        teams=_rows(summary.teams[:_TEAMS], "team", {}),
        teams_left=max(0, len(summary.teams) - _TEAMS),
        workloads=_rows(workloads[:_WORKLOADS], "workload_name", given),
        workloads_left=max(0, len(workloads) - _WORKLOADS),
        with_advice=bool(given),
        pools=_rows(summary.pools, "pool", {}),
        heat_titles=titles,
        heat_rows=rows,
        origins=[(*ORIGIN_TEXT.get(o.origin or "", _unknown_origin(o.origin)), o) for o in summary.origins],
        prices=_prices(summary.prices),
        plans=[plan_view(one) for one in plans],
        categories=CATEGORY_TEXT,
        width=WIDTH,
        height=HEIGHT,
    )


def _unknown_origin(origin: str | None) -> tuple[str, str]:
    return ("No reading", "unmeasured") if origin is None else (origin, "")


def _without_lent(totals: Totals) -> int:
    """What bars of the whole add up to: work and waste. What was lent is in the work of those who used it."""
    return totals.time("effective") + totals.time("waste")


def _projected(summary: Summary) -> dict[str, Decimal] | None:
    """Waste a month: that of the last week at most, times 730 hours; None before a day of data."""
    hours = [group.totals for group in summary.hours if group.key["hour"] >= summary.end - HOUR * _PROJECTION_HOURS]
    if len(hours) < _PROJECTION_NEEDS_HOURS:
        return None
    week = Totals.sum(hours)
    return {currency: cost * HOURS_PER_MONTH / len(hours) for currency, cost in week.cost("waste").items()}


def _legend(total: Totals) -> list[tuple[str, str]]:
    return [(kind, label) for kind, (label, _) in CATEGORY_TEXT.items() if total.time(kind)]


def _rows(groups: Sequence[Group], name: str, advice: Mapping[tuple[str, str, str], str]) -> list[_Row]:
    scale = scale_of(groups)
    return [_row(group, name, scale, advice) for group in groups]


def _row(group: Group, name: str, scale: int, advice: Mapping[tuple[str, str, str], str]) -> _Row:
    key = group.key
    place = (key.get("namespace", ""), key.get("workload_kind", ""), key.get("workload_name", ""))
    largest = max(CATEGORIES, key=group.totals.time)
    return _Row(
        name=str(key[name]),
        detail=" · ".join(part for part in place[:2] if part),
        held=group.is_held,
        bar=segments(group.totals, scale_ns=scale),
        totals=group.totals,
        reason=largest if group.totals.time(largest) else "",
        advice=advice.get(place, ""),
    )


def _prices(prices: Iterable[PriceUse]) -> list[PriceUse]:
    return sorted(prices, key=lambda price: (price.unit_cost is not None, -price.owned_ns))


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gpuwaste.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    css = resources.files("gpuwaste.report").joinpath("templates", "report.css").read_text(encoding="utf-8")
    environment.globals["css"] = css
    environment.filters |= {
        "money": money_text,
        "hours": hours_text,
        "percent": percent_text,
        "moment": time_text,
        "iso": lambda time: time.strftime("%Y-%m-%dT%H:%MZ"),
        "number": lambda value: f"{value:,}",
        "price": lambda use: price_text(use.currency, use.unit_cost),
        "gpus": lambda totals, hours: f"{totals.time('owned') / NS_PER_HOUR / hours:,.1f}",
    }
    return environment.get_template("report.html.j2")
