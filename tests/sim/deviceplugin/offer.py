"""What the plugin offers: resources with their devices, and the node labels that describe them."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from tests.sim.deviceplugin.config import PluginConfig

    from gpuwaste_agent.simulate.scenario import ScenarioGpu

__all__ = ["OfferedDevice", "labels", "offer", "parent_of", "preferred"]

_GPU = "nvidia.com/gpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedDevice:
    """A device as the kubelet sees it; replicas of one parent have ids `<parent>::<n>`."""

    id: str
    healthy: bool


def parent_of(device: str) -> str:
    """The GPU or MIG instance that a device is, or is a replica of."""
    return device.split("::", maxsplit=1)[0]


def offer(
    gpus: Sequence[ScenarioGpu], config: PluginConfig, unhealthy: AbstractSet[str] = frozenset()
) -> dict[str, tuple[OfferedDevice, ...]]:
    """Devices by resource name.

    Args:
        gpus: the node's GPUs with their MIG instances.
        config: the plugin's configuration.
        unhealthy: UUIDs of the GPUs that are not to be used; all their devices are unhealthy.
    """
    parents: dict[str, list[tuple[str, bool]]] = defaultdict(list)
    for gpu in gpus:
        healthy = gpu.uuid not in unhealthy
        if gpu.mig is None or config.mig_strategy == "none":
            parents[_GPU].append((gpu.uuid, healthy))
            continue
        for instance in gpu.mig:
            name = _GPU if config.mig_strategy == "single" else gpu.facts.profile(instance.profile).resource_name
            parents[name].append((instance.uuid, healthy))
    offered = {}
    for name, found in parents.items():
        replicas = config.replicas.get(name)
        shown = f"{name}.shared" if replicas and config.rename else name
        offered[shown] = tuple(
            OfferedDevice(id=device, healthy=healthy)
            for parent, healthy in found
            for device in ([f"{parent}::{n}" for n in range(replicas)] if replicas else [parent])
        )
    return offered


def preferred(available: Sequence[str], must_include: Sequence[str], count: int, *, packed: bool) -> list[str]:
    """Choose `count` devices for one container.

    The default spreads replicas over the parents with the most free ones; `packed` does the contrary.
    """
    chosen = list(must_include)
    left = sorted(set(available) - set(chosen))
    while len(chosen) < count and left:
        free = Counter(map(parent_of, left))
        taken = Counter(map(parent_of, chosen))
        if packed:
            best = min(left, key=lambda device: (-taken[parent_of(device)], free[parent_of(device)], device))
        else:
            best = min(left, key=lambda device: (taken[parent_of(device)], -free[parent_of(device)], device))
        chosen.append(best)
        left.remove(best)
    return chosen


def labels(gpus: Sequence[ScenarioGpu], config: PluginConfig) -> dict[str, str]:
    """The node labels of GPU feature discovery; as there, they assume one GPU model a node."""
    if not gpus:
        return {}
    facts = gpus[0].facts
    replicas = config.replicas.get(_GPU, 1)
    shared = replicas > 1
    product = facts.nvml_names[0].replace(" ", "-")
    memory_mib = facts.memory_mib
    profiles = Counter(instance.profile for gpu in gpus for instance in gpu.mig or ())
    if config.mig_strategy == "single" and profiles:
        profile = next(iter(profiles))
        product += f"-MIG-{profile.replace('+', '.')}" if len(profiles) == 1 else "-MIG-INVALID"
        memory_mib = int(facts.memory_mib * facts.profile(profile).weight)
    major, _, minor = facts.compute_capability.partition(".")
    found = {
        "gpu.present": "true",
        "gpu.product": product + ("-SHARED" if shared and not config.rename else ""),
        "gpu.count": str(len(gpus)),
        "gpu.memory": str(memory_mib),
        "gpu.replicas": str(replicas),
        "gpu.sharing-strategy": config.sharing,
        "gpu.family": facts.architecture,
        "gpu.compute.major": major,
        "gpu.compute.minor": minor,
        "gpu.mode": "compute",
        "mps.capable": str(config.sharing == "mps").lower(),
        "mig.capable": str(facts.mig_capable).lower(),
        "mig.strategy": config.mig_strategy,
    }
    if config.mig_strategy == "mixed":
        for profile, count in profiles.items():
            shape = facts.profile(profile)
            prefix = shape.resource_name.removeprefix("nvidia.com/")
            shared = config.replicas.get(shape.resource_name, 1)
            sms = facts.sm_count * shape.compute_slices // facts.compute_slices
            found[f"{prefix}.count"] = str(count)
            found[f"{prefix}.product"] = f"{facts.nvml_names[0].replace(' ', '-')}-MIG-{profile.replace('+', '.')}"
            found[f"{prefix}.memory"] = str(int(facts.memory_mib * shape.weight))
            found[f"{prefix}.multiprocessors"] = str(sms)
            found[f"{prefix}.replicas"] = str(shared)
            found[f"{prefix}.sharing-strategy"] = config.sharing if shared > 1 else "none"
            found[f"{prefix}.slices.gi"] = found[f"{prefix}.slices.ci"] = str(shape.compute_slices)
    return {f"nvidia.com/{name}": value for name, value in found.items()}
