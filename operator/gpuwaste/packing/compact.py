"""The first bound and the first prices of the shapes, from one small linear programme."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.packing.gpu_patterns import share_weights
from gpuwaste.packing.linear import IncrementalLp, Program
from gpuwaste.packing.master import Duals

if TYPE_CHECKING:
    from gpuwaste.packing.bound import Relaxed
    from gpuwaste.packing.instance import Floats

__all__ = ["Compact", "solve_compact"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compact:
    """Optimum of the relaxation.

    Attributes:
        duals: prices of the shapes, the nodes and what stays unplaced.
        filling_bound: float64[K]; at these prices no filling of one node is worth more.
    """

    duals: Duals
    filling_bound: Floats


def solve_compact(task: Relaxed, *, seconds: float) -> Compact | None:
    """Solve the relaxation in which pods may be cut in pieces.

    Variables are pods of shape i on type k and nodes of type k. A type's nodes have room for the CPU, the
    memory and, by dual feasible functions, the GPUs of its pods.

    Args:
        task: what is minimised.
        seconds: wall time at most.

    Returns:
        Its optimum; None if time ran out or the allowance cannot be kept.
    """
    problem, node_cost = task.problem, task.node_cost
    shapes, kinds = problem.fits.shape
    shape, kind = np.nonzero(problem.fits & (problem.demand > 0)[:, None])
    pairs = len(shape)
    gpu_weights = np.stack([*share_weights(problem.share, problem.whole), problem.whole + task.slots.share_weights])
    resources = 2 + problem.extra.shape[1] + len(gpu_weights)
    need = np.concatenate(
        [
            problem.cpu[shape][None] / np.maximum(problem.type_cpu[kind], 1),
            problem.memory[shape][None] / np.maximum(problem.type_memory[kind], 1),
            (problem.extra[shape] / np.maximum(problem.type_extra[kind], 1)).T,
            gpu_weights[:, shape] / np.maximum(problem.type_gpus[kind], 1),
        ]
    )
    resource, pair = np.nonzero(need)
    unplaced = np.flatnonzero(task.unplaced_most)
    nodes_at, unplaced_at = pairs, pairs + kinds
    room_at, milli_at = shapes, shapes + kinds * resources
    every = np.arange(kinds * resources)
    columns_u = unplaced_at + np.arange(len(unplaced))
    solved = IncrementalLp(
        Program(
            cost=np.concatenate([np.zeros(pairs), node_cost, task.penalty[unplaced]]),
            lower=np.zeros(pairs + kinds + len(unplaced)),
            upper=np.concatenate([np.full(pairs, np.inf), problem.supply, task.unplaced_most[unplaced]]).astype(float),
            row=np.concatenate(
                [
                    shape,
                    room_at + kind[pair] * resources + resource,
                    room_at + every,
                    unplaced,
                    np.full(len(unplaced), milli_at),
                    np.full(len(unplaced), milli_at + 1),
                ]
            ),
            column=np.concatenate(
                [np.arange(pairs), pair, nodes_at + every // resources, columns_u, columns_u, columns_u]
            ),
            value=np.concatenate(
                [
                    np.ones(pairs),
                    need[resource, pair],
                    -np.ones(len(every)),
                    np.ones(len(unplaced)),
                    problem.total_milli[unplaced],
                    np.ones(len(unplaced)),
                ]
            ),
            row_lower=np.concatenate([problem.demand, np.full(len(every) + 2, -np.inf)]),
            row_upper=np.concatenate([np.full(shapes, np.inf), np.zeros(len(every)), task.caps]),
        )
    ).solve(seconds=seconds, prices_only=True)
    if solved is None:
        return None
    room = np.maximum(-solved.duals[room_at:milli_at], 0.0).reshape(kinds, resources)
    worth = task.slots.worth(solved.duals)
    # What a pod is worth beyond the room it takes is nothing but the solver's tolerance; counted, it keeps the
    # bound valid.
    beyond = np.maximum(worth[shape] - (room[kind] * need.T).sum(axis=1), 0.0)
    filling_bound = room.sum(axis=1) + np.bincount(kind, weights=beyond * problem.demand[shape], minlength=kinds)
    return Compact(
        duals=Duals(
            objective=solved.objective,
            worth=worth,
            node_price=np.maximum(filling_bound - node_cost, 0.0),
            milli_price=max(-float(solved.duals[-2]), 0.0),
            pod_price=max(-float(solved.duals[-1]), 0.0),
            copies=np.zeros(0),
            handed=np.zeros(0),
        ),
        filling_bound=filling_bound,
    )
