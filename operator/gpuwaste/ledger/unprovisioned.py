"""What is paid for and is no GPU of the cluster: bought and not there, or charged while its machine boots."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.ledger.join import pool_name
from gpuwaste.ledger.schema import AMOUNT_COLUMNS, LEDGER_SCHEMA, PRICE_COLUMNS
from gpuwaste.model.facts import NodeData, PriceData, ReservationData
from gpuwaste.model.grouping import group_rows
from gpuwaste.model.units import NS_PER_HOUR, from_unix_ns, to_unix_ns
from gpuwaste.pricing.reservations import cover_time, gpus_by_node

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gpuwaste.ledger.inputs import HourInputs
    from gpuwaste.ledger.times import Interval
    from gpuwaste.model.facts import Fact

__all__ = ["BOOTING", "once_over_clusters", "unprovisioned_rows"]

BOOTING: Final = "booting"
"""`parent_id` of the row of a machine that is charged and is no node yet; of a reservation it is its identity."""


def unprovisioned_rows(inputs: HourInputs, gpus: Sequence[Fact], span: Interval, *, pool_label: str) -> pa.Table:
    """Rows of LEDGER_SCHEMA, unsorted.

    A reservation has a row in every hour of its term, also where nothing of it is missing (owned is 0 then): the row
    says by `slice_id` how many GPUs were bought, `16`, and where not for the whole hour for how many nanoseconds of
    it, `16@1800000000000`, from which the purchase can be counted once over several clusters.

    Args:
        inputs: the hour.
        gpus: those that agents described in it.
        span: the hour, or the part of it up to which data has come in, Unix nanoseconds.
        pool_label: a node label that names the pool before the well-known ones.
    """
    there = _there(inputs, gpus, span)
    rows = _of_reservations(there, span, pool_label) + _booting(there, span, pool_label)
    common = {"hour": inputs.hour, "cluster": inputs.cluster, "row_kind": "unprovisioned", "resource": "gpu"}
    amounts = dict.fromkeys(AMOUNT_COLUMNS, 0)
    texts = {field.name: "" for field in LEDGER_SCHEMA if pa.types.is_string(field.type) and not field.nullable}
    return pa.Table.from_pylist([{**texts, **amounts, **common, **row} for row in rows], schema=LEDGER_SCHEMA)


def _there(inputs: HourInputs, gpus: Sequence[Fact], span: Interval) -> list[Fact]:
    """The facts that hold in the span; none where nothing was bought and no node came, as in most hours."""
    begin = from_unix_ns(span[0])
    for fact in inputs.facts:
        if fact.kind == "reservation" or (fact.kind == "node" and fact.valid_from > begin):
            return [one for one in (*inputs.facts, *gpus) if _overlap(one, span)]
    return []


def _overlap(fact: Fact, span: Interval) -> int:
    """Nanoseconds of the span in which the fact held."""
    end = span[1] if fact.valid_to is None else min(span[1], to_unix_ns(fact.valid_to))
    return max(0, end - max(span[0], to_unix_ns(fact.valid_from)))


def _of_reservations(facts: Sequence[Fact], span: Interval, pool_label: str) -> list[dict[str, Any]]:
    covered: dict[str, int] = {}
    for cover in cover_time(facts, start=span[0], end=span[1], pool_label=pool_label):
        covered[cover.reservation.uid] = covered.get(cover.reservation.uid, 0) + cover.gpu_ns
    rows = []
    for fact in facts:
        if isinstance(fact.data, ReservationData):
            bought, lasted = fact.data, _overlap(fact, span)
            rows.append(
                {
                    "parent_id": bought.identity,
                    "slice_id": str(bought.count) if lasted == NS_PER_HOUR else f"{bought.count}@{lasted}",
                    "pool": f"{bought.product}/{bought.node_pool or 'default'}",
                    "gpu_model": bought.product,
                    "namespace": bought.owner_namespace,
                    "team": bought.owner_team or bought.owner_namespace,
                    "owned": bought.count * lasted - covered.get(fact.uid, 0),
                    **_reserved_price(fact, bought),
                }
            )
    return rows


def _reserved_price(fact: Fact, bought: ReservationData) -> dict[str, Any]:
    if bought.price is None or bought.currency is None:
        return {}
    price = Decimal(bought.price)
    return {
        "contracted_unit_cost": price,
        "billed_unit_cost": Decimal(0) if bought.prepaid else price,
        "effective_unit_cost": price,
        "currency": bought.currency,
        "price_source": "Reservation",
        "price_date": fact.valid_from.date().isoformat(),
    }


def _booting(facts: Sequence[Fact], span: Interval, pool_label: str) -> list[dict[str, Any]]:
    """Machines whose price began before their node did, for the time between."""
    if not any(isinstance(fact.data, NodeData) and to_unix_ns(fact.valid_from) > span[0] for fact in facts):
        return []  # no node came
    gpus = {(one.fact.uid, one.product): one for one in gpus_by_node(facts)}
    rows: list[dict[str, Any]] = []
    for fact in facts:
        price = fact.data
        if not isinstance(price, PriceData) or price.resource != "gpu":
            continue
        found = gpus.get((price.node_uid, price.product))
        if found is None or fact.valid_from >= found.fact.valid_from:
            continue
        node: NodeData = found.node
        came = min(span[1], to_unix_ns(found.fact.valid_from))
        booted = came - max(span[0], to_unix_ns(fact.valid_from))
        if booted > 0:
            costs = {name: getattr(price, name) for name in PRICE_COLUMNS}
            rows.append(
                {
                    "node": node.name,
                    "node_uid": found.fact.uid,
                    "provider_id": node.provider_id,
                    "parent_id": BOOTING,
                    "slice_id": price.product,
                    "pool": pool_name(node, price.product, label=pool_label),
                    "gpu_model": price.product,
                    "owned": booted * found.count,
                    **{name: None if cost is None else Decimal(cost) for name, cost in costs.items()},
                    "currency": price.currency,
                    "price_source": price.source,
                    "price_date": price.date,
                }
            )
    return rows


def once_over_clusters(rows: pa.Table) -> pa.Table:
    """Count a purchase once that several clusters know: what each has of it is missing in none of the others.

    Per hour and purchase, missing = max(0, bought − Σ there), where each cluster's part there is bought − its missing.
    The first cluster's row keeps that, the others' become 0.

    Args:
        rows: rows with the columns hour, cluster, row_kind, parent_id, slice_id and owned.
    """
    mask = pc.and_(pc.equal(rows["row_kind"], "unprovisioned"), pc.not_equal(rows["parent_id"], BOOTING))
    place = np.flatnonzero(mask.to_numpy())
    if not len(place) or pc.count_distinct(rows["cluster"]).as_py() == 1:
        return rows
    mine = rows.take(pa.array(place))
    groups = group_rows([mine[name] for name in ("hour", "parent_id", "slice_id")])
    owned = mine["owned"].to_numpy()
    whole = _bought(mine["slice_id"].take(pa.array(groups.first)).to_pylist())
    count = len(groups.first)
    there = np.zeros(count, np.int64)
    np.add.at(there, groups.of, whole[groups.of] - owned)
    missing = np.maximum(whole - there, 0)
    first = np.full(count, len(place))
    np.minimum.at(first, groups.of, np.arange(len(place)))
    fixed = np.zeros(len(place), np.int64)
    fixed[first] = missing
    several = np.bincount(groups.of, minlength=count) > 1
    result = rows["owned"].to_numpy().copy()
    result[place] = np.where(several[groups.of], fixed, owned)
    return rows.set_column(rows.schema.get_field_index("owned"), rows.schema.field("owned"), pa.array(result))


def _bought(slices: Iterable[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Nanoseconds of GPU in the hour, of each `count` or `count@nanoseconds`."""
    found = []
    for text in slices:
        count, _, lasted = text.partition("@")
        found.append(int(count) * (int(lasted) if lasted else NS_PER_HOUR))
    return np.array(found, np.int64)
