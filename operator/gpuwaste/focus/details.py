"""AllocatedMethodDetails: how each part of a charge was computed, with the figures it was computed from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from gpuwaste.focus.json_rows import Number, number_rows
from gpuwaste.focus.ratios import MAX_RATIO_DECIMALS, ratio_units
from gpuwaste.ledger.schema import UNITS_PER_HOUR
from gpuwaste.model.units import NS_PER_HOUR

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from gpuwaste.focus.methods import Method
    from gpuwaste.focus.parts import Parts

__all__ = ["element_units", "method_details"]

_HOUR_DECIMALS: Final = 6
_NS_PER_UNIT: Final = NS_PER_HOUR // 10**_HOUR_DECIMALS


def element_units(parts: Parts, charge: NDArray[np.int64], decimals: NDArray[np.int64]) -> NDArray[np.int64]:
    """The ratios of all elements of all parts of each charge, which add up to exactly 1, in units of 10⁻¹².

    Args:
        parts: n parts.
        charge: int64[n], the charge of each, rising from 0.
        decimals: int64[n_charges], the decimals of each charge's ratios.

    Returns:
        int64[n, 1] where only GPUs cost something, else int64[n, 3]: GPUs, CPU and memory.
    """
    if not (parts.cpu.any() or parts.memory.any()):
        return ratio_units(parts.weight, charge, decimals)[:, None]
    weight = np.stack([parts.weight - parts.cpu - parts.memory, parts.cpu, parts.memory], axis=1)
    return ratio_units(weight.ravel(), np.repeat(charge, weight.shape[1]), decimals).reshape(weight.shape)


def method_details(parts: Parts, units: NDArray[np.int64], method: Method) -> pa.Array:
    """One JSON text a part: its ratio, and reserved, held, duty and effective GPU-hours side by side.

    A pod is entitled to exactly the slices it asked for, so what is reserved is what is held. Duty is the part of
    the held time in which the holder had a kernel resident. Hours are rounded to 6 decimals; a figure that was not
    measured is null. CPU and memory have elements of their own where they carry a part of the node's price.

    Args:
        parts: the parts, n of them.
        units: as `element_units` answers.
        method: borrowed hours stand beside the others where they count, smeared ones where there are any.
    """
    held = _hours(parts.held)
    pieces: list[str | Number] = [
        '{"Elements":[{"AllocatedRatio":',
        Number(units=units[:, 0], decimals=MAX_RATIO_DECIMALS),
        ',"UsageUnit":"GPU-Hours","UsageQuantity":',
        _hours(parts.gpu),
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
        ',"x_MigGpuHours":',
        _hours(parts.mig),
        ',"x_SharedGpuHours":',
        _hours(parts.shared),
    ]
    if method.basis == "larger":
        pieces += [',"x_BorrowedGpuHours":', _hours(parts.borrowed)]
    if method.smeared or method.owned:
        pieces += [',"x_SmearedGpuHours":', _hours(parts.smeared)]
    if units.shape[1] > 1:
        pieces += [
            '},{"AllocatedRatio":',
            Number(units=units[:, 1], decimals=MAX_RATIO_DECIMALS),
            ',"UsageUnit":"Core-Hours","UsageQuantity":',
            _per_hour(parts.cpu_held, UNITS_PER_HOUR["cpu"]),
            ',"x_Resource":"CPU"},{"AllocatedRatio":',
            Number(units=units[:, 2], decimals=MAX_RATIO_DECIMALS),
            ',"UsageUnit":"GiB-Hours","UsageQuantity":',
            _per_hour(parts.memory_held, UNITS_PER_HOUR["memory"] >> 20),
            ',"x_Resource":"Memory"',
        ]
    return number_rows([*pieces, "}]}"], rows=len(units))


def _per_hour(amounts: NDArray[np.int64], hour: int) -> Number:
    """Amounts in hours of a resource, with 6 decimals."""
    whole, rest = np.divmod(amounts, hour)
    # The rest is smaller than an hour, so that its product stays within 64 bits.
    return Number(units=whole * 10**_HOUR_DECIMALS + rest * 10**_HOUR_DECIMALS // hour, decimals=_HOUR_DECIMALS)


def _hours(amounts_ns: NDArray[np.int64], known: NDArray[np.bool_] | None = None) -> Number:
    return Number(units=(amounts_ns + _NS_PER_UNIT // 2) // _NS_PER_UNIT, decimals=_HOUR_DECIMALS, known=known)
