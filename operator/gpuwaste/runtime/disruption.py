"""What limits evictions and moves now, as facts: PodDisruptionBudgets, and nodes that take no further pods."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from gpuwaste.cluster.api import list_pages
from gpuwaste.cluster.errors import ApiError
from gpuwaste.cluster.kinds import POD_DISRUPTION_BUDGETS
from gpuwaste.cluster.scheduling import label_selector
from gpuwaste.model.facts import BudgetData, CordonData, Fact
from gpuwaste.model.units import parse_time

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gpuwaste.cluster.api import ClusterApi, Json
    from gpuwaste.cluster.state import ClusterSnapshot

__all__ = ["budget_facts", "cordon_facts", "read_budgets"]

_log = logging.getLogger(__name__)


async def read_budgets(api: ClusterApi) -> list[Json]:
    """All PodDisruptionBudgets; none where they may not be read, which is noted.

    Raises:
        UnreachableError: the API server did not answer.
    """
    found: list[Json] = []
    try:
        async for page in list_pages(api, POD_DISRUPTION_BUDGETS):
            found += page.items
    except ApiError as error:
        _log.debug("disruption budgets cannot be read: %s", error)
    return found


def budget_facts(items: Iterable[Json]) -> list[Fact]:
    """Facts of budgets, sorted by key. One that its controller has not looked at since it changed allows nothing."""
    facts = []
    for item in items:
        metadata, spec, status = item["metadata"], item.get("spec") or {}, item.get("status") or {}
        seen = int(status.get("observedGeneration", 0)) >= int(metadata.get("generation", 1))
        data = BudgetData(
            namespace=metadata["namespace"],
            name=metadata["name"],
            selector=label_selector(spec.get("selector")),
            disruptions_allowed=int(status.get("disruptionsAllowed", 0)) if seen else 0,
        )
        start = parse_time(metadata["creationTimestamp"])
        facts.append(Fact(kind="budget", uid=metadata["uid"], valid_from=start, valid_to=None, data=data))
    return sorted(facts, key=lambda fact: fact.key)


def cordon_facts(snapshot: ClusterSnapshot) -> list[Fact]:
    """Facts of the GPU nodes that are cordoned, sorted by key."""
    cordoned = (record for record in snapshot.nodes.values() if record.unschedulable)
    facts = [
        Fact(
            kind="cordon",
            uid=record.uid,
            valid_from=record.start,
            valid_to=None,
            data=CordonData(node=record.data.name),
        )
        for record in cordoned
        if record.data.name in snapshot.gpu_nodes
    ]
    return sorted(facts, key=lambda fact: fact.key)
