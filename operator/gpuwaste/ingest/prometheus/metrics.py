"""Which metrics are read, in which spelling, and how a value becomes a part of one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["FIGURE_METRICS", "FigureMetric", "Scale", "blank", "decide_scales"]


class Scale(Enum):
    """How a metric counts activity."""

    RATIO = 1.0
    PERCENT = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureMetric:
    """One figure and the metrics that tell it.

    Attributes:
        figure: as in the usage windows, or `memory`, `power`, `xid`.
        names: metrics, the one that is preferred first; all that exist are read.
        origin: what a reading of it is called.
        scale: how it counts as NVIDIA writes it; None: it counts something else than activity.
        needed_for: what cannot be known without it; empty where it is only nice to have.
    """

    figure: str
    names: tuple[str, ...]
    origin: str
    scale: Scale | None = None
    needed_for: str = ""


FIGURE_METRICS: tuple[FigureMetric, ...] = (
    FigureMetric(
        figure="sm",
        names=("DCGM_FI_PROF_SM_ACTIVE", "DCGM_FI_PROF_SM_ACTIVE_RATIO"),
        origin="dcgm_prof",
        scale=Scale.RATIO,
        needed_for="how much of a GPU's processors was used; without it only an upper end is known",
    ),
    FigureMetric(
        figure="engine",
        names=("DCGM_FI_PROF_GR_ENGINE_ACTIVE", "DCGM_FI_PROF_GR_ENGINE_ACTIVE_RATIO"),
        origin="dcgm_prof",
        scale=Scale.RATIO,
        needed_for="when MIG instances were busy",
    ),
    FigureMetric(
        figure="util",
        names=("DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_GPU_UTIL_RATIO"),
        origin="device",
        scale=Scale.PERCENT,
        needed_for="when whole GPUs were busy",
    ),
    FigureMetric(
        figure="tensor",
        names=("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE_RATIO"),
        origin="dcgm_prof",
        scale=Scale.RATIO,
    ),
    FigureMetric(
        figure="dram",
        names=("DCGM_FI_PROF_DRAM_ACTIVE", "DCGM_FI_PROF_DRAM_ACTIVE_RATIO"),
        origin="dcgm_prof",
        scale=Scale.RATIO,
    ),
    FigureMetric(
        figure="enc",
        names=("DCGM_FI_DEV_ENC_UTIL",),
        origin="device",
        scale=Scale.PERCENT,
        needed_for="whether an idle workload encodes video; without it none is scaled to zero",
    ),
    FigureMetric(
        figure="dec",
        names=("DCGM_FI_DEV_DEC_UTIL",),
        origin="device",
        scale=Scale.PERCENT,
        needed_for="whether an idle workload decodes video; without it none is scaled to zero",
    ),
    FigureMetric(
        figure="memory",
        names=("DCGM_FI_DEV_FB_USED",),
        origin="device",
        needed_for="whether a workload fits a smaller GPU",
    ),
    FigureMetric(figure="power", names=("DCGM_FI_DEV_POWER_USAGE",), origin="device"),
    FigureMetric(figure="xid", names=("DCGM_FI_DEV_XID_ERRORS",), origin="device"),
)

# DCGM's blanks are about 2³¹ and 2⁶³ in several shades; an average over one of them and real readings lies below.
_LARGEST_ACTIVITY = 150.0
_LARGEST_OTHER = 1e8
_RATIO_LIMIT = 1.5


def blank(values: NDArray[np.float64], *, activity: bool) -> NDArray[np.bool_]:
    """Which values are no readings: NaN, negative, or with one of DCGM's blanks in the average.

    Args:
        values: float64 of any shape.
        activity: whether the metric counts activity, of which there is no more than 100 %.
    """
    largest = _LARGEST_ACTIVITY if activity else _LARGEST_OTHER
    good: NDArray[np.bool_] = (values >= 0) & (values <= largest)
    return ~good


def decide_scales(largest: Mapping[str, float], *, usual: Scale) -> dict[str, Scale | None]:
    """How each host's exporter counts one metric: from 0 to 1, or from 0 to 100.

    A value above 1.5 shows percentages. A largest value that is no whole number shows a ratio where the metric
    usually comes in whole per cent. What is left follows the usual scale, unless other hosts show that exporters
    differ here: then a host that never was above 1 cannot be told, except where it stood at zero.

    Args:
        largest: the largest value by host over a long time.
        usual: the scale that NVIDIA's exporter gives.

    Returns:
        The scale by host; None where it cannot be told.
    """
    decided: dict[str, Scale | None] = {}
    for host, value in largest.items():
        if value > _RATIO_LIMIT:
            decided[host] = Scale.PERCENT
        elif usual is Scale.PERCENT and value != round(value):
            decided[host] = Scale.RATIO
    unusual = any(scale is not usual for scale in decided.values())
    for host in largest.keys() - decided.keys():
        decided[host] = None if unusual and largest[host] > 0 else usual
    return decided
