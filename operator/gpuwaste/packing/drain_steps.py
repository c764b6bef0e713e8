"""The steps of a drain: waves of moves that keep every disruption budget, node after node."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from gpuwaste.packing.answer import Placement
from gpuwaste.packing.drain_question import Move

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gpuwaste.packing.drain_question import DrainQuestion
    from gpuwaste.packing.free_room import Spot

__all__ = ["final_placement", "ordered_waves", "waves_within_budgets"]


def ordered_waves(
    question: DrainQuestion, released: Sequence[int], spots: Mapping[int, Spot]
) -> tuple[tuple[Move, ...], ...]:
    """Node after node; of one node as many pods at once as the budgets allow.

    Args:
        question: where pods are, and the budgets.
        released: the nodes in their order.
        spots: where every pod of them goes.
    """
    node_of = question.current.pod_node
    moves: dict[int, list[Move]] = {node: [] for node in released}
    for pod in sorted(spots):
        node, gpus = spots[pod]
        source = int(node_of[pod])
        moves[source].append(Move(pod=pod, source=source, target=node, gpus=gpus))
    return tuple(wave for node in released for wave in waves_within_budgets(question, moves[node]))


def waves_within_budgets(question: DrainQuestion, moves: Sequence[Move]) -> list[tuple[Move, ...]]:
    """Split moves, in their order, so that no wave takes more pods of a budget away than it allows."""
    budgets_of: dict[int, list[int]] = {}
    for number, budget in enumerate(question.budgets):
        for pod in budget.pods:
            budgets_of.setdefault(pod, []).append(number)
    waves: list[tuple[list[Move], Counter[int]]] = []
    for move in moves:
        numbers = budgets_of.get(move.pod, [])
        free = (wave for wave in waves if all(wave[1][number] < question.budgets[number].allowed for number in numbers))
        wave = next(free, None)
        if wave is None:
            wave = ([], Counter())
            waves.append(wave)
        wave[0].append(move)
        wave[1].update(numbers)
    return [tuple(wave) for wave, _ in waves]


def final_placement(question: DrainQuestion, spots: Mapping[int, Spot]) -> Placement:
    """Where every pod is once all moves are made."""
    current = question.current
    node, gpu_set = current.pod_node.copy(), current.pod_gpu_set.copy()
    sets = {gpus: index for index, gpus in enumerate(current.gpu_sets)}
    for pod, (host, gpus) in spots.items():
        node[pod] = host
        gpu_set[pod] = sets.setdefault(gpus, len(sets))
    return Placement(pod_node=node, pod_gpu_set=gpu_set, gpu_sets=tuple(sets))
