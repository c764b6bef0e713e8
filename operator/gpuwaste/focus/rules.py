"""The rules of a single FOCUS row, as SQL conditions that are true where a row breaks the rule.

Ids are those of the FOCUS requirements model (`CAU-…` for Cost and Usage) and of the attributes it refers to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gpuwaste.focus.columns import ALLOWED_VALUES, SERVICE_SUBCATEGORIES, columns_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gpuwaste.focus.columns import Version

__all__ = ["MISSING_COLUMN", "PLACEHOLDERS", "RowRule", "row_rules"]

MISSING_COLUMN: Final = "CAU-CostAndUsage-D-001-M"
PLACEHOLDERS: Final = ("N/A", "n/a", "Not Applicable", "not applicable", "NULL", "null", "None", "NaN")
"""Words that stand where nothing should; a resource may be called so, and names are not held against them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowRule:
    """A condition on one row.

    Attributes:
        id: of the rule in the FOCUS model.
        columns: the columns that the condition names; without one of them it does not apply.
        broken: SQL that is true where the row breaks the rule; null counts as kept.
        why: what is wrong, in words.

    Rows that are alike to every condition are judged once. So a condition may ask whether a metric is null or negative,
    whether a text is null, blank or a placeholder, and for the value only of columns with allowed values, of
    BillingCurrency and ServiceSubcategory, and of the four times.
    """

    id: str
    columns: tuple[str, ...]
    broken: str
    why: str


_NOT_NULL: Final = {
    "BilledCost": "C-003-M",
    "BillingAccountId": "C-001-M",
    "BillingCurrency": "C-004-M",
    "BillingPeriodEnd": "C-003-M",
    "BillingPeriodStart": "C-003-M",
    "ChargeCategory": "C-002-M",
    "ChargeFrequency": "C-002-M",
    "ChargePeriodEnd": "C-003-M",
    "ChargePeriodStart": "C-003-M",
    "ContractedCost": "C-003-M",
    "EffectiveCost": "C-003-M",
    "InvoiceIssuerName": "C-003-M",
    "ListCost": "C-003-M",
    "PricingCurrency": "C-004-M",
    "PricingCurrencyEffectiveCost": "C-003-M",
    "ProviderName": "C-003-M",
    "PublisherName": "C-003-M",
    "ServiceCategory": "C-002-M",
    "ServiceName": "C-003-M",
    "ServiceProviderName": "C-003-M",
    "ServiceSubcategory": "C-002-M",
}

_ALLOWED_IDS: Final = {
    "CapacityReservationStatus": "C-006-M",
    "ChargeCategory": "C-003-M",
    "ChargeClass": "C-005-C",
    "ChargeFrequency": "C-003-M",
    "CommitmentDiscountCategory": "C-005-M",
    "CommitmentDiscountStatus": "C-005-M",
    "PricingCategory": "C-007-M",
    "ServiceCategory": "C-003-M",
}

