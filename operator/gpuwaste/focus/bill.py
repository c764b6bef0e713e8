"""Divide a provider's own FOCUS rows in place: what the node cost is what the bill says."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.focus.bill_columns import fill_columns, renamed_columns
from gpuwaste.focus.bill_files import amount_type
from gpuwaste.focus.bill_plan import BillPlanner
from gpuwaste.focus.columns import METRICS, SUMMABLE
from gpuwaste.focus.details import element_units, method_details
from gpuwaste.focus.json_values import json_text
from gpuwaste.focus.options import Finding
from gpuwaste.focus.parts import Parts, gather, take
from gpuwaste.focus.ratios import (
    MAX_RATIO_DECIMALS,
    decimals_used,
    digits_used,
    multiply_exact,
    scaled_decimal,
)
from gpuwaste.focus.split import Split, focus_table, receiver_columns, spread
from gpuwaste.focus.verify_files import Batch
from gpuwaste.focus.verify_rows import broken_pairs, broken_rows, sample_rows
from gpuwaste.model.money import EXACT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuwaste.focus.bill_plan import BillPlan
    from gpuwaste.focus.columns import Version
    from gpuwaste.focus.node_hours import NodeHours
    from gpuwaste.focus.options import ExportOptions

    Int64s = NDArray[np.int64]

__all__ = [
    "AmountSizes",
    "BillRows",
    "Receivers",
    "broken_before",
    "broken_texts",
    "sample_of",
    "split_bill",
    "split_rows",
]

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
    sizes = AmountSizes()
    sizes.add(bill, options.version)
    planner = BillPlanner(hours.nodes)
    rows = BillRows.of(bill, np.arange(len(bill)), sizes.kinds(), options.version)
    plan = planner.plan(rows.columns, rows.amounts, hours, rows.number)
    table = split_rows(rows, plan, Receivers.of(hours, options), options)
    broken = broken_before([sample_of(rows, options.version)], options.version)
    findings = (*renamed_columns(bill.column_names), *planner.findings(), *broken, *broken_texts(rows))
    return Split(rows=table, charges=len(plan.row), findings=findings)


@dataclass(slots=True)
class AmountSizes:
    """The most digits and decimals that any value of each metric has, over all pieces of a bill."""

    digits: dict[str, int] = field(default_factory=dict)
    decimals: dict[str, int] = field(default_factory=dict)

    def add(self, bill: pa.Table, version: Version) -> None:
        """Take in the rows of a piece."""
        columns = fill_columns(bill, version)
        for name in columns.keys() & set(METRICS):
            values = columns[name]
            self.digits[name] = max(self.digits.get(name, 0), int(digits_used(values).max(initial=0)))
            self.decimals[name] = max(self.decimals.get(name, 0), int(decimals_used(values).max(initial=0)))

    def kinds(self) -> dict[str, pa.DataType]:
        """The type of each metric: DECIMAL(38,28), or another scale where a value does not fit into that.

        Raises:
            InputError: no scale holds all values of a column.
        """
        return {
            name: amount_type(f"bill, column {name}", self.digits[name], self.decimals[name]) for name in self.digits
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class BillRows:
    """Some rows of a bill in the columns of the target version.

    Attributes:
        columns: all of them, as they came.
        amounts: the metrics among them, as they are written.
        kinds: the types of these.
        number: int64[n], the number of each row in the bill.
    """

    columns: dict[str, pa.Array]
    amounts: dict[str, pa.Array]
    kinds: dict[str, pa.DataType]
    number: Int64s

    @classmethod
    def of(cls, bill: pa.Table, number: Int64s, kinds: dict[str, pa.DataType], version: Version) -> BillRows:
        """The rows of a table as `read_bill` answers it."""
        columns = fill_columns(bill, version)
        nothing = {name: pa.nulls(len(bill), kind) for name, kind in kinds.items()}
        amounts = nothing | {name: values.cast(kinds[name]) for name, values in columns.items() if name in METRICS}
        return cls(columns=columns, amounts=amounts, kinds=kinds, number=number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receivers:
    """The ledger of some time by node and hour, and the columns of its receivers, made once."""

    parts: Parts
    columns: dict[str, pa.Array]

    @classmethod
    def of(cls, hours: NodeHours, options: ExportOptions) -> Receivers:
        """The receivers of a ledger."""
        return cls(parts=hours.parts, columns=receiver_columns(hours.parts.receivers, options))


def split_rows(rows: BillRows, plan: BillPlan, receivers: Receivers | None, options: ExportOptions) -> pa.Table:
    """The rows that are written for some rows of a bill, in their order.

    Args:
        rows: of the bill.
        plan: which of them are divided, by what.
        receivers: whose node hours the plan names; None where it names none.
        options: method and version.
    """
    count = len(rows.number)
    if receivers is None or not len(plan.row):
        whole = np.arange(count)
        values = _dimensions(rows.columns, whole) | rows.amounts
        return focus_table(values, count, options.version)
    spans = gather(receivers.parts, plan.cells, plan.span_of_cell)
    first = np.searchsorted(spans.charge, plan.span, side="left")
    size = np.searchsorted(spans.charge, plan.span, side="right") - first
    part = np.repeat(first - (np.cumsum(size) - size), size) + np.arange(int(size.sum()))
    of = np.repeat(np.arange(len(plan.row)), size)
    figures = take(spans, part)
    elements = element_units(figures, of, plan.decimals)
    units = elements.sum(axis=1)
    out = _places(count, plan.row, size)
    ratio = np.full(len(out.row), _ONE, np.int64)
    ratio[out.split] = units
    values = _dimensions(rows.columns, out.row) | _amounts(rows.amounts, rows.kinds, out.row, ratio)
    parts = _Parts(figures, elements, of, receivers.columns)
    values |= _kept_beside(_allocated(parts, plan=plan, out=out, options=options), values, out)
    if "ContractApplied" in rows.columns:
        values["ContractApplied"] = _contract_applied(rows.columns["ContractApplied"], out, units)
    return focus_table(values, len(out.row), options.version)


def sample_of(rows: BillRows, version: Version) -> pa.Table:
    """One row for all rows that no rule of single rows tells apart."""
    sample = sample_rows(_batch(rows, version), version)
    at = sample.column_names.index("row_number")
    return sample.set_column(at, "row_number", pa.array(rows.number[sample["row_number"].to_numpy()]))


def broken_before(samples: list[pa.Table], version: Version) -> tuple[Finding, ...]:
    """Rows of a bill that break a FOCUS rule as they came: they are listed, and not changed."""
    return tuple(_kept(row, rule, why) for rule, row, why in broken_rows(samples, version))


def broken_texts(rows: BillRows) -> tuple[Finding, ...]:
    """The same for tags and other objects."""
    found = broken_pairs(_batch(rows, "1.3").table)
    return tuple(_kept(int(rows.number[at[0]]), rule, f"{why} ({len(at)} rows)") for rule, at, why in found)


def _kept(row: int, rule: str, why: str) -> Finding:
    return Finding(where=f"bill row {row + 1}", what=f"{rule}: {why}; kept as it came")


def _batch(rows: BillRows, version: Version) -> Batch:
    every = _dimensions(rows.columns, np.arange(len(rows.number))) | rows.amounts
    return Batch(start=0, table=focus_table(every, len(rows.number), version))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Places:
    """Where rows go: `row` is the bill's row of each row written, `split` the written rows that are parts."""

    row: Int64s
    split: Int64s


