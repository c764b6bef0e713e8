"""Carries out a drain step by step on paper; shares no code and no intermediate with the search."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING

from gpuwaste.model.errors import InvariantError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gpuwaste.packing.answer import Placement
    from gpuwaste.packing.drain_question import DrainAnswer, DrainQuestion, Move

__all__ = ["check_drain", "drain_violations", "step_violations"]

_GPU_MILLI = 1000
_SHOWN = 3


def check_drain(question: DrainQuestion, answer: DrainAnswer) -> None:
    """Refuse a drain that breaks any rule.

    Raises:
        InvariantError: with the first violations.
    """
    found = drain_violations(question, answer)
    if found:
        raise InvariantError("the drain is wrong and was not written: " + "; ".join(found[:_SHOWN]))


def drain_violations(question: DrainQuestion, answer: DrainAnswer) -> list[str]:
    """Every rule a drain breaks, each with the pod, node or figure concerned; empty if it is right."""
    names = question.instance.node_names
    nodes = len(question.node_cost)
    strange = [node for node in (*answer.released, *answer.opened) if not 0 <= node < nodes]
    if strange:
        return [f"node {strange[0]} does not exist"]
    found = step_violations(question, answer.waves, answer.final)
    moves = [move for wave in answer.waves for move in wave]
    if len(moves) > question.max_moves:
        found.append(f"{len(moves)} moves are more than the {question.max_moves} allowed")
    twice = [pod for pod, count in Counter(move.pod for move in moves).items() if count > 1]
    found += [f"pod {question.instance.pod_names[pod]} moves more than once" for pod in twice if pod >= 0]
    released = set(answer.released)
    if len(released) != len(answer.released):
        found.append("a node is released twice")
    for move in moves:
        if move.source not in released:
            found.append(f"pod {_pod(question, move.pod)} leaves node {_node(question, move.source)}, which stays")
        if move.target in released:
            found.append(
                f"pod {_pod(question, move.pod)} goes to node {_node(question, move.target)}, which is released"
            )
    before, after = _used(question.current), _used(answer.final)
    found += [f"node {names[node]} is released and not empty" for node in sorted(released & after)]
    found += [f"node {names[node]} is released and was empty before" for node in sorted(released - before)]
    if question.keep is not None:
        found += [
            f"node {names[node]} is released and must be kept" for node in sorted(released) if question.keep[node]
        ]
    if set(answer.opened) != after - before:
        found.append("the opened nodes are not those that come into use")
    if not question.open_nodes:
        found += [f"node {names[node]} comes into use, and no node may be opened" for node in sorted(after - before)]
    return found + _figures(question, answer, before, after)


def _figures(question: DrainQuestion, answer: DrainAnswer, before: set[int], after: set[int]) -> list[str]:
    found = []
    for name, told, used in (
        ("current cost", answer.current_cost, before),
        ("planned cost", answer.planned_cost, after),
    ):
        counted = sum((question.node_cost[node] for node in used), Decimal(0))
        if counted != told:
            found.append(f"the {name} is {told}, counted is {counted}")
    if answer.bound > answer.planned_cost:
        found.append(f"the bound {answer.bound} is above the planned cost {answer.planned_cost}")
    if answer.planned_cost > answer.current_cost:
        found.append(f"the planned cost {answer.planned_cost} is above the current cost {answer.current_cost}")
    return found


def step_violations(question: DrainQuestion, waves: Iterable[Sequence[Move]], final: Placement) -> list[str]:
    """What goes wrong when the waves are carried out one after the other.

    In a wave every pod starts in its new place before it is gone from its old one, so that both are taken.
    """
    board = _Board(question)
    found: list[str] = []
    for number, wave in enumerate(waves, start=1):
        found += [f"wave {number}: {what}" for what in board.carry_out(wave)]
    found += board.differences(final)
    return found


class _Board:
    """Who is where, and what is taken."""

    def __init__(self, question: DrainQuestion) -> None:
        self._question = question
        instance, current = question.instance, question.current
        self._cpu = [int(value) for value in instance.pod_cpu]
        self._memory = [int(value) for value in instance.pod_memory]
        self._further: list[list[int]] = instance.needs.tolist()
        self._sides: list[list[int]] = instance.sides.tolist()
        self._gpus = [int(value) for value in instance.pod_gpus]
        self._milli = [
            int(milli) if gpus == 1 else _GPU_MILLI
            for milli, gpus in zip(instance.pod_gpu_milli.tolist(), self._gpus, strict=True)
        ]
        self._place: list[tuple[int, tuple[int, ...]]] = [
            (node, tuple(current.gpu_sets[chosen]))
            for node, chosen in zip(current.pod_node.tolist(), current.pod_gpu_set.tolist(), strict=True)
        ]
        self._taken: Counter[tuple[int, str]] = Counter()
        for pod, (node, gpus) in enumerate(self._place):
            if node >= 0:
                self._count(pod, node, gpus, 1)
        movable = question.movable
        budgets: dict[int, list[int]] = {}
        for number, budget in enumerate(question.budgets):
            for pod in sorted(set(budget.pods)):
                budgets.setdefault(pod, []).append(number)
        self._budgets = budgets
        self._stays = {pod for pod in range(len(movable)) if not movable[pod]}

    def _count(self, pod: int, node: int, gpus: Iterable[int], sign: int) -> None:
        self._taken[node, "cpu"] += sign * self._cpu[pod]
        self._taken[node, "memory"] += sign * self._memory[pod]
        for name, amount in zip(self._question.instance.resources, self._further[pod], strict=True):
            self._taken[node, name] += sign * amount
        for name, side in zip(self._question.instance.exclusions, self._sides[pod], strict=True):
            self._taken[node, f"{name} side {side}"] += sign
        for gpu in gpus:
            self._taken[node, f"gpu {gpu}"] += sign * self._milli[pod]

    def carry_out(self, wave: Sequence[Move]) -> list[str]:
        """Move the pods of one wave; what is wrong with it."""
        found: list[str] = []
        away: Counter[int] = Counter()
        begun: list[tuple[Move, tuple[int, tuple[int, ...]]]] = []
        for move in wave:
            wrong = self._impossible(move)
            if wrong:
                found.append(wrong)
                continue
            for number in self._budgets.get(move.pod, ()):
                away[number] += 1
            begun.append((move, self._place[move.pod]))
            self._count(move.pod, move.target, move.gpus, 1)
            self._place[move.pod] = (move.target, move.gpus)
        found += self._overfull({move.target for move, _ in begun})
        for move, (node, gpus) in begun:
            self._count(move.pod, node, gpus, -1)
        for number, count in away.items():
            budget = self._question.budgets[number]
            if count > budget.allowed:
                found.append(f"{count} pods of disruption budget {budget.name} are away, {budget.allowed} may be")
        return found

    def _impossible(self, move: Move) -> str:
        """Why a move makes no sense whatever is free; empty if it does."""
        if not 0 <= move.pod < len(self._place):
            return f"pod {move.pod} does not exist"
        name = self._question.instance.pod_names[move.pod]
        why = self._stays_put(move) or self._wrong_place(move)
        return f"pod {name} {why}" if why else ""

    def _stays_put(self, move: Move) -> str:
        if self._place[move.pod][0] != move.source or move.source < 0:
            return f"is not on node {_node(self._question, move.source)}"
        if move.pod in self._stays:
            return "may not move"
        if len(self._budgets.get(move.pod, ())) > 1:
            return "is in two disruption budgets and cannot be evicted"
        return ""

    def _wrong_place(self, move: Move) -> str:
        instance = self._question.instance
        if not 0 <= move.target < len(self._question.node_cost):
            return "goes to a node that does not exist"
        if not instance.model_sets[instance.pod_model_set[move.pod], instance.node_model[move.target]]:
            return "goes to a GPU model it may not use"
        if len(set(move.gpus)) != len(move.gpus) or len(move.gpus) != self._gpus[move.pod]:
            return "gets another number of GPUs than it asks for"
        if any(not 0 <= gpu < int(instance.node_gpus[move.target]) for gpu in move.gpus):
            return "gets a GPU that its node does not have"
        size = 0 if instance.node_island_gpus is None else int(instance.node_island_gpus[move.target])
        joined = instance.pod_island is not None and bool(instance.pod_island[move.pod])
        if joined and size and len({gpu // size for gpu in move.gpus}) > 1:
            return "gets GPUs of several NVLink islands"
        return ""

    def _overfull(self, nodes: Iterable[int]) -> list[str]:
        instance = self._question.instance
        found = []
        for node in sorted(nodes):
            name_of = instance.node_names[node]
            if self._taken[node, "cpu"] > int(instance.node_cpu[node]):
                found.append(f"node {name_of} has less CPU than its pods need")
            if self._taken[node, "memory"] > int(instance.node_memory[node]):
                found.append(f"node {name_of} has less memory than its pods need")
            for name, room in zip(instance.resources, instance.rooms[node].tolist(), strict=True):
                if self._taken[node, name] > room:
                    found.append(f"node {name_of} has less {name} than its pods need")
            found += [
                f"node {name_of} has pods of both sides of {name}"
                for name in instance.exclusions
                if self._taken[node, f"{name} side 1"] and self._taken[node, f"{name} side 2"]
            ]
            found += [
                f"GPU {gpu} of node {name_of} carries more than 1000 milli"
                for gpu in range(int(instance.node_gpus[node]))
                if self._taken[node, f"gpu {gpu}"] > _GPU_MILLI
            ]
        return found

    def differences(self, final: Placement) -> list[str]:
        """Pods that the placement told of has in another place than the steps lead to."""
        if len(final.pod_node) != len(self._place):
            return ["the final placement does not speak of every pod exactly once"]
        names = self._question.instance.pod_names
        told = [
            (node, tuple(final.gpu_sets[chosen]) if 0 <= chosen < len(final.gpu_sets) else None)
            for node, chosen in zip(final.pod_node.tolist(), final.pod_gpu_set.tolist(), strict=True)
        ]
        return [
            f"pod {names[pod]} ends elsewhere than the answer says"
            for pod, (place, claimed) in enumerate(zip(self._place, told, strict=True))
            if place != claimed
        ]


def _used(placement: Placement) -> set[int]:
    return {node for node in placement.pod_node.tolist() if node >= 0}


def _pod(question: DrainQuestion, pod: int) -> str:
    names = question.instance.pod_names
    return names[pod] if 0 <= pod < len(names) else str(pod)


def _node(question: DrainQuestion, node: int) -> str:
    names = question.instance.node_names
    return names[node] if 0 <= node < len(names) else str(node)
