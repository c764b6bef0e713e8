"""Put the objects of a simulated cluster on a real API server, which gives them UIDs of its own."""

from __future__ import annotations

import asyncio
from copy import deepcopy
from typing import TYPE_CHECKING

from gpuwaste.cluster.kinds import KNOWN_KINDS
from gpuwaste.cluster.kube import open_api

if TYPE_CHECKING:
    from pathlib import Path

    from gpuwaste.cluster.api import ClusterApi, Json

__all__ = ["put_on_server"]

_WAVES = (("Namespace", "Node"), ("Deployment", "StatefulSet", "Job"), ("ReplicaSet",), ("Pod",))
_AT_ONCE = 16
_JOB_LABELS = ("batch.kubernetes.io/controller-uid", "controller-uid")


def put_on_server(kubeconfig: Path, objects: list[Json]) -> list[Json]:
    """Create the objects, owners first; returns them with the server's UIDs."""
    return asyncio.run(_put(kubeconfig, objects))


async def _put(kubeconfig: Path, objects: list[Json]) -> list[Json]:
    api = open_api(component="test", kubeconfig=kubeconfig)
    uids: dict[str, str] = {}
    found: list[Json] = []
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(body: Json) -> Json:
        async with gate:
            return await _create(api, body, uids)

    try:
        for wave in _WAVES:
            mine = [body for body in objects if body["kind"] in wave]
            for body, made in zip(mine, await asyncio.gather(*map(one, mine)), strict=True):
                uids[body["metadata"]["uid"]] = made["metadata"]["uid"]
                found.append(made)
    finally:
        await api.close()
    return found


async def _create(api: ClusterApi, body: Json, uids: dict[str, str]) -> Json:
    """The object as it was, with new UIDs; times that only the server sets stay those of the simulation."""
    wanted = deepcopy(body)
    meta = wanted["metadata"]
    old = meta.pop("uid")
    for reference in meta.get("ownerReferences") or ():
        reference["uid"] = uids[reference["uid"]]
    sent = deepcopy(wanted)
    for name in ("creationTimestamp", "generation"):
        sent["metadata"].pop(name, None)
    status = sent.pop("status", None)
    kind = KNOWN_KINDS[wanted["apiVersion"], wanted["kind"]]
    if wanted["kind"] == "ReplicaSet" and "serviceName" in sent["spec"]:
        del sent["spec"]["serviceName"]
    if wanted["kind"] == "Job":
        sent["spec"].pop("selector", None)
    answer = await api.apply(kind, sent, field_manager="test", force=True)
    if status is not None and wanted["kind"] in ("Node", "Pod"):
        identity = {"apiVersion": wanted["apiVersion"], "kind": wanted["kind"]}
        name = {key: sent["metadata"][key] for key in ("name", "namespace") if key in sent["metadata"]}
        await api.apply_status(kind, {**identity, "metadata": name, "status": status}, field_manager="test", force=True)
    uids[old] = answer["metadata"]["uid"]
    meta["uid"] = answer["metadata"]["uid"]
    return wanted
