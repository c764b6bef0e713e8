"""What a plan may touch: the GPU nodes that can be emptied, the pods on them, and what is left as it is.

A pod is only ever planned onto a node that is like its own in all that could make a difference (see `_group`), and
within such a group as its own rules let it (see `limits`). Facts that were stored before these rules were have none.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING

from gpuwaste.api.common import ObjectRef
from gpuwaste.api.plan import Refusal
from gpuwaste.cluster.owners import workload_of
from gpuwaste.ledger.join import pool_name
from gpuwaste.model.facts import (
    ContainerRequest,
    Fact,
    GpuData,
    NodeData,
    OwnerData,
    PodData,
    PriceData,
    ReservationData,
    requested,
)
from gpuwaste.model.gpu_products import find_product
from gpuwaste.recommend.limits import Limits, held_back, limits_of
from gpuwaste.recommend.movable import CARRIED, PIN_REASONS, carried_by_node, pin_reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

__all__ = ["PlanNode", "PlanPod", "Scope", "facts_at", "scope_of"]

_PLANNED_KINDS = ("budget", "cordon", "gpu", "node", "owner", "pod", "price", "reservation")
_ZONE = "topology.kubernetes.io/zone"
_ARCH = "kubernetes.io/arch"
_MIG_SUFFIX = "-MIG-"
"""In the product label of a node whose GPUs are all cut alike: there, MIG instances are offered as nvidia.com/gpu."""
_MIB = 2**20
_PRICES = ("effective_unit_cost", "billed_unit_cost", "contracted_unit_cost", "list_unit_cost")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanNode:
    """A node that the plan may keep or empty.

    Attributes:
        group: pods of a node may be planned onto nodes of the same group only.
        units: how many of the GPU resource it offers: whole GPUs, or replicas where GPUs are shared.
        gpus: physical GPUs.
        cpu_milli: what its DaemonSets and static pods leave.
        memory_mib: what its DaemonSets and static pods leave.
        hourly: price of the whole node an hour.
        committed: the price is that of a reservation, so that giving the node up saves no money now.
        pinned: a pod on it must not move, so that it stays.
    """

    uid: str
    name: str
    pool: str
    product: str
    group: str
    units: int
    gpus: int
    cpu_milli: int
    memory_mib: int
    hourly: Decimal
    committed: bool
    pinned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanPod:
    """A pod on one of the plan's nodes.

    Attributes:
        node: index of the node it is on.
        units: how many of the node's GPU resource it holds; 0 for a pod without GPU.
        workload_kind: kind of its top owner.
        pinned: it must not move.
    """

    uid: str
    namespace: str
    name: str
    node: int
    cpu_milli: int
    memory_mib: int
    units: int
    workload_kind: str
    pinned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The cluster as a plan sees it.

    Attributes:
        nodes: sorted by name.
        pods: sorted by namespace, name and UID.
        refused: what is left as it is, and why.
        currency: of every price; None where no node has one.
        pool_gpus: physical GPUs of every pool, with those of nodes that are left as they are.
        product_gpus: the same by GPU product.
        reservations: what is bought.
        limits: what pods and nodes mind besides CPU, memory and GPUs.
    """

    nodes: tuple[PlanNode, ...]
    pods: tuple[PlanPod, ...]
    refused: tuple[Refusal, ...]
    currency: str | None
    pool_gpus: dict[str, int]
    product_gpus: dict[str, int]
    reservations: tuple[ReservationData, ...]
    limits: Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gpus:
    """What a node's GPUs are: `resource` is empty and `reason` set where they cannot be planned."""

    product: str
    count: int
    replicas: int = 1
    sharing: str = "EXCLUSIVE"
    resource: str = ""
    units: int = 0
    reason: str = ""
    message: str = ""


