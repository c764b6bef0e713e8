"""The rules between the parts of charges, judged on all parts of some charges at once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.focus.columns import DIMENSIONS, SUMMABLE, UNIT_PRICES
from gpuwaste.focus.ratios import decimals_used
from gpuwaste.focus.verify_rows import column_codes
from gpuwaste.model.grouping import group_numbers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Int64s = NDArray[np.int64]

__all__ = [
    "CHARGE_KEY",
    "PRODUCTS",
    "RATIO_SUM",
    "SPLIT",
    "Found",
    "Parts",
    "charge_name",
    "corrections",
    "differs",
    "is_far",
    "judge",
    "whole_charges",
]

SPLIT: Final = "DataGeneratorCalculatedSplitCostAllocationHandling"
RATIO_SUM: Final = "CAU-AllocatedMethodDetailsObject-O-014-M"
CHARGE_KEY: Final = (
    "ResourceId",
    "ChargePeriodStart",
    "ChargePeriodEnd",
    "SkuPriceId",
    "ChargeCategory",
    "ChargeClass",
    "CommitmentDiscountId",
    "CapacityReservationId",
    "InvoiceId",
)
"""What stands for a charge where a file does not say which rows came from it."""
PRODUCTS: Final = (
    ("ListCost", "ListUnitPrice", "CAU-ListCost-C-009-C"),
    ("ContractedCost", "ContractedUnitPrice", "CAU-ContractedUnitPrice-C-011-C"),
)
_RULES: Final = {"Tags": f"{SPLIT}-A-005-C", "AllocatedMethodId": "CAU-AllocatedMethodId-C-006-M"}
_OBJECTS: Final = ("Tags", "SkuPriceDetails")
_COMMON: Final = tuple(name for name in (*DIMENSIONS, *UNIT_PRICES, "AllocatedMethodId") if name != "ContractApplied")
_TOLERANCE: Final = 1e-9
_OWN_METHODS: Final = "gpuwaste-"
_MAX_EXAMPLES: Final = 20
Found = tuple[str, int, str, bool]
"""A rule, the number of a row, why, and whether it is only a note."""


@dataclass(frozen=True)
class Parts:
    """All parts of some charges.

    Attributes:
        table: rows of a file, and beside its columns `row` int64, the number of the row in the file, `ratio`
            decimal128(38,28), the sum of its AllocatedRatio or null, and `key` int64, which tells charges apart.
        of: int64[n], the charge of each row.
        count: the number of charges.
        exact: whether amounts are decimals, so that sums must agree to the last digit.
    """

    table: pa.Table
    of: Int64s
    count: int
    exact: bool

    @cached_property
    def first(self) -> Int64s:
        """int64[count], the first row of each charge."""
        first = np.zeros(self.count, np.int64)
        first[self.of[::-1]] = np.arange(len(self.of) - 1, -1, -1)
        return first

    @cached_property
    def totals(self) -> pa.Table:
        """One row a charge: parts, ratios (of parts that have one), ratio (their sum), sums of the metrics."""
        known = {name: self.table[name].combine_chunks() for name in SUMMABLE if name in self.table.column_names}
        alike = {name: next(other for other in known if known[other].equals(known[name])) for name in known}
        columns = {name: values for name, values in known.items() if alike[name] == name}
        rows = pa.table({"charge": self.of, "ratio": self.table["ratio"], **columns})
        sums = rows.group_by("charge").aggregate(
            [("charge", "count"), ("ratio", "count"), ("ratio", "sum"), *((name, "sum") for name in columns)]
        )
        named = {"parts": "charge_count", "ratios": "ratio_count", "ratio": "ratio_sum"}
        named |= {name: f"{alike[name]}_sum" for name in known}
        order = pa.array(np.argsort(sums["charge"].to_numpy()))
        return pa.table({name: sums[column].take(order).combine_chunks() for name, column in named.items()})

    @cached_property
    def whole(self) -> NDArray[np.bool_]:
        """bool[count], whether every part has a ratio and all of them add up to 1."""
        totals = self.totals
        complete = pc.equal(totals["parts"], totals["ratios"])
        one = pc.equal(totals["ratio"], pa.scalar(Decimal(1), totals["ratio"].type))
        whole: NDArray[np.bool_] = pc.and_(complete, pc.fill_null(one, fill_value=False)).to_numpy()
        if not self.exact:
            ratios = totals["ratio"].cast(pa.float64()).to_numpy()
            whole |= complete.to_numpy() & (np.abs(ratios - 1) <= _TOLERANCE)
        return whole

    def only(self, charges: NDArray[np.bool_]) -> Parts:
        """The parts of some of the charges."""
        rows = charges[self.of]
        number = np.cumsum(charges) - 1
        return Parts(_rows(self.table, rows), number[self.of[rows]], int(charges.sum()), self.exact)

    def name(self, charge: int) -> str:
        """What the file calls a charge."""
        return charge_name(self.table.slice(int(self.first[charge]), 1))

    def row(self, charge: int) -> int:
        """The number in the file of a charge's first row."""
        return int(self.table["row"][int(self.first[charge])].as_py())


