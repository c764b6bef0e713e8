"""Who held which slice, and when: labels of dcgm-exporter's series, and what pods ask for by the API's record.

A pod has its slices from start to end, and the record knows both; which device it has, only a label tells. So a
label, whenever it shows, pins a pod to a device for the pod's whole life. What no label tells is laid on what is
left, evenly, and marked as a guess unless there is only one way.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.model.facts import Fact, PodData
from gpuwaste.model.units import to_unix_ns

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gpuwaste.ingest.prometheus.labels import HolderLabels
    from gpuwaste.ingest.prometheus.parents import Parent
    from gpuwaste.ingest.prometheus.readings import Readings

__all__ = ["Holding", "find_holdings"]

_FOREVER = 1 << 62


@dataclass(slots=True, kw_only=True)
class Holding:
    """A container and a slice of a parent.

    Attributes:
        parent: index into the parents.
        number: which of the parent's slices.
        namespace: of the pod.
        pod: its name.
        pod_uid: empty where no fact tells.
        container: its name.
        resource: what it asked for.
        start_ns: since when it is held.
        end_ns: until when.
        rows: of the readings, that name this container on this parent.
        certain: whether it is known to be this parent, or there is no other.
        since_known: whether `start_ns` is that of the pod, and not only when it was first seen.
    """

    parent: int
    number: int
    namespace: str
    pod: str
    pod_uid: str
    container: str
    resource: str
    start_ns: int
    end_ns: int
    rows: tuple[int, ...] = ()
    certain: bool = True
    since_known: bool = True

    def overlaps(self, start_ns: int, end_ns: int) -> bool:
        """Whether it holds at any moment of [start, end)."""
        return self.start_ns < end_ns and self.end_ns > start_ns


@dataclass(slots=True)
class _Wanted:
    """A container's request for slices; the rows that name it by parent, and for how long they do."""

    fact: Fact
    pod: PodData
    container: str
    resource: str
    count: int
    pinned: dict[int, list[int]] = field(default_factory=dict)
    seen_ns: dict[int, int] = field(default_factory=dict)

    def pin(self, parent: int, row: int, seen: tuple[int, int]) -> None:
        """Note a row that names the container, as far as it does so in the pod's life."""
        overlap = min(seen[1], self.end_ns) - max(seen[0], self.start_ns)
        if overlap > 0:
            self.pinned.setdefault(parent, []).append(row)
            self.seen_ns[parent] = self.seen_ns.get(parent, 0) + overlap

    @property
    def places(self) -> list[int]:
        """The parents that labels name, longest first: the last reading of a pod of the same name is a short one."""
        return sorted(self.pinned, key=lambda parent: (-self.seen_ns[parent], parent))[: self.count]

    @property
    def start_ns(self) -> int:
        return to_unix_ns(self.fact.valid_from)

    @property
    def end_ns(self) -> int:
        return _FOREVER if self.fact.valid_to is None else to_unix_ns(self.fact.valid_to)


def find_holdings(readings: Readings, parents: Sequence[Parent], facts: Iterable[Fact]) -> list[Holding]:
    """All holdings of the stretch that was read, sorted by parent and slice.

    Args:
        readings: what the store said.
        parents: of these readings.
        facts: pods, of whom those that ask for NVIDIA's resources count; others are passed over.
    """
    begin, end = readings.plan.start_ns, readings.plan.start_ns + readings.plan.windows * readings.plan.step_ns
    wanted: dict[tuple[str, str], list[_Wanted]] = defaultdict(list)
    known: set[tuple[str, str]] = set()
    for fact in facts:
        if isinstance(fact.data, PodData):
            known.add((fact.data.namespace, fact.data.name))
            for one in _requests(fact, fact.data):
                if one.start_ns < end and one.end_ns > begin:
                    wanted[one.pod.namespace, one.pod.name].append(one)
    holdings = _pin(readings, parents, wanted, known)
    by_parent: dict[int, list[Holding]] = defaultdict(list)
    for holding in holdings:
        by_parent[holding.parent].append(holding)
    on_node: dict[str, list[int]] = defaultdict(list)
    for number, parent in enumerate(parents):
        on_node[parent.node].append(number)
    everybody = [one for mine in wanted.values() for one in mine]
    # Those that labels tell of first: guesses take what is left.
    everybody.sort(key=lambda w: (len(w.pinned) < w.count, w.start_ns, w.fact.uid, w.container, w.resource))
    for one in everybody:
        for holding in _hold(one, parents, on_node[one.pod.node], by_parent):
            by_parent[holding.parent].append(holding)
    found = [holding for mine in by_parent.values() for holding in mine]
    return sorted(found, key=lambda h: (h.parent, h.number, h.start_ns, h.namespace, h.pod, h.container))


def _requests(fact: Fact, pod: PodData) -> list[_Wanted]:
    """What the pod's running containers ask for; an init container's devices are used again by the others."""
    return [
        _Wanted(fact, pod, container.name, resource, count)
        for container in pod.containers
        if not container.init
        for resource, count in sorted({**container.gpus, **dict.fromkeys(map(_claim, container.claims), 1)}.items())
        if count and resource.startswith(("nvidia.com/", "claim:"))
    ]


