"""From rows of the ledger to sums by team, namespace, workload, pool and hour."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib import resources
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

import duckdb

from gpuwaste.ledger.schema import AMOUNT_COLUMNS
from gpuwaste.model.errors import InputError
from gpuwaste.model.units import HOUR
from gpuwaste.report.totals import Totals

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    import pyarrow as pa
    import pyarrow.dataset as ds

__all__ = [
    "GROUPINGS",
    "SUMMARY_COLUMNS",
    "Group",
    "Grouping",
    "Origin",
    "PriceUse",
    "Summary",
    "group_rows",
    "summarize",
    "summed_columns",
]

Grouping = Literal["team", "namespace", "workload", "pool", "hour", "cluster"]
GROUPINGS: dict[Grouping, tuple[str, ...]] = {
    "team": ("team",),
    "namespace": ("cluster", "namespace"),
    "workload": ("cluster", "namespace", "workload_kind", "workload_name"),
    "pool": ("cluster", "pool"),
    "hour": ("hour",),
    "cluster": ("cluster",),
}
"""The ledger's columns by which each grouping sums. Empty names are parts that nobody holds."""

SUMMARY_COLUMNS = (
    *("hour", "cluster", "row_kind", "resource", "gpu_uuid", "node_uid", "pod_uid", "gpu_model", "pool", "namespace"),
    *("workload_kind", "workload_name", "team"),
    *(*AMOUNT_COLUMNS, "effective_unit_cost", "currency", "price_source", "price_date", "origin", "coverage_ppm"),
)
"""The columns of the ledger that `summarize` reads."""

_SUMMED = ("row_kind", "resource", *AMOUNT_COLUMNS, "effective_unit_cost", "currency", "coverage_ppm")


