"""`GPUWaste`: one workload, what it holds, what it does with it, what that costs, what to do."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from gpuwaste.api.base import ApiModel, DisplayText, Generation, Hours, Resource, Text, Time
from gpuwaste.api.common import (
    Advice,
    Amount,
    Confidence,
    HolderWaste,
    UnitPrice,
    WindowFigures,
    WorkloadRef,
)
from gpuwaste.api.conditions import Conditions
from gpuwaste.api.kindinfo import Column, KindInfo, Scope
from gpuwaste.api.markers import ListMap, ListSet

__all__ = ["GPUWaste", "GPUWasteSpec", "GPUWasteStatus", "WasteFlag", "WasteSummary", "WorkloadWindow"]


class WasteFlag(StrEnum):
    """Something to know about the figures that is no category of waste."""

    SUSPECTED_STALL = "SuspectedStall"
    UNCERTAIN_JOIN = "UncertainJoin"
    SCALED_TO_CAPACITY = "ScaledToCapacity"
    MISSED_PROCESSES = "MissedProcesses"
    DATA_GAP = "DataGap"


class GPUWasteSpec(ApiModel):
    """Which workload the object is about; the operator writes it."""

    workload_ref: WorkloadRef
    """is the workload that the object is about."""


class WorkloadWindow(WindowFigures):
    """What one window of time says of a workload."""

    net_waste_gpu_hours: HolderWaste | None = None
    """is what was held and used by nobody, by category."""


class WasteSummary(ApiModel):
    """The figures of the longest window with data, as text for kubectl's table."""

    window: DisplayText
    """is the window that the figures are of."""
    workload: DisplayText
    """is the workload's kind and name."""
    gpus: DisplayText
    """is the number of GPUs held now, with parts of shared ones."""
    held_gpu_hours: DisplayText
    """is the time held."""
    effective_gpu_hours: DisplayText
    """is the time used, or `<unmeasured>`."""
    waste_percent: DisplayText
    """is the net waste in percent of the time held, or `<unmeasured>`."""
    cost_per_month: DisplayText
    """is the projected cost of a month, or `<unknown>`."""
    advice: DisplayText
    """is the first advice in a few words."""
    idle: DisplayText | None = None
    """is the idle GPU-hours."""
    underused: DisplayText | None = None
    """is the underused GPU-hours."""
    starting: DisplayText | None = None
    """is the GPU-hours before first activity."""
    unhealthy: DisplayText | None = None
    """is the GPU-hours on bad devices."""
    unmeasured: DisplayText | None = None
    """is the GPU-hours without a measurement."""
    model: DisplayText | None = None
    """is the GPU model, or the models."""


class GPUWasteStatus(ApiModel):
    """What was measured."""

    conditions: Conditions = ()
    """are the observations of the object's state; Ready sums them up."""
    observed_generation: Generation | None = None
    """is the generation of the spec that the status is of."""
    observed_time: Time | None = None
    """is the end of the newest usage window that the figures hold."""
    summary: WasteSummary | None = None
    """holds the figures as text for kubectl's table."""
    team: Text | None = None
    """is the team that the cost belongs to."""
    pool: Text | None = None
    """is the name of the GPUPool that the workload holds most of its GPUs in."""
    gpu_models: Annotated[tuple[Annotated[str, Field(max_length=64)], ...], Field(max_length=16), ListSet()] = ()
    """are the models of the GPUs held."""
    gpus: Hours | None = None
    """is the number of GPUs held now, with parts of shared ones."""
    confidence: Confidence | None = None
    """is how far the figures may be trusted."""
    flags: Annotated[tuple[WasteFlag, ...], Field(max_length=8), ListSet()] = ()
    """are things to know about the figures."""
    windows: Annotated[tuple[WorkloadWindow, ...], Field(max_length=8), ListMap("window")] = ()
    """are the figures by length of time."""
    price: UnitPrice | None = None
    """is the mean price of a GPU-hour in the longest window, absent if not known."""
    projected_cost_per_month: Amount | None = None
    """is the cost of the last 7 days projected to 730 hours; absent under 24 hours of data."""
    projected_waste_cost_per_month: Amount | None = None
    """is the cost of the net waste of the last 7 days projected to 730 hours."""
    advice: Annotated[tuple[Advice, ...], Field(max_length=8), ListMap("type")] = ()
    """is what to do about the waste, dearest first."""


class GPUWaste(Resource):
    """What one workload does with the GPUs that it holds, what that costs, and what to do about it."""

    info: ClassVar[KindInfo] = KindInfo(
        kind="GPUWaste",
        plural="gpuwastes",
        scope=Scope.NAMESPACED,
        short_names=("gpuw",),
        columns=(
            Column(name="Workload", path=".status.summary.workload"),
            Column(name="GPUs", path=".status.summary.gpus"),
            Column(name="Held GPUh", path=".status.summary.heldGPUHours"),
            Column(name="Effective GPUh", path=".status.summary.effectiveGPUHours"),
            Column(name="Waste %", path=".status.summary.wastePercent"),
            Column(name="Cost/Month", path=".status.summary.costPerMonth"),
            Column(name="Advice", path=".status.summary.advice"),
            Column(name="Window", path=".status.summary.window", wide=True),
            Column(name="Idle", path=".status.summary.idle", wide=True),
            Column(name="Underused", path=".status.summary.underused", wide=True),
            Column(name="Starting", path=".status.summary.starting", wide=True),
            Column(name="Unhealthy", path=".status.summary.unhealthy", wide=True),
            Column(name="Unmeasured", path=".status.summary.unmeasured", wide=True),
            Column(name="Model", path=".status.summary.model", wide=True),
            Column(name="Team", path=".status.team", wide=True),
            Column(name="Confidence", path=".status.confidence", wide=True),
            Column(name="Ready", path='.status.conditions[?(@.type=="Ready")].status', wide=True),
        ),
    )
    spec: GPUWasteSpec
    """says which workload the object is about; the operator writes it."""
    status: GPUWasteStatus | None = None
    """is what was measured."""
