"""Bills of a provider for tests: FOCUS rows from a few words."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pyarrow as pa
from tests.unit.focus.ledgers import START

from gpuwaste.focus.columns import METRICS, TIME_TYPE, columns_of

NODE_ARN = "arn:aws:ec2:us-east-1:210987654321:instance/i-"


def usage(node=0, *, hour=0, hours=1, price="98.32", quantity="1", **values):
    """An hour (or more) of a node, on demand."""
    with_quantity = Decimal(quantity)
    cost = Decimal(price) * with_quantity
    row = {
        "BilledCost": cost,
        "ContractedCost": cost,
        "EffectiveCost": cost,
        "ListCost": cost,
        "PricingCurrencyEffectiveCost": cost,
        "ContractedUnitPrice": Decimal(price),
        "ListUnitPrice": Decimal(price),
        "PricingCurrencyContractedUnitPrice": Decimal(price),
        "PricingCurrencyListUnitPrice": Decimal(price),
        "PricingQuantity": with_quantity,
        "ConsumedQuantity": with_quantity,
        "PricingUnit": "Hours",
        "ConsumedUnit": "Hours",
        "PricingCategory": "Standard",
        "ResourceId": f"{NODE_ARN}{node}",
        "ResourceName": f"gpu-{node}",
        "ResourceType": "Instance",
        "SkuId": "SKU-P5",
        "SkuMeter": "Compute Usage",
        "SkuPriceId": "SKU-P5-OD",
        "SkuPriceDetails": '{"GpuCount":8,"InstanceType":"p5.48xlarge"}',
        "Tags": '{"env":"prod","aws:team":"ml"}',
    }
    return _row(hour, hours, "Usage", row | values)


def correction(node=0, *, cost="-5", **values):
    """A correction of an hour that was invoiced before."""
    amount = Decimal(cost)
    costs = dict.fromkeys(
        ("BilledCost", "ContractedCost", "EffectiveCost", "ListCost", "PricingCurrencyEffectiveCost"), amount
    )
    named = {"ChargeClass": "Correction", "ResourceId": f"{NODE_ARN}{node}", "ResourceType": "Instance"}
    return _row(0, 1, "Usage", costs | named | values)


def other(category, cost, **values):
    """A row that belongs to no resource: a purchase, tax, credit or adjustment."""
    amount = Decimal(cost)
    costs = dict.fromkeys(
        ("BilledCost", "ContractedCost", "EffectiveCost", "ListCost", "PricingCurrencyEffectiveCost"), amount
    )
    return _row(0, 24, category, costs | {"ChargeFrequency": "One-Time"} | values)


def purchase(cost="1000"):
    """A commitment bought ahead: it covers later charges, so it has no effective cost of its own."""
    price = Decimal(cost)
    named = {
        "EffectiveCost": Decimal(0),
        "PricingCurrencyEffectiveCost": Decimal(0),
        "PricingQuantity": Decimal(1),
        "PricingUnit": "Units",
        "PricingCategory": "Committed",
        "SkuId": "SKU-RI",
        "SkuMeter": "Commitment",
        "SkuPriceId": "SKU-RI-1Y",
    }
    prices = dict.fromkeys(
        (
            "ContractedUnitPrice",
            "ListUnitPrice",
            "PricingCurrencyContractedUnitPrice",
            "PricingCurrencyListUnitPrice",
        ),
        price,
    )
    return other("Purchase", cost, **named, **prices)


def traffic(node=0):
    """Gigabytes out of a node: its ResourceId, but not its time."""
    meter = {"PricingUnit": "GB", "ConsumedUnit": "GB", "SkuId": "SKU-OUT", "SkuPriceId": "SKU-OUT-1"}
    return usage(
        node,
        price="0.09",
        quantity="12.5",
        ServiceCategory="Networking",
        ServiceName="AWS Data Transfer",
        ServiceSubcategory="Network Connectivity",
        **meter,
    )


def _row(hour, hours, category, values):
    start = START + timedelta(hours=hour)
    row = {
        "BillingAccountId": "123456789012",
        "BillingAccountName": "Acme",
        "BillingAccountType": "Payer",
        "BillingCurrency": "USD",
        "BillingPeriodStart": datetime(2026, 11, 1, tzinfo=UTC),
        "BillingPeriodEnd": datetime(2026, 12, 1, tzinfo=UTC),
        "ChargeCategory": category,
        "ChargeDescription": f"{category} of November",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodStart": start,
        "ChargePeriodEnd": start + timedelta(hours=hours),
        "InvoiceId": "INV-1",
        "PricingCurrency": "USD",
        "ServiceCategory": "Compute",
        "ServiceName": "Amazon EC2",
        "ServiceSubcategory": "Virtual Machines",
        "SubAccountId": "210987654321",
        "SubAccountName": "ml-prod",
        "SubAccountType": "Member",
    }
    names = ("HostProviderName", "InvoiceIssuerName", "ProviderName", "PublisherName", "ServiceProviderName")
    return row | dict.fromkeys(names, "AWS") | values


def bill(*rows, without=(), metric=None):
    """The rows as a table of FOCUS 1.3, with some columns left out as older versions have it."""
    metric = metric or pa.decimal128(38, 18)
    fields = []
    for column in columns_of("1.3"):
        kind = metric if column.name in METRICS else TIME_TYPE if column.kind == "time" else pa.string()
        fields.append(pa.field(column.name, kind))
    fields += [pa.field(name, pa.string()) for row in rows for name in row if name.startswith("x_")]
    schema = pa.schema([field for field in dict.fromkeys(fields) if field.name not in without])
    values = [
        {
            name: float(value) if metric == pa.float64() and isinstance(value, Decimal) else value
            for name, value in row.items()
        }
        for row in rows
    ]
    return pa.Table.from_pylist(values, schema=schema)
