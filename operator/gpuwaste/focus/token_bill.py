"""Divide a provider's own rows of tokens among the teams whose calls they charge; nothing is charged twice."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.focus.columns import SUMMABLE
from gpuwaste.focus.ratios import (
    MAX_RATIO_DECIMALS,
    decimals_used,
    multiply_exact,
    ratio_units,
    scaled_decimal,
)
from gpuwaste.focus.texts import decimal_texts, join
from gpuwaste.focus.token_rows import TOKEN_METHOD, team_columns
from gpuwaste.focus.token_table import KINDS

if TYPE_CHECKING:
    from datetime import datetime
    from decimal import Decimal

    from numpy.typing import NDArray

    from gpuwaste.focus.token_prices import TokenPrices

    Int64s = NDArray[np.int64]

__all__ = ["BilledTokens"]

_TOKENS: Final = re.compile(r"(?:(\d+) )?Tokens?")
_UNSEEN: Final = "Unattributed"
_ONE: Final = 10**MAX_RATIO_DECIMALS
_NEEDED: Final = ("ChargeCategory", "ServiceProviderName", "SkuId", "ChargePeriodStart", "ChargePeriodEnd")

_Sku = tuple[str, str]


@dataclass(slots=True, kw_only=True)
class BilledTokens:
    """The calls of providers whose usage stands in a bill.

    Attributes:
        counts: tokens by hour and team, of every SKU: (provider's name, SkuId).
        cluster: so that a team has the id that it has in the rows of its GPUs.
        unmatched: rows of these providers that name no SKU of the price file, by provider and SkuId.
        unseen: rows of the bill whose time has no call.
        uncounted: tokens of calls to models without a SKU, by provider's name and model.
        origins: rows that were divided.
    """

    counts: dict[_Sku, list[tuple[datetime, str, int]]]
    cluster: str
    providers: frozenset[str]
    unmatched: dict[_Sku, int] = field(default_factory=lambda: defaultdict(int))
    unseen: dict[_Sku, int] = field(default_factory=lambda: defaultdict(int))
    uncounted: dict[_Sku, int] = field(default_factory=lambda: defaultdict(int))
    origins: int = 0
    _covered: dict[_Sku, list[tuple[datetime, datetime]]] = field(default_factory=lambda: defaultdict(list))
    _row: int = 0

    @classmethod
    def of(cls, billed: pa.Table, prices: TokenPrices) -> BilledTokens:
        """From what `count_tokens` put aside.

        Args:
            billed: start (an hour), team, provider, model, kind and tokens.
            prices: which SkuId of the bill is which kind of which model.
        """
        by_model: dict[tuple[str, str, str], list[tuple[datetime, str, int]]] = defaultdict(list)
        for row in billed.to_pylist():
            by_model[row["provider"], row["model"], row["kind"]].append((row["start"], row["team"], row["tokens"]))
        counts: dict[_Sku, list[tuple[datetime, str, int]]] = defaultdict(list)
        uncounted: dict[_Sku, int] = defaultdict(int)
        for (key, model, kind), calls in by_model.items():
            known = prices.providers[key].models.get(model)
            if known is None or not known.skus.get(kind):
                uncounted[prices.providers[key].name, model] += sum(tokens for _, _, tokens in calls)
        names = set()
        for key, provider in prices.providers.items():
            names.add(provider.name)
            for model, sold in provider.models.items():
                for kind in KINDS:
                    for sku in sold.skus.get(kind, ()):
                        counts[provider.name, sku] += by_model[key, model, kind]
        return cls(counts=counts, cluster=prices.cluster, providers=frozenset(names), uncounted=uncounted)

    def divide(self, rows: pa.Table) -> pa.Table:
        """FOCUS rows with those of the providers' tokens divided in place; every other row as it came.

        Args:
            rows: of one schema from call to call; the columns of FOCUS 1.3 or 1.4.
        """
        first, self._row = self._row, self._row + len(rows)
        shares = self._shares(rows)
        if not shares:
            return rows
        self.origins += len(shares)
        size = np.ones(len(rows), np.int64)
        size[sorted(shares)] = [len(shares[at]) for at in sorted(shares)]
        index = np.repeat(np.arange(len(rows)), size)
        part = np.isin(index, list(shares))
        flat = [item for at in sorted(shares) for item in shares[at]]
        weight = np.array([tokens for _, tokens in flat], np.int64)
        group = np.repeat(np.arange(len(shares)), [len(shares[at]) for at in sorted(shares)])
        units = ratio_units(weight, group, self._decimals(rows, sorted(shares)))
        ratio = np.full(len(index), _ONE, np.int64)
        ratio[part] = units
        teams = [team for team, _ in flat]
        ids = [f"bill/{rows['SkuId'][at].as_py()}/{first + at}" for at in index[part].tolist()]
        return self._expanded(rows, index, part, ratio=ratio, added=_added(teams, weight, units, ids, self.cluster))

    def _shares(self, rows: pa.Table) -> dict[int, list[tuple[str | None, int]]]:
        """Team and tokens of every row that is divided; None is what no call explains."""
        if any(name not in rows.column_names for name in _NEEDED):
            return {}
        mine = pc.and_(
            pc.equal(rows["ChargeCategory"], "Usage"),
            pc.is_in(rows["ServiceProviderName"], value_set=pa.array(sorted(self.providers), pa.string())),
        )
        if "AllocatedMethodId" in rows.column_names:
            mine = pc.and_(mine, pc.is_null(rows["AllocatedMethodId"]))
        found: dict[int, list[tuple[str | None, int]]] = {}
        for at in pc.indices_nonzero(pc.fill_null(mine, fill_value=False)).to_pylist():
            row = {name: rows[name][at].as_py() for name in _USED if name in rows.column_names}
            sku = (row["ServiceProviderName"], row["SkuId"] or "")
            if sku not in self.counts:
                self.unmatched[sku] += _tokens(row) is not None
                continue
            self._covered[sku].append((row["ChargePeriodStart"], row["ChargePeriodEnd"]))
            share = self._share(row, self.counts[sku])
            if share:
                found[at] = share
            else:
                self.unseen[sku] += 1
        return found

    def beyond(self) -> dict[_Sku, int]:
        """Tokens of calls in time that no row of the bill charges, by SKU; called when all rows were seen."""
        found = {}
        for sku, calls in self.counts.items():
            spans = self._covered[sku]
            out = [tokens for at, _, tokens in calls if not any(start <= at < end for start, end in spans)]
            if out:
                found[sku] = sum(out)
        return found

    def _share(self, row: dict[str, Any], calls: list[tuple[datetime, str, int]]) -> list[tuple[str | None, int]]:
        seen: dict[str | None, int] = defaultdict(int)
        for start, team, tokens in calls:
            if row["ChargePeriodStart"] <= start < row["ChargePeriodEnd"]:
                seen[team] += tokens
        if not seen:
            return []
        billed = _tokens(row)
        rest = 0 if billed is None else billed - sum(seen.values())
        shares: list[tuple[str | None, int]] = sorted(seen.items(), key=lambda item: item[0] or "")
        # Calls that the gateway did not see are nobody's; more than is billed is scaled down by the ratios.
        return [*shares, (None, rest)] if rest > 0 else shares

    def _decimals(self, rows: pa.Table, divided: list[int]) -> Int64s:
        amounts = [rows[name].combine_chunks() for name in SUMMABLE if name in rows.column_names]
        taken = [values.take(pa.array(divided)) for values in amounts]
        used = np.max([decimals_used(values) for values in taken], axis=0, initial=0)
        room = min(values.type.scale for values in amounts)
        decimals: Int64s = np.minimum(MAX_RATIO_DECIMALS, np.maximum(room - used, 0))
        return decimals

    def _expanded(
        self, rows: pa.Table, index: Int64s, part: NDArray[np.bool_], *, ratio: Int64s, added: dict[str, pa.Array]
    ) -> pa.Table:
        taken = rows.take(pa.array(index))
        factor = scaled_decimal(ratio, MAX_RATIO_DECIMALS)
        where = np.full(len(index), -1, np.int64)
        where[part] = np.arange(int(part.sum()))
        place = pa.array(where, mask=~part)
        columns = []
        for column in rows.schema:
            values = taken[column.name].combine_chunks()
            if column.name in SUMMABLE:
                values = multiply_exact(values, factor, column.type)
            elif column.name in added:
                values = pc.if_else(pa.array(part), added[column.name].take(place).cast(column.type), values)
            columns.append(values)
        return pa.table(columns, schema=rows.schema)


_USED: Final = (*_NEEDED, "ConsumedQuantity", "ConsumedUnit", "PricingQuantity", "PricingUnit")


def _added(teams: list[str | None], weight: Int64s, units: Int64s, ids: list[str], cluster: str) -> dict[str, pa.Array]:
    columns = team_columns(pa.array([team or "" for team in teams], pa.string()), cluster)
    unseen = pa.array([team is None for team in teams])
    columns["x_RemainderReason"] = pc.if_else(unseen, _UNSEEN, columns["x_RemainderReason"])
    return columns | {
        "AllocatedMethodId": pa.repeat(TOKEN_METHOD, len(teams)),
        "AllocatedMethodDetails": join(
            '{"Elements":[{"AllocatedRatio":',
            decimal_texts(units, MAX_RATIO_DECIMALS),
            ',"UsageUnit":"Tokens","UsageQuantity":',
            pa.array(weight).cast(pa.string()),
            "}]}",
        ),
        "x_OriginChargeId": pa.array(ids, pa.string()),
    }


def _tokens(row: dict[str, Any]) -> int | None:
    """How many tokens a row of a bill charges, None where its units do not say."""
    for quantity, unit in (("ConsumedQuantity", "ConsumedUnit"), ("PricingQuantity", "PricingUnit")):
        amount: Decimal | None = row.get(quantity)
        match = _TOKENS.fullmatch(row.get(unit) or "")
        if amount is not None and match and amount > 0:
            return round(amount * int(match[1] or 1))
    return None
