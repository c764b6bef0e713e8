"""Divide origin charges among their receivers: FOCUS rows whose sums are the charge to the last digit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.focus.charges import impute
from gpuwaste.focus.columns import AMOUNT_TYPE, coded_schema
from gpuwaste.focus.details import element_units, method_details
from gpuwaste.focus.ratios import (
    MAX_RATIO_DECIMALS,
    decimals_used,
    multiply_exact,
    ratio_decimals,
    scaled_decimal,
)
from gpuwaste.focus.texts import ascii_text, join, json_object, json_texts, map_distinct, uri_texts
from gpuwaste.pricing.capacity import SPOT_SOURCES

if TYPE_CHECKING:
    from gpuwaste.focus.columns import Version
    from gpuwaste.focus.options import ExportOptions, Finding

__all__ = ["TAG_PREFIX", "Split", "focus_table", "receiver_columns", "split_ledger", "spread"]

_COSTS: Final = ("list", "contracted", "billed", "effective")
TAG_PREFIX: Final = "gpuwaste.dev/"
"""Prefix of every tag key that this project makes; the metadata names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """FOCUS rows of a span of the ledger.

    Attributes:
        rows: the columns of `coded_schema(version)`, sorted by charge and receiver.
        charges: the number of origin charges.
        findings: what was left out, by name.
    """

    rows: pa.Table
    charges: int
    findings: tuple[Finding, ...]


def split_ledger(ledger: pa.Table, options: ExportOptions) -> Split:
    """Charge the nodes' cost to who held their GPUs, in FOCUS columns.

    Every summable metric of a part is ratio × the charge's, in exact decimals; the ratios of a charge have
    min(12, 28 − d) decimals, d those of its amounts, and add up to exactly 1.

    Args:
        ledger: rows of the ledger's schema.
        options: grain, grouping, version and names.

    Raises:
        InputError: the ledger cannot be exported as asked.
        InvariantError: the ledger breaks its own law.
    """
    imputed = impute(ledger, options)
    charges, parts = imputed.charges, imputed.parts
    amounts = {kind: charges[f"{kind}_cost"].combine_chunks() for kind in _COSTS}
    amounts["quantity"] = charges["quantity"].combine_chunks()
    amounts |= _used_and_committed(charges, amounts["quantity"])
    used = np.max([decimals_used(amount) for amount in amounts.values()], axis=0, initial=0)
    elements = element_units(parts, parts.charge, ratio_decimals(used))
    units = elements.sum(axis=1)
    of = pa.array(parts.charge.astype(np.int32))
    values: dict[str, Any] = {name: spread(column, of) for name, column in _charge_columns(charges, options).items()}
    values |= _amount_columns(amounts, of, scaled_decimal(units, MAX_RATIO_DECIMALS))
    to = pa.array(parts.receiver.astype(np.int32))
    values |= {name: spread(column, to) for name, column in receiver_columns(parts.receivers, options).items()}
    values["AllocatedMethodDetails"] = method_details(parts, elements, options.method)
    rows = focus_table(values, len(units), options.version)
    return Split(rows=rows, charges=len(charges), findings=imputed.findings)


def focus_table(values: dict[str, Any], rows: int, version: Version) -> pa.Table:
    """A table of the columns of a version, and of other `x_` columns behind; those without values are null."""
    nothing = pa.nulls(rows, pa.int32())
    empty = pa.DictionaryArray.from_arrays(nothing, pa.array([], pa.string()))
    schema = coded_schema(version)
    own = [name for name in values if name.startswith("x_") and name not in schema.names]
    fields: list[pa.Field] = []
    columns = []
    for field in [*schema, *(pa.field(name, values[name].type) for name in own)]:
        value = values.get(field.name)
        if value is None:
            fields.append(field)
            columns.append(empty if pa.types.is_dictionary(field.type) else pa.nulls(rows, field.type))
        else:
            # Amounts of a bill may need another scale than this project's own.
            kind = value.type if pa.types.is_decimal(field.type) else field.type
            fields.append(field.with_type(kind))
            columns.append(value if value.type == kind else value.cast(kind))
    return pa.table(columns, schema=pa.schema(fields))


def spread(values: pa.Array, index: pa.Array) -> pa.Array:
    """`values[index]`; texts as a dictionary, so that a million rows hold each text once."""
    if not pa.types.is_string(values.type):
        return values.take(index)
    coded = pc.dictionary_encode(values)
    return pa.DictionaryArray.from_arrays(coded.indices.take(index), coded.dictionary)


