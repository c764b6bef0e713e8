"""Where the agents are: named in the settings, else the ready pods of the DaemonSet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuwaste.cluster.api import list_pages
from gpuwaste.cluster.kinds import PODS
from gpuwaste.ingest.pull import AgentEndpoint

if TYPE_CHECKING:
    from gpuwaste.cluster.api import ClusterApi
    from gpuwaste.settings.operator import AgentSettings

__all__ = ["find_agents"]


async def find_agents(api: ClusterApi, settings: AgentSettings) -> list[AgentEndpoint]:
    """All agents that can be read now, sorted.

    Raises:
        UnreachableError: the API server did not answer.
    """
    if settings.endpoints:
        return sorted(AgentEndpoint(url=url.rstrip("/")) for url in settings.endpoints)
    found: list[AgentEndpoint] = []
    pages = list_pages(api, PODS, namespace=settings.namespace or None, label_selector=settings.label_selector)
    async for page in pages:
        for pod in page.items:
            address = pod.get("status", {}).get("podIP")
            if address and pod.get("status", {}).get("phase") == "Running":
                host = f"[{address}]" if ":" in address else address
                node = pod.get("spec", {}).get("nodeName", "")
                found.append(AgentEndpoint(url=f"https://{host}:{settings.port}", node=node))
    return sorted(found)
