"""Origin charges imputed from the ledger: what each node cost in a period, before it is divided.

A charge is one node, GPU model and price in one hour or day. Its quantity is in node hours,

    PricingQuantity = owned GPU time / (GPUs × 1 hour), rounded to 6 decimals,

its unit prices are the ledger's prices of a GPU-hour times the GPUs, rounded to 12 decimals, and each cost is
price × quantity, exactly. Both roundings fix what the charge is; nothing after them is rounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.focus.options import ExportOptions, Finding
from gpuwaste.focus.parts import Parts, gather
from gpuwaste.focus.purchases import purchases_of
from gpuwaste.focus.ratios import multiply_exact, scaled_decimal
from gpuwaste.focus.rest import money_by, node_cells, rest_rows
from gpuwaste.focus.weights import weigh
from gpuwaste.ledger.schema import PRICE_COLUMNS, WASTE_CATEGORIES
from gpuwaste.model.errors import InputError, InvariantError
from gpuwaste.model.grouping import group_numbers, group_rows, only, sum_by
from gpuwaste.model.units import NS_PER_HOUR

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Int64s = NDArray[np.int64]

__all__ = ["CARRIED", "Charges", "carriers", "impute"]

CARRIED: Final = (
    "hour",
    "cluster",
    "row_kind",
    "node_uid",
    "resource",
    "gpu_uuid",
    "parent_id",
    "slice_id",
    "node",
    "provider_id",
    "pool",
    "gpu_model",
    "namespace",
    "workload_kind",
    "workload_name",
    "team",
    "owned",
    "held",
    "duty",
    "effective",
    "borrowed",
    "lent",
    *WASTE_CATEGORIES,
    *PRICE_COLUMNS,
    "currency",
    "price_source",
    "price_date",
)
"""The columns of the ledger that an export reads."""

_QUANTITY_DECIMALS: Final = 6
_PRICE_DECIMALS: Final = 12
_PRICES: Final = ("list", "contracted", "billed", "effective")
_STAND_INS: Final = {
    "list": ("list", "contracted", "effective"),
    "contracted": ("contracted", "list", "effective"),
    "billed": ("billed", "effective", "contracted", "list"),
    "effective": ("effective", "contracted", "list"),
}
"""A price that is not known is the next one known: what no invoice says is billed as it is effective."""

_KEY: Final = (
    "period",
    "cluster",
    "node_uid",
    "gpu_model",
    "unprovisioned",
    "purchase",
    *(f"{kind}_unit_cost" for kind in _PRICES),
    "currency",
    "price_source",
    "price_date",
)
_LABELS: Final = ("node", "provider_id", "pool")


@dataclass(frozen=True, slots=True, kw_only=True)
class Charges:
    """Origin charges and their parts.

    Attributes:
        charges: one row a charge, in the order of its key: the key, labels, `gpus` int64, `quantity` decimal128(38,6),
            and for each of list, contracted, billed and effective a `<kind>_price` decimal128(38,12) and a
            `<kind>_cost` decimal128(38,28).
        parts: of the charges, by their position.
        findings: what was left out, by name.
    """

    charges: pa.Table
    parts: Parts
    findings: tuple[Finding, ...]


def carriers(ledger: pa.Table) -> pa.Table:
    """The rows that can carry a GPU's cost, or explain who used it."""
    uses = pc.or_(pc.greater(ledger["owned"], 0), pc.equal(ledger["row_kind"], "unattributed"))
    return only(ledger, pc.and_(pc.equal(ledger["resource"], "gpu"), uses))


