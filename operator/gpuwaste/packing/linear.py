"""The one door to OR-Tools: linear and integer programmes from arrays, solved in this process."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
from ortools.math_opt import model_pb2
from ortools.math_opt.python import mathopt

if TYPE_CHECKING:
    from gpuwaste.packing.instance import Bools, Floats, Ints

__all__ = ["IncrementalLp", "Mip", "MipResult", "Rows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """A sparse constraint matrix with bounds: lower <= A x <= upper.

    Attributes:
        row: int64[E] row of each entry.
        column: int64[E].
        value: float64[E].
        lower: float64[R].
        upper: float64[R].
    """

    row: Ints
    column: Ints
    value: Floats
    lower: Floats
    upper: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class MipResult:
    """What an integer programme gave.

    Attributes:
        values: float64[V], or None if no solution was found.
        objective: of `values`; None without them.
        bound: proven limit of the objective of every solution; None if none is known.
    """

    values: Floats | None
    objective: float | None
    bound: float | None


class Mip:
    """An integer programme whose objective may change between solves; one thread, fixed seed.

    HiGHS is best for the master, SCIP twice as fast on the many small pricing programmes.
    """

    def __init__(
        self,
        *,
        cost: Floats,
        lower: Floats,
        upper: Floats,
        integer: Bools,
        rows: Rows,
        maximise: bool = False,
        small: bool = False,
    ) -> None:
        proto = model_pb2.ModelProto()
        variables = proto.variables
        variables.ids.extend(range(len(cost)))
        variables.lower_bounds.extend(lower.tolist())
        variables.upper_bounds.extend(upper.tolist())
        variables.integers.extend(integer.tolist())
        proto.linear_constraints.ids.extend(range(len(rows.lower)))
        proto.linear_constraints.lower_bounds.extend(rows.lower.tolist())
        proto.linear_constraints.upper_bounds.extend(rows.upper.tolist())
        order = np.lexsort((rows.column, rows.row))
        matrix = proto.linear_constraint_matrix
        matrix.row_ids.extend(rows.row[order].tolist())
        matrix.column_ids.extend(rows.column[order].tolist())
        matrix.coefficients.extend(rows.value[order].tolist())
        used = np.flatnonzero(cost)
        proto.objective.linear_coefficients.ids.extend(used.tolist())
        proto.objective.linear_coefficients.values.extend(cost[used].tolist())
        proto.objective.maximize = maximise
        self._model = mathopt.Model.from_model_proto(proto)
        self._variables = list(self._model.variables())
        self._cost = cost.copy()
        self._solver = mathopt.SolverType.GSCIP if small else mathopt.SolverType.HIGHS

    @property
    def variables(self) -> int:
        """How many variables there are."""
        return len(self._variables)

    def set_cost(self, cost: Floats) -> None:
        """Replace the objective; float64[V]."""
        for index in np.flatnonzero(cost != self._cost).tolist():
            self._model.objective.set_linear_coefficient(self._variables[index], float(cost[index]))
        self._cost = cost.copy()

    def solve(self, *, seconds: float, relative_gap: float = 0.0) -> MipResult:
        """Solve within a time limit.

        Args:
            seconds: wall time at most.
            relative_gap: stop when the solution is proven this close.
        """
        parameters = mathopt.SolveParameters(
            time_limit=timedelta(seconds=max(seconds, 0.01)),
            relative_gap_tolerance=relative_gap,
            random_seed=1,
        )
        if self._solver == mathopt.SolverType.HIGHS:
            parameters.highs.int_options["threads"] = 1
        result = mathopt.solve(self._model, self._solver, params=parameters)
        bound = result.termination.objective_bounds.dual_bound
        known = bound if np.isfinite(bound) else None
        if not result.has_primal_feasible_solution():
            return MipResult(values=None, objective=None, bound=known)
        values = np.array(result.variable_values(self._variables), dtype=np.float64)
        return MipResult(values=values, objective=float(values @ self._cost), bound=known)


class IncrementalLp:
    """A linear programme that grows by columns; GLOP keeps its basis between solves."""

    def __init__(self, *, lower: Floats, upper: Floats) -> None:
        self._model = mathopt.Model()
        self._rows = [
            self._model.add_linear_constraint(lb=low, ub=high)
            for low, high in zip(lower.tolist(), upper.tolist(), strict=True)
        ]
        self._columns: list[mathopt.Variable] = []
        self._solver = mathopt.IncrementalSolver(self._model, mathopt.SolverType.GLOP)

    def add_column(self, *, cost: float, rows: list[int], values: list[float], upper: float = np.inf) -> None:
        """Add a variable from 0 to `upper` with its entries in the rows."""
        variable = self._model.add_variable(lb=0.0, ub=upper)
        self._columns.append(variable)
        self._model.objective.set_linear_coefficient(variable, cost)
        for row, value in zip(rows, values, strict=True):
            self._rows[row].set_coefficient(variable, value)

    def set_row_upper(self, row: int, upper: float) -> None:
        """Change the upper bound of a row."""
        self._rows[row].upper_bound = upper

    def solve(self, *, seconds: float) -> tuple[float, Floats, Floats] | None:
        """Objective, column values and row duals; None if no optimum was reached in time."""
        parameters = mathopt.SolveParameters(time_limit=timedelta(seconds=max(seconds, 0.01)), threads=1)
        result = self._solver.solve(params=parameters)
        if result.termination.reason != mathopt.TerminationReason.OPTIMAL:
            return None
        return (
            result.objective_value(),
            np.array(result.variable_values(self._columns), dtype=np.float64),
            np.array(result.dual_values(self._rows), dtype=np.float64),
        )
