"""AllocatedMethodDetails: how each part of a charge was computed, with the figures it was computed from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.focus.texts import decimal_texts, join, json_object
from gpuwaste.model.units import NS_PER_HOUR

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["method_details"]

_HOUR_DECIMALS: Final = 6
_NS_PER_UNIT: Final = NS_PER_HOUR // 10**_HOUR_DECIMALS


def method_details(parts: pa.Table, ratio_units: NDArray[np.int64]) -> pa.Array:
    """One JSON text a part: its ratio, and reserved, held, duty and effective GPU-hours side by side.

    A pod is entitled to exactly the slices it asked for, so what is reserved is what is held. Duty is the part of
    the held time in which the holder had a kernel resident. Hours are rounded to 6 decimals; a figure that was not
    measured is left out.

    Args:
        parts: as `Charges.parts`.
        ratio_units: int64[n], the ratio of each part in units of 10⁻¹².
    """
    held = _hours(parts["held"])
    pairs = [
        ("AllocatedRatio", decimal_texts(ratio_units, 12)),
        ("UsageUnit", pa.repeat('"GPU-Hours"', len(parts))),
        ("UsageQuantity", _hours(parts["weight"])),
        ("x_ReservedGpuHours", held),
        ("x_HeldGpuHours", held),
        ("x_DutyGpuHours", _hours(parts["duty"])),
        ("x_EffectiveGpuHours", _hours(parts["effective"])),
        ("x_UnmeasuredGpuHours", _hours(parts["unmeasured"])),
    ]
    return join('{"Elements":[', json_object(pairs, rows=len(parts)), "]}")


def _hours(amounts_ns: pa.ChunkedArray) -> pa.Array:
    amounts = amounts_ns.combine_chunks()
    units = (pc.fill_null(amounts, 0).to_numpy() + _NS_PER_UNIT // 2) // _NS_PER_UNIT
    return pc.if_else(pc.is_valid(amounts), decimal_texts(units, _HOUR_DECIMALS), pa.scalar(None, pa.string()))