def _rows(table: pa.Table, rows: NDArray[np.bool_]) -> pa.Table:
    """Some rows; without copying where they lie together."""
    at = np.flatnonzero(rows)
    if len(at) and int(at[-1]) - int(at[0]) + 1 == len(at):
        return table.slice(int(at[0]), len(at))
    return table.filter(pa.array(rows))


def charge_name(row: pa.Table) -> str:
    """The id of the origin charge of a row, or what stands for it."""
    (values,) = row.select([name for name in ("x_OriginChargeId", *CHARGE_KEY) if name in row.column_names]).to_pylist()
    own = values.pop("x_OriginChargeId", None)
    return str(own) if own is not None else "|".join(map(str, values.values()))


def judge(parts: Parts, *, settled: NDArray[np.bool_] | None = None) -> Iterator[Found]:
    """Every broken rule between the parts of charges.

    Args:
        parts: all parts of the charges.
        settled: bool[count], charges of which other rows were judged before, with ratios that added up to 1.
    """
    if parts.count:
        yield from _broken_ratios(parts, settled)
        yield from _differing(parts)
        yield from _broken_products(parts)
        yield from _broken_parts(parts)
        yield from _receivers(parts)


def _broken_ratios(parts: Parts, settled: NDArray[np.bool_] | None) -> Iterator[Found]:
    totals = parts.totals
    lacking = pc.and_(pc.less(totals["ratios"], totals["parts"]), pc.greater(totals["ratios"], 0)).to_numpy()
    for charge in np.flatnonzero(lacking)[:_MAX_EXAMPLES].tolist():
        without = (parts.of == charge) & pc.is_null(parts.table["AllocatedMethodDetails"]).to_numpy()
        if without.any():
            row = int(parts.table["row"][int(np.argmax(without))].as_py())
            why = f"AllocatedMethodDetails must not be null on one part of charge {parts.name(charge)} only"
            yield "CAU-AllocatedMethodDetails-C-006-C", row, why, False
    again = np.zeros(parts.count, bool) if settled is None else settled
    summed = pc.equal(totals["parts"], totals["ratios"]).to_numpy() & (again | ~parts.whole)
    for charge in np.flatnonzero(summed).tolist():
        ratio = totals["ratio"][charge].as_py() + int(again[charge])
        if ratio != 1:
            why = f"the ratios of charge {parts.name(charge)} add up to {ratio.normalize():f} and not to 1"
            yield RATIO_SUM, parts.row(charge), why, False