def impute(ledger: pa.Table, options: ExportOptions) -> Charges:
    """Form the origin charges of a ledger and the parts of each.

    Args:
        ledger: rows of the ledger's schema, of any number of hours; days are whole where the grain is a day.
        options: grain, grouping, method and currency.

    Raises:
        InputError: the ledger is in several currencies and none was chosen.
        InvariantError: the parts of a charge do not add up to what is owned.
    """
    rows = _with_key(carriers(ledger), options)
    for name, values in purchases_of(ledger, rows).items():
        rows = rows.append_column(name, values)
    priced = pc.is_valid(rows["effective_unit_cost"])
    findings = _unpriced(only(rows, pc.invert(priced)))
    rows = _one_currency(only(rows, priced), options.currency)
    groups = group_rows([rows[name] for name in _KEY])
    of, count = groups.of, len(groups.first)
    owned = sum_by(of, rows["owned"].to_numpy(), count)
    # Work that ran without a holder may stand under a key of its own only where nothing is owned.
    if (owned == 0).any():
        lost = rows.slice(int(groups.first[int(np.argmin(owned))]), 1).to_pylist()[0]
        raise InvariantError(f"node {lost['node']} {lost['hour']:%Y-%m-%dT%H:%MZ}: rows of one GPU differ in price")
    charges = rows.select([*_KEY, *_LABELS]).take(pa.array(groups.first)).combine_chunks()
    gpu = group_numbers([of, group_rows([rows["gpu_uuid"]]).of])
    gpus = np.bincount(of[gpu.first], minlength=count).astype(np.int64)
    hours = group_numbers([of, group_rows([rows["hour"]]).of])
    cells = len(hours.first)
    of_cell = rows.select(["cluster", "owner_namespace", "owner_team"]).take(pa.array(hours.first))
    owners = of_cell.rename_columns(["cluster", "namespace", "team"])
    rest, cell_of_rest, without_gpus = _rest(ledger, rows, hours.of, options)
    if len(rest):
        both = pa.concat_tables([rows.select(CARRIED), rest.select(CARRIED)])
        cell_of_both = np.concatenate([hours.of, cell_of_rest])
        parts = weigh(both, cell_of_both, cells, grouping=options.grouping, method=options.method, owners=owners)
    else:
        parts = weigh(rows, hours.of, cells, grouping=options.grouping, method=options.method, owners=owners)
    if options.grain == "day":
        parts = gather(parts, np.arange(cells), of[hours.first])
    money = {
        kind: money_by(rest, of[hours.first][cell_of_rest], count, f"{kind}_unit_cost") if len(rest) else None
        for kind in _PRICES
    }
    return Charges(charges=_with_amounts(charges, owned, gpus, money), parts=parts, findings=(*findings, *without_gpus))


def _rest(
    ledger: pa.Table, gpus: pa.Table, cells: Int64s, options: ExportOptions
) -> tuple[pa.Table, Int64s, tuple[Finding, ...]]:
    """CPU and memory of the nodes, the cell of GPUs that each row is charged with, and what has none."""
    rest = rest_rows(ledger)
    if options.currency:
        rest = only(rest, pc.equal(rest["currency"], options.currency))
    if not len(rest):
        return rest, np.zeros(0, np.int64), ()
    rest = _with_key(rest, options)
    cell = node_cells(gpus, cells, rest)
    lost = pc.unique(rest["node"].filter(pa.array(cell < 0))).to_pylist()
    findings = tuple(
        Finding(
            where=f"node {node or '(none)'}",
            what="its CPU and memory cost something and its GPUs have no price; left out of the export",
            fix="add the GPU model to the price list and replay the ledger",
        )
        for node in sorted(lost)
    )
    return only(rest, pa.array(cell >= 0)), cell[cell >= 0], findings


def _with_key(rows: pa.Table, options: ExportOptions) -> pa.Table:
    """The rows with the columns of the key: the period, and a price of each kind that any price is known of."""
    known = {kind: rows[f"{kind}_unit_cost"] for kind in _PRICES}
    columns = {name: rows[name] for name in rows.column_names}
    columns["period"] = pc.floor_temporal(rows["hour"], unit=options.grain)
    columns["unprovisioned"] = pc.equal(rows["row_kind"], "unprovisioned")
    for kind, order in _STAND_INS.items():
        columns[f"{kind}_unit_cost"] = pc.coalesce(*(known[other] for other in order))
    for name in ("currency", "price_source", "price_date"):
        columns[name] = pc.fill_null(rows[name], "")
    return pa.table(columns)


