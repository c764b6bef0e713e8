"""Reads the scheduling rules of `gpuwaste pack --rules` and puts them into an instance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from gpuwaste.model.errors import InputError
from gpuwaste.packing.group_rules import Apart, Gang, GroupRule, Spread, Together
from gpuwaste.packing.rules import at_most_per_node, keep_apart, keep_free, only_on

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gpuwaste.packing.csv_table import CsvTable
    from gpuwaste.packing.instance import Bools, Instance, Ints

__all__ = ["GROUP_COLUMN", "RULE_KINDS", "with_rules"]

GROUP_COLUMN = "group"
"""Column of the pods: the groups that a pod is in, joined by `|`."""
_LARGEST_PRIORITY = 2**31
_NODE = "node"
"""The topology whose domains are the nodes themselves; others are columns of the nodes file."""


@dataclass(slots=True)
class _Reader:
    """The instance as far as it was built, and the columns that rules may name."""

    path: Path
    instance: Instance
    nodes: CsvTable
    pods: CsvTable
    allowed: dict[int, Bools]
    groups: dict[str, tuple[int, ...]]
    columns: dict[str, list[str]]
    found: list[GroupRule]

    def group(self, rule: dict[str, Any], field: str, where: str) -> tuple[int, ...]:
        name = rule.get(field)
        if not isinstance(name, str) or name not in self.groups:
            raise InputError(
                f"{name!r} is no group of the pods",
                where=f"{where}, field {field}",
                fix=f"column '{GROUP_COLUMN}' has {', '.join(sorted(self.groups)) or 'none'}",
            )
        return self.groups[name]

    def column(self, name: Any, where: str) -> list[str]:
        if not isinstance(name, str) or not self.nodes.has(name):
            raise InputError(f"{name!r} is no column of {self.nodes.path}", where=where)
        if name not in self.columns:
            self.columns[name] = self.nodes.text(name).to_pylist()
        return self.columns[name]

    def selected(self, rule: dict[str, Any], where: str) -> Bools:
        """bool[N]: the nodes whose columns have one of the values named."""
        wanted = rule.get("nodes", {})
        if not isinstance(wanted, dict):
            raise InputError("is no map of column to values", where=f"{where}, field nodes")
        mask = np.ones(len(self.instance.node_names), dtype=np.bool_)
        for name, values in wanted.items():
            column = self.column(name, f"{where}, field nodes")
            listed = values if isinstance(values, list) else [values]
            if not listed or not all(isinstance(value, str) for value in listed):
                raise InputError(f"{name} names no values", where=f"{where}, field nodes", fix="write them as text")
            mask &= np.isin(np.array(column, dtype=object), listed)
        return mask

    def domains(self, rule: dict[str, Any], where: str) -> Ints | None:
        """int64[N] domain of each node, -1 where the column is empty; None where the nodes are the domains."""
        topology = rule.get("topology")
        if topology == _NODE:
            return None
        column = self.column(topology, f"{where}, field topology")
        number: dict[str, int] = {"": -1}
        return np.array([number.setdefault(value, len(number) - 1) for value in column], dtype=np.int64)

    def whole(self, rule: dict[str, Any], field: str, where: str, *, least: int, default: int | None = None) -> int:
        value = rule.get(field, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise InputError(f"{value!r} is no whole number of {least} or more", where=f"{where}, field {field}")
        return value

    def limit(self, pods: tuple[int, ...], mask: Bools) -> None:
        for pod in pods:
            self.allowed[pod] = self.allowed[pod] & mask if pod in self.allowed else mask


def with_rules(path: Path, instance: Instance, *, nodes: CsvTable, pods: CsvTable) -> Instance:
    """The instance with the rules of a YAML or JSON file.

    Args:
        path: a map of kinds of rules, each a list; see `RULE_KINDS`.
        instance: pods and nodes in the order of the tables.
        nodes: its columns may be topologies, and select nodes.
        pods: its column `group` names the groups that rules speak of.

    Raises:
        InputError: the file is no such map, or a rule names what there is not or makes no sense.
    """
    listed = _rules(path)
    reader = _Reader(
        path=path,
        instance=instance,
        nodes=nodes,
        pods=pods,
        allowed={},
        groups=_groups(pods),
        columns={},
        found=[],
    )
    # Nodes that a pod may use come first: which domains a spread counts follows from them.
    for kind, read in RULE_KINDS.items():
        for number, rule in enumerate(listed.get(kind, ()), start=1):
            where = f"{path}, {kind} {number}"
            if not isinstance(rule, dict):
                raise InputError("is no map", where=where)
            unknown = sorted(set(rule) - set(_FIELDS[kind]))
            if unknown:
                raise InputError(f"has no field {unknown[0]}", where=where, fix=f"it has {', '.join(_FIELDS[kind])}")
            read(reader, rule, where)
    ruled = replace(reader.instance, group_rules=tuple(reader.found))
    return _limited(ruled, reader.allowed)


def _limited(instance: Instance, allowed: dict[int, Bools]) -> Instance:
    if not allowed:
        return instance
    rows: dict[bytes, int] = {}
    masks: list[Bools] = []
    pod_rule = np.zeros(len(instance.pod_names), dtype=np.int64)
    everywhere = np.ones(len(instance.node_names), dtype=np.bool_)
    for pod in range(len(instance.pod_names)):
        mask = allowed.get(pod, everywhere)
        key = mask.tobytes()
        if key not in rows:
            rows[key] = len(masks)
            masks.append(mask)
        pod_rule[pod] = rows[key]
    return only_on(instance, np.array(masks, dtype=np.bool_), pod_rule)


def _rules(path: Path) -> dict[str, list[Any]]:
    try:
        body = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"cannot be read ({' '.join(str(error).split())})", where=str(path)) from error
    if body is None:
        return {}
    if not isinstance(body, dict):
        raise InputError("is no map of rules", where=str(path), fix=f"its keys are {', '.join(RULE_KINDS)}")
    for kind, rules in body.items():
        if kind not in RULE_KINDS:
            raise InputError(f"{kind!r} is no kind of rule", where=str(path), fix=f"there are {', '.join(RULE_KINDS)}")
        if not isinstance(rules, list):
            raise InputError("is no list", where=f"{path}, {kind}")
    return body


def _groups(pods: CsvTable) -> dict[str, tuple[int, ...]]:
    if not pods.has(GROUP_COLUMN):
        return {}
    found: dict[str, list[int]] = {}
    for pod, text in enumerate(pods.text(GROUP_COLUMN).to_pylist()):
        for name in dict.fromkeys(part.strip() for part in text.split("|")):
            if name:
                found.setdefault(name, []).append(pod)
    return {name: tuple(members) for name, members in found.items()}


def _only_on(reader: _Reader, rule: dict[str, Any], where: str) -> None:
    reader.limit(reader.group(rule, "group", where), reader.selected(rule, where))


def _resource(reader: _Reader, rule: dict[str, Any], where: str) -> None:
    """An extended resource: what each pod of a group takes, and what nodes have."""
    instance, name = reader.instance, rule.get("name")
    if not isinstance(name, str) or not name:
        raise InputError("has no name", where=f"{where}, field name")
    if name in instance.resources:
        raise InputError(f"'{name}' stands twice", where=f"{where}, field name")
    has = reader.whole(rule, "has", where, least=0)
    takes = np.zeros((len(instance.pod_names), 1), dtype=np.int64)
    takes[list(reader.group(rule, "group", where))] = reader.whole(rule, "each", where, least=0, default=1)
    rooms = np.where(reader.selected(rule, where), has, 0)[:, None]
    reader.instance = replace(
        instance,
        resources=(*instance.resources, name),
        pod_resources=np.hstack([instance.needs, takes]),
        node_resources=np.hstack([instance.rooms, rooms]),
    )


def _at_most(reader: _Reader, rule: dict[str, Any], where: str) -> None:
    pods = reader.group(rule, "group", where)
    most = reader.whole(rule, "perNode", where, least=0)
    reader.instance = at_most_per_node(reader.instance, {f"{rule['group']} a node": (pods, most)})


def _island(reader: _Reader, rule: dict[str, Any], where: str) -> None:
    """Nodes whose GPUs are joined in islands, and pods that need one."""
    instance = reader.instance
    pods = instance.in_island.copy() if instance.pod_island is None else instance.pod_island.copy()
    pods[list(reader.group(rule, "group", where))] = True
    size = np.zeros(len(instance.node_names), dtype=np.int64)
    size = size if instance.node_island_gpus is None else instance.node_island_gpus.copy()
    size[reader.selected(rule, where)] = reader.whole(rule, "gpus", where, least=1)
    reader.instance = replace(instance, pod_island=pods, node_island_gpus=size)


def _apart(reader: _Reader, rule: dict[str, Any], where: str) -> None:
    pods, others = reader.group(rule, "group", where), reader.group(rule, "from", where)
    domain = reader.domains(rule, where)
    name = f"{rule['group']} apart from {rule['from']}"
    if domain is None:
        reader.instance = keep_apart(reader.instance, {name: (pods, others)})
    else:
        reader.found.append(Apart(name=name, pods=pods, others=others, domain=domain))


def _together(reader: _Reader, rule: dict[str, Any], where: str) -> None:
    pods, anchors = reader.group(rule, "group", where), reader.group(rule, "with", where)
    domain = reader.domains(rule, where)
    if domain is None:
        domain = np.arange(len(reader.instance.node_names), dtype=np.int64)
    reader.found.append(
        Together(name=f"{rule['group']} with {rule['with']}", pods=pods, anchors=anchors, domain=domain)
    )


def _spread(reader: _Reader, rule: dict[str, Any], where: str) -> None:
    pods = reader.group(rule, "group", where)
    domain = reader.domains(rule, where)
    skew = reader.whole(rule, "maxSkew", where, least=1, default=1)
    least = reader.whole(rule, "minDomains", where, least=1, default=1)
    how = rule.get("whenUnsatisfiable", "DoNotSchedule")
    if how not in ("DoNotSchedule", "ScheduleAnyway"):
        raise InputError(f"{how!r} is not DoNotSchedule or ScheduleAnyway", where=f"{where}, field whenUnsatisfiable")
    if how == "ScheduleAnyway":
        return
    if domain is None:
        domain = np.arange(len(reader.instance.node_names), dtype=np.int64)
    # As nodeAffinityPolicy: Honor has it, only domains that the pods may use are counted.
    usable = np.zeros(len(domain), dtype=np.bool_)
    instance = reader.instance
    for pod in pods:
        mine = instance.model_sets[instance.pod_model_set[pod]][instance.node_model]
        usable |= mine & reader.allowed[pod] if pod in reader.allowed else mine
    domain = np.where(usable, domain, -1)
    reader.limit(pods, domain >= 0)
    name = f"spread of {rule['group']}"
    reader.found.append(Spread(name=name, pods=pods, domain=domain, max_skew=skew, min_domains=least))


def _gang(reader: _Reader, rule: dict[str, Any], where: str) -> None:
    reader.found.append(Gang(name=str(rule.get("group")), pods=reader.group(rule, "group", where)))


def _keep_free(reader: _Reader, rule: dict[str, Any], where: str) -> None:
    model, gpus = rule.get("model"), reader.whole(rule, "gpus", where, least=0)
    if not isinstance(model, str):
        raise InputError("names no model", where=f"{where}, field model")
    before = len(reader.instance.pod_names)
    try:
        reader.instance = keep_free(reader.instance, {model: gpus})
    except InputError as error:
        raise InputError(str(error), where=where) from None
    mask = reader.selected(rule, where)
    reader.limit(tuple(range(before, len(reader.instance.pod_names))), mask)


def _priority(reader: _Reader, rule: dict[str, Any], where: str) -> None:
    instance = reader.instance
    value = rule.get("value")
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > _LARGEST_PRIORITY:
        raise InputError(f"{value!r} is no whole number that a priority class has", where=f"{where}, field value")
    none = np.zeros(len(instance.pod_names), dtype=np.int64)
    priority = none if instance.pod_priority is None else instance.pod_priority.copy()
    priority[list(reader.group(rule, "group", where))] = value
    reader.instance = replace(instance, pod_priority=priority)


RULE_KINDS: dict[str, Callable[[_Reader, dict[str, Any], str], None]] = {
    "priorities": _priority,
    "onlyOn": _only_on,
    "resources": _resource,
    "atMost": _at_most,
    "islands": _island,
    "apart": _apart,
    "together": _together,
    "spread": _spread,
    "gangs": _gang,
    "keepFree": _keep_free,
}
"""What each kind of rule is read by, in the order in which they are."""

_FIELDS = {
    "priorities": ("group", "value"),
    "onlyOn": ("group", "nodes"),
    "resources": ("name", "group", "each", "nodes", "has"),
    "atMost": ("group", "perNode"),
    "islands": ("group", "nodes", "gpus"),
    "apart": ("group", "from", "topology"),
    "together": ("group", "with", "topology"),
    "spread": ("group", "topology", "maxSkew", "minDomains", "whenUnsatisfiable"),
    "gangs": ("group",),
    "keepFree": ("model", "nodes", "gpus"),
}