# (column, the column that it goes with, rule where it must be null, rule where it must not be null)
_TOGETHER: Final = (
    ("AllocatedResourceName", "AllocatedResourceId", "C-004-C", "C-005-C"),
    ("BillingAccountType", "BillingAccountId", "C-004-C", "C-005-C"),
    ("CommitmentDiscountCategory", "CommitmentDiscountId", "C-003-C", "C-004-C"),
    ("CommitmentDiscountName", "CommitmentDiscountId", "C-004-C", ""),
    ("CommitmentDiscountType", "CommitmentDiscountId", "C-004-C", "C-005-C"),
    ("CommitmentDiscountUnit", "CommitmentDiscountQuantity", "C-005-C", "C-006-C"),
    ("ConsumedUnit", "ConsumedQuantity", "C-005-C", "C-006-C"),
    ("ContractedUnitPrice", "SkuPriceId", "C-014-C", "C-015-C"),
    ("ListUnitPrice", "SkuPriceId", "C-012-C", "C-013-C"),
    ("PricingCurrencyContractedUnitPrice", "SkuPriceId", "C-011-C", "C-012-C"),
    ("PricingCurrencyListUnitPrice", "SkuPriceId", "C-011-C", "C-012-C"),
    ("PricingCategory", "SkuPriceId", "C-012-C", ""),
    ("PricingQuantity", "SkuPriceId", "C-011-C", ""),
    ("CommitmentDiscountQuantity", "SkuPriceId", "C-016-C", ""),
    ("ConsumedQuantity", "SkuPriceId", "C-009-C", ""),
    ("SkuPriceDetails", "SkuPriceId", "C-004-C", ""),
    ("SkuMeter", "SkuId", "C-004-C", "C-005-C"),
    ("PricingUnit", "PricingQuantity", "C-005-C", "C-006-C"),
    ("RegionName", "RegionId", "C-004-C", "C-005-C"),
    ("ResourceType", "ResourceId", "C-004-C", "C-005-C"),
    ("SubAccountName", "SubAccountId", "C-004-C", "C-005-C"),
    ("SubAccountType", "SubAccountId", "C-004-C", "C-005-C"),
    ("CapacityReservationStatus", "CapacityReservationId", "C-003-C", ""),
    ("CommitmentDiscountStatus", "CommitmentDiscountId", "C-003-C", ""),
)

# (column, rule for Tax, rule for Usage and Purchase)
_PRICED: Final = (
    ("ContractedUnitPrice", "C-005-C", "C-006-C"),
    ("ListUnitPrice", "C-004-C", "C-005-C"),
    ("PricingCategory", "C-003-C", "C-004-C"),
    ("PricingCurrencyListUnitPrice", "C-004-C", "C-005-C"),
    ("PricingQuantity", "C-004-C", "C-005-C"),
    ("SkuId", "C-004-C", "C-005-C"),
    ("SkuPriceId", "C-004-C", "C-005-C"),
)

_IS_USED: Final = "ChargeCategory IN ('Usage', 'Purchase') AND ChargeClass IS DISTINCT FROM 'Correction'"


def _quoted(values: Iterable[str]) -> str:
    return ", ".join(f"'{value}'" for value in values)


def _rule(column: str, rule: str, broken: str, why: str, *others: str) -> RowRule:
    return RowRule(id=f"CAU-{column}-{rule}", columns=(column, *others), broken=broken, why=why)


def _null_rules() -> list[RowRule]:
    rules = [
        _rule(column, rule, f"{column} IS NULL", f"{column} must not be null") for column, rule in _NOT_NULL.items()
    ]
    for column, other, null_rule, filled_rule in _TOGETHER:
        why = f"{column} must be null where {other} is null"
        rules.append(_rule(column, null_rule, f"{column} IS NOT NULL AND {other} IS NULL", why, other))
        if filled_rule:
            why = f"{column} must not be null where {other} is not null"
            rules.append(_rule(column, filled_rule, f"{column} IS NULL AND {other} IS NOT NULL", why, other))
    for column, tax_rule, used_rule in _PRICED:
        tax = f"ChargeCategory = 'Tax' AND {column} IS NOT NULL"
        rules.append(_rule(column, tax_rule, tax, f"{column} must be null on Tax", "ChargeCategory"))
        why = f"{column} must not be null on Usage and Purchase that is no Correction"
        used = f"{_IS_USED} AND {column} IS NULL"
        rules.append(_rule(column, used_rule, used, why, "ChargeCategory", "ChargeClass"))
    for status, identity in (
        ("CapacityReservationStatus", "CapacityReservationId"),
        ("CommitmentDiscountStatus", "CommitmentDiscountId"),
    ):
        broken = f"ChargeCategory = 'Usage' AND {identity} IS NOT NULL AND {status} IS NULL"
        why = f"{status} must not be null on Usage with a {identity}"
        rules.append(_rule(status, "C-004-C", broken, why, "ChargeCategory", identity))
    return rules


