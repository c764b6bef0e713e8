"""Quotas of GPUs as facts: Kubernetes' ResourceQuota, and Kueue's queues where they are served."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from gpuwaste.cluster.errors import ApiError, NotFoundError
from gpuwaste.cluster.kinds import ResourceKind
from gpuwaste.cluster.quantity import whole_count
from gpuwaste.cluster.records import RecordRules
from gpuwaste.model.facts import Fact, QuotaData
from gpuwaste.model.units import parse_time

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gpuwaste.cluster.api import ClusterApi, Json

__all__ = ["quota_facts", "read_quotas"]

_log = logging.getLogger(__name__)
_RESOURCE_QUOTAS = ResourceKind(group="", version="v1", plural="resourcequotas", kind="ResourceQuota", namespaced=True)
_KUEUE = (("kueue.x-k8s.io/v1beta1", "ClusterQueue"), ("kueue.x-k8s.io/v1beta1", "LocalQueue"))
_REQUESTS = "requests."


async def read_quotas(api: ClusterApi) -> list[Json]:
    """All ResourceQuotas, ClusterQueues and LocalQueues; what is not served or may not be read is left out.

    Raises:
        UnreachableError: the API server did not answer.
    """
    kinds = [_RESOURCE_QUOTAS]
    for api_version, kind in _KUEUE:
        try:
            kinds.append(await api.resolve(api_version, kind))
        except NotFoundError:
            continue  # Kueue is not there
    found: list[Json] = []
    for served in kinds:
        try:
            found += await _listed(api, served)
        except ApiError as error:
            _log.debug("%s cannot be read: %s", served.plural, error)
    return found


async def _listed(api: ClusterApi, kind: ResourceKind) -> list[Json]:
    found: list[Json] = []
    token = ""
    while True:
        page = await api.list_page(kind, continue_token=token)
        found += [{**item, "kind": kind.kind} for item in page.items]
        token = page.continue_token
        if not token:
            return found


def quota_facts(items: Iterable[Json], rules: RecordRules | None = None) -> list[Fact]:
    """Facts of quotas that limit GPUs, and of the queues that lead to them, sorted by key."""
    rules = rules or RecordRules()
    facts = []
    for item in items:
        metadata, spec = item["metadata"], item.get("spec") or {}
        gpus = _of_quota(spec, rules) if item["kind"] == "ResourceQuota" else _of_queue(spec, rules)
        queue = str(spec.get("clusterQueue", ""))
        if not gpus and not queue:
            continue
        data = QuotaData(
            source=item["kind"],
            name=metadata["name"],
            namespace=metadata.get("namespace") or "",
            gpus=gpus,
            queue=queue,
        )
        valid_from = parse_time(metadata["creationTimestamp"])
        facts.append(Fact(kind="quota", uid=metadata["uid"], valid_from=valid_from, valid_to=None, data=data))
    return sorted(facts, key=lambda fact: fact.key)


def _of_quota(spec: Json, rules: RecordRules) -> dict[str, int]:
    hard: dict[str, Any] = spec.get("hard") or {}
    named = {name.removeprefix(_REQUESTS): amount for name, amount in hard.items() if name.startswith(_REQUESTS)}
    return {name: whole_count(named[name]) for name in sorted(named) if rules.is_gpu(name)}


def _of_queue(spec: Json, rules: RecordRules) -> dict[str, int]:
    """Nominal quota of a ClusterQueue over all its flavours."""
    gpus: dict[str, int] = {}
    for group in spec.get("resourceGroups") or ():
        for flavor in group.get("flavors") or ():
            for resource in flavor.get("resources") or ():
                if rules.is_gpu(resource["name"]):
                    count = whole_count(resource.get("nominalQuota", 0))
                    gpus[resource["name"]] = gpus.get(resource["name"], 0) + count
    return dict(sorted(gpus.items()))
