"""A valid object of each kind, with every field set that matters to a rule."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from gpuwaste import api

NOW = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
DEPLOYMENT = api.WorkloadRef(api_version="apps/v1", kind="Deployment", namespace="team-a", name="llm", uid="u-1")
HASH = "ab" * 32

__all__ = ["DEPLOYMENT", "HASH", "NOW", "action", "action_spec", "all_kinds", "gpuwaste", "plan", "planned_actions"]


def gpuwaste(name: str = "deployment-llm-0a1b2c3d", *, namespace: str = "team-a") -> api.GPUWaste:
    """A workload of two GPUs, one of them idle, priced and advised."""
    window = api.WorkloadWindow(
        window="24h",
        from_time=NOW - timedelta(days=1),
        to_time=NOW,
        held_gpu_hours=Decimal(48),
        duty_gpu_hours=Decimal("30.5"),
        effective_gpu_hours=Decimal("18.25"),
        effective_low_gpu_hours=Decimal(18),
        effective_high_gpu_hours=Decimal(19),
        net_waste_gpu_hours=api.HolderWaste(total=Decimal("29.75"), idle=Decimal(17), underused=Decimal("12.75")),
        borrowed_gpu_hours=Decimal(0),
        lent_gpu_hours=Decimal(0),
        waste_percent=62,
        measured_percent=100,
        cost=api.Amount(amount=Decimal("120.00"), currency="USD"),
        sources=(api.SourceShare(source=api.ActivitySource.GPM, percent=100),),
    )
    summary = api.WasteSummary(
        window="24h",
        workload="Deployment/llm",
        gpus="2",
        held_gpu_hours="48.00",
        effective_gpu_hours="18.25",
        waste_percent="62",
        cost_per_month="3,650.00 USD",
        advice="share one GPU",
        idle="17.00",
        underused="12.75",
        model="H100-80GB",
    )
    status = api.GPUWasteStatus(
        conditions=(_ready(api.Reason.UP_TO_DATE),),
        observed_generation=1,
        observed_time=NOW,
        summary=summary,
        team="ml",
        gpu_models=("H100-80GB",),
        gpus=Decimal(2),
        confidence=api.Confidence.HIGH,
        flags=(api.WasteFlag.DATA_GAP,),
        windows=(window,),
        price=api.UnitPrice(
            amount=Decimal("2.5"), currency="USD", source=api.PriceSource.BILL, date=date(2026, 10, 31)
        ),
        advice=(api.Advice(type="ShareGPU", message="one GPU is enough", confidence=api.Confidence.HIGH),),
    )
    return api.GPUWaste(
        metadata=api.ObjectMeta(name=name, namespace=namespace),
        spec=api.GPUWasteSpec(workload_ref=DEPLOYMENT),
        status=status,
    )


def action_spec(**changes: object) -> api.RightsizingActionSpec:
    """A workload that is to get a time-sliced GPU instead of a whole one."""
    fields: dict[str, object] = {
        "type": api.ActionType.RENAME_RESOURCE,
        "target_ref": api.ObjectRef(**DEPLOYMENT.model_dump()),
        "from_": api.ActionState(resources=(api.ResourceAmount(name="nvidia.com/gpu", count=1),)),
        "to": api.ActionState(resources=(api.ResourceAmount(name="nvidia.com/gpu.shared", count=1),)),
        "reversible": api.Reversibility.REVERSIBLE,
        "savings": api.Savings(
            cash_now=Decimal("912.5"),
            cash_at_renewal=(api.Renewal(date=date(2027, 1, 1), amount=Decimal(100)),),
            capacity_freed_gpu_hours=Decimal(365),
            currency="USD",
        ),
        "risk": api.Risk(probability=Decimal("0.01"), low=Decimal(0), high=Decimal("0.02")),
        "disruption": api.Disruption(pods=1),
        "confidence": api.Confidence.HIGH,
        "evidence": api.Evidence(ledger_query="SELECT 1", from_time=NOW - timedelta(days=7), to_time=NOW),
        "policy_ref": api.PolicyRef(kind="RightsizingPolicy", namespace="team-a", name="default"),
        "plan_name": "pool-h100-0a1b2c3d",
    }
    spec = api.RightsizingActionSpec(**{**fields, **changes})
    return spec.model_copy(update={"spec_hash": api.spec_hash(spec)})


def action(name: str = "rename-llm-0a1b2c3d", **changes: object) -> api.RightsizingAction:
    """An action with a stored undo."""
    undo = api.Undo(
        patches=(
            api.UndoPatch(
                target_ref=api.ObjectRef(**DEPLOYMENT.model_dump()),
                resource_version="17",
                field_owner="helm",
                patch='{"spec":{}}',
            ),
        )
    )
    stored = api.make_condition(
        api.ConditionType.UNDO_STORED,
        api.ConditionStatus.TRUE,
        api.Reason.STORED,
        "one patch",
        observed_generation=1,
        now=NOW,
    )
    return api.RightsizingAction(
        metadata=api.ObjectMeta(name=name),
        spec=action_spec(**changes),
        status=api.RightsizingActionStatus(conditions=(stored,), undo=undo, saving="912.50 USD a month"),
    )


def planned_actions(count: int) -> tuple[api.PlannedAction, ...]:
    """Actions that save 0, 1, 2, … a month."""
    base = {name: value for name, value in action_spec() if name not in {"plan_name", "spec_hash", "savings"}}
    return tuple(
        api.PlannedAction(**base, name=f"action-{i}", savings=api.Savings(cash_now=Decimal(i), currency="USD"))
        for i in range(count)
    )


def plan(count: int = 2) -> api.PlanDocument:
    """A plan of `count` actions and as many refusals."""
    refusal = api.Refusal(
        target=api.ObjectRef(**DEPLOYMENT.model_dump()), reason="TooLittleHistory", message="3 h of 24 h"
    )
    return api.PlanDocument(
        id="h100-20261101",
        created_time=NOW,
        input_hash=HASH,
        pool="pool-h100-0a1b2c3d",
        objective=api.Objective(
            current=Decimal("25.0"),
            planned=Decimal("20.0"),
            bound=Decimal("19.9"),
            gap=Decimal("0.005025"),
            unit=api.ObjectiveUnit.MONEY_PER_HOUR,
            currency="USD",
        ),
        savings=api.Savings(cash_now=Decimal(3650), currency="USD"),
        moves=count,
        actions=planned_actions(count),
        refused=(refusal,) * count,
        plan_url="file:///plans/h100-20261101.json",
    )


def all_kinds() -> dict[str, api.AnyResource]:
    """One valid object of each kind, by kind."""
    ready = (_ready(api.Reason.ACCEPTED),)
    window = api.ChangeWindow(name="nights", schedule="0 22 * * 1-5", duration_seconds=7200, time_zone="Europe/Berlin")
    slo = api.SloQuery(name="latency", query="up", comparison=api.Comparison.ABOVE, threshold=Decimal("0.25"))
    return {
        "GPUWaste": gpuwaste(),
        "GPUPool": _pool(),
        "GPUReservation": api.GPUReservation(
            metadata=api.ObjectMeta(name="h100-2026"),
            spec=api.GPUReservationSpec(
                count=16,
                gpu_model="H100-80GB",
                term=api.ReservationTerm(start_time=NOW, end_time=NOW + timedelta(days=365)),
                price=api.ReservationPrice(per_gpu_hour=Decimal("1.90"), currency="USD"),
                owner=api.ReservationOwner(kind=api.OwnerKind.TEAM, name="ml"),
            ),
            status=api.GPUReservationStatus(
                conditions=ready, provisioned_gpus=12, unprovisioned_gpus=4, used="8 of 16"
            ),
        ),
        "RightsizingPolicy": api.RightsizingPolicy(
            metadata=api.ObjectMeta(name="default", namespace="team-a"),
            spec=api.RightsizingPolicySpec(
                mode=api.PolicyMode.APPROVE,
                windows=(window,),
                watch=api.PolicyWatch(slos=(slo,)),
                allowed_actions=(api.ActionType.SCALE_TO_ZERO, api.ActionType.RELEASE_NODE),
                allow_irreversible=True,
            ),
            status=api.RightsizingPolicyStatus(conditions=ready, matched_workloads=3),
        ),
        "ClusterRightsizingPolicy": api.ClusterRightsizingPolicy(
            metadata=api.ObjectMeta(name="default"),
            spec=api.ClusterRightsizingPolicySpec(
                namespace_selector=(
                    api.LabelRequirement(key="stage", operator=api.LabelOperator.IN, values=("dev", "test")),
                )
            ),
            status=api.RightsizingPolicyStatus(conditions=ready, matched_workloads=0),
        ),
        "RightsizingPlan": api.RightsizingPlan(
            metadata=api.ObjectMeta(name="pool-h100-0a1b2c3d"),
            spec=api.plan_spec(plan()),
            status=api.RightsizingPlanStatus(conditions=ready, saving="3,650.00 USD a month", gap="0.50"),
        ),
        "RightsizingAction": action(),
        "ChargebackReport": api.ChargebackReport(
            metadata=api.ObjectMeta(name="monthly"),
            spec=api.ChargebackReportSpec(
                schedule="@monthly", period=api.ReportPeriod.MONTH, destination_url="s3://bills/gpu"
            ),
            status=api.ChargebackReportStatus(conditions=ready, summary="2026-10: 3,650.00 USD"),
        ),
    }


def _pool() -> api.GPUPool:
    window = api.PoolWindow(
        window="7d",
        from_time=NOW - timedelta(days=7),
        to_time=NOW,
        owned_gpu_hours=Decimal(1344),
        held_gpu_hours=Decimal(1000),
        effective_gpu_hours=Decimal(400),
        net_waste_gpu_hours=api.PoolWaste(
            total=Decimal(944), idle=Decimal(600), free_unallocated=Decimal(300), free_stranded=Decimal(44)
        ),
    )
    return api.GPUPool(
        metadata=api.ObjectMeta(name="h100-80gb-default-0a1b2c3d"),
        spec=api.GPUPoolSpec(gpu_model="H100-80GB", node_pool="default"),
        status=api.GPUPoolStatus(
            conditions=(_ready(api.Reason.UP_TO_DATE),),
            capacity=api.PoolCapacity(nodes=1, gpus=8, held_gpus=Decimal("5.5")),
            windows=(window,),
            nodes=(api.PoolNode(name="gpu-1", gpus=8, waste_percent=70),),
        ),
    )


def _ready(reason: api.Reason) -> api.Condition:
    return api.make_condition(
        api.ConditionType.READY, api.ConditionStatus.TRUE, reason, "all is well", observed_generation=1, now=NOW
    )