def _claim(name: str) -> str:
    return f"claim:{name}"


def _pin(
    readings: Readings,
    parents: Sequence[Parent],
    wanted: dict[tuple[str, str], list[_Wanted]],
    known: set[tuple[str, str]],
) -> list[Holding]:
    """Note the labelled parents of every request; labels of pods that no fact tells of become holdings themselves."""
    unknown: list[Holding] = []
    whole = {parent.node for parent in parents if not parent.profile}
    for number, parent in enumerate(parents):
        for row in parent.rows:
            holder = readings.rows[row].holder
            if holder is None:
                continue
            seen = _seen(readings, row)
            if seen is None:
                continue
            pod = (holder.namespace, holder.pod)
            # kube-state-metrics tells of requests and not of claims: there the label alone does.
            if pod not in known or (holder.claim and pod not in wanted):
                unknown.append(_labelled(parent, number, row, holder, seen))
            for one in wanted.get(pod, ()):
                mine = not holder.container or holder.container == one.container
                fits = one.resource.startswith("claim:") or parent.fits(
                    one.resource, whole_on_node=parent.node in whole
                )
                if mine and fits and one.pod.node in ("", parent.node):
                    one.pin(number, row, seen)
    return _merged(unknown)


def _seen(readings: Readings, row: int) -> tuple[int, int] | None:
    """From the first to the last window with a reading of this row, in Unix nanoseconds."""
    windows = np.flatnonzero(np.logical_or.reduce([grid.known[row] for grid in readings.figures.values()]))
    if not windows.size:
        return None
    plan = readings.plan
    return plan.start_ns + int(windows[0]) * plan.step_ns, plan.start_ns + (int(windows[-1]) + 1) * plan.step_ns


def _labelled(parent: Parent, number: int, row: int, holder: HolderLabels, seen: tuple[int, int]) -> Holding:
    return Holding(
        parent=number,
        number=int(holder.vgpu) if holder.vgpu.isdecimal() and parent.replicas > 1 else 0,
        namespace=holder.namespace,
        pod=holder.pod,
        pod_uid="",
        container=holder.container,
        resource=_resource(parent, holder),
        start_ns=seen[0],
        end_ns=seen[1],
        rows=(row,),
        since_known=False,
    )


def _resource(parent: Parent, holder: HolderLabels) -> str:
    if holder.claim:
        return _claim(holder.claim)
    return f"nvidia.com/mig-{parent.profile.replace('+', '.')}" if parent.profile else "nvidia.com/gpu"


def _merged(holdings: list[Holding]) -> list[Holding]:
    """One holding a container and slice where several series name it."""
    found: dict[tuple[int, int, str, str, str], Holding] = {}
    for one in holdings:
        key = (one.parent, one.number, one.namespace, one.pod, one.container)
        known = found.get(key)
        if known is None:
            found[key] = one
            continue
        known.start_ns, known.end_ns = min(known.start_ns, one.start_ns), max(known.end_ns, one.end_ns)
        known.rows += one.rows
    return list(found.values())


def _hold(
    one: _Wanted, parents: Sequence[Parent], on_node: Sequence[int], by_parent: dict[int, list[Holding]]
) -> list[Holding]:
    """The holdings of one request: labelled parents first, then whatever is free, the emptiest first."""
    whole = any(not parents[number].profile for number in on_node)
    fitting = [n for n in on_node if parents[n].fits(one.resource, whole_on_node=whole)]
    places = [(number, True) for number in one.places]
    left = one.count - len(places)
    if left > 0:
        free = {n: _free(parents[n], by_parent[n], one) - (n in one.pinned) for n in fitting}
        only = len(fitting) == 1 or (one.count == len(fitting) and all(parents[n].replicas == 1 for n in fitting))
        for _ in range(left):
            best = max(fitting, key=lambda n: (free[n], -n), default=None)
            if best is None or free[best] <= 0:
                break
            free[best] -= 1
            places.append((best, only))
    taken: dict[int, set[int]] = defaultdict(set)
    found = []
    for number, certain in places:
        numbers = {h.number for h in by_parent[number] if h.overlaps(one.start_ns, one.end_ns)} | taken[number]
        which = next((k for k in range(parents[number].replicas) if k not in numbers), 0)
        taken[number].add(which)
        found.append(
            Holding(
                parent=number,
                number=which,
                namespace=one.pod.namespace,
                pod=one.pod.name,
                pod_uid=one.fact.uid,
                container=one.container,
                resource=one.resource,
                start_ns=one.start_ns,
                end_ns=one.end_ns,
                rows=tuple(one.pinned.get(number, ())),
                certain=certain,
            )
        )
    return found


def _free(parent: Parent, holdings: Iterable[Holding], one: _Wanted) -> int:
    return parent.replicas - sum(holding.overlaps(one.start_ns, one.end_ns) for holding in holdings)
