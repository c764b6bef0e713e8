"""A solver that breaks down begins again without its basis, and says so where that does not help either."""

import numpy as np
import pytest

from gpuwaste.packing.linear import IncrementalLp, Program


class Breaks:
    """Breaks down as OR-Tools does where GLOP ends abnormally."""

    def __init__(self, error):
        self._error = error

    def solve(self, **_):
        raise self._error


def cheapest_cover():
    one = np.ones(1)
    return Program(
        cost=3 * one,
        lower=0 * one,
        upper=9 * one,
        row=np.zeros(1, dtype=np.int64),
        column=np.zeros(1, dtype=np.int64),
        value=2 * one,
        row_lower=4 * one,
        row_upper=np.full(1, np.inf),
    )


@pytest.mark.parametrize("error", [RuntimeError("ABNORMAL"), AttributeError("canonical_code")])
def test_a_breakdown_is_tried_once_more_without_the_basis(error):
    lp = IncrementalLp(cheapest_cover())
    lp._solver = Breaks(error)
    solved = lp.solve(seconds=1.0)
    assert solved is not None
    assert solved.objective == pytest.approx(6.0)


def test_two_breakdowns_are_no_optimum(monkeypatch):
    lp = IncrementalLp(cheapest_cover())
    lp._solver = Breaks(RuntimeError("ABNORMAL"))
    monkeypatch.setattr(
        "gpuwaste.packing.linear.mathopt.IncrementalSolver", lambda *_: Breaks(RuntimeError("ABNORMAL"))
    )
    assert lp.solve(seconds=1.0) is None
