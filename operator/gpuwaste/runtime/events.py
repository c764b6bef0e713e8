"""Kubernetes events about our own objects: what happened, once, for `kubectl describe` and `kubectl get events`."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal

from gpuwaste.cluster.kinds import EVENTS
from gpuwaste.model.units import format_time

if TYPE_CHECKING:
    from datetime import datetime

    from gpuwaste.cluster.api import ClusterApi, Json

__all__ = ["EVENT_NAMESPACE", "event_about", "post_event"]

EVENT_NAMESPACE = "default"
"""Where events about objects without a namespace go, as those about nodes do."""
_COMPONENT = "gpuwaste-operator"
_MAX_MESSAGE = 1024


def event_about(body: Json, *, type_: Literal["Normal", "Warning"], reason: str, message: str, now: datetime) -> Json:
    """An event; what is said twice of one object is one event, for its name follows from what it says.

    Args:
        body: the object that it is about.
        type_: Normal, or Warning where a person has to do something.
        reason: one CamelCase word.
        message: says the same to a person; cut to 1,024 characters.
        now: when it happened.
    """
    meta = body["metadata"]
    said = hashlib.sha256(f"{meta.get('uid')}/{reason}/{message}".encode()).hexdigest()[:16]
    namespace = meta.get("namespace") or EVENT_NAMESPACE
    about = {key: meta[key] for key in ("name", "namespace", "uid", "resourceVersion") if meta.get(key)}
    time = format_time(now.replace(microsecond=0))
    return {
        "apiVersion": EVENTS.api_version,
        "kind": EVENTS.kind,
        "metadata": {"name": f"{meta['name'][:200]}.{said}", "namespace": namespace},
        "involvedObject": {"apiVersion": body["apiVersion"], "kind": body["kind"], **about},
        "type": type_,
        "reason": reason,
        "message": message[:_MAX_MESSAGE],
        "source": {"component": _COMPONENT},
        "reportingComponent": _COMPONENT,
        "reportingInstance": _COMPONENT,
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    }


async def post_event(api: ClusterApi, event: Json) -> None:
    """Write an event.

    Raises:
        GpuwasteError: the API server did not take it.
    """
    await api.apply(EVENTS, event, field_manager=_COMPONENT, force=True)
