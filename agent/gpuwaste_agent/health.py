"""How a GPU is, beside what it does: memory errors, remapped rows, what slows its clocks, and how it is connected."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pynvml

from gpuwaste_agent.telemetry import GpuHealth

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gpuwaste_agent.nvml_devices import DriverGpu

__all__ = ["read_health", "read_topology", "throttle_names"]

# Fields by what they tell, asked by one call.
_FIELDS = {
    "ecc_enabled": pynvml.NVML_FI_DEV_ECC_CURRENT,
    "ecc_corrected": pynvml.NVML_FI_DEV_ECC_SBE_VOL_TOTAL,
    "ecc_uncorrected": pynvml.NVML_FI_DEV_ECC_DBE_VOL_TOTAL,
    "remapped_rows_corrected": pynvml.NVML_FI_DEV_REMAPPED_COR,
    "remapped_rows_uncorrected": pynvml.NVML_FI_DEV_REMAPPED_UNC,
    "remap_pending": pynvml.NVML_FI_DEV_REMAPPED_PENDING,
    "remap_failed": pynvml.NVML_FI_DEV_REMAPPED_FAILURE,
}
_FLAGS = ("ecc_enabled", "remap_pending", "remap_failed")
# Reasons that take clocks away from work; being idle and clocks that somebody chose are none.
_REASONS = {
    pynvml.nvmlClocksEventReasonSwPowerCap: "sw_power_cap",
    pynvml.nvmlClocksEventReasonHwSlowdown: "hw_slowdown",
    pynvml.nvmlClocksEventReasonSyncBoost: "sync_boost",
    pynvml.nvmlClocksEventReasonSwThermalSlowdown: "sw_thermal_slowdown",
    pynvml.nvmlClocksEventReasonHwThermalSlowdown: "hw_thermal_slowdown",
    pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown: "hw_power_brake_slowdown",
}
# What the path between two GPUs crosses, by NVML's level.
_LEVELS = {
    pynvml.NVML_TOPOLOGY_INTERNAL: "same board",
    pynvml.NVML_TOPOLOGY_SINGLE: "one PCIe switch",
    pynvml.NVML_TOPOLOGY_MULTIPLE: "several PCIe switches",
    pynvml.NVML_TOPOLOGY_HOSTBRIDGE: "host bridge",
    pynvml.NVML_TOPOLOGY_NODE: "NUMA node",
    pynvml.NVML_TOPOLOGY_SYSTEM: "between NUMA nodes",
}


def throttle_names(mask: int) -> tuple[str, ...]:
    """Names of the reasons in NVML's mask that slow work down."""
    return tuple(name for bit, name in _REASONS.items() if mask & bit)


def _value(field: Any) -> int | None:
    if field.nvmlReturn != pynvml.NVML_SUCCESS:
        return None
    wide = field.valueType in (pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG, pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG)
    return int(field.value.ullVal if wide else field.value.uiVal)


def read_health(gpu: DriverGpu, ask: Callable[..., Any]) -> GpuHealth:
    """Ask for everything; what the product does not have is None.

    Args:
        gpu: The GPU.
        ask: Calls NVML as `ask(gpu, figure, function, …)`; None where it is refused.
    """
    fields = ask(gpu, "health", pynvml.nvmlDeviceGetFieldValues, gpu.handle, list(_FIELDS.values()))
    found: dict[str, int | None] = dict.fromkeys(_FIELDS)
    if fields is not None:
        found = {name: _value(field) for name, field in zip(_FIELDS, fields, strict=True)}
    mask = ask(gpu, "throttling", pynvml.nvmlDeviceGetCurrentClocksEventReasons, gpu.handle)
    if mask is None:
        mask = ask(gpu, "throttling, old", pynvml.nvmlDeviceGetCurrentClocksThrottleReasons, gpu.handle)
    return GpuHealth(
        ecc_corrected=found["ecc_corrected"],
        ecc_uncorrected=found["ecc_uncorrected"],
        remapped_rows_corrected=found["remapped_rows_corrected"],
        remapped_rows_uncorrected=found["remapped_rows_uncorrected"],
        throttle=None if mask is None else throttle_names(mask),
        **{name: None if (value := found[name]) is None else bool(value) for name in _FLAGS},
    )


@dataclass(slots=True)
class _Links:
    active: int
    peers: dict[str, int]


def _links(gpu: DriverGpu, by_bus: dict[str, str], ask: Callable[..., Any]) -> _Links:
    """NVLinks that are up, and to which GPUs of this node they lead; the others lead to switches."""
    found = _Links(0, {})
    for link in range(pynvml.NVML_NVLINK_MAX_LINKS):
        state = ask(gpu, "nvlink", pynvml.nvmlDeviceGetNvLinkState, gpu.handle, link)
        if state is None:
            break
        if state != pynvml.NVML_FEATURE_ENABLED:
            continue
        found.active += 1
        remote = ask(gpu, "nvlink peers", pynvml.nvmlDeviceGetNvLinkRemotePciInfo, gpu.handle, link)
        peer = None if remote is None else by_bus.get(_bus(remote.busId))
        if peer is not None:
            found.peers[peer] = found.peers.get(peer, 0) + 1
    return found


def _bus(bus_id: str | bytes) -> str:
    text = bus_id.decode() if isinstance(bus_id, bytes) else bus_id
    domain, _, rest = text.lower().partition(":")
    return f"{domain[-4:]}:{rest}"


def read_topology(gpus: Sequence[DriverGpu], ask: Callable[..., Any]) -> str:
    """How the GPUs are connected, as a JSON object by UUID.

    `pcie_generation` and `pcie_width` are the most the GPU and its slot can; `nvlinks` are those that are up,
    `nvlink_peers` how many of them lead to which GPU of the node, and `paths` what the PCIe path to each other GPU
    crosses. What the driver does not tell is left out.
    """
    by_bus = {_bus(gpu.info.pci_bus_id): gpu.info.uuid for gpu in gpus}
    found = {}
    for gpu in gpus:
        links = _links(gpu, by_bus, ask)
        entry: dict[str, Any] = {
            "nvlinks": links.active,
            "nvlink_peers": links.peers,
            "pcie_generation": ask(gpu, "pcie generation", pynvml.nvmlDeviceGetMaxPcieLinkGeneration, gpu.handle),
            "pcie_width": ask(gpu, "pcie width", pynvml.nvmlDeviceGetMaxPcieLinkWidth, gpu.handle),
            "paths": _paths(gpu, gpus, ask),
        }
        found[gpu.info.uuid] = {name: value for name, value in entry.items() if value not in (None, {})}
    return json.dumps(found, sort_keys=True)


def _paths(gpu: DriverGpu, gpus: Sequence[DriverGpu], ask: Callable[..., Any]) -> dict[str, str]:
    paths = {}
    for other in gpus:
        if other is gpu or other.lost:
            continue
        level = ask(gpu, "topology", pynvml.nvmlDeviceGetTopologyCommonAncestor, gpu.handle, other.handle)
        if level is None:
            break
        paths[other.info.uuid] = _LEVELS.get(level, str(level))
    return paths