def _value_rules() -> list[RowRule]:
    rules = [
        _rule(
            column,
            rule,
            f"{column} NOT IN ({_quoted(ALLOWED_VALUES[column])})",
            f"{column} must be one of {', '.join(ALLOWED_VALUES[column])}",
        )
        for column, rule in _ALLOWED_IDS.items()
    ]
    for category, subcategories in SERVICE_SUBCATEGORIES.items():
        broken = f"ServiceCategory = '{category}' AND ServiceSubcategory NOT IN ({_quoted(subcategories)})"
        why = f"ServiceSubcategory must be one of those of {category}"
        rules.append(_rule("ServiceSubcategory", "C-004-M", broken, why, "ServiceCategory"))
    for column, rule in (("ContractedUnitPrice", "C-009-M"), ("ListUnitPrice", "C-008-M")):
        rules.append(_rule(column, rule, f"{column} < 0", f"{column} must not be negative"))
    rules.append(
        _rule(
            "BillingCurrency",
            "C-003-M",
            "NOT regexp_full_match(BillingCurrency, '[A-Z]{3}')",
            "BillingCurrency must be three capital letters of ISO 4217",
        )
    )
    rules.append(
        _rule(
            "ConsumedQuantity",
            "C-004-C",
            "ConsumedQuantity IS NOT NULL AND (ChargeCategory <> 'Usage' OR CommitmentDiscountStatus = 'Unused')",
            "ConsumedQuantity must be null where nothing was consumed",
            "ChargeCategory",
            "CommitmentDiscountStatus",
        )
    )
    rules.append(
        _rule(
            "ChargeFrequency",
            "C-004-C",
            "ChargeCategory = 'Purchase' AND ChargeFrequency = 'Usage-Based'",
            "a Purchase must not be Usage-Based",
            "ChargeCategory",
        )
    )
    return rules


def _period_rules() -> list[RowRule]:
    rules = [
        _rule(
            f"{kind}PeriodEnd",
            "C-004-M",
            f"{kind}PeriodEnd <= {kind}PeriodStart",
            f"{kind}PeriodEnd must lie after {kind}PeriodStart",
            f"{kind}PeriodStart",
        )
        for kind in ("Billing", "Charge")
    ]
    rules.extend(
        RowRule(
            id="DateTimeFormat-A-003-M",
            columns=(column,),
            broken=f"date_trunc('second', {column}) <> {column}",
            why=f"{column} must be in whole seconds",
        )
        for column in ("BillingPeriodEnd", "BillingPeriodStart", "ChargePeriodEnd", "ChargePeriodStart")
    )
    return rules


def _text_rules(version: Version) -> list[RowRule]:
    texts = [column for column in columns_of(version) if column.kind in {"string", "json"}]
    rules = [
        RowRule(
            id="StringHandling-A-007-O",
            columns=(column.name,),
            broken=f"trim({column.name}) = ''",
            why=f"{column.name} must be null rather than empty",
        )
        for column in texts
    ]
    rules.extend(
        RowRule(
            id="NullHandling-A-002-M",
            columns=(column.name,),
            broken=f"{column.name} IN ({_quoted(PLACEHOLDERS)})",
            why=f"{column.name} must be null rather than a placeholder",
        )
        for column in texts
        if not column.name.endswith("Name") and column.name != "AllocatedResourceId"
    )
    return rules


def _split_rules() -> list[RowRule]:
    return [
        _rule(
            "AllocatedMethodId",
            "C-005-C",
            "AllocatedMethodId IS NULL AND (AllocatedResourceId IS NOT NULL OR AllocatedMethodDetails IS NOT NULL"
            " OR AllocatedTags IS NOT NULL)",
            "AllocatedMethodId must not be null on a part of a charge",
            "AllocatedResourceId",
            "AllocatedMethodDetails",
            "AllocatedTags",
        ),
    ]


def row_rules(version: Version) -> tuple[RowRule, ...]:
    """All rules of a single row that hold for a version."""
    names = {column.name for column in columns_of(version)}
    rules = (*_null_rules(), *_value_rules(), *_period_rules(), *_text_rules(version), *_split_rules())
    return tuple(rule for rule in rules if names.issuperset(rule.columns))
