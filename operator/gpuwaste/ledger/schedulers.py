"""What schedulers that share GPUs write on pods: who is behind a reservation pod, and which GPU a pod really has.

KAI (NVIDIA/KAI-Scheduler) holds a shared GPU by a pod of its own, `gpu-reservation-<node>-<5 letters>`. That pod and
its tenants have the label `runai-gpu-group`; tenants of several GPUs have one label `runai-gpu-group/<group>` each.
The reservation pod writes the UUID that it got into its annotation `run.ai/reserve_for_gpu_index`. Tenants ask by
`gpu-fraction` (a part of a GPU) or `gpu-memory` (MiB), for their first container or `gpu-fraction-container-name`.

HAMi (Project-HAMi/HAMi) chooses the GPU itself: its device plugin gives what `hami.io/vgpu-devices-allocated` says,
whatever id the kubelet has chosen. That text has, for each container in the order of the pod (init containers
first), `<UUID>,<type>,<MiB>,<percent of cores>:` for each device, and `;`. MIG instances stand in the JSON of
`hami.io/vgpu-mig-allocations`, by places in the same lists.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gpuwaste.model.facts import PodData

__all__ = [
    "WHOLE",
    "HamiDevice",
    "KaiRequest",
    "hami_devices",
    "kai_groups",
    "kai_request",
    "kai_reserved",
    "part_of",
    "said_by_schedulers",
]

WHOLE: Final = 10**9
"""Parts of a parent are counted in billionths."""

_MIB: Final = 1 << 20
_GROUP: Final = "runai-gpu-group"
_RESERVED: Final = "run.ai/reserve_for_gpu_index"
_RESERVATION_POD: Final = "gpu-reservation-"
_HAMI_DEVICES: Final = "hami.io/vgpu-devices-allocated"
_HAMI_INSTANCES: Final = "hami.io/vgpu-mig-allocations"
# Older releases wrote the place of a MIG instance behind the UUID: `GPU-…[0-1]`.
_HAMI_PLACE: Final = re.compile(r"\[\d+-\d+\]$")


@dataclass(frozen=True, slots=True, kw_only=True)
class KaiRequest:
    """What a tenant asks of each of its GPUs.

    Attributes:
        container: which of its containers; empty where it has none.
        fraction: billionths of a GPU; None where it asks by memory, or not at all.
        memory_mib: MiB of its memory; None where it asks by fraction, or not at all.
    """

    container: str
    fraction: int | None = None
    memory_mib: int | None = None

    def part(self, memory_bytes: int) -> int | None:
        """Billionths of a GPU with so much memory (0: unknown); None where nobody can say."""
        if self.fraction is not None:
            return self.fraction
        return None if self.memory_mib is None else part_of(self.memory_mib, memory_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class HamiDevice:
    """A device that HAMi gave a container.

    Attributes:
        gpu: UUID of the GPU.
        instance: UUID of the MIG instance, where it gave one.
        place: it is an instance of which nobody told the UUID.
        memory_mib: memory that it may use.
        cores: percent of the cores that it may use; 0 is no limit.
    """

    gpu: str
    memory_mib: int
    cores: int
    instance: str = ""
    place: bool = False

    @property
    def parent(self) -> str:
        """UUID of what it holds a part of; empty where that is not told."""
        return "" if self.place else self.instance or self.gpu

    def part(self, memory_bytes: int) -> int | None:
        """Billionths of a GPU with so much memory that it keeps from others: of memory or cores, whichever is more."""
        if self.instance:
            return WHOLE
        memory = part_of(self.memory_mib, memory_bytes)
        cores = min(self.cores, 100) * WHOLE // 100
        if memory is None:
            return cores or None
        return max(memory, cores)


def part_of(memory_mib: int, memory_bytes: int) -> int | None:
    """Billionths of a GPU's memory, at most all; None where either is unknown."""
    if memory_mib <= 0 or memory_bytes <= 0:
        return None
    return min(memory_mib * _MIB * WHOLE // memory_bytes, WHOLE)


def said_by_schedulers(pod: PodData) -> bool:
    """Whether anything of this module stands on a pod; most pods are of no interest."""
    return _HAMI_DEVICES in pod.annotations or any(name.startswith(_GROUP) for name in pod.labels)


def kai_groups(pod: PodData) -> tuple[str, ...]:
    """Groups of a pod: one for each GPU that it shares."""
    found = {value for name, value in pod.labels.items() if name == _GROUP or name.startswith(f"{_GROUP}/")}
    return tuple(sorted(found - {""}))


def kai_reserved(pod: PodData) -> str | None:
    """UUID (in old releases the index) of the GPU that a reservation pod got, empty before it knew it.

    None for a pod that reserves nothing.
    """
    if not kai_groups(pod):
        return None
    said = pod.annotations.get(_RESERVED)
    return said.strip() if said is not None else "" if pod.name.startswith(_RESERVATION_POD) else None


def _number(text: str | None) -> Decimal | None:
    try:
        found = None if text is None else Decimal(text.strip())
    except InvalidOperation:
        return None
    return found if found is not None and found.is_finite() and found > 0 else None


def kai_request(pod: PodData) -> KaiRequest:
    """What a tenant asks for; what is no number, or not above 0, counts as not said."""
    names = [container.name for container in pod.containers]
    chosen = pod.annotations.get("gpu-fraction-container-name", "")
    usual = [container.name for container in pod.containers if not container.init]
    container = chosen if chosen in names else next(iter(usual), "")
    fraction, memory = (_number(pod.annotations.get(name)) for name in ("gpu-fraction", "gpu-memory"))
    if fraction is not None:
        return KaiRequest(container=container, fraction=min(int(fraction * WHOLE), WHOLE))
    return KaiRequest(container=container, memory_mib=None if memory is None else int(memory))


def _hami_device(text: str) -> HamiDevice | None:
    parts = text.split(",")
    if len(parts) < 4 or not parts[0] or not parts[2].isdecimal() or not parts[3].isdecimal():  # noqa: PLR2004
        return None
    gpu = _HAMI_PLACE.sub("", parts[0])
    return HamiDevice(gpu=gpu, memory_mib=int(parts[2]), cores=int(parts[3]), place=gpu != parts[0])


def _instances(pod: PodData) -> dict[tuple[int, int], str]:
    """UUIDs of MIG instances by container and device, empty ones of those that are not made yet."""
    try:
        found = json.loads(pod.annotations.get(_HAMI_INSTANCES) or "[]")
        return {(int(one["containerIndex"]), int(one["deviceIndex"])): str(one.get("migUUID") or "") for one in found}
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}


def hami_devices(pod: PodData) -> dict[str, tuple[HamiDevice, ...]]:
    """Devices by container; a text that is not of this form says nothing."""
    said = pod.annotations.get(_HAMI_DEVICES)
    if not said:
        return {}
    lists = said.removesuffix(";").split(";")
    # Older releases list no init containers.
    containers = pod.containers[-len(lists) :]
    if len(lists) > len(containers):
        return {}
    instances = _instances(pod)
    found: dict[str, tuple[HamiDevice, ...]] = {}
    for number, (container, text) in enumerate(zip(containers, lists, strict=True)):
        devices = []
        for place, part in enumerate(filter(None, text.split(":"))):
            device = _hami_device(part)
            if device is None:
                return {}
            if (number, place) in instances:
                uuid = instances[number, place]
                device = HamiDevice(
                    gpu=device.gpu, memory_mib=device.memory_mib, cores=0, instance=uuid, place=not uuid
                )
            devices.append(device)
        if devices:
            found[container.name] = tuple(devices)
    return found
