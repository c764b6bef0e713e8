"""What a plan for the GPUs of nodes is to mig-manager and to the device plugin, and whether the two say the same.

A node has one label for each: `nvidia.com/mig.config` names an entry of mig-parted's configuration, which cuts each GPU
by its index; `nvidia.com/device-plugin.config` names a key with the node's one sharing mode, and one count of replicas
for each resource name. Names end in a hash of the content: a key that is edited in place changes nothing on a node.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import yaml

from gpuwaste.model.errors import InvariantError
from gpuwaste.packing.mig import legal_geometries

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gpuwaste.model.gpu_products import GpuProduct
    from gpuwaste.packing.mig import Layout

__all__ = [
    "MigStrategy",
    "NodeConfigs",
    "NodePlan",
    "Sharing",
    "SharingMode",
    "config_violations",
    "node_configs",
    "offered",
    "plan_violations",
    "plans_of_layouts",
]

_GPU = "nvidia.com/gpu"
_PREFIX = "nvidia.com/"
_LONGEST_NAME = 63
_FEWEST_REPLICAS = 2
_HASH_LENGTH = 8
_MIG_LABEL = "nvidia.com/mig.config"
_PLUGIN_LABEL = "nvidia.com/device-plugin.config"
_STANDARD = {
    "all-disabled": [{"devices": "all", "mig-enabled": False}],
    "all-enabled": [{"devices": "all", "mig-enabled": True, "mig-devices": {}}],
}


class MigStrategy(StrEnum):
    """The device plugin's `migStrategy`."""

    NONE = "none"
    SINGLE = "single"
    MIXED = "mixed"


