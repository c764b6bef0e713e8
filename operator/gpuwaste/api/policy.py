"""`RightsizingPolicy` and `ClusterRightsizingPolicy`: what may be done, where, when, how fast, watched by what."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

from gpuwaste.api.action import ActionType
from gpuwaste.api.base import (
    ApiModel,
    Count,
    Currency,
    DisplayText,
    Generation,
    Money,
    Number,
    Percent,
    Probability,
    Resource,
    Time,
)
from gpuwaste.api.common import Confidence
from gpuwaste.api.conditions import Conditions
from gpuwaste.api.kindinfo import Column, KindInfo, Scope
from gpuwaste.api.markers import Cel, Format, ListMap, ListSet, rules

__all__ = [
    "ChangeWindow",
    "ClusterRightsizingPolicy",
    "ClusterRightsizingPolicySpec",
    "Comparison",
    "LabelOperator",
    "LabelRequirement",
    "PolicyMode",
    "PolicyRate",
    "PolicyThresholds",
    "PolicyWatch",
    "RightsizingPolicy",
    "RightsizingPolicySpec",
    "RightsizingPolicyStatus",
    "SharingBoundary",
    "SloQuery",
    "WatchFailure",
]

CRON_PATTERN = r"^(@(hourly|daily|weekly|monthly)|([0-9A-Za-z*/,-]{1,64} ){4}[0-9A-Za-z*/,-]{1,64})$"
Cron = Annotated[str, Field(pattern=CRON_PATTERN, min_length=6, max_length=128)]
TimeZone = Annotated[str, Field(pattern=r"^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}$", min_length=1, max_length=64)]
Identifier = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", min_length=1, max_length=63)]


class PolicyMode(StrEnum):
    """What the operator may do by itself."""

    RECOMMEND = "Recommend"
    DRY_RUN = "DryRun"
    APPROVE = "Approve"
    AUTO = "Auto"


class SharingBoundary(StrEnum):
    """Whose work may meet on one GPU."""

    WORKLOAD = "Workload"
    NAMESPACE = "Namespace"
    TEAM = "Team"
    CLUSTER = "Cluster"


class Comparison(StrEnum):
    """On which side of its threshold a query has failed."""

    ABOVE = "Above"
    BELOW = "Below"


class WatchFailure(StrEnum):
    """What to do when a watched query fails."""

    ROLL_BACK = "RollBack"
    STOP = "Stop"


class LabelOperator(StrEnum):
    """How a label is compared."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class LabelRequirement(ApiModel):
    """A condition on one label."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra=rules(
            Cel(
                "(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)",
                "`values` must be set where `operator` is 'In' or 'NotIn', and must not be set otherwise",
            )
        )
    )
    key: Annotated[str, Field(min_length=1, max_length=317)]
    """is the label."""
    operator: LabelOperator
    """is In, NotIn, Exists or DoesNotExist."""
    values: Annotated[tuple[Annotated[str, Field(max_length=63)], ...], Field(max_length=64), ListSet()] = ()
    """are the label's values."""


Requirements = Annotated[tuple[LabelRequirement, ...], Field(max_length=32), ListMap("key")]


class ChangeWindow(ApiModel):
    """A time in which changes may start."""

    name: Identifier
    """is the name of the window."""
    schedule: Cron
    """is when the window opens, as five cron fields or @daily and the like."""
    duration_seconds: Annotated[int, Field(ge=60, le=7 * 86_400), Format("int32")]
    """is how long the window stays open."""
    time_zone: TimeZone = "UTC"
    """is the time zone of the schedule, by its IANA name."""


class PolicyRate(ApiModel):
    """How fast changes may follow each other."""

    max_actions_per_hour: Annotated[int, Field(ge=1, le=1000), Format("int32")] = 10
    """is the number of actions that may start in any hour."""
    max_concurrent_actions: Annotated[int, Field(ge=1, le=100), Format("int32")] = 1
    """is the number of actions under way at once."""
    max_unavailable_percent: Annotated[int, Field(ge=1, le=100), Format("int32")] = 10
    """is the part of a workload's pods, at least one, that may be away at once."""
    max_moves_per_plan: Annotated[int, Field(ge=0, le=100_000), Format("int32")] = 50
    """is the number of pods that one plan may move or restart."""


class PolicyThresholds(ApiModel):
    """What an action must be worth and how well it must be founded."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra=rules(
            Cel(
                "has(self.minSavingPerMonth) == has(self.currency)",
                "`currency` must be set together with `minSavingPerMonth`",
            )
        )
    )
    min_saving_percent: Percent = 10
    """is the least saving, in percent of what the target costs now."""
    min_saving_per_month: Money | None = None
    """is the least saving a month in money."""
    currency: Currency | None = None
    """is the ISO 4217 code of the currency of minSavingPerMonth."""
    min_confidence: Confidence = Confidence.MEDIUM
    """is the least confidence."""
    min_history_seconds: Annotated[int, Field(ge=3600, le=35 * 86_400), Format("int32")] = 86_400
    """is the least time of simultaneous samples; under 7 days confidence is lowered."""
    max_overload_probability: Probability | None = None
    """is the highest probability that work sharing a GPU asks for more than it has; 0.01 if absent."""


class SloQuery(ApiModel):
    """A Prometheus query that says whether a workload is well."""

    name: Identifier
    """is the name of the query."""
    query: Annotated[str, Field(min_length=1, max_length=4096)]
    """is the query; `$namespace`, `$workload` and `$node` stand for the action's target."""
    comparison: Comparison
    """is the side of the threshold on which the query has failed."""
    threshold: Number
    """is a decimal number."""


