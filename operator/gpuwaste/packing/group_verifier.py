"""Checks a placement, pod by pod, against the rules that tie pods on different nodes together."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from gpuwaste.packing.group_rules import Apart, Gang, Spread, Together

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpuwaste.packing.instance import Instance, Ints

__all__ = ["group_violations"]


def group_violations(instance: Instance, node: Ints) -> list[str]:
    """Every rule that is broken, one line each; int64[P] node of each pod, -1 = unplaced."""
    host: list[int] = node.tolist()
    found: list[str] = []
    if instance.node_machine is not None:
        used = Counter(int(instance.node_machine[one]) for one in sorted(set(host) - {-1}))
        twice = [one for one in sorted(set(host) - {-1}) if used[int(instance.node_machine[one])] > 1]
        found += [
            f"node {instance.node_names[one]} is used, and so is its machine in another mode" for one in twice[:1]
        ]
    for rule in instance.group_rules:
        if isinstance(rule, Gang):
            on = sum(host[pod] >= 0 for pod in set(rule.pods))
            if 0 < on < len(set(rule.pods)):
                found.append(f"only {on} of {len(set(rule.pods))} pods of gang {rule.name} are placed")
            continue
        domains: list[int] = rule.domain.tolist()
        where = _Where(host, domains)
        if isinstance(rule, Spread):
            found += _spread(instance, rule, where, domains)
        elif isinstance(rule, Apart):
            found += _apart(instance, rule, where)
    return found + _together(instance, host)


class _Where:
    """The domain of a pod; -1 where it is on no node, or its node is in none."""

    def __init__(self, host: Sequence[int], domains: Sequence[int]) -> None:
        self._host, self._domains = host, domains

    def __call__(self, pod: int) -> int:
        return self._domains[self._host[pod]] if self._host[pod] >= 0 else -1

    def placed(self, pod: int) -> bool:
        return self._host[pod] >= 0


def _spread(instance: Instance, rule: Spread, where: _Where, domains: Sequence[int]) -> list[str]:
    counts: Counter[int] = Counter()
    for pod in sorted(set(rule.pods)):
        if where.placed(pod) and where(pod) < 0:
            return [f"pod {instance.pod_names[pod]} is on a node without a domain of {rule.name}"]
        if where.placed(pod):
            counts[where(pod)] += 1
    known = set(domains) - {-1}
    fewest = min((counts[one] for one in known), default=0) if len(known) >= rule.min_domains else 0
    most = max(counts.values(), default=0)
    if most - fewest > rule.max_skew:
        return [f"{rule.name}: {most} pods in one domain and {fewest} in another differ by more than {rule.max_skew}"]
    return []


def _apart(instance: Instance, rule: Apart, where: _Where) -> list[str]:
    others: dict[int, list[int]] = {}
    for pod in set(rule.others):
        others.setdefault(where(pod), []).append(pod)
    for pod in sorted(set(rule.pods)):
        if where(pod) >= 0 and any(other != pod for other in others.get(where(pod), ())):
            return [f"{rule.name}: pod {instance.pod_names[pod]} is in a domain with pods it keeps away from"]
    return []


def _together(instance: Instance, host: Sequence[int]) -> list[str]:
    """Start the placed pods one after the other, as far as their rules let them; name the first that never can."""
    rules = [rule for rule in instance.group_rules if isinstance(rule, Together)]
    start = _Start(rules, host)
    waiting = []
    for pod in range(len(host)):
        if host[pod] >= 0:
            if start.is_free(pod):
                start.run(pod)
            else:
                waiting.append(pod)
    while waiting:
        # As the scheduler has it, a pod may start alone only where no pod that it wants to be with runs anywhere.
        able = [pod for pod in waiting if start.allows(pod, alone=False)]
        able = able or [pod for pod in waiting if start.allows(pod, alone=True)][:1]
        if not able:
            stuck, name = instance.pod_names[waiting[0]], start.first_rule(waiting[0])
            return [f"{name}: pod {stuck} is in no domain with a pod it wants to be with"]
        for pod in able:
            start.run(pod)
        waiting = [pod for pod in waiting if pod not in set(able)]
    return []


class _Start:
    """Which pods run already, as far as the affinity of others asks."""

    def __init__(self, rules: Sequence[Together], host: Sequence[int]) -> None:
        self._rules = rules
        self._where = [_Where(host, rule.domain.tolist()) for rule in rules]
        self._running: list[Counter[int]] = [Counter() for _ in rules]
        self._asks: dict[int, list[int]] = {}
        self._serves: dict[int, list[int]] = {}
        for number, rule in enumerate(rules):
            for pod in set(rule.pods):
                self._asks.setdefault(pod, []).append(number)
            for pod in set(rule.anchors):
                self._serves.setdefault(pod, []).append(number)

    def is_free(self, pod: int) -> bool:
        return pod not in self._asks

    def first_rule(self, pod: int) -> str:
        return self._rules[self._asks[pod][0]].name

    def run(self, pod: int) -> None:
        for number in self._serves.get(pod, ()):
            domain = self._where[number](pod)
            if domain >= 0:
                self._running[number][domain] += 1

    def allows(self, pod: int, *, alone: bool) -> bool:
        return all(self._allows(pod, number, alone=alone) for number in self._asks[pod])

    def _allows(self, pod: int, number: int, *, alone: bool) -> bool:
        domain, running = self._where[number](pod), self._running[number]
        first = alone and not running and pod in self._rules[number].anchors
        return domain >= 0 and (domain in running or first)
