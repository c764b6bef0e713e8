"""dcgm-exporter and kube-state-metrics as stand-ins: what they would have said of a scenario, as OpenMetrics text.

Names, labels and units are theirs; the values follow from the scenario alone. Gauges of activity are averages since
the sample before, as DCGM's profiling fields are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuwaste.cluster.quantity import parse_quantity
from gpuwaste.model.units import parse_time
from gpuwaste_agent.simulate.scenario import STRATEGIES
from gpuwaste_agent.simulate.timeline import parent_timeline, processes_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from gpuwaste_agent.simulate.build import Cluster
    from gpuwaste_agent.simulate.scenario import ScenarioContainer, ScenarioGpu, ScenarioNode
    from gpuwaste_agent.simulate.timeline import Piece

__all__ = ["ExporterStyle", "dcgm_lines", "kube_state_lines", "openmetrics"]

_EXPORTER = {"namespace": "gpu-operator", "container": "nvidia-dcgm-exporter", "job": "dcgm"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExporterStyle:
    """How an exporter and its scrape are set up.

    Attributes:
        honor_labels: whether the holder is in `pod`, and not in `exported_pod`.
        host: name of the host label.
        virtual_gpus: nodes on which KUBERNETES_VIRTUAL_GPUS is on.
        percent: factor of what counts in percent: 100, or 1 where the exporter is rewrapped.
        ratio: factor of profiling fields: 1, or 100.
        profiled: whether the profiling fields of a GPU are there; default: where NVML itself could profile it.
        silent: of (node, Unix seconds): whether the exporter was down then.
    """

    honor_labels: bool = False
    host: str = "Hostname"
    virtual_gpus: frozenset[str] = frozenset()
    percent: float = 100.0
    ratio: float = 1.0
    profiled: Callable[[ScenarioGpu], bool] = field(default=lambda gpu: gpu.facts.gpm)
    silent: Callable[[str, NDArray[np.float64]], NDArray[np.bool_]] = field(
        default=lambda _, times: np.zeros(len(times), bool)
    )


class _Curve:
    """A step function of time, averaged between samples."""

    def __init__(self, pieces: Sequence[Piece], value: Callable[[Piece], float], last_s: float) -> None:
        edges = [0.0]
        sums = [0.0]
        for piece in pieces:
            end = min(piece.end_s, last_s)
            if end > edges[-1]:
                sums.append(sums[-1] + value(piece) * (end - edges[-1]))
                edges.append(end)
        self._edges, self._sums = np.array(edges), np.array(sums)

    def mean(self, times_s: NDArray[np.float64], interval_s: float) -> NDArray[np.float64]:
        """Means over (t − interval, t]; the first as far back as the scenario goes."""
        start = np.maximum(times_s - interval_s, 0.0)
        total = np.interp(times_s, self._edges, self._sums) - np.interp(start, self._edges, self._sums)
        return total / np.maximum(times_s - start, 1e-9)


def dcgm_lines(
    cluster: Cluster, *, until_s: float, interval_s: float, style: ExporterStyle | None = None, node: str = ""
) -> Iterator[str]:
    """Lines of dcgm-exporter for every node, or the one named, from the scenario's start to `until_s`."""
    style = style or ExporterStyle()
    for planned in cluster.nodes:
        if node in ("", planned.scenario.name):
            yield from _node_lines(
                cluster.start_unix_s, planned.scenario, planned.kind.model, until_s, interval_s, style
            )


def _node_lines(
    start_unix_s: int, node: ScenarioNode, model: str, until_s: float, interval_s: float, style: ExporterStyle
) -> Iterator[str]:
    times = np.arange(interval_s, until_s + interval_s / 2, interval_s)
    times = times[~style.silent(node.name, times + start_unix_s)]
    for index, gpu in enumerate(node.gpus):
        for number, parent in enumerate(gpu.parent_ids):
            base = {
                "gpu": str(index),
                "UUID": gpu.uuid,
                "device": f"nvidia{index}",
                "modelName": model,
                style.host: node.name,
                "instance": f"10.0.0.{len(node.name)}:9400",
                "DCGM_FI_DRIVER_VERSION": "580.95.05",
            }
            if gpu.mig is not None:
                base |= {"GPU_I_PROFILE": gpu.mig[number].profile, "GPU_I_ID": str(_instance_id(gpu, number))}
            yield from _parent_lines(start_unix_s, node, gpu, parent, base, times, interval_s, until_s, style)


