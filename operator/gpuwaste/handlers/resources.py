"""Objects that people write: they are checked beyond what their schema can say, and told in a condition."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import kopf

from gpuwaste.api import GROUP, VERSION, Condition, ConditionStatus, ConditionType, Reason, make_condition, parse
from gpuwaste.cluster.kinds import (
    CLUSTER_RIGHTSIZING_POLICIES,
    GPU_RESERVATIONS,
    RIGHTSIZING_POLICIES,
    ResourceKind,
)
from gpuwaste.model.errors import GpuwasteError, InputError
from gpuwaste.model.resources import named_product
from gpuwaste.runtime.writer import CHECKER

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from gpuwaste.cluster.api import ClusterApi, Json

__all__ = ["check_object", "register"]

_log = logging.getLogger(__name__)
_CHECKED = (GPU_RESERVATIONS, RIGHTSIZING_POLICIES, CLUSTER_RIGHTSIZING_POLICIES)


def check_object(body: Json, *, now: datetime) -> Condition:
    """The condition `Valid` of an object that a person wrote."""
    generation = int(body.get("metadata", {}).get("generation") or 1)
    problem = _problem(body)
    status = ConditionStatus.FALSE if problem else ConditionStatus.TRUE
    reason = Reason.INVALID if problem else Reason.ACCEPTED
    message = problem or "The object is understood."
    return make_condition(ConditionType.VALID, status, reason, message, observed_generation=generation, now=now)


def _problem(body: Json) -> str:
    try:
        parse(body)
    except InputError as error:
        return str(error)
    model = body.get("spec", {}).get("gpuModel")
    if model and named_product(model) is None:
        return (
            f"`spec.gpuModel` {model!r} is no GPU product known here; `gpuwaste mig --list` prints them,"
            " and others go by the name that their node's label has, such as NVIDIA-A40, or by their resource"
        )
    return ""


def register(registry: kopf.OperatorRegistry, *, api: ClusterApi, now: Callable[[], datetime]) -> None:
    """Register the handlers of all kinds that people write."""
    for kind in _CHECKED:
        _register(registry, kind, api=api, now=now)


def _register(
    registry: kopf.OperatorRegistry, kind: ResourceKind, *, api: ClusterApi, now: Callable[[], datetime]
) -> None:
    @kopf.on.event(GROUP, VERSION, kind.plural, registry=registry)
    async def _changed(type: str | None, body: kopf.Body, **_: Any) -> None:  # noqa: A002 (kopf's name)
        if type == "DELETED":
            return
        plain = dict(body)
        condition = check_object(plain, now=now())
        known = next((c for c in body.get("status", {}).get("conditions", ()) if c["type"] == condition.type), None)
        written = condition.to_json()
        if known and all(known.get(k) == written[k] for k in ("status", "reason", "message", "observedGeneration")):
            return
        status = {"observedGeneration": written["observedGeneration"], "conditions": [written]}
        identity = {key: plain["metadata"][key] for key in ("name", "namespace") if key in plain["metadata"]}
        manifest = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": identity, "status": status}
        try:
            await api.apply_status(kind, manifest, field_manager=CHECKER, force=True)
        except GpuwasteError as error:  # the next event or resync tries again; handlers of events are not retried
            _log.warning("condition not written: %s: %s", identity.get("name"), error)