def facts_at(facts: Iterable[Fact], at: datetime) -> list[Fact]:
    """The facts that a plan is made of and that hold at `at`, sorted.

    Owners count whenever they are known; a GPU counts from its first description on, which an agent may send later
    than the GPU was there.
    """
    holding: dict[tuple[str, str], Fact] = {}
    for fact in sorted(facts, key=lambda one: one.key):
        key, ended = (fact.kind, fact.uid), fact.valid_to is not None and fact.valid_to <= at
        lives = fact.valid_from <= at and not ended
        described_later = fact.kind == "gpu" and not ended and key not in holding
        if fact.kind in _PLANNED_KINDS and (lives or described_later or fact.kind == "owner"):
            holding[key] = fact
    return [holding[key] for key in sorted(holding)]


def scope_of(facts: Sequence[Fact], *, pool_label: str = "") -> Scope:
    """Sort the cluster into what the plan may touch and what it leaves as it is.

    Args:
        facts: what holds at one moment, as `facts_at` returns it.
        pool_label: a node label that names the pool before the well-known ones.
    """
    owners = {fact.uid: fact.data for fact in facts if isinstance(fact.data, OwnerData)}
    prices = {(p.node_uid, p.product): p for p in (fact.data for fact in facts) if isinstance(p, PriceData)}
    gpus_on: dict[str, list[GpuData]] = defaultdict(list)
    pods_on: dict[str, list[Fact]] = defaultdict(list)
    for fact in facts:
        if isinstance(fact.data, GpuData):
            gpus_on[fact.data.node].append(fact.data)
        elif isinstance(fact.data, PodData):
            pods_on[fact.data.node].append(fact)
    with_gpus = [
        (fact, node, _gpus_of(node, _own(gpus_on[node.name], fact.uid)))
        for fact, node in ((fact, fact.data) for fact in facts)
        if isinstance(node, NodeData) and (node.gpus or gpus_on[node.name])
    ]
    currency = _main_currency(prices, with_gpus)
    view = _View(owners=owners, prices=prices, currency=currency, held=held_back(facts))
    pool_gpus: Counter[str] = Counter()
    product_gpus: Counter[str] = Counter()
    nodes: list[PlanNode] = []
    pods: list[PlanPod] = []
    refused: list[Refusal] = []
    for fact, node, gpus in sorted(with_gpus, key=lambda one: one[1].name):
        pool = pool_name(node, gpus.product, label=pool_label)
        pool_gpus[pool] += gpus.count
        product_gpus[gpus.product] += gpus.count
        price = prices.get((fact.uid, gpus.product))
        rest = [prices[key] for name in ("cpu", "memory") if (key := (fact.uid, name)) in prices]
        planned, own, held = _planned(
            fact, gpus=gpus, pool=pool, price=price, rest=rest, on_node=pods_on[node.name], view=view
        )
        refused += held
        if planned is not None:
            pods += [replace(pod, node=len(nodes)) for pod in own]
            nodes.append(planned)
    pods.sort(key=lambda pod: (pod.namespace, pod.name, pod.uid))
    return Scope(
        nodes=tuple(nodes),
        pods=tuple(pods),
        refused=tuple(refused),
        currency=currency,
        pool_gpus=dict(pool_gpus),
        product_gpus=dict(product_gpus),
        reservations=tuple(fact.data for fact in facts if isinstance(fact.data, ReservationData)),
        limits=limits_of(facts, nodes=[node.uid for node in nodes], pods=[(pod.uid, pod.node) for pod in pods]),
    )


def _own(gpus: list[GpuData], node_uid: str) -> list[GpuData]:
    """The GPUs of this node, not of an earlier one of the same name."""
    return [gpu for gpu in gpus if gpu.node_uid in ("", node_uid)]


def _main_currency(prices: dict[tuple[str, str], PriceData], nodes: list[tuple[Fact, NodeData, _Gpus]]) -> str | None:
    """The currency that most nodes are priced in: amounts of two currencies are never added."""
    found = Counter(
        price.currency for fact, _, gpus in nodes if (price := prices.get((fact.uid, gpus.product))) is not None
    )
    return min(found, key=lambda name: (-found[name], name)) if found else None


