"""kopf around the loop: login, start, stop, liveness, and the handlers of our own kinds."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import kopf

from gpuwaste.cluster.login import login
from gpuwaste.model.errors import UnreachableError

if TYPE_CHECKING:
    from pathlib import Path

    from gpuwaste.runtime.loop import Operator

__all__ = ["configure", "run_kopf"]

_REQUEST_SECONDS = 60
_PAGE = 500


def configure(settings: kopf.OperatorSettings) -> None:
    """Kopf's settings: nothing of ours on foreign objects, no peering, small pages, few workers."""
    settings.persistence.finalizer = "gpuwaste.dev/operator"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix="kopf.gpuwaste.dev")
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix="kopf.gpuwaste.dev")
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.networking.request_timeout = _REQUEST_SECONDS
    settings.watching.chunk_size = _PAGE
    settings.peering.standalone = True


async def run_kopf(
    operator: Operator, registry: kopf.OperatorRegistry, *, kubeconfig: Path | None, context: str | None
) -> None:
    """Run the loop and kopf side by side until either ends or the task is cancelled.

    Args:
        operator: the assembled operator.
        registry: handlers of our kinds.
        kubeconfig: file to log in with; None for the usual places.
        context: context of it.

    Raises:
        UnreachableError: kopf ended by itself.
    """

    @kopf.on.startup(registry=registry)
    async def _configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        configure(settings)

    @kopf.on.login(registry=registry)
    async def _login(**_: Any) -> kopf.ConnectionInfo:
        known = await login(kubeconfig=kubeconfig, context=context)
        return kopf.ConnectionInfo(
            server=known.server,
            ca_path=known.ca_path,
            insecure=known.insecure,
            scheme=known.scheme,
            token=known.token,
            certificate_path=known.certificate_path,
            private_key_path=known.private_key_path,
        )

    @kopf.on.probe(id="decide-loop", registry=registry)
    async def _probe(**_: Any) -> str:
        if operator.late():
            raise UnreachableError("the decide loop is late")
        return operator.last_success.isoformat() if operator.last_success else "starting"

    port = operator.settings.liveness_port
    endpoint = f"http://0.0.0.0:{port}/healthz" if port else None
    async with asyncio.TaskGroup() as tasks:
        loop = tasks.create_task(operator.run(), name="operator")
        await kopf.operator(registry=registry, standalone=True, clusterwide=True, liveness_endpoint=endpoint)
        loop.cancel()