class SharingMode(StrEnum):
    """The key under `sharing` in the device plugin's configuration."""

    TIME_SLICING = "timeSlicing"
    MPS = "mps"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """How the devices of one resource are shared on a node.

    Attributes:
        resource: for example `nvidia.com/gpu`.
        replicas: of each device, 2 or more.
    """

    resource: str
    replicas: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlan:
    """What the GPUs of one node shall be.

    Attributes:
        node: its name.
        strategy: of the device plugin on it.
        gpus: by index, the profiles each GPU is cut into; None = MIG is off.
        mode: how devices are shared; None = not at all. A node has one mode.
        sharing: replicas by resource; empty where `mode` is None.
    """

    node: str
    strategy: MigStrategy
    gpus: tuple[tuple[str, ...] | None, ...]
    mode: SharingMode | None = None
    sharing: tuple[Sharing, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfigs:
    """The content of both ConfigMaps, and the labels that choose from them.

    Attributes:
        mig: text of key `config.yaml` of mig-manager's ConfigMap.
        plugin: key -> text of the device plugin's ConfigMap.
        labels: node -> labels.
    """

    mig: str
    plugin: dict[str, str]
    labels: dict[str, dict[str, str]]


def plan_violations(product: GpuProduct, plan: NodePlan) -> list[str]:
    """Every rule of MIG, mig-manager and the device plugin that a plan breaks; empty if it can be carried out."""
    found = [*_mig_violations(product, plan), *_sharing_violations(product, plan)]
    return [f"node {plan.node}: {what}" for what in found]


def _mig_violations(product: GpuProduct, plan: NodePlan) -> list[str]:
    found: list[str] = []
    legal = legal_geometries(product) if product.mig_capable else {}
    names = [profile.name for profile in product.profiles]
    for index, cut in enumerate(plan.gpus):
        if cut is None:
            continue
        if not product.mig_capable:
            return [f"{product.name} has no MIG"]
        unknown = [name for name in cut if name not in names]
        if unknown:
            found.append(f"GPU {index}: {product.name} has no profile {unknown[0]}")
        elif cut and tuple(cut.count(name) for name in names) not in legal:
            found.append(f"GPU {index}: {', '.join(cut)} do not fit on one GPU")
    cuts = {None if cut is None else tuple(sorted(cut)) for cut in plan.gpus}
    if plan.strategy == MigStrategy.NONE and cuts - {None}:
        found.append("migStrategy none does not offer MIG instances")
    if plan.strategy == MigStrategy.SINGLE and cuts != {None}:
        profiles = {name for cut in cuts if cut for name in cut}
        if None in cuts or len(cuts) > 1 or len(profiles) != 1:
            found.append("migStrategy single needs all GPUs cut into the same number of one profile")
    return found


def _sharing_violations(product: GpuProduct, plan: NodePlan) -> list[str]:
    if plan.mode is None:
        return ["replicas are given and no sharing mode"] if plan.sharing else []
    found: list[str] = []
    if not plan.sharing:
        found.append("a sharing mode is given and no replicas")
    twice = [name for name, count in Counter(one.resource for one in plan.sharing).items() if count > 1]
    found += [f"{name} is shared in two ways" for name in twice]
    there = _devices(product, plan)
    for one in plan.sharing:
        if one.replicas < _FEWEST_REPLICAS:
            found.append(f"{one.replicas} replicas of {one.resource}; the plugin takes 2 or more")
        if not there.get(one.resource):
            found.append(f"{one.resource} is shared and the node does not offer it")
        if len(f"{one.resource}.shared".removeprefix(_PREFIX)) > _LONGEST_NAME:
            found.append(f"{one.resource} is too long a name")
    if plan.mode == SharingMode.MPS:
        if any(cut is not None for cut in plan.gpus):
            found.append("MPS does not work on a node with MIG")
        if any(one.resource != _GPU for one in plan.sharing):
            found.append(f"MPS shares {_GPU} only")
    return found


def _devices(product: GpuProduct, plan: NodePlan) -> Counter[str]:
    """Resource -> devices before sharing, as the plugin counts them."""
    resource = {profile.name: profile.resource_name for profile in product.profiles}
    found: Counter[str] = Counter()
    for cut in plan.gpus:
        if cut is None:
            found[_GPU] += 1
            continue
        for name in cut:
            found[_GPU if plan.strategy == MigStrategy.SINGLE else resource.get(name, name)] += 1
    return found


def offered(product: GpuProduct, plan: NodePlan) -> dict[str, int]:
    """Resource -> what the node's `allocatable` will say once the plan is carried out."""
    replicas = {one.resource: one.replicas for one in plan.sharing}
    return {name: count * replicas.get(name, 1) for name, count in sorted(_devices(product, plan).items())}


def node_configs(product: GpuProduct, plans: Sequence[NodePlan]) -> NodeConfigs:
    """Write both ConfigMaps for nodes of one product; equal plans share an entry and a key.

    Raises:
        InvariantError: a plan cannot be carried out, or what was written does not say what the plans do.
    """
    found = [what for plan in plans for what in plan_violations(product, plan)]
    if found:
        raise InvariantError("the plan cannot be carried out: " + "; ".join(found[:3]))
    entries: dict[str, Any] = dict(_STANDARD)
    plugin: dict[str, str] = {}
    labels: dict[str, dict[str, str]] = {}
    for plan in plans:
        entry, config = _mig_entry(plan), _plugin_config(plan)
        name, key = f"gpuwaste-{_hash(entry)}", f"gpuwaste-{_hash(config)}"
        plugin[key] = yaml.safe_dump(config, sort_keys=False)
        labels[plan.node] = {_PLUGIN_LABEL: key}
        if product.mig_capable:
            entries[name] = entry
            labels[plan.node][_MIG_LABEL] = name
    mig = yaml.safe_dump({"version": "v1", "mig-configs": entries}, sort_keys=False)
    configs = NodeConfigs(mig=mig, plugin=plugin, labels=labels)
    wrong = config_violations(product, plans, configs)
    if wrong:
        raise InvariantError("the configuration is wrong and was not written: " + "; ".join(wrong[:3]))
    return configs


def _hash(body: Any) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:_HASH_LENGTH]


def _mig_entry(plan: NodePlan) -> list[dict[str, Any]]:
    """One item for every distinct layout; every GPU of the node is in one."""
    devices: dict[tuple[tuple[str, int], ...] | None, list[int]] = {}
    for index, cut in enumerate(plan.gpus):
        devices.setdefault(None if cut is None else tuple(sorted(Counter(cut).items())), []).append(index)
    return [
        {"devices": indexes, "mig-enabled": False}
        if counts is None
        else {"devices": indexes, "mig-enabled": True, "mig-devices": dict(counts)}
        for counts, indexes in devices.items()
    ]


