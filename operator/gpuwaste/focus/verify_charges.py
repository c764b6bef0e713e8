"""The rules between the parts of a charge: gathered batch by batch, judged when all parts are known."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.focus.columns import DIMENSIONS, SUMMABLE, UNIT_PRICES
from gpuwaste.focus.verify_rows import column_codes
from gpuwaste.model.grouping import group_numbers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from gpuwaste.focus.verify_files import Batch

    Int64s = NDArray[np.int64]

__all__ = ["PRODUCTS", "SPLIT", "Charges", "Found", "corrections", "differs", "is_far"]

SPLIT: Final = "DataGeneratorCalculatedSplitCostAllocationHandling"
_RATIO_SUM: Final = "CAU-AllocatedMethodDetailsObject-O-014-M"
_KEY: Final = (
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
_DIFFERS: Final = {"Tags": f"{SPLIT}-A-005-C", "AllocatedMethodId": "CAU-AllocatedMethodId-C-006-M"}
_TOLERANCE: Final = 1e-9
Found = tuple[str, int, str, bool]
"""A rule, the number of a row, why, and whether it is only a note."""


@dataclass(slots=True, kw_only=True)
class Charges:
    """What is known of every charge so far.

    Attributes:
        exact: whether amounts are decimals, so that sums must agree to the last digit.
        of: int32[n], the charge of each row, −1 where it is no part of one; in pieces, as the rows came.
        ratio: decimal128(38,28)[n], likewise.
    """

    exact: bool
    of: list[NDArray[np.int32]] = field(default_factory=list)
    ratio: list[pa.Array] = field(default_factory=list)
    _number: dict[str, int] = field(default_factory=dict)
    _sums: list[pa.Table] = field(default_factory=list)
    _common: list[pa.Table] = field(default_factory=list)
    _receivers: list[pa.Table] = field(default_factory=list)

    def add(self, batch: Batch, ratio: pa.Array) -> None:
        """Take in the parts of a batch."""
        table = batch.table
        rows = np.flatnonzero(pc.is_valid(table["AllocatedMethodId"]).to_numpy())
        of = np.full(len(table), -1, np.int32)
        if len(rows):
            parts = table.take(pa.array(rows)) if len(rows) < len(table) else table
            mine = self._charge_of(parts)
            of[rows] = mine
            self._add_sums(parts, mine, ratio.take(pa.array(rows)), batch.start + rows)
            self._add_common(parts, mine, batch.start + rows)
        self.of.append(of)
        self.ratio.append(ratio)

    def _charge_of(self, parts: pa.Table) -> Int64s:
        own = "x_OriginChargeId" in parts.column_names and parts["x_OriginChargeId"].null_count == 0
        names = ["x_OriginChargeId"] if own else [name for name in _KEY if name in parts.column_names]
        keys = [column_codes(parts[name]) for name in names]
        groups = group_numbers(keys)
        first = parts.select(names).take(pa.array(groups.first)).to_pylist()
        texts = ["|".join(map(str, row.values())) for row in first]
        numbers = np.array([self._number.setdefault(text, len(self._number)) for text in texts], np.int64)
        return numbers[groups.of]

    def _add_sums(self, parts: pa.Table, of: Int64s, ratio: pa.Array, rows: Int64s) -> None:
        known = {name: parts[name].combine_chunks() for name in SUMMABLE if name in parts.column_names}
        first_of = {name: next(other for other in known if known[other].equals(known[name])) for name in known}
        columns = {name: values for name, values in known.items() if first_of[name] == name}
        table = pa.table({"charge": of, "row": rows, "part": ratio, **columns})
        sums = table.group_by("charge").aggregate(
            [("row", "min"), ("row", "count"), ("part", "count"), ("part", "sum"), *((name, "sum") for name in columns)]
        )
        known_sums = {name: sums[f"{first_of[name]}_sum"] for name in known}
        named = {
            "charge": "charge",
            "row": "row_min",
            "parts": "row_count",
            "ratios": "part_count",
            "ratio": "part_sum",
        }
        self._sums.append(pa.table({name: sums[column] for name, column in named.items()} | known_sums))

    def _add_common(self, parts: pa.Table, of: Int64s, rows: Int64s) -> None:
        names = [n for n in (*DIMENSIONS, *UNIT_PRICES, "AllocatedMethodId") if n in parts.column_names]
        groups = group_numbers([of, *(column_codes(parts[name]) for name in names if name != "ContractApplied")])
        first = pa.array(groups.first)
        common = {name: parts[name].take(first) for name in names}
        self._common.append(pa.table({**common, "charge": of[groups.first], "row": rows[groups.first]}))
        receiver = column_codes(parts["AllocatedResourceId"])
        named = np.flatnonzero(pc.is_valid(parts["AllocatedResourceId"]).to_numpy())
        pairs = group_numbers([of[named], receiver[named]])
        count = np.bincount(pairs.of, minlength=len(pairs.first))
        at = named[pairs.first]
        self._receivers.append(
            pa.table(
                {
                    "charge": of[at],
                    "receiver": parts["AllocatedResourceId"].take(pa.array(at)).cast(pa.string()),
                    "rows": count,
                    "row": rows[at],
                }
            )
        )

    def totals(self) -> pa.Table:
        """One row a charge, in the order of their numbers.

        Columns: charge, row (its first), parts, ratios (of parts that have one), ratio (their sum), and the sums of the
        summable metrics.
        """
        table = pa.concat_tables(self._sums)
        names = [name for name in table.column_names if name not in {"charge", "row", "parts", "ratios", "ratio"}]
        summed = ("parts", "ratios", "ratio", *names)
        found = table.group_by("charge").aggregate([("row", "min"), *((name, "sum") for name in summed)])
        plain = found.rename_columns([name.removesuffix("_sum").removesuffix("_min") for name in found.column_names])
        return plain.sort_by("charge").combine_chunks()

    def join(self) -> None:
        """Make one piece of all rows: a second reading of a file may cut it into other batches."""
        self.of = [np.concatenate(self.of)]
        self.ratio = [pa.concat_arrays(self.ratio)]

    def broken(self) -> Iterator[Found]:
        """Every broken rule between the parts of charges, at the first row of the charge."""
        if not self._sums:
            return
        totals = self.totals()
        names = list(self._number)
        yield from self._broken_ratios(totals, names)
        common = pa.concat_tables(self._common).sort_by([("charge", "ascending"), ("row", "ascending")])
        yield from _differing(common, names)
        yield from self._broken_products(totals, common, names)
        table = pa.concat_tables(self._receivers)
        receivers = table.group_by(["charge", "receiver"]).aggregate([("rows", "sum"), ("row", "max")])
        for row in receivers.filter(pc.greater(receivers["rows_sum"], 1)).to_pylist():
            why = f"{row['receiver']} receives more than one part of charge {names[row['charge']]}"
            yield "CAU-AllocatedResourceId-C-008-O", row["row_max"], why, False

    def _broken_ratios(self, totals: pa.Table, names: list[str]) -> Iterator[Found]:
        complete = pc.equal(totals["parts"], totals["ratios"])
        whole = pc.equal(totals["ratio"], pa.scalar(Decimal(1), totals["ratio"].type))
        for row in totals.filter(pc.and_(complete, pc.invert(whole))).to_pylist():
            if self.exact or not _near(row["ratio"], 1):
                why = f"the ratios of charge {names[row['charge']]} add up to {row['ratio'].normalize():f} and not to 1"
                yield _RATIO_SUM, row["row"], why, False

    def _broken_products(self, totals: pa.Table, common: pa.Table, names: list[str]) -> Iterator[Found]:
        """Price × quantity of whole charges; of their parts it follows from the ratios."""
        first = pa.array(np.searchsorted(common["charge"].to_numpy(), np.arange(len(totals))))
        for cost, price, rule in PRODUCTS:
            if cost not in totals.column_names or price not in common.column_names:
                continue
            prices = common[price].take(first)
            off = pc.and_not(differs(prices, totals["PricingQuantity"], totals[cost]), corrections(common.take(first)))
            for at in pc.indices_nonzero(off).to_pylist():
                row = totals.slice(at, 1).to_pylist()[0]
                with localcontext(prec=80):
                    residual = row[cost] - prices[at].as_py() * row["PricingQuantity"]
                near = _near(residual, 0, beside=row[cost])
                why = (
                    f"charge {names[row['charge']]}: {cost} is {residual.normalize():f} off {price} × PricingQuantity"
                    f"{', as its origin was' if near else ''}"
                )
                yield rule, row["row"], why, near

    def broken_parts(self, batch: Batch, totals: pa.Table) -> Iterator[tuple[str, Int64s]]:
        """The summable metrics that are not ratio × sum of the charge, with the rows of a batch where they are not.

        Args:
            batch: rows of the file with its summable metrics, after `join`.
            totals: as `totals` answers.
        """
        table = batch.table
        of, ratios = self.of[0], self.ratio[0]
        of = of[batch.start : batch.start + len(table)]
        part = np.flatnonzero(of >= 0)
        if not len(part):
            return
        at, ratio = pa.array(of[part]), ratios.slice(batch.start, len(table)).take(pa.array(part))
        seen: dict[str, pa.Array] = {}
        for name in table.column_names:
            values = table[name].combine_chunks().take(pa.array(part))
            if any(other.equals(values) and totals[name].equals(totals[known]) for known, other in seen.items()):
                continue
            seen[name] = values
            off = differs(totals[name].combine_chunks().take(at), ratio, values)
            rows = pc.indices_nonzero(off).to_numpy()
            if not self.exact and len(rows):
                some = pa.array(rows)
                rows = rows[is_far(totals[name].take(at.take(some)), ratio.take(some), values.take(some))]
            if len(rows):
                yield name, part[rows]


def _differing(common: pa.Table, names: list[str]) -> Iterator[Found]:
    """Dimensions, unit prices, tags and methods that differ between the parts of a charge."""
    charge = common["charge"].to_numpy()
    count = np.bincount(charge, minlength=len(names))
    if (count <= 1).all():
        return
    several = common.filter(pa.array(count[charge] > 1))
    of, rows = several["charge"].to_numpy(), several["row"].to_numpy()
    for name in common.column_names:
        if name in {"charge", "row", "ContractApplied"}:
            continue
        pairs = group_numbers([of, column_codes(several[name])])
        found, values = np.unique(of[pairs.first], return_counts=True)
        for number in found[values > 1].tolist():
            rule = {"Tags": f"{SPLIT}-A-005-C", "AllocatedMethodId": "CAU-AllocatedMethodId-C-006-M"}.get(
                name, f"{SPLIT}-A-004-C"
            )
            yield (
                rule,
                int(rows[of == number].min()),
                f"{name} differs between the parts of charge {names[number]}",
                False,
            )


def differs(left: Any, right: Any, product: Any) -> pa.Array:
    """Where left × right is not the product, to the last digit; false where any of them is null."""
    wide = pc.multiply(left.cast(pa.decimal256(38, left.type.scale)), right.cast(pa.decimal256(37, right.type.scale)))
    unequal = pc.not_equal(wide, product.cast(pa.decimal256(38, product.type.scale)))
    return pc.fill_null(unequal, fill_value=False)


def _near(value: Decimal, wanted: Decimal | int, *, beside: Decimal | int = 0) -> bool:
    """Within the tolerance of the official validator: 10⁻⁹ of the amount, or of 1 where that is more."""
    return abs(float(value - wanted)) <= _TOLERANCE * max(abs(float(beside)), 1.0)


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
