"""Times of a schedule: five cron fields, or @daily and the like, in a time zone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from gpuwaste.model.errors import InputError

__all__ = ["Schedule", "parse_schedule"]

_NAMED: Final = {"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A checked schedule.

    Attributes:
        fields: five cron fields.
        zone: the time zone that they are in; an hour that summer time skips or repeats is run once, as cron does.
    """

    fields: str
    zone: ZoneInfo

    def following(self, time: datetime) -> datetime:
        """The first time after a moment, in UTC."""
        return next(CronSim(self.fields, time.astimezone(self.zone))).astimezone(UTC)

    def latest(self, time: datetime) -> datetime:
        """The last time before a moment, or that moment itself, in UTC."""
        ahead = self.following(time)
        back = CronSim(self.fields, ahead.astimezone(self.zone), reverse=True)
        return next(back).astimezone(UTC)


def parse_schedule(text: str, zone: str) -> Schedule:
    """Read a schedule.

    Raises:
        InputError: it is none, never comes, or the time zone is unknown.
    """
    fields = _NAMED.get(text, text)
    try:
        known = ZoneInfo(zone)
    except (KeyError, OSError, ValueError):  # a name without a file, of a folder, or no name at all
        raise InputError(
            f"{zone!r} is no time zone", where="spec.timeZone", fix="use an IANA name like Europe/Berlin"
        ) from None
    try:
        next(CronSim(fields, datetime(2026, 1, 1, tzinfo=known)))
    except (CronSimError, StopIteration):
        raise InputError(
            f"{text!r} is no schedule that ever comes", where="spec.schedule", fix="write it like '0 6 * * *' or @daily"
        ) from None
    return Schedule(fields=fields, zone=known)