def _amount_columns(amounts: dict[str, pa.Array], index: pa.Array, ratio: pa.Array) -> dict[str, pa.Array]:
    parts: dict[str, pa.Array] = {}
    for kind, amount in amounts.items():
        # On most nodes list, contracted and effective cost are one figure: one product serves them.
        same = next((other for other in parts if amounts[other].equals(amount)), None)
        if amount.null_count == len(amount):
            parts[kind] = pa.nulls(len(index), AMOUNT_TYPE)
        else:
            parts[kind] = parts[same] if same else multiply_exact(amount.take(index), ratio)
    return {
        "PricingQuantity": parts["quantity"],
        "ConsumedQuantity": parts["consumed"],
        "CommitmentDiscountQuantity": parts["committed"],
        "ListCost": parts["list"],
        "ContractedCost": parts["contracted"],
        "BilledCost": parts["billed"],
        "EffectiveCost": parts["effective"],
        "PricingCurrencyEffectiveCost": parts["effective"],
    }


def _used_and_committed(charges: pa.Table, quantity: pa.Array) -> dict[str, pa.Array]:
    """Node hours that were there to be used, and GPU-hours of a purchase; null where a charge has none."""
    nothing = pa.scalar(None, quantity.type)
    bought, missing = _purchased(charges)
    gpus = charges["gpus"].combine_chunks().cast(pa.decimal128(19, 0))
    gpu_hours = multiply_exact(quantity, gpus, quantity.type)
    return {
        "consumed": pc.if_else(pc.and_(bought, missing), nothing, quantity),
        "committed": pc.if_else(bought, gpu_hours, pa.scalar(None, gpu_hours.type)),
    }


def _purchased(charges: pa.Table) -> tuple[pa.Array, pa.Array]:
    """Charges of purchased capacity, and charges of capacity that is not in the cluster."""
    purchase = charges["purchase"].combine_chunks()
    return pc.not_equal(purchase, ""), charges["unprovisioned"].combine_chunks()


def _purchase_columns(charges: pa.Table) -> dict[str, pa.Array]:
    """Commitment and capacity reservation of charges that a purchase covers, null on all others; and how it is priced.

    A spot price is set by the provider and may change any time (CAU-PricingCategory-C-010-C).
    """
    spot = pc.is_in(charges["price_source"].combine_chunks(), value_set=pa.array(list(SPOT_SOURCES.values())))
    bought, missing = _purchased(charges)
    identity = _or_null(map_distinct(charges["purchase"].combine_chunks(), ascii_text))
    status = pc.if_else(missing, "Unused", "Used")
    nothing = pa.scalar(None, pa.string())

    def where_bought(text: Any) -> pa.Array:
        return pc.if_else(bought, text, nothing)

    return {
        "CapacityReservationId": identity,
        "CapacityReservationStatus": where_bought(status),
        "CommitmentDiscountCategory": where_bought("Usage"),
        "CommitmentDiscountId": identity,
        "CommitmentDiscountName": identity,
        "CommitmentDiscountStatus": where_bought(status),
        "CommitmentDiscountType": where_bought("GPU Reservation"),
        "CommitmentDiscountUnit": where_bought("GPU-Hours"),
        "PricingCategory": pc.if_else(bought, "Committed", pc.if_else(spot, "Dynamic", "Standard")),
    }


