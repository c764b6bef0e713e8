"""Hold a split file against the bill that was split: the sums of every charge, and nothing added or lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.focus.columns import SUMMABLE
from gpuwaste.focus.hashes import row_hashes
from gpuwaste.focus.verify_charges import CHARGE_KEY, SPLIT
from gpuwaste.focus.verify_files import Batch, FocusFile, open_file
from gpuwaste.focus.verify_rows import column_codes
from gpuwaste.model.errors import InputError
from gpuwaste.model.grouping import group_numbers
from gpuwaste.pricing.bills import bill_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from decimal import Decimal
    from pathlib import Path

__all__ = ["compare_with_origin"]

_KEY: Final = (*CHARGE_KEY, "ChargeDescription", "BillingAccountId", "SubAccountId", "BillingCurrency")
"""What tells the rows of a bill apart; rows that agree in all of this are compared by their sum."""
_WIDE: Final = pa.decimal256(76, 38)
_COMPACT_ROWS: Final = 1_000_000


def compare_with_origin(file: FocusFile, origin: Path) -> Iterator[tuple[str, str, str]]:
    """Each charge whose sums differ from the bill's: the rule, where, and why.

    What is kept is a number and the sums of each charge of the bill.

    Args:
        file: that was split.
        origin: the bill, a file or a folder of files.

    Raises:
        InputError: the bill cannot be read, or holds no metric of FOCUS.
    """
    bill = [open_file(path) for path in bill_files([origin])]
    common = set(file.names).intersection(*(part.names for part in bill))
    names = [name for name in SUMMABLE if name in common]
    key = [name for name in _KEY if name in common]
    if not names:
        raise InputError("holds no metric of FOCUS", where=str(origin))
    ours, theirs = _sums([file], key, names), _sums(bill, key, names)
    mine, wanted = ours["key"].to_numpy(), theirs["key"].to_numpy()
    missing = ~np.isin(wanted, mine)
    for row in np.sort(theirs["row"].to_numpy()[missing]).tolist():
        yield f"{SPLIT}-A-003-C", f"row {row + 1} of the bill", "the charge is missing from the file"
    kept = theirs.filter(pa.array(~missing))
    beside = ours.take(pa.array(np.searchsorted(mine, kept["key"].to_numpy()))) if len(mine) else ours
    for name in names:
        for row, have, want in _unequal(kept, beside, name):
            why = f"{name} adds up to {_text(have)} and is {_text(want)} in the bill"
            yield f"{SPLIT}-A-003-C", f"row {row + 1} of the bill", why
    for row in np.sort(ours["row"].to_numpy()[~np.isin(mine, wanted)]).tolist():
        yield f"{SPLIT}-A-004-C", f"row {row + 1}", "the charge is not in the bill, or a dimension was changed"


def _unequal(bill: pa.Table, file: pa.Table, name: str) -> Iterator[tuple[int, Decimal | None, Decimal | None]]:
    want, have = bill[name], file[name]
    same = pc.fill_null(pc.equal(want, have), fill_value=False)
    same = pc.or_(same, pc.and_(pc.is_null(want), pc.is_null(have)))
    for at in pc.indices_nonzero(pc.invert(same)).to_pylist():
        yield bill["row"][at].as_py(), have[at].as_py(), want[at].as_py()


def _sums(files: Sequence[FocusFile], key: Sequence[str], names: Sequence[str]) -> pa.Table:
    """One row a charge, sorted by `key`: that, its first `row`, and the sum of each metric, null where all are null.

    Rows are numbered through all files.
    """
    pieces: list[pa.Table] = []
    start = 0
    for batch in (batch for file in files for batch in file.batches([*key, *names])):
        pieces.append(_batch_sums(batch, start, key, names))
        start += len(batch.table)
        if sum(map(len, pieces)) > _COMPACT_ROWS:
            pieces = [_added(pieces, names)]
    return _added(pieces, names).sort_by("key").combine_chunks()


def _batch_sums(batch: Batch, start: int, key: Sequence[str], names: Sequence[str]) -> pa.Table:
    table = batch.table
    groups = group_numbers([column_codes(table[name]) for name in key])
    keys = row_hashes(table.select(list(key)).take(pa.array(groups.first)))
    rows = pa.table(
        {
            "key": pa.array(keys[groups.of]),
            "row": pa.array(start + np.arange(len(table))),
            **{name: table[name] for name in names},
        }
    )
    summed = rows.group_by("key").aggregate([("row", "min"), *((name, "sum") for name in names)])
    columns = {name: summed[f"{name}_sum"].cast(_WIDE) for name in names}
    return pa.table({"key": summed["key"], "row": summed["row_min"], **columns})


def _added(pieces: list[pa.Table], names: Sequence[str]) -> pa.Table:
    if not pieces:
        kinds = {"key": pa.uint64(), "row": pa.int64()} | dict.fromkeys(names, _WIDE)
        return pa.schema(list(kinds.items())).empty_table()
    added = pa.concat_tables(pieces).group_by("key").aggregate([("row", "min"), *((name, "sum") for name in names)])
    columns = {name: added[f"{name}_sum"] for name in names}
    return pa.table({"key": added["key"], "row": added["row_min"], **columns})


def _text(amount: Decimal | None) -> str:
    return "null" if amount is None else f"{amount.normalize():f}"
