"""Days and times as options of commands."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import UTC, date, datetime

import click

from gpuwaste.model.units import parse_time

__all__ = ["Day", "Moment"]


class _Time(click.ParamType[datetime], ABC):
    """A time that people write in one way."""

    example = ""

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read it.

        Raises:
            click.BadParameter: it is written otherwise.
        """
        if isinstance(value, datetime):
            return value
        try:
            return self.parse(str(value))
        except ValueError:
            self.fail(f"{value!r} is no {self.name}; write it like {self.example}", param, ctx)

    @abstractmethod
    def parse(self, text: str) -> datetime:
        """The time that a text says.

        Raises:
            ValueError: it says none.
        """


class Day(_Time):
    """A day in UTC, like 2026-11-01; arrives as the time at which it starts."""

    name = "day"
    example = "2026-11-01"

    def parse(self, text: str) -> datetime:
        """See `_Time.parse`."""
        day = date.fromisoformat(text)
        return datetime(day.year, day.month, day.day, tzinfo=UTC)


class Moment(_Time):
    """A time like 2026-11-05T12:00:00Z."""

    name = "time"
    example = "2026-11-05T12:00:00Z"

    def parse(self, text: str) -> datetime:
        """See `_Time.parse`."""
        return parse_time(text)
