"""Column generation: node fillings are priced until no better one exists; every round gives a bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.packing.bound import lagrangian_bound
from gpuwaste.packing.compact import solve_compact
from gpuwaste.packing.master import Duals, LpMaster
from gpuwaste.packing.pricing import Effort

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpuwaste.packing.bound import Relaxed
    from gpuwaste.packing.columns import ColumnPool
    from gpuwaste.packing.instance import Floats
    from gpuwaste.packing.pricing import Priced, TypePricer

__all__ = ["COARSE", "FINE", "Generated", "generate", "keep_improving", "price_all"]

_SMOOTHING = 0.5
_PRICING_SECONDS = 1.0
"""For one knapsack; what it has proved by then is a bound too."""
COARSE = Effort(relative_gap=2e-3, focus=0.01)
FINE = Effort(relative_gap=2e-5, focus=1.0)
_IMPROVING = 1e-7
_CONVERGED = 4e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """What the rounds gave.

    Attributes:
        bound: best lower bound of the objective.
        duals: of the last linear master; None if none was solved.
        converged: the bound and the linear master met.
    """

    bound: float
    duals: Duals | None
    converged: bool


def generate(
    task: Relaxed,
    pool: ColumnPool,
    pricers: list[TypePricer],
    *,
    time_left: Callable[[], float],
    on_bound: Callable[[float], None],
    on_priced: Callable[[Duals, Floats], None] | None = None,
) -> Generated:
    """Add columns to the pool until the linear master is optimal or time is up.

    Args:
        task: what is minimised.
        pool: gets the fillings found; its fillings must cover the demand within the task's allowance.
        pricers: one for each type.
        time_left: seconds until this must return.
        on_bound: told of every better bound.
        on_priced: told of the prices of each round, and of what no filling of a type is worth more than.
    """
    master = LpMaster(task)
    centre = _Centre(task, on_bound)
    compact = solve_compact(task, seconds=time_left())
    if compact is not None:
        centre.learn(compact.duals, compact.filling_bound)
    duals: Duals | None = None
    converged, effort, smoothing = False, COARSE, _SMOOTHING
    while time_left() > 0:
        master.extend(pool)
        duals = master.solve(seconds=time_left()) or duals
        if duals is None:
            break
        at = centre.smooth(duals, smoothing)
        round_ = price_all(pricers, at, task.node_cost, effort=effort, time_left=time_left)
        if round_ is None:
            break
        filling_bound = np.array([priced.bound for priced in round_])
        centre.learn(at, filling_bound)
        if on_priced is not None:
            on_priced(at, filling_bound)
        converged = duals.objective - centre.bound <= _CONVERGED * duals.objective
        added = keep_improving(pool, pricers, round_, duals, task.node_cost)
        if converged or (not added and smoothing == 0.0 and effort is FINE):
            break
        if not added and smoothing == 0.0:
            effort = FINE
        # Where smoothed prices show no new filling, the master's own prices decide.
        smoothing = _SMOOTHING if added else 0.0
    return Generated(bound=centre.bound, duals=duals, converged=converged)


class _Centre:
    """The best bound and the prices that gave it.

    Prices between the master's and these swing less from round to round, and the bound rises sooner
    (Wentges 1997, in-out separation).
    """

    def __init__(self, task: Relaxed, on_bound: Callable[[float], None]) -> None:
        self._task, self._on_bound = task, on_bound
        self._duals: Duals | None = None
        self.bound = 0.0

    def learn(self, duals: Duals, filling_bound: Floats) -> None:
        bound = lagrangian_bound(
            self._task,
            worth=duals.worth,
            filling_bound=filling_bound,
            milli_price=duals.milli_price,
            pod_price=duals.pod_price,
        )
        if self._duals is None or bound > self.bound:
            self.bound, self._duals = bound, duals
            self._on_bound(bound)

    def smooth(self, last: Duals, part: float) -> Duals:
        best = self._duals
        if best is None or part == 0.0:
            return last
        return Duals(
            objective=last.objective,
            worth=(1 - part) * last.worth + part * best.worth,
            node_price=(1 - part) * last.node_price + part * best.node_price,
            milli_price=(1 - part) * last.milli_price + part * best.milli_price,
            pod_price=(1 - part) * last.pod_price + part * best.pod_price,
            copies=last.copies,
            handed=last.handed,
        )


def price_all(
    pricers: list[TypePricer], duals: Duals, node_cost: Floats, *, effort: Effort, time_left: Callable[[], float]
) -> list[Priced] | None:
    """Price every type; None if time ran out. Fillings worth no more than their node costs are not looked for."""
    priced = []
    known = node_cost + duals.node_price
    for pricer in pricers:
        seconds = time_left()
        if seconds <= 0:
            return None
        priced.append(
            pricer.price(
                duals.worth, known=float(known[pricer.kind]), seconds=min(seconds, _PRICING_SECONDS), effort=effort
            )
        )
    return priced


def keep_improving(
    pool: ColumnPool, pricers: list[TypePricer], priced: list[Priced], duals: Duals, node_cost: Floats
) -> int:
    """Put the fillings that the duals call for into the pool; how many there were."""
    added = 0
    for pricer, found in zip(pricers, priced, strict=True):
        if found.pattern is None:
            continue
        reduced = node_cost[pricer.kind] + duals.node_price[pricer.kind] - duals.worth @ found.pattern
        if reduced < -_IMPROVING * max(1.0, float(node_cost[pricer.kind])):
            added += pool.add(pricer.kind, found.pattern)
    return added
