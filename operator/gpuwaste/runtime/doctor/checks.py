"""The checks that ask somebody: the API server, Prometheus, the store."""

from __future__ import annotations

import asyncio
import os
import uuid
from typing import TYPE_CHECKING

from gpuwaste.cluster.api import list_pages
from gpuwaste.cluster.errors import ApiError
from gpuwaste.cluster.kinds import (
    CLUSTER_RIGHTSIZING_POLICIES,
    DAEMON_SETS,
    GPU_WASTES,
    NODES,
    PODS,
)
from gpuwaste.cluster.kube import Right
from gpuwaste.cluster.records import RecordRules, node_record
from gpuwaste.cluster.state import is_gpu_node
from gpuwaste.model.errors import GpuwasteError, UnreachableError
from gpuwaste.runtime.doctor.findings import CheckFinding, listed
from gpuwaste.runtime.doctor.nodes import agent_findings
from gpuwaste.runtime.doctor.sharing import OWNING_KINDS, sharing_findings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from gpuwaste.cluster.api import Json
    from gpuwaste.cluster.kinds import ResourceKind
    from gpuwaste.cluster.kube import KubeApi
    from gpuwaste.ingest.prometheus.source import PrometheusSource
    from gpuwaste.ledger.store import Store

__all__ = [
    "OPERATOR_RIGHTS",
    "SCAN_RIGHTS",
    "check_cluster",
    "check_prometheus",
    "check_store",
    "summary_line",
]

_SKEW_SECONDS = 5.0
_BAD_SKEW_SECONDS = 30.0
_LOW_BYTES = 1 << 30
_MIB = 1 << 20

SCAN_RIGHTS: tuple[Right, ...] = (
    *(Right(verb="list", resource=resource) for resource in ("pods", "nodes", "namespaces")),
    *(Right(verb="get", resource=resource, group="apps") for resource in ("replicasets", "deployments")),
    *(Right(verb="get", resource=resource, group="apps") for resource in ("statefulsets", "daemonsets")),
    *(Right(verb="get", resource=resource, group="batch") for resource in ("jobs", "cronjobs")),
)
"""What a scan reads."""

_OWN = ("gpuwastes", "gpupools", "rightsizingplans")
_OF_PEOPLE = ("gpureservations", "chargebackreports", "rightsizingpolicies", "clusterrightsizingpolicies")

OPERATOR_RIGHTS: tuple[Right, ...] = (
    *SCAN_RIGHTS,
    *(Right(verb="watch", resource=resource) for resource in ("pods", "nodes", "namespaces")),
    Right(verb="list", resource="resourcequotas"),
    Right(verb="list", resource="poddisruptionbudgets", group="policy"),
    Right(verb="patch", resource="events"),
    *(
        Right(verb=verb, resource=resource, group="gpuwaste.dev")
        for resource in _OWN
        for verb in ("list", "create", "patch", "delete")
    ),
    *(
        Right(verb=verb, resource=resource, group="gpuwaste.dev")
        for resource in _OF_PEOPLE
        for verb in ("list", "watch")
    ),
    *(
        Right(verb="patch", resource=resource, group="gpuwaste.dev", subresource="status")
        for resource in (*_OWN, *_OF_PEOPLE)
    ),
)
"""What the operator does."""


async def check_cluster(
    api: KubeApi, *, rights: Iterable[Right], agent_labels: str, now: Callable[[], datetime]
) -> list[CheckFinding]:
    """Rights, clock, agents, and who owns sharing; what cannot be read is said and the rest goes on."""
    try:
        info = await api.server()
        late = (info.date - now()).total_seconds() if info.date else None
        found = [CheckFinding(check="api", state="ok", message=f"the API server answers ({info.version})")]
        found += _clock("the API server", late)
        found += await _rights(api, list(rights))
    except (UnreachableError, ApiError) as error:
        fix = "check the kubeconfig, its context, and the way to the server"
        return [CheckFinding(check="api", state="failed", message=str(error), fix=fix)]
    found += await _installed(api)
    nodes = await _read(api, NODES, found)
    gpu_nodes = [body for body in nodes or () if is_gpu_node(node_record(body, RecordRules()).data)]
    daemon_sets = await _read(api, DAEMON_SETS, found)
    if nodes is not None and daemon_sets is not None:
        agents = [body for body in daemon_sets if _labelled(body, agent_labels)]
        pods = await _read(api, PODS, found, labels=agent_labels) if agents else []
        found += agent_findings(gpu_nodes, agents, pods or [])
        found += sharing_findings(gpu_nodes, daemon_sets, await _owners(api))
    return found


def _labelled(body: Json, selector: str) -> bool:
    labels = body["metadata"].get("labels") or {}
    pairs = [pair.partition("=") for pair in selector.split(",") if pair]
    return all(labels.get(key.strip()) == value.strip() for key, _, value in pairs)


def _clock(whose: str, ahead_seconds: float | None) -> list[CheckFinding]:
    if ahead_seconds is None:
        return []
    size = abs(ahead_seconds)
    text = f"the clock of {whose} is {size:.0f} s {'ahead of' if ahead_seconds > 0 else 'behind'} this machine's"
    if size > _BAD_SKEW_SECONDS:
        return [CheckFinding(check="clock", state="failed", message=text, fix="set both by NTP")]
    if size > _SKEW_SECONDS:
        return [CheckFinding(check="clock", state="warning", message=text, fix="set both by NTP")]
    return [CheckFinding(check="clock", state="ok", message=f"the clock of {whose} agrees with this machine's")]


