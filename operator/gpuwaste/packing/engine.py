"""Solves a packing: a feasible answer at once, then column generation, an integer master and repair."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.packing.answer import Answer, count_gpus, materialise
from gpuwaste.packing.baselines import decreasing_order, place_in_order, scarcest_order
from gpuwaste.packing.bound import Allowance, next_attainable, volume_bound
from gpuwaste.packing.coarse import classes_of, rounded
from gpuwaste.packing.columns import ColumnPool, Filling
from gpuwaste.packing.group_repair import without_broken
from gpuwaste.packing.ruled import pack_with_rules
from gpuwaste.packing.shapes import group
from gpuwaste.packing.start import current_placement, filling_of, materialise_near
from gpuwaste.packing.state import SolveState
from gpuwaste.packing.verifier import check

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpuwaste.packing.answer import Placement
    from gpuwaste.packing.instance import Instance
    from gpuwaste.packing.shapes import Objective, Problem

__all__ = ["solve"]

_SAMPLE_PODS = 8_000
_MANY_SHAPES = 900
"""From here on pods of nearly the same size are taken together."""
_CLASSES = ((150, 0.3, 0.38), (500, 0.9, 1.0))
"""How many classes, and the parts of the time limit at which placing them and bounding them have ended."""
_MOST_ENTRIES = 50_000_000
"""Nodes times shapes up to which pods are placed as they are once their classes have been."""
_CLOSE_ENOUGH = 2e-3


def solve(
    instance: Instance,
    *,
    time_limit_seconds: float,
    objective: Objective,
    clock: Callable[[], float],
    started_seconds: float = 0.0,
) -> Answer:
    """Pack the pods on the nodes.

    Least first: unplaced GPU-milli and unplaced pods of the highest priority, of the next, and so on; then the
    objective. The answer is checked by the verifier before it is returned.

    Args:
        instance: pods, nodes, prices.
        time_limit_seconds: wall time, at least 0; 0 gives the first feasible answer and its first bound.
        objective: `cost` or `gpus`.
        clock: monotonic seconds.
        started_seconds: how long the process had run before; added to `first_feasible_seconds`.

    Raises:
        InvariantError: the verifier found the answer wrong.
    """
    if instance.ties_nodes:
        return _solve_with_rules(
            instance,
            time_limit_seconds=time_limit_seconds,
            objective=objective,
            clock=clock,
            started_seconds=started_seconds,
        )
    problem = group(instance, objective=objective)
    current = current_placement(instance)
    begin = None if current is None else filling_of(problem, current)
    if len(problem.demand) > _MANY_SHAPES:
        solved, bound = _solve_by_classes(problem, clock=clock, limit_seconds=time_limit_seconds, begin=begin)
    else:
        solved = _solve(problem, clock=clock, limit_seconds=time_limit_seconds, begin=begin)
        bound = solved.state.bound
    best = solved.state.best
    answer = _answer(
        instance,
        problem,
        placement=_placement(instance, solved),
        bound=bound,
        objective=objective,
        first_feasible_seconds=solved.first_feasible_seconds + started_seconds,
        method=best.method,
    )
    if current is not None:
        kept = _answer(
            instance,
            problem,
            placement=current,
            bound=bound,
            objective=objective,
            first_feasible_seconds=answer.first_feasible_seconds,
            method="current placement",
        )
        # Nothing is moved for nothing.
        answer = min(kept, answer, key=lambda one: (instance.left_out(one.placement.pod_node < 0), one.cost))
    check(instance, answer)
    return answer


def _solve_with_rules(
    instance: Instance,
    *,
    time_limit_seconds: float,
    objective: Objective,
    clock: Callable[[], float],
    started_seconds: float,
) -> Answer:
    """Pack without the group rules for the bound, then with them."""
    began = clock()

    def plainly(instance: Instance, *, time_limit_seconds: float) -> Answer:
        return solve(
            instance,
            time_limit_seconds=time_limit_seconds,
            objective=objective,
            clock=clock,
            started_seconds=started_seconds,
        )

    problem = group(instance, objective=objective)
    ruled = pack_with_rules(instance, problem, solver=plainly, time_limit_seconds=time_limit_seconds, clock=clock)
    placements = [(ruled.placement, ruled.method)]
    current = current_placement(instance)
    if current is not None:
        node = without_broken(instance, current.pod_node)
        kept = replace(current, pod_node=node, pod_gpu_set=np.where(node < 0, 0, current.pod_gpu_set))
        placements.insert(0, (kept, "current placement"))
    answers = [
        _answer(
            instance,
            problem,
            placement=placement,
            bound=0.0,
            objective=objective,
            first_feasible_seconds=ruled.plain.first_feasible_seconds,
            method=method,
        )
        for placement, method in placements
    ]
    best = min(answers, key=lambda one: (instance.left_out(one.placement.pod_node < 0), one.cost))
    left = time_limit_seconds - (clock() - began)
    bound = _bound_with_rules(instance, problem, best, ruled.plain, clock=clock, limit_seconds=max(left, 0.0))
    answer = replace(best, bound=min(next_attainable(problem, bound), best.cost))
    check(instance, answer)
    return answer


def _bound_with_rules(
    instance: Instance,
    problem: Problem,
    answer: Answer,
    plain: Answer,
    *,
    clock: Callable[[], float],
    limit_seconds: float,
) -> float:
    """A bound of every placement that leaves out no more than the answer, rules or not."""
    left, of_plain = (instance.left_out(one.placement.pod_node < 0) for one in (answer, plain))
    known = float(plain.bound)
    if all(mine[0] <= its[0] and mine[1] <= its[1] for mine, its in zip(left, of_plain, strict=True)):
        return known
    # More is left out than there: such placements may be cheaper than the bound of that one.
    placeable = _placeable(problem)
    fits = np.isin(problem.shape_of_pod, np.flatnonzero(problem.fits.any(axis=1)))
    out = instance.left_out((answer.placement.pod_node < 0) & fits)
    allowance = Allowance(milli=sum(milli for milli, _ in out), pods=sum(pods for _, pods in out), by_level=out)
    bound = volume_bound(placeable, allowance=allowance)
    found = filling_of(placeable, answer.placement)
    if limit_seconds > 0 and found is not None and len(problem.demand) <= _MANY_SHAPES:
        from gpuwaste.packing.improve import bound_only  # noqa: PLC0415

        seeds = ColumnPool()
        seeds.add_filling(found)
        exact = bound_only(placeable, allowance, seeds=seeds, clock=clock, limit_seconds=limit_seconds)
        bound = max(bound, exact)
    return bound


@dataclass(frozen=True, slots=True, kw_only=True)
class _Solved:
    """A problem with all its pods, and the state of the search among those that fit somewhere.

    Attributes:
        problem: with all its pods.
        state: of the search.
        first_feasible_seconds: when the first placement was known, from the start.
    """

    problem: Problem
    state: SolveState
    first_feasible_seconds: float


def _solve(
    problem: Problem, *, clock: Callable[[], float], limit_seconds: float, begin: Filling | None = None
) -> _Solved:
    placeable = np.where(problem.fits.any(axis=1), problem.demand, 0)
    state = SolveState(replace(problem, demand=placeable), clock=clock, limit_seconds=limit_seconds)
    if placeable.any():
        _start(state, once=limit_seconds == 0)
        if begin is not None:
            state.pool.add_filling(begin)
            state.offer(begin, method="current placement")
        if limit_seconds > 0:
            # OR-Tools takes half a second to load; the first placement is known before.
            from gpuwaste.packing.improve import improve  # noqa: PLC0415

            improve(state)
    return _Solved(problem=problem, state=state, first_feasible_seconds=state.first_feasible_seconds)


def _solve_by_classes(
    problem: Problem, *, clock: Callable[[], float], limit_seconds: float, begin: Filling | None
) -> tuple[_Solved, float]:
    """Place classes of pods, each as large as its largest; bound them, each as small as its smallest.

    Then the pods are placed as large as they are: what rounding up has left free is filled. Where there are too many
    for that, more classes: the more, the less rounding adds, and the longer each step takes.
    """
    began = clock()
    best: _Solved | None = None
    bound = 0.0

    def time_left(part: float) -> float:
        return max(began + part * limit_seconds - clock(), 0.0)

    for most, placing_ends, bounding_ends in _CLASSES:
        if best is not None and time_left(placing_ends) == 0.0:
            break
        class_of_shape = classes_of(problem, most=most)
        found = _solve(rounded(problem, class_of_shape, up=True), clock=clock, limit_seconds=time_left(placing_ends))
        if best is None or found.state.best.score < best.state.best.score:
            first = found.first_feasible_seconds if best is None else best.first_feasible_seconds
            best = replace(found, first_feasible_seconds=first)
            bound = volume_bound(_placeable(problem), allowance=best.state.best.allowance)
        if limit_seconds == 0:
            break
        from gpuwaste.packing.improve import bound_only, refine  # noqa: PLC0415

        smallest = _placeable(rounded(problem, class_of_shape, up=False))
        allowance = best.state.best.allowance
        left = time_left(bounding_ends)
        bound = max(bound, bound_only(smallest, allowance, seeds=found.state.pool, clock=clock, limit_seconds=left))
        if _gap(best, bound) <= _CLOSE_ENOUGH:
            break
        if len(problem.demand) * int(problem.supply.sum()) <= _MOST_ENTRIES:
            exact = SolveState(_placeable(problem), clock=clock, limit_seconds=time_left(1.0))
            for filling in (filling_of(problem, materialise(best.problem, best.state.best.filling)), begin):
                if filling is not None:
                    exact.offer(filling, method=best.state.best.method)
            refine(exact, bound=bound)
            best = replace(best, problem=problem, state=exact)
            bound = max(bound, exact.bound)
            break
    assert best is not None  # noqa: S101 - there is at least one number of classes
    return best, bound


def _gap(solved: _Solved, bound: float) -> float:
    cost = float(solved.problem.cost_unit * solved.state.best.cost_units)
    return (cost - bound) / max(bound, 1e-9)


def _placeable(problem: Problem) -> Problem:
    return replace(problem, demand=np.where(problem.fits.any(axis=1), problem.demand, 0))


def _start(state: SolveState, *, once: bool) -> None:
    """First placements by first fit on the cheapest nodes, of a sample if there are very many pods."""
    problem = state.problem
    scale = max(-(-int(problem.demand.sum()) // _SAMPLE_PODS), 1)
    small = replace(problem, demand=-(-problem.demand // scale), supply=problem.supply // scale)
    dearness = problem.cost / np.maximum(problem.type_gpus, 1)
    kinds = np.repeat(np.arange(len(problem.supply)), small.supply)
    kinds = kinds[np.argsort(dearness[kinds], kind="stable")]
    scarcest = scarcest_order(small, small.demand)
    shuffled = np.random.default_rng(1).permutation(scarcest)
    shuffled = shuffled[np.argsort(small.level[shuffled], kind="stable")]
    for order in (scarcest,) if once else (scarcest, shuffled, decreasing_order(small, small.demand)):
        filling = Filling.of_nodes(kinds, place_in_order(small, order, kinds, rule="first"))
        state.pool.add_filling(filling)
        state.offer(replace(filling, copies=filling.copies * scale), method="first fit")


def _placement(instance: Instance, solved: _Solved) -> Placement:
    """The best placement pod by pod; where the pods are on nodes already, many stay."""
    filling = solved.state.best.filling
    if instance.current_node is None:
        return materialise(solved.problem, filling)
    return materialise_near(solved.problem, filling, instance.current_node)


def _answer(
    instance: Instance,
    problem: Problem,
    *,
    placement: Placement,
    bound: float,
    objective: Objective,
    first_feasible_seconds: float,
    method: str,
) -> Answer:
    """The figures of a placement; pods that fit on no node count as unplaced."""
    left = placement.pod_node < 0
    nodes = np.unique(placement.pod_node[~left])
    counts = np.bincount(problem.type_of_node[nodes], minlength=len(problem.supply)).tolist()
    units = sum(unit * count for unit, count in zip(problem.unit_cost, counts, strict=True))
    cost = problem.cost_unit * units
    return Answer(
        objective=objective,
        placement=placement,
        cost=cost,
        bound=min(next_attainable(problem, bound), cost),
        unplaced_milli=int(instance.pod_total_milli[left].sum()),
        unplaced_pods=int(left.sum()),
        nodes_used=len(nodes),
        gpus_used=count_gpus(placement),
        first_feasible_seconds=first_feasible_seconds,
        method=method,
    )
