"""Scheduling rules of real pods as limits of a plan: which nodes a pod may go to, and whom it may meet there.

A plan only moves pods off nodes that go, onto nodes that stay. What Kubernetes counts over zones or other domains is
kept by leaving every pod that a rule counts in its domain: then no count changes. What is counted node by node is
either a resource of the node or a pair of pods that may not meet. What is neither keeps the pod where it is, by name.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.model.facts import BudgetData, CordonData, Fact, NodeData, PodData
from gpuwaste.model.scheduling import Scheduling

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gpuwaste.model.scheduling import PodTerm
    from gpuwaste.packing.instance import Bools, Ints

__all__ = ["Budget", "Limits", "held_back", "limits_of"]

_HOSTNAME = "kubernetes.io/hostname"
_PODS = "pods"
_ENOUGH = 2**40
"""Room of a node that did not say what it has."""
_NOTHING = Scheduling()


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A PodDisruptionBudget over the plan's pods.

    Attributes:
        name: namespace and name.
        pods: indexes in the scope.
        allowed: how many may be away at once.
    """

    name: str
    pods: tuple[int, ...]
    allowed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What pods and nodes of a scope mind besides CPU, memory and GPUs; P pods, N nodes.

    Attributes:
        resources: R names.
        needs: int64[P, R].
        rooms: int64[N, R], without what DaemonSets and static pods take.
        masks: bool[A, N] sets of nodes.
        pod_mask: int64[P] row of `masks`: nodes that the pod may be on.
        apart: name of a rule to the pods that ask for it, and those that they may not meet on a node.
        budgets: of pods that may move.
    """

    resources: tuple[str, ...]
    needs: Ints
    rooms: Ints
    masks: Bools
    pod_mask: Ints
    apart: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    budgets: tuple[Budget, ...] = ()

    def enemies(self) -> dict[int, set[int]]:
        """Pods that each pod may not meet on a node."""
        found: dict[int, set[int]] = defaultdict(set)
        for first, second in self.apart.values():
            for pod in first:
                found[pod] |= set(second) - {pod}
            for pod in second:
                found[pod] |= set(first) - {pod}
        return found


def _scheduling(pod: PodData) -> Scheduling:
    return pod.scheduling or _NOTHING


def _speaks_of(term: PodTerm, pod: PodData) -> bool:
    return term.matches(pod.namespace, pod.labels)


def held_back(facts: Sequence[Fact]) -> dict[str, str]:
    """UID of each pod that its budgets or its rules keep where it is, to the reason (a key of `PIN_REASONS`)."""
    pods = [(fact.uid, fact.data) for fact in facts if fact.kind == "pod" and isinstance(fact.data, PodData)]
    found: dict[str, str] = {}
    for uid, pod in pods:
        mine = _scheduling(pod)
        if mine.volumes:
            found[uid] = "VolumeClaims"
        elif any(term.topology == _HOSTNAME for term in mine.near):
            found[uid] = "BesidePod"
    budgets = [fact.data for fact in facts if isinstance(fact.data, BudgetData)]
    return found | _spread_over_nodes(pods) | _within_budgets(pods, budgets)


def _spread_over_nodes(pods: Sequence[tuple[str, PodData]]) -> dict[str, str]:
    spreads = {(pod.namespace, repr(one)): one for _, pod in pods for one in _scheduling(pod).spread}
    return {
        uid: "SpreadOverNodes"
        for (namespace, _), spread in spreads.items()
        if spread.topology == _HOSTNAME
        for uid, pod in pods
        if pod.namespace == namespace and spread.selector.matches(pod.labels)
    }


def _within_budgets(pods: Sequence[tuple[str, PodData]], budgets: Sequence[BudgetData]) -> dict[str, str]:
    in_namespace: dict[str, list[BudgetData]] = defaultdict(list)
    for budget in budgets:
        in_namespace[budget.namespace].append(budget)
    found = {}
    for uid, pod in pods:
        own = [one for one in in_namespace.get(pod.namespace, ()) if one.selector.matches(pod.labels)]
        if len(own) > 1:
            found[uid] = "SeveralBudgets"
        elif own and own[0].disruptions_allowed == 0:
            found[uid] = "DisruptionBudget"
    return found


def limits_of(facts: Sequence[Fact], *, nodes: Sequence[str], pods: Sequence[tuple[str, int]]) -> Limits:
    """The limits of a plan's pods and nodes.

    Args:
        facts: what holds at one moment.
        nodes: UIDs of the plan's nodes, in its order.
        pods: UID of each of its pods and the index of the node it is on, in its order; all others on these nodes come
            and go with them.
    """
    node_data = {fact.uid: fact.data for fact in facts if isinstance(fact.data, NodeData)}
    hosts = [node_data[uid] for uid in nodes]
    everyone = {fact.uid: fact.data for fact in facts if fact.kind == "pod" and isinstance(fact.data, PodData)}
    own = [everyone[uid] for uid, _ in pods]
    at = [place for _, place in pods]
    mine = {uid for uid, _ in pods}
    index_of = {host.name: place for place, host in enumerate(hosts)}
    carried = [(index_of[p.node], p) for uid, p in everyone.items() if uid not in mine and p.node in index_of]
    resources, needs, rooms = _resources(own, at, hosts, carried)
    cordoned = {fact.data.node for fact in facts if isinstance(fact.data, CordonData)}
    allowed = _Allowed(own, at, hosts)
    allowed.by_node(cordoned)
    allowed.by_domain(list(everyone.values()))
    allowed.by_carried(carried)
    apart, met = _apart_on_nodes(own, at)
    allowed.stay(met)
    masks, pod_mask = allowed.rows()
    return Limits(
        resources=resources,
        needs=needs,
        rooms=rooms,
        masks=masks,
        pod_mask=pod_mask,
        apart=apart,
        budgets=_budgets(own, (fact.data for fact in facts if isinstance(fact.data, BudgetData))),
    )


def _asked(pod: PodData) -> dict[str, int]:
    rules = _scheduling(pod)
    return {_PODS: 1, **rules.extended, **{f"host port {port}": 1 for port in rules.host_ports}}


def _resources(
    pods: Sequence[PodData], at: Sequence[int], hosts: Sequence[NodeData], carried: Sequence[tuple[int, PodData]]
) -> tuple[tuple[str, ...], Ints, Ints]:
    asked = [_asked(pod) for pod in pods]
    names = tuple(sorted({name for one in asked for name in one}))
    needs = np.array([[one.get(name, 0) for name in names] for one in asked], dtype=np.int64).reshape(
        len(pods), len(names)
    )
    rooms = np.array([[_room(host, name) for name in names] for host in hosts], dtype=np.int64).reshape(
        len(hosts), len(names)
    )
    for place, pod in carried:
        taken = _asked(pod)
        rooms[place] -= np.array([taken.get(name, 0) for name in names], dtype=np.int64)
    # What is there already is there, whatever the node says it has.
    there = np.zeros_like(rooms)
    np.add.at(there, np.array(at, dtype=np.int64), needs)
    return names, needs, np.maximum(rooms, there)


def _room(host: NodeData, name: str) -> int:
    if name.startswith("host port "):
        return 1
    if host.extended is None:
        return _ENOUGH
    return host.extended.get(name, _ENOUGH if name == _PODS else 0)


class _Allowed:
    """Nodes that each pod may be on; that on which it is always among them."""

    def __init__(self, pods: Sequence[PodData], at: Sequence[int], hosts: Sequence[NodeData]) -> None:
        self._pods, self._at, self._hosts = pods, at, hosts
        self._mask: list[Bools] = [np.ones(len(hosts), dtype=np.bool_) for _ in pods]

    def by_node(self, cordoned: set[str]) -> None:
        """Node selectors, node affinity, taints, and nodes that take no further pods."""
        takes = np.array([host.name not in cordoned for host in self._hosts], dtype=np.bool_)
        known: dict[int, Bools] = {}
        for index, pod in enumerate(self._pods):
            self._mask[index] = self._mask[index] & takes
            rules = pod.scheduling
            if rules is None:
                continue
            if id(rules) not in known:
                fits = [rules.may_use(host.name, host.labels, host.taints) for host in self._hosts]
                known[id(rules)] = np.array(fits, dtype=np.bool_)
            self._mask[index] = self._mask[index] & known[id(rules)]

    def by_domain(self, everyone: Sequence[PodData]) -> None:
        """Whatever a rule counts over domains of several nodes stays in the domain it is in."""
        for topology, counted in self._counted(everyone).items():
            labels = np.array([host.labels.get(topology, "") for host in self._hosts], dtype=object)
            for index in counted:
                self._mask[index] = self._mask[index] & (labels == labels[self._at[index]])

    def _counted(self, everyone: Sequence[PodData]) -> dict[str, set[int]]:
        """Topology to the plan's pods that some rule over it names, or that ask for one."""
        found: dict[str, set[int]] = defaultdict(set)
        seen: set[tuple[str, str, str]] = set()
        for pod in everyone:
            rules = _scheduling(pod)
            for term in (*rules.near, *rules.apart):
                key = (term.topology, pod.namespace, repr(term))
                if term.topology != _HOSTNAME and key not in seen:
                    seen.add(key)
                    found[term.topology] |= {i for i, one in enumerate(self._pods) if _speaks_of(term, one)}
            for spread in rules.spread:
                key = (spread.topology, pod.namespace, repr(spread))
                if spread.topology != _HOSTNAME and key not in seen:
                    seen.add(key)
                    found[spread.topology] |= {
                        i
                        for i, one in enumerate(self._pods)
                        if one.namespace == pod.namespace and spread.selector.matches(one.labels)
                    }
        for index, pod in enumerate(self._pods):
            rules = _scheduling(pod)
            asked = {one.topology for one in (*rules.near, *rules.apart)} | {one.topology for one in rules.spread}
            for topology in asked - {_HOSTNAME}:
                found[topology].add(index)
        return found

    def by_carried(self, carried: Sequence[tuple[int, PodData]]) -> None:
        """No pod meets a DaemonSet's or static pod that it keeps away from, or that keeps away from it."""
        strict = [
            (place, other) for place, other in carried if any(t.topology == _HOSTNAME for t in _scheduling(other).apart)
        ]
        for index, pod in enumerate(self._pods):
            terms = [term for term in _scheduling(pod).apart if term.topology == _HOSTNAME]
            bad = [place for place, other in carried if any(_speaks_of(term, other) for term in terms)]
            bad += [
                place
                for place, other in strict
                if any(t.topology == _HOSTNAME and _speaks_of(t, pod) for t in _scheduling(other).apart)
            ]
            if bad:
                self._mask[index] = self._mask[index].copy()
                self._mask[index][bad] = False

    def stay(self, pods: Iterable[int]) -> None:
        """These pods go nowhere."""
        for index in pods:
            self._mask[index] = np.zeros(len(self._hosts), dtype=np.bool_)

    def rows(self) -> tuple[Bools, Ints]:
        """The distinct masks, and the number of each pod's."""
        rows: dict[bytes, int] = {}
        masks: list[Bools] = []
        number = np.zeros(len(self._pods), dtype=np.int64)
        for index, mask in enumerate(self._mask):
            if not mask[self._at[index]]:
                mask = mask.copy()  # noqa: PLW2901 - shared with other pods
                mask[self._at[index]] = True
            key = mask.tobytes()
            if key not in rows:
                rows[key] = len(masks)
                masks.append(mask)
            number[index] = rows[key]
        return np.array(masks, dtype=np.bool_).reshape(len(masks), len(self._hosts)), number


