"""Quotas of GPUs as facts: Kubernetes' ResourceQuota, and Kueue's queues where they are served."""

from __future__ import annotations

import logging
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from gpuwaste.cluster.api import list_pages
from gpuwaste.cluster.errors import ApiError, NotFoundError
from gpuwaste.cluster.kinds import ResourceKind
from gpuwaste.cluster.quantity import whole_count
from gpuwaste.cluster.records import RecordRules
from gpuwaste.model.facts import Fact, QuotaData
from gpuwaste.model.units import parse_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from gpuwaste.cluster.api import ClusterApi, Json

__all__ = ["quota_facts", "read_quotas"]

_log = logging.getLogger(__name__)
_RESOURCE_QUOTAS = ResourceKind(group="", version="v1", plural="resourcequotas", kind="ResourceQuota", namespaced=True)
_KUEUE_VERSIONS = ("v1beta2", "v1beta1", "v1alpha1")
"""Newest first; a cohort has been `cohortName` since v1beta2, and `cohort` before."""
_KUEUE_KINDS = ("ClusterQueue", "LocalQueue", "Cohort")
_REQUESTS = "requests."
_Offered = tuple[str, str]
"""Flavor and resource."""


async def read_quotas(api: ClusterApi) -> list[Json]:
    """All ResourceQuotas, and Kueue's queues and cohorts; what is not served or may not be read is left out.

    Raises:
        UnreachableError: the API server did not answer.
    """
    kinds = [_RESOURCE_QUOTAS]
    for kind in _KUEUE_KINDS:
        served = await _served(api, kind)
        if served is not None:
            kinds.append(served)
    found: list[Json] = []
    for one in kinds:
        try:
            found += await _listed(api, one)
        except ApiError as error:
            _log.debug("%s cannot be read: %s", one.plural, error)
    return found


async def _served(api: ClusterApi, kind: str) -> ResourceKind | None:
    """The newest version of a kind of Kueue that is served; None where Kueue is not there."""
    for version in _KUEUE_VERSIONS:
        try:
            return await api.resolve(f"kueue.x-k8s.io/{version}", kind)
        except NotFoundError:
            continue
    return None


async def _listed(api: ClusterApi, kind: ResourceKind) -> list[Json]:
    return [{**item, "kind": kind.kind} async for page in list_pages(api, kind) for item in page.items]


def quota_facts(items: Iterable[Json], rules: RecordRules | None = None) -> list[Fact]:
    """Facts of quotas that limit GPUs, and of the queues that lead to them, sorted by key."""
    rules = rules or RecordRules()
    known = list(items)
    borrowable = _borrowable(known, rules)
    facts = []
    for item in known:
        metadata, spec = item["metadata"], item.get("spec") or {}
        if item["kind"] == "Cohort":
            continue
        gpus = _of_quota(spec, rules) if item["kind"] == "ResourceQuota" else _by_resource(_nominal(spec, rules))
        queue = str(spec.get("clusterQueue", ""))
        borrowed = borrowable.get(metadata["name"]) if item["kind"] == "ClusterQueue" else None
        if not gpus and not queue:
            continue
        data = QuotaData(
            source=item["kind"],
            name=metadata["name"],
            namespace=metadata.get("namespace") or "",
            gpus=gpus,
            queue=queue,
            borrowable=borrowed,
        )
        valid_from = parse_time(metadata["creationTimestamp"])
        facts.append(Fact(kind="quota", uid=metadata["uid"], valid_from=valid_from, valid_to=None, data=data))
    return sorted(facts, key=lambda fact: fact.key)


def _of_quota(spec: Json, rules: RecordRules) -> dict[str, int]:
    hard: dict[str, Any] = spec.get("hard") or {}
    named = {name.removeprefix(_REQUESTS): amount for name, amount in hard.items() if name.startswith(_REQUESTS)}
    return {name: whole_count(named[name]) for name in sorted(named) if rules.is_gpu(name)}


def _offers(spec: Json, rules: RecordRules) -> Iterator[tuple[_Offered, Json]]:
    """The quotas of GPUs of a ClusterQueue or Cohort, by flavor and resource."""
    for group in spec.get("resourceGroups") or ():
        for flavor in group.get("flavors") or ():
            for resource in flavor.get("resources") or ():
                if rules.is_gpu(resource["name"]):
                    yield (str(flavor.get("name", "")), resource["name"]), resource


def _nominal(spec: Json, rules: RecordRules) -> dict[_Offered, int]:
    found: dict[_Offered, int] = defaultdict(int)
    for offered, one in _offers(spec, rules):
        found[offered] += whole_count(one.get("nominalQuota", 0))
    return found


def _by_resource(counts: Mapping[_Offered, int]) -> dict[str, int]:
    found: dict[str, int] = defaultdict(int)
    for (_, resource), count in counts.items():
        found[resource] += count
    return dict(sorted(found.items()))


def _borrowable(items: Sequence[Json], rules: RecordRules) -> dict[str, dict[str, int]]:
    """By ClusterQueue, what it may borrow at most of each resource; those that may not are left out.

    A queue borrows what others of its cohort, or of its cohort's tree, lend of the same flavor: their nominal quota up
    to their lendingLimit, and what cohorts have of their own; all of it up to the queue's own borrowingLimit. Limits
    that cohorts within a tree put on each other are not looked at, so this is never too little.
    """
    specs = {(item["kind"], item["metadata"]["name"]): item.get("spec") or {} for item in items}
    parents = {
        name: str(spec.get("parentName") or spec.get("parent") or "")
        for (kind, name), spec in specs.items()
        if kind == "Cohort"
    }
    lent: dict[str, dict[str, dict[_Offered, int]]] = defaultdict(dict)
    for (kind, name), spec in specs.items():
        if kind not in ("ClusterQueue", "Cohort"):
            continue
        cohort = name if kind == "Cohort" else _cohort_of(spec)
        if cohort:
            offers = {offered: _limited(one, "lendingLimit") for offered, one in _offers(spec, rules)}
            lent[_root(cohort, parents)][f"{kind}/{name}"] = offers
    found = {}
    for (kind, name), spec in specs.items():
        if kind != "ClusterQueue" or not _cohort_of(spec):
            continue
        others = [o for who, o in lent[_root(_cohort_of(spec), parents)].items() if who != f"ClusterQueue/{name}"]
        counts = {}
        for offered, own in _offers(spec, rules):
            limit = own.get("borrowingLimit")
            there = sum(offers.get(offered, 0) for offers in others)
            counts[offered] = there if limit is None else min(there, whole_count(limit))
        borrowed = {resource: count for resource, count in _by_resource(counts).items() if count}
        if borrowed:
            found[name] = borrowed
    return found


def _cohort_of(spec: Json) -> str:
    return str(spec.get("cohortName") or spec.get("cohort") or "")


def _limited(resource: Json, limit: str) -> int:
    nominal = whole_count(resource.get("nominalQuota", 0))
    return nominal if resource.get(limit) is None else min(nominal, whole_count(resource[limit]))


def _root(cohort: str, parents: Mapping[str, str]) -> str:
    seen = {cohort}
    while parents.get(cohort) and parents[cohort] not in seen:
        cohort = parents[cohort]
        seen.add(cohort)
    return cohort