def _instance_id(gpu: ScenarioGpu, number: int) -> int:
    """NVIDIA's numbering of instances: through a binary tree of the memory axis."""
    assert gpu.mig is not None
    profile = gpu.facts.profile(gpu.mig[number].profile)
    level = (profile.axis_units // profile.memory_units).bit_length() - 1
    return (1 << level) - 1 + gpu.mig[number].start // profile.memory_units


def _parent_lines(
    start_unix_s: int,
    node: ScenarioNode,
    gpu: ScenarioGpu,
    parent: str,
    base: Mapping[str, str],
    times: NDArray[np.float64],
    interval_s: float,
    until_s: float,
    style: ExporterStyle,
) -> Iterator[str]:
    pieces = parent_timeline(processes_on(node, parent), STRATEGIES[gpu.strategy])
    values = _figures(gpu, pieces, times, interval_s, until_s, style)
    holders = [c for c in node.containers if any(d.split("::")[0] == parent for d in c.devices)]
    virtual = node.name in style.virtual_gpus and gpu.strategy != "none"
    owner = np.full(len(times), -1)
    if not virtual:  # one pod a device, the last wins
        for number, container in enumerate(holders):
            owner[(times >= container.from_s) & (times < container.until_s)] = number
    for number in (-1, *range(len(holders))):
        mask = owner == number
        labels = _labelled(base, holders[number] if number >= 0 else None, style, node.name)
        yield from _samples(values, labels, times, mask, start_unix_s)
    if virtual:
        for container in holders:
            mask = (times >= container.from_s) & (times < container.until_s)
            device = next(d for d in container.devices if d.split("::")[0] == parent)
            labels = _labelled(base, container, style, node.name) | {"vgpu": device.rpartition("::")[2]}
            mine = {process.pid for process in container.processes if process.parent == parent}
            own = dict(values)
            curve = _Curve(pieces, lambda p, mine=mine: sum(r.duty for r in p.rates if r.pid in mine), until_s)
            own["DCGM_FI_DEV_GPU_UTIL"] = curve.mean(times, interval_s) * style.percent
            yield from _samples(own, labels, times, mask, start_unix_s)


def _figures(
    gpu: ScenarioGpu,
    pieces: Sequence[Piece],
    times: NDArray[np.float64],
    interval_s: float,
    until_s: float,
    style: ExporterStyle,
) -> dict[str, NDArray[np.float64]]:
    def curve(value: Callable[[Piece], float]) -> NDArray[np.float64]:
        return _Curve(pieces, value, until_s).mean(times, interval_s)

    values = {"DCGM_FI_DEV_FB_USED": curve(lambda p: p.memory_bytes) / 2**20}
    if gpu.mig is None:
        values["DCGM_FI_DEV_GPU_UTIL"] = curve(lambda p: p.duty) * style.percent
        values["DCGM_FI_DEV_ENC_UTIL"] = np.zeros(len(times))
        values["DCGM_FI_DEV_DEC_UTIL"] = np.zeros(len(times))
    if style.profiled(gpu):
        values["DCGM_FI_PROF_GR_ENGINE_ACTIVE"] = curve(lambda p: p.duty) * style.ratio
        values["DCGM_FI_PROF_SM_ACTIVE"] = curve(lambda p: p.sm) * style.ratio
    return values


def _labelled(
    base: Mapping[str, str], container: ScenarioContainer | None, style: ExporterStyle, node: str
) -> dict[str, str]:
    own = {**_EXPORTER, "pod": f"nvidia-dcgm-exporter-{node}"}
    if container is None:
        return {**own, **base}
    holder = {"namespace": container.namespace, "pod": container.pod, "container": container.container}
    if style.honor_labels:
        return {**own, **base, **holder}
    return {**own, **base, **{f"exported_{name}": value for name, value in holder.items()}}


def _samples(
    values: Mapping[str, NDArray[np.float64]],
    labels: Mapping[str, str],
    times: NDArray[np.float64],
    mask: NDArray[np.bool_],
    start_unix_s: int,
) -> Iterator[str]:
    if not mask.any():
        return
    text = ",".join(f'{name}="{value}"' for name, value in labels.items())
    stamps = (times[mask] + start_unix_s).tolist()
    for name, series in values.items():
        head = f"{name}{{{text}}}"
        yield "".join(f"{head} {v:.6g} {t:.3f}\n" for v, t in zip(series[mask].tolist(), stamps, strict=True))


def kube_state_lines(
    objects: Iterable[Mapping[str, Any]], *, start_unix_s: int, until_unix_s: int, interval_s: int
) -> Iterator[str]:
    """Lines of kube-state-metrics for objects that are there all the time; pods from their creation on."""
    for body in objects:
        meta = body["metadata"]
        since = max(start_unix_s, int(parse_time(meta["creationTimestamp"]).timestamp()) + 1)
        first = -(-since // interval_s) * interval_s
        stamps = range(first, until_unix_s + 1, interval_s)
        for name, labels, value in _object_series(body):
            text = ",".join(f"{key}={json.dumps(one)}" for key, one in labels.items())
            yield "".join(f"{name}{{{text}}} {value:.16g} {stamp}\n" for stamp in stamps)


def _object_series(body: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, str], float]]:
    meta = body["metadata"]
    name, namespace = meta["name"], meta.get("namespace", "")
    match body["kind"]:
        case "Namespace":
            yield "kube_namespace_labels", {"namespace": name, **_label_values(meta)}, 1
        case "Node":
            yield "kube_node_info", {"node": name, "provider_id": body["spec"]["providerID"]}, 1
            yield "kube_node_created", {"node": name}, parse_time(meta["creationTimestamp"]).timestamp()
            yield "kube_node_labels", {"node": name, **_label_values(meta)}, 1
            for kind in ("capacity", "allocatable"):
                for labels, amount in _amounts(body["status"][kind]):
                    yield f"kube_node_status_{kind}", {"node": name, **labels}, amount
        case "ReplicaSet" | "Job":
            label = {"ReplicaSet": "replicaset", "Job": "job_name"}[body["kind"]]
            metric = {"ReplicaSet": "kube_replicaset_owner", "Job": "kube_job_owner"}[body["kind"]]
            owner = (meta.get("ownerReferences") or [{"kind": "<none>", "name": "<none>"}])[0]
            kinds = {"owner_kind": owner["kind"], "owner_name": owner["name"]}
            yield metric, {"namespace": namespace, label: name, **kinds}, 1
        case "Pod":
            yield from _pod_series(body)


