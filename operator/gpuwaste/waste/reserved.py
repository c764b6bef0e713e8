"""What is set aside against what is held and used: requests, quotas and purchases, by namespace, team or pool."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Final, Literal, TypeVar

import pyarrow.compute as pc

from gpuwaste.ledger.join import FactIndex, pool_name
from gpuwaste.model.facts import NodeData, PodData, QuotaData, ReservationData, requested
from gpuwaste.model.resources import resource_product
from gpuwaste.model.units import HOUR, NS_PER_HOUR, hour_start
from gpuwaste.waste.figures import gpu_hours, summarise
from gpuwaste.waste.reservations import bought_by_pool
from gpuwaste.waste.windows import newest_hour

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    import pyarrow as pa

    from gpuwaste.model.facts import Fact
    from gpuwaste.settings.teams import TeamRules

__all__ = [
    "RESERVED_BY",
    "ReservedBy",
    "ReservedRow",
    "over_clusters",
    "purchases_once",
    "reserved_against_used",
]

ReservedBy = Literal["namespace", "team", "pool"]
RESERVED_BY: Final = ("namespace", "team", "pool")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReservedRow:
    """One namespace, team or pool.

    Attributes:
        name: which; empty is what nobody has.
        requested: device slices that its running pods ask for; a limit on GPUs is always equal to the request.
        quota: device slices that its ResourceQuotas allow, the least of several; None without one.
        queue_quota: device slices of the Kueue queues that it may use, which others may use as well; None without.
        queue_borrowable: what these queues may have beyond that, at most, while others of their cohorts leave it
            unused; None where none may borrow.
        bought: GPUs purchased for it.
        held: GPUs that it holds in the newest hour, with parts of shared ones.
        effective: GPUs' worth of work; None where nothing is measured.
        waiting_pods: pods that wait for GPUs.
        longest_wait_seconds: how long the first of them has waited; None where none waits.
        cluster: where; empty where it stands for several.
    """

    name: str
    requested: int
    quota: int | None
    queue_quota: int | None
    bought: int
    held: Decimal
    effective: Decimal | None
    waiting_pods: int
    longest_wait_seconds: int | None
    cluster: str = ""
    queue_borrowable: int | None = None


def reserved_against_used(
    facts: Sequence[Fact], rows: pa.Table, *, by: ReservedBy, at: datetime, teams: TeamRules, pool_label: str = ""
) -> list[ReservedRow]:
    """Set requests, quotas and purchases beside what is held and used.

    Args:
        facts: of the hour: pods, those that wait, nodes, namespaces, quotas and reservations.
        rows: rows of LEDGER_SCHEMA; the newest hour counts.
        by: what a row stands for.
        at: the moment; what is over by then, or has not begun, does not count.
        teams: who owns the cost of a pod.
        pool_label: a node label that names the pool before the well-known ones.

    Returns:
        Rows, most held first.
    """
    now = [fact for fact in facts if fact.valid_from <= at and (fact.valid_to is None or fact.valid_to > at)]
    index = FactIndex.build(now, start=hour_start(at), end=hour_start(at) + HOUR)
    view = _View(by=by, index=index, teams=teams, pool_label=pool_label)
    asked: dict[str, int] = defaultdict(int)
    waits: dict[str, list[datetime]] = defaultdict(list)
    for fact in now:
        if isinstance(fact.data, PodData) and (count := sum(requested(fact.data).gpus.values())):
            for name in view.of_pod(fact.data):
                if fact.kind == "pending":
                    waits[name].append(fact.valid_from)
                else:
                    asked[name] += count
    quotas, bought = view.quotas(now), view.bought(now, at)
    queues, borrowable = view.queues(now)
    held, effective = _used(rows, by)
    names = {*asked, *waits, *quotas, *queues, *bought, *held}
    found = [
        ReservedRow(
            name=name,
            requested=asked.get(name, 0),
            quota=quotas.get(name),
            queue_quota=queues.get(name),
            queue_borrowable=borrowable.get(name),
            bought=bought.get(name, 0),
            held=gpu_hours(held.get(name, 0)),
            effective=None if effective.get(name) is None else gpu_hours(effective[name] or 0),
            waiting_pods=len(waits.get(name, ())),
            longest_wait_seconds=round((at - min(waits[name])).total_seconds()) if waits.get(name) else None,
        )
        for name in names
    ]
    return sorted(found, key=lambda row: (-row.held, -row.requested, row.name))


def purchases_once(clusters: Mapping[str, Sequence[Fact]]) -> dict[str, list[Fact]]:
    """The facts of each cluster, without purchases that one before it has as well."""
    seen: set[tuple[str, int]] = set()
    left: dict[str, list[Fact]] = {}
    for cluster, facts in clusters.items():
        bought = {(f.data.identity, f.data.count) for f in facts if isinstance(f.data, ReservationData)}
        left[cluster] = [
            fact
            for fact in facts
            if not isinstance(fact.data, ReservationData) or (fact.data.identity, fact.data.count) not in seen
        ]
        seen |= bought
    return left


def over_clusters(found: Mapping[str, Sequence[ReservedRow]], *, by: ReservedBy) -> list[ReservedRow]:
    """Rows of several clusters, most held first: a team is one row, namespaces and pools are one in each cluster."""
    several = len(found) > 1
    groups: dict[tuple[str, str], list[ReservedRow]] = defaultdict(list)
    for cluster, rows in found.items():
        for row in rows:
            groups["" if by == "team" else cluster, row.name].append(row)
    merged = [
        replace(
            rows[0],
            cluster=cluster if several else "",
            requested=sum(row.requested for row in rows),
            quota=_sum_known([row.quota for row in rows]),
            queue_quota=_sum_known([row.queue_quota for row in rows]),
            queue_borrowable=_sum_known([row.queue_borrowable for row in rows]),
            bought=sum(row.bought for row in rows),
            held=sum((row.held for row in rows), Decimal(0)),
            effective=_sum_known([row.effective for row in rows]),
            waiting_pods=sum(row.waiting_pods for row in rows),
            longest_wait_seconds=max((w for row in rows if (w := row.longest_wait_seconds) is not None), default=None),
        )
        for (cluster, _), rows in groups.items()
    ]
    return sorted(merged, key=lambda row: (-row.held, -row.requested, row.name, row.cluster))


_Number = TypeVar("_Number", int, Decimal)


def _sum_known(values: Sequence[_Number | None]) -> _Number | None:
    known = [value for value in values if value is not None]
    return sum(known[1:], known[0]) if known else None


def _used(rows: pa.Table, by: ReservedBy) -> tuple[dict[str, int], dict[str, int | None]]:
    """Held and effective in the newest hour, as nanoseconds of GPU an hour."""
    gpus = rows.filter(pc.and_(pc.equal(rows["resource"], "gpu"), pc.not_equal(rows["gpu_uuid"], "")))
    if not gpus.num_rows:
        return {}, {}
    newest, length = newest_hour(gpus)
    sums = {name: figures for (name,), figures in summarise(newest, (by,)).items()}
    held = {name: one["held"] * NS_PER_HOUR // length for name, one in sums.items() if one["held"]}
    effective = {name: sums[name].amounts["effective"] for name in held}
    return held, {name: None if one is None else one * NS_PER_HOUR // length for name, one in effective.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """How things are named by what a row stands for."""

    by: ReservedBy
    index: FactIndex
    teams: TeamRules
    pool_label: str

    def of_pod(self, pod: PodData) -> list[str]:
        """The row of a pod; one that waits belongs to every pool that offers what it asks for."""
        if self.by == "namespace":
            return [pod.namespace]
        if self.by == "team":
            return [self._team(pod.namespace, pod)]
        nodes = [data for _, _, data in self.index.nodes.values() if pod.node in ("", data.name)]
        return sorted({pool for node in nodes for pool in self._pools(node, requested(pod).gpus)})

    def _pools(self, node: NodeData, resources: Iterable[str]) -> Iterable[str]:
        for resource in resources:
            if resource in node.gpus:
                product = self.index.product_on.get(node.name) or resource_product(node.labels, resource)
                yield pool_name(node, product, label=self.pool_label)

    def _team(self, namespace: str, pod: PodData | None = None) -> str:
        about = self.index.namespaces.get(namespace)
        return self.teams.resolve(
            namespace=namespace,
            namespace_labels=about.labels if about else {},
            namespace_annotations=about.annotations if about else {},
            pod_labels=pod.labels if pod else {},
            pod_annotations=pod.annotations if pod else {},
        ).team

    def quotas(self, facts: Iterable[Fact]) -> dict[str, int]:
        """By row, what ResourceQuotas allow: of several in a namespace the least, of a team's namespaces the sum."""
        least: dict[str, dict[str, int]] = defaultdict(dict)
        for fact in facts:
            if isinstance(fact.data, QuotaData) and fact.data.source == "ResourceQuota":
                mine = least[fact.data.namespace]
                for resource, count in fact.data.gpus.items():
                    mine[resource] = min(count, mine.get(resource, count))
        found: dict[str, int] = defaultdict(int)
        for namespace, limits in least.items() if self.by != "pool" else ():
            found[namespace if self.by == "namespace" else self._team(namespace)] += sum(limits.values())
        return dict(found)

    def queues(self, facts: Iterable[Fact]) -> tuple[dict[str, int], dict[str, int]]:
        """By row, the nominal quota of the ClusterQueues that its LocalQueues lead to, each counted once.

        And what those may borrow at most, of the queues that may.
        """
        data = [fact.data for fact in facts if isinstance(fact.data, QuotaData)]
        nominal = {one.name: sum(one.gpus.values()) for one in data if one.source == "ClusterQueue"}
        used: dict[str, set[str]] = defaultdict(set)
        for one in data:
            if one.source == "LocalQueue" and one.queue in nominal and self.by != "pool":
                used[one.namespace if self.by == "namespace" else self._team(one.namespace)].add(one.queue)
        borrowed = {one.name: sum(one.borrowable.values()) for one in data if one.borrowable}
        return (
            {name: sum(nominal[queue] for queue in queues) for name, queues in used.items()},
            {
                name: sum(borrowed.get(queue, 0) for queue in queues)
                for name, queues in used.items()
                if borrowed.keys() & queues
            },
        )

    def bought(self, facts: Sequence[Fact], at: datetime) -> dict[str, int]:
        """By row, GPUs purchased for it; those of the platform belong to the row without a name."""
        if self.by == "pool":
            counted = bought_by_pool(facts, at=at, pool_label=self.pool_label)
            return {pool: sum(parts) for pool, parts in counted.items()}
        found: dict[str, int] = defaultdict(int)
        for fact in facts:
            if isinstance(fact.data, ReservationData):
                one = fact.data
                team = one.owner_team or (self._team(one.owner_namespace) if one.owner_namespace else "")
                found[one.owner_namespace if self.by == "namespace" else team] += one.count
        return dict(found)
