"""Broken FOCUS files, each by one change of an exported one, and the rule that must find it."""

import json
from datetime import timedelta
from decimal import Decimal

import pyarrow as pa
from tests.unit.focus.ledgers import free, holder, ledger

from gpuwaste.focus.options import ExportOptions
from gpuwaste.focus.split import split_ledger

SPLIT = "DataGeneratorCalculatedSplitCostAllocationHandling"
DETAILS = "CAU-AllocatedMethodDetailsObject"
SUM = f"{SPLIT}-A-003-C"
DIMENSION = f"{SPLIT}-A-004-C"
TAGS = f"{SPLIT}-A-005-C"
RATIOS = f"{DETAILS}-O-014-M"
DAY = timedelta(days=1)


def exported(**options):
    """An hour of a node in three parts (a, b and the remainder), and one of another price in one."""
    rows = [holder("a", 0.3, duty=0.2), holder("b", 0.2), free(0.5), holder("a", 1, hour=1, price="2.123456789012")]
    return split_ledger(ledger(*rows), ExportOptions(**options)).rows


def changed(table, column, value, row=0):
    """The table with another value in one cell; `value` may be a function of the old one."""
    values = table[column].to_pylist()
    values[row] = value(values[row]) if callable(value) else value
    return table.set_column(table.column_names.index(column), column, pa.array(values, table.schema.field(column).type))


def cell(column, value, row=0):
    return lambda table: changed(table, column, value, row)


def cells(*changes, row=0):
    def change(table):
        for column, value in changes:
            table = changed(table, column, value, row)
        return table

    return change


def without(row):
    return lambda table: pa.concat_tables([table.slice(0, row), table.slice(row + 1)])


def again(start, length):
    return lambda table: pa.concat_tables([table, table.slice(start, length)])


def swapped(column, one=0, other=1):
    def change(table):
        values = table[column].to_pylist()
        return changed(changed(table, column, values[other], one), column, values[one], other)

    return change


def element(**changes):
    """Change keys of the first element of AllocatedMethodDetails; None takes a key away."""

    def change(text):
        details = json.loads(text)
        details["Elements"][0] |= changes
        details["Elements"][0] = {key: value for key, value in details["Elements"][0].items() if value is not None}
        return json.dumps(details)

    return change


def more(amount):
    return lambda value: value + Decimal(amount)


def times(factor):
    return lambda value: value * Decimal(factor)


def kept_origin(table):
    """The whole charge beside its parts, so that it counts twice."""
    allocated = [name for name in table.column_names if name.startswith(("Allocated", "x_"))]
    whole = table.slice(0, 1)
    for name in allocated:
        whole = changed(whole, name, None)
    for name in (
        "BilledCost",
        "ConsumedQuantity",
        "ContractedCost",
        "EffectiveCost",
        "ListCost",
        "PricingCurrencyEffectiveCost",
        "PricingQuantity",
    ):
        whole = changed(whole, name, sum(table[name].to_pylist()[:3]))
    return pa.concat_tables([table, whole])


