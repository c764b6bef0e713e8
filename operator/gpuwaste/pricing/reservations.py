"""Purchased capacity: which GPUs of the cluster it covers, and what of it the cluster does not have."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from gpuwaste.model.facts import Fact, GpuData, NodeData, ReservationData
from gpuwaste.model.mig_nodes import mig_gpus
from gpuwaste.model.pools import node_pool
from gpuwaste.model.resources import is_measured, labelled_product, resource_product, spelled
from gpuwaste.model.units import to_unix_ns
from gpuwaste.pricing.capacity import Capacity, capacity_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Cover", "CoverTime", "NodeGpus", "cover_nodes", "cover_time", "gpus_by_node"]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverTime:
    """How long a reservation covers how many of a node's GPUs, as nanoseconds of GPU."""

    reservation: Fact
    node: NodeGpus
    gpu_ns: int


def gpus_by_node(facts: Iterable[Fact]) -> list[NodeGpus]:
    """What GPUs each node has, by its agent, else by its labels and capacity; sorted by node and product."""
    listed = list(facts)
    described = _described(listed)
    found = []
    for fact in listed:
        if not isinstance(fact.data, NodeData):
            continue
        node = fact.data
        mine = described.get((node.name, fact.uid)) or described.get((node.name, ""), {})
        known = {product: len(uuids) for product, uuids in mine.items() if product}
        label = labelled_product(node.labels)
        counted = int(node.labels.get("nvidia.com/gpu.count", "0") or 0)
        if len(known) == 1:  # one that its agent could not read is there all the same
            known = {product: max(count, counted) for product, count in known.items()}
        if not known and label:
            known = {label: _counted(node, counted)}
        for resource, count in node.gpus.items():
            if not is_measured(resource):
                product = resource_product(node.labels, resource)
                known[product] = known.get(product, 0) + count
        found += [NodeGpus(fact=fact, node=node, product=name, count=known[name]) for name in sorted(known)]
    return sorted(found, key=lambda one: (one.node.name, one.fact.key, one.product))


def _counted(node: NodeData, counted: int) -> int:
    """GPUs by a node's record: those in MIG mode by their instances, and all by the label that counts them."""
    in_mig = mig_gpus(node)
    if not in_mig:
        return counted or sum(n for name, n in node.gpus.items() if is_measured(name))
    if any(part.resource for gpu in in_mig for part in gpu.parts):  # the label counts instances then
        return len(in_mig)
    return len(in_mig) + node.gpus.get("nvidia.com/gpu", 0)


def _described(facts: Sequence[Fact]) -> dict[tuple[str, str], dict[str, set[str]]]:
    """The UUIDs of GPUs by product, by the name of their node, and its UID where nodes followed under one name."""
    named: dict[str, int] = {}
    for fact in facts:
        if isinstance(fact.data, NodeData):
            named[fact.data.name] = named.get(fact.data.name, 0) + 1
    described: dict[tuple[str, str], dict[str, set[str]]] = {}
    for fact in facts:
        if isinstance(fact.data, GpuData):
            product = fact.data.product or fact.data.model
            # Only where nodes followed one another under a name it matters which of them an agent was on.
            uid = fact.data.node_uid if named.get(fact.data.node, 0) > 1 else ""
            described.setdefault((fact.data.node, uid), {}).setdefault(product, set()).add(fact.uid)
    return described


def cover_nodes(facts: Sequence[Fact], *, pool_label: str = "") -> list[Cover]:
    """Give each reservation the GPUs of its model and pool, never a spot node's, until its count is reached.

    Nodes whose labels say that they are reserved come first, then the oldest, then by name. Reservations that name a
    pool choose before those that do not, and of equals the one that began first. What one has taken no other takes.

    Args:
        facts: of one hour: reservations, nodes and GPUs.
        pool_label: a node label that names the pool before the well-known ones.
    """
    reservations = [fact for fact in facts if isinstance(fact.data, ReservationData)]
    return _cover(reservations, gpus_by_node(facts), pool_label) if reservations else []


def cover_time(facts: Sequence[Fact], *, start: int, end: int, pool_label: str = "") -> list[CoverTime]:
    """What `cover_nodes` says at every moment of a span, summed: terms and nodes may begin and end inside it.

    A purchase that follows on another in the middle of an hour covers from then on what the first one covered, and a
    node that goes makes room for its successor.

    Args:
        facts: of the hour: reservations, nodes and GPUs.
        start: of the span, Unix nanoseconds.
        end: its end.
        pool_label: a node label that names the pool before the well-known ones.

    Returns:
        One entry a reservation and node, in the order in which they cover; those of no time are left out.
    """
    reservations = [fact for fact in facts if isinstance(fact.data, ReservationData)]
    if not reservations:
        return []
    there = gpus_by_node(facts)
    spans = {fact.key: _span(fact, start, end) for fact in (*reservations, *(one.fact for one in there))}
    cuts = sorted({start, end, *(at for first, last in spans.values() if first < last for at in (first, last))})
    covered: dict[tuple[object, ...], CoverTime] = {}
    for first, last in pairwise(cuts):

        def holds(fact: Fact, first: int = first, last: int = last) -> bool:
            return spans[fact.key][0] <= first and last <= spans[fact.key][1]

        for cover in _cover(list(filter(holds, reservations)), [one for one in there if holds(one.fact)], pool_label):
            key = (cover.reservation.key, cover.node.fact.key, cover.node.product)
            before = covered[key].gpu_ns if key in covered else 0
            gpu_ns = before + cover.gpus * (last - first)
            covered[key] = CoverTime(reservation=cover.reservation, node=cover.node, gpu_ns=gpu_ns)
    return list(covered.values())


def _span(fact: Fact, start: int, end: int) -> tuple[int, int]:
    """The part of a span in which a fact held; its end lies before its start where it did not."""
    last = end if fact.valid_to is None else min(end, to_unix_ns(fact.valid_to))
    return max(start, to_unix_ns(fact.valid_from)), last


def _cover(reservations: Sequence[Fact], there: Sequence[NodeGpus], pool_label: str) -> list[Cover]:
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
    covers: list[Cover] = []
    first = sorted(
        reservations, key=lambda fact: (not _data(fact).node_pool, fact.valid_from, _data(fact).name, fact.uid)
    )
    for reservation in first:
        data = _data(reservation)
        wanted = data.count
        for one in nodes:
            if not wanted:
                break
            key = (one.fact.key, one.product)
            if not left[key] or not _is_of(one, data.product):
                continue
            if data.node_pool and node_pool(one.node.labels, label=pool_label) != data.node_pool:
                continue
            gpus = min(wanted, left[key])
            left[key] -= gpus
            wanted -= gpus
            covers.append(Cover(reservation=reservation, node=one, gpus=gpus))
    return covers


def _is_of(gpus: NodeGpus, product: str) -> bool:
    """Whether GPUs are of a product, or devices behind the extended resource that stands in its place."""
    if product in (gpus.product, spelled(gpus.product)):
        return True
    return "/" in product and product in gpus.node.gpus and resource_product(gpus.node.labels, product) == gpus.product


def _data(fact: Fact) -> ReservationData:
    assert isinstance(fact.data, ReservationData)  # noqa: S101 - the caller chose the facts of reservations
    return fact.data
