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

    from gpuwaste.focus.methods import Method

__all__ = ["Charges", "impute", "query", "weigh"]

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
            `weight`, `held`, `duty`, `effective`, `borrowed` and `unmeasured` in int64 nanoseconds of GPU, and
            `smeared`, the part of the weight that nobody held, where the method smears.
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
        connection.execute(query("owned_rows"), choices)
        _one_currency(connection, options.currency)
        connection.execute(query("charges"))
        connection.execute(query("charged_rows"))
        parts = weigh(connection, options.method)
        charges = connection.sql("SELECT * FROM charges ORDER BY charge").to_arrow_table()
        unpriced = connection.sql(query("unpriced")).to_arrow_table()
    _check_whole(charges, parts, options.method)
    return Charges(charges=_with_amounts(charges), parts=parts, findings=_unpriced(unpriced))


def weigh(connection: duckdb.DuckDBPyConnection, method: Method) -> pa.Table:
    """The parts of the charges in the view `charged_rows`, as `Charges.parts`."""
    parts = connection.sql(query("parts"), params={"basis": method.basis}).to_arrow_table()
    if not method.smeared:
        return parts
    connection.register("parts", parts)
    return connection.sql(query("smeared"), params={"kinds": list(method.smeared)}).to_arrow_table()


def query(name: str) -> str:
    """The SQL of a file in `sql/`."""
    return (files("gpuwaste.focus") / "sql" / f"{name}.sql").read_text(encoding="utf-8")


def _one_currency(connection: duckdb.DuckDBPyConnection, wanted: str) -> None:
    found = [
        currency
        for (currency,) in connection.sql(
            "SELECT DISTINCT currency FROM owned_rows WHERE effective_unit_cost IS NOT NULL ORDER BY currency"
        ).fetchall()
    ]
    if "" in found:
        raise InputError("prices without a currency", where="ledger", fix="give each price a currency and replay")
    if wanted:
        connection.execute(
            "DELETE FROM owned_rows WHERE effective_unit_cost IS NOT NULL AND currency <> $wanted", {"wanted": wanted}
        )
    elif len(found) > 1:
        raise InputError(
            f"costs are in {', '.join(found)}; a sum over several currencies has no meaning",
            where="ledger",
            fix="export each by itself with --currency",
        )


def _check_whole(charges: pa.Table, parts: pa.Table, method: Method) -> None:
    given = np.zeros(len(charges), np.int64)
    np.add.at(given, parts["charge"].to_numpy(), parts["weight"].to_numpy())
    due = charges["owned"].to_numpy()
    if method.basis == "larger":
        due = due + charges["lent_by_holders"].to_numpy()
    if not np.array_equal(given, due):
        wrong = int(np.flatnonzero(given != due)[0])
        row = charges.slice(wrong, 1).to_pylist()[0]
        raise InvariantError(
            f"node {row['node']} {row['period']:%Y-%m-%dT%H:%MZ}: the parts of the ledger add up to {given[wrong]} ns"
            f" and must add up to {due[wrong]} ns"
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
