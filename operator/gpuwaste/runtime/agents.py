"""Where the agents are: named in the settings, else the ready pods of the DaemonSet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuwaste.cluster.kinds import PODS
from gpuwaste.ingest.pull import AgentEndpoint

if TYPE_CHECKING:
    from gpuwaste.cluster.api import ClusterApi
    from gpuwaste.settings.operator import AgentSettings

__all__ = ["find_agents"]

_PAGE = 500


async def find_agents(api: ClusterApi, settings: AgentSettings) -> list[AgentEndpoint]:
    """All agents that can be read now, sorted.

    Raises:
        UnreachableError: the API server did not answer.
    """
    if settings.endpoints:
        return sorted(AgentEndpoint(url=url.rstrip("/")) for url in settings.endpoints)
    found: list[AgentEndpoint] = []
    token = ""
    while True:
        page = await api.list_page(
            PODS,
            namespace=settings.namespace or None,
            label_selector=settings.label_selector,
            limit=_PAGE,
            continue_token=token,
        )
        for pod in page.items:
            address = pod.get("status", {}).get("podIP")
            if address and pod.get("status", {}).get("phase") == "Running":
                host = f"[{address}]" if ":" in address else address
                node = pod.get("spec", {}).get("nodeName", "")
                found.append(AgentEndpoint(url=f"https://{host}:{settings.port}", node=node))
        token = page.continue_token
        if not token:
            return sorted(found)
