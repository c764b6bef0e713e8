"""The devices of a node as NVIDIA's driver shapes them in a ResourceSlice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from gpuwaste_agent.simulate.scenario import ScenarioGpu

__all__ = ["DRIVER", "device_classes", "devices", "resource_slice"]

DRIVER = "gpu.nvidia.com"

_DRIVER_VERSION = "580.95.5"  # a semantic version has no leading zeros
_TYPES = {"gpu.nvidia.com": "gpu", "mig.nvidia.com": "mig"}


def devices(
    gpus: Sequence[ScenarioGpu], unhealthy: AbstractSet[str] = frozenset(), *, named: str = ""
) -> list[dict[str, Any]]:
    """Devices of the slice: a GPU with MIG mode off, or the instances of one with MIG mode on.

    Args:
        gpus: the node's GPUs, by minor number.
        unhealthy: UUIDs of GPUs that are left out.
        named: Devices are called so and numbered, instead of by what they are as NVIDIA's driver calls them.
    """
    found = []
    for minor, gpu in enumerate(gpus):
        facts = gpu.facts
        if gpu.uuid in unhealthy:
            continue
        common = {
            "productName": {"string": facts.nvml_names[0]},
            "architecture": {"string": facts.architecture.capitalize()},
            "cudaComputeCapability": {"version": f"{facts.compute_capability}.0"},
            "driverVersion": {"version": _DRIVER_VERSION},
        }
        if gpu.mig is None:
            attributes = {"type": {"string": "gpu"}, "uuid": {"string": gpu.uuid}, **common}
            found.append(_device(f"gpu-{minor}", attributes, facts.memory_mib, facts.sm_count))
        for instance in gpu.mig or ():
            profile = facts.profile(instance.profile)
            plain = profile.name.replace(".", "").replace("+", "-")
            name = f"gpu-{minor}-mig-{plain}-{profile.gi_profile_id}-{instance.start}"
            attributes = {
                "type": {"string": "mig"},
                "uuid": {"string": instance.uuid},
                "profile": {"string": profile.name},
                "parentUUID": {"string": gpu.uuid},
                **common,
            }
            multiprocessors = facts.sm_count * profile.compute_slices // facts.compute_slices
            found.append(_device(name, attributes, int(facts.memory_mib * profile.weight), multiprocessors))
    return [{**one, "name": f"{named}-{number}"} for number, one in enumerate(found)] if named else found


def _device(name: str, attributes: dict[str, Any], memory_mib: int, multiprocessors: int) -> dict[str, Any]:
    # As the API server writes it back; anything else would look like a change.
    memory = f"{memory_mib // 1024}Gi" if memory_mib % 1024 == 0 else f"{memory_mib}Mi"
    capacity = {"memory": {"value": memory}, "multiprocessors": {"value": str(multiprocessors)}}
    return {"name": name, "attributes": attributes, "capacity": capacity}


def resource_slice(node: dict[str, Any], found: Sequence[dict[str, Any]], generation: int) -> dict[str, Any]:
    """The one slice of a node's pool; it goes with the node."""
    name = node["metadata"]["name"]
    owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": node["metadata"]["uid"], "controller": True}
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"name": f"{name}-{DRIVER}", "ownerReferences": [owner]},
        "spec": {
            "driver": DRIVER,
            "nodeName": name,
            "pool": {"name": name, "generation": generation, "resourceSliceCount": 1},
            "devices": list(found),
        },
    }


def device_classes() -> list[dict[str, Any]]:
    """The classes by which claims ask for GPUs and for MIG instances."""
    condition = "device.driver == '{driver}' && device.attributes['{driver}'].type == '{type}'"
    return [
        {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "DeviceClass",
            "metadata": {"name": name},
            "spec": {"selectors": [{"cel": {"expression": condition.format(driver=DRIVER, type=kind)}}]},
        }
        for name, kind in _TYPES.items()
    ]