class PolicyWatch(ApiModel):
    """What is looked at after a change, for how long, and what follows if it goes wrong."""

    duration_seconds: Annotated[int, Field(ge=60, le=7 * 86_400), Format("int32")] = 1800
    """is how long the target is watched after a change."""
    slos: Annotated[tuple[SloQuery, ...], Field(max_length=16), ListMap("name")] = ()
    """are the queries that must not fail."""
    on_failure: WatchFailure = WatchFailure.ROLL_BACK
    """is RollBack to undo the change, or Stop to leave it and do no more."""


class RightsizingPolicySpec(ApiModel):
    """What may be done to the workloads that the policy selects."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra=rules(
            Cel(
                "!has(self.allowedActions) || !('ReleaseNode' in self.allowedActions)"
                " || (has(self.allowIrreversible) && self.allowIrreversible)",
                "`allowIrreversible` must be true where `allowedActions` holds 'ReleaseNode'",
            ),
        )
    )
    mode: PolicyMode = PolicyMode.RECOMMEND
    """is Recommend, DryRun (ask the API server, change nothing), Approve (a person says yes) or Auto."""
    sharing_boundary: SharingBoundary = SharingBoundary.NAMESPACE
    """is whose work may meet on one GPU."""
    workload_selector: Requirements = ()
    """are conditions on the workload's labels that all must hold; none selects all."""
    allowed_actions: Annotated[tuple[ActionType, ...], Field(max_length=7), ListSet()] = ()
    """are the types of actions allowed; none allows all reversible ones."""
    allow_irreversible: bool = False
    """is true where work or capacity may be given up for good; Auto never does that otherwise."""
    windows: Annotated[tuple[ChangeWindow, ...], Field(max_length=16), ListMap("name")] = ()
    """are the times in which changes may start; none means at any time."""
    rate: PolicyRate = PolicyRate()
    """is how fast changes may follow each other."""
    thresholds: PolicyThresholds = PolicyThresholds()
    """are what an action must be worth and how well it must be founded."""
    watch: PolicyWatch = PolicyWatch()
    """is what is looked at after a change."""


class ClusterRightsizingPolicySpec(RightsizingPolicySpec):
    """What may be done to the workloads that the policy selects, in all namespaces that it selects."""

    namespace_selector: Requirements = ()
    """are conditions on the namespace's labels that all must hold; none selects all."""


class RightsizingPolicyStatus(ApiModel):
    """Whether the policy is understood, and what it covers."""

    conditions: Conditions = ()
    """are the observations of the object's state; Ready sums them up."""
    observed_generation: Generation | None = None
    """is the generation of the spec that the status is of."""
    matched_workloads: Count | None = None
    """is the number of GPU workloads that the policy selects."""
    pending_actions: Count | None = None
    """is the number of actions that wait for approval, a window or the rate."""
    next_window_time: Time | None = None
    """is when the next window opens, or now where one is open."""
    summary: DisplayText | None = None
    """says in a few words what the policy does now."""


_COLUMNS = (
    Column(name="Mode", path=".spec.mode"),
    Column(name="Boundary", path=".spec.sharingBoundary"),
    Column(name="Workloads", path=".status.matchedWorkloads", type="integer"),
    Column(name="Pending", path=".status.pendingActions", type="integer"),
    Column(name="Ready", path='.status.conditions[?(@.type=="Ready")].status'),
    Column(name="Next Window", path=".status.nextWindowTime", wide=True),
    Column(name="Reason", path='.status.conditions[?(@.type=="Ready")].reason', wide=True),
)


class RightsizingPolicy(Resource):
    """What may be done to the GPU workloads of a namespace: where, when, how fast, and what to watch."""

    info: ClassVar[KindInfo] = KindInfo(
        kind="RightsizingPolicy", plural="rightsizingpolicies", scope=Scope.NAMESPACED, columns=_COLUMNS
    )
    spec: RightsizingPolicySpec
    """is what may be done."""
    status: RightsizingPolicyStatus | None = None
    """is whether the policy is understood, and what it covers."""


class ClusterRightsizingPolicy(Resource):
    """What may be done to GPU workloads anywhere; a RightsizingPolicy of the namespace goes before it."""

    info: ClassVar[KindInfo] = KindInfo(
        kind="ClusterRightsizingPolicy", plural="clusterrightsizingpolicies", scope=Scope.CLUSTER, columns=_COLUMNS
    )
    spec: ClusterRightsizingPolicySpec
    """is what may be done."""
    status: RightsizingPolicyStatus | None = None
    """is whether the policy is understood, and what it covers."""