def _gpus_of(node: NodeData, known: list[GpuData]) -> _Gpus:
    """The GPUs of a node as its agent described them, else as its labels do."""
    label = node.labels.get("nvidia.com/gpu.product", "")
    labelled = find_product(label) if label else None
    product = labelled.name if labelled else label
    offered = {name: count for name, count in node.gpus.items() if count}
    if known:
        product = known[0].product or known[0].model or product
        count, replicas, sharing = len(known), known[0].replicas, known[0].sharing
    else:
        replicas = _whole(node.labels.get("nvidia.com/gpu.replicas")) or 1
        count = _whole(node.labels.get("nvidia.com/gpu.count")) or sum(offered.values()) // replicas
        sharing = "EXCLUSIVE" if replicas == 1 else "TIME_SLICING"
    reason, message = _unplannable(node, known, offered)
    if reason:
        return _Gpus(product=product, count=count, reason=reason, message=message)
    ((resource, units),) = offered.items()
    return _Gpus(product=product, count=count, replicas=replicas, sharing=sharing, resource=resource, units=units)


def _whole(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0


def _unplannable(node: NodeData, known: list[GpuData], offered: dict[str, int]) -> tuple[str, str]:
    labelled = _MIG_SUFFIX in node.labels.get("nvidia.com/gpu.product", "")
    if labelled or any(gpu.mig_enabled for gpu in known) or any("/mig-" in name for name in offered):
        return "MIGMode", "GPUs in MIG mode, which a plan does not change yet"
    if len({(gpu.product, gpu.model, gpu.replicas, gpu.sharing) for gpu in known}) > 1:
        return "MixedGPUs", "its GPUs differ in product or sharing"
    if not offered:
        return "NoGPUsOffered", "it has GPUs but offers none of them to pods"
    if len(offered) > 1:
        return "SeveralGPUResources", f"it offers several GPU resources: {', '.join(sorted(offered))}"
    if not node.cpu_milli or not node.memory_bytes:
        return "UnknownCapacity", "its allocatable CPU or memory is not known"
    return "", ""


def _group(node: NodeData, gpus: _Gpus, pool: str) -> str:
    """Nodes of one group are alike in all that the facts know and that could keep a pod off a node."""
    parts = (
        pool,
        gpus.resource,
        f"{gpus.replicas}x{gpus.sharing}",
        node.labels.get(_ZONE, ""),
        node.labels.get(_ARCH, ""),
    )
    return "|".join((*parts, *node.taints))


def _planned(
    fact: Fact,
    *,
    gpus: _Gpus,
    pool: str,
    price: PriceData | None,
    rest: Sequence[PriceData],
    on_node: Sequence[Fact],
    view: _View,
) -> tuple[PlanNode | None, list[PlanPod], list[Refusal]]:
    """A node with its pods (their `node` is set later), or None, and what is refused of them."""
    node = fact.data
    assert isinstance(node, NodeData)  # noqa: S101 - the caller chose the facts of nodes
    pods = [_pod(one, gpus.resource, view) for one in on_node]
    price = view.prices.get((fact.uid, gpus.product))
    rest = [view.prices[key] for name in ("cpu", "memory") if (key := (fact.uid, name)) in view.prices]
    hourly = _hourly(price, gpus.count, node, rest)
    reason, message = gpus.reason, gpus.message
    if not reason and hourly is None:
        reason, message = "UnknownPrice", f"no price is known for {gpus.product or 'its GPUs'} on it"
    elif not reason and price is not None and price.currency != view.currency:
        reason, message = "OtherCurrency", f"it is priced in {price.currency}, the plan in {view.currency}"
    elif not reason and any(container.claims for one in on_node for container in _containers(one)):
        reason, message = "ResourceClaims", "pods hold its GPUs through resource claims, whose amounts are not known"
    if reason or hourly is None or price is None:
        return None, [], [_of_node(fact.uid, node.name, reason, message)]
    carried = [pod for pod, why in pods if why == CARRIED]
    planned = PlanNode(
        uid=fact.uid,
        name=node.name,
        pool=pool,
        product=gpus.product,
        group=_group(node, gpus, pool),
        units=gpus.units - sum(pod.units for pod in carried),
        gpus=gpus.count,
        cpu_milli=node.cpu_milli - sum(pod.cpu_milli for pod in carried),
        memory_mib=node.memory_bytes // _MIB - sum(pod.memory_mib for pod in carried),
        hourly=hourly,
        committed=price.source.lower().startswith("reservation"),
        pinned=any(why not in ("", CARRIED) for _, why in pods),
    )
    own = [replace(pod, pinned=bool(why)) for pod, why in pods if why != CARRIED]
    if _overfull(planned, own):
        return None, [], [_of_node(fact.uid, node.name, "Overfull", "its pods ask for more than it offers")]
    held = [_of_pod(pod, why, node.name) for pod, why in pods if why not in ("", CARRIED)]
    return planned, own, held


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """What every node is looked at with."""

    owners: dict[str, OwnerData]
    prices: dict[tuple[str, str], PriceData]
    currency: str | None
    held: dict[str, str]


def _containers(fact: Fact) -> tuple[ContainerRequest, ...]:
    return fact.data.containers if isinstance(fact.data, PodData) else ()


def _hourly(price: PriceData | None, gpus: int, node: NodeData, rest: Sequence[PriceData]) -> Decimal | None:
    """Price of a whole node, its CPU and memory with it; what is paid in the end comes before what a list says."""
    known = None if price is None else _unit_cost(price)
    if known is None:
        return None
    amount = {"cpu": Decimal(node.cpu_milli) / 1000, "memory": Decimal(node.memory_bytes) / 2**30}
    return known * gpus + sum(((_unit_cost(one) or Decimal(0)) * amount[one.resource] for one in rest), Decimal(0))


def _unit_cost(price: PriceData) -> Decimal | None:
    known = next((cost for name in _PRICES if (cost := getattr(price, name)) is not None), None)
    return None if known is None else Decimal(known)


def _pod(fact: Fact, resource: str, view: _View) -> tuple[PlanPod, str]:
    """A pod, and why it does not move; empty if it may, `CARRIED` if it goes with its node."""
    pod = fact.data
    assert isinstance(pod, PodData)  # noqa: S101 - the caller chose the facts of pods
    asked = requested(pod)
    workload = workload_of(fact.uid, pod, view.owners)
    planned = PlanPod(
        uid=fact.uid,
        namespace=pod.namespace,
        name=pod.name,
        node=-1,
        cpu_milli=asked.cpu_milli,
        memory_mib=-(-asked.memory_bytes // _MIB),
        units=asked.gpus.get(resource, 0),
        workload_kind=workload.kind,
    )
    if carried_by_node(pod):
        return planned, CARRIED
    return planned, pin_reason(pod, workload.kind) or view.held.get(fact.uid, "")


def _overfull(node: PlanNode, pods: list[PlanPod]) -> bool:
    return (
        sum(pod.units for pod in pods) > node.units
        or sum(pod.cpu_milli for pod in pods) > node.cpu_milli
        or sum(pod.memory_mib for pod in pods) > node.memory_mib
    )


def _of_node(uid: str, name: str, reason: str, message: str) -> Refusal:
    return Refusal(
        target=ObjectRef(api_version="v1", kind="Node", name=name, uid=uid), reason=reason, message=message[:1024]
    )


def _of_pod(pod: PlanPod, reason: str, node: str) -> Refusal:
    target = ObjectRef(api_version="v1", kind="Pod", namespace=pod.namespace, name=pod.name, uid=pod.uid)
    message = f"keeps node {node}: {PIN_REASONS[reason]}"
    return Refusal(target=target, reason=reason, message=message[:1024])