def _charge_columns(charges: pa.Table, options: ExportOptions) -> dict[str, pa.Array]:
    """What all parts of a charge have in common, one value a charge."""
    rows = len(charges)
    texts = {name: charges[name].combine_chunks() for name in ("cluster", "node", "pool", "gpu_model", "node_uid")}
    names = {name: map_distinct(column, ascii_text) for name, column in texts.items()}
    listed = charges["list_price"].combine_chunks().cast(AMOUNT_TYPE)
    contracted = charges["contracted_price"].combine_chunks().cast(AMOUNT_TYPE)
    currency = charges["currency"].combine_chunks()
    constants = {
        "ChargeCategory": "Usage",
        "ChargeFrequency": "Usage-Based",
        "BillingAccountType": "Internal",
        "SubAccountType": "Kubernetes Cluster",
        "SkuMeter": "Compute Usage",
        "ServiceName": options.service_name,
        "ServiceCategory": options.service_category,
        "ServiceSubcategory": options.service_subcategory,
        "AllocatedMethodId": options.method.id,
    }
    constants |= dict.fromkeys(
        ("HostProviderName", "InvoiceIssuerName", "ProviderName", "PublisherName", "ServiceProviderName"),
        options.provider,
    )
    account = pa.repeat(options.account_id, rows) if options.account_id else names["cluster"]
    return {
        **{name: pa.repeat(text, rows) for name, text in constants.items()},
        **_periods(charges, options),
        **_sku(charges, names),
        **_resource(charges, names),
        **_purchase_columns(charges),
        "BillingAccountId": account,
        "BillingAccountName": pa.repeat(options.account_name, rows) if options.account_name else account,
        "BillingCurrency": currency,
        "PricingCurrency": currency,
        "SubAccountId": names["cluster"],
        "SubAccountName": names["cluster"],
        "ListUnitPrice": listed,
        "PricingCurrencyListUnitPrice": listed,
        "ContractedUnitPrice": contracted,
        "PricingCurrencyContractedUnitPrice": contracted,
        "Tags": _tags({"cluster": texts["cluster"], "gpu_model": texts["gpu_model"], "pool": texts["pool"]}, rows),
        "x_ClusterName": names["cluster"],
        "x_NodeName": _or_null(names["node"]),
        "x_Pool": _or_null(names["pool"]),
        "x_GpuModel": _or_null(names["gpu_model"]),
        "x_PriceSource": _or_null(map_distinct(charges["price_source"].combine_chunks(), ascii_text)),
        "x_PriceDate": _or_null(map_distinct(charges["price_date"].combine_chunks(), ascii_text)),
    }


def _resource(charges: pa.Table, names: dict[str, pa.Array]) -> dict[str, pa.Array]:
    """The node that is charged; of capacity that is not there, what was bought."""
    purchase = map_distinct(charges["purchase"].combine_chunks(), ascii_text)
    node = _first_known(map_distinct(charges["provider_id"].combine_chunks(), ascii_text), names["node_uid"])
    identity = pc.coalesce(node, _or_null(purchase))
    kind = pc.if_else(pc.is_valid(node), "Kubernetes Node", "GPU Reservation")
    return {
        "ResourceId": identity,
        # What has no name of its own has none here, rather than its id again (CAU-ResourceName-C-006-C).
        "ResourceName": _or_null(names["node"]),
        "ResourceType": pc.if_else(pc.is_valid(identity), kind, pa.scalar(None, pa.string())),
    }


def _periods(charges: pa.Table, options: ExportOptions) -> dict[str, pa.Array]:
    start = charges["period"].cast(pa.timestamp("us")).to_numpy()
    month = start.astype("M8[M]")
    length = np.timedelta64(1, "h") if options.grain == "hour" else np.timedelta64(1, "D")

    def utc(times: Any) -> pa.Array:
        return pa.array(times.astype("M8[us]")).cast(pa.timestamp("us", tz="UTC"))

    return {
        "ChargePeriodStart": utc(start),
        "ChargePeriodEnd": utc(start + length),
        "BillingPeriodStart": utc(month),
        "BillingPeriodEnd": utc(month + 1),
        "x_OriginChargeId": _origin_ids(charges),
    }


def _origin_ids(charges: pa.Table) -> pa.Array:
    """`cluster/node/model/period/n`, n counting the prices of one node and model in one period."""
    rows = len(charges)
    key = join(
        uri_texts(charges["cluster"].combine_chunks()),
        "/",
        uri_texts(_first_known(charges["node_uid"].combine_chunks(), charges["node"].combine_chunks())),
        "/",
        uri_texts(charges["gpu_model"].combine_chunks()),
        "/",
        pc.strftime(charges["period"].combine_chunks().cast(pa.timestamp("s")), format="%Y-%m-%dT%H:%M:%SZ"),
    )
    # Charges are sorted by this key first, so equal ones lie together.
    same = np.zeros(rows, bool)
    same[1:] = pc.equal(key.slice(1), key.slice(0, max(rows - 1, 0))).to_numpy(zero_copy_only=False)
    position = np.arange(rows)
    number = position - np.maximum.accumulate(np.where(same, 0, position))
    return join(key, "/", pa.array(number).cast(pa.string()))