def _plugin_config(plan: NodePlan) -> dict[str, Any]:
    """Without `sharing` where nothing is shared: that is how it is switched off."""
    config: dict[str, Any] = {"version": "v1", "flags": {"migStrategy": plan.strategy.value}}
    if plan.mode is not None:
        resources = [{"name": one.resource, "replicas": one.replicas} for one in plan.sharing]
        config["sharing"] = {plan.mode.value: {"resources": resources}}
    return config


def config_violations(product: GpuProduct, plans: Sequence[NodePlan], configs: NodeConfigs) -> list[str]:
    """Where the written text, read as mig-parted and the plugin read it, offers other resources than a plan does."""
    entries = yaml.safe_load(configs.mig)["mig-configs"]
    found: list[str] = []
    for plan in plans:
        labels = configs.labels.get(plan.node, {})
        text = configs.plugin.get(labels.get(_PLUGIN_LABEL, ""))
        entry = entries.get(labels.get(_MIG_LABEL, "all-disabled"))
        if text is None or entry is None:
            found.append(f"node {plan.node}: its labels name no configuration")
            continue
        told = _read_back(product, entry, yaml.safe_load(text), gpus=len(plan.gpus))
        if told != offered(product, plan):
            found.append(f"node {plan.node}: the configuration offers {told}, the plan {offered(product, plan)}")
    return found


def _read_back(
    product: GpuProduct, entry: Iterable[Mapping[str, Any]], config: Mapping[str, Any], *, gpus: int
) -> dict[str, int]:
    """Resource -> count, from an entry of mig-parted and a configuration of the plugin alone."""
    resource = {profile.name: profile.resource_name for profile in product.profiles}
    strategy = config["flags"]["migStrategy"]
    devices: Counter[str] = Counter()
    seen: Counter[int] = Counter()
    for item in entry:
        indexes = range(gpus) if item["devices"] == "all" else item["devices"]
        for index in indexes:
            seen[index] += 1
            if not item["mig-enabled"]:
                devices[_GPU] += 1
            for name, count in (item.get("mig-devices") or {}).items():
                devices[_GPU if strategy == "single" else resource[name]] += count
    if any(seen[index] != 1 for index in range(gpus)) or len(seen) != gpus:
        return {"a GPU is in no item or in two": 0}
    sharing = config.get("sharing") or {}
    # The plugin takes MPS before time-slicing where both are there.
    shared = sharing.get("mps") or sharing.get("timeSlicing") or {}
    replicas = {one["name"]: one["replicas"] for one in shared.get("resources", ())}
    return {name: count * replicas.get(name, 1) for name, count in sorted(devices.items())}


def plans_of_layouts(
    layouts: Sequence[Layout], nodes: Sequence[str], *, gpus_a_node: int, strategy: MigStrategy
) -> tuple[NodePlan, ...]:
    """Put GPUs that are cut in some ways onto nodes; GPUs left over on a node are in MIG mode with no instance.

    Under `mixed` a node may have GPUs of several layouts; under `single` all GPUs of a node are cut alike, so that its
    spare GPUs are cut as well.

    Args:
        layouts: as `fewest_gpus` or `choose_options` give them (with `uniform` for `single`).
        nodes: names, as many as there may be.
        gpus_a_node: GPUs of each.
        strategy: `mixed` or `single`.

    Raises:
        InvariantError: there are too few nodes.
    """
    cuts = [(tuple(name for name, _ in layout.instances), layout.count) for layout in layouts]
    full: list[tuple[tuple[str, ...], ...]] = []
    if strategy == MigStrategy.SINGLE:
        # Of one profile the fullest layout: under `single` the GPUs of a node do not differ.
        most: dict[str, tuple[int, tuple[str, ...]]] = {}
        for cut, count in cuts:
            known, widest = most.get(cut[0], (0, ()))
            most[cut[0]] = (known + count, max(widest, cut, key=len))
        for count, cut in most.values():
            full += [(cut,) * gpus_a_node] * -(-count // gpus_a_node)
    else:
        single = [cut for cut, count in sorted(cuts) for _ in range(count)]
        for start in range(0, len(single), gpus_a_node):
            chunk = single[start : start + gpus_a_node]
            full.append((*chunk, *(((),) * (gpus_a_node - len(chunk)))))
    if len(full) > len(nodes):
        raise InvariantError(f"{len(full)} nodes are needed and {len(nodes)} are there")
    return tuple(NodePlan(node=name, strategy=strategy, gpus=gpus) for name, gpus in zip(nodes, full, strict=False))