@dataclass(frozen=True, slots=True)
class _Parts:
    """Parts of the rows that are divided: figures, ratios of their elements, the row of each, and who receives."""

    figures: Parts
    elements: Int64s
    of: Int64s
    receivers: dict[str, pa.Array]


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


def _allocated(parts: _Parts, *, plan: BillPlan, out: _Places, options: ExportOptions) -> dict[str, pa.Array]:
    """The columns of the split, null on rows that are no part of one."""
    where = np.full(len(out.row), -1, np.int64)
    where[out.split] = np.arange(len(out.split))
    index = pa.array(where, mask=where < 0)
    receiver = pa.array(parts.figures.receiver).take(index)
    columns = {name: spread(column, receiver) for name, column in parts.receivers.items()}
    charge = pa.array(parts.of).take(index)
    columns["x_OriginChargeId"] = spread(plan.ids, charge)
    columns["x_ClusterName"] = spread(plan.clusters, charge)
    columns["x_NodeName"] = spread(plan.nodes, charge)
    columns["AllocatedMethodId"] = spread(pa.repeat(options.method.id, 1), pc.multiply(charge, 0))
    columns["AllocatedMethodDetails"] = method_details(parts.figures, parts.elements, options.method).take(index)
    return columns


def _kept_beside(ours: dict[str, pa.Array], theirs: dict[str, pa.Array], out: _Places) -> dict[str, pa.Array]:
    """Our columns of the split, and on rows that are no part of ours what the bill has in them."""
    is_part = np.zeros(len(out.row), bool)
    is_part[out.split] = True
    both = dict(ours)
    for name in ours.keys() & theirs.keys():
        if theirs[name].null_count < len(theirs[name]):
            both[name] = pc.if_else(pa.array(is_part), _texts(ours[name]), _texts(theirs[name]))
    return both


def _texts(values: pa.Array) -> pa.Array:
    return values.cast(pa.string())


def _contract_applied(values: pa.Array, out: _Places, units: Int64s) -> pa.Array:
    """ContractApplied is a metric too: each part applies its ratio of the cost and quantity."""
    texts = values.take(pa.array(out.row)).to_pylist()
    with localcontext(EXACT):
        for at, unit in zip(out.split.tolist(), units.tolist(), strict=True):
            if texts[at] is not None:
                texts[at] = _scaled_json(texts[at], Decimal(unit).scaleb(-MAX_RATIO_DECIMALS))
    return pa.array(texts, pa.string())


def _scaled_json(text: str, ratio: Decimal) -> str:
    """The text with what it applies scaled; one that is no such object stays as it came."""
    try:
        document = json.loads(text, parse_float=Decimal, parse_int=Decimal)
    except ValueError:
        return text
    if not isinstance(document, dict) or not isinstance(document.get("Elements"), list):
        return text
    for element in document["Elements"]:
        for key in ("ContractCommitmentAppliedCost", "ContractCommitmentAppliedQuantity"):
            if isinstance(element, dict) and isinstance(element.get(key), Decimal):
                element[key] = element[key] * ratio
    return json_text(document)
