"""The mig-parted configuration file, version v1."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gpuwaste_agent.products import GpuProduct
    from gpuwaste_agent.simulate.scenario import ScenarioGpu

__all__ = ["ConfigError", "MigEntry", "generated", "parse_config", "wanted_layouts"]

_VENDOR = "10DE"
_BALANCED = {7: {1: 2, 2: 1, 3: 1}, 4: {1: 2, 2: 1}}


class ConfigError(Exception):
    """A configuration that mig-manager refuses; the message says where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MigEntry:
    """What one entry wants of some GPUs.

    Attributes:
        devices: indexes of the GPUs, or None for all.
        filters: PCI ids `0x<device><vendor>` of the products meant; empty means any.
        enabled: MIG mode.
        instances: profile to count.
    """

    devices: tuple[int, ...] | None
    filters: tuple[str, ...] = ()
    enabled: bool
    instances: Mapping[str, int] = field(default_factory=dict)


def parse_config(text: str) -> dict[str, tuple[MigEntry, ...]]:
    """Read a configuration: entries by its names.

    Raises:
        ConfigError: it is no configuration of version v1.
    """
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"the file is no YAML: {error}") from None
    if not isinstance(value, dict) or value.get("version") != "v1":
        raise ConfigError("`version` must be v1")
    configs = value.get("mig-configs")
    if not isinstance(configs, dict) or not configs:
        raise ConfigError("`mig-configs` must name at least one configuration")
    return {
        str(name): tuple(_entry(entry, f"mig-configs.{name}[{index}]") for index, entry in enumerate(entries))
        for name, entries in configs.items()
    }


def _entry(value: dict[str, Any], where: str) -> MigEntry:
    devices, filters = value.get("devices"), value.get("device-filter", [])
    if devices != "all" and not (isinstance(devices, list) and all(isinstance(index, int) for index in devices)):
        raise ConfigError(f"`{where}.devices` must be all or a list of indexes")
    enabled = value.get("mig-enabled")
    if not isinstance(enabled, bool):
        raise ConfigError(f"`{where}.mig-enabled` must be true or false")
    instances = value.get("mig-devices")
    if enabled and instances is None:
        raise ConfigError(f"`{where}.mig-devices` must be given where mig-enabled is true; {{}} means none")
    if not enabled and instances:
        raise ConfigError(f"`{where}.mig-devices` must be absent where mig-enabled is false")
    return MigEntry(
        devices=None if devices == "all" else tuple(devices),
        filters=tuple([filters] if isinstance(filters, str) else filters),
        enabled=enabled,
        instances=dict(instances or {}),
    )


def wanted_layouts(
    entries: Sequence[MigEntry], gpus: Sequence[ScenarioGpu], pci_devices: Mapping[str, Sequence[str]]
) -> dict[str, Counter[str] | None]:
    """Instances wanted by GPU UUID, None for MIG mode off; GPUs that no entry means are absent.

    Args:
        entries: of one configuration; the last that means a GPU holds.
        gpus: the node's GPUs.
        pci_devices: PCI device ids by product name, as `0x20B2`.
    """
    wanted: dict[str, Counter[str] | None] = {}
    for entry in entries:
        for index, gpu in enumerate(gpus):
            ids = {f"{device}{_VENDOR}".lower() for device in pci_devices.get(gpu.product, ())}
            meant = entry.devices is None or index in entry.devices
            if meant and (not entry.filters or ids & {name.lower() for name in entry.filters}):
                wanted[gpu.uuid] = Counter(entry.instances) if entry.enabled else None
    return wanted


def generated(products: Sequence[GpuProduct]) -> str:
    """The configuration that mig-manager makes where it is given none, from the node's products."""
    every = {"devices": "all"}
    configs: dict[str, list[dict[str, Any]]] = {
        "all-disabled": [{**every, "mig-enabled": False}],
        "all-enabled": [{**every, "mig-enabled": True, "mig-devices": {}}],
    }
    for product in products:
        for profile in product.profiles:
            name = "all-" + profile.name.replace("+", ".")
            configs[name] = [{**every, "mig-enabled": True, "mig-devices": {profile.name: profile.max_count}}]
        plain = {p.compute_slices: p for p in reversed(product.profiles) if not set("+-") & set(p.name)}
        shares = _BALANCED.get(product.compute_slices)
        if shares and set(shares) <= set(plain):
            parts = {plain[slices].name: count for slices, count in shares.items()}
            configs["all-balanced"] = [{**every, "mig-enabled": True, "mig-devices": parts}]
    return yaml.safe_dump({"version": "v1", "mig-configs": configs}, sort_keys=False)