def _one_currency(rows: pa.Table, wanted: str) -> pa.Table:
    if wanted:
        return only(rows, pc.equal(rows["currency"], wanted))
    found = sorted(pc.unique(rows["currency"]).to_pylist())
    if "" in found:
        raise InputError("prices without a currency", where="ledger", fix="give each price a currency and replay")
    if len(found) > 1:
        raise InputError(
            f"costs are in {', '.join(found)}; a sum over several currencies has no meaning",
            where="ledger",
            fix="export each by itself with --currency",
        )
    return rows


def _with_amounts(
    charges: pa.Table, owned: Int64s, gpus: Int64s, rest: dict[str, Sequence[Decimal] | None]
) -> pa.Table:
    # Capacity that is not there has no GPU to count, and is charged by the single GPU.
    gpus = np.where(charges["unprovisioned"].to_numpy(), 1, gpus)
    quantity = scaled_decimal(
        _divide_half_even(owned, gpus * (NS_PER_HOUR // 10**_QUANTITY_DECIMALS)), _QUANTITY_DECIMALS
    )
    table = charges.append_column("gpus", pa.array(gpus)).append_column("quantity", quantity)
    for kind in _PRICES:
        price = _node_price(charges[f"{kind}_unit_cost"].combine_chunks(), gpus, rest[kind], quantity)
        table = table.append_column(f"{kind}_price", price)
        table = table.append_column(f"{kind}_cost", multiply_exact(price, quantity))
    return table


def _divide_half_even(amount: Int64s, divisor: Int64s) -> Int64s:
    quotient, rest = np.divmod(amount, divisor)
    up = (2 * rest > divisor) | ((2 * rest == divisor) & (quotient % 2 == 1))
    rounded: Int64s = quotient + up
    return rounded


def _node_price(unit_cost: pa.Array, gpus: Int64s, rest: Sequence[Decimal] | None, quantity: pa.Array) -> pa.Array:
    """What an hour of the node costs: its GPUs, and its CPU and memory spread over the hours of the charge."""
    kind = pa.decimal128(38, _PRICE_DECIMALS)
    wide = pc.multiply(unit_cost.cast(pa.decimal256(38, 18)), pa.array(gpus).cast(pa.decimal256(19, 0)))
    if rest is None:
        return pc.round(wide, ndigits=_PRICE_DECIMALS, round_mode="half_to_even").cast(kind)
    with localcontext(prec=60, rounding=ROUND_HALF_EVEN):
        prices = [
            (of_gpus + (money / hours if hours else 0)).quantize(Decimal(1).scaleb(-_PRICE_DECIMALS))
            for of_gpus, money, hours in zip(wide.to_pylist(), rest, quantity.to_pylist(), strict=True)
        ]
    return pa.array(prices, kind)


def _unpriced(rows: pa.Table) -> tuple[Finding, ...]:
    left_out = (
        rows.group_by(["cluster", "node", "gpu_model"])
        .aggregate([("owned", "sum"), ("hour", "min")])
        .sort_by([(name, "ascending") for name in ("cluster", "node", "gpu_model")])
    )
    return tuple(
        Finding(
            where=f"node {row['node'] or '(none)'} ({row['gpu_model']})",
            what=(
                f"no price for {row['owned_sum'] / NS_PER_HOUR:.2f} GPU-hours from {row['hour_min']:%Y-%m-%dT%H:%MZ} on"
                "; left out of the export"
            ),
            fix="add the GPU model to the price list and replay the ledger",
        )
        for row in left_out.to_pylist()
    )
