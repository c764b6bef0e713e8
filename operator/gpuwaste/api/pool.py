"""`GPUPool`: the GPUs of one model in one node pool, and where their time goes."""

from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

from gpuwaste.api.base import ApiModel, Count, DisplayText, Generation, Hours, Name, Percent, Resource, Time
from gpuwaste.api.common import HolderWaste, UnitPrice, WindowFigures
from gpuwaste.api.conditions import Conditions
from gpuwaste.api.kindinfo import Column, KindInfo, Scope
from gpuwaste.api.markers import Cel, ListMap, rules

__all__ = [
    "GPUPool",
    "GPUPoolSpec",
    "GPUPoolStatus",
    "PoolCapacity",
    "PoolNode",
    "PoolSummary",
    "PoolWaste",
    "PoolWindow",
]


class GPUPoolSpec(ApiModel):
    """Which GPUs the pool is made of; the operator writes it."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra=rules(Cel("self == oldSelf", "`spec` must not change; the operator makes a pool for each"))
    )
    gpu_model: Annotated[str, Field(min_length=1, max_length=64)]
    """is the model of the GPUs, such as H100-80GB."""
    node_pool: Name
    """is the name of the node pool, or default."""


class PoolWaste(HolderWaste):
    """GPU-hours owned and not used, by category, held or free, net of what others borrowed."""

    free_unallocated: Hours | None = None
    """is the time that nobody held and that a pod could have had."""
    free_stranded: Hours | None = None
    """is the time that nobody held and no pod could use: CPU, memory or geometry was in the way."""
    free_unhealthy: Hours | None = None
    """is the time that nobody held on a bad device or node."""


class PoolWindow(WindowFigures):
    """What one window of time says of a pool: the way from owned to effective."""

    owned_gpu_hours: Hours
    """is the time that was paid for."""
    unattributed_gpu_hours: Hours | None = None
    """is the time used without a known holder."""
    unprovisioned_gpu_hours: Hours | None = None
    """is the time bought and not in the cluster; it belongs to no GPU and is no part of owned."""
    net_waste_gpu_hours: PoolWaste | None = None
    """is what was owned and used by nobody, by category."""


class PoolCapacity(ApiModel):
    """What the pool has now."""

    nodes: Count
    """is the number of nodes."""
    gpus: Count
    """is the number of physical GPUs."""
    allocatable_gpus: Hours | None = None
    """is the number of GPUs that pods can have, with parts of shared ones."""
    held_gpus: Hours | None = None
    """is the number of GPUs that pods hold, with parts of shared ones."""
    effective_gpus: Hours | None = None
    """is how many GPUs' worth of work pods do, absent if nothing is measured."""
    bought_gpus: Count | None = None
    """is the number of GPUs bought for the pool, in the cluster or not; absent if no reservation covers it."""
    unprovisioned_gpus: Hours | None = None
    """is the number of GPUs bought and not in the cluster."""
    waiting_pods: Count | None = None
    """is the number of pods that ask for this kind of GPU and have no node yet."""
    longest_wait_seconds: Count | None = None
    """is how long the first of them has been waiting."""


class PoolNode(ApiModel):
    """A node of the pool."""

    name: Name
    """is the node's name."""
    gpus: Count
    """is the number of its physical GPUs."""
    held_percent: Percent | None = None
    """is the part of its GPU time that pods held in the longest window."""
    waste_percent: Percent | None = None
    """is the net waste in percent of its GPU time in the longest window."""


class PoolSummary(ApiModel):
    """The figures of the longest window with data, as text for kubectl's table."""

    window: DisplayText
    """is the window that the figures are of."""
    owned_gpu_hours: DisplayText
    """is the time paid for."""
    held_gpu_hours: DisplayText
    """is the time held."""
    effective_gpu_hours: DisplayText
    """is the time used, or `<unmeasured>`."""
    waste_percent: DisplayText
    """is the net waste in percent of the time owned, or `<unmeasured>`."""
    price: DisplayText
    """is the price of a GPU-hour, or `<unknown>`."""
    cost_per_month: DisplayText
    """is the projected cost of a month, or `<unknown>`."""


class GPUPoolStatus(ApiModel):
    """What was measured."""

    conditions: Conditions = ()
    """are the observations of the object's state; Ready sums them up."""
    observed_generation: Generation | None = None
    """is the generation of the spec that the status is of."""
    observed_time: Time | None = None
    """is the end of the newest usage window that the figures hold."""
    summary: PoolSummary | None = None
    """holds the figures as text for kubectl's table."""
    capacity: PoolCapacity | None = None
    """is what the pool has now."""
    price: UnitPrice | None = None
    """is the price of a GPU-hour, absent if not known."""
    windows: Annotated[tuple[PoolWindow, ...], Field(max_length=8), ListMap("window")] = ()
    """are the figures by length of time."""
    nodes: Annotated[tuple[PoolNode, ...], Field(max_length=100), ListMap("name")] = ()
    """are the nodes with the most waste, at most 100."""


class GPUPool(Resource):
    """The GPUs of one model in one node pool: capacity, price, and where their time goes."""

    info: ClassVar[KindInfo] = KindInfo(
        kind="GPUPool",
        plural="gpupools",
        scope=Scope.CLUSTER,
        columns=(
            Column(name="Model", path=".spec.gpuModel"),
            Column(name="Node Pool", path=".spec.nodePool"),
            Column(name="GPUs", path=".status.capacity.gpus", type="integer"),
            Column(name="Owned GPUh", path=".status.summary.ownedGPUHours"),
            Column(name="Effective GPUh", path=".status.summary.effectiveGPUHours"),
            Column(name="Waste %", path=".status.summary.wastePercent"),
            Column(name="Cost/Month", path=".status.summary.costPerMonth"),
            Column(name="Nodes", path=".status.capacity.nodes", type="integer", wide=True),
            Column(name="Held GPUh", path=".status.summary.heldGPUHours", wide=True),
            Column(name="Price/GPUh", path=".status.summary.price", wide=True),
            Column(name="Window", path=".status.summary.window", wide=True),
            Column(name="Ready", path='.status.conditions[?(@.type=="Ready")].status', wide=True),
        ),
    )
    spec: GPUPoolSpec
    """says which GPUs the pool is made of; the operator writes it."""
    status: GPUPoolStatus | None = None
    """is what was measured."""
