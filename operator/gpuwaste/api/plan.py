"""`RightsizingPlan` and the plan file: one model, of which the object holds the dearest actions."""

from collections.abc import Collection, Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field

from gpuwaste.api.action import ActionSpec
from gpuwaste.api.base import (
    ApiModel,
    Count,
    Currency,
    DisplayText,
    Generation,
    Message,
    Name,
    Number,
    Resource,
    Time,
    Url,
)
from gpuwaste.api.common import ObjectRef, Savings
from gpuwaste.api.conditions import Conditions
from gpuwaste.api.kindinfo import Column, KindInfo, Scope
from gpuwaste.api.markers import Cel, ListAtomic, ListMap, rules

__all__ = [
    "MAX_PLAN_ACTIONS",
    "MAX_PLAN_REFUSALS",
    "Objective",
    "ObjectiveUnit",
    "PlanBody",
    "PlanDocument",
    "PlannedAction",
    "Refusal",
    "RightsizingPlan",
    "RightsizingPlanSpec",
    "RightsizingPlanStatus",
    "plan_spec",
]

MAX_PLAN_ACTIONS = 100
MAX_PLAN_REFUSALS = 100


class ObjectiveUnit(StrEnum):
    """What the objective counts."""

    MONEY_PER_HOUR = "MoneyPerHour"
    GPUS = "GPUs"


class Objective(ApiModel):
    """How good the plan is, and how good any plan could be."""

    current: Number
    """is the objective of the cluster as it is."""
    planned: Number
    """is the objective once the plan is carried out."""
    bound: Number
    """is what no plan under the same limits can go below, proven."""
    gap: Number
    """is the distance of planned from bound, as a part of bound."""
    unit: ObjectiveUnit
    """is what the objective counts."""
    currency: Currency | None = None
    """is the ISO 4217 code of the currency, where the unit is money."""


class PlannedAction(ActionSpec):
    """An action of a plan, under the name that `dependsOn` and the RightsizingAction use."""

    name: Name
    """is the name of the action."""


class Refusal(ApiModel):
    """Something that the plan leaves as it is, and why."""

    target: ObjectRef
    """is what was left as it is."""
    reason: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9]*$", min_length=1, max_length=64)]
    """is why, as one CamelCase word."""
    message: Message
    """says the same to a person."""


class PlanBody(ApiModel):
    """What the file and the object say alike."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", min_length=1, max_length=63)]
    """is the identity of the plan."""
    created_time: Time
    """is when the plan was made."""
    input_hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", max_length=64)]
    """is the SHA-256 of everything that the plan was made from; equal inputs give equal plans."""
    pool: Name
    """is the name of the GPUPool that the plan is for."""
    objective: Objective
    """is how good the plan is, and how good any plan could be."""
    savings: Savings
    """is what the whole plan saves."""
    moves: Count
    """is the number of pods that the whole plan moves or restarts."""


class PlanDocument(PlanBody):
    """The whole plan, as the file and `gpuwaste plan -o json` hold it: nothing is left out."""

    actions: tuple[PlannedAction, ...]
    """are all actions, dearest first."""
    refused: tuple[Refusal, ...] = ()
    """are all things left as they are."""
    plan_url: Url | None = None
    """is where the file lies, once it is written."""


class RightsizingPlanSpec(PlanBody):
    """The plan with its dearest actions; planURL leads to the rest."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra=rules(
            Cel(
                "self.actionCount == self.actions.size() || has(self.planURL)",
                "`planURL` must be set where `actions` does not hold all of them",
            )
        )
    )
    actions: Annotated[tuple[PlannedAction, ...], Field(max_length=MAX_PLAN_ACTIONS), ListMap("name")]
    """are the actions that save most, at most 100, dearest first."""
    action_count: Count
    """is the number of actions in the whole plan."""
    refused: Annotated[tuple[Refusal, ...], Field(max_length=MAX_PLAN_REFUSALS), ListAtomic()] = ()
    """are things left as they are, at most 100."""
    refused_count: Count = 0
    """is the number of things that the whole plan leaves as they are."""
    plan_url: Url | None = None
    """is where the whole plan lies."""


