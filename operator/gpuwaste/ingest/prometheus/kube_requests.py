"""What containers ask for, and what CPU and memory nodes offer, by kube-state-metrics.

The API server fills requests from limits before anybody sees them, so requests alone are read. A container is read
whole: what it asks for of GPUs everywhere, of CPU and memory on nodes with GPUs only, for no other node has rows.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from gpuwaste.ingest.prometheus.kube_ask import POD, key_of
from gpuwaste.model.facts import ContainerRequest
from gpuwaste.model.resources import counts_gpus

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from gpuwaste.ingest.prometheus.kube_ask import Asker, Key

__all__ = ["GPU_RESOURCES", "REQUESTS", "PodRequests", "matchers_of", "offered", "read_requests", "resource_of"]

REQUESTS = "kube_pod_container_resource_requests"
GPU_RESOURCES = 'resource=~"nvidia_com_.*|amd_com_.*|gpu_intel_com_.*|habana_ai_.*"'
"""A matcher of the extended resources whose devices are GPUs."""

_INIT_REQUESTS = "kube_pod_init_container_resource_requests"
_MIG = re.compile(r"^nvidia_com_mig_(\d+g)_(\d+gb)((?:_(?:me|gfx|all))*)(_shared)?$")
_HOLDER = f"{POD}, container, exported_container, node, resource, uid"
_FACTORS: Final = {"cpu": 1000, "memory": 1}
"""Resource to what makes cores and bytes, as they are printed, whole milli-cores and bytes."""

_CPU_MEMORY = f'resource=~"{"|".join(_FACTORS)}"'
_MATCHER_BYTES = 4000
"""Of a matcher as it stands in an address; servers and what stands before them take 8 kB of one."""


def resource_of(label: str) -> str:
    """The extended resource behind kube-state-metrics' spelling: `nvidia_com_mig_1g_10gb_me` is `mig-1g.10gb.me`."""
    found = _MIG.match(label)
    if found:
        suffix = found[3].replace("_", ".") + (".shared" if found[4] else "")
        return f"nvidia.com/mig-{found[1]}.{found[2]}{suffix}"
    known = {"nvidia_com_gpu": "nvidia.com/gpu", "nvidia_com_gpu_shared": "nvidia.com/gpu.shared"}
    if label in known:
        return known[label]
    for domain in ("nvidia_com_", "amd_com_", "gpu_intel_com_", "habana_ai_"):
        if label.startswith(domain):
            return f"{domain[:-1].replace('_', '.')}/{label.removeprefix(domain)}"
    return label


@dataclass(slots=True, kw_only=True)
class _Asked:
    """What one container asks for."""

    init: bool = False
    gpus: dict[str, int] = field(default_factory=dict)
    cpu_memory: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class PodRequests:
    """What the containers of pods ask for.

    Attributes:
        containers: by pod, then by the name of the container.
        node_of: the node of each pod; empty where its series do not say.
        label_of: what its series have as `namespace`: that of the exporter where a scrape renamed the pod's.
        resources: those of `cpu` and `memory` of which the store has any request; of others nobody knows who holds.
    """

    containers: dict[Key, dict[str, _Asked]] = field(default_factory=lambda: defaultdict(dict))
    node_of: dict[Key, str] = field(default_factory=dict)
    label_of: dict[Key, str] = field(default_factory=dict)
    resources: set[str] = field(default_factory=set)

    def add(self, labels: Mapping[str, str], resource: str, amount: int, *, init: bool = False) -> None:
        """Note what a container asks for."""
        key = key_of(labels)
        asked = self.containers[key].setdefault(_container(labels), _Asked(init=init))
        (asked.cpu_memory if resource in _FACTORS else asked.gpus)[resource] = amount
        # A pod that waited has series without a node beside those of its life.
        self.node_of[key] = labels.get("node", "") or self.node_of.get(key, "")
        self.label_of[key] = labels.get("namespace", "")

    def of(self, key: Key) -> tuple[ContainerRequest, ...]:
        """The containers of a pod, as facts have them."""
        return tuple(
            ContainerRequest(
                name=name,
                cpu_milli=asked.cpu_memory.get("cpu", 0),
                memory_bytes=asked.cpu_memory.get("memory", 0),
                gpus=dict(sorted(asked.gpus.items())),
                init=asked.init,
            )
            for name, asked in sorted(self.containers[key].items())
        )

    def without(self, uids: Collection[str]) -> PodRequests:
        """Those of pods with other UIDs."""
        kept = {key: asked for key, asked in self.containers.items() if key[1] not in uids}
        return replace(self, containers=kept)


def _container(labels: Mapping[str, str]) -> str:
    return labels.get("exported_container") or labels.get("container", "")


def read_requests(asker: Asker, nodes: Collection[str]) -> PodRequests:
    """What all containers ask for of GPUs, and those on some nodes of CPU and memory.

    Args:
        asker: of the store.
        nodes: names of the nodes with GPUs.
    """
    found = PodRequests()
    for sample in asker.last(REQUESTS, _HOLDER, GPU_RESOURCES):
        resource = resource_of(sample.labels.get("resource", ""))
        if sample.value >= 1 and counts_gpus(resource):
            found.add(sample.labels, resource, round(sample.value))
    sidecars = _sidecars(asker)
    for matcher in matchers_of("node", nodes):
        for name in (REQUESTS, _INIT_REQUESTS):
            for sample in asker.last(name, _HOLDER, _CPU_MEMORY, matcher):
                labels = sample.labels
                resource = labels.get("resource", "")
                if name == REQUESTS:
                    found.resources.add(resource)
                init = name == _INIT_REQUESTS and (*key_of(labels), _container(labels)) not in sidecars
                found.add(labels, resource, round(sample.value * _FACTORS[resource]), init=init)
    return found


def _sidecars(asker: Asker) -> set[tuple[object, ...]]:
    """Init containers that run on beside the others."""
    by = f"{POD}, uid, container, exported_container"
    found = asker.last("kube_pod_init_container_info", by, 'restart_policy="Always"')
    return {(*key_of(sample.labels), _container(sample.labels)) for sample in found}


def matchers_of(label: str, values: Collection[str]) -> Iterator[str]:
    """Matchers that together are of these values, such as names of nodes, each short enough for an address."""
    names: list[str] = []
    size = 0
    for value in sorted(values):
        name = value.replace(".", r"\\.")
        more = len(quote(f"{name}|", safe=""))
        if names and size + more > _MATCHER_BYTES:
            yield f'{label}=~"{"|".join(names)}"'
            names, size = [], 0
        names.append(name)
        size += more
    if names:
        yield f'{label}=~"{"|".join(names)}"'


def offered(asker: Asker) -> dict[str, dict[str, int]]:
    """By node its CPU in milli-cores (`cpu`) and memory in bytes: as allocatable, else as capacity."""
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for name in ("kube_node_status_capacity", "kube_node_status_allocatable"):
        for sample in asker.last(name, "node, resource", _CPU_MEMORY):
            resource = sample.labels.get("resource", "")
            found[sample.labels.get("node", "")][resource] = round(sample.value * _FACTORS[resource])
    return found
