"""kopf around the loop: login, start, stop, liveness, and the handlers of our own kinds."""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING, Any

import kopf

from gpuwaste.cluster.login import login
from gpuwaste.model.errors import UnreachableError

if TYPE_CHECKING:
    from pathlib import Path

    from gpuwaste.runtime.loop import Operator

__all__ = ["HANDLER_MODULES", "configure", "run_kopf"]

HANDLER_MODULES = ("gpuwaste.handlers.resources",)
"""Loaded by name, as `kopf run -m` does: handlers build on the runtime and not the other way round."""

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


async def run_kopf(operator: Operator, *, kubeconfig: Path | None, context: str | None) -> None:
    """Run the loop and kopf side by side until either ends or the task is cancelled.

    Args:
        operator: the assembled operator.
        kubeconfig: file to log in with; None for the usual places.
        context: context of it.

    Raises:
        UnreachableError: kopf ended by itself.
    """
    registry = kopf.OperatorRegistry()
    for name in HANDLER_MODULES:
        importlib.import_module(name).register(registry, api=operator.api, now=operator.now)

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
