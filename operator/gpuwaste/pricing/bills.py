"""Prices of machines from a provider's own FOCUS export, version 1.0 to 1.4, Parquet or CSV.

What a machine cost in a charge period, by the hours that were charged, is its price an hour in that period. Only
charges of usage by time count, at all four of FOCUS's amounts; taxes, fees and purchases are no price of a machine,
nor are traffic and volumes, though their charges may name it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import TYPE_CHECKING, Any, Final

import duckdb

from gpuwaste.model.errors import InputError
from gpuwaste.model.units import HOUR, hour_start

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = [
    "BILL_SUFFIXES",
    "DATA_CATEGORIES",
    "TIME_UNIT",
    "BillPrices",
    "Charge",
    "Exchange",
    "bill_files",
    "machine_names",
    "read_bill_prices",
]

BILL_SUFFIXES: Final = (".parquet", ".csv", ".csv.gz")
_NEEDED: Final = ("ChargeCategory", "ChargePeriodStart", "ChargePeriodEnd", "ResourceId", "BillingCurrency")
_COSTS: Final = ("ListCost", "ContractedCost", "BilledCost", "EffectiveCost")
_MACHINES: Final = r"((instance|compute|machine|node|server|vm)s?[ -]?)?"
_PARTS: Final = r"((accelerator|core|cpu|gpu|vcpu|gib|gb|gibibyte|gigabyte)s?[ -])?"
_HOURS: Final = rf"^{_MACHINES}(hours?|hrs?|h)$"
DATA_CATEGORIES: Final = ("Networking", "Storage")
"""The service categories of FOCUS whose charges are no machine's, even where they name one: traffic and volumes."""
TIME_UNIT: Final = (
    rf"^([0-9]+ )?({_MACHINES}(years?|months?|days?|hours?|hrs?|h|minutes?|mins?|seconds?|secs?|s)"
    rf"|{_PARTS}(hours?|hrs?|minutes?|seconds?))$"
)
"""Units, in lower case, of what a machine is billed by: its time, or that of its parts, some times over."""
_BOOT_LIMIT: Final = timedelta(hours=2)
_STEP: Final = Decimal(1).scaleb(-18)
_ROUNDING: Final = Context(prec=60, rounding=ROUND_HALF_EVEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """The currency that prices are wanted in, and what one unit of each other is in it.

    Attributes:
        currency: ISO 4217; empty takes every bill's own.
        rates: currency to its value in `currency`.
    """

    currency: str = ""
    rates: Mapping[str, Decimal] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """What a machine cost in a charge period.

    Attributes:
        start: start of the period.
        end: its end.
        hours: how many hours of it were charged.
        costs: list, contracted, billed and effective cost of the period; None where the bill does not say.
        currency: of the costs.
    """

    start: datetime
    end: datetime
    hours: Decimal
    costs: tuple[Decimal | None, ...]
    currency: str


@dataclass(frozen=True, slots=True)
class BillPrices:
    """Charges of machines by the machine's name in lower case, sorted by start."""

    charges: Mapping[str, tuple[Charge, ...]] = field(default_factory=dict)

    def of(self, provider_id: str) -> tuple[Charge, ...]:
        """All charges of a node's machine; empty where the bill does not have it."""
        return next((self.charges[name] for name in machine_names(provider_id) if name in self.charges), ())

    def hourly(self, provider_id: str, hour: datetime) -> tuple[tuple[Decimal | None, ...], str] | None:
        """The four costs of the hour that starts at `hour`, and their currency; None where no charge touches it.

        Charges of one time add up; of charges that follow one another within the hour each counts for its time.
        """
        end = hour + HOUR
        touching = [one for one in self.of(provider_id) if one.start < end and one.end > hour]
        if not touching:
            return None
        inside = [(max(one.start, hour), min(one.end, end)) for one in touching]
        whole = _covered_seconds(inside)
        costs: list[Decimal | None] = []
        for kind in range(len(_COSTS)):
            known = [
                (_divide(cost, one.hours), _seconds(first, last))
                for one, (first, last) in zip(touching, inside, strict=True)
                if (cost := one.costs[kind]) is not None
            ]
            mean = sum(
                (rate if took == whole else _divide(_ROUNDING.multiply(rate, took), whole) for rate, took in known),
                Decimal(0),
            )
            costs.append(mean if len(known) == len(touching) else None)
        return tuple(costs), touching[0].currency

    def billed_from(self, provider_id: str, present: datetime) -> datetime:
        """When the machine of a node that came at `present` began to be charged: earlier while it booted."""
        before = [one for one in self.of(provider_id) if one.start <= present < one.end or one.end == present]
        if not before:
            return present
        first = before[0]
        began = max(first.start, first.end - timedelta(hours=float(first.hours)))
        return began if present - _BOOT_LIMIT <= began < present else present

    def hours(self) -> set[datetime]:
        """The hours that any charge covers."""
        found: set[datetime] = set()
        for charge in {(one.start, one.end) for charges in self.charges.values() for one in charges}:
            at = hour_start(charge[0])
            while at < charge[1]:
                found.add(at)
                at += HOUR
        return found


def _last_segment(identity: str) -> str:
    """`i-0abc` of `aws:///us-east-1a/i-0abc` and of `arn:aws:ec2:us-east-1:1:instance/i-0abc`."""
    return re.split(r"[/:]", identity.rstrip("/"))[-1]


def machine_names(identity: str) -> tuple[str, ...]:
    """The names by which a node's provider id and a bill's ResourceId meet, the surest first.

    The whole id without its scheme, and its last part unless that is a mere number: Azure counts the machines of
    every scale set from 0.
    """
    whole = re.sub(r"^[a-z]+:/{0,2}(?=/)", "", identity.lower())
    last = _last_segment(identity.lower())
    return tuple(dict.fromkeys(name for name in (whole, "" if last.isdigit() else last) if name))


def bill_files(paths: Iterable[Path]) -> list[Path]:
    """The files of an export: those named, and those with a known ending in folders that are named; sorted.

    Raises:
        InputError: a path is not there, or a folder holds no such file.
    """
    found: set[Path] = set()
    for path in paths:
        if not path.is_dir():
            if not path.is_file():
                raise InputError("there is no such file or folder", where=str(path))
            found.add(path)
            continue
        inside = {file for file in path.rglob("*") if file.is_file() and file.name.lower().endswith(BILL_SUFFIXES)}
        if not inside:
            raise InputError(f"holds no file that ends in {', '.join(BILL_SUFFIXES)}", where=str(path))
        found |= inside
    return sorted(found)


def read_bill_prices(paths: Iterable[Path], exchange: Exchange | None = None) -> BillPrices:
    """Read the charges of machines from the files of an export.

    Args:
        paths: files that together hold each charge once.
        exchange: the wanted currency, with rates.

    Raises:
        InputError: a file cannot be read or is no FOCUS bill, its amounts are in a currency that has no rate, or two
            files hold the same charge; names the file.
    """
    exchange = exchange or Exchange()
    found: dict[str, list[Charge]] = defaultdict(list)
    seen: dict[tuple[Any, ...], Path] = {}
    parts: dict[tuple[str, datetime, datetime, str], list[tuple[Decimal | None, tuple[Decimal | None, ...]]]]
    parts = defaultdict(list)
    for path in paths:
        for row in _rows(path):
            key = tuple(row.values())
            if key in seen and seen[key] != path:
                first = f"of {row['ResourceId']} from {row['start']:%Y-%m-%d}"
                raise InputError(
                    f"holds charges that {seen[key]} holds as well, {first}",
                    where=str(path),
                    fix="give the files of one delivery only",
                )
            seen[key] = path
            costs, currency = _exchanged(row, exchange, path)
            parts[row["ResourceId"], row["start"], row["end"], currency].append((row["hours"], costs))
    for (resource, start, end, currency), rows in parts.items():
        whole = Decimal(round((end - start).total_seconds())) / 3600
        charged = [hours for hours, _ in rows if hours is not None and hours > 0]
        costs = tuple(_sum([costs[kind] for _, costs in rows]) for kind in range(len(_COSTS)))
        hours = min(max(charged), whole) if charged else whole
        charge = Charge(start=start, end=end, hours=hours, costs=costs, currency=currency)
        for name in machine_names(resource):
            found[name].append(charge)
    _refuse_several_currencies(found)
    return BillPrices(
        {name: tuple(sorted(found[name], key=lambda one: (one.start, one.end))) for name in sorted(found)}
    )


def _refuse_several_currencies(found: Mapping[str, list[Charge]]) -> None:
    currencies = sorted({charge.currency for charges in found.values() for charge in charges})
    if len(currencies) > 1:
        raise InputError(
            f"amounts are in {' and '.join(currencies)}, which cannot be added",
            where="bills",
            fix="set `pricing.currency` and a rate for each other currency in `pricing.exchangeRates`",
        )


def _sum(values: list[Decimal | None]) -> Decimal | None:
    known = [value for value in values if value is not None]
    return sum(known, Decimal(0)) if len(known) == len(values) else None


def _divide(amount: Decimal, hours: Decimal) -> Decimal:
    return _ROUNDING.divide(amount, hours).quantize(_STEP, context=_ROUNDING)


def _seconds(first: datetime, last: datetime) -> Decimal:
    return Decimal((last - first) // timedelta(microseconds=1)).scaleb(-6)


def _covered_seconds(parts: Iterable[tuple[datetime, datetime]]) -> Decimal:
    """How long any of them lasts."""
    covered, until = Decimal(0), None
    for first, last in sorted(parts):
        begins = first if until is None else max(first, until)
        if last > begins:
            covered += _seconds(begins, last)
            until = last
    return covered


def _exchanged(row: dict[str, Any], exchange: Exchange, path: Path) -> tuple[tuple[Decimal | None, ...], str]:
    currency, costs = row["BillingCurrency"], tuple(row[name] for name in _COSTS)
    if not exchange.currency or currency == exchange.currency:
        return costs, currency
    rate = exchange.rates.get(currency)
    if rate is None:
        raise InputError(
            f"amounts are in {currency or 'no currency'}, and prices are wanted in {exchange.currency}",
            where=str(path),
            fix=f"set `pricing.exchangeRates.{currency or 'XXX'}` to what one {currency or 'unit'} is in it",
        )
    return tuple(None if cost is None else _ROUNDING.multiply(cost, rate) for cost in costs), exchange.currency


def _rows(path: Path) -> list[dict[str, Any]]:
    """Charges of usage by resource, period, currency and SKU: the hours charged and the four costs."""
    if not path.is_file():
        raise InputError("there is no such file", where=str(path))
    if not path.name.lower().endswith(BILL_SUFFIXES):
        raise InputError(f"is none of {', '.join(BILL_SUFFIXES)}", where=str(path))
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        try:
            bill = _open(connection, path)
            missing = [name for name in _NEEDED if name not in bill.columns]
            if missing or not set(_COSTS) & set(bill.columns):
                what = ", ".join(missing or _COSTS)
                raise InputError(f"column {what} is missing: this is no FOCUS bill", where=str(path))
            rows: list[dict[str, Any]] = connection.sql(_query(bill.columns)).to_arrow_table().to_pylist()
        except duckdb.Error as error:
            first = str(error).strip().splitlines()[0]
            raise InputError(f"not readable as a FOCUS bill: {first}", where=str(path)) from None
    for row in rows:
        row["start"], row["end"] = (row[name].astimezone(UTC) for name in ("start", "end"))
        if row["end"] <= row["start"]:
            raise InputError(f"a charge of {row['ResourceId']} ends before it starts", where=str(path))
    return rows


def _open(connection: duckdb.DuckDBPyConnection, path: Path) -> duckdb.DuckDBPyRelation:
    if path.suffix == ".parquet":
        bill = connection.read_parquet(str(path))
    else:
        bill = connection.read_csv(str(path), all_varchar=True, header=True)
    bill.create_view("bill")
    return bill


def _query(columns: list[str]) -> str:
    """The SQL of `_rows`; every name in it is a constant of this module."""

    def number(name: str) -> str:
        return f"CAST({name} AS DECIMAL(38, 18))" if name in columns else "CAST(NULL AS DECIMAL(38, 18))"

    sku = next((name for name in ("SkuId", "SkuPriceId", "ChargeDescription") if name in columns), "''")
    hours = []
    for kind in ("Consumed", "Pricing"):
        if f"{kind}Quantity" in columns and f"{kind}Unit" in columns:
            test = f"regexp_matches(lower(CAST({kind}Unit AS VARCHAR)), '{_HOURS}')"
            hours.append(f"CASE WHEN {test} THEN {number(f'{kind}Quantity')} END")
    costs = ", ".join(f"SUM({number(name)}) AS {name}" for name in _COSTS)
    known = {
        "PricingUnit": f"COALESCE(regexp_matches(lower(CAST(PricingUnit AS VARCHAR)), '{TIME_UNIT}'), TRUE)",
        "ServiceCategory": f"COALESCE(ServiceCategory NOT IN {DATA_CATEGORIES}, TRUE)",
    }
    of_machines = " AND ".join(["TRUE", *(test for name, test in known.items() if name in columns)])
    return f"""
        SELECT ResourceId,
          CAST(ChargePeriodStart AS TIMESTAMPTZ) AS start, CAST(ChargePeriodEnd AS TIMESTAMPTZ) AS "end",
          COALESCE(BillingCurrency, '') AS BillingCurrency, COALESCE(CAST({sku} AS VARCHAR), '') AS sku,
          SUM(COALESCE({", ".join([*hours, "NULL"])})) AS hours, {costs}
        FROM bill
        WHERE ChargeCategory = 'Usage' AND COALESCE(ResourceId, '') <> '' AND {of_machines}
        GROUP BY ALL ORDER BY ALL
    """  # noqa: S608
