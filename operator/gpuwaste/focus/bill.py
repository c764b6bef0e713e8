"""Divide a provider's own FOCUS rows in place: what the node cost is what the bill says."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.focus.bill_columns import fill_columns
from gpuwaste.focus.bill_plan import plan_bill
from gpuwaste.focus.columns import METRICS, SUMMABLE
from gpuwaste.focus.details import method_details
from gpuwaste.focus.options import Finding
from gpuwaste.focus.parts import Parts, gather, take
from gpuwaste.focus.ratios import (
    AMOUNT_DECIMALS,
    AMOUNT_DIGITS,
    MAX_RATIO_DECIMALS,
    decimals_used,
    digits_used,
    multiply_exact,
    ratio_units,
    scaled_decimal,
)
from gpuwaste.focus.split import Split, focus_table, receiver_columns, spread
from gpuwaste.focus.verify_files import Batch
from gpuwaste.focus.verify_rows import broken_pairs, broken_rows, sample_rows
from gpuwaste.model.errors import InputError
from gpuwaste.model.money import EXACT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuwaste.focus.bill_plan import BillPlan
    from gpuwaste.focus.columns import Version
    from gpuwaste.focus.node_hours import NodeHours
    from gpuwaste.focus.options import ExportOptions

    Int64s = NDArray[np.int64]

__all__ = ["split_bill"]

_ONE: Final = 10**MAX_RATIO_DECIMALS


def split_bill(bill: pa.Table, hours: NodeHours, options: ExportOptions) -> Split:
    """Replace the rows that bill a node's time by one row a receiver, and leave every other row as it came.

    Divided are Usage rows (their Corrections included) whose ResourceId is a node of the ledger and whose unit is one
    of time. The ratios of a row are those of its charge period, hours weighted by what they cost.

    Args:
        bill: as `read_bill` answers.
        hours: the ledger of the bill's time, by node and hour.
        options: method, grouping and version.

    Raises:
        InputError: an amount does not fit into 38 digits beside the others of its column.
    """
    columns = fill_columns(bill, options.version)
    amounts = {name: values for name, values in columns.items() if name in METRICS}
    kinds = {name: _amount_kind(name, values) for name, values in amounts.items()}
    amounts = {name: values.cast(kinds[name]) for name, values in amounts.items()}
    plan = plan_bill(columns, amounts, hours)
    spans = gather(hours.parts, plan.cells, plan.span_of_cell)
    first = np.searchsorted(spans.charge, plan.span, side="left")
    size = np.searchsorted(spans.charge, plan.span, side="right") - first
    part = np.repeat(first - (np.cumsum(size) - size), size) + np.arange(int(size.sum()))
    of = np.repeat(np.arange(len(plan.row)), size)
    units = ratio_units(spans.weight[part], of, plan.decimals)
    out = _places(len(bill), plan.row, size)
    ratio = np.full(len(out.row), _ONE, np.int64)
    ratio[out.split] = units
    values = _dimensions(columns, out.row) | _amounts(amounts, kinds, out.row, ratio)
    values |= _allocated(take(spans, part), units=units, plan=plan, of=of, out=out, options=options)
    if "ContractApplied" in columns:
        values["ContractApplied"] = _contract_applied(columns["ContractApplied"], out, units)
    rows = focus_table(values, len(out.row), options.version)
    findings = (*plan.findings, *_broken_before(columns, amounts, len(bill), options.version))
    return Split(rows=rows, charges=len(plan.row), findings=findings)


def _broken_before(
    columns: dict[str, pa.Array], amounts: dict[str, pa.Array], rows: int, version: Version
) -> list[Finding]:
    """Rows of the bill that break a FOCUS rule as they came: they are listed, and not changed."""
    every = _dimensions(columns, np.arange(rows)) | amounts
    batch = Batch(start=0, table=focus_table(every, rows, version))
    found = broken_rows([sample_rows(batch, version)], version)
    found += [(rule, int(at[0]), f"{why} ({len(at)} rows)") for rule, at, why in broken_pairs(batch.table)]
    return [Finding(where=f"bill row {row + 1}", what=f"{rule}: {why}; kept as it came") for rule, row, why in found]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Places:
    """Where rows go: `row` is the bill's row of each row written, `split` the written rows that are parts."""

    row: Int64s
    split: Int64s


