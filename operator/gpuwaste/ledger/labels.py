"""Labels and unit costs of ledger rows, from the facts of the hour."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.ledger.join import FactIndex, pool_name
from gpuwaste.ledger.schema import AMOUNT_COLUMNS, LEDGER_SCHEMA, PRICE_COLUMNS
from gpuwaste.model.apportion import share_of
from gpuwaste.model.grouping import group_rows
from gpuwaste.model.units import from_unix_ns, to_unix_ns

if TYPE_CHECKING:
    from gpuwaste.ledger.inputs import HourInputs
    from gpuwaste.model.facts import PriceData
    from gpuwaste.settings.teams import TeamRules

__all__ = ["with_labels"]

_PPM: Final = 1_000_000
_POD_LABELS: Final = ("namespace", "pod", "workload_kind", "workload_name", "workload_uid", "team")
_NODE_LABELS: Final = (
    "node",
    "node_uid",
    "provider_id",
    "pool",
    "gpu_model",
    *PRICE_COLUMNS,
    "currency",
    "price_source",
    "price_date",
)


def with_labels(rows: pa.Table, inputs: HourInputs, index: FactIndex, teams: TeamRules, *, pool_label: str) -> pa.Table:
    """Turn summed rows into LEDGER_SCHEMA: who holds, where, in which pool, and at what price."""
    count = rows.num_rows
    kept = (*AMOUNT_COLUMNS, "row_kind", "resource", "gpu_uuid", "parent_id", "slice_id", "pod_uid", "container")
    columns: dict[str, Any] = {name: rows[name] for name in kept}
    columns["hour"] = pa.array([inputs.hour]).take(pa.array(np.zeros(count, np.int64)))
    columns["cluster"] = pa.array([inputs.cluster]).take(pa.array(np.zeros(count, np.int64)))
    columns |= _pod_columns(rows, inputs, index, teams)
    columns |= _node_columns(rows, index, pool_label)
    columns["origin"] = pc.if_else(pc.equal(rows["origin"], ""), None, rows["origin"])
    columns["coverage_ppm"] = _coverage(rows)
    return pa.table({field.name: columns[field.name].cast(field.type) for field in LEDGER_SCHEMA}, schema=LEDGER_SCHEMA)


def _coverage(rows: pa.Table) -> pa.Array:
    """Covered in millionths of held; null where nothing is held."""
    held = rows["held"].to_numpy()
    ppm = share_of(rows["covered"].to_numpy(), held, _PPM)
    return pa.array(np.minimum(ppm, _PPM), mask=held == 0)


def _pod_columns(rows: pa.Table, inputs: HourInputs, index: FactIndex, teams: TeamRules) -> dict[str, pa.Array]:
    """Labels of whoever holds, found once for each pod; empty where nobody does."""
    middle = from_unix_ns(to_unix_ns(inputs.hour) + 1_800 * 10**9)
    names = ("row_kind", "pod_uid", "namespace", "pod")
    groups = group_rows([rows[name] for name in names])
    found: dict[str, list[str]] = {name: [] for name in _POD_LABELS}
    first = rows.select(names).take(pa.array(groups.first))
    for kind, uid, its_namespace, its_name in zip(*(first[name].to_pylist() for name in names), strict=True):
        values: tuple[str, ...] = ("",) * len(_POD_LABELS)
        if kind == "holder":
            namespace, pod = its_namespace or "", its_name or ""
            fact = index.find_pod(namespace=namespace, name=pod, uid=uid, at=middle)
            labels = index.labels(fact, namespace=namespace, name=pod, teams=teams)
            owner = labels.workload
            values = (labels.namespace, labels.pod, owner.kind, owner.name, owner.uid, labels.team)
        for name, value in zip(_POD_LABELS, values, strict=True):
            found[name].append(value)
    return _spread(found, groups.of)


def _node_columns(rows: pa.Table, index: FactIndex, pool_label: str) -> dict[str, pa.Array]:
    """Labels and unit costs of where it is, found once for each resource of each product on a node."""
    names = ("node", "gpu_uuid", "resource")
    groups = group_rows([rows[name] for name in names])
    first = rows.select(names).take(pa.array(groups.first))
    found: dict[str, list[Any]] = {name: [] for name in _NODE_LABELS}
    numbers: dict[tuple[str, str, str], int] = {}
    place = np.zeros(len(groups.first), np.int64)
    for row, (name, gpu_uuid, resource) in enumerate(zip(*(first[n].to_pylist() for n in names), strict=True)):
        key = (name, index.product_of(gpu_uuid, name), resource)
        if key not in numbers:
            numbers[key] = len(numbers)
            values = _node_values(*key, index, pool_label)
            for label in _NODE_LABELS:
                found[label].append(values[label])
        place[row] = numbers[key]
    return _spread(found, place[groups.of])


def _spread(values: dict[str, list[Any]], of: Any) -> dict[str, pa.Array]:
    """Columns of all rows from one value a group."""
    place = pa.array(of)
    return {name: pa.array(column, LEDGER_SCHEMA.field(name).type).take(place) for name, column in values.items()}


def _node_values(name: str, product: str, resource: str, index: FactIndex, pool_label: str) -> dict[str, Any]:
    known = index.nodes.get(name)
    uid = known[0] if known else ""
    price = index.prices.get((uid, product if resource == "gpu" else resource)) if known else None
    return {
        "node": name,
        "node_uid": uid or f"name:{name}",
        "provider_id": known[2].provider_id if known else "",
        "pool": pool_name(known[2], product, label=pool_label) if known else f"{product or 'unknown'}/default",
        "gpu_model": product,
        **_price_values(price),
    }


def _price_values(price: PriceData | None) -> dict[str, Any]:
    if price is None:
        return dict.fromkeys((*PRICE_COLUMNS, "currency", "price_source", "price_date"))
    costs = {name: getattr(price, name) for name in PRICE_COLUMNS}
    return {
        **{name: None if cost is None else Decimal(cost) for name, cost in costs.items()},
        "currency": price.currency,
        "price_source": price.source,
        "price_date": price.date,
    }
