"""Places pods that rules left out, one by one or gang by gang, wherever that breaks no rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.packing.baselines import Shelf
from gpuwaste.packing.group_repair import total, weights, without_broken
from gpuwaste.packing.group_rules import Apart, Gang, Together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gpuwaste.packing.instance import Instance, Ints
    from gpuwaste.packing.shapes import Problem

__all__ = ["filled_up"]

_MOST_ENTRIES = 50_000_000
_FEW_ENTRIES = 200_000
"""Nodes times shapes up to which pods are taken out again to make room for others."""
_ROUNDS = 60
_MOST_PLACES = 24
_TAKEN_OUT = 3


def filled_up(instance: Instance, problem: Problem, node: Ints, *, time_left: Callable[[], float]) -> Ints:
    """int64[P]: the placement with more pods on it, none of them against a rule.

    Args:
        instance: pods, nodes and rules.
        problem: its shapes and types.
        node: int64[P] a placement that keeps all rules.
        time_left: seconds until this must return; where there are none, pods are placed in one pass.
    """
    entries = len(instance.node_names) * len(problem.demand)
    if entries > _MOST_ENTRIES or (node >= 0).all():
        return node
    board = _Board(instance, problem)
    best = board.place(node, [pod for pod in range(len(node)) if node[pod] < 0])
    random = np.random.default_rng(1)
    for _ in range(_ROUNDS if entries <= _FEW_ENTRIES else 0):
        left = np.flatnonzero(best < 0)
        if time_left() <= 0 or not len(left):
            break
        first = int(random.choice(left))
        tried = best.copy()
        near = [pod for pod in board.near(first) if tried[pod] >= 0] or np.flatnonzero(tried >= 0).tolist()
        if near:
            tried[random.choice(near, size=min(len(near), int(random.integers(1, _TAKEN_OUT + 1))), replace=False)] = -1
        tried = without_broken(instance, tried)
        out = np.flatnonzero(tried < 0)
        order = [first, *random.permutation(out[out != first]).tolist()]
        tried = board.place(tried, order)
        if board.score(tried) < board.score(best):
            best = tried
    return best


class _Board:
    """Places pods on top of a placement."""

    def __init__(self, instance: Instance, problem: Problem) -> None:
        self._instance, self._problem = instance, problem
        self._weight = weights(instance)
        self._gang: dict[int, tuple[int, ...]] = {}
        for rule in instance.group_rules:
            if isinstance(rule, Gang):
                for pod in rule.pods:
                    # A pod of several gangs pulls all of them.
                    self._gang[pod] = tuple(sorted({*self._gang.get(pod, ()), *rule.pods}))
        domains = [rule.domain for rule in instance.group_rules if not isinstance(rule, Gang)]
        if instance.node_machine is not None:
            domains.append(instance.node_machine)
        self._site = np.stack([problem.type_of_node, *domains], axis=1)
        self._cost = problem.cost[problem.type_of_node]

    def score(self, node: Ints) -> tuple[tuple[tuple[int, int], ...], float]:
        used = np.unique(node[node >= 0])
        return self._instance.left_out(node < 0), float(self._cost[used].sum())

    def near(self, pod: int) -> list[int]:
        """Pods that some rule names together with this one."""
        found: set[int] = set()
        for rule in self._instance.group_rules:
            named = {*rule.pods}
            named.update(rule.anchors if isinstance(rule, Together) else rule.others if isinstance(rule, Apart) else ())
            if pod in named:
                found |= named
        return sorted(found - {pod})

    def place(self, node: Ints, order: Iterable[int]) -> Ints:
        """int64[P] with as many more pods as find room, in an order; heavier ones first among equals of a pass."""
        node = node.copy()
        shelf = self._shelf(node)
        units = list(dict.fromkeys(self._gang.get(pod, (pod,)) for pod in order))
        units.sort(key=lambda unit: total(self._weight[pod] for pod in unit)[0], reverse=True)
        while units:
            placed = [unit for unit in units if self._place_unit(shelf, node, unit)]
            if not placed:
                break
            # What had to wait for another pod may start now.
            units = [unit for unit in units if unit not in set(placed)]
        return node

    def _shelf(self, node: Ints) -> Shelf:
        filling = np.zeros((len(self._problem.type_of_node), len(self._problem.demand)), dtype=np.int64)
        placed = np.flatnonzero(node >= 0)
        np.add.at(filling, (node[placed], self._problem.shape_of_pod[placed]), 1)
        shelf = Shelf(self._problem, self._problem.type_of_node)
        shelf.load(filling)
        return shelf

    def _place_unit(self, shelf: Shelf, node: Ints, unit: tuple[int, ...]) -> bool:
        if len(unit) == 1:
            return self._place_pod(shelf, node, unit[0], alone=True)
        before = node.copy()
        missing = [pod for pod in unit if node[pod] < 0]
        beside = shelf.copy()
        if all(self._place_pod(beside, node, pod, alone=False) for pod in missing) and self._keeps(node):
            shelf.become(beside)
            return True
        node[:] = before
        return False

    def _place_pod(self, shelf: Shelf, node: Ints, pod: int, *, alone: bool) -> bool:
        shape = int(self._problem.shape_of_pod[pod])
        able = np.flatnonzero(shelf.able(shape))
        if not len(able):
            return False
        used = shelf.filling[able].any(axis=1)
        order = able[np.lexsort((able, self._cost[able], ~used))]
        # Of nodes that are alike for every rule the first is enough.
        _, first = np.unique(
            np.column_stack([self._site[order], shelf.filling[order].any(axis=1)]), axis=0, return_index=True
        )
        for host in order[np.sort(first)][:_MOST_PLACES].tolist():
            node[pod] = host
            if not alone or self._keeps(node):
                shelf.put(shape, host)
                return True
        node[pod] = -1
        return False

    def _keeps(self, node: Ints) -> bool:
        return bool(np.array_equal(without_broken(self._instance, node), node))
