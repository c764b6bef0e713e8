"""Packs with rules that tie pods on different nodes together.

First the pods are packed as if there were none: that gives the bound, for every placement that keeps the rules is one
of those. Where the answer keeps them, it is the answer. Else the domain of each pod of a rule is chosen as near to it
as possible, gangs that found only part of their room are left out, and the rest is packed again. In the end pods that
still break a rule are taken out, so that what is answered never breaks one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from gpuwaste.packing.group_choice import restricted
from gpuwaste.packing.group_fill import filled_up
from gpuwaste.packing.group_repair import partial_gangs, total, weights, without_broken
from gpuwaste.packing.machines import on_machines_of_their_own
from gpuwaste.packing.start import current_placement

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpuwaste.packing.answer import Answer, Placement
    from gpuwaste.packing.group_rules import Gang
    from gpuwaste.packing.instance import Instance, Ints
    from gpuwaste.packing.shapes import Problem

__all__ = ["Ruled", "pack_with_rules"]

_FIRST_PART = 0.4
_PACKING_ENDS = 0.8
_FILLING_ENDS = 0.9
"""Parts of the time limit at which packing without the rules, with them, and filling up have ended."""
_MOST_TRIES = 8
_TRY_PART = 0.75
"""Of the time left, for one try: the first is nearly always the best, and finds more the longer it looks."""
_CLOSE_ENOUGH = 2e-3


class PlainSolver(Protocol):
    """Packs an instance without group rules."""

    def __call__(self, instance: Instance, *, time_limit_seconds: float) -> Answer:
        """The least-cost answer found in the time, with its bound."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruled:
    """What packing with rules gave.

    Attributes:
        placement: keeps every group rule.
        plain: the answer without group rules.
        method: which step gave the placement.
    """

    placement: Placement
    plain: Answer
    method: str


def pack_with_rules(
    instance: Instance,
    problem: Problem,
    *,
    solver: PlainSolver,
    time_limit_seconds: float,
    clock: Callable[[], float],
) -> Ruled:
    """Place the pods so that every group rule is kept.

    Args:
        instance: pods, nodes and rules.
        problem: its shapes and types.
        solver: packs without group rules.
        time_limit_seconds: wall time at most; 0 takes the first answer of every step.
        clock: monotonic seconds.
    """
    began = clock()
    plain = solver(instance.untied(), time_limit_seconds=_FIRST_PART * time_limit_seconds)
    best = _Kept.of(instance, plain, method=plain.method)
    if not best.taken_out:
        return Ruled(placement=best.placement, plain=plain, method=best.method)
    tries = _Tries(instance, plain.placement.pod_node)
    for _ in range(_MOST_TRIES):
        question = tries.question()
        if question is None:
            break
        left = max(began + _PACKING_ENDS * time_limit_seconds - clock(), 0.0)
        if time_limit_seconds and not left:
            break
        seconds = _TRY_PART * left
        answer = solver(question, time_limit_seconds=seconds)
        found = _Kept.of(instance, answer, method=f"{answer.method}, domains chosen first")
        best = min(best, found, key=lambda one: one.score)
        if best.score[0] <= instance.left_out(plain.placement.pod_node < 0) and float(best.cost) <= float(
            plain.cost
        ) * (1 + _CLOSE_ENOUGH):
            break
        tries.learn(answer.placement.pod_node)
    ends = began + _FILLING_ENDS * time_limit_seconds
    node = filled_up(instance, problem, best.placement.pod_node, time_left=lambda: ends - clock())
    if not np.array_equal(node, best.placement.pod_node):
        full = current_placement(replace(instance, current_node=node))
        if full is not None and np.array_equal(full.pod_node, node):
            return Ruled(placement=full, plain=plain, method=f"{best.method}, filled up")
    return Ruled(placement=best.placement, plain=plain, method=best.method)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """A placement without what broke a rule."""

    placement: Placement
    taken_out: int
    left: tuple[tuple[int, int], ...]
    cost: float
    method: str

    @property
    def score(self) -> tuple[tuple[tuple[int, int], ...], float]:
        return self.left, self.cost

    @classmethod
    def of(cls, instance: Instance, answer: Answer, *, method: str) -> _Kept:
        before = on_machines_of_their_own(instance, answer.placement.pod_node)
        node = without_broken(instance, before)
        placement = replace(
            answer.placement,
            pod_node=node,
            pod_gpu_set=np.where(node < 0, _no_gpus(answer), answer.placement.pod_gpu_set),
        )
        used = np.unique(node[node >= 0])
        price = np.array([float(one) for one in instance.prices])
        per_gpu = price[instance.node_model[used]] if answer.objective == "cost" else np.ones(len(used))
        return cls(
            placement=placement,
            taken_out=int((node != before).sum()),
            left=instance.left_out(node < 0),
            cost=float(per_gpu @ instance.node_gpus[used]),
            method=method,
        )


def _no_gpus(answer: Answer) -> int:
    """The set without GPUs, which unplaced pods have."""
    return answer.placement.gpu_sets.index(())


class _Tries:
    """What is tried one after the other: other domains, and other gangs left out."""

    def __init__(self, instance: Instance, node: Ints) -> None:
        self._instance, self._node = instance, node
        self._weight = weights(instance)
        self._choice = 0
        self._left_out: list[Gang] = []
        self._largest_first = False
        self._seen: set[bytes] = set()
        self._leave_out_one(node)

    def question(self) -> Instance | None:
        """The next one; None where nothing new is left to try."""
        pods = [pod for gang in self._left_out for pod in gang.pods]
        asked = restricted(self._instance, self._node, left_out=pods, choice=self._choice)
        key = asked.pod_model_set.tobytes() + asked.model_sets.tobytes()
        if key in self._seen:
            return None
        self._seen.add(key)
        # The search begins at the answer without rules, less what the chosen domains do not let stay.
        return replace(asked.untied(), current_node=self._node)

    def learn(self, node: Ints) -> None:
        """Choose what to try after an answer: leave out one more gang, or send groups to other domains."""
        if self._leave_out_one(node):
            return
        if self._left_out and not self._largest_first:
            # The other way round: fewer, larger gangs left out may make room for more.
            self._largest_first, self._left_out = True, []
            self._leave_out_one(self._node)
            return
        self._choice += 1

    def _leave_out_one(self, node: Ints) -> bool:
        partial = [gang for gang in partial_gangs(self._instance, node) if gang not in self._left_out]
        if not partial:
            return False
        size = lambda gang: (total(self._weight[pod] for pod in gang.pods), gang.name)  # noqa: E731
        lowest = min(self._weight[gang.pods[0]][0] for gang in partial)
        able = [gang for gang in partial if self._weight[gang.pods[0]][0] == lowest]
        self._left_out.append(max(able, key=size) if self._largest_first else min(able, key=size))
        return True
