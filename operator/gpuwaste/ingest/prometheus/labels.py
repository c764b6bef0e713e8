"""Labels of dcgm-exporter's series in all the spellings that are about: which device, where, and whose.

- With `honor_labels: false` Prometheus puts the exporter's own pod into `pod` and the pod that holds the GPU into
  `exported_pod`; with `true` the holder is in `pod`. Very old exporters say `pod_name`.
- The host is in `Hostname`, since 2026-05 in `hostname`; where it names the exporter's pod, `node` names the node.
- A MIG instance has `GPU_I_ID` and `GPU_I_PROFILE` beside the UUID of its GPU.
- With KUBERNETES_VIRTUAL_GPUS a device has one more series for each pod, with the label `vgpu`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "DEVICE_LABELS",
    "HOST_LABELS",
    "DeviceLabels",
    "HolderLabels",
    "HostNames",
    "device_of",
    "holder_of",
    "honors_labels",
]

_HOLDERS = (
    ("exported_namespace", "exported_pod", "exported_container"),
    ("pod_namespace", "pod_name", "container_name"),
    ("namespace", "pod", "container"),
)
HOST_LABELS = ("node", "exported_node", "kubernetes_node", "Hostname", "hostname", "exported_hostname", "instance")
"""Labels that may name the node, best first."""
_EXPORTER_WORDS = ("dcgm-exporter", "dcgm_exporter", "nvidia-dcgm")

DEVICE_LABELS: tuple[str, ...] = (
    "UUID",
    "uuid",
    "gpu",
    "GPU_I_ID",
    "GPU_I_PROFILE",
    "modelName",
    "vgpu",
    "dra_claim_name",
    "dra_mig_profile",
    "dra_mig_device_uuid",
    *HOST_LABELS,
    *dict.fromkeys(label for names in _HOLDERS for label in names),
)
"""Labels that say anything of use; the rest is dropped by the query, so that answers stay small."""


class DeviceLabels(NamedTuple):
    """A device: a whole GPU (`instance` empty) or a MIG instance by its GPU instance id, else by its UUID."""

    gpu_uuid: str
    instance: str
    profile: str
    mig_uuid: str
    model: str
    number: int


class HolderLabels(NamedTuple):
    """The container that a series names, and by which replica or claim it holds where the exporter says so."""

    namespace: str
    pod: str
    container: str
    vgpu: str
    claim: str = ""


def device_of(labels: Mapping[str, str]) -> DeviceLabels | None:
    """The device of a series; None where it names none."""
    uuid = labels.get("UUID") or labels.get("uuid") or ""
    if not uuid:
        return None
    profile = labels.get("GPU_I_PROFILE") or labels.get("dra_mig_profile") or ""
    number = labels.get("gpu", "")
    mig_uuid = labels.get("dra_mig_device_uuid", "")
    return DeviceLabels(
        gpu_uuid=uuid,
        instance=labels.get("GPU_I_ID") or mig_uuid,
        profile=profile,
        mig_uuid=mig_uuid,
        model=labels.get("modelName", ""),
        number=int(number) if number.isdecimal() else 0,
    )


def honors_labels(series: Iterable[Mapping[str, str]]) -> bool:
    """Whether `pod` names the holder: nowhere does a series say `exported_pod`."""
    return not any("exported_pod" in labels for labels in series)


def holder_of(labels: Mapping[str, str], *, honors: bool) -> HolderLabels | None:
    """The container that a series names as holder; None where it names none, or the exporter itself.

    Args:
        labels: of the series.
        honors: whether `pod` may be the holder, as `honors_labels` finds it.
    """
    for number, (namespace, pod, container) in enumerate(_HOLDERS):
        if not labels.get(pod) or (number == len(_HOLDERS) - 1 and not honors):
            continue
        names = (labels[pod], labels.get(container, ""))
        if any(word in name for word in _EXPORTER_WORDS for name in names):
            return None
        return HolderLabels(
            labels.get(namespace, ""),
            labels[pod],
            labels.get(container, ""),
            labels.get("vgpu", ""),
            labels.get("dra_claim_name", ""),
        )
    return None


class HostNames:
    """Finds the node behind the host labels of a series.

    Args:
        nodes: names of all known nodes; none: the labels are believed.
        pods: node by namespace and name of pods, for exporters that only name their own pod.
    """

    def __init__(self, nodes: Iterable[str], pods: Mapping[tuple[str, str], str]) -> None:
        self._nodes = set(nodes)
        self._short = {name.partition(".")[0]: name for name in sorted(self._nodes, reverse=True)}
        self._pods = pods

    def node_of(self, labels: Mapping[str, str]) -> str:
        """Name of the node; empty where no label says anything."""
        said = [labels[name] for name in HOST_LABELS if labels.get(name)]
        found = self._known(said) or self._pods.get((labels.get("namespace", ""), labels.get("pod", "")))
        if found:
            return found
        return said[0] if said else ""

    def needs_pod(self, labels: Mapping[str, str]) -> bool:
        """Whether the pod that a series names could tell its node, for no host label names a known one."""
        return bool(self._pods) and not self._known([labels[name] for name in HOST_LABELS if labels.get(name)])

    def _known(self, said: Sequence[str]) -> str:
        """The first known node that is named; empty where none is."""
        for name in said:
            host = name.rpartition(":")[0] if name.rpartition(":")[2].isdecimal() else name
            found = host if host in self._nodes else self._short.get(host.partition(".")[0])
            if found:
                return found
        return ""
