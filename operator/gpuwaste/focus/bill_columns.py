"""The columns that a bill's FOCUS version lacks, filled from those that it has. `docs/focus.md` prints this table."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.focus.columns import COLUMNS, CUSTOM_COLUMNS, columns_of
from gpuwaste.focus.options import Finding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpuwaste.focus.columns import Version

__all__ = ["FILLED_FROM", "FILLED_WITH", "fill_columns", "own_columns", "renamed_columns"]

_FOCUS: Final = frozenset(column.name for column in COLUMNS)

FILLED_FROM: Final = (
    ("ServiceProviderName", ("ProviderName", "PublisherName")),
    ("HostProviderName", ("ServiceProviderName",)),
    ("ProviderName", ("ServiceProviderName",)),
    ("PublisherName", ("ProviderName",)),
    ("InvoiceIssuerName", ("ServiceProviderName",)),
    ("BillingAccountName", ("BillingAccountId",)),
    ("SubAccountName", ("SubAccountId",)),
    ("PricingCurrency", ("BillingCurrency",)),
)
"""(column, what it is where the bill has none), in the order in which they are filled."""

_SAME_CURRENCY: Final = (
    ("PricingCurrencyEffectiveCost", "EffectiveCost"),
    ("PricingCurrencyListUnitPrice", "ListUnitPrice"),
    ("PricingCurrencyContractedUnitPrice", "ContractedUnitPrice"),
)
"""Filled only where a row is priced in the currency that it is billed in."""

FILLED_WITH: Final = (
    ("BillingAccountType", "BillingAccountId", "Billing Account"),
    ("SubAccountType", "SubAccountId", "Sub Account"),
    ("ResourceType", "ResourceId", "Resource"),
)
"""(column, the column that it goes with, the constant that it is where that one is not null)."""


def fill_columns(bill: pa.Table, version: Version) -> dict[str, pa.Array]:
    """The columns of a version from a bill of an older or newer one.

    Every value of the bill stays as it is. A column is filled only where the bill lacks it whole; columns without a
    rule are left to be null, and FOCUS columns that the version does not have are left out.

    Returns:
        The FOCUS columns that have values, and behind them the bill's own columns, by the names of `own_columns`.
    """
    known: dict[str, pa.Array] = {name: _whole(bill[name]) for name in bill.column_names}
    for name, sources in FILLED_FROM:
        source = next((other for other in sources if other in known), None)
        if name not in known and source is not None:
            known[name] = known[source]
    same = pc.equal(known["PricingCurrency"], known["BillingCurrency"]) if "BillingCurrency" in known else None
    for name, source in _SAME_CURRENCY:
        if name not in known and source in known and same is not None:
            known[name] = pc.if_else(same, known[source], pa.scalar(None, known[source].type))
    for name, other, constant in FILLED_WITH:
        if name not in known and other in known:
            known[name] = pc.if_else(pc.is_valid(known[other]), constant, pa.scalar(None, pa.string()))
    if "ServiceSubcategory" not in known and "ServiceCategory" in known:
        known["ServiceSubcategory"] = pc.binary_join_element_wise("Other (", known["ServiceCategory"], ")", "")
    names = {column.name for column in columns_of(version)}
    kept = {name: values for name, values in known.items() if name in names}
    return kept | {name: known[before] for before, name in own_columns(bill.column_names).items()}


def own_columns(names: Sequence[str]) -> dict[str, str]:
    """The columns of a bill that FOCUS does not have, and what each is called in the export.

    FOCUS wants `x_` before them; where this project has a column of that name, theirs gets `Bill` into its own.
    """
    taken = {*names, *CUSTOM_COLUMNS}
    found: dict[str, str] = {}
    for name in names:
        if name in _FOCUS:
            continue
        own = name
        if not name.startswith("x_"):
            own = "x_" + "".join(word[:1].upper() + word[1:] for word in re.split(r"[^0-9A-Za-z]+", name))
        while own in CUSTOM_COLUMNS or (own != name and own in taken):
            own = f"x_Bill{own.removeprefix('x_')}"
        taken.add(own)
        found[name] = own
    return found


def renamed_columns(names: Sequence[str]) -> tuple[Finding, ...]:
    """Says which columns of a bill have another name in the export, one finding a reason."""
    renamed: dict[str, list[tuple[str, str]]] = {}
    for name, own in own_columns(names).items():
        if own != name:
            why = "these names are ours" if name in CUSTOM_COLUMNS else "FOCUS wants x_ before what is not its own"
            renamed.setdefault(why, []).append((name, own))
    return tuple(
        Finding(where="bill", what=f"in the export {', '.join(f'{name} is {own}' for name, own in found)}: {why}")
        for why, found in renamed.items()
    )


def _whole(column: pa.ChunkedArray) -> pa.Array:
    values = column.combine_chunks()
    return pa.concat_arrays(values.chunks) if isinstance(values, pa.ChunkedArray) else values
