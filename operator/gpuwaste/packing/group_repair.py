"""Takes pods out of a placement until no group rule is broken: what is left is always a right answer."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.packing.group_rules import Apart, Gang, Spread, Together
from gpuwaste.packing.machines import in_a_second_mode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gpuwaste.packing.instance import Instance, Ints

__all__ = ["by_domain", "partial_gangs", "weights", "without_broken"]

Weight = tuple[int, int, int]
"""Priority, GPU-milli and 1 of a pod; of several, the highest priority and the sums."""


def weights(instance: Instance) -> list[Weight]:
    """What it costs to leave out each pod."""
    priority = [0] * len(instance.pod_names) if instance.pod_priority is None else instance.pod_priority.tolist()
    return [(rank, milli, 1) for rank, milli in zip(priority, instance.pod_total_milli.tolist(), strict=True)]


def total(values: Iterable[Weight]) -> Weight:
    """Of the highest priority among them, GPU-milli and pods."""
    listed = list(values)
    highest = max((one[0] for one in listed), default=-(2**63))
    top = [one for one in listed if one[0] == highest]
    return highest, sum(one[1] for one in top), sum(one[2] for one in top)


def partial_gangs(instance: Instance, node: Ints) -> list[Gang]:
    """Gangs of which some pods are placed and some are not."""
    found = []
    for rule in instance.group_rules:
        if isinstance(rule, Gang):
            placed = node[list(rule.pods)] >= 0
            if placed.any() and not placed.all():
                found.append(rule)
    return found


def by_domain(pods: Iterable[int], domain: Ints, node: Ints) -> dict[int, list[int]]:
    """The placed pods of each domain, -1 for those in none."""
    found: dict[int, list[int]] = defaultdict(list)
    for pod in sorted(set(pods)):
        if node[pod] >= 0:
            found[int(domain[node[pod]])].append(pod)
    return found


def without_broken(instance: Instance, node: Ints) -> Ints:
    """int64[P] with -1 for the pods that break a rule, and for those whose rules then break; the lightest first."""
    weight = weights(instance)
    node = node.copy()
    together = [rule for rule in instance.group_rules if isinstance(rule, Together)]
    while True:
        before = int((node >= 0).sum())
        for gang in partial_gangs(instance, node):
            node[list(gang.pods)] = -1
        for rule in instance.group_rules:
            if isinstance(rule, Spread):
                node[_over_the_skew(rule, node, weight)] = -1
            elif isinstance(rule, Apart):
                node[_too_near(rule, node, weight)] = -1
        if together:
            node[_left_alone(together, node, weight)] = -1
        if instance.node_machine is not None:
            node[in_a_second_mode(instance.node_machine, node, instance.pod_total_milli)] = -1
        if int((node >= 0).sum()) == before:
            return node


def _over_the_skew(rule: Spread, node: Ints, weight: list[Weight]) -> list[int]:
    members = by_domain(rule.pods, rule.domain, node)
    gone = members.pop(-1, [])
    known = set(np.unique(rule.domain).tolist()) - {-1}
    fewest = min((len(members.get(one, ())) for one in known), default=0) if len(known) >= rule.min_domains else 0
    for pods in members.values():
        lightest = sorted(pods, key=lambda pod: (weight[pod], pod))
        gone += lightest[: max(len(pods) - fewest - rule.max_skew, 0)]
    return gone


def _too_near(rule: Apart, node: Ints, weight: list[Weight]) -> list[int]:
    gone: list[int] = []
    others = by_domain(rule.others, rule.domain, node)
    for domain, pods in by_domain(rule.pods, rule.domain, node).items():
        near = others.get(domain, [])
        if domain < 0 or not any(one != pod for pod in pods for one in near[:2]):
            continue
        strangers = [pod for pod in near if pod not in set(pods)]
        own = sorted(pods, key=lambda pod: (weight[pod], -pod))
        # Of pods that keep away from each other one may stay; where none does, all of them.
        stay = own if not set(own) & set(near) else own[-1:]
        if total(weight[pod] for pod in stay) >= total(weight[pod] for pod in strangers):
            gone += [*strangers, *(pod for pod in own if pod not in set(stay))]
        else:
            gone += own
    return gone


def _left_alone(rules: list[Together], node: Ints, weight: list[Weight]) -> list[int]:
    """Pods that can never start, whichever pods start before them."""
    asks: dict[int, list[int]] = defaultdict(list)
    for number, rule in enumerate(rules):
        for pod in set(rule.pods):
            asks[pod].append(number)
    anchors = [set(rule.anchors) for rule in rules]
    running = [by_domain((pod for pod in rule.anchors if pod not in asks), rule.domain, node) for rule in rules]
    for one in running:
        one.pop(-1, None)
    where = [np.where(node >= 0, rule.domain[node], -1).tolist() for rule in rules]
    waiting = [pod for pod in sorted(asks) if node[pod] >= 0]
    while waiting:
        able = [pod for pod in waiting if all(running[number].get(where[number][pod]) for number in asks[pod])]
        if not able:
            seeds = [
                pod
                for pod in waiting
                if all(
                    where[number][pod] >= 0
                    and (running[number].get(where[number][pod]) or (not running[number] and pod in anchors[number]))
                    for number in asks[pod]
                )
            ]
            able = _heaviest_start(seeds, waiting, asks, where, weight)
        if not able:
            return waiting
        for pod in able:
            for number, of_rule in enumerate(anchors):
                if pod in of_rule and where[number][pod] >= 0:
                    running[number].setdefault(where[number][pod], []).append(pod)
        started = set(able)
        waiting = [pod for pod in waiting if pod not in started]
    return []


def _heaviest_start(
    seeds: list[int], waiting: list[int], asks: dict[int, list[int]], where: list[list[int]], weight: list[Weight]
) -> list[int]:
    """The pod to start first: one in the domain in which most of those that wait for the same are."""
    beside: dict[tuple[int, int], list[int]] = defaultdict(list)
    for pod in waiting:
        for number in asks[pod]:
            beside[number, where[number][pod]].append(pod)
    key = lambda pod: (total(weight[one] for one in beside[asks[pod][0], where[asks[pod][0]][pod]]), -pod)  # noqa: E731
    return [max(seeds, key=key)] if seeds else []