def _apart_on_nodes(
    pods: Sequence[PodData], at: Sequence[int]
) -> tuple[dict[str, tuple[tuple[int, ...], tuple[int, ...]]], set[int]]:
    """Rules by name, and the pods of rules that are broken already: those stay, and their rules are left out."""
    groups: dict[tuple[str, str], tuple[PodTerm, list[int]]] = {}
    for index, pod in enumerate(pods):
        for term in _scheduling(pod).apart:
            if term.topology == _HOSTNAME:
                groups.setdefault((pod.namespace, repr(term)), (term, []))[1].append(index)
    found: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    met: set[int] = set()
    for number, (term, members) in enumerate(groups.values(), start=1):
        others = tuple(index for index, pod in enumerate(pods) if _speaks_of(term, pod))
        there: dict[int, list[int]] = defaultdict(list)
        for index in others:
            there[at[index]].append(index)
        if any(there[at[one]] and there[at[one]] != [one] for one in members):
            met.update(members, others)
        elif others:
            found[f"anti-affinity {number} of {pods[members[0]].namespace}"] = (tuple(members), others)
    return found, met


def _budgets(pods: Sequence[PodData], budgets: Iterable[BudgetData]) -> tuple[Budget, ...]:
    found = []
    for one in budgets:
        members = tuple(
            index
            for index, pod in enumerate(pods)
            if pod.namespace == one.namespace and one.selector.matches(pod.labels)
        )
        if members:
            found.append(Budget(name=f"{one.namespace}/{one.name}", pods=members, allowed=one.disruptions_allowed))
    return tuple(found)
