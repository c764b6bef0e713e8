"""The question and the answer of a drain: which nodes to empty within a number of moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal

    from gpuwaste.packing.answer import Placement
    from gpuwaste.packing.instance import Bools, Instance, Ints

__all__ = ["DisruptionBudget", "DrainAnswer", "DrainQuestion", "Move", "node_costs", "pods_per_node"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DisruptionBudget:
    """How many of some pods may be away at one moment, as a PodDisruptionBudget's status says.

    Attributes:
        name: for messages.
        pods: indexes of its pods.
        allowed: how many of them may be away at once; 0 = none may move.
    """

    name: str
    pods: tuple[int, ...]
    allowed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainQuestion:
    """Pods where they are now, and what may be done to them; P pods, N nodes.

    Attributes:
        instance: pods and nodes.
        current: where every pod is, and on which GPUs; -1 = on no node.
        node_cost: N prices of a whole node while a pod is on it.
        max_moves: pods that may change their place, in all.
        movable: bool[P]; False = the pod stays, and its node with it.
        budgets: pods in none may move freely; a pod in two may not move, as the API refuses to evict it.
        keep: bool[N]; nodes that may not be emptied whatever is on them.
        open_nodes: pods may also go to nodes that nothing is on yet, each of which costs its price from then on; else
            only to nodes that are in use.
    """

    instance: Instance
    current: Placement
    node_cost: tuple[Decimal, ...]
    max_moves: int
    movable: Bools
    budgets: tuple[DisruptionBudget, ...] = ()
    keep: Bools | None = None
    open_nodes: bool = False

    def __post_init__(self) -> None:
        pods, nodes = len(self.instance.pod_names), len(self.instance.node_names)
        for name, length, wanted in (
            ("current", len(self.current.pod_node), pods),
            ("movable", len(self.movable), pods),
            ("node_cost", len(self.node_cost), nodes),
        ):
            if length != wanted:
                raise InputError(f"has {length} elements, not {wanted}", where=name)
        if self.max_moves < 0:
            raise InputError(f"{self.max_moves} is negative", where="max_moves")
        for budget in self.budgets:
            if budget.allowed < 0:
                raise InputError(f"{budget.allowed} is negative", where=f"disruption budget {budget.name}")

    def may_move(self) -> Bools:
        """bool[P]: movable, in no budget that allows nothing, and in not more than one."""
        counts = np.zeros(len(self.movable), dtype=np.int64)
        free = self.movable.copy()
        for budget in self.budgets:
            pods = np.unique(np.array(budget.pods, dtype=np.int64))
            counts[pods] += 1
            if budget.allowed == 0:
                free[pods] = False
        result: Bools = free & (counts <= 1)
        return result

    def releasable(self) -> Bools:
        """bool[N]: nodes with pods, all of which may move, that need not be kept."""
        node = self.current.pod_node
        placed = node >= 0
        stuck = np.zeros(len(self.node_cost), dtype=np.bool_)
        stuck[node[placed & ~self.may_move()]] = True
        if self.keep is not None:
            stuck |= self.keep
        result: Bools = ~stuck & (pods_per_node(self) > 0)
        return result

    def openable(self) -> Bools:
        """bool[N]: nodes with no pod that pods may go to, for a price."""
        result: Bools = (pods_per_node(self) == 0) & self.open_nodes
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One pod evicted from its place and started in another.

    Attributes:
        pod: its index.
        source: node it leaves.
        target: node it goes to.
        gpus: indexes of the GPUs it gets there.
    """

    pod: int
    source: int
    target: int
    gpus: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainAnswer:
    """Which nodes to empty, step by step.

    Attributes:
        released: nodes that end up empty, most saving a move first.
        opened: nodes that were empty and end up in use.
        waves: moves that may be made at the same time, in order; a wave starts once the one before has ended.
        current_cost: price of the nodes in use now.
        planned_cost: price of the nodes in use afterwards.
        bound: no drain of the same question within its moves ends below this.
        final: where every pod is afterwards.
        method: which step gave it.
    """

    released: tuple[int, ...]
    opened: tuple[int, ...]
    waves: tuple[tuple[Move, ...], ...]
    current_cost: Decimal
    planned_cost: Decimal
    bound: Decimal
    final: Placement
    method: str

    @property
    def moves(self) -> int:
        """Pods that change their place."""
        return sum(len(wave) for wave in self.waves)

    @property
    def saved(self) -> Decimal:
        """What the nodes in use cost less than now."""
        return self.current_cost - self.planned_cost

    @property
    def saved_at_most(self) -> Decimal:
        """What any drain within the moves could save."""
        return self.current_cost - self.bound

    @property
    def part_of_bound(self) -> float:
        """Saving over the most there could be; 1 where nothing can be saved."""
        most = float(self.saved_at_most)
        return float(self.saved) / most if most > 0 else 1.0


def pods_per_node(question: DrainQuestion) -> Ints:
    """int64[N]: how many pods are on each node now."""
    node = question.current.pod_node
    return np.bincount(node[node >= 0], minlength=len(question.node_cost))


def node_costs(instance: Instance) -> tuple[Decimal, ...]:
    """Price of each node: that of its model times its GPUs."""
    prices: Sequence[Decimal] = instance.prices
    return tuple(
        prices[model] * gpus
        for model, gpus in zip(instance.node_model.tolist(), instance.node_gpus.tolist(), strict=True)
    )
