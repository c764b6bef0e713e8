"""Prices of GPU-hours on nodes, as facts that are stored beside the windows."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import TYPE_CHECKING

from gpuwaste.model.facts import Fact, PriceData, ReservationData
from gpuwaste.model.resources import resource_product, spelled
from gpuwaste.model.units import NS_PER_HOUR, to_unix_ns
from gpuwaste.pricing.bills import Exchange
from gpuwaste.pricing.capacity import SPOT_SOURCES, Capacity, capacity_of
from gpuwaste.pricing.pricelist import EarlierPriceList, Owned, PriceList, UnitCosts, builtin_prices
from gpuwaste.pricing.reservations import NodeGpus, cover_nodes, cover_time, gpus_by_node

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
        exchange: the wanted currency; prices of lists and reservations in a currency with a rate are turned into it.
    """

    bills: BillPrices | None = None
    own: PriceList | None = None
    weights: NodeWeights = field(default=FULLY_LOADED)
    pool_label: str = ""
    exchange: Exchange = field(default_factory=Exchange)

    def own_at(self, hour: datetime | None) -> EarlierPriceList | None:
        """The user's list as it was on the day of an hour; without an hour the newest."""
        return self.own if self.own is None or hour is None else self.own.at(hour.date())


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
    covers = _covers(listed, known.pool_label, hour)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """What of a node's GPUs a reservation covers: GPUs, or in an hour nanoseconds of GPU."""

    reservation: Fact
    amount: int


def _covers(facts: Sequence[Fact], pool_label: str, hour: datetime | None) -> dict[tuple[str, str], list[_Part]]:
    """By node and product, what reservations cover: of an hour by time, else as the facts say at once."""
    covers: dict[tuple[str, str], list[_Part]] = defaultdict(list)
    if hour is None:
        for cover in cover_nodes(facts, pool_label=pool_label):
            part = _Part(reservation=cover.reservation, amount=cover.gpus)
            covers[cover.node.fact.uid, cover.node.product].append(part)
        return covers
    start = to_unix_ns(hour)
    for timed in cover_time(facts, start=start, end=start + NS_PER_HOUR, pool_label=pool_label):
        part = _Part(reservation=timed.reservation, amount=timed.gpu_ns)
        covers[timed.node.fact.uid, timed.node.product].append(part)
    return covers


def _whole(gpus: NodeGpus, hour: datetime | None) -> int:
    """All of a node's GPUs, in the unit of the parts that reservations cover."""
    if hour is None:
        return gpus.count
    start, end = to_unix_ns(hour), to_unix_ns(hour) + NS_PER_HOUR
    last = end if gpus.fact.valid_to is None else min(end, to_unix_ns(gpus.fact.valid_to))
    return gpus.count * max(0, last - max(start, to_unix_ns(gpus.fact.valid_from)))


def _price(
    gpus: NodeGpus, all_gpus: int, covers: Sequence[_Part], sources: PriceSources, hour: datetime | None
) -> _Price | None:
    if sources.bills is not None and hour is not None and all_gpus:
        billed = sources.bills.hourly(gpus.node.provider_id, hour)
        if billed is not None and all(cost is None or cost >= 0 for cost in billed[0]):
            costs = tuple(None if cost is None else _divide(cost, all_gpus) for cost in billed[0])
            source = SPOT_SOURCES["Bill"] if capacity_of(gpus.node.labels) is Capacity.SPOT else "Bill"
            return _Price(costs=costs, currency=billed[1], source=source, date=hour.date().isoformat())
    listed = _exchanged(_listed(gpus, all_gpus, sources.own_at(hour)), sources.exchange)
    reserved = [
        (price, part.amount) for part in covers if (price := _reserved(part, listed, sources.exchange)) is not None
    ]
    left = _whole(gpus, hour) - sum(amount for _, amount in reserved)
    return _mixed(reserved, listed, left) if reserved else listed


def _exchanged(price: _Price | None, exchange: Exchange) -> _Price | None:
    """The price in the wanted currency where there is a rate for it, else in its own."""
    rate = exchange.rates.get(price.currency) if price is not None and exchange.currency else None
    if price is None or rate is None or price.currency == exchange.currency:
        return price
    costs = tuple(
        None if cost is None else _ROUNDING.multiply(cost, rate).quantize(_STEP, context=_ROUNDING)
        for cost in price.costs
    )
    return replace(price, costs=costs, currency=exchange.currency)


