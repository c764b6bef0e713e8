"""What a pod asks of the nodes it may run on, and of the pods beside it, as far as it is required."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "PARTS",
    "NodeTerm",
    "PodTerm",
    "Requirement",
    "Scheduling",
    "Selector",
    "SpreadTerm",
    "Toleration",
    "requirement_of",
    "scheduling_of",
    "selector_of",
]

_ANY_EFFECT = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One expression on a label (or `metadata.name` of a node): In, NotIn, Exists, DoesNotExist, Gt or Lt."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether labels meet it; as in Kubernetes, NotIn also holds where the label is missing."""
        value = labels.get(self.key)
        if self.operator in ("In", "NotIn"):
            return (value in self.values) == (self.operator == "In")
        if self.operator in ("Exists", "DoesNotExist"):
            return (value is not None) == (self.operator == "Exists")
        try:
            mine, limit = int(value or ""), int(self.values[0])
        except (ValueError, IndexError):
            return False
        return mine > limit if self.operator == "Gt" else self.operator == "Lt" and mine < limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """A label selector; empty selects all. `nothing` is a selector that was not given."""

    labels: dict[str, str] = field(default_factory=dict)
    expressions: tuple[Requirement, ...] = ()
    nothing: bool = False

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is selected."""
        return (
            not self.nothing
            and all(labels.get(key) == value for key, value in self.labels.items())
            and all(one.holds(labels) for one in self.expressions)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeTerm:
    """All of some requirements on a node's labels and name."""

    labels: tuple[Requirement, ...] = ()
    fields: tuple[Requirement, ...] = ()

    def holds(self, name: str, labels: Mapping[str, str]) -> bool:
        """Whether a node meets it; an empty term selects no node."""
        return bool(self.labels or self.fields) and (
            all(one.holds(labels) for one in self.labels)
            and all(one.holds({"metadata.name": name}) for one in self.fields)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PodTerm:
    """A required affinity or anti-affinity term. `all_namespaces` is a namespace selector that selects something."""

    topology: str
    selector: Selector
    namespaces: tuple[str, ...]
    all_namespaces: bool = False

    def matches(self, namespace: str, labels: Mapping[str, str]) -> bool:
        """Whether it speaks of a pod; with a namespace selector perhaps of more pods than it really does."""
        return (self.all_namespaces or namespace in self.namespaces) and self.selector.matches(labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpreadTerm:
    """A topology spread constraint with DoNotSchedule."""

    topology: str
    selector: Selector
    max_skew: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Toleration:
    """A toleration; empty key and effect mean all."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = _ANY_EFFECT

    def tolerates(self, key: str, value: str, effect: str) -> bool:
        """Whether it lets a pod onto a node with this taint."""
        if self.effect not in (_ANY_EFFECT, effect) or self.key not in ("", key):
            return False
        return self.operator == "Exists" or (self.key == key and self.value == value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduling:
    """All that is required of where a pod runs.

    Attributes:
        node_selector: labels that its node has.
        node_terms: one of them holds for its node; empty = any node.
        tolerations: of taints.
        near: pods it must be beside.
        apart: pods it must not be beside.
        spread: over which topologies it is spread.
        host_ports: as `TCP/8080`, each once on a node.
        extended: other resources than GPUs, as whole numbers: RDMA, EFA, bytes of hugepages.
        volumes: claims of volumes; where they can go is not known.
    """

    node_selector: dict[str, str] = field(default_factory=dict)
    node_terms: tuple[NodeTerm, ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    near: tuple[PodTerm, ...] = ()
    apart: tuple[PodTerm, ...] = ()
    spread: tuple[SpreadTerm, ...] = ()
    host_ports: tuple[str, ...] = ()
    extended: dict[str, int] = field(default_factory=dict)
    volumes: tuple[str, ...] = ()

    def may_use(self, name: str, labels: Mapping[str, str], taints: tuple[str, ...]) -> bool:
        """Whether a node is one that the pod selects and whose taints it tolerates; taints as `key=value:Effect`."""
        if any(labels.get(key) != value for key, value in self.node_selector.items()):
            return False
        if self.node_terms and not any(term.holds(name, labels) for term in self.node_terms):
            return False
        for taint in taints:
            key, _, rest = taint.partition("=")
            value, _, effect = rest.rpartition(":")
            if effect != "PreferNoSchedule" and not any(one.tolerates(key, value, effect) for one in self.tolerations):
                return False
        return True


PARTS = (Requirement, Selector, NodeTerm, PodTerm, SpreadTerm, Toleration, Scheduling)
"""All types that a fact may hold of it."""


def requirement_of(raw: Mapping[str, Any]) -> Requirement:
    """From its plain form, in which values are a list."""
    return Requirement(key=raw["key"], operator=raw["operator"], values=tuple(raw.get("values") or ()))


def selector_of(raw: Mapping[str, Any]) -> Selector:
    """From its plain form."""
    return Selector(
        labels=dict(raw.get("labels") or {}),
        expressions=tuple(requirement_of(one) for one in raw.get("expressions") or ()),
        nothing=bool(raw.get("nothing", False)),
    )


def _pod_term(raw: Mapping[str, Any]) -> PodTerm:
    return PodTerm(
        topology=raw["topology"],
        selector=selector_of(raw["selector"]),
        namespaces=tuple(raw.get("namespaces") or ()),
        all_namespaces=bool(raw.get("all_namespaces", False)),
    )


def scheduling_of(raw: Mapping[str, Any]) -> Scheduling:
    """From the plain form that facts are stored in."""
    return Scheduling(
        node_selector=dict(raw.get("node_selector") or {}),
        node_terms=tuple(
            NodeTerm(
                labels=tuple(requirement_of(one) for one in term.get("labels") or ()),
                fields=tuple(requirement_of(one) for one in term.get("fields") or ()),
            )
            for term in raw.get("node_terms") or ()
        ),
        tolerations=tuple(Toleration(**one) for one in raw.get("tolerations") or ()),
        near=tuple(_pod_term(one) for one in raw.get("near") or ()),
        apart=tuple(_pod_term(one) for one in raw.get("apart") or ()),
        spread=tuple(
            SpreadTerm(topology=one["topology"], selector=selector_of(one["selector"]), max_skew=int(one["max_skew"]))
            for one in raw.get("spread") or ()
        ),
        host_ports=tuple(raw.get("host_ports") or ()),
        extended=dict(raw.get("extended") or {}),
        volumes=tuple(raw.get("volumes") or ()),
    )
