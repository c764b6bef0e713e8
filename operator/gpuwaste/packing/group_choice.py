"""Turns rules over several nodes into nodes that each pod may use: the domain it goes to is chosen beforehand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.packing.group_repair import by_domain, total, weights
from gpuwaste.packing.group_rules import Apart, Spread, Together
from gpuwaste.packing.machines import modes_of_machines
from gpuwaste.packing.rules import only_on

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gpuwaste.packing.instance import Bools, Instance, Ints

__all__ = ["restricted"]


def restricted(instance: Instance, node: Ints, *, left_out: Iterable[int], choice: int) -> Instance:
    """The instance without group rules, in which pods may only use nodes that keep them.

    Every placement of it keeps spread, affinity and anti-affinity as far as all pods find room.

    Args:
        instance: pods, nodes and rules.
        node: int64[P] a placement that minds no group rule; pods are moved away from it as little as possible.
        left_out: pods that shall be on no node.
        choice: 0 takes the domain where most of a group is already; 1 the next one, and so on.
    """
    masks = _Masks(instance, node)
    # What depends on where others are comes after them.
    for gathered in sorted((one for one in instance.group_rules if isinstance(one, Together)), key=_waits_for_others):
        masks.gather(gathered, choice)
    for spread in (one for one in instance.group_rules if isinstance(one, Spread)):
        masks.spread(spread)
    for parted in (one for one in instance.group_rules if isinstance(one, Apart)):
        masks.part(parted, choice)
    if instance.node_machine is not None:
        masks.choose_modes(choice)
    for pod in left_out:
        masks.forbid(pod)
    return masks.applied()


def _waits_for_others(rule: Together) -> bool:
    return not set(rule.anchors) <= set(rule.pods)


class _Masks:
    """Nodes that each pod may use; pods that no rule concerns may use all."""

    def __init__(self, instance: Instance, node: Ints) -> None:
        self._instance = instance
        self._node = node.copy()
        self._weight = weights(instance)
        self._allowed: dict[int, Bools] = {}
        self._usable = np.ones(len(instance.node_names), dtype=np.bool_)
        self._first_of_model = np.unique(instance.node_model, return_index=True)[1]

    def _nodes_of(self, pod: int) -> Bools:
        """bool[N]: nodes of a model that the pod may use, and that no decision forbids."""
        instance = self._instance
        mine: Bools = instance.model_sets[instance.pod_model_set[pod]][instance.node_model]
        mine = mine & (instance.node_gpus >= instance.pod_gpus[pod])
        return mine & self._allowed[pod] if pod in self._allowed else mine

    def _limit(self, pod: int, mask: Bools) -> None:
        self._allowed[pod] = mask & self._allowed[pod] if pod in self._allowed else mask
        if self._node[pod] >= 0 and not self._allowed[pod][self._node[pod]]:
            able = np.flatnonzero(self._nodes_of(pod))
            self._node[pod] = able[0] if len(able) else -1

    def forbid(self, pod: int) -> None:
        """Leave a pod out."""
        self._allowed[pod] = np.zeros(len(self._instance.node_names), dtype=np.bool_)

    def gather(self, rule: Together, choice: int) -> None:
        """Send pods where their anchors are: to one domain if they are one another's anchors."""
        anchors = set(rule.anchors) - set(rule.pods)
        at = by_domain(anchors, rule.domain, self._node)
        at.pop(-1, None)
        if not anchors:
            domain = self._best_domain(rule.pods, rule.domain, choice)
            for pod in set(rule.pods):
                self._limit(pod, rule.domain == domain)
            return
        for pod in sorted(set(rule.pods)):
            here = int(rule.domain[self._node[pod]]) if self._node[pod] >= 0 else -1
            able = set(rule.domain[self._nodes_of(pod)].tolist())
            known = sorted((one for one in at if one in able), key=lambda one: (-len(at[one]), one))
            if not known:
                self.forbid(pod)
                continue
            domain = here if here in known and not choice else known[choice % len(known)]
            self._limit(pod, rule.domain == domain)
            # The anchor that it relies on stays where it is.
            self._limit(at[domain][0], rule.domain == domain)

    def _best_domain(self, pods: Iterable[int], domain: Ints, choice: int) -> int:
        """The domain in which most of some pods are already, of those that all may use if there are any."""
        members = sorted(set(pods))
        able: dict[int, list[int]] = {}
        for pod in members:
            for one in set(domain[self._nodes_of(pod)].tolist()) - {-1}:
                able.setdefault(one, []).append(pod)
        here = by_domain(members, domain, self._node)
        order = sorted(
            able,
            key=lambda one: (
                total(self._weight[pod] for pod in able[one]),
                total(self._weight[pod] for pod in here.get(one, ())),
                -one,
            ),
            reverse=True,
        )
        return order[choice % len(order)] if order else -1

    def spread(self, rule: Spread) -> None:
        """Give every pod a domain so that their numbers differ by no more than they may."""
        known = sorted(set(np.unique(rule.domain).tolist()) - {-1})
        pods = sorted(set(rule.pods))
        if not known:
            for pod in pods:
                self.forbid(pod)
            return
        here = by_domain(pods, rule.domain, self._node)
        room = {one: max(len(here.get(one, ())), 0) for one in known}
        spare = [pod for pod in pods if self._node[pod] < 0 or rule.domain[self._node[pod]] < 0]
        wanted = _even(room, len(pods), skew=rule.max_skew, from_zero=len(known) < rule.min_domains)
        for one in known:
            staying = sorted(here.get(one, ()), key=lambda pod: (int(self._nodes_of(pod).sum()), pod))
            for pod in staying[: wanted[one]]:
                self._limit(pod, rule.domain == one)
            spare += staying[wanted[one] :]
            wanted[one] -= min(wanted[one], len(staying))
        # Those that few domains can take choose first.
        options = {pod: set(rule.domain[self._nodes_of(pod)].tolist()) & set(known) for pod in spare}
        for pod in sorted(spare, key=lambda pod: (len(options[pod]), pod)):
            able = [one for one in known if one in options[pod] and wanted[one]]
            if able:
                chosen = max(able, key=lambda one: wanted[one])
                wanted[chosen] -= 1
                self._limit(pod, rule.domain == chosen)
            else:
                self.forbid(pod)

    def part(self, rule: Apart, choice: int) -> None:
        """Give every domain to one side of the rule, that with more on it; pods without a domain stay out."""
        first, second = set(rule.pods), set(rule.others) - set(rule.pods)
        known = sorted(set(np.unique(rule.domain).tolist()) - {-1})
        mine, theirs = (by_domain(pods, rule.domain, self._node) for pods in (first, second))

        def lead(one: int) -> tuple[int, int]:
            own, other = ((total(self._weight[pod] for pod in side.get(one, ()))) for side in (mine, theirs))
            return (1 if own > other else -1 if own < other else 0), -one

        order = sorted(known, key=lead, reverse=True)
        leading = sum(lead(one)[0] > 0 for one in order)
        taken = min(max(leading, 1 if first else 0), len(order) - (1 if second and len(order) > 1 else 0))
        taken = 1 + (taken - 1 + choice) % max(len(order), 1)
        ours = set(order[:taken])
        nowhere = rule.domain < 0
        for pod in second:
            self._limit(pod, ~np.isin(rule.domain, sorted(ours)))
        if not first & set(rule.others):
            for pod in first:
                self._limit(pod, np.isin(rule.domain, sorted(ours)) | nowhere)
            return
        # They keep away from each other, too: one a domain, the heaviest first.
        free = list(order[:taken])
        for pod in sorted(first, key=lambda pod: (self._weight[pod], -pod), reverse=True):
            here = int(rule.domain[self._node[pod]]) if self._node[pod] >= 0 else -1
            able = [one for one in free if (self._nodes_of(pod) & (rule.domain == one)).any()]
            chosen = here if here in able else next(iter(able), None)
            if chosen is not None:
                free.remove(chosen)
                self._limit(pod, (rule.domain == chosen))
            else:
                self._limit(pod, nowhere)

    def choose_modes(self, choice: int) -> None:
        """One mode for each machine: that in which it is used, if it is in one; no pod may use the others."""
        instance = self._instance
        assert instance.node_machine is not None  # noqa: S101 - the caller looked
        self._usable = modes_of_machines(instance, self._node, choice=choice)

    def applied(self) -> Instance:
        """The instance with the masks as rules."""
        instance = self._instance
        everywhere = np.ones(len(instance.node_names), dtype=np.bool_)
        rows: dict[bytes, int] = {everywhere.tobytes(): 0}
        masks = [everywhere]
        pod_rule = np.zeros(len(instance.pod_names), dtype=np.int64)
        for pod, mask in self._allowed.items():
            key = mask.tobytes()
            if key not in rows:
                rows[key] = len(masks)
                masks.append(mask)
            pod_rule[pod] = rows[key]
        return only_on(instance, np.array(masks, dtype=np.bool_) & self._usable, pod_rule)


def _even(counts: dict[int, int], pods: int, *, skew: int, from_zero: bool) -> dict[int, int]:
    """Numbers a domain that add up to `pods` and differ by `skew` at most, as near to the counts as can be.

    Where they cannot add up, because the fewest counts as zero, as many as may be.
    """
    bases = [0] if from_zero else range(pods // max(len(counts), 1) + 1)
    best: tuple[int, int, dict[int, int]] | None = None
    for base in bases:
        wanted = {one: min(max(count, base), base + skew) for one, count in counts.items()}
        left = pods - sum(wanted.values())
        step = 1 if left > 0 else -1
        order = sorted(counts, key=lambda one: (step * (wanted[one] - counts[one]), one))
        while left:
            able = [one for one in order if base <= wanted[one] + step <= base + skew]
            if not able:
                break
            for one in able[: abs(left)]:
                wanted[one] += step
                left -= step
        off = sum(abs(wanted[one] - counts[one]) for one in counts)
        if best is None or (abs(left), off) < best[:2]:
            best = (abs(left), off, wanted)
    assert best is not None  # noqa: S101 - there is at least one base
    return best[2]
