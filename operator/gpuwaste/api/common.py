"""Parts that several kinds hold: references, money, savings, figures of a time window."""

from datetime import date
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field, PlainSerializer, WithJsonSchema

from gpuwaste.api.base import (
    ApiModel,
    Count,
    Currency,
    Hours,
    Money,
    Name,
    Number,
    Percent,
    Text,
    Time,
)
from gpuwaste.api.markers import Cel, ListAtomic, ListMap, rules

__all__ = [
    "ActivitySource",
    "Advice",
    "Amount",
    "Confidence",
    "Date",
    "HolderWaste",
    "NodeRef",
    "ObjectRef",
    "PolicyRef",
    "PriceSource",
    "Renewal",
    "Savings",
    "SourceShare",
    "Sources",
    "UnitPrice",
    "WindowFigures",
    "WindowLength",
    "WorkloadRef",
]

Date = Annotated[
    date,
    PlainSerializer(lambda day: day.isoformat(), return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$", "maxLength": 10}),
]
WindowLength = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,3}[hd]$", min_length=2, max_length=5)]
ApiVersion = Annotated[str, Field(pattern=r"^([a-z0-9.-]{1,253}/)?v[a-z0-9]{1,61}$", min_length=2, max_length=317)]
KindName = Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9]*$", min_length=1, max_length=63)]


class Confidence(StrEnum):
    """How far a figure or an advice may be trusted."""

    LOW = "Low"
    MEDIUM = "Medium"
    HIGH = "High"


class PriceSource(StrEnum):
    """Where a price came from, best first."""

    BILL = "Bill"
    SPOT_BILL = "SpotBill"
    RESERVATION = "Reservation"
    PRICE_LIST = "PriceList"
    SPOT_PRICE_LIST = "SpotPriceList"
    BUILT_IN = "BuiltIn"


class ActivitySource(StrEnum):
    """What an activity was read from."""

    GPM = "GPM"
    DCGM_PROFILING = "DCGMProfiling"
    PROCESS = "Process"
    DEVICE = "Device"
    APPORTIONED = "Apportioned"
    UNMEASURED = "Unmeasured"


class ObjectRef(ApiModel):
    """Any object of the cluster."""

    api_version: ApiVersion
    """is the object's group and version, such as apps/v1."""
    kind: KindName
    """is the object's kind."""
    namespace: Text | None = None
    """is the object's namespace, absent for objects of the cluster."""
    name: Name
    """is the object's name."""
    uid: Text | None = None
    """is the object's UID, where it is known."""


class WorkloadRef(ObjectRef):
    """The top owner of the pods that an object is about."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra=rules(
            Cel(
                "self.kind == oldSelf.kind && self.name == oldSelf.name",
                "`kind` and `name` must not change; make a new object for another workload",
            )
        )
    )


class NodeRef(ApiModel):
    """A node."""

    name: Name
    """is the node's name."""
    uid: Text | None = None
    """is the node's UID, where it is known."""


class PolicyRef(ApiModel):
    """The policy that allowed something."""

    kind: Annotated[str, Field(pattern=r"^(Cluster)?RightsizingPolicy$", max_length=32)]
    """is RightsizingPolicy or ClusterRightsizingPolicy."""
    namespace: Text | None = None
    """is the namespace of a RightsizingPolicy."""
    name: Name
    """is the policy's name."""


class Amount(ApiModel):
    """Money."""

    amount: Money
    """is a decimal number."""
    currency: Currency
    """is the ISO 4217 code of the currency."""


class UnitPrice(Amount):
    """What a GPU-hour costs, and who says so."""

    source: PriceSource
    """is where the price came from."""
    date: Date | None = None
    """is the day that the price is of."""


class Renewal(ApiModel):
    """Money that is saved only once a commitment ends."""

    date: Date
    """is the day on which the commitment can be given up."""
    amount: Money
    """is what is saved a month from that day on."""


class Savings(ApiModel):
    """Three figures that are never added: each answers another question."""

    cash_now: Money | None = None
    """is the money saved a month by whole on-demand or spot nodes that stop; absent if no price is known."""
    cash_at_renewal: Annotated[tuple[Renewal, ...], Field(max_length=32), ListAtomic()] = ()
    """is the money saved a month on committed or owned capacity, from each renewal date on."""
    capacity_freed_gpu_hours: Number | None = None
    """is the GPU time a month that others can use."""
    currency: Currency | None = None
    """is the ISO 4217 code of the currency of all amounts."""


class HolderWaste(ApiModel):
    """GPU-hours held and not used, by category, net of what others borrowed."""

    total: Hours
    """is the sum of the categories."""
    idle: Hours | None = None
    """is the time in which every measured engine was at zero."""
    underused: Hours | None = None
    """is the part of busy time whose SMs were not used."""
    starting: Hours | None = None
    """is the time from allocation to first activity, as far as the limit for it goes."""
    unmeasured: Hours | None = None
    """is the time whose activity is not known."""
    unhealthy: Hours | None = None
    """is the time held on a bad device."""


class SourceShare(ApiModel):
    """How much of the held time one source speaks for."""

    source: ActivitySource
    """is what the activity was read from."""
    percent: Percent
    """is the part of the held time."""


Sources = Annotated[tuple[SourceShare, ...], Field(max_length=8), ListMap("source")]


class WindowFigures(ApiModel):
    """What a window of time says of holders, in GPU-hours; absent means unmeasured, never zero."""

    window: WindowLength
    """is the length of the window, such as 1h, 24h or 7d."""
    from_time: Time
    """is the start of the window, or of the data in it if that is later."""
    to_time: Time
    """is the end of the window."""
    held_gpu_hours: Hours
    """is the time that containers were entitled to."""
    duty_gpu_hours: Hours | None = None
    """is the time in which any kernel was resident."""
    effective_gpu_hours: Hours | None = None
    """is the time that the SMs worked."""
    effective_low_gpu_hours: Hours | None = None
    """is the lower end of the interval that effectiveGPUHours lies in."""
    effective_high_gpu_hours: Hours | None = None
    """is the upper end of the interval that effectiveGPUHours lies in."""
    borrowed_gpu_hours: Hours | None = None
    """is the effective time beyond what was held, taken from idle neighbours on the same GPU."""
    lent_gpu_hours: Hours | None = None
    """is the unused time that neighbours on the same GPU used."""
    waste_percent: Percent | None = None
    """is the net waste in percent of the time."""
    measured_percent: Percent | None = None
    """is the part of the time whose activity was measured."""
    cost: Amount | None = None
    """is what the time cost, absent if no price is known."""
    waste_cost: Amount | None = None
    """is what the net waste cost, absent if no price is known."""
    sources: Sources = ()
    """are the sources of the activity and the part that each speaks for."""


class Advice(ApiModel):
    """What to do about waste."""

    type: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z]*$", min_length=1, max_length=64)]
    """is the kind of advice as one CamelCase word, such as ScaleToZero or ShareGPU."""
    message: Annotated[str, Field(min_length=1, max_length=1024)]
    """says what to do and why."""
    confidence: Confidence
    """is how far the advice may be trusted."""
    savings: Savings | None = None
    """is what following the advice saves."""
    pods: Count | None = None
    """is the number of pods that following the advice restarts."""
