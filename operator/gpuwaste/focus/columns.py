"""The columns of a FOCUS Cost and Usage dataset, by version, and the fixed values that some of them allow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import pyarrow as pa

__all__ = [
    "ALLOWED_VALUES",
    "AMOUNT_TYPE",
    "COLUMNS",
    "CUSTOM_COLUMNS",
    "DEPRECATED",
    "DIMENSIONS",
    "METRICS",
    "NOT_NULL",
    "SERVICE_SUBCATEGORIES",
    "SUMMABLE",
    "TIME_TYPE",
    "UNIT_PRICES",
    "VERSIONS",
    "Column",
    "Version",
    "coded_schema",
    "columns_of",
    "schema_of",
]

Version = Literal["1.3", "1.4"]
Kind = Literal["string", "json", "time", "decimal"]
VERSIONS: Final[tuple[Version, ...]] = ("1.3", "1.4")

AMOUNT_TYPE: Final = pa.decimal128(38, 28)
"""Ten digits before the point and 28 behind: a price of 12 decimals × a quantity of 6 × a ratio of 10, exactly."""
TIME_TYPE: Final = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One FOCUS column: its name, what it holds, and the versions that have it."""

    name: str
    kind: Kind = "string"
    versions: tuple[Version, ...] = VERSIONS

    @property
    def type(self) -> pa.DataType:
        """The Arrow type that this project writes."""
        return {"decimal": AMOUNT_TYPE, "time": TIME_TYPE}.get(self.kind, pa.string())


SUMMABLE: Final = (
    "BilledCost",
    "CommitmentDiscountQuantity",
    "ConsumedQuantity",
    "ContractedCost",
    "EffectiveCost",
    "ListCost",
    "PricingCurrencyEffectiveCost",
    "PricingQuantity",
)
"""The metrics of a charge that its parts divide; all others stay as they are on every part."""

UNIT_PRICES: Final = (
    "ContractedUnitPrice",
    "ListUnitPrice",
    "PricingCurrencyContractedUnitPrice",
    "PricingCurrencyListUnitPrice",
)
METRICS: Final = (*SUMMABLE, *UNIT_PRICES)

_TIMES = ("BillingPeriodEnd", "BillingPeriodStart", "ChargePeriodEnd", "ChargePeriodStart")
_JSON = ("AllocatedMethodDetails", "AllocatedTags", "ContractApplied", "SkuPriceDetails", "Tags")
_STRINGS = [
    "AllocatedMethodId",
    "AllocatedResourceId",
    "AllocatedResourceName",
    "AvailabilityZone",
    "BillingAccountId",
    "BillingAccountName",
    "BillingAccountType",
    "BillingCurrency",
    "CapacityReservationId",
    "CapacityReservationStatus",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "CommitmentDiscountCategory",
    "CommitmentDiscountId",
    "CommitmentDiscountName",
    "CommitmentDiscountStatus",
    "CommitmentDiscountType",
    "CommitmentDiscountUnit",
    "ConsumedUnit",
    "HostProviderName",
    "InvoiceId",
    "InvoiceIssuerName",
    "PricingCategory",
    "PricingCurrency",
    "PricingUnit",
    "RegionId",
    "RegionName",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "ServiceProviderName",
    "ServiceSubcategory",
    "SkuId",
    "SkuMeter",
    "SkuPriceId",
    "SubAccountId",
    "SubAccountName",
    "SubAccountType",
]

DEPRECATED: Final = ("ProviderName", "PublisherName")
"""Still mandatory in 1.3 and gone in 1.4."""

COLUMNS: Final[tuple[Column, ...]] = tuple(
    sorted(
        (
            *(Column(name=name) for name in _STRINGS),
            *(Column(name=name, kind="json") for name in _JSON),
            *(Column(name=name, kind="time") for name in _TIMES),
            *(Column(name=name, kind="decimal") for name in METRICS),
            *(Column(name=name, versions=("1.3",)) for name in DEPRECATED),
            Column(name="CommitmentProgramEligibilityDetails", kind="json", versions=("1.4",)),
            Column(name="InvoiceDetailId", versions=("1.4",)),
        ),
        key=lambda column: column.name,
    )
)

DIMENSIONS: Final = tuple(
    column.name for column in COLUMNS if column.kind != "decimal" and not column.name.startswith("Allocated")
)
"""What every part of a charge has in common with it. ContractApplied is a metric too, and is left out where split."""

NOT_NULL: Final = [
    "BilledCost",
    "BillingAccountId",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ContractedCost",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "PricingCurrency",
    "PricingCurrencyEffectiveCost",
    "ProviderName",
    "PublisherName",
    "ServiceCategory",
    "ServiceName",
    "ServiceProviderName",
]

CUSTOM_COLUMNS: Final = (
    "x_OriginChargeId",
    "x_RemainderReason",
    "x_ClusterName",
    "x_NodeName",
    "x_Pool",
    "x_GpuModel",
    "x_Namespace",
    "x_Team",
    "x_WorkloadKind",
    "x_WorkloadName",
    "x_PriceSource",
    "x_PriceDate",
)
"""Columns of this project, all strings, behind the FOCUS ones."""

SERVICE_SUBCATEGORIES: Final = {
    "AI and Machine Learning": (
        "AI Platforms",
        "Bots",
        "Generative AI",
        "Machine Learning",
        "Natural Language Processing",
        "Other (AI and Machine Learning)",
    ),
    "Compute": (
        "Containers",
        "End User Computing",
        "Quantum Compute",
        "Serverless Compute",
        "Virtual Machines",
        "Other (Compute)",
    ),
}
"""The two categories a GPU can be billed under, and what each divides into."""

ALLOWED_VALUES: Final = {
    "CapacityReservationStatus": ("Unused", "Used"),
    "ChargeCategory": ("Adjustment", "Credit", "Purchase", "Tax", "Usage"),
    "ChargeClass": ("Correction",),
    "ChargeFrequency": ("One-Time", "Recurring", "Usage-Based"),
    "CommitmentDiscountCategory": ("Spend", "Usage"),
    "CommitmentDiscountStatus": ("Unused", "Used"),
    "PricingCategory": ("Committed", "Dynamic", "Other", "Standard"),
    "ServiceCategory": (
        "AI and Machine Learning",
        "Analytics",
        "Business Applications",
        "Compute",
        "Databases",
        "Developer Tools",
        "Identity",
        "Integration",
        "Internet of Things",
        "Management and Governance",
        "Media",
        "Migration",
        "Mobile",
        "Multicloud",
        "Networking",
        "Other",
        "Security",
        "Storage",
        "Web",
    ),
}


def columns_of(version: Version) -> tuple[Column, ...]:
    """The FOCUS columns of one version, in the order of their names."""
    return tuple(column for column in COLUMNS if version in column.versions)


def schema_of(version: Version) -> pa.Schema:
    """The Arrow schema of an exported file: the FOCUS columns by name, then this project's."""
    fields = [pa.field(column.name, column.type) for column in columns_of(version)]
    return pa.schema([*fields, *(pa.field(name, pa.string()) for name in CUSTOM_COLUMNS)])


def coded_schema(version: Version) -> pa.Schema:
    """`schema_of` with texts dictionary-encoded, as rows are kept in memory; the details differ from row to row."""
    coded = pa.dictionary(pa.int32(), pa.string())
    return pa.schema(
        [
            field.with_type(coded) if field.type == pa.string() and field.name != "AllocatedMethodDetails" else field
            for field in schema_of(version)
        ]
    )
