"""Every placement of a tiny question, and whether it keeps its rules; knows nothing of the solver or the verifier."""

from __future__ import annotations

import itertools

from gpuwaste.packing.group_rules import Apart, Gang, Spread, Together


def keeps(rule, where):
    """Whether a placement keeps a rule; `where` has the node of each pod, None where it is unplaced."""
    if isinstance(rule, Gang):
        return len({where[pod] is None for pod in rule.pods}) < 2
    domain = lambda pod: None if where[pod] is None or rule.domain[where[pod]] < 0 else int(rule.domain[where[pod]])  # noqa: E731
    placed = [pod for pod in rule.pods if where[pod] is not None]
    if isinstance(rule, Spread):
        if any(domain(pod) is None for pod in placed):
            return False
        known = {int(one) for one in rule.domain if one >= 0}
        counts = [sum(domain(pod) == one for pod in placed) for one in known] or [0]
        return max(counts) - (min(counts) if len(known) >= rule.min_domains else 0) <= rule.max_skew
    if isinstance(rule, Apart):
        return not any(
            domain(one) is not None and domain(one) == domain(other)
            for one in rule.pods
            for other in rule.others
            if one != other
        )
    return True


def can_start(rules, where):
    """Whether some order exists in which each pod starts with its affinities kept."""
    rules = [rule for rule in rules if isinstance(rule, Together)]
    placed = [pod for pod, node in enumerate(where) if node is not None]

    def able(pod, running):
        for rule in rules:
            if pod not in rule.pods:
                continue
            mine = int(rule.domain[where[pod]])
            near = {int(rule.domain[where[one]]) for one in running if one in rule.anchors} - {-1}
            if mine < 0 or not (mine in near or (not near and pod in rule.anchors)):
                return False
        return True

    def search(running):
        if len(running) == len(placed):
            return True
        return any(search([*running, pod]) for pod in placed if pod not in running and able(pod, running))

    return search([])


def best_by_force(instance, fits):
    """Least (left out by priority, cost) over all placements; `fits(pods, node)` says what one node holds."""
    nodes, best = len(instance.node_names), None
    price = [float(instance.prices[m]) * g for m, g in zip(instance.node_model, instance.node_gpus, strict=True)]
    milli = instance.pod_total_milli.tolist()
    priority = [0] * len(milli) if instance.pod_priority is None else instance.pod_priority.tolist()
    for where in itertools.product([None, *range(nodes)], repeat=len(instance.pod_names)):
        left = [pod for pod, node in enumerate(where) if node is None]
        score = (
            [
                (sum(milli[pod] for pod in left if priority[pod] == one), sum(priority[pod] == one for pod in left))
                for one in sorted(set(priority), reverse=True)
            ],
            round(sum(price[node] for node in set(where) - {None}), 6),
        )
        if best is not None and score >= best:
            continue
        on = [[pod for pod, node in enumerate(where) if node == one] for one in range(nodes)]
        if (
            all(fits(pods, node) for node, pods in enumerate(on))
            and all(keeps(rule, where) for rule in instance.group_rules)
            and can_start(instance.group_rules, where)
        ):
            best = score
    return best