def _differing(parts: Parts) -> Iterator[Found]:
    """Dimensions, unit prices, tags and methods that differ between the parts of a charge."""
    names = [name for name in _COMMON if name in parts.table.column_names and not _constant(parts.table[name])]
    codes = {name: column_codes(parts.table[name]) for name in names}
    if not names or len(group_numbers([parts.of, *codes.values()]).first) == parts.count:
        return
    for name in names:
        values = codes[name]
        differ = _several(parts, values)
        if name in _OBJECTS and differ.any():
            values = column_codes(_canonical(parts.table[name]))
            differ = _several(parts, values)
        for charge in np.flatnonzero(differ)[:_MAX_EXAMPLES].tolist():
            why = f"{name} differs between the parts of charge {parts.name(charge)}"
            yield _RULES.get(name, f"{SPLIT}-A-004-C"), parts.row(charge), why, False


def _several(parts: Parts, values: Int64s) -> NDArray[np.bool_]:
    pairs = group_numbers([parts.of, values])
    several: NDArray[np.bool_] = np.bincount(parts.of[pairs.first], minlength=parts.count) > 1
    return several


def _constant(column: pa.ChunkedArray) -> bool:
    """Whether it is plain from the dictionaries that all values are one."""
    if column.null_count:
        return bool(column.null_count == len(column))
    if not pa.types.is_dictionary(column.type):
        return False
    words = [chunk.dictionary for chunk in column.chunks]
    return all(len(word) == 1 for word in words) and len({word[0].as_py() for word in words}) == 1


def _canonical(column: pa.ChunkedArray) -> pa.Array:
    """JSON objects written one way, so that the order of keys makes no difference."""
    coded = column.unify_dictionaries().combine_chunks()
    texts = [_sorted(text) for text in coded.dictionary.to_pylist()]
    return pa.DictionaryArray.from_arrays(coded.indices, pa.array(texts, pa.string())).cast(pa.string())


def _sorted(text: str) -> str:
    try:
        return json.dumps(json.loads(text, parse_float=str), sort_keys=True)
    except ValueError:
        return text


def _broken_products(parts: Parts) -> Iterator[Found]:
    """Price × quantity of whole charges; of their parts it follows from the ratios."""
    totals = parts.totals
    first = parts.table.take(pa.array(parts.first))
    for cost, price, rule in PRODUCTS:
        if cost not in totals.column_names or price not in first.column_names:
            continue
        prices = first[price].combine_chunks()
        off = pc.and_not(differs(prices, totals["PricingQuantity"], totals[cost]), corrections(first))
        for charge in pc.indices_nonzero(off).to_pylist():
            amount, quantity = totals[cost][charge].as_py(), totals["PricingQuantity"][charge].as_py()
            with localcontext(prec=80):
                residual = amount - prices[charge].as_py() * quantity
            near = _near(residual, beside=amount)
            why = (
                f"charge {parts.name(charge)}: {cost} is {residual.normalize():f} off {price} × PricingQuantity"
                f"{', as its origin was' if near else ''}"
            )
            yield rule, parts.row(charge), why, near


def _broken_parts(parts: Parts) -> Iterator[Found]:
    """Summable metrics that are not ratio × sum of the charge."""
    at, ratio = pa.array(parts.of), parts.table["ratio"].combine_chunks()
    zero = pa.scalar(Decimal(0), ratio.type)
    seen: dict[str, pa.Array] = {}
    for name in SUMMABLE:
        if name not in parts.table.column_names:
            continue
        values = parts.table[name].combine_chunks()
        total = parts.totals[name].combine_chunks()
        if any(other.equals(values) for other in seen.values()):
            continue
        seen[name] = values
        wanted = total.take(at)
        # A part of an amount is no unknown amount.
        lost = pc.and_(pc.and_(pc.is_null(values), pc.is_valid(wanted)), pc.greater(ratio, zero))
        rows = pc.indices_nonzero(pc.or_kleene(differs(wanted, ratio, values), lost)).to_numpy()
        if len(rows):
            some = pa.array(rows)
            rows = rows[_is_off(parts, some, wanted.take(some), ratio.take(some), values.take(some))]
        for row in rows[:_MAX_EXAMPLES].tolist():
            why = f"{name} is not AllocatedRatio × the sum of its charge"
            yield f"{SPLIT}-A-003-C", int(parts.table["row"][row].as_py()), why, False


