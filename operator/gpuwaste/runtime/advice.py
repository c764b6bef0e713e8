"""From a workload's sums in the ledger to the figures that advice is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuwaste.model.units import NS_PER_HOUR
from gpuwaste.recommend.advice import WorkloadFigures, advice_due, advise
from gpuwaste.waste.figures import gpu_hours, money_of

if TYPE_CHECKING:
    from datetime import datetime

    from gpuwaste.ledger.activity import PodActivity
    from gpuwaste.waste.workloads import WorkloadAdvice, WorkloadWaste

__all__ = ["advise_workload", "due_time"]


def due_time(workload: WorkloadWaste) -> datetime | None:
    """When the workload gets its first advice; None once it can have it."""
    due = advice_due(workload.first_seen)
    return due if workload.windows[-1][0].to_time < due else None


def advise_workload(workload: WorkloadWaste, activity: PodActivity) -> WorkloadAdvice:
    """What to do about a workload.

    Args:
        workload: its figures; the longest window counts.
        activity: peak memory and media engines of its pods.
    """
    window, figures = workload.windows[-1]
    known = [activity[uid] for uid in workload.pod_uids if uid in activity]
    peaks = [memory for memory, _ in known if memory is not None]
    media = [spent for _, spent in known if spent is not None]
    cost = figures.known_cost
    return advise(
        WorkloadFigures(
            kind=workload.key.kind,
            name=workload.key.name,
            first_window=workload.first_seen,
            data_until=window.to_time,
            held_ns=figures["held"],
            duty_ns=figures.amounts["duty"],
            effective_ns=figures.amounts["effective"],
            idle_ns=figures["idle"],
            starting_ns=figures["starting"],
            underused_ns=figures["underused"],
            unmeasured_ns=figures["unmeasured"],
            gpus=gpu_hours(workload.gpus_now),
            pods=workload.pods_now,
            exclusive=workload.exclusive,
            product=workload.models[0] if len(workload.models) == 1 else "",
            peak_memory_bytes=max(peaks) if peaks and len(peaks) == len(workload.pod_uids) else None,
            media_ns=sum(media) if media and len(media) == len(workload.pod_uids) else None,
            price=money_of(cost[0] * NS_PER_HOUR / figures["owned"]) if cost and figures["owned"] else None,
            currency=cost[2] if cost else None,
        )
    )
