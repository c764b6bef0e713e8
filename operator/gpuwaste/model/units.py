"""Units of time and of the grain of the accounting."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

__all__ = [
    "HOUR",
    "HOURS_PER_MONTH",
    "NS_PER_HOUR",
    "NS_PER_MINUTE",
    "NS_PER_SECOND",
    "format_time",
    "from_unix_ns",
    "hour_start",
    "hours_between",
    "parse_time",
    "to_unix_ns",
]

NS_PER_SECOND = 1_000_000_000
NS_PER_MINUTE = 60 * NS_PER_SECOND
NS_PER_HOUR = 60 * NS_PER_MINUTE
HOUR = timedelta(hours=1)
HOURS_PER_MONTH = 730
"""A month as prices use it: 365 days × 24 hours / 12."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_unix_ns(time: datetime) -> int:
    """Nanoseconds since 1970, exact to the microsecond that a datetime holds."""
    delta = time - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * NS_PER_SECOND + delta.microseconds * 1_000


def from_unix_ns(unix_ns: int) -> datetime:
    """The aware UTC time of a count of nanoseconds; what is below a microsecond is cut off."""
    return _EPOCH + timedelta(microseconds=unix_ns // 1_000)


def hour_start(time: datetime) -> datetime:
    """The full UTC hour that `time` lies in."""
    return time.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def hours_between(start: datetime, end: datetime) -> list[datetime]:
    """The starts of all UTC hours that touch [start, end), oldest first."""
    hours = []
    hour = hour_start(start)
    while hour < end:
        hours.append(hour)
        hour += HOUR
    return hours


def parse_time(text: str) -> datetime:
    """Read RFC 3339 as Kubernetes writes it; a time without an offset is an error.

    Raises:
        ValueError: the text is no time, or names no offset from UTC.
    """
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"{text!r} names no offset from UTC; write it like 2026-11-01T00:00:00Z")
    return time.astimezone(UTC)


def format_time(time: datetime) -> str:
    """RFC 3339 in UTC with a `Z`, as short as it is exact."""
    text = time.astimezone(UTC).isoformat()
    return text.replace("+00:00", "Z")
