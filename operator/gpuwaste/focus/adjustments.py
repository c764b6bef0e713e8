"""FOCUS rows that carry the difference of a restatement into a later period: ChargeCategory `Adjustment`.

A row charges one receiver what it owes more, or less, than the closed period said. It is an origin charge of its own
that goes to that receiver whole, so it is the part of no other charge and changes the sum of none. It is no Correction:
those are the provider's to make.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from gpuwaste.focus.columns import AMOUNT_TYPE, TIME_TYPE
from gpuwaste.focus.periods import period_at
from gpuwaste.focus.split import TAG_PREFIX, focus_table, spread
from gpuwaste.focus.texts import ascii_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpuwaste.focus.manifest import Adjustment, ReceiverTotal
    from gpuwaste.focus.options import ExportOptions
    from gpuwaste.focus.periods import Period

__all__ = ["ORIGIN_PREFIX", "adjustment_rows"]

ORIGIN_PREFIX: Final = "restatement/"
"""How the x_OriginChargeId of every adjustment begins; a reader of restatements leaves such rows out."""

_DETAILS: Final = '{"Elements":[{"AllocatedRatio":1,"UsageUnit":"Adjustments","UsageQuantity":1}]}'
_PROVIDERS: Final = (
    "HostProviderName",
    "InvoiceIssuerName",
    "ProviderName",
    "PublisherName",
    "ServiceProviderName",
)


def adjustment_rows(
    adjustments: Sequence[Adjustment], carrying: Period, options: ExportOptions, schema: pa.Schema
) -> pa.Table:
    """The rows that a period carries, in the order of the restatements and their receivers.

    Args:
        adjustments: the restatements whose differences the period carries.
        carrying: the period; the rows are charged in it.
        options: names and method of the series.
        schema: of the rows they stand behind; the columns that an adjustment does not have are null.
    """
    rows = [
        _row(one, number, total, carrying, options)
        for one in adjustments
        for number, total in enumerate(one.differences)
    ]
    names = {name: None for row in rows for name in row}
    columns = {name: _column(name, [row.get(name) for row in rows]) for name in names}
    every = pa.array(range(len(rows)), pa.int32())
    coded = {name: spread(values, every) for name, values in columns.items()}
    return _as(focus_table(coded, len(rows), options.version), schema)


def _column(name: str, values: list[Any]) -> pa.Array:
    if name.endswith("Cost"):
        return pa.array(values, AMOUNT_TYPE)
    return pa.array(values, TIME_TYPE if name.endswith(("PeriodStart", "PeriodEnd")) else pa.string())


def _as(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows with the columns and types of others; amounts that do not fit there raise and are never rounded."""
    columns = [
        rows[field.name].cast(field.type) if field.name in rows.column_names else pa.nulls(len(rows), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _row(
    adjustment: Adjustment, number: int, total: ReceiverTotal, carrying: Period, options: ExportOptions
) -> dict[str, Any]:
    cluster = ascii_text(total.cluster or options.account_id or "cluster")
    # What was charged to nobody is no part of a split, and neither is its difference.
    divided = bool(total.receiver_id or total.remainder_reason)
    account = options.account_id or cluster
    month = period_at(carrying.start, "month")
    who = total.receiver_name or total.remainder_reason or "what was not divided"
    what = f"Restatement {adjustment.revision} of {adjustment.period}: difference for {ascii_text(who)}"
    return {
        **dict.fromkeys(_PROVIDERS, options.provider),
        "BillingAccountId": account,
        "BillingAccountName": options.account_name or account,
        "BillingAccountType": "Internal",
        "BillingCurrency": total.currency,
        "BillingPeriodStart": month.start,
        "BillingPeriodEnd": month.end,
        "ChargeCategory": "Adjustment",
        "ChargeDescription": what,
        "ChargeFrequency": "One-Time",
        "ChargePeriodStart": carrying.start,
        "ChargePeriodEnd": carrying.end,
        "BilledCost": total.billed_cost,
        "ContractedCost": total.contracted_cost,
        "EffectiveCost": total.effective_cost,
        "ListCost": total.list_cost,
        "PricingCurrency": total.currency,
        "PricingCurrencyEffectiveCost": total.effective_cost,
        "ResourceId": f"k8s://{cluster}",
        "ResourceName": cluster,
        "ResourceType": "Kubernetes Cluster",
        "ServiceName": options.service_name,
        "ServiceCategory": options.service_category,
        "ServiceSubcategory": options.service_subcategory,
        "SubAccountId": cluster,
        "SubAccountName": cluster,
        "SubAccountType": "Kubernetes Cluster",
        "Tags": json.dumps({f"{TAG_PREFIX}cluster": total.cluster or cluster}),
        "AllocatedMethodId": options.method.id if divided else None,
        "AllocatedMethodDetails": _DETAILS if divided else None,
        "AllocatedResourceId": total.receiver_id,
        "AllocatedResourceName": total.receiver_name,
        "AllocatedTags": total.tags,
        "x_OriginChargeId": f"{ORIGIN_PREFIX}{adjustment.period}/{adjustment.revision}/{number}",
        "x_RemainderReason": total.remainder_reason,
        "x_ClusterName": total.cluster,
        "x_Namespace": total.namespace,
        "x_Team": total.team,
        "x_WorkloadKind": total.workload_kind,
        "x_WorkloadName": total.workload_name,
    }