def _listed(gpus: NodeGpus, all_gpus: int, own: EarlierPriceList | None) -> _Price | None:
    """The price by the user's list, else the built-in one."""
    labels = gpus.node.labels
    capacity = capacity_of(labels)
    instance_type = next((labels[key] for key in INSTANCE_TYPE_LABELS if labels.get(key)), "")
    for prices, source in ((own, "PriceList"), (builtin_prices(), "BuiltIn")):
        if prices is None:
            continue
        whole = prices.instance_types.get(instance_type) if all_gpus else None
        entry = whole or prices.gpus.get(gpus.product) or prices.gpus.get(spelled(gpus.product))
        entry = entry or _by_resource(gpus, prices)
        if entry is not None:
            costs = tuple(
                None if cost is None else _divide(cost, all_gpus if whole else 1) for cost in entry.of(capacity)
            )
            on_spot = capacity is Capacity.SPOT and isinstance(entry, UnitCosts) and entry.spot is not None
            said = SPOT_SOURCES.get(source, source) if on_spot else source
            return _Price(costs=costs, currency=prices.currency, source=said, date=prices.date.isoformat())
    return None


def _by_resource(gpus: NodeGpus, prices: EarlierPriceList) -> UnitCosts | Owned | None:
    """The entry for the extended resource that the product stands for, of devices that only the API tells of."""
    mine = spelled(gpus.product)
    names = sorted(n for n in gpus.node.gpus if spelled(resource_product(gpus.node.labels, n)) == mine)
    return next((prices.gpus[name] for name in names if name in prices.gpus), None)


def _reserved(part: _Part, listed: _Price | None, exchange: Exchange) -> _Price | None:
    """The price of a GPU that a reservation covers; None where it names none.

    What was paid in advance is in the effective cost and in no invoice of an hour.
    """
    data = part.reservation.data
    assert isinstance(data, ReservationData)  # noqa: S101 - covers are of reservations
    if data.price is None or data.currency is None:
        return None
    price = Decimal(data.price)
    own = _Price(
        costs=(None, price, Decimal(0) if data.prepaid else price, price),
        currency=data.currency,
        source="Reservation",
        date=part.reservation.valid_from.date().isoformat(),
    )
    found = _exchanged(own, exchange) or own
    on_list = listed.costs[0] if listed is not None and listed.currency == found.currency else None
    return replace(found, costs=(on_list, *found.costs[1:]))


def _mixed(reserved: Sequence[tuple[_Price, int]], other: _Price | None, left: int) -> _Price:
    """The mean price of a node's GPUs over what each reservation covers and the rest, which is `left`.

    Unknown where the price of a part is, or is in another currency.
    """
    parts: list[tuple[_Price | None, int]] = [*reserved, (other, left)] if left > 0 else [*reserved]
    first, whole = reserved[0][0], sum(amount for _, amount in parts)
    if len(parts) == 1 or not whole:
        return first
    costs: list[Decimal | None] = []
    for kind in range(len(first.costs)):
        known = [
            (cost, amount)
            for price, amount in parts
            if price is not None and price.currency == first.currency and (cost := price.costs[kind]) is not None
        ]
        mean = None
        if len(known) == len(parts):
            mean = _divide(sum((_ROUNDING.multiply(cost, Decimal(part)) for cost, part in known), Decimal(0)), whole)
        costs.append(mean)
    return replace(first, costs=tuple(costs))


def _divide(amount: Decimal, by: int) -> Decimal:
    return _ROUNDING.divide(amount, Decimal(by)).quantize(_STEP, context=_ROUNDING)


def _facts_of(gpus: NodeGpus, all_gpus: int, price: _Price, sources: PriceSources, hour: datetime | None) -> list[Fact]:
    """The GPU's part of the price, and those of a core and of a GiB of the node."""
    weights, node = sources.weights, gpus.node
    begins = gpus.fact.valid_from
    if price.source in ("Bill", SPOT_SOURCES["Bill"]) and sources.bills is not None and hour is not None:
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
