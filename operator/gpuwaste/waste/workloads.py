"""`GPUWaste` objects from the ledger: one a workload."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.api import (
    Advice,
    Condition,
    ConditionStatus,
    ConditionType,
    Confidence,
    GPUWaste,
    GPUWasteSpec,
    GPUWasteStatus,
    HolderWaste,
    ObjectMeta,
    Reason,
    WasteSummary,
    WorkloadRef,
    WorkloadWindow,
    make_condition,
    object_name,
    set_condition,
)
from gpuwaste.ledger.schema import HOLDER_CATEGORIES
from gpuwaste.model.grouping import only
from gpuwaste.model.units import NS_PER_HOUR
from gpuwaste.waste.figures import FIGURE_COLUMNS, Figures, gpu_hours, summarise
from gpuwaste.waste.texts import (
    cost_per_month,
    hours_text,
    measured_percent,
    month_amounts,
    percent_text,
    unit_price,
    waste_percent,
    window_values,
)
from gpuwaste.waste.windows import newest_hour

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from gpuwaste.waste.windows import LedgerWindow

__all__ = [
    "WORKLOAD_COLUMNS",
    "WorkloadAdvice",
    "WorkloadKey",
    "WorkloadWaste",
    "collect_workloads",
    "workload_object",
]

_DEFAULT_API_VERSIONS = {
    "Pod": "v1",
    "Node": "v1",
    "Deployment": "apps/v1",
    "ReplicaSet": "apps/v1",
    "StatefulSet": "apps/v1",
    "DaemonSet": "apps/v1",
    "Job": "batch/v1",
    "CronJob": "batch/v1",
}
_KEY = ("namespace", "workload_kind", "workload_name", "workload_uid", "team")
WORKLOAD_COLUMNS = (
    *("hour", "row_kind", "resource", "gpu_uuid", "parent_id", "slice_id", "pod_uid", "gpu_model", "pool"),
    *_KEY,
    *FIGURE_COLUMNS,
)
"""What of LEDGER_SCHEMA `collect_workloads` reads."""

_MEASURED_WELL, _MEASURED_PARTLY = 95, 50


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class WorkloadKey:
    """Which workload."""

    namespace: str
    kind: str
    name: str
    uid: str
    team: str

    @property
    def object_name(self) -> str:
        """Name of the workload's `GPUWaste`."""
        return object_name(self.kind, self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadWaste:
    """Figures of one workload.

    Attributes:
        key: the workload.
        windows: figures of each window that has rows of it, shortest first.
        models: GPU models it holds, the most held first.
        pool: name of the pool that it holds most in.
        gpus_now: GPUs held in the newest hour, in nanoseconds of GPU an hour.
        pods_now: pods that held in the newest hour.
        pod_uids: pods that held in the longest window.
        exclusive: whether it held whole GPUs only.
        first_seen: start of the first ledger hour with rows of it.
    """

    key: WorkloadKey
    windows: tuple[tuple[LedgerWindow, Figures], ...]
    models: tuple[str, ...]
    pool: str
    gpus_now: int
    pods_now: int
    pod_uids: tuple[str, ...]
    exclusive: bool
    first_seen: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadAdvice:
    """What to do about a workload: the list, and a few words for kubectl's column."""

    headline: str
    advice: tuple[Advice, ...] = ()


def collect_workloads(
    windows: Sequence[LedgerWindow], *, newest: tuple[datetime, int] | None = None
) -> list[WorkloadWaste]:
    """Sum each window by workload.

    Args:
        windows: shortest first, as `cut_windows` gives them.
        newest: the newest hour and how long it is so far, in nanoseconds; None: the newest that has rows, which must
            then be those of all workloads and of all GPUs.

    Returns:
        Workloads in the order of their keys.
    """
    if not windows:
        return []
    holding = [(window, only(window.rows, pc.equal(window.rows["row_kind"], "holder"))) for window in windows]
    summed = [(window, summarise(rows, _KEY)) for window, rows in holding]
    _, longest = holding[-1]
    now = _gpus_now(windows[-1].rows, newest)
    places = _by_held(longest, ("gpu_model", "pool"))
    holdings = _holdings(longest)
    found = []
    for values in sorted({values for _, by_key in summed for values in by_key}):
        key = WorkloadKey(**dict(zip(("namespace", "kind", "name", "uid", "team"), values, strict=True)))
        mine = places.get(values, [("", "")])
        found.append(
            WorkloadWaste(
                key=key,
                windows=tuple((window, by_key[values]) for window, by_key in summed if values in by_key),
                models=tuple(dict.fromkeys(model for model, _ in mine if model))[:16],
                pool=mine[0][1],
                gpus_now=now.get(values, (0, 0))[0],
                pods_now=now.get(values, (0, 0))[1],
                pod_uids=holdings[values].pod_uids,
                exclusive=holdings[values].exclusive,
                first_seen=holdings[values].first_seen,
            )
        )
    return found


def _key(row: dict[str, object]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in _KEY)


def _by_held(rows: pa.Table, labels: tuple[str, ...]) -> dict[tuple[str, ...], list[tuple[str, ...]]]:
    """Values of the labels for each workload, the most held first."""
    found: dict[tuple[str, ...], list[tuple[int, tuple[str, ...]]]] = {}
    grouped = rows.group_by([*_KEY, *labels], use_threads=False).aggregate([("held", "sum")])
    for row in grouped.to_pylist():
        held = row["held_sum"] or 0
        found.setdefault(_key(row), []).append((-held, tuple(str(row[name]) for name in labels)))
    return {key: [values for _, values in sorted(places)] for key, places in found.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Holding:
    pod_uids: tuple[str, ...]
    exclusive: bool
    first_seen: datetime


def _holdings(rows: pa.Table) -> dict[tuple[str, ...], _Holding]:
    """Pods, whether every slice is a whole GPU, and the first hour, of each workload."""
    whole = pc.and_(pc.equal(rows["parent_id"], rows["gpu_uuid"]), pc.equal(rows["slice_id"], rows["gpu_uuid"]))
    marked = rows.append_column("whole", pc.cast(whole, pa.int8()))
    found: dict[tuple[str, ...], _Holding] = {}
    grouped = marked.group_by(list(_KEY), use_threads=False).aggregate(
        [("pod_uid", "distinct"), ("whole", "min"), ("hour", "min")]
    )
    for row in grouped.to_pylist():
        found[_key(row)] = _Holding(
            pod_uids=tuple(sorted(row["pod_uid_distinct"])),
            exclusive=bool(row["whole_min"]),
            first_seen=row["hour_min"],
        )
    return found


def _gpus_now(rows: pa.Table, newest: tuple[datetime, int] | None) -> dict[tuple[str, ...], tuple[int, int]]:
    """Held in the newest hour, scaled to an hour (GPUs × NS_PER_HOUR), and by how many pods."""
    if newest is None:
        there, length = newest_hour(rows)
    else:
        there, length = rows.filter(pc.equal(rows["hour"], newest[0])), newest[1]
    holders = there.filter(pc.equal(there["row_kind"], "holder"))
    found = {}
    grouped = holders.group_by(list(_KEY), use_threads=False).aggregate(
        [("held", "sum"), ("pod_uid", "count_distinct")]
    )
    for row in grouped.to_pylist():
        found[_key(row)] = ((row["held_sum"] or 0) * NS_PER_HOUR // length, row["pod_uid_count_distinct"])
    return found


def workload_object(
    workload: WorkloadWaste,
    *,
    api_versions: Mapping[str, str],
    advice: WorkloadAdvice,
    due: datetime | None,
    now: datetime,
    previous: GPUWaste | None = None,
) -> GPUWaste:
    """The object that shows one workload.

    Args:
        workload: its figures.
        api_versions: apiVersion by the uid of owners, for kinds that are not built in.
        advice: what to do about it.
        due: when first advice can be given, None once it can.
        now: for condition times.
        previous: the object as it is, for its conditions and generation.
    """
    key = workload.key
    window, figures = workload.windows[-1]
    api_version = api_versions.get(key.uid) or _DEFAULT_API_VERSIONS.get(key.kind, "v1")
    month = month_amounts(figures, window)
    status = GPUWasteStatus(
        conditions=_conditions(workload, due=due, now=now, previous=previous),
        observed_generation=previous.metadata.generation or 1 if previous else 1,
        observed_time=window.to_time,
        summary=_summary(workload, advice.headline),
        team=key.team,
        pool=workload.pool,
        gpu_models=workload.models,
        gpus=gpu_hours(workload.gpus_now),
        confidence=_confidence(figures),
        windows=tuple(_window(figures, window) for window, figures in workload.windows),
        price=unit_price(figures),
        projected_cost_per_month=month[0] if month else None,
        projected_waste_cost_per_month=month[1] if month else None,
        advice=advice.advice,
    )
    return GPUWaste(
        metadata=ObjectMeta(name=key.object_name, namespace=key.namespace),
        spec=GPUWasteSpec(
            workload_ref=WorkloadRef(
                api_version=api_version, kind=key.kind, namespace=key.namespace, name=key.name, uid=key.uid or None
            )
        ),
        status=status,
    )


def _window(figures: Figures, window: LedgerWindow) -> WorkloadWindow:
    waste = HolderWaste(
        total=gpu_hours(figures.waste), **{name: gpu_hours(figures[name]) for name in HOLDER_CATEGORIES}
    )
    return WorkloadWindow(**window_values(figures, window, of="held"), net_waste_gpu_hours=waste)


def _summary(workload: WorkloadWaste, headline: str) -> WasteSummary:
    window, figures = workload.windows[-1]
    return WasteSummary(
        window=window.length,
        workload=f"{workload.key.kind}/{workload.key.name}"[:128],
        gpus=f"{gpu_hours(workload.gpus_now):.2f}",
        held_gpu_hours=hours_text(figures["held"]),
        effective_gpu_hours=hours_text(figures.amounts["effective"]),
        waste_percent=percent_text(waste_percent(figures, of="held")),
        cost_per_month=cost_per_month(figures, window),
        advice=headline,
        **{name: hours_text(figures[name]) for name in HOLDER_CATEGORIES},
        model=", ".join(workload.models)[:128] or None,
    )


def _confidence(figures: Figures) -> Confidence:
    share = measured_percent(figures) or 0
    if share >= _MEASURED_WELL:
        return Confidence.HIGH
    return Confidence.MEDIUM if share >= _MEASURED_PARTLY else Confidence.LOW


def _conditions(
    workload: WorkloadWaste, *, due: datetime | None, now: datetime, previous: GPUWaste | None
) -> tuple[Condition, ...]:
    _, figures = workload.windows[-1]
    generation = previous.metadata.generation or 1 if previous else 1
    share = measured_percent(figures)
    if due is not None:
        ready = (ConditionStatus.FALSE, Reason.COLLECTING, f"First advice is due at {due:%Y-%m-%d %H:%M} UTC.")
    else:
        ready = (ConditionStatus.TRUE, Reason.UP_TO_DATE, "The figures are up to date.")
    if figures.unpriced:
        models = ", ".join(workload.models) or "its GPUs"
        text = f"No price is known for {models}; add it to the price list in the chart's values."
        priced = (ConditionStatus.FALSE, Reason.PRICE_UNKNOWN, text)
    elif len(figures.cost) > 1:
        text = f"Prices are in {' and '.join(sorted(figures.cost))}; they are not added."
        priced = (ConditionStatus.FALSE, Reason.CURRENCIES_DIFFER, text)
    else:
        priced = (ConditionStatus.TRUE, Reason.PRICE_KNOWN, "Every GPU-hour has a price.")
    if not share:
        measured = (ConditionStatus.FALSE, Reason.UNMEASURED, "No activity is known; see `gpuwaste-agent doctor`.")
    elif share < _MEASURED_WELL:
        measured = (ConditionStatus.FALSE, Reason.PARTLY_MEASURED, f"{share} % of the held time was measured.")
    else:
        measured = (ConditionStatus.TRUE, Reason.ALL_MEASURED, f"{share} % of the held time was measured.")
    conditions = previous.status.conditions if previous and previous.status else ()
    for of, (status, reason, message) in (
        (ConditionType.READY, ready),
        (ConditionType.PRICED, priced),
        (ConditionType.MEASURED, measured),
    ):
        new = make_condition(of, status, reason, message, observed_generation=generation, now=now)
        conditions = set_condition(conditions, new)
    return conditions
