"""The device plugin's configuration file, version v1, as NVIDIA's plugin reads it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ConfigError", "PluginConfig", "parse_config"]

_STRATEGIES = ("none", "single", "mixed")
_PREFIX = "nvidia.com/"
_LEAST_REPLICAS = 2
_LONGEST_NAME = 63


class ConfigError(Exception):
    """A configuration that the plugin refuses; the message says which field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginConfig:
    """What a configuration file says.

    Attributes:
        mig_strategy: `none`, `single` or `mixed`.
        sharing: `none`, `time-slicing` or `mps`.
        replicas: resource name to replicas of each of its devices; absent means not shared.
        rename: whether shared resources are called `<name>.shared`.
        refuse_many: whether a container may ask for one shared device only.
        packed: whether replicas of the same device are preferred to those of different ones.
    """

    mig_strategy: str = "none"
    sharing: str = "none"
    replicas: Mapping[str, int] = field(default_factory=dict)
    rename: bool = False
    refuse_many: bool = False
    packed: bool = False


def parse_config(text: str) -> PluginConfig:
    """Read a configuration.

    Raises:
        ConfigError: it is no configuration of version v1, or a field is out of range.
    """
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"the file is no YAML: {error}") from None
    if not isinstance(value, dict) or value.get("version") != "v1":
        raise ConfigError("`version` must be v1")
    flags = value.get("flags") or {}
    strategy = flags.get("migStrategy", "none")
    if strategy not in _STRATEGIES:
        raise ConfigError(f"`flags.migStrategy` must be one of {', '.join(_STRATEGIES)}, not `{strategy}`")
    packed = (flags.get("plugin") or {}).get("sharedDevicesAllocationPolicy", "distributed") == "packed"
    name, sharing = _sharing(value.get("sharing") or {})
    if not sharing:
        return PluginConfig(mig_strategy=strategy, packed=packed)
    replicas = _replicas(name, sharing.get("resources"))
    if name == "mps" and set(replicas) != {f"{_PREFIX}gpu"}:
        raise ConfigError("`sharing.mps.resources` may name nvidia.com/gpu only")
    return PluginConfig(
        mig_strategy=strategy,
        sharing="mps" if name == "mps" else "time-slicing",
        replicas=replicas,
        rename=bool(sharing.get("renameByDefault", False)),
        refuse_many=bool(sharing.get("failRequestsGreaterThanOne", name == "mps")),
        packed=packed,
    )


def _sharing(value: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    # Where both stand, the plugin takes mps without a word.
    for name in ("mps", "timeSlicing"):
        if value.get(name):
            return name, value[name]
    return "", {}


def _replicas(name: str, resources: Any) -> dict[str, int]:
    where = f"`sharing.{name}.resources`"
    if not isinstance(resources, list) or not resources:
        raise ConfigError(f"{where} must be a list with at least one resource")
    found = {}
    for resource in resources:
        full = str(resource.get("name", ""))
        full = full if full.startswith(_PREFIX) else _PREFIX + full
        replicas = resource.get("replicas")
        if isinstance(replicas, bool) or not isinstance(replicas, int) or replicas < _LEAST_REPLICAS:
            raise ConfigError(f"{where}: `replicas` of {full} must be at least {_LEAST_REPLICAS}, not {replicas}")
        if len(full) > _LONGEST_NAME:
            raise ConfigError(f"{where}: the name {full} must have at most {_LONGEST_NAME} characters")
        found[full] = replicas
    return found
