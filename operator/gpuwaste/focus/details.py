"""AllocatedMethodDetails: how each part of a charge was computed, with the figures it was computed from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gpuwaste.focus.json_rows import Number, number_rows
from gpuwaste.focus.ratios import MAX_RATIO_DECIMALS
from gpuwaste.model.units import NS_PER_HOUR

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from gpuwaste.focus.methods import Method
    from gpuwaste.focus.parts import Parts

__all__ = ["method_details"]

_HOUR_DECIMALS: Final = 6
_NS_PER_UNIT: Final = NS_PER_HOUR // 10**_HOUR_DECIMALS


def method_details(parts: Parts, ratio_units: NDArray[np.int64], method: Method) -> pa.Array:
    """One JSON text a part: its ratio, and reserved, held, duty and effective GPU-hours side by side.

    A pod is entitled to exactly the slices it asked for, so what is reserved is what is held. Duty is the part of
    the held time in which the holder had a kernel resident. Hours are rounded to 6 decimals; a figure that was not
    measured is null.

    Args:
        parts: the parts, n of them.
        ratio_units: int64[n], the ratio of each part in units of 10⁻¹².
        method: borrowed hours stand beside the others where they count, smeared ones where there are any.
    """
    held = _hours(parts.held)
    pieces: list[str | Number] = [
        '{"Elements":[{"AllocatedRatio":',
        Number(units=ratio_units, decimals=MAX_RATIO_DECIMALS),
        ',"UsageUnit":"GPU-Hours","UsageQuantity":',
        _hours(parts.weight - parts.smeared),
        ',"x_ReservedGpuHours":',
        held,
        ',"x_HeldGpuHours":',
        held,
        ',"x_DutyGpuHours":',
        _hours(parts.duty, parts.measured),
        ',"x_EffectiveGpuHours":',
        _hours(parts.effective, parts.measured),
        ',"x_UnmeasuredGpuHours":',
        _hours(parts.unmeasured),
    ]
    if method.basis == "larger":
        pieces += [',"x_BorrowedGpuHours":', _hours(parts.borrowed)]
    if method.smeared:
        pieces += [',"x_SmearedGpuHours":', _hours(parts.smeared)]
    return number_rows([*pieces, "}]}"], rows=len(ratio_units))


def _hours(amounts_ns: NDArray[np.int64], known: NDArray[np.bool_] | None = None) -> Number:
    return Number(units=(amounts_ns + _NS_PER_UNIT // 2) // _NS_PER_UNIT, decimals=_HOUR_DECIMALS, known=known)
