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

    from gpuwaste.focus.methods import Method

__all__ = ["method_details"]

_HOUR_DECIMALS: Final = 6
_NS_PER_UNIT: Final = NS_PER_HOUR // 10**_HOUR_DECIMALS


def method_details(parts: pa.Table, ratio_units: NDArray[np.int64], method: Method) -> pa.Array:
    """One JSON text a part: its ratio, and reserved, held, duty and effective GPU-hours side by side.

    A pod is entitled to exactly the slices it asked for, so what is reserved is what is held. Duty is the part of
    the held time in which the holder had a kernel resident. Hours are rounded to 6 decimals; a figure that was not
    measured is left out.

    Args:
        parts: as `Charges.parts`.
        ratio_units: int64[n], the ratio of each part in units of 10⁻¹².
        method: borrowed hours stand beside the others where they count, smeared ones where there are any.
    """
    held = _hours(parts["held"])
    smeared = parts["smeared"] if method.smeared else None
    usage = parts["weight"] if smeared is None else pc.subtract(parts["weight"], smeared)
    pairs = [
        ("AllocatedRatio", decimal_texts(ratio_units, 12)),
        ("UsageUnit", pa.repeat('"GPU-Hours"', len(parts))),
        ("UsageQuantity", _hours(usage)),
        ("x_ReservedGpuHours", held),
        ("x_HeldGpuHours", held),
        ("x_DutyGpuHours", _hours(parts["duty"])),
        ("x_EffectiveGpuHours", _hours(parts["effective"])),
        ("x_UnmeasuredGpuHours", _hours(parts["unmeasured"])),
    ]
    if method.basis == "larger":
        pairs.append(("x_BorrowedGpuHours", _hours(parts["borrowed"])))
    if smeared is not None:
        pairs.append(("x_SmearedGpuHours", _hours(smeared)))
    return join('{"Elements":[', json_object(pairs, rows=len(parts)), "]}")


def _hours(amounts_ns: pa.ChunkedArray) -> pa.Array:
    amounts = amounts_ns.combine_chunks()
    units = (pc.fill_null(amounts, 0).to_numpy() + _NS_PER_UNIT // 2) // _NS_PER_UNIT
    return pc.if_else(pc.is_valid(amounts), decimal_texts(units, _HOUR_DECIMALS), pa.scalar(None, pa.string()))
