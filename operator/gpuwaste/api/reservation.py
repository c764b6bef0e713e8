"""`GPUReservation`: capacity that was purchased."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

from gpuwaste.api.base import (
    ApiModel,
    Count,
    Currency,
    DisplayText,
    Generation,
    Hours,
    Money,
    Name,
    Resource,
    Text,
    Time,
)
from gpuwaste.api.conditions import Conditions
from gpuwaste.api.kindinfo import Column, KindInfo, Scope
from gpuwaste.api.markers import Cel, Format, rules

__all__ = [
    "GPUReservation",
    "GPUReservationSpec",
    "GPUReservationStatus",
    "OwnerKind",
    "ReservationKind",
    "ReservationOwner",
    "ReservationPrice",
    "ReservationTerm",
]


class ReservationKind(StrEnum):
    """How the capacity was bought."""

    COMMITTED = "Committed"
    OWNED = "Owned"


class OwnerKind(StrEnum):
    """Who can own a reservation."""

    TEAM = "Team"
    NAMESPACE = "Namespace"
    PLATFORM = "Platform"


class ReservationTerm(ApiModel):
    """From when to when the capacity is paid for."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra=rules(
            Cel(
                "!has(self.endTime) || self.endTime > self.startTime",
                "`endTime` must be later than `startTime`",
                field_path=".endTime",
            )
        )
    )
    start_time: Time
    """is the first moment of the term."""
    end_time: Time | None = None
    """is the end of the term; absent if it has none."""


class ReservationPrice(ApiModel):
    """What the capacity costs: a price a GPU-hour, or one sum for the whole term."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra=rules(
            Cel(
                "has(self.perGPUHour) != has(self.total)",
                "`price` must have exactly one of `perGPUHour` and `total`",
            ),
            Cel(
                "(!has(self.perGPUHour) || !self.perGPUHour.startsWith('-'))"
                " && (!has(self.total) || !self.total.startsWith('-'))",
                "`price` must not be negative",
            ),
        )
    )
    per_gpu_hour: Money | None = None
    """is the price of one GPU for one hour."""
    total: Money | None = None
    """is the price of all GPUs for the whole term; it is spread evenly over the term."""
    currency: Currency
    """is the ISO 4217 code of the currency."""


class ReservationOwner(ApiModel):
    """Who the capacity was bought for."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra=rules(
            Cel(
                # The default `{}` is held to this rule before its own `kind` is filled in.
                "!has(self.kind) || self.kind == 'Platform' || (has(self.name) && self.name.size() > 0)",
                "`name` must be set unless `kind` is 'Platform'",
            )
        )
    )
    kind: OwnerKind = OwnerKind.PLATFORM
    """is Team, Namespace, or Platform for capacity that everyone shares."""
    name: Text | None = None
    """is the team or namespace."""


class GPUReservationSpec(ApiModel):
    """What was bought."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra=rules(
            Cel(
                "!has(self.price.total) || has(self.term.endTime)",
                "`term.endTime` must be set where `price.total` is: the sum is spread over the term",
            )
        )
    )
    count: Annotated[int, Field(ge=1, le=1_000_000), Format("int32")]
    """is the number of GPUs."""
    gpu_model: Annotated[str, Field(min_length=1, max_length=64)]
    """is the model of the GPUs, such as H100-80GB, NVIDIA-A40 as a node's label has it, or the resource amd.com/gpu."""
    kind: ReservationKind = ReservationKind.COMMITTED
    """is Committed for capacity promised by a provider, Owned for hardware of one's own."""
    node_pool: Name | None = None
    """is the node pool that the capacity is used in; absent means any pool of the model."""
    term: ReservationTerm
    """is from when to when the capacity is paid for."""
    price: ReservationPrice
    """is what the capacity costs."""
    owner: ReservationOwner = ReservationOwner()
    """is who the capacity was bought for."""
    commitment_id: Annotated[str, Field(max_length=512)] | None = None
    """is the provider's name of the commitment, as it stands in its bills."""


class GPUReservationStatus(ApiModel):
    """How much of what was bought is there and in use."""

    conditions: Conditions = ()
    """are the observations of the object's state; Ready sums them up."""
    observed_generation: Generation | None = None
    """is the generation of the spec that the status is of."""
    observed_time: Time | None = None
    """is the end of the newest usage window that the figures hold."""
    provisioned_gpus: Count | None = None
    """is the number of GPUs that the cluster has."""
    unprovisioned_gpus: Count | None = None
    """is the number of GPUs bought and not in the cluster."""
    held_gpus: Hours | None = None
    """is the number of GPUs that pods hold, with parts of shared ones."""
    effective_gpus: Hours | None = None
    """is how many GPUs' worth of work pods do on them, absent if nothing is measured."""
    price_per_gpu_hour: Money | None = None
    """is the price of one GPU for one hour, spread over the term."""
    used: DisplayText | None = None
    """is held of bought as text for kubectl's table."""


class GPUReservation(Resource):
    """Purchased capacity: how many GPUs of which model, for how long, at what price, for whom."""

    info: ClassVar[KindInfo] = KindInfo(
        kind="GPUReservation",
        plural="gpureservations",
        scope=Scope.CLUSTER,
        columns=(
            Column(name="Model", path=".spec.gpuModel"),
            Column(name="Count", path=".spec.count", type="integer"),
            Column(name="Used", path=".status.used"),
            Column(name="Owner", path=".spec.owner.name"),
            Column(name="Ends", path=".spec.term.endTime"),
            Column(name="Ready", path='.status.conditions[?(@.type=="Ready")].status'),
            Column(name="Unprovisioned", path=".status.unprovisionedGPUs", type="integer", wide=True),
            Column(name="Price/GPUh", path=".status.pricePerGPUHour", wide=True),
            Column(name="Currency", path=".spec.price.currency", wide=True),
        ),
    )
    spec: GPUReservationSpec
    """is what was bought."""
    status: GPUReservationStatus | None = None
    """is how much of it is there and in use."""
