"""Origin charges imputed from the ledger: what each node cost in a period, before it is divided.

A charge is one node, GPU model and price in one hour or day. Its quantity is in node hours,

    PricingQuantity = owned GPU time / (GPUs × 1 hour), rounded to 6 decimals,

its unit prices are the ledger's prices of a GPU-hour times the GPUs, rounded to 12 decimals, and each cost is
price × quantity, exactly. Both roundings fix what the charge is; nothing after them is rounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.focus.options import ExportOptions, Finding
from gpuwaste.focus.ratios import multiply_exact, scaled_decimal
from gpuwaste.model.errors import InputError, InvariantError
from gpuwaste.model.units import NS_PER_HOUR

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Charges", "impute"]

_QUANTITY_DECIMALS: Final = 6
_PRICE_DECIMALS: Final = 12
_PRICES: Final = ("list", "contracted", "billed", "effective")


@dataclass(frozen=True, slots=True, kw_only=True)
class Charges:
    """Origin charges and their parts.

    Attributes:
        charges: one row a charge: its key and labels, `gpus` int64, `quantity` decimal128(38,6), and for each of
            list, contracted, billed and effective a `<kind>_price` decimal128(38,12) and a `<kind>_cost`
            decimal128(38,28).
        parts: one row a receiver or remainder, sorted by `charge` (row of `charges`), remainder reason and receiver;
            `weight`, `held`, `duty`, `effective` and `unmeasured` in int64 nanoseconds of GPU.
        findings: what was left out, by name.
    """

    charges: pa.Table
    parts: pa.Table
    findings: tuple[Finding, ...]


def impute(ledger: pa.Table, options: ExportOptions) -> Charges:
    """Form the origin charges of a ledger and the parts of each.

    Args:
        ledger: rows of the ledger's schema, of any number of hours; days are whole where the grain is a day.
        options: grain, grouping and currency.

    Raises:
        InputError: the ledger is in several currencies and none was chosen.
        InvariantError: a free row's categories do not add up to what is owned.
    """
    if "hour" in ledger.column_names:
        # DuckDB truncates a time with a zone only by its ICU extension; the ledger's times are UTC without it.
        plain = ledger["hour"].cast(pa.timestamp("us"))
        ledger = ledger.set_column(ledger.column_names.index("hour"), "hour", plain)
    with duckdb.connect() as connection:
        connection.register("ledger", ledger)
        choices = {"grain": options.grain, "grouping": options.grouping}
        rows = connection.sql(_query("rows"), params=choices).to_arrow_table()
        connection.register("owned_rows", _one_currency(rows, options.currency))
        charges, parts, unpriced = (
            connection.sql(_query(name)).to_arrow_table() for name in ("charges", "parts", "unpriced")
        )
    _check_whole(charges, parts)
    return Charges(charges=_with_amounts(charges), parts=parts, findings=_unpriced(unpriced))


def _query(name: str) -> str:
    return (files("gpuwaste.focus") / "sql" / f"{name}.sql").read_text(encoding="utf-8")


def _one_currency(rows: pa.Table, wanted: str) -> pa.Table:
    priced = rows.filter(pc.is_valid(rows["effective_unit_cost"]))
    found = sorted(pc.unique(priced["currency"]).to_pylist())
    if "" in found:
        raise InputError("prices without a currency", where="ledger", fix="give each price a currency and replay")
    if wanted:
        keep = pc.or_kleene(pc.equal(rows["currency"], wanted), pc.is_null(rows["effective_unit_cost"]))
        return rows.filter(keep)
    if len(found) > 1:
        raise InputError(
            f"costs are in {', '.join(found)}; a sum over several currencies has no meaning",
            where="ledger",
            fix="export each by itself with --currency",
        )
    return rows


def _check_whole(charges: pa.Table, parts: pa.Table) -> None:
    given = np.zeros(len(charges), np.int64)
    np.add.at(given, parts["charge"].to_numpy(), parts["weight"].to_numpy())
    owned = charges["owned"].to_numpy()
    if not np.array_equal(given, owned):
        wrong = int(np.flatnonzero(given != owned)[0])
        row = charges.slice(wrong, 1).to_pylist()[0]
        raise InvariantError(
            f"node {row['node']} {row['period']:%Y-%m-%dT%H:%MZ}: the parts of the ledger add up to {given[wrong]} ns"
            f" and {owned[wrong]} ns are owned"
        )


def _with_amounts(charges: pa.Table) -> pa.Table:
    gpus = _gpus(charges)
    quantity = scaled_decimal(
        _divide_half_even(charges["owned"].to_numpy(), gpus * (NS_PER_HOUR // 10**_QUANTITY_DECIMALS)),
        _QUANTITY_DECIMALS,
    )
    table = charges.set_column(charges.column_names.index("gpus"), "gpus", pa.array(gpus))
    table = table.append_column("quantity", quantity)
    for kind in _PRICES:
        price = _node_price(charges[f"{kind}_unit_cost"].combine_chunks(), gpus)
        table = table.append_column(f"{kind}_price", price)
        table = table.append_column(f"{kind}_cost", multiply_exact(price, quantity))
    return table


def _gpus(charges: pa.Table) -> NDArray[np.int64]:
    """GPUs of each charge; capacity that is not there has no GPU to count, and is charged by the single GPU."""
    unprovisioned = charges["unprovisioned"].to_numpy()
    gpus: NDArray[np.int64] = np.where(unprovisioned, 1, charges["gpus"].to_numpy())
    return gpus


def _divide_half_even(amount: NDArray[np.int64], divisor: NDArray[np.int64]) -> NDArray[np.int64]:
    quotient, rest = np.divmod(amount, divisor)
    up = (2 * rest > divisor) | ((2 * rest == divisor) & (quotient % 2 == 1))
    rounded: NDArray[np.int64] = quotient + up
    return rounded


def _node_price(unit_cost: pa.Array, gpus: NDArray[np.int64]) -> pa.Array:
    wide = pc.multiply(unit_cost.cast(pa.decimal256(38, 18)), pa.array(gpus).cast(pa.decimal256(19, 0)))
    rounded = pc.round(wide, ndigits=_PRICE_DECIMALS, round_mode="half_to_even")
    return rounded.cast(pa.decimal128(38, _PRICE_DECIMALS))


def _unpriced(rows: pa.Table) -> tuple[Finding, ...]:
    return tuple(
        Finding(
            where=f"node {row['node'] or '(none)'} ({row['gpu_model']})",
            what=(
                f"no price for {row['owned'] / NS_PER_HOUR:.2f} GPU-hours from {row['first_period']:%Y-%m-%dT%H:%MZ} on"
                "; left out of the export"
            ),
            fix="add the GPU model to the price list and replay the ledger",
        )
        for row in rows.to_pylist()
    )
