"""Periods of a bill: whole hours, days, weeks or months in UTC, or one span of hours of its own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal

from gpuwaste.model.errors import InputError
from gpuwaste.model.units import format_time, hour_start

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["LENGTHS", "Length", "Period", "months_of", "parse_period", "period_at", "periods_between", "span_period"]

Length = Literal["hour", "day", "week", "month", "span"]
LENGTHS: Final = ("hour", "day", "week", "month")
"""The lengths that follow each other without end; a `span` stands for itself."""

_DAY: Final = timedelta(days=1)
_WEEK: Final = re.compile(r"(\d{4})-W(\d{2})")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Period:
    """A stretch of time that is published, closed and restated as a whole.

    Attributes:
        start: its first moment.
        end: the first moment behind it.
        length: what it is one of.
    """

    start: datetime
    end: datetime
    length: Length

    @property
    def name(self) -> str:
        """`2026-11-01T13`, `2026-11-01`, `2026-W45`, `2026-11`, or `2026-11-01T13--2026-11-03T00` of a span."""
        if self.length == "month":
            return f"{self.start:%Y-%m}"
        if self.length == "week":
            year, week, _ = self.start.isocalendar()
            return f"{year:04d}-W{week:02d}"
        if self.length == "day":
            return f"{self.start:%Y-%m-%d}"
        if self.length == "hour":
            return f"{self.start:%Y-%m-%dT%H}"
        return f"{self.start:%Y-%m-%dT%H}--{self.end:%Y-%m-%dT%H}"

    @property
    def following(self) -> Period:
        """The period of the same length that starts where this one ends."""
        return period_at(self.end, self.length)

    def holds(self, time: datetime) -> bool:
        """Whether a moment lies in it."""
        return self.start <= time < self.end


def period_at(time: datetime, length: Length) -> Period:
    """The period of a length that a moment lies in; weeks begin on Monday, as ISO 8601 counts them.

    Raises:
        ValueError: spans do not follow each other.
    """
    hour = hour_start(time)
    day = hour.replace(hour=0)
    if length == "hour":
        return Period(start=hour, end=hour + timedelta(hours=1), length=length)
    if length == "day":
        return Period(start=day, end=day + _DAY, length=length)
    if length == "week":
        monday = day - _DAY * day.weekday()
        return Period(start=monday, end=monday + 7 * _DAY, length=length)
    if length == "month":
        first = day.replace(day=1)
        return Period(start=first, end=(first + 31 * _DAY).replace(day=1), length=length)
    raise ValueError("a span has no neighbours")


def span_period(start: datetime, end: datetime) -> Period:
    """A period of its own.

    Raises:
        InputError: it is empty, or does not begin and end with full hours.
    """
    if hour_start(start) != start or hour_start(end) != end or end <= start:
        raise InputError(
            f"{format_time(start)} to {format_time(end)} is no span of whole hours",
            where="range",
            fix="begin and end with a full hour, like 2026-11-01T00:00:00Z",
        )
    return Period(start=start.astimezone(UTC), end=end.astimezone(UTC), length="span")


def periods_between(start: datetime, end: datetime, length: Length) -> Iterator[Period]:
    """The periods that touch [start, end), oldest first."""
    period = period_at(start, length)
    while period.start < end:
        yield period
        period = period.following


def months_of(periods: Iterable[Period]) -> list[Period]:
    """The billing months that some periods touch, oldest first."""
    return sorted({month for one in periods for month in periods_between(one.start, one.end, "month")})


def parse_period(name: str, length: Length) -> Period:
    """The period of a name, as `Period.name` gives it.

    Raises:
        InputError: it is no name of a period of that length.
    """
    try:
        if length == "span":
            first, _, last = name.partition("--")
            return span_period(_hour(first), _hour(last))
        period = period_at(_start(name, length), length)
    except ValueError:
        period = None
    if period is None or period.name != name:
        shape = {"hour": "2026-11-01T13", "day": "2026-11-01", "week": "2026-W45", "month": "2026-11"}
        written = shape.get(length, "2026-11-01T13--2026-11-03T00")
        raise InputError(f"{name!r} is no {length}", where="period", fix=f"write it like {written}")
    return period


def _start(name: str, length: Length) -> datetime:
    if length == "hour":
        return _hour(name)
    week = _WEEK.fullmatch(name)
    if length == "week" and week:
        day = date.fromisocalendar(int(week[1]), int(week[2]), 1)
    else:
        day = date.fromisoformat(f"{name}-01" if length == "month" else name)
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _hour(name: str) -> datetime:
    return datetime.strptime(name, "%Y-%m-%dT%H").replace(tzinfo=UTC)