def _amount_kind(name: str, values: pa.Array) -> pa.DataType:
    """DECIMAL(38,28), or another scale where a value of the column does not fit into that."""
    digits = int(digits_used(values).max(initial=0))
    decimals = int(decimals_used(values).max(initial=0))
    if digits + AMOUNT_DECIMALS <= AMOUNT_DIGITS and decimals <= AMOUNT_DECIMALS:
        return pa.decimal128(AMOUNT_DIGITS, AMOUNT_DECIMALS)
    if digits + decimals > AMOUNT_DIGITS:
        raise InputError(
            f"has values of {digits} digits before and of {decimals} behind the point, and {AMOUNT_DIGITS} is the most",
            where=f"bill, column {name}",
            fix="deliver the bill's amounts with fewer decimals",
        )
    return pa.decimal128(AMOUNT_DIGITS, AMOUNT_DIGITS - digits)


def _places(rows: int, divided: Int64s, size: Int64s) -> _Places:
    count = np.ones(rows, np.int64)
    count[divided] = size
    is_part = np.zeros(rows, bool)
    is_part[divided] = True
    row = np.repeat(np.arange(rows), count)
    return _Places(row=row, split=np.flatnonzero(is_part[row]))


def _dimensions(columns: dict[str, pa.Array], row: Int64s) -> dict[str, pa.Array]:
    index = pa.array(row)
    return {name: spread(values, index) for name, values in columns.items() if name not in METRICS}


def _amounts(
    amounts: dict[str, pa.Array], kinds: dict[str, pa.DataType], row: Int64s, ratio: Int64s
) -> dict[str, pa.Array]:
    index, factor = pa.array(row), scaled_decimal(ratio, MAX_RATIO_DECIMALS)
    return {
        name: multiply_exact(values.take(index), factor, kinds[name]) if name in SUMMABLE else values.take(index)
        for name, values in amounts.items()
    }


def _allocated(
    parts: Parts, *, units: Int64s, plan: BillPlan, of: Int64s, out: _Places, options: ExportOptions
) -> dict[str, pa.Array]:
    """The columns of the split, null on rows that are no part of one."""
    where = np.full(len(out.row), -1, np.int64)
    where[out.split] = np.arange(len(out.split))
    index = pa.array(where, mask=where < 0)
    receiver = pa.array(parts.receiver).take(index)
    columns = {name: spread(values, receiver) for name, values in receiver_columns(parts.receivers, options).items()}
    charge = pa.array(of).take(index)
    columns["x_OriginChargeId"] = spread(plan.ids, charge)
    columns["x_ClusterName"] = spread(plan.clusters, charge)
    columns["x_NodeName"] = spread(plan.nodes, charge)
    columns["AllocatedMethodId"] = spread(pa.repeat(options.method.id, 1), pc.multiply(charge, 0))
    columns["AllocatedMethodDetails"] = method_details(parts, units, options.method).take(index)
    return columns


def _contract_applied(values: pa.Array, out: _Places, units: Int64s) -> pa.Array:
    """ContractApplied is a metric too: each part applies its ratio of the cost and quantity."""
    texts = values.take(pa.array(out.row)).to_pylist()
    with localcontext(EXACT):
        for at, unit in zip(out.split.tolist(), units.tolist(), strict=True):
            if texts[at] is not None:
                texts[at] = _scaled_json(texts[at], Decimal(unit).scaleb(-MAX_RATIO_DECIMALS))
    return pa.array(texts, pa.string())


def _scaled_json(text: str, ratio: Decimal) -> str:
    document = json.loads(text, parse_float=Decimal, parse_int=Decimal)
    if not isinstance(document, dict) or not isinstance(document.get("Elements"), list):
        return text
    for element in document["Elements"]:
        for key in ("ContractCommitmentAppliedCost", "ContractCommitmentAppliedQuantity"):
            if isinstance(element, dict) and isinstance(element.get(key), Decimal):
                element[key] = element[key] * ratio
    return _dump(document)


def _dump(value: Any) -> str:
    """JSON with decimals as plain numbers, none of them rounded."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{_dump(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_dump(item) for item in value) + "]"
    return json.dumps(value)