UNSEEN = {
    # Sums
    "a part costs more at list": (cell("ListCost", more("1e-28")), SUM),
    "a part costs more by contract": (cell("ContractedCost", more("1e-28")), SUM),
    "a part costs less effectively": (cell("EffectiveCost", more("-0.01")), SUM),
    "a part is billed more": (cell("BilledCost", more("1e-28")), SUM),
    "a part consumed more": (cell("ConsumedQuantity", more("0.000001")), SUM),
    "a part costs more in the pricing currency": (cell("PricingCurrencyEffectiveCost", more("1e-12")), SUM),
    # Ratios and details
    "ratios below 1": (cell("AllocatedMethodDetails", element(AllocatedRatio=0.29)), f"{DETAILS}-O-014-M"),
    "a ratio above 1": (cell("AllocatedMethodDetails", element(AllocatedRatio=1.3)), f"{DETAILS}-O-013-M"),
    "a negative ratio": (cell("AllocatedMethodDetails", element(AllocatedRatio=-0.3)), f"{DETAILS}-O-013-M"),
    "a quantity in words": (cell("AllocatedMethodDetails", element(UsageQuantity="1")), f"{DETAILS}-O-021-M"),
    # Dimensions and unit prices of one part
    "another service": (cell("ServiceName", "Other"), DIMENSION),
    "another resource": (cell("ResourceId", "uid-node-2"), DIMENSION),
    "another invoice": (cell("InvoiceId", "INV-2"), DIMENSION),
    "another account": (cell("SubAccountId", "c2"), DIMENSION),
    "another start": (cell("ChargePeriodStart", lambda start: start - DAY), DIMENSION),
    "another provider": (cell("ServiceProviderName", "AWS"), DIMENSION),
    # Tags
    "tags dropped": (cell("Tags", None), f"{SPLIT}-A-005-C"),
    "a tag changed": (cell("Tags", '{"gpuwaste.dev/cluster":"c2"}'), f"{SPLIT}-A-005-C"),
    "tags nested": (cell("Tags", '{"a":{"b":1}}'), "KeyValueFormat-A-004-M"),
    "tags with a list": (cell("AllocatedTags", '{"a":[1]}'), "KeyValueFormat-A-004-M"),
    "tags no object": (cell("AllocatedTags", "[1]"), "KeyValueFormat-A-001-M"),
    "a tag twice": (cell("AllocatedTags", '{"a":1,"a":2}'), "KeyValueFormat-A-002-M"),
    "tags repeated": (cell("AllocatedTags", '{"gpuwaste.dev/pool":"x"}'), "CAU-AllocatedTags-C-006-M"),
    # Who receives
    "no method": (cell("AllocatedMethodId", None), "CAU-AllocatedMethodId-C-005-C"),
    "two methods": (cell("AllocatedMethodId", "other-v1"), "CAU-AllocatedMethodId-C-006-M"),
    "a receiver twice": (cell("AllocatedResourceId", "k8s://c1/namespaces/b"), "CAU-AllocatedResourceId-C-008-O"),
    # Single rows
    "an empty text": (cell("SkuMeter", ""), "StringHandling-A-007-O"),
    "a blank text": (cell("ResourceName", "  "), "StringHandling-A-007-O"),
    "an empty receiver": (cell("AllocatedResourceId", ""), "StringHandling-A-007-O"),
    "one bad pricing category": (cell("PricingCategory", "Spot"), "CAU-PricingCategory-C-007-M"),
    "one bad frequency": (cell("ChargeFrequency", "Hourly"), "CAU-ChargeFrequency-C-003-M"),
    "half a second": (cell("ChargePeriodEnd", lambda end: end + timedelta(milliseconds=500)), "DateTimeFormat-A-003-M"),
    "a period that ends first": (cell("ChargePeriodEnd", lambda end: end - DAY), "CAU-ChargePeriodEnd-C-004-M"),
    "a part twice": (again(0, 1), RATIOS),
    "a remainder twice": (again(2, 1), RATIOS),
    "a charge twice": (again(0, 3), RATIOS),
    "a charge of one part twice": (again(3, 1), RATIOS),
    "a part left out": (without(0), RATIOS),
    "the remainder left out": (without(2), RATIOS),
    "the origin kept beside its parts": (kept_origin, SUM),
    "two parts with each other's bill": (swapped("BilledCost"), SUM),
    "two parts with each other's effective cost": (swapped("EffectiveCost"), SUM),
    "two parts with each other's ratio": (swapped("AllocatedMethodDetails"), SUM),
    "a part that belongs to another charge": (
        lambda table: changed(table, "x_OriginChargeId", table["x_OriginChargeId"][3].as_py()),
        RATIOS,
    ),
    "a metric missing on one part": (cells(("ConsumedQuantity", None), ("ConsumedUnit", None)), SUM),
    "a part without details": (cell("AllocatedMethodDetails", None), "CAU-AllocatedMethodDetails-C-006-C"),
    "another zone": (cell("AvailabilityZone", "use1-az9"), DIMENSION),
    "another description": (cell("ChargeDescription", "GPUs"), DIMENSION),
    "another billing account": (cell("BillingAccountId", "c9"), DIMENSION),
    "another billing account's name": (cell("BillingAccountName", "c9"), DIMENSION),
    "another host": (cell("HostProviderName", "AWS"), DIMENSION),
    "another issuer": (cell("InvoiceIssuerName", "AWS"), DIMENSION),
    "another publisher": (cell("PublisherName", "AWS"), DIMENSION),
    "another resource's name": (cell("ResourceName", "pod-1"), DIMENSION),
    "another resource's type": (cell("ResourceType", "Pod"), DIMENSION),
    "another meter": (cell("SkuMeter", "GPU Usage"), DIMENSION),
    "another unit of price": (cell("PricingUnit", "GPU-Hours"), DIMENSION),
    "another unit of consumption": (cell("ConsumedUnit", "GPU-Hours"), DIMENSION),
    "another frequency": (cell("ChargeFrequency", "Recurring"), DIMENSION),
    "another way of pricing": (cell("PricingCategory", "Dynamic"), DIMENSION),
    "another billing period": (cell("BillingPeriodStart", lambda start: start - DAY), DIMENSION),
    "another list price in the pricing currency": (cell("PricingCurrencyListUnitPrice", Decimal(9)), DIMENSION),
    "a tag added": (
        cell("Tags", lambda text: text.replace("{", '{"env":"prod",', 1)),
        TAGS,
    ),
    "all tags repeated": (
        lambda table: changed(table, "AllocatedTags", table["Tags"][0].as_py()),
        "CAU-AllocatedTags-C-006-M",
    ),
    "a method lost on the remainder": (cell("AllocatedMethodId", None, row=2), "CAU-AllocatedMethodId-C-005-C"),
    "a column of its own without prefix": (
        lambda table: table.append_column("Shard", pa.array(["a"] * len(table))),
        "ColumnHandling-A-010-M",
    ),
    "a placeholder": (cell("AvailabilityZone", "N/A", row=3), "NullHandling-A-002-M"),
}
"""Name -> (change, rule), which the official validator lets through: `test_focus_official` proves it."""

