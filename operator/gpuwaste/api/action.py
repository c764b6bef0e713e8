"""`RightsizingAction`: one step, what it promises, whether it may be taken back, what it brought."""

import hashlib
import json
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field, field_validator

from gpuwaste.api.base import (
    ApiModel,
    Count,
    DisplayText,
    Generation,
    Message,
    Name,
    Probability,
    Resource,
    Text,
    Time,
)
from gpuwaste.api.common import Confidence, NodeRef, ObjectRef, PolicyRef, Savings
from gpuwaste.api.conditions import Conditions
from gpuwaste.api.kindinfo import Column, KindInfo, Scope
from gpuwaste.api.markers import Cel, Format, ListAtomic, ListMap, ListSet, rules

__all__ = [
    "ActionSpec",
    "ActionState",
    "ActionType",
    "Disruption",
    "Evidence",
    "MigCount",
    "ResourceAmount",
    "Reversibility",
    "RightsizingAction",
    "RightsizingActionSpec",
    "RightsizingActionStatus",
    "Risk",
    "Sharing",
    "SharingMode",
    "Undo",
    "UndoPatch",
    "spec_hash",
]

MAX_UNDO_BYTES = 65_536


class ActionType(StrEnum):
    """What an action can do."""

    PATCH_WORKLOAD = "PatchWorkload"
    RENAME_RESOURCE = "RenameResource"
    CONFIGURE_SHARING = "ConfigureSharing"
    CONFIGURE_MIG = "ConfigureMIG"
    DRAIN_NODE = "DrainNode"
    RELEASE_NODE = "ReleaseNode"
    SCALE_TO_ZERO = "ScaleToZero"


class Reversibility(StrEnum):
    """Whether configuration, work and capacity can be had back."""

    REVERSIBLE = "Reversible"
    IRREVERSIBLE = "Irreversible"


class SharingMode(StrEnum):
    """How a GPU or MIG instance is shared."""

    EXCLUSIVE = "Exclusive"
    TIME_SLICING = "TimeSlicing"
    MPS = "MPS"


class ResourceAmount(ApiModel):
    """A request for an extended resource."""

    name: Annotated[str, Field(min_length=1, max_length=317)]
    """is the name of the resource, such as nvidia.com/gpu.shared."""
    count: Count
    """is how many of it a container asks for."""


class Sharing(ApiModel):
    """How a node shares one resource."""

    resource_name: Annotated[str, Field(min_length=1, max_length=317)]
    """is the name of the resource before sharing, such as nvidia.com/gpu."""
    mode: SharingMode
    """is Exclusive, TimeSlicing or MPS."""
    replicas: Annotated[int, Field(ge=1, le=1024), Format("int32")] = 1
    """is the number of holders that a GPU is offered to."""


class MigCount(ApiModel):
    """MIG instances of one profile on one GPU."""

    gpu_index: Annotated[int, Field(ge=0, le=63), Format("int32")]
    """is the index of the GPU on the node."""
    profile: Annotated[str, Field(pattern=r"^[0-9]+g\.[0-9]+gb([+-][a-z0-9.]+)?$", max_length=32)]
    """is the name of the profile as NVIDIA prints it, such as 1g.10gb+me."""
    count: Annotated[int, Field(ge=1, le=16), Format("int32")]
    """is the number of instances."""


class ActionState(ApiModel):
    """What an action starts from or leads to; only what the action changes is set."""

    replicas: Count | None = None
    """is the number of replicas of the workload."""
    node_name: Text | None = None
    """is the node that the pods are on."""
    resources: Annotated[tuple[ResourceAmount, ...], Field(max_length=16), ListMap("name")] = ()
    """are the GPU resources that a container asks for."""
    sharing: Annotated[tuple[Sharing, ...], Field(max_length=16), ListMap("resourceName")] = ()
    """is how the node shares its GPUs."""
    mig: Annotated[tuple[MigCount, ...], Field(max_length=64), ListMap("gpuIndex", "profile")] = ()
    """are the MIG instances of the node."""


class Risk(ApiModel):
    """How probable it is that the action does harm, with its interval."""

    probability: Probability
    """is the best estimate, from 0 to 1."""
    low: Probability
    """is the lower end of the interval."""
    high: Probability
    """is the upper end of the interval."""


class Disruption(ApiModel):
    """What the action interrupts."""

    pods: Count = 0
    """is the number of pods that are restarted or moved."""


class Evidence(ApiModel):
    """Where the figures behind the action can be seen again."""

    ledger_query: Annotated[str, Field(max_length=4096)]
    """is a query over the ledger."""
    from_time: Time
    """is the start of the time that was looked at."""
    to_time: Time
    """is the end of the time that was looked at."""


_OF_A_NODE = "self.type in ['ConfigureSharing', 'ConfigureMIG', 'DrainNode', 'ReleaseNode']"


