"""Verify a FOCUS Cost and Usage file: every row by itself, and the parts of each charge against each other.

The file is read once, in batches, two of which are checked at a time; see `verify_open` for what is kept between them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.focus.ahead import ahead
from gpuwaste.focus.columns import columns_of
from gpuwaste.focus.details_rules import check_details
from gpuwaste.focus.verify_charges import PRODUCTS, Found, corrections, differs, is_far
from gpuwaste.focus.verify_files import Batch, FocusFile, open_file
from gpuwaste.focus.verify_open import OpenCharges, Piece, read_piece
from gpuwaste.focus.verify_origin import compare_with_origin
from gpuwaste.focus.verify_rows import broken_pairs, broken_rows, sample_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from gpuwaste.focus.columns import Version

__all__ = ["Violation", "verify"]

_MISSING_COLUMN: Final = "CAU-CostAndUsage-D-001-M"
_CUSTOM_COLUMN: Final = "ColumnHandling-A-010-M"
_RATIO_RANGE: Final = "CAU-AllocatedMethodDetailsObject-O-013-M"
_MAX_EXAMPLES: Final = 20
_MAX_SAMPLE_ROWS: Final = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A broken rule: its id, where it is broken, and why; a `note` is something to know, and nothing broken."""

    rule: str
    where: str
    why: str
    note: bool = False

    def __str__(self) -> str:
        return f"{'note: ' if self.note else ''}{self.rule} {self.where}: {self.why}"


def verify(path: Path, *, version: Version = "1.3", origin: Path | None = None) -> Iterator[Violation]:
    """Find every broken rule of a file, at most 20 examples a rule.

    Args:
        path: a Parquet or CSV file of any engine.
        version: the FOCUS version that it should follow.
        origin: the bill that was split; without it a charge is compared with the sum of its own parts.

    Raises:
        InputError: a file cannot be read, or holds values that are not of their column's type.
    """
    file = open_file(path)
    known = {column.name for column in columns_of(version)}
    for name in file.names:
        if name not in known and not name.startswith("x_"):
            why = f"column {name} is none of FOCUS {version} and must begin with x_"
            yield Violation(rule=_CUSTOM_COLUMN, where="file", why=why)
    missing = [column.name for column in columns_of(version) if column.name not in file.names]
    for name in missing:
        yield Violation(rule=_MISSING_COLUMN, where="file", why=f"column {name} is missing")
    if missing:
        return
    seen: Counter[str] = Counter()
    yield from _limited(_pass(file, version), seen)
    if origin is not None:
        yield from _limited(
            (Violation(rule=rule, where=where, why=why) for rule, where, why in compare_with_origin(file, origin)), seen
        )


def _limited(violations: Iterable[Violation], seen: Counter[str]) -> Iterator[Violation]:
    for violation in violations:
        seen[violation.rule] += 1
        if seen[violation.rule] <= _MAX_EXAMPLES:
            yield violation


def _pass(file: FocusFile, version: Version) -> Iterator[Violation]:
    columns = [*(column.name for column in columns_of(version)), "x_OriginChargeId"]
    samples: list[pa.Table] = []
    with OpenCharges(exact=file.exact) as charges:
        for read in ahead(lambda batch: _read_batch(batch, version, exact=file.exact), file.batches(columns)):
            yield from read.violations
            yield from map(_violation, charges.add(read.piece))
            samples.append(read.sample)
            if sum(map(len, samples)) > _MAX_SAMPLE_ROWS:
                yield from _broken_rows(samples, version)
                samples = []
        yield from _broken_rows(samples, version)
        yield from map(_violation, charges.finish())


def _broken_rows(samples: list[pa.Table], version: Version) -> Iterator[Violation]:
    for rule, row, why in broken_rows(samples, version):
        yield Violation(rule=rule, where=f"row {row + 1}", why=why)


def _violation(found: Found) -> Violation:
    rule, row, why, note = found
    return Violation(rule=rule, where=f"row {row + 1}", why=why, note=note)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """What is found in a batch by itself, a row of each kind in it, and its charges."""

    violations: list[Violation]
    sample: pa.Table
    piece: Piece


def _read_batch(batch: Batch, version: Version, *, exact: bool) -> _Read:
    details = check_details(batch.table["AllocatedMethodDetails"].combine_chunks())
    found = [Violation(rule=rule, where=f"row {batch.start + row + 1}", why=why) for row, rule, why in details.problems]
    for rule, rows, why in (*batch.problems, *broken_pairs(batch.table)):
        found += _at(rule, batch, rows, why)
    found += _at(_RATIO_RANGE, batch, _out_of_range(details.ratio), "AllocatedRatio must lie between 0 and 1")
    found += _broken_products(batch)
    piece = read_piece(batch, details.ratio, exact=exact)
    return _Read(violations=found, sample=sample_rows(batch, version), piece=piece)


def _at(rule: str, batch: Batch, rows: NDArray[np.int64], why: str) -> Iterator[Violation]:
    for row in rows[:_MAX_EXAMPLES].tolist():
        yield Violation(rule=rule, where=f"row {batch.start + row + 1}", why=why)


def _out_of_range(ratio: pa.Array) -> NDArray[np.int64]:
    bounds = [pa.scalar(Decimal(bound), ratio.type) for bound in (0, 1)]
    outside = pc.or_(pc.less(ratio, bounds[0]), pc.greater(ratio, bounds[1]))
    rows: NDArray[np.int64] = pc.indices_nonzero(pc.fill_null(outside, fill_value=False)).to_numpy().astype(np.int64)
    return rows


def _broken_products(batch: Batch) -> Iterator[Violation]:
    """Price × quantity of rows that are no part of a charge, within the official validator's tolerance."""
    table = batch.table
    rows = pc.indices_nonzero(pc.and_not(pc.is_null(table["AllocatedMethodId"]), corrections(table)))
    if not len(rows):
        return
    for cost, price, rule in PRODUCTS:
        sides = [table[name].take(rows).combine_chunks() for name in (price, "PricingQuantity", cost)]
        off = pc.indices_nonzero(differs(*sides))
        far = off.filter(pa.array(is_far(*(side.take(off) for side in sides))))
        why = f"{cost} is not {price} × PricingQuantity"
        yield from _at(rule, batch, rows.take(far).to_numpy().astype(np.int64), why)
