"""Hold a split file against the bill that was split: the sums of every charge, and nothing added or lost."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING, Any, Final

from gpuwaste.focus.columns import SUMMABLE
from gpuwaste.focus.verify_charges import SPLIT
from gpuwaste.focus.verify_files import FocusFile, open_file
from gpuwaste.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["compare_with_origin"]

_KEY: Final = (
    "ResourceId",
    "ChargePeriodStart",
    "ChargePeriodEnd",
    "SkuPriceId",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "InvoiceId",
    "BillingAccountId",
    "SubAccountId",
    "BillingCurrency",
    "CommitmentDiscountId",
    "CapacityReservationId",
)
"""What tells the rows of a bill apart; rows that agree in all of this are compared by their sum."""


@dataclass(slots=True)
class _Sum:
    """The first row of a charge and the sums of its metrics, null where all are null."""

    row: int
    amounts: list[Decimal | None]


def compare_with_origin(file: FocusFile, origin: Path) -> Iterator[tuple[str, str, str]]:
    """Each charge whose sums differ from the bill's: the rule, where, and why.

    Raises:
        InputError: the bill cannot be read, or holds no metric of FOCUS.
    """
    bill = open_file(origin)
    names = [name for name in SUMMABLE if name in bill.names and name in file.names]
    key = [name for name in _KEY if name in bill.names and name in file.names]
    if not names:
        raise InputError("holds no metric of FOCUS", where=str(origin))
    with localcontext(prec=76):
        ours, theirs = _sums(file, key, names), _sums(bill, key, names)
    for values, theirs_sum in theirs.items():
        ours_sum = ours.pop(values, None)
        where = f"row {theirs_sum.row + 1} of the bill"
        if ours_sum is None:
            yield f"{SPLIT}-A-003-C", where, "the charge is missing from the file"
            continue
        for name, mine, wanted in zip(names, ours_sum.amounts, theirs_sum.amounts, strict=True):
            if mine != wanted:
                why = f"{name} adds up to {_text(mine)} and is {_text(wanted)} in the bill"
                yield f"{SPLIT}-A-003-C", where, why
    for added in ours.values():
        yield f"{SPLIT}-A-004-C", f"row {added.row + 1}", "the charge is not in the bill, or a dimension was changed"


def _sums(file: FocusFile, key: Sequence[str], names: Sequence[str]) -> dict[tuple[Any, ...], _Sum]:
    found: dict[tuple[Any, ...], _Sum] = {}
    for batch in file.batches([*key, *names]):
        keys = zip(*(batch.table[name].to_pylist() for name in key), strict=True)
        amounts = zip(*(batch.table[name].to_pylist() for name in names), strict=True)
        for position, (values, metrics) in enumerate(zip(keys, amounts, strict=True)):
            known = found.setdefault(values, _Sum(batch.start + position, [None] * len(names)))
            known.amounts = [_add(one, other) for one, other in zip(known.amounts, metrics, strict=True)]
    return found


def _add(one: Decimal | None, other: Decimal | None) -> Decimal | None:
    if one is None or other is None:
        return one if other is None else other
    return one + other


def _text(amount: Decimal | None) -> str:
    return "null" if amount is None else f"{amount.normalize():f}"
