"""Columns in which `report` and `top` print groups of the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpuwaste.cli.output import Column
from gpuwaste.model.money import plain
from gpuwaste.model.units import format_time
from gpuwaste.report.summary import GROUPINGS, Grouping
from gpuwaste.report.totals import CATEGORIES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from decimal import Decimal

__all__ = ["NOBODY", "group_columns"]

NOBODY = "(nobody)"
_KEY_HEADERS = {
    "team": "TEAM",
    "namespace": "NAMESPACE",
    "workload_kind": "KIND",
    "workload_name": "WORKLOAD",
    "pool": "POOL",
    "hour": "HOUR",
}


def _name(value: Any) -> str:
    return str(value) or NOBODY


def _hours(value: Decimal) -> str:
    return plain(value, decimals=1)


def _percent(value: Decimal) -> str:
    return f"{value:.0f}%"


def _by_currency(costs: dict[str, dict[str, Decimal]]) -> str:
    return " + ".join(f"{plain(amounts['cost'])} {currency}" for currency, amounts in sorted(costs.items()))


def group_columns(by: Grouping, rows: Sequence[dict[str, Any]]) -> list[Column]:
    """The columns of `gpuwaste.report.tables.flat_row` for a grouping.

    People see the cluster only where there are several, and time without a price only where there is some. The
    currency stands above the cost, or in columns of its own where there are several.

    Args:
        by: the grouping.
        rows: what will be printed.
    """
    several_clusters = len({row.get("cluster") for row in rows}) > 1
    unpriced = "UNPRICED" if any(row["unpriced_gpu_hours"] for row in rows) else ""
    currencies = sorted({currency for row in rows for currency in row["costs"]})
    several = len(currencies) > 1
    of = f" ({currencies[0]})" if len(currencies) == 1 else ""
    columns = []
    for key in GROUPINGS[by]:
        header = _KEY_HEADERS.get(key, "")
        if key == "cluster" and (several_clusters or by == "cluster"):
            header = "CLUSTER"
        show: Callable[[Any], str] = format_time if key == "hour" else str if key == "workload_kind" else _name
        columns.append(Column(key, header, show))
    return [
        *columns,
        Column("owned_gpu_hours", "GPU-H", _hours, right=True),
        Column("held_gpu_hours", "HELD", _hours, right=True),
        Column("duty_gpu_hours", "", _hours),
        Column("effective_gpu_hours", "EFFECTIVE", _hours, unknown="<unmeasured>", right=True),
        Column("borrowed_gpu_hours", "", _hours),
        Column("lent_gpu_hours", "", _hours),
        Column("waste_gpu_hours", "WASTE", _hours, right=True),
        *(Column(f"{name}_gpu_hours", "", _hours) for name in CATEGORIES),
        Column("waste_percent", "WASTE %", _percent, unknown="-", right=True),
        Column("measured_percent", "MEASURED", _percent, unknown="-", right=True),
        Column("cost", f"COST{of}", plain, right=True),
        Column("used_cost", "", plain),
        Column("waste_cost", "WASTE COST", plain, right=True),
        Column("currency", "", str),
        Column("unpriced_gpu_hours", unpriced, _hours, right=True),
        Column("costs", "COST BY CURRENCY" if several else "", _by_currency),
    ]