def plan_spec(document: PlanDocument) -> RightsizingPlanSpec:
    """The bounded part of a plan that an object holds: at most 100 actions, dearest first.

    Dearest is by cash now, then by cash at renewal, then by GPU time freed: the three are never added. An action
    is held only together with those it depends on, which stand before it: a release without its drain could
    never be carried out.
    """
    body: dict[str, Any] = {name: getattr(document, name) for name in PlanBody.model_fields}
    return RightsizingPlanSpec(
        **body,
        actions=_dearest(document.actions),
        action_count=len(document.actions),
        refused=document.refused[:MAX_PLAN_REFUSALS],
        refused_count=len(document.refused),
        plan_url=document.plan_url,
    )


def _dearest(actions: tuple[PlannedAction, ...]) -> tuple[PlannedAction, ...]:
    """As many actions as fit, dearest first, each after all that it depends on."""
    by_name = {action.name: action for action in actions}
    kept: dict[str, PlannedAction] = {}
    for action in sorted(actions, key=_worth, reverse=True):
        needed = _with_needs(action.name, by_name, kept)
        if needed is not None and len(kept) + len(needed) <= MAX_PLAN_ACTIONS:
            kept |= {name: by_name[name] for name in needed}
    return tuple(kept.values())


def _with_needs(name: str, by_name: Mapping[str, PlannedAction], kept: Collection[str]) -> list[str] | None:
    """The action and all that it depends on but for those kept, needs first; None where the plan lacks one of them."""
    found: list[str] = []
    seen = set(kept)
    stack = [(name, False)]
    while stack:
        current, complete = stack.pop()
        if complete:
            found.append(current)
        elif current not in seen:
            if current not in by_name:
                return None
            seen.add(current)
            stack += [(current, True), *((need, False) for need in by_name[current].depends_on)]
    return found


def _worth(action: PlannedAction) -> tuple[Decimal, Decimal, Decimal]:
    savings = action.savings
    at_renewal = sum((one.amount for one in savings.cash_at_renewal), Decimal(0))
    return (savings.cash_now or Decimal(0), at_renewal, savings.capacity_freed_gpu_hours or Decimal(0))


class RightsizingPlanStatus(ApiModel):
    """Whether the plan still fits the cluster, and how far it is carried out."""

    conditions: Conditions = ()
    """are the observations of the object's state; Ready sums them up."""
    observed_generation: Generation | None = None
    """is the generation of the spec that the status is of."""
    saving: DisplayText | None = None
    """is the saving of the plan as text for kubectl's table, or `<unknown>`."""
    gap: DisplayText | None = None
    """is the distance from the bound in percent, as text for kubectl's table."""
    applied_actions: Count | None = None
    """is the number of actions that were carried out."""


class RightsizingPlan(Resource):
    """The solver's last plan for a pool: saving, bound, gap, risk, actions."""

    info: ClassVar[KindInfo] = KindInfo(
        kind="RightsizingPlan",
        plural="rightsizingplans",
        scope=Scope.CLUSTER,
        columns=(
            Column(name="Pool", path=".spec.pool"),
            Column(name="Saving", path=".status.saving"),
            Column(name="Gap", path=".status.gap"),
            Column(name="Actions", path=".spec.actionCount", type="integer"),
            Column(name="Moves", path=".spec.moves", type="integer"),
            Column(name="Ready", path='.status.conditions[?(@.type=="Ready")].status'),
            Column(name="Current", path=".spec.objective.current", wide=True),
            Column(name="Planned", path=".spec.objective.planned", wide=True),
            Column(name="Bound", path=".spec.objective.bound", wide=True),
            Column(name="Plan", path=".spec.planURL", wide=True),
        ),
    )
    spec: RightsizingPlanSpec
    """is the plan; the operator writes it."""
    status: RightsizingPlanStatus | None = None
    """is whether the plan still fits the cluster, and how far it is carried out."""