def _is_off(parts: Parts, rows: pa.Array, total: pa.Array, ratio: pa.Array, values: pa.Array) -> NDArray[np.bool_]:
    """Which of the rows where ratio × total is not the part's value, to the last digit, are wrong.

    Our own methods round nothing. Another engine may have rounded costs and print rounded ratios: there a part may be
    off by one unit of the last decimal that its amounts have, and of the last that its ratios have.
    """
    if not parts.exact:
        return is_far(total, ratio, pc.fill_null(values, 0))
    method = parts.table["AllocatedMethodId"].take(rows).cast(pa.string())
    wrong: NDArray[np.bool_] = pc.starts_with(method, _OWN_METHODS).to_numpy(zero_copy_only=False).astype(
        bool
    ) | values.is_null().to_numpy(zero_copy_only=False)
    other = np.flatnonzero(~wrong)
    if len(other):
        at = pa.array(other)
        whole, share, value = (column.take(at) for column in (total, ratio, values))
        sizes = [column.cast(pa.float64()).to_numpy() for column in (whole, share, value)]
        room = 10.0 ** -int(decimals_used(value).max()) + 10.0 ** -int(decimals_used(share).max()) * np.abs(sizes[0])
        wrong[other] = np.abs(sizes[0] * sizes[1] - sizes[2]) > room
    return wrong


def _receivers(parts: Parts) -> Iterator[Found]:
    column = parts.table["AllocatedResourceId"]
    named = np.flatnonzero(pc.is_valid(column).to_numpy())
    pairs = group_numbers([parts.of[named], column_codes(column)[named]]) if len(named) else None
    if pairs is None or len(pairs.first) == len(named):
        return
    count = np.bincount(pairs.of, minlength=len(pairs.first))
    for pair in np.flatnonzero(count > 1)[:_MAX_EXAMPLES].tolist():
        last = int(named[np.flatnonzero(pairs.of == pair)[-1]])
        why = f"{column[last].as_py()} receives more than one part of charge {parts.name(int(parts.of[last]))}"
        yield "CAU-AllocatedResourceId-C-008-O", int(parts.table["row"][last].as_py()), why, False


def whole_charges(parts: Parts) -> pa.Table:
    """What the origin of each charge would look like: the key of a charge and the sums of three metrics."""
    key = [name for name in CHARGE_KEY if name in parts.table.column_names]
    first = parts.table.select(key).take(pa.array(parts.first))
    sums = [name for name in ("BilledCost", "EffectiveCost", "PricingQuantity") if name in parts.totals.column_names]
    return pa.table({name: first[name] for name in key} | {name: parts.totals[name] for name in sums})


def differs(left: Any, right: Any, product: Any) -> pa.Array:
    """Where left × right is not the product, to the last digit; false where any of them is null."""
    wide = pc.multiply(left.cast(pa.decimal256(38, left.type.scale)), right.cast(pa.decimal256(37, right.type.scale)))
    unequal = pc.not_equal(wide, product.cast(pa.decimal256(38, product.type.scale)))
    return pc.fill_null(unequal, fill_value=False)


def _near(value: Decimal, *, beside: Decimal) -> bool:
    """Within the tolerance of the official validator: 10⁻⁹ of the amount, or of 1 where that is more."""
    return abs(float(value)) <= _TOLERANCE * max(abs(float(beside)), 1.0)


def is_far(left: Any, right: Any, product: Any) -> NDArray[np.bool_]:
    """Where left × right is further from the product than the official validator allows."""
    amounts = [column.cast(pa.float64()).to_numpy(zero_copy_only=False) for column in (left, right, product)]
    far: NDArray[np.bool_] = np.abs(amounts[0] * amounts[1] - amounts[2]) > _TOLERANCE * np.maximum(
        np.abs(amounts[2]), 1
    )
    return far


def corrections(table: pa.Table) -> pa.Array:
    """Rows that correct an earlier invoice: price × quantity need not hold there."""
    return pc.fill_null(pc.equal(table["ChargeClass"].cast(pa.string()), "Correction"), fill_value=False)
