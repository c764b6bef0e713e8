"""Prices of GPU-hours on nodes, as facts that are stored beside the windows."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import TYPE_CHECKING

from gpuwaste.model.facts import Fact, PriceData, ReservationData
from gpuwaste.model.resources import resource_product
from gpuwaste.pricing.capacity import capacity_of
from gpuwaste.pricing.pricelist import Owned, PriceList, UnitCosts, builtin_prices
from gpuwaste.pricing.reservations import Cover, NodeGpus, cover_nodes, gpus_by_node

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from gpuwaste.pricing.bills import BillPrices

__all__ = ["FULLY_LOADED", "INSTANCE_TYPE_LABELS", "NodeWeights", "PriceSources", "price_facts"]

INSTANCE_TYPE_LABELS = ("node.kubernetes.io/instance-type", "beta.kubernetes.io/instance-type")
_STEP = Decimal(1).scaleb(-18)
_ROUNDING = Context(prec=60, rounding=ROUND_HALF_EVEN)
_GIB = 1 << 30
Costs = tuple[Decimal | None, ...]
"""List, contracted, billed and effective."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeWeights:
    """Which parts of a node's price its GPUs, its CPU and its memory carry; together 1."""

    gpu: Decimal = Decimal(1)
    cpu: Decimal = Decimal(0)
    memory: Decimal = Decimal(0)


FULLY_LOADED = NodeWeights()
"""The GPUs carry all of it: a GPU-hour is fully loaded, and CPU and memory cost nothing beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceSources:
    """Where prices come from, besides the reservations among the facts and the built-in list.

    Attributes:
        bills: charges of machines.
        own: the user's price list.
        weights: how a node's price is divided.
        pool_label: a node label that names the pool before the well-known ones.
    """

    bills: BillPrices | None = None
    own: PriceList | None = None
    weights: NodeWeights = field(default=FULLY_LOADED)
    pool_label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Price:
    """The price of one GPU for an hour, and who says so."""

    costs: Costs
    currency: str
    source: str
    date: str


def price_facts(
    facts: Iterable[Fact],
    *,
    own: PriceList | None = None,
    sources: PriceSources | None = None,
    hour: datetime | None = None,
) -> list[Fact]:
    """One price fact for each GPU product on each node, and for its CPU and memory, where any source knows a price.

    The sources in order: the bill of the hour, the reservation that covers the GPU, the user's own list by instance
    type and then by GPU product, the built-in list likewise. A machine's price is divided evenly among its GPUs.

    Args:
        facts: nodes, GPUs and reservations; others are passed over.
        own: the user's price list, where it is all there is.
        sources: all sources, instead.
        hour: start of the hour that the prices are for; without it no bill is looked at.
    """
    listed = list(facts)
    known = sources or PriceSources(own=own)
    covers: dict[tuple[str, str], list[Cover]] = defaultdict(list)
    for cover in cover_nodes(listed, pool_label=known.pool_label):
        covers[cover.node.fact.uid, cover.node.product].append(cover)
    gpus = gpus_by_node(listed)
    on_node: dict[str, int] = defaultdict(int)
    for one in gpus:
        on_node[one.fact.uid] += one.count
    priced: list[Fact] = []
    for one in gpus:
        price = _price(one, on_node[one.fact.uid], covers[one.fact.uid, one.product], known, hour)
        if price is not None:
            priced += _facts_of(one, on_node[one.fact.uid], price, known, hour)
    return sorted({fact.key: fact for fact in priced}.values(), key=lambda fact: fact.key)


def _price(
    gpus: NodeGpus, all_gpus: int, covers: Sequence[Cover], sources: PriceSources, hour: datetime | None
) -> _Price | None:
    if sources.bills is not None and hour is not None and all_gpus:
        billed = sources.bills.hourly(gpus.node.provider_id, hour)
        if billed is not None and all(cost is None or cost >= 0 for cost in billed[0]):
            costs = tuple(None if cost is None else _divide(cost, all_gpus) for cost in billed[0])
            return _Price(costs=costs, currency=billed[1], source="Bill", date=hour.date().isoformat())
    listed = _listed(gpus, all_gpus, sources.own)
    for cover in covers:
        reserved = _reserved(cover, listed)
        if reserved is not None:
            listed = _mixed(reserved, cover.gpus, listed, gpus.count)
    return listed


def _listed(gpus: NodeGpus, all_gpus: int, own: PriceList | None) -> _Price | None:
    """The price by the user's list, else the built-in one."""
    labels = gpus.node.labels
    instance_type = next((labels[key] for key in INSTANCE_TYPE_LABELS if labels.get(key)), "")
    for prices, source in ((own, "PriceList"), (builtin_prices(), "BuiltIn")):
        if prices is None:
            continue
        whole = prices.instance_types.get(instance_type) if all_gpus else None
        entry = whole or prices.gpus.get(gpus.product) or _by_resource(gpus, prices)
        if entry is not None:
            costs = tuple(
                None if cost is None else _divide(cost, all_gpus if whole else 1)
                for cost in entry.of(capacity_of(labels))
            )
            return _Price(costs=costs, currency=prices.currency, source=source, date=prices.date.isoformat())
    return None


