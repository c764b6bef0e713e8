"""How likely two time-shared pods slow each other down, from what each does alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gpuwaste.packing.instance import Bools, Floats

__all__ = ["Pairs", "Slowdown", "predict"]

# Share of sides that lost more than 10 % of their speed, by the sum of both duties: 2,760 sides of 1,388
# pairs measured on time-shared GPUs (Hu et al., "Lucid", ASPLOS 2023). Points are the middles of the bins
# below 0.5, to 0.8, 1.0, 1.2, 1.5 and above.
_LOAD = np.array([0.0, 0.25, 0.65, 0.9, 1.1, 1.35, 1.75, 2.0])
_SLOW = np.array([0.01, 0.04, 0.11, 0.17, 0.31, 0.66, 0.84, 0.90])
# In the same pairs the other's load tells a little more of a side's speed than its own.
_OWN, _OTHER = 0.95, 1.05
_SAFE_LOAD = 0.5
"""Up to this sum a pair may share untested; above it, it needs a trial or MIG."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Figures of both sides alone, n pairs; duty and DRAM activity in per cent of time, peak memory in GiB.

    Attributes:
        a_duty_pct: float64[n].
        a_dram_pct: float64[n].
        a_memory_gib: float64[n].
        b_duty_pct: float64[n].
        b_dram_pct: float64[n].
        b_memory_gib: float64[n].
    """

    a_duty_pct: Floats
    a_dram_pct: Floats
    a_memory_gib: Floats
    b_duty_pct: Floats
    b_dram_pct: Floats
    b_memory_gib: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Slowdown:
    """The prediction for n pairs.

    Attributes:
        a_p_slow: float64[n] probability that side a loses more than 10 % of its speed.
        b_p_slow: float64[n].
        safe: bool[n]; the pair may share without a trial.
    """

    a_p_slow: Floats
    b_p_slow: Floats
    safe: Bools


def predict(pairs: Pairs, *, memory_gib: float) -> Slowdown:
    """Predict from the load of the busier of the two resources that are measured, compute time and DRAM.

    A pair whose peak memories do not fit together is never safe, whatever its load: memory is a hard limit.

    Args:
        pairs: solo figures.
        memory_gib: memory of the GPU.
    """
    a = np.stack([pairs.a_duty_pct, pairs.a_dram_pct]) / 100
    b = np.stack([pairs.b_duty_pct, pairs.b_dram_pct]) / 100
    loads = [(_OWN * own + _OTHER * other).max(axis=0) for own, other in ((a, b), (b, a))]
    p_slow = [np.interp(load, _LOAD, _SLOW) for load in loads]
    fits = pairs.a_memory_gib + pairs.b_memory_gib <= memory_gib
    return Slowdown(
        a_p_slow=p_slow[0],
        b_p_slow=p_slow[1],
        safe=fits & (np.maximum(*p_slow) <= np.interp(_SAFE_LOAD, _LOAD, _SLOW)),
    )