class ActionSpec(ApiModel):
    """One step, as a plan lists it and a RightsizingAction holds it."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra=rules(
            Cel(f"!({_OF_A_NODE}) || has(self.nodeRef)", "`nodeRef` must be set for an action on a node"),
            Cel(f"({_OF_A_NODE}) || has(self.targetRef)", "`targetRef` must be set for an action on a workload"),
            Cel(
                "self.type != 'ReleaseNode' || self.reversible == 'Irreversible'",
                "`reversible` must be 'Irreversible' where `type` is 'ReleaseNode': a node given back may not return",
            ),
        )
    )
    type: ActionType
    """is what the action does."""
    target_ref: ObjectRef | None = None
    """is the workload that the action changes."""
    node_ref: NodeRef | None = None
    """is the node that the action changes."""
    from_: ActionState | None = None
    """is what the action starts from; it is checked again before anything is done."""
    to: ActionState | None = None
    """is what the action leads to."""
    depends_on: Annotated[tuple[Name, ...], Field(max_length=64), ListSet()] = ()
    """are the names of the actions that must have succeeded before."""
    reversible: Reversibility
    """is Irreversible where undo cannot bring back work or capacity."""
    savings: Savings
    """is what the action promises to save."""
    risk: Risk | None = None
    """is how probable harm is; absent where it could not be estimated."""
    disruption: Disruption = Disruption()
    """is what the action interrupts."""
    confidence: Confidence
    """is how far the promise may be trusted."""
    evidence: Evidence | None = None
    """is where the figures behind the action can be seen again."""
    policy_ref: PolicyRef | None = None
    """is the policy that allows the action; absent where none does."""
    spec_hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", max_length=64)] | None = None
    """is the SHA-256 of everything else in the spec; an approval is for this hash."""


def spec_hash(spec: ActionSpec) -> str:
    """The SHA-256, in hex, of a spec's canonical JSON without `specHash`; what an approval names."""
    content = {key: value for key, value in spec.to_json().items() if key != "specHash"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class RightsizingActionSpec(ActionSpec):
    """One step and the plan that it is of; it never changes."""

    plan_name: Name | None = None
    """is the name of the RightsizingPlan that the action is of."""


class UndoPatch(ApiModel):
    """How to bring one object back to where it was."""

    target_ref: ObjectRef
    """is the object."""
    resource_version: Annotated[str, Field(min_length=1, max_length=128)]
    """is the version of the object that the patch was taken from."""
    field_owner: Annotated[str, Field(min_length=1, max_length=128)]
    """is the field manager that owned the fields."""
    patch: Annotated[str, Field(max_length=MAX_UNDO_BYTES)]
    """is a merge patch in JSON that restores the fields."""


class Undo(ApiModel):
    """How to bring the configuration back; stored before anything is changed, and never changed after."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra=rules(
            Cel(
                f"self.patches.map(p, p.patch.size()).sum() <= {MAX_UNDO_BYTES}",
                f"`patches` must not hold more than {MAX_UNDO_BYTES} characters in all",
            )
        )
    )
    patches: Annotated[tuple[UndoPatch, ...], Field(max_length=16), ListAtomic()]
    """are the patches, in the order in which they are to be applied."""

    @field_validator("patches")
    @classmethod
    def _fits(cls, patches: tuple[UndoPatch, ...]) -> tuple[UndoPatch, ...]:
        size = sum(len(one.patch.encode()) for one in patches)
        if size > MAX_UNDO_BYTES:
            raise ValueError(f"must not hold more than {MAX_UNDO_BYTES} bytes in all, and holds {size}")
        return patches


class RightsizingActionStatus(ApiModel):
    """How far the action is and what it brought."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra=rules(
            Cel(
                "!has(oldSelf.undo) || (has(self.undo) && self.undo == oldSelf.undo)",
                "`undo` must not change once it is stored",
                field_path=".undo",
            )
        )
    )
    conditions: Conditions = ()
    """are the steps done and to do; Succeeded sums them up."""
    observed_generation: Generation | None = None
    """is the generation of the spec that the status is of."""
    undo: Undo | None = None
    """is how to bring the configuration back."""
    saving_measured: Savings | None = None
    """is what the action has been measured to save."""
    applied_time: Time | None = None
    """is when the change was made."""
    verified_time: Time | None = None
    """is when the saving was measured."""
    message: Message | None = None
    """says what the action waits for or why it ended."""
    saving: DisplayText | None = None
    """is the saving promised, and measured if it was, as text for kubectl's table."""


class RightsizingAction(Resource):
    """One step of a plan: what it changes, what it saves, how far it is."""

    info: ClassVar[KindInfo] = KindInfo(
        kind="RightsizingAction",
        plural="rightsizingactions",
        scope=Scope.CLUSTER,
        columns=(
            Column(name="Type", path=".spec.type"),
            Column(name="Target", path=".spec.targetRef.name"),
            Column(name="Node", path=".spec.nodeRef.name"),
            Column(name="Saving", path=".status.saving"),
            Column(name="Approved", path='.status.conditions[?(@.type=="Approved")].status'),
            Column(name="Applied", path='.status.conditions[?(@.type=="Applied")].status'),
            Column(name="Succeeded", path='.status.conditions[?(@.type=="Succeeded")].status'),
            Column(name="Namespace", path=".spec.targetRef.namespace", wide=True),
            Column(name="Pods", path=".spec.disruption.pods", type="integer", wide=True),
            Column(name="Reversible", path=".spec.reversible", wide=True),
            Column(name="Confidence", path=".spec.confidence", wide=True),
            Column(name="Message", path=".status.message", wide=True),
        ),
    )
    spec: Annotated[
        RightsizingActionSpec,
        Cel("self == oldSelf", "`spec` must not change; reject the action and let a new plan make another"),
    ]
    """is the step; it never changes."""
    status: RightsizingActionStatus | None = None
    """is how far the step is."""