async def _rights(api: KubeApi, rights: list[Right]) -> list[CheckFinding]:
    answers = await asyncio.gather(*(api.allowed(right) for right in rights))
    denied = [right for right, allowed in zip(rights, answers, strict=True) if not allowed]
    if not denied:
        return [CheckFinding(check="rights", state="ok", message=f"all {len(rights)} rights that are needed are given")]
    return [
        CheckFinding(
            check="rights",
            state="failed",
            message=f"not allowed: {right}",
            fix="bind a ClusterRole that allows it; the chart's operator has one (charts/gpuwaste)",
        )
        for right in denied
    ]


async def _installed(api: KubeApi) -> list[CheckFinding]:
    try:
        await api.resolve(GPU_WASTES.api_version, CLUSTER_RIGHTSIZING_POLICIES.kind)
        await api.list_page(GPU_WASTES, limit=1)
    except ApiError as error:
        message = f"the custom resources are not there: {error.message}"
        fix = "install the chart gpuwaste-crds (or gpuwaste, which brings it); `gpuwaste scan` needs none"
        return [CheckFinding(check="crds", state="warning", message=message, fix=fix)]
    return [CheckFinding(check="crds", state="ok", message="the custom resources are installed")]


async def _read(api: KubeApi, kind: ResourceKind, found: list[CheckFinding], *, labels: str = "") -> list[Json] | None:
    """All objects of a kind, without what is large and tells nothing here; None where they may not be listed."""
    items: list[Json] = []
    try:
        async for page in list_pages(api, kind, label_selector=labels):
            for item in page.items:
                item["metadata"].pop("managedFields", None)
                items.append(item)
    except (ApiError, UnreachableError) as error:
        message = f"{kind.plural} cannot be listed: {error}"
        found.append(CheckFinding(check="rights", state="warning", message=message, fix="some checks are left out"))
        return None
    return items


async def _owners(api: KubeApi) -> dict[str, list[Json]]:
    """Objects of the kinds by which owners of sharing are known; kinds that are not served are left out."""
    found: dict[str, list[Json]] = {}
    for api_version, name, owner in OWNING_KINDS:
        try:
            kind = await api.resolve(api_version, name)
        except (ApiError, UnreachableError):
            continue
        try:
            found[owner] = (await api.list_page(kind, limit=10)).items
        except (ApiError, UnreachableError):
            found[owner] = []
    return found


def check_prometheus(source: PrometheusSource, now: datetime) -> list[CheckFinding]:
    """Whether the store answers, what it lacks, and its clock. Blocks: call it in a thread."""
    address = source.store.address
    try:
        looked = source.look(now)
    except GpuwasteError as error:
        fix = "check the address, the flavour and the credentials"
        return [CheckFinding(check="prometheus", state="failed", message=str(error), fix=fix)]
    message = f"{address} answers; it has seen {looked.devices} devices"
    found = [CheckFinding(check="prometheus", state="ok", message=message)]
    if not looked.has_devices:
        found[0] = CheckFinding(
            check="prometheus",
            state="failed",
            message=f"{address} answers, and has no metric of dcgm-exporter of the last day",
            fix="install dcgm-exporter and let it be scraped; check --match and --tenant",
        )
    for name, why in looked.missing.items() if looked.has_devices else ():
        kube = name.startswith("kube_")
        fix = "install kube-state-metrics, or allow the metric in it" if kube else "let dcgm-exporter export it"
        message = f"{name} is missing: it tells {why}"
        found.append(CheckFinding(check="metrics", state="warning", message=message, fix=fix))
    for problem in looked.problems:
        check = "clock" if problem in looked.wrong_clock else "metrics"
        message, _, fix = problem.partition(": ")
        found.append(CheckFinding(check=check, state="failed", message=message, fix=fix))
    found += [
        CheckFinding(check="prometheus", state="warning", message=warning, fix="look at the store's own state")
        for warning in source.store.warnings
    ]
    return found


def check_store(store: Store, url: str) -> list[CheckFinding]:
    """Whether the store takes, gives back and removes a file, and how much room it has."""
    name = f".gpuwaste-doctor-{uuid.uuid4().hex}"
    text = uuid.uuid4().hex.encode()
    try:
        store.write(name, text)
        same = store.read(name) == text
        store.delete(name)
    except (GpuwasteError, OSError) as error:
        fix = "check that it exists, and that this user may write there"
        return [CheckFinding(check="storage", state="failed", message=f"{url}: {_once(url, error)}", fix=fix)]
    if not same:
        message = f"{url}: what was read is not what was written"
        return [CheckFinding(check="storage", state="failed", message=message, fix="look at the store")]
    found = [CheckFinding(check="storage", state="ok", message=f"{url} can be written and read")]
    if store.is_local:
        room = os.statvfs(store.root)
        free = room.f_bavail * room.f_frsize
        if free < _LOW_BYTES:
            message = f"{url}: only {free // _MIB} MiB are free"
            found.append(CheckFinding(check="storage", state="warning", message=message, fix="make the volume larger"))
    return found


def _once(url: str, error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return str(text).removeprefix(f"{url}: ")


def summary_line(findings: list[CheckFinding]) -> str:
    """How many of each state, in one line."""
    counts = {state: sum(one.state == state for one in findings) for state in ("failed", "warning", "ok")}
    if not counts["failed"] and not counts["warning"]:
        return f"All {counts['ok']} checks passed."
    failed = sorted({one.check for one in findings if one.state == "failed"})
    named = f" ({listed(failed)})" if failed else ""
    return f"{counts['failed']} failed{named}, {counts['warning']} warnings, {counts['ok']} passed."
