"""Labels and unit costs of ledger rows, from the facts of the hour."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from gpuwaste.ledger.join import FactIndex, PodLabels, pool_name
from gpuwaste.ledger.schema import AMOUNT_COLUMNS, LEDGER_SCHEMA, PRICE_COLUMNS
from gpuwaste.model.units import from_unix_ns, to_unix_ns

if TYPE_CHECKING:
    from gpuwaste.ledger.inputs import HourInputs
    from gpuwaste.model.facts import PriceData
    from gpuwaste.settings.teams import TeamRules

__all__ = ["with_labels"]

_PPM = 1_000_000


def with_labels(rows: pa.Table, inputs: HourInputs, index: FactIndex, teams: TeamRules, *, pool_label: str) -> pa.Table:
    """Turn summed rows into LEDGER_SCHEMA: who holds, where, in which pool, and at what price."""
    count = rows.num_rows
    columns: dict[str, Any] = {name: rows[name] for name in AMOUNT_COLUMNS}
    columns |= {name: rows[name] for name in ("row_kind", "gpu_uuid", "parent_id", "slice_id", "pod_uid", "container")}
    columns["hour"] = pa.array([inputs.hour] * count, LEDGER_SCHEMA.field("hour").type)
    columns["cluster"] = [inputs.cluster] * count
    columns["resource"] = ["gpu"] * count
    columns |= _pod_columns(rows, inputs, index, teams)
    columns |= _node_columns(rows, index, pool_label)
    columns["origin"] = rows["origin"]
    columns["coverage_ppm"] = [
        None if not held else min(_PPM, covered * _PPM // held)
        for covered, held in zip(rows["covered"].to_pylist(), rows["held"].to_pylist(), strict=True)
    ]
    return pa.table({field.name: _typed(columns[field.name], field) for field in LEDGER_SCHEMA}, schema=LEDGER_SCHEMA)


def _typed(values: Any, field: pa.Field) -> Any:
    return pa.array(values, field.type) if isinstance(values, list) else values.cast(field.type)


def _pod_columns(rows: pa.Table, inputs: HourInputs, index: FactIndex, teams: TeamRules) -> dict[str, list[str]]:
    found: dict[tuple[str, str, str], PodLabels] = {}
    nobody = None
    names = ("namespace", "pod", "workload_kind", "workload_name", "workload_uid", "team")
    columns: dict[str, list[str]] = {name: [] for name in names}
    middle = from_unix_ns(to_unix_ns(inputs.hour) + 1_800 * 10**9)
    who = zip(*(rows[name].to_pylist() for name in ("row_kind", "pod_uid", "namespace", "pod")), strict=True)
    for row_kind, uid, namespace, pod in who:
        labels = nobody
        if row_kind == "holder":
            key = (uid, namespace or "", pod or "")
            if key not in found:
                fact = index.find_pod(namespace=key[1], name=key[2], uid=uid, at=middle)
                found[key] = index.labels(fact, namespace=key[1], name=key[2], teams=teams)
            labels = found[key]
        columns["namespace"].append(labels.namespace if labels else "")
        columns["pod"].append(labels.pod if labels else "")
        columns["workload_kind"].append(labels.workload.kind if labels else "")
        columns["workload_name"].append(labels.workload.name if labels else "")
        columns["workload_uid"].append(labels.workload.uid if labels else "")
        columns["team"].append(labels.team if labels else "")
    return columns


def _node_columns(rows: pa.Table, index: FactIndex, pool_label: str) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {
        name: []
        for name in (
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
    }
    cache: dict[tuple[str, str], dict[str, Any]] = {}
    for key in zip(rows["node"].to_pylist(), rows["gpu_uuid"].to_pylist(), strict=True):
        if key not in cache:
            cache[key] = _node_values(*key, index, pool_label)
        for name, value in cache[key].items():
            columns[name].append(value)
    return columns


def _node_values(name: str, gpu_uuid: str, index: FactIndex, pool_label: str) -> dict[str, Any]:
    product = index.product_of(gpu_uuid, name)
    known = index.nodes.get(name)
    uid = known[0] if known else ""
    price = index.prices.get((uid, product)) if known else None
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
