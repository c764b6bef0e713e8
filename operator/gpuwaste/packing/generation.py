"""Column generation: node fillings are priced until no better one exists; every round gives a bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.packing.bound import lagrangian_bound
from gpuwaste.packing.master import LpMaster

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpuwaste.packing.bound import Allowance
    from gpuwaste.packing.columns import ColumnPool
    from gpuwaste.packing.instance import Floats
    from gpuwaste.packing.master import Duals
    from gpuwaste.packing.pricing import Priced, TypePricer
    from gpuwaste.packing.shapes import Problem

__all__ = ["Generated", "generate"]

_COARSE_GAP, _FINE_GAP = 2e-3, 2e-5
_IMPROVING = 1e-7
_CONVERGED = 2e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """What the rounds gave.

    Attributes:
        bound: best lower bound of the objective within the allowance; 0 without one.
        duals: of the last linear master; None if none was solved.
        converged: the bound and the linear master met.
    """

    bound: float
    duals: Duals | None
    converged: bool


def generate(
    problem: Problem,
    pool: ColumnPool,
    pricers: list[TypePricer],
    *,
    node_cost: Floats,
    penalty: Floats,
    allowance: Allowance | None,
    time_left: Callable[[], float],
    on_bound: Callable[[float], None],
) -> Generated:
    """Add columns to the pool until the linear master is optimal or time is up.

    Args:
        problem: shapes and types.
        pool: gets the fillings found; its fillings must cover the demand within the allowance.
        pricers: one for each type.
        node_cost: float64[K] objective of one node in this run.
        penalty: float64[S] objective of one unplaced pod.
        allowance: limit of what stays unplaced; None for no limit, and then there is no bound.
        time_left: seconds until this must return.
        on_bound: told of every better bound.
    """
    master = LpMaster(problem, node_cost=node_cost, penalty=penalty, allowance=allowance)
    best, duals = 0.0, None
    converged = False
    gap = _COARSE_GAP
    while time_left() > 0:
        master.extend(pool)
        solved = master.solve(seconds=time_left())
        if solved is None:
            break
        duals = solved
        round_ = _price_all(pricers, duals.worth, gap=gap, time_left=time_left)
        if round_ is None:
            break
        if allowance is not None:
            bound = lagrangian_bound(
                problem,
                worth=duals.worth,
                filling_bound=np.array([priced.bound for priced in round_]),
                allowance=allowance,
                milli_price=duals.milli_price,
                pod_price=duals.pod_price,
            )
            if bound > best:
                best = bound
                on_bound(bound)
        added = _keep_improving(pool, pricers, round_, duals, node_cost)
        converged = allowance is not None and duals.objective - best <= _CONVERGED * duals.objective
        if converged or (not added and gap == _FINE_GAP):
            break
        if not added:
            gap = _FINE_GAP
    return Generated(bound=best, duals=duals, converged=converged)


def _price_all(
    pricers: list[TypePricer], worth: Floats, *, gap: float, time_left: Callable[[], float]
) -> list[Priced] | None:
    priced = []
    for pricer in pricers:
        seconds = time_left()
        if seconds <= 0:
            return None
        priced.append(pricer.price(worth, seconds=seconds, relative_gap=gap))
    return priced


def _keep_improving(
    pool: ColumnPool, pricers: list[TypePricer], priced: list[Priced], duals: Duals, node_cost: Floats
) -> int:
    added = 0
    for pricer, found in zip(pricers, priced, strict=True):
        if found.pattern is None:
            continue
        reduced = node_cost[pricer.kind] + duals.node_price[pricer.kind] - duals.worth @ found.pattern
        if reduced < -_IMPROVING * max(1.0, float(node_cost[pricer.kind])):
            added += pool.add(pricer.kind, found.pattern)
    return added
