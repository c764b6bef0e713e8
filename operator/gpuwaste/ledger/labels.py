"""Labels and unit costs of ledger rows, from the facts of the hour."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.ledger.join import pool_name
from gpuwaste.ledger.namesakes import shown_name
from gpuwaste.ledger.schema import AMOUNT_COLUMNS, LEDGER_SCHEMA, PRICE_COLUMNS
from gpuwaste.model.apportion import share_of
from gpuwaste.model.grouping import group_rows
from gpuwaste.model.units import from_unix_ns, to_unix_ns

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    from gpuwaste.ledger.inputs import HourInputs
    from gpuwaste.ledger.join import FactIndex
    from gpuwaste.model.facts import PriceData
    from gpuwaste.settings.teams import TeamRules

__all__ = ["LabelMaker"]

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


class LabelMaker:
    """Labels and unit costs of rows; what the facts say of a pod or a node is found once.

    Args:
        index: facts of the hour.
        teams: rules that name teams.
        pool_label: a node label that names the pool before the well-known ones.
    """

    def __init__(self, index: FactIndex, teams: TeamRules, *, pool_label: str) -> None:
        self._index, self._teams, self._pool_label = index, teams, pool_label
        self._pods: dict[tuple[str, str, str], tuple[str, ...]] = {}
        self._nodes: dict[tuple[str, str, str], tuple[Any, ...]] = {}
        self._products: dict[tuple[str, str], str] = {}

    def labelled(self, rows: pa.Table, inputs: HourInputs) -> pa.Table:
        """Turn summed rows into LEDGER_SCHEMA: who holds, where, in which pool, and at what price."""
        count = rows.num_rows
        kept = (*AMOUNT_COLUMNS, "row_kind", "resource", "gpu_uuid", "parent_id", "slice_id", "pod_uid", "container")
        columns: dict[str, Any] = {name: rows[name] for name in kept}
        columns["hour"] = pa.array([inputs.hour]).take(pa.array(np.zeros(count, np.int64)))
        columns["cluster"] = pa.array([inputs.cluster]).take(pa.array(np.zeros(count, np.int64)))
        columns |= self._pod_columns(rows, from_unix_ns(to_unix_ns(inputs.hour) + 1_800 * 10**9))
        columns |= self._node_columns(rows)
        columns["origin"] = pc.if_else(pc.equal(rows["origin"], ""), None, rows["origin"])
        columns["coverage_ppm"] = _coverage(rows)
        arrays = {field.name: columns[field.name].cast(field.type) for field in LEDGER_SCHEMA}
        return pa.table(arrays, schema=LEDGER_SCHEMA)

    def _pod_columns(self, rows: pa.Table, middle: datetime) -> dict[str, pa.Array]:
        """Labels of whoever holds, found once for each pod; empty where nobody does."""
        names = ("row_kind", "pod_uid", "namespace", "pod")
        groups = group_rows([rows[name] for name in names])
        first = rows.select(names).take(pa.array(groups.first))
        nobody = ("",) * len(_POD_LABELS)
        found = [
            self._pod_values(uid, namespace or "", pod or "", middle) if kind == "holder" else nobody
            for kind, uid, namespace, pod in zip(*(first[name].to_pylist() for name in names), strict=True)
        ]
        return _spread(_POD_LABELS, found, groups.of)

    def _pod_values(self, uid: str, namespace: str, pod: str, middle: datetime) -> tuple[str, ...]:
        key = (uid, namespace, pod)
        # Of a pod without a UID it depends on the hour which one of the name it is.
        values = self._pods.get(key) if uid else None
        if values is None:
            fact = self._index.find_pod(namespace=namespace, name=pod, uid=uid, at=middle)
            labels = self._index.labels(fact, namespace=namespace, name=pod, teams=self._teams)
            owner = labels.workload
            values = (labels.namespace, labels.pod, owner.kind, owner.name, owner.uid, labels.team)
            self._pods[key] = values
        return values

    def _node_columns(self, rows: pa.Table) -> dict[str, pa.Array]:
        """Labels and unit costs of where it is, found once for each resource of each product on a node."""
        names = ("node", "gpu_uuid", "resource")
        groups = group_rows([rows[name] for name in names])
        first = rows.select(names).take(pa.array(groups.first))
        numbers: dict[tuple[str, str, str], int] = {}
        place = np.zeros(len(groups.first), np.int64)
        for row, (name, gpu_uuid, resource) in enumerate(zip(*(first[n].to_pylist() for n in names), strict=True)):
            product = self._products.get((gpu_uuid, name))
            if product is None:
                product = self._products[gpu_uuid, name] = self._index.product_of(gpu_uuid, name)
            place[row] = numbers.setdefault((name, product, resource), len(numbers))
        return _spread(_NODE_LABELS, [self._node_values(*key) for key in numbers], place[groups.of])

    def _node_values(self, name: str, product: str, resource: str) -> tuple[Any, ...]:
        key = (name, product, resource)
        if key not in self._nodes:
            values = _node_values(name, product, resource, self._index, self._pool_label)
            self._nodes[key] = tuple(values[label] for label in _NODE_LABELS)
        return self._nodes[key]


def _coverage(rows: pa.Table) -> pa.Array:
    """Covered in millionths of held; null where nothing is held."""
    held = rows["held"].to_numpy()
    ppm = share_of(rows["covered"].to_numpy(), held, _PPM)
    return pa.array(np.minimum(ppm, _PPM), mask=held == 0)


def _spread(names: Sequence[str], groups: Sequence[tuple[Any, ...]], of: NDArray[np.int64]) -> dict[str, pa.Array]:
    """Columns of all rows from the values of each group."""
    place = pa.array(of)
    columns = zip(*groups, strict=True) if groups else ((),) * len(names)
    return {
        name: pa.array(column, LEDGER_SCHEMA.field(name).type).take(place)
        for name, column in zip(names, columns, strict=True)
    }


def _node_values(name: str, product: str, resource: str, index: FactIndex, pool_label: str) -> dict[str, Any]:
    known = index.nodes.get(name)
    uid = known[0] if known else ""
    price = index.prices.get((uid, product if resource == "gpu" else resource)) if known else None
    return {
        "node": shown_name(name),
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