SEEN = {
    # Sums
    "a part is priced for more": (cell("PricingQuantity", more("0.000001")), SUM),
    "a charge costs other than price times quantity": (cell("ListCost", more("1")), "CAU-ListCost-C-009-C"),
    "a charge costs other than contract price times quantity": (
        cell("ContractedCost", more("1")),
        "CAU-ContractedUnitPrice-C-011-C",
    ),
    # Ratios and details
    "a ratio in words": (cell("AllocatedMethodDetails", element(AllocatedRatio="a third")), f"{DETAILS}-O-013-M"),
    "no ratio": (cell("AllocatedMethodDetails", element(AllocatedRatio=None)), f"{DETAILS}-O-012-M"),
    "no elements": (cell("AllocatedMethodDetails", '{"Elements":[]}'), f"{DETAILS}-O-001-M"),
    "elements no list": (cell("AllocatedMethodDetails", '{"Elements":{}}'), f"{DETAILS}-O-001-M"),
    "details no JSON": (cell("AllocatedMethodDetails", "{"), f"{DETAILS}-O-001-M"),
    "a number with a zero in front": (
        cell("AllocatedMethodDetails", lambda text: text.replace(":0.", ":00.")),
        f"{DETAILS}-O-001-M",
    ),
    "an element that is no object": (cell("AllocatedMethodDetails", '{"Elements":[1]}'), f"{DETAILS}-O-002-M"),
    "an element with depth": (cell("AllocatedMethodDetails", element(x_Gpu={"n": 1})), f"{DETAILS}-O-003-M"),
    "a key without prefix": (cell("AllocatedMethodDetails", element(Gpu=1)), f"{DETAILS}-O-009-C"),
    "a quantity without unit": (cell("AllocatedMethodDetails", element(UsageUnit=None)), f"{DETAILS}-O-016-C"),
    "a unit in small letters": (cell("AllocatedMethodDetails", element(UsageUnit="gpu-hours")), f"{DETAILS}-O-018-O"),
    # Dimensions and unit prices of one part
    "another region": (cell("RegionId", "eu-1"), DIMENSION),
    "another SKU": (cell("SkuId", "gpu-node/other"), DIMENSION),
    "another list price": (cell("ListUnitPrice", Decimal(9)), DIMENSION),
    "another contract price": (cell("ContractedUnitPrice", Decimal(9)), DIMENSION),
    # Tags
    "tags no JSON": (cell("AllocatedTags", "a=1"), "KeyValueFormat-A-001-M"),
    # Who receives
    "a receiver without name": (cell("AllocatedResourceName", None), "CAU-AllocatedResourceName-C-005-C"),
    "a name without receiver": (cell("AllocatedResourceId", None), "CAU-AllocatedResourceName-C-004-C"),
    # Single rows
    "one bad category": (cell("ChargeCategory", "Use"), "CAU-ChargeCategory-C-003-M"),
    "one bad service category": (cell("ServiceCategory", "GPU"), "CAU-ServiceCategory-C-003-M"),
    "a subcategory of another category": (cell("ServiceSubcategory", "Bots"), "CAU-ServiceSubcategory-C-004-M"),
    "lower-case currency": (cell("BillingCurrency", "usd"), "CAU-BillingCurrency-C-003-M"),
    "no unit": (cell("PricingUnit", None), "CAU-PricingUnit-C-006-C"),
    "a unit of nothing": (cell("CommitmentDiscountUnit", "Hours"), "CAU-CommitmentDiscountUnit-C-005-C"),
    "no SKU on Usage": (cell("SkuId", None), "CAU-SkuId-C-005-C"),
    "a reservation without status": (cell("CapacityReservationId", "cr-1"), "CAU-CapacityReservationStatus-C-004-C"),
    "a status without commitment": (cell("CommitmentDiscountStatus", "Used"), "CAU-CommitmentDiscountStatus-C-003-C"),
    "a negative price": (cell("ListUnitPrice", Decimal(-1)), "CAU-ListUnitPrice-C-008-M"),
}
"""The same, which the official validator notices too."""

MUTANTS = UNSEEN | SEEN