def _sku(charges: pa.Table, names: dict[str, pa.Array]) -> dict[str, pa.Array]:
    present = pc.invert(charges["unprovisioned"].combine_chunks())
    gpus = charges["gpus"].combine_chunks()
    count = gpus.cast(pa.string())
    model = names["gpu_model"]
    price = pc.utf8_rtrim(pc.utf8_rtrim(_plain(charges["list_price"].combine_chunks()), "0"), ".")
    currency = charges["currency"].combine_chunks()
    sku = join("gpu-node/", model, "/", count)
    details = json_object(
        [("GpuCount", count), ("x_GpuModel", json_texts(charges["gpu_model"].combine_chunks()))], rows=len(charges)
    )
    unit = pc.if_else(present, "Hours", "GPU-Hours")
    bought, missing = _purchased(charges)
    unused = pc.and_(bought, missing)
    described = join(count, " x ", model, " GPU, ", price, " ", currency, " list price a node hour")
    missing = join(model, " GPU bought and not in the cluster, ", price, " ", currency, " list price a GPU hour")
    return {
        "SkuId": sku,
        "SkuPriceId": join(sku, "/", currency, "/", price),
        "SkuPriceDetails": details,
        "ChargeDescription": pc.if_else(present, described, missing),
        "PricingUnit": unit,
        "ConsumedUnit": pc.if_else(unused, pa.scalar(None, pa.string()), unit),
    }


def _plain(prices: pa.Array) -> pa.Array:
    """Prices as text without an exponent."""
    coded = pc.dictionary_encode(prices)
    return pa.array([f"{price:f}" for price in coded.dictionary.to_pylist()], pa.string()).take(coded.indices)


def receiver_columns(receivers: pa.Table, options: ExportOptions) -> dict[str, pa.Array]:
    """Who receives a part; null for what nobody held."""
    text = {name: receivers[name].combine_chunks() for name in receivers.column_names}
    held = pc.equal(text["reason"], "")
    nobody = pa.scalar(None, pa.string())
    identity, name = _receiver(text, options)
    tags = _tags({key: text[key] for key in ("namespace", "team", "workload_kind", "workload_name")}, len(receivers))
    plain = {key: _or_null(map_distinct(values, ascii_text)) for key, values in text.items()}
    return {
        "AllocatedResourceId": pc.if_else(held, identity, nobody),
        "AllocatedResourceName": pc.if_else(held, map_distinct(name, ascii_text), nobody),
        "AllocatedTags": pc.if_else(held, tags, nobody),
        "x_RemainderReason": plain["reason"],
        "x_Namespace": plain["namespace"],
        "x_Team": plain["team"],
        "x_WorkloadKind": plain["workload_kind"],
        "x_WorkloadName": plain["workload_name"],
    }


def _receiver(text: dict[str, pa.Array], options: ExportOptions) -> tuple[pa.Array, pa.Array]:
    """Id and name of each receiver; by workload, those that have none are the namespaces or teams they stand for."""
    root = join("k8s://", uri_texts(text["cluster"]))
    team = join(root, "/teams/", uri_texts(text["team"]))
    namespace = join(root, "/namespaces/", uri_texts(text["namespace"]))
    if options.grouping == "team":
        return team, text["team"]
    if options.grouping == "namespace":
        return namespace, text["namespace"]
    workload = join(namespace, "/", uri_texts(text["workload_kind"]), "/", uri_texts(text["workload_name"]))
    named = join(text["namespace"], "/", text["workload_kind"], "/", text["workload_name"])
    has_none, of_team = pc.equal(text["workload_name"], ""), pc.equal(text["namespace"], "")
    owner, owner_name = pc.if_else(of_team, team, namespace), pc.if_else(of_team, text["team"], text["namespace"])
    return pc.if_else(has_none, owner, workload), pc.if_else(has_none, owner_name, named)


def _tags(texts: dict[str, pa.Array], rows: int) -> pa.Array:
    pairs = [(f"{TAG_PREFIX}{key.replace('_', '-')}", _or_null(values)) for key, values in texts.items()]
    return json_object([(key, json_texts(values)) for key, values in pairs], rows=rows)


def _or_null(values: pa.Array) -> pa.Array:
    return pc.if_else(pc.equal(values, ""), pa.scalar(None, pa.string()), values)


def _first_known(*columns: pa.Array) -> pa.Array:
    return pc.coalesce(*(_or_null(column) for column in columns))
