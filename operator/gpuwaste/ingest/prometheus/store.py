"""The protocol through which everything asks a Prometheus-compatible store."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from datetime import datetime

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["MetricStore", "Query", "Sample", "Series"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A PromQL expression in which `$selector` stands for label matchers.

    Attributes:
        template: the expression.
        matchers: label matchers that always stand in the selector.
        shard_label: a label with hexadecimal values by which a query that is too large is divided; empty: it is not.
    """

    template: str
    matchers: tuple[str, ...] = ()
    shard_label: str = ""

    def text(self, *more: str) -> str:
        """The expression with the matchers filled in."""
        return self.template.replace("$selector", ",".join(filter(None, (*self.matchers, *more))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One series of a range query.

    Attributes:
        labels: without those that the expression dropped; other series may share the object.
        times_s: int64[n], Unix seconds of the evaluations.
        values: float64[n].
    """

    labels: dict[str, str]
    times_s: NDArray[np.int64]
    values: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One element of an instant query."""

    labels: dict[str, str] = field(default_factory=dict)
    value: float = 0.0


class MetricStore(Protocol):
    """A store. Calls block: they belong into a thread, and several threads may call at the same time.

    Every call raises `UnreachableError` where nothing answered, or not in time, and `InputError` where what
    answered is no such store or refuses the query for good.
    """

    @property
    def address(self) -> str:
        """How messages name it."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the store said about answers that are not whole, each once."""
        ...

    @property
    def clock_skew_seconds(self) -> float | None:
        """How far its clock is ahead of ours, as its last answer said; None before one, or where it says nothing."""
        ...

    def instant(self, query: Query, *, at: datetime) -> list[Sample]:
        """Evaluate at one time."""
        ...

    def range(self, query: Query, *, start: datetime, end: datetime, step_seconds: int) -> list[Series]:
        """Evaluate at `start`, `start + step`, … up to and with `end`; long ranges and large answers are paged."""
        ...