def _pod_series(body: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, str], float]]:
    meta, spec, status = body["metadata"], body["spec"], body["status"]
    pod = {"namespace": meta["namespace"], "pod": meta["name"], "uid": meta["uid"]}
    yield "kube_pod_info", {**pod, "node": spec["nodeName"]}, 1
    yield "kube_pod_start_time", pod, parse_time(status["startTime"]).timestamp()
    owner = (meta.get("ownerReferences") or [{"kind": "<none>", "name": "<none>"}])[0]
    yield "kube_pod_owner", {**pod, "owner_kind": owner["kind"], "owner_name": owner["name"]}, 1
    for listed, kind in (("containers", "container"), ("initContainers", "init_container")):
        for container in spec.get(listed, ()):
            of = {**pod, "container": container["name"], "node": spec["nodeName"]}
            for labels, amount in _amounts(container["resources"]["requests"]):
                yield f"kube_pod_{kind}_resource_requests", {**of, **labels}, amount
            if kind == "init_container":
                policy = {"restart_policy": container.get("restartPolicy", "")}
                yield "kube_pod_init_container_info", {**pod, "container": container["name"], **policy}, 1
    for one in status["containerStatuses"]:
        ended = one["state"].get("terminated")
        if ended:
            yield "kube_pod_completion_time", pod, parse_time(ended["finishedAt"]).timestamp()


def _amounts(listed: Mapping[str, str]) -> Iterator[tuple[dict[str, str], float]]:
    """Labels and values of resources: cores, bytes, and counts of devices."""
    for resource, amount in listed.items():
        unit = {"cpu": "core", "memory": "byte"}.get(resource, "integer")
        if unit != "integer" or "/" in resource:
            yield {"resource": _sanitized(resource), "unit": unit}, float(parse_quantity(amount))


def _sanitized(name: str) -> str:
    return "".join(char if char.isalnum() else "_" for char in name)


def _label_values(meta: Mapping[str, Any]) -> dict[str, str]:
    return {f"label_{_sanitized(name)}": value for name, value in meta.get("labels", {}).items()}


def openmetrics(*parts: Iterable[str]) -> Iterator[str]:
    """A whole file for `promtool tsdb create-blocks-from openmetrics`."""
    for part in parts:
        yield from part
    yield "# EOF\n"
