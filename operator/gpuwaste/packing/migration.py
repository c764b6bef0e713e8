"""The order in which pods move from where they are to where a full repack wants them.

A pod moves as soon as there is room for it on its new node, GPU by GPU. Where pods wait for one another's places, one
of them is stopped first and started again when its place is free: that costs an interruption, and is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.packing.drain_question import Move
from gpuwaste.packing.drain_steps import waves_within_budgets
from gpuwaste.packing.free_room import FreeRoom

if TYPE_CHECKING:
    from gpuwaste.packing.drain_question import DrainQuestion
    from gpuwaste.packing.free_room import Spot
    from gpuwaste.packing.instance import Ints

__all__ = ["Migration", "migration_order"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """Steps to a new placement.

    Attributes:
        waves: moves that may be made at the same time, in order.
        stopped: pods that are stopped before the wave of that number (from 0), because pods wait for one another.
        stranded: pods that keep their place: they may not move, or found no GPU room on their new node beside those
            that stay.
    """

    waves: tuple[tuple[Move, ...], ...]
    stopped: tuple[tuple[int, int], ...]
    stranded: tuple[int, ...]

    @property
    def moves(self) -> int:
        """Pods that change their place."""
        return sum(len(wave) for wave in self.waves)


def migration_order(question: DrainQuestion, target: Ints) -> Migration:
    """Order the moves to a new node of each pod.

    Args:
        question: where pods are, and their disruption budgets; its `max_moves` is not looked at.
        target: int64[P] new node of each pod; -1 or its own node = it stays where it is.
    """
    current = question.current
    spots: dict[int, Spot] = {
        pod: (int(current.pod_node[pod]), current.gpu_sets[int(current.pod_gpu_set[pod])])
        for pod in np.flatnonzero(current.pod_node >= 0).tolist()
    }
    away = (target >= 0) & (current.pod_node >= 0) & (target != current.pod_node)
    may_move = question.may_move()
    fixed = np.flatnonzero(away & ~may_move).tolist()
    pending = np.flatnonzero(away & may_move).tolist()
    total = question.instance.pod_total_milli
    pending.sort(key=lambda pod: (-int(total[pod]), -int(question.instance.pod_cpu[pod]), pod))
    room = FreeRoom(question.instance, current)
    waves: list[tuple[Move, ...]] = []
    stopped: list[tuple[int, int]] = []
    halted: set[int] = set()
    while pending:
        begun: list[Move] = []
        for pod in pending:
            node = int(target[pod])
            if room.able(pod, np.array([node]))[0]:
                gpus = room.gpus_for(pod, node)
                room.take(pod, (node, gpus))
                begun.append(Move(pod=pod, source=spots[pod][0], target=node, gpus=gpus))
        if begun:
            waves += waves_within_budgets(question, begun)
            for move in begun:
                if move.pod not in halted:
                    room.give(move.pod, spots[move.pod])
            gone = {move.pod for move in begun}
            pending = [pod for pod in pending if pod not in gone]
            continue
        # Nothing moves: the largest pod that still runs makes way for the others.
        running = [pod for pod in pending if pod not in halted]
        if not running:
            break
        halted.add(running[0])
        stopped.append((len(waves), running[0]))
        room.give(running[0], spots[running[0]])
    return Migration(waves=tuple(waves), stopped=tuple(stopped), stranded=(*fixed, *pending))