def _by_resource(gpus: NodeGpus, prices: PriceList) -> UnitCosts | Owned | None:
    """The entry for the extended resource that the product stands for, of devices that only the API tells of."""
    names = sorted(n for n in gpus.node.gpus if resource_product(gpus.node.labels, n) == gpus.product)
    return next((prices.gpus[name] for name in names if name in prices.gpus), None)


def _reserved(cover: Cover, listed: _Price | None) -> _Price | None:
    """The price of a GPU that a reservation covers; None where it names none.

    What was paid in advance is in the effective cost and in no invoice of an hour.
    """
    data = cover.reservation.data
    assert isinstance(data, ReservationData)  # noqa: S101 - covers are of reservations
    if data.price is None or data.currency is None:
        return None
    price = Decimal(data.price)
    on_list = listed.costs[0] if listed is not None and listed.currency == data.currency else None
    return _Price(
        costs=(on_list, price, Decimal(0) if data.prepaid else price, price),
        currency=data.currency,
        source="Reservation",
        date=cover.reservation.valid_from.date().isoformat(),
    )


def _mixed(reserved: _Price, covered: int, other: _Price | None, gpus: int) -> _Price:
    """The mean price of a node's GPUs where a reservation covers some of them; unknown where the others' price is."""
    if covered >= gpus:
        return reserved
    same = other is not None and other.currency == reserved.currency
    costs = tuple(
        None if one is None or two is None else _divide(one * covered + two * (gpus - covered), gpus)
        for one, two in zip(reserved.costs, other.costs if other and same else (None,) * 4, strict=True)
    )
    return _Price(costs=costs, currency=reserved.currency, source="Reservation", date=reserved.date)


def _divide(amount: Decimal, by: int) -> Decimal:
    return _ROUNDING.divide(amount, Decimal(by)).quantize(_STEP, context=_ROUNDING)


def _facts_of(gpus: NodeGpus, all_gpus: int, price: _Price, sources: PriceSources, hour: datetime | None) -> list[Fact]:
    """The GPU's part of the price, and those of a core and of a GiB of the node."""
    weights, node = sources.weights, gpus.node
    begins = gpus.fact.valid_from
    if price.source == "Bill" and sources.bills is not None and hour is not None:
        begins = sources.bills.billed_from(node.provider_id, begins)
    facts = [_fact(gpus, "gpu", _weighed(price.costs, weights.gpu, Decimal(1)), price, begins)]
    parts = (
        ("cpu", weights.cpu, Decimal(node.cpu_milli) / 1000),
        ("memory", weights.memory, Decimal(node.memory_bytes) / _GIB),
    )
    for resource, weight, amount in parts:
        if amount:
            costs = _weighed(price.costs, weight * all_gpus, amount)
            facts.append(_fact(gpus, resource, costs, price, gpus.fact.valid_from))
    return facts


def _weighed(costs: Costs, weight: Decimal, amount: Decimal) -> Costs:
    return tuple(
        None
        if cost is None
        else _ROUNDING.divide(_ROUNDING.multiply(cost, weight), amount).quantize(_STEP, context=_ROUNDING)
        for cost in costs
    )


def _fact(gpus: NodeGpus, resource: str, costs: Costs, price: _Price, begins: datetime) -> Fact:
    name = gpus.product if resource == "gpu" else resource
    texts = [None if cost is None else f"{cost.normalize():f}" for cost in costs]
    data = PriceData(
        node_uid=gpus.fact.uid,
        product=name,
        currency=price.currency,
        source=price.source,
        date=price.date,
        list_unit_cost=texts[0],
        contracted_unit_cost=texts[1],
        billed_unit_cost=texts[2],
        effective_unit_cost=texts[3],
        resource=resource,
    )
    return Fact(
        kind="price",
        uid=f"{gpus.fact.uid}/{name}",
        valid_from=begins,
        valid_to=gpus.fact.valid_to,
        data=data,
    )
