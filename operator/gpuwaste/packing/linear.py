"""The one door to OR-Tools: linear and integer programmes from arrays, solved in this process."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
from ortools.math_opt import model_pb2
from ortools.math_opt.python import mathopt

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpuwaste.packing.instance import Bools, Floats, Ints

__all__ = ["IncrementalLp", "LpResult", "MipResult", "Program", "solve_mip", "warm_up"]

_SHORTEST_SECONDS = 0.01
# How a solver's breakdown reaches Python: as the error meant for it, or, in wheels in which translating it fails, as
# that failure.
_BREAKDOWNS = (RuntimeError, AttributeError)
_NOTHING: mathopt.VariableFilter = mathopt.SparseVectorFilter(filtered_items=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """Minimise cost x, row_lower <= A x <= row_upper, lower <= x <= upper; E entries, V variables, R rows.

    Attributes:
        cost: float64[V].
        lower: float64[V].
        upper: float64[V].
        row: int64[E] row of each entry of A.
        column: int64[E].
        value: float64[E].
        row_lower: float64[R].
        row_upper: float64[R].
    """

    cost: Floats
    lower: Floats
    upper: Floats
    row: Ints
    column: Ints
    value: Floats
    row_lower: Floats
    row_upper: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class MipResult:
    """What an integer programme gave.

    Attributes:
        values: float64[V], or None if no solution was found.
        bound: proven lower limit of the objective of every solution; None if none is known.
    """

    values: Floats | None
    bound: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LpResult:
    """An optimum of a linear programme.

    Attributes:
        objective: of the optimum.
        values: float64[V].
        duals: float64[R]; the price of each row, >= 0 for a lower and <= 0 for an upper limit.
    """

    objective: float
    values: Floats
    duals: Floats


def _model(program: Program, integer: Bools | None) -> mathopt.Model:
    proto = model_pb2.ModelProto()
    count, rows = len(program.cost), len(program.row_lower)
    proto.variables.ids.extend(range(count))
    proto.variables.lower_bounds.extend(program.lower.tolist())
    proto.variables.upper_bounds.extend(program.upper.tolist())
    proto.variables.integers.extend([False] * count if integer is None else integer.tolist())
    proto.linear_constraints.ids.extend(range(rows))
    proto.linear_constraints.lower_bounds.extend(program.row_lower.tolist())
    proto.linear_constraints.upper_bounds.extend(program.row_upper.tolist())
    order = np.lexsort((program.column, program.row))
    matrix = proto.linear_constraint_matrix
    matrix.row_ids.extend(program.row[order].tolist())
    matrix.column_ids.extend(program.column[order].tolist())
    matrix.coefficients.extend(program.value[order].tolist())
    used = np.flatnonzero(program.cost)
    proto.objective.linear_coefficients.ids.extend(used.tolist())
    proto.objective.linear_coefficients.values.extend(program.cost[used].tolist())
    return mathopt.Model.from_model_proto(proto)


def solve_mip(
    program: Program,
    *,
    integer: Bools,
    seconds: float,
    relative_gap: float = 0.0,
    small: bool = False,
    start: Floats | None = None,
    presolve: bool = False,
) -> MipResult:
    """Solve an integer programme; one thread, fixed seed.

    Args:
        program: what to minimise.
        integer: bool[V].
        seconds: wall time at most.
        relative_gap: stop when the solution is proven this close.
        small: SCIP, which is quicker at many small programmes; else HiGHS, best at the master.
        start: float64[V], a solution to begin from; HiGHS only.
        presolve: simplify first; HiGHS only. In a covering programme it finds nothing and takes most of the time;
            where much is fixed it is worth it.
    """
    model = _model(program, integer)
    parameters = mathopt.SolveParameters(
        time_limit=timedelta(seconds=max(seconds, _SHORTEST_SECONDS)),
        relative_gap_tolerance=relative_gap,
        random_seed=1,
    )
    hints = mathopt.ModelSolveParameters()
    solver = mathopt.SolverType.GSCIP
    if not small:
        solver = mathopt.SolverType.HIGHS
        parameters.highs.int_options["threads"] = 1
        parameters.highs.string_options["presolve"] = "choose" if presolve else "off"
        if start is not None:
            hint = dict(zip(model.variables(), start.tolist(), strict=True))
            hints.solution_hints.append(mathopt.SolutionHint(variable_values=hint))
    try:
        result = mathopt.solve(model, solver, params=parameters, model_params=hints)
    except _BREAKDOWNS:
        return MipResult(values=None, bound=None)
    bound = result.termination.objective_bounds.dual_bound
    values = None
    if result.has_primal_feasible_solution():
        values = _in_order(result.variable_values(), len(program.cost))
    return MipResult(values=values, bound=bound if np.isfinite(bound) else None)


def _in_order(values: Mapping[object, float], count: int) -> Floats:
    """What OR-Tools tells of variables or constraints, in the order in which they were added; float64[count]."""
    # Looked up one by one, they take longer than the solving.
    return np.fromiter(values.values(), dtype=np.float64, count=count)


class IncrementalLp:
    """A linear programme whose columns and objective change between solves; GLOP keeps its basis."""

    def __init__(self, program: Program) -> None:
        self._model = _model(program, None)
        self._cost = program.cost.copy()
        self._columns = list(self._model.variables())
        self._rows = list(self._model.linear_constraints())
        self._solver = mathopt.IncrementalSolver(self._model, mathopt.SolverType.GLOP)

    def add_column(self, *, cost: float, rows: list[int], values: list[float]) -> None:
        """Add a variable of 0 or more with its entries in the rows."""
        variable = self._model.add_variable(lb=0.0)
        self._columns.append(variable)
        self._model.objective.set_linear_coefficient(variable, cost)
        for row, value in zip(rows, values, strict=True):
            self._rows[row].set_coefficient(variable, value)

    def add_row(self, *, lower: float, upper: float, columns: list[int], values: list[float]) -> None:
        """Add a constraint lower <= values x <= upper."""
        row = self._model.add_linear_constraint(lb=lower, ub=upper)
        self._rows.append(row)
        for column, value in zip(columns, values, strict=True):
            row.set_coefficient(self._columns[column], value)

    def set_cost(self, cost: Floats) -> None:
        """Replace the objective of the variables the programme began with; float64[V]."""
        for index in np.flatnonzero(cost != self._cost).tolist():
            self._model.objective.set_linear_coefficient(self._columns[index], float(cost[index]))
        self._cost = cost.copy()

    def set_upper(self, column: int, upper: float) -> None:
        """Change the upper bound of a variable."""
        self._columns[column].upper_bound = upper

    def set_lower(self, column: int, lower: float) -> None:
        """Change the lower bound of a variable."""
        self._columns[column].lower_bound = lower

    def solve(self, *, seconds: float, prices_only: bool = False) -> LpResult | None:
        """The optimum, or None if it was not reached in time or the numbers beat the solver.

        Where the solver breaks down from the basis it had, it begins once more without one.

        Args:
            seconds: wall time at most.
            prices_only: leave `values` empty; of thousands of variables they take longer than the solving.
        """
        parameters = mathopt.SolveParameters(time_limit=timedelta(seconds=max(seconds, _SHORTEST_SECONDS)), threads=1)
        # An optimum beyond its tolerances is one still: what is proven is computed from its prices anew.
        parameters.glop.change_status_to_imprecise = False
        wanted = mathopt.ModelSolveParameters(reduced_costs_filter=_NOTHING)
        if prices_only:
            wanted.variable_values_filter = _NOTHING
        try:
            result = self._solver.solve(params=parameters, model_params=wanted)
        except _BREAKDOWNS:
            self._solver = mathopt.IncrementalSolver(self._model, mathopt.SolverType.GLOP)
            try:
                result = self._solver.solve(params=parameters, model_params=wanted)
            except _BREAKDOWNS:
                return None
        if result.termination.reason != mathopt.TerminationReason.OPTIMAL:
            return None
        return LpResult(
            objective=result.objective_value(),
            values=_in_order(result.variable_values(), 0 if prices_only else len(self._columns)),
            duals=_in_order(result.dual_values(), len(self._rows)),
        )


def warm_up() -> None:
    """Let every solver build what it builds once, so that what is timed afterwards is the search alone."""
    one = np.ones(1)
    program = Program(
        cost=one,
        lower=0 * one,
        upper=9 * one,
        row=np.zeros(1, dtype=np.int64),
        column=np.zeros(1, dtype=np.int64),
        value=2 * one,
        row_lower=3 * one,
        row_upper=np.full(1, np.inf),
    )
    IncrementalLp(program).solve(seconds=1.0)
    for small in (True, False):
        solve_mip(program, integer=np.ones(1, dtype=np.bool_), seconds=1.0, small=small)
