"""Who a pod belongs to, and where a node stands: the labels of ledger rows, found in the stored facts."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from gpuwaste.cluster.owners import workload_of
from gpuwaste.model.facts import (
    Fact,
    GpuData,
    NamespaceData,
    NodeData,
    OwnerData,
    OwnerRef,
    PodData,
    PriceData,
    ReadyData,
)
from gpuwaste.model.pools import node_pool
from gpuwaste.model.resources import is_measured, labelled_product, resource_product, stand_in

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from gpuwaste.settings.teams import TeamRules

__all__ = ["FactIndex", "PodLabels", "pool_name"]

_MOMENT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodLabels:
    """What a ledger row says about the pod that holds."""

    namespace: str
    pod: str
    workload: OwnerRef
    team: str


def pool_name(node: NodeData, product: str, *, label: str = "") -> str:
    """`<GPU product>/<node pool>`: the first node-pool label present, else `default`."""
    return f"{product or 'unknown'}/{node_pool(node.labels, label=label)}"


@dataclass(slots=True)
class FactIndex:
    """The facts of one hour by what rows look up."""

    pods: dict[str, list[Fact]] = field(default_factory=lambda: defaultdict(list))
    pods_by_name: dict[tuple[str, str], list[Fact]] = field(default_factory=lambda: defaultdict(list))
    pods_on: dict[str, list[Fact]] = field(default_factory=lambda: defaultdict(list))
    pending: list[PodData] = field(default_factory=list)
    owners: dict[str, OwnerData] = field(default_factory=dict)
    namespaces: dict[str, NamespaceData] = field(default_factory=dict)
    nodes: dict[str, tuple[str, Fact, NodeData]] = field(default_factory=dict)
    gpus: dict[str, list[tuple[Fact, GpuData]]] = field(default_factory=lambda: defaultdict(list))
    prices: dict[tuple[str, str], PriceData] = field(default_factory=dict)
    product_on: dict[str, str] = field(default_factory=dict)
    readiness: dict[str, list[Fact]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def build(cls, facts: Iterable[Fact], *, start: datetime, end: datetime) -> FactIndex:
        """Index what holds in [start, end). Owners and namespaces count whenever they are known at all."""
        index = cls()
        for fact in facts:
            data = fact.data
            if isinstance(data, OwnerData):
                index.owners[fact.uid] = data
            elif isinstance(data, NamespaceData):
                index.namespaces[data.name] = data
            elif fact.overlaps(start, end):
                index._add(fact)
        return index

    def _add(self, fact: Fact) -> None:
        match fact.data:
            case PodData() as pod if fact.kind == "pending":
                self.pending.append(pod)
            case PodData() as pod:
                self.pods[fact.uid].append(fact)
                self.pods_by_name[pod.namespace, pod.name].append(fact)
                self.pods_on[pod.node].append(fact)
            case NodeData() as node:
                known = self.nodes.get(node.name)
                if known is None or known[1].valid_from <= fact.valid_from:
                    self.nodes[node.name] = (fact.uid, fact, node)
            case GpuData() as gpu:
                self.gpus[fact.uid].append((fact, gpu))
                self.product_on.setdefault(gpu.node, gpu.product or gpu.model)
            case ReadyData() as said:
                self.readiness[said.node].append(fact)
            case PriceData() as price:
                self.prices[price.node_uid, price.product] = price
            case _:
                return

    def find_pod(
        self, *, namespace: str, name: str, uid: str, at: datetime, until: datetime | None = None
    ) -> Fact | None:
        """The pod by UID, else the one of that name that ran longest in [at, until), or at `at`.

        Two pods of one name never run at once, but a window may hold the end of one and the start of the next.
        """
        if uid:
            found = self.pods.get(uid, [])
            return found[0] if found else None
        named = self.pods_by_name.get((namespace, name), [])
        last = at + _MOMENT if until is None else until
        ran = [(min(last, fact.valid_to or last) - max(at, fact.valid_from), fact) for fact in named]
        longest, fact = max(ran, key=lambda one: one[0], default=(timedelta(0), None))
        if longest > timedelta(0):
            return fact
        return named[0] if len(named) == 1 else None

    def labels(self, fact: Fact | None, *, namespace: str, name: str, teams: TeamRules) -> PodLabels:
        """Workload and team of a pod; of a pod that no fact describes only its namespace and name are known."""
        pod = fact.data if fact is not None and isinstance(fact.data, PodData) else None
        about = self.namespaces.get(pod.namespace if pod else namespace)
        team = teams.resolve(
            namespace=pod.namespace if pod else namespace,
            namespace_labels=about.labels if about else {},
            namespace_annotations=about.annotations if about else {},
            pod_labels=pod.labels if pod else {},
            pod_annotations=pod.annotations if pod else {},
        ).team
        if pod is None or fact is None:
            return PodLabels(
                namespace=namespace,
                pod=name,
                team=team,
                workload=OwnerRef(api_version="v1", kind="Pod", name=name, uid=""),
            )
        return PodLabels(
            namespace=pod.namespace, pod=pod.name, team=team, workload=workload_of(fact.uid, pod, self.owners)
        )

    def product_of(self, gpu_uuid: str, node: str) -> str:
        """Product of a GPU: what its agent said, else the node's label, else empty.

        Without a GPU, what the node's CPU and memory belong to: the product of its first GPU.
        """
        for _, gpu in self.gpus.get(gpu_uuid, []):
            if gpu.product or gpu.model:
                return gpu.product or gpu.model
        if not gpu_uuid and self.product_on.get(node):
            return self.product_on[node]
        known = self.nodes.get(node)
        if known is None:
            return ""
        data = known[2]
        others = [resource for resource in data.gpus if not is_measured(resource)]
        for resource in others:
            if gpu_uuid.startswith(stand_in(node, resource, 0)[:-1]):
                return resource_product(data.labels, resource)
        label = labelled_product(data.labels)
        return resource_product(data.labels, others[0]) if others and not gpu_uuid and not label else label
