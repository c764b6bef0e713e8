"""Purchased capacity: which GPUs of the cluster it covers, and what of it the cluster does not have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpuwaste.model.facts import Fact, GpuData, NodeData, ReservationData
from gpuwaste.model.pools import node_pool
from gpuwaste.model.resources import is_measured, labelled_product, resource_product
from gpuwaste.pricing.capacity import Capacity, capacity_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Cover", "NodeGpus", "cover_nodes", "gpus_by_node"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeGpus:
    """The GPUs of one product on one node."""

    fact: Fact
    node: NodeData
    product: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cover:
    """How many of a node's GPUs a reservation covers."""

    reservation: Fact
    node: NodeGpus
    gpus: int


def gpus_by_node(facts: Iterable[Fact]) -> list[NodeGpus]:
    """What GPUs each node has, by its agent, else by its labels and capacity; sorted by node and product."""
    listed = list(facts)
    described: dict[str, dict[str, set[str]]] = {}
    for fact in listed:
        if isinstance(fact.data, GpuData):
            product = fact.data.product or fact.data.model
            described.setdefault(fact.data.node, {}).setdefault(product, set()).add(fact.uid)
    found = []
    for fact in listed:
        if not isinstance(fact.data, NodeData):
            continue
        node = fact.data
        known = {product: len(uuids) for product, uuids in described.get(node.name, {}).items() if product}
        label = labelled_product(node.labels)
        counted = int(node.labels.get("nvidia.com/gpu.count", "0") or 0)
        if len(known) == 1:  # one that its agent could not read is there all the same
            known = {product: max(count, counted) for product, count in known.items()}
        if not known and label:
            known = {label: counted or sum(n for name, n in node.gpus.items() if is_measured(name))}
        for resource, count in node.gpus.items():
            if not is_measured(resource):
                product = resource_product(node.labels, resource)
                known[product] = known.get(product, 0) + count
        found += [NodeGpus(fact=fact, node=node, product=name, count=known[name]) for name in sorted(known)]
    return sorted(found, key=lambda one: (one.node.name, one.fact.key, one.product))


def cover_nodes(facts: Sequence[Fact], *, pool_label: str = "") -> list[Cover]:
    """Give each reservation the GPUs of its model and pool, never a spot node's, until its count is reached.

    Nodes whose labels say that they are reserved come first, then the oldest, then by name. Reservations that name a
    pool choose before those that do not, and of equals the one that began first. What one has taken no other takes.

    Args:
        facts: of one hour: reservations, nodes and GPUs.
        pool_label: a node label that names the pool before the well-known ones.
    """
    if not any(isinstance(fact.data, ReservationData) for fact in facts):
        return []
    there = gpus_by_node(facts)
    left = {(one.fact.key, one.product): one.count for one in there}
    nodes = sorted(
        (one for one in there if capacity_of(one.node.labels) is not Capacity.SPOT),
        key=lambda one: (
            capacity_of(one.node.labels) is not Capacity.RESERVED,
            one.fact.valid_from,
            one.node.name,
            one.product,
        ),
    )
    reservations = sorted(
        (fact for fact in facts if isinstance(fact.data, ReservationData)),
        key=lambda fact: (not _data(fact).node_pool, fact.valid_from, _data(fact).name, fact.uid),
    )
    covers: list[Cover] = []
    for reservation in reservations:
        data = _data(reservation)
        wanted = data.count
        for one in nodes:
            if not wanted:
                break
            key = (one.fact.key, one.product)
            if one.product != data.product or not left[key]:
                continue
            if data.node_pool and node_pool(one.node.labels, label=pool_label) != data.node_pool:
                continue
            gpus = min(wanted, left[key])
            left[key] -= gpus
            wanted -= gpus
            covers.append(Cover(reservation=reservation, node=one, gpus=gpus))
    return covers


def _data(fact: Fact) -> ReservationData:
    assert isinstance(fact.data, ReservationData)  # noqa: S101 - the caller chose the facts of reservations
    return fact.data
