"""Tokens as FOCUS rows: one row a period, model, kind and team, in 1,000,000 tokens.

    PricingQuantity = tokens / 1,000,000 (6 decimals, exact), cost = price × quantity, exactly.

A team's calls are counted by themselves, so a row is a charge of its own that goes to its team whole.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.focus.columns import AMOUNT_TYPE
from gpuwaste.focus.options import Finding
from gpuwaste.focus.periods import period_at
from gpuwaste.focus.ratios import multiply_exact, scaled_decimal
from gpuwaste.focus.split import TAG_PREFIX, focus_table, spread
from gpuwaste.focus.texts import ascii_text, join, json_object, json_texts, uri_texts
from gpuwaste.focus.token_table import KINDS
from gpuwaste.model.errors import InputError

if TYPE_CHECKING:
    from decimal import Decimal

    from gpuwaste.focus.columns import Version
    from gpuwaste.focus.options import Grain
    from gpuwaste.focus.token_prices import Provider, TokenPrices

__all__ = ["TOKEN_METHOD", "TokenCharges", "count_tokens", "team_columns", "token_rows"]

TOKEN_METHOD: Final = "gpuwaste-tokens-v1"  # noqa: S105 (no password)
PRICING_UNIT: Final = "1000000 Tokens"
_MILLION_DECIMALS: Final = 6
_MAX_TOKENS: Final = 10**10
"""What DECIMAL(38,28) holds before the point."""
_METERS: Final = {"input": "Input Tokens", "cached": "Cached Input Tokens", "cache_write": "Cache Write Tokens"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCharges:
    """Tokens that make rows of their own.

    Attributes:
        counts: start (of the period), team, provider, model, kind, tokens; sorted by them.
        billed: the same of providers whose usage stands in a bill, with the hour in `start`.
        findings: what was left out, and why.
    """

    counts: pa.Table
    billed: pa.Table
    findings: tuple[Finding, ...]


def count_tokens(calls: pa.Table, prices: TokenPrices, *, grain: Grain) -> TokenCharges:
    """Sum calls by period, team, model and kind, and put aside what makes no row of its own.

    Args:
        calls: rows of TOKEN_SCHEMA.
        prices: what is known of their providers.
        grain: how much time one row covers.
    """
    routes = calls.select(["provider", "endpoint"]).group_by(["provider", "endpoint"]).aggregate([]).to_pylist()
    inside = {
        (one["provider"], one["endpoint"]) for one in routes if prices.runs_in_cluster(one["provider"], one["endpoint"])
    }
    answered = calls.filter(calls["cache_hit"])
    counted = _summed(calls.filter(pc.invert(calls["cache_hit"])), prices)
    kept: dict[str, list[dict[str, Any]]] = {"counts": [], "billed": []}
    left: Counter[tuple[str, str]] = Counter()
    if len(answered):
        tokens = sum(pc.sum(answered[f"{kind}_tokens"]).as_py() for kind in KINDS)
        left["calls that the gateway's own cache answered", "cost nothing"] += tokens
    for row in counted.to_pylist():
        if (row["provider"], row["endpoint"]) in inside:
            left[f"route {row['endpoint'] or row['provider']}", _GPU_COST] += row["tokens"]
            continue
        provider = prices.providers.get(row["provider"])
        if provider is None:
            left[f"provider {row['provider'] or '(none)'}", "is not in the price file"] += row["tokens"]
        elif provider.billed:
            kept["billed"].append(row)
        elif _price(provider, row["model"], row["kind"]) is None:
            left[f"{row['provider']} {row['model']}", f"has no price of {row['kind']} tokens"] += row["tokens"]
        else:
            row["start"] = period_at(row["start"], grain).start
            kept["counts"].append(row)
    findings = tuple(
        Finding(where=where, what=f"{why}; {tokens} tokens make no row")
        for (where, why), tokens in sorted(left.items())
    )
    return TokenCharges(counts=_again(kept["counts"]), billed=_again(kept["billed"]), findings=findings)


_GPU_COST: Final = "is in the cluster, and its cost is the GPU's"
_GROUP: Final = ("start", "team", "provider", "model", "kind")
_COUNTED: Final = pa.schema(
    [("start", pa.timestamp("us", tz="UTC")), *((name, pa.string()) for name in _GROUP[1:]), ("tokens", pa.int64())]
)


def _summed(calls: pa.Table, prices: TokenPrices) -> pa.Table:
    """By hour, team (as it is called here), provider, model, kind and endpoint."""
    named = pc.dictionary_encode(calls["team"].combine_chunks())
    if isinstance(named, pa.ChunkedArray):
        named = named.combine_chunks()
    teams = pa.array([prices.teams.get(team, team) for team in named.dictionary.to_pylist()], pa.string())
    hours = pc.floor_temporal(calls["time"], unit="hour")
    base = {
        "start": hours,
        "team": teams.take(named.indices),
        **{name: calls[name] for name in ("provider", "model", "endpoint")},
    }
    pieces = [
        pa.table({**base, "kind": pa.repeat(kind, len(calls)), "tokens": calls[f"{kind}_tokens"]}) for kind in KINDS
    ]
    table = pa.concat_tables([piece.filter(pc.greater(piece["tokens"], 0)) for piece in pieces])
    return (
        table.group_by([*_GROUP, "endpoint"])
        .aggregate([("tokens", "sum")])
        .rename_columns([*_GROUP, "endpoint", "tokens"])
    )


def _again(rows: list[dict[str, Any]]) -> pa.Table:
    table = pa.Table.from_pylist([{name: row[name] for name in _COUNTED.names} for row in rows], schema=_COUNTED)
    summed = table.group_by(list(_GROUP)).aggregate([("tokens", "sum")]).rename_columns([*_GROUP, "tokens"])
    return summed.sort_by([(name, "ascending") for name in _GROUP])


def _price(provider: Provider, model: str, kind: str) -> Decimal | None:
    known = provider.models.get(model)
    return None if known is None else known.price(kind)


def token_rows(counts: pa.Table, prices: TokenPrices, *, grain: Grain, version: Version) -> pa.Table:
    """FOCUS rows of counted tokens.

    Args:
        counts: as `count_tokens` answers, all of them with a price.
        prices: what a million of them costs.
        grain: how much time one row covers.
        version: of FOCUS.

    Raises:
        InputError: one row has more tokens than a FOCUS amount has digits.
    """
    rows = len(counts)
    columns = {name: counts[name].combine_chunks() for name in counts.column_names}
    tokens = columns["tokens"].to_numpy()
    if (tokens >= _MAX_TOKENS).any():
        raise InputError(
            f"one row has {int(tokens.max())} tokens, and {_MAX_TOKENS - 1} is the most",
            where="usage",
            fix="use --grain hour",
        )
    quantity = scaled_decimal(tokens, _MILLION_DECIMALS)
    sold = [_Sold.of(row, prices) for row in counts.select(["provider", "model", "kind"]).to_pylist()]
    price = pa.array([one.price for one in sold], AMOUNT_TYPE)
    counted = pa.array([one.counted_price for one in sold], AMOUNT_TYPE)
    small = pa.decimal128(38, 12)
    cost = multiply_exact(price.cast(small), quantity)
    prepaid = pa.array([one.prepaid for one in sold], pa.bool_())
    values: dict[str, Any] = {
        **_periods(columns["start"], grain),
        **_who(sold, prices, rows),
        **team_columns(columns["team"], prices.cluster),
        "PricingQuantity": quantity.cast(AMOUNT_TYPE),
        "ConsumedQuantity": columns["tokens"].cast(pa.decimal128(19, 0)).cast(AMOUNT_TYPE),
        "ListCost": cost,
        "ContractedCost": cost,
        "EffectiveCost": cost,
        "BilledCost": pc.if_else(prepaid, pa.scalar(0, AMOUNT_TYPE), cost),
        "PricingCurrencyEffectiveCost": multiply_exact(counted.cast(small), quantity),
        "ListUnitPrice": price,
        "ContractedUnitPrice": price,
        "PricingCurrencyListUnitPrice": counted,
        "PricingCurrencyContractedUnitPrice": counted,
        "AllocatedMethodId": pa.repeat(TOKEN_METHOD, rows),
        "AllocatedMethodDetails": _details(tokens),
        "x_OriginChargeId": _origin_ids(columns),
    }
    every = pa.array(range(rows), pa.int32())
    coded = {
        name: spread(column, every) if pa.types.is_string(column.type) else column for name, column in values.items()
    }
    coded["AllocatedMethodDetails"] = values["AllocatedMethodDetails"]
    return focus_table(coded, rows, version)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sold:
    """What one kind of tokens of a model is to its seller."""

    provider: Provider
    model: str
    kind: str
    price: Decimal
    counted_price: Decimal

    @classmethod
    def of(cls, row: dict[str, str], prices: TokenPrices) -> _Sold:
        provider = prices.providers[row["provider"]]
        counted = _price(provider, row["model"], row["kind"])
        if counted is None:
            raise InputError(f"{row['model']} has no price of {row['kind']} tokens", where=row["provider"])
        price = counted if provider.prepaid is None else counted * provider.prepaid.price
        return cls(provider=provider, model=row["model"], kind=row["kind"], price=price, counted_price=counted)

    @property
    def prepaid(self) -> bool:
        return self.provider.prepaid is not None

    @property
    def meter(self) -> str:
        return _METERS.get(self.kind, "Output Tokens")

    @property
    def sku(self) -> str:
        return ascii_text(f"{self.provider.name}/{self.model}/{self.kind.replace('_', '-')}")


def _who(sold: list[_Sold], prices: TokenPrices, rows: int) -> dict[str, pa.Array]:
    """The columns of the seller and of what is sold."""
    per_row = {
        "name": [one.provider.name for one in sold],
        "service": [one.provider.service or f"{one.provider.name} API" for one in sold],
        "account": [one.provider.account_id or one.provider.name for one in sold],
        "currency": [one.provider.prepaid.unit if one.provider.prepaid else one.provider.currency for one in sold],
    }
    names = pa.array(per_row["name"], pa.string())
    account = pa.array(per_row["account"], pa.string())
    skus = pa.array([one.sku for one in sold], pa.string())
    currency = pa.array(per_row["currency"], pa.string())
    listed = pa.array([f"{one.counted_price.normalize():f}" for one in sold], pa.string())
    models = pa.array([ascii_text(one.model) for one in sold], pa.string())
    meters = pa.array([one.meter for one in sold], pa.string())
    constants = {
        "ChargeCategory": "Usage",
        "ChargeFrequency": "Usage-Based",
        "PricingCategory": "Standard",
        "BillingAccountType": "API Account",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceSubcategory": "Generative AI",
        "PricingUnit": PRICING_UNIT,
        "ConsumedUnit": "Tokens",
        "ResourceType": "Language Model",
    }
    providers = ("HostProviderName", "InvoiceIssuerName", "ProviderName", "PublisherName", "ServiceProviderName")
    return {
        **{name: pa.repeat(text, rows) for name, text in constants.items()},
        **dict.fromkeys(providers, names),
        "BillingCurrency": pa.array([one.provider.currency or prices.billing_currency for one in sold], pa.string()),
        "ServiceName": pa.array(per_row["service"], pa.string()),
        "BillingAccountId": account,
        "BillingAccountName": account,
        "PricingCurrency": currency,
        "ResourceId": join(names, "/", models),
        "ResourceName": models,
        "SkuId": skus,
        "SkuPriceId": join(skus, "/", currency, "/", listed),
        "SkuMeter": meters,
        "SkuPriceDetails": json_object(
            [("x_Model", json_texts(models)), ("x_TokenKind", json_texts(meters))], rows=rows
        ),
        "ChargeDescription": join(meters, " of ", models, ", ", listed, " ", currency, " a million"),
        "x_PriceSource": pa.repeat("TokenPrices", rows),
        "x_PriceDate": pa.array([one.provider.date or None for one in sold], pa.string()),
    }


def _periods(start: pa.Array, grain: Grain) -> dict[str, pa.Array]:
    periods = [period_at(time, grain) for time in start.to_pylist()]
    months = [period_at(time, "month") for time in start.to_pylist()]
    kind = pa.timestamp("us", tz="UTC")
    return {
        "ChargePeriodStart": pa.array([one.start for one in periods], kind),
        "ChargePeriodEnd": pa.array([one.end for one in periods], kind),
        "BillingPeriodStart": pa.array([one.start for one in months], kind),
        "BillingPeriodEnd": pa.array([one.end for one in months], kind),
    }


def team_columns(teams: pa.Array, cluster: str) -> dict[str, pa.Array]:
    """Who receives: the same id and labels as in the rows of the team's GPUs, null where no team is known."""
    nobody = pa.scalar(None, pa.string())
    known = pc.not_equal(teams, "")
    root = join("k8s://", uri_texts(pa.array([cluster])))[0].as_py() + "/" if cluster else ""
    plain = pa.array([ascii_text(team) for team in teams.to_pylist()], pa.string())
    tags = json_object([(f"{TAG_PREFIX}team", json_texts(teams))], rows=len(teams))
    return {
        "AllocatedResourceId": pc.if_else(known, join(f"{root}teams/", uri_texts(teams)), nobody),
        "AllocatedResourceName": pc.if_else(known, plain, nobody),
        "AllocatedTags": pc.if_else(known, tags, nobody),
        "x_Team": pc.if_else(known, plain, nobody),
        "x_RemainderReason": pc.if_else(known, nobody, "Unidentified"),
        "x_ClusterName": pa.repeat(ascii_text(cluster), len(teams)) if cluster else pa.nulls(len(teams), pa.string()),
    }


def _details(tokens: Any) -> pa.Array:
    counts = pa.array(tokens).cast(pa.string())
    return join('{"Elements":[{"AllocatedRatio":1,"UsageUnit":"Tokens","UsageQuantity":', counts, "}]}")


def _origin_ids(columns: dict[str, pa.Array]) -> pa.Array:
    start = pc.strftime(columns["start"].cast(pa.timestamp("s", tz="UTC")), format="%Y-%m-%dT%H:%M:%SZ")
    texts = [uri_texts(columns[name]) for name in ("provider", "model", "kind", "team")]
    pieces = [piece for text in texts for piece in (text, "/")]
    return join("tokens/", *pieces, start)