def summed_columns(by: Grouping) -> tuple[str, ...]:
    """The columns of the ledger that `group_rows` reads."""
    return (*GROUPINGS[by], *_SUMMED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One team, namespace, workload, pool or hour, with its sums."""

    key: dict[str, Any]
    totals: Totals

    @property
    def is_held(self) -> bool:
        """Whether somebody is behind it; False for the parts that nobody holds."""
        return any(value for name, value in self.key.items() if name != "cluster")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """How much of what was held is known from which kind of reading; None: nothing is known."""

    origin: str | None
    held_ns: int
    covered_ppm: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceUse:
    """A price and how much owned time it was used for; `unit_cost` None: no price is known."""

    gpu_model: str
    currency: str | None
    unit_cost: Decimal | None
    source: str | None
    date: str | None
    owned_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A period of the ledger, summed in every way that a report needs.

    Groups are sorted dearest waste first; hours by time. `end` is the end of the last hour.
    """

    start: datetime
    end: datetime
    hour_count: int
    gpu_count: int
    node_count: int
    pod_count: int
    clusters: tuple[str, ...]
    total: Totals
    teams: tuple[Group, ...]
    namespaces: tuple[Group, ...]
    workloads: tuple[Group, ...]
    pools: tuple[Group, ...]
    hours: tuple[Group, ...]
    pool_hours: tuple[Group, ...]
    origins: tuple[Origin, ...]
    prices: tuple[PriceUse, ...]


@cache
def _sql(name: str) -> str:
    return resources.files("gpuwaste.report").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")


@contextmanager
def _opened(ledger: pa.Table | ds.Dataset) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection in which `ledger` is the table of that name; its rows are read where they lie."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("ledger", ledger)
        yield connection


def _query(connection: duckdb.DuckDBPyConnection, name: str, **values: str) -> list[dict[str, Any]]:
    """Rows of `sql/<name>.sql`, with `values` for the names in braces."""
    rows: list[dict[str, Any]] = connection.sql(_sql(name).format(**values)).to_arrow_table().to_pylist()
    return rows


def _groups(connection: duckdb.DuckDBPyConnection, keys: tuple[str, ...]) -> list[Group]:
    rows = _query(connection, "sums", keys=", ".join(keys))
    return [
        Group(key=dict(zip(keys, values, strict=True)), totals=Totals.sum(Totals.of_row(row) for row in parts))
        for values, parts in groupby(rows, key=lambda row: tuple(row[key] for key in keys))
    ]


def group_rows(ledger: pa.Table, by: Grouping) -> tuple[Group, ...]:
    """Sums by one grouping: hours by time, all others dearest waste first.

    Args:
        ledger: rows of LEDGER_SCHEMA, its `summed_columns` at least.
        by: the grouping.
    """
    with _opened(ledger) as connection:
        groups = _groups(connection, GROUPINGS[by])
    return tuple(groups if by == "hour" else sorted(groups, key=_dearest_first))


def _dearest_first(group: Group) -> tuple[Any, ...]:
    """By money where there is one currency, then by time, then by name."""
    cost = group.totals.cost("waste")
    money = next(iter(cost.values())) if len(cost) == 1 else max(cost.values(), default=Decimal(0))
    return (-money, -group.totals.time("waste"), *map(str, group.key.values()))


def _merge(groups: Iterable[Group], keys: tuple[str, ...]) -> list[Group]:
    found: dict[tuple[Any, ...], list[Totals]] = {}
    for group in groups:
        found.setdefault(tuple(group.key[key] for key in keys), []).append(group.totals)
    return [
        Group(key=dict(zip(keys, values, strict=True)), totals=Totals.sum(parts)) for values, parts in found.items()
    ]


def summarize(ledger: pa.Table | ds.Dataset) -> Summary:
    """Sum a ledger in every way that a report needs.

    Args:
        ledger: rows of LEDGER_SCHEMA of any hours and clusters, its SUMMARY_COLUMNS at least.

    Raises:
        InputError: there is no row about a GPU.
    """
    with _opened(ledger) as connection:
        (extent,) = _query(connection, "extent")
        if not extent["hours"]:
            raise InputError("the ledger holds no GPU in this period")
        workloads = _groups(connection, ("team", *GROUPINGS["workload"]))
        pool_hours = _groups(connection, ("hour", *GROUPINGS["pool"]))
        origins, prices = _origins(connection), _prices(connection)

    def merged(groups: list[Group], by: Grouping) -> tuple[Group, ...]:
        found = _merge(groups, GROUPINGS[by])
        return tuple(sorted(found, key=_dearest_first))

    hours = _merge(pool_hours, ("hour",))
    clusters = merged(pool_hours, "cluster")
    return Summary(
        start=extent["first_hour"],
        end=extent["last_hour"] + HOUR,
        hour_count=extent["hours"],
        gpu_count=extent["gpus"],
        node_count=extent["nodes"],
        pod_count=extent["pods"],
        clusters=tuple(sorted(str(group.key["cluster"]) for group in clusters)),
        total=Totals.sum(group.totals for group in clusters),
        teams=merged(workloads, "team"),
        namespaces=merged(workloads, "namespace"),
        workloads=merged(workloads, "workload"),
        pools=merged(pool_hours, "pool"),
        hours=tuple(sorted(hours, key=lambda group: group.key["hour"])),
        pool_hours=tuple(pool_hours),
        origins=origins,
        prices=prices,
    )


def _origins(connection: duckdb.DuckDBPyConnection) -> tuple[Origin, ...]:
    found = [
        Origin(origin=row["origin"], held_ns=int(row["held"] or 0), covered_ppm=int(row["covered_ppm"] or 0))
        for row in _query(connection, "origins")
    ]
    return tuple(sorted(found, key=lambda origin: (origin.origin is None, -origin.held_ns)))


def _prices(connection: duckdb.DuckDBPyConnection) -> tuple[PriceUse, ...]:
    return tuple(
        PriceUse(
            gpu_model=row["gpu_model"],
            currency=row["currency"],
            unit_cost=row["unit_cost"],
            source=row["price_source"],
            date=row["price_date"],
            owned_ns=int(row["owned"] or 0),
        )
        for row in _query(connection, "prices")
    )
