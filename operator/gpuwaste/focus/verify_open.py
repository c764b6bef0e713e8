"""Charges of a file that is read in pieces: most are whole in one piece; those that are not wait for their other parts.

What is kept is sixteen bytes a charge and the parts of unfinished charges. Where these are many (a file that is not
sorted by charge, or has no ratios to tell that a charge is whole) they are set aside on disk, in buckets that are
judged one by one.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import feather

from gpuwaste.focus.hashes import row_hashes
from gpuwaste.focus.verify_charges import CHARGE_KEY, SPLIT, Found, Parts, judge, whole_charges
from gpuwaste.focus.verify_rows import column_codes
from gpuwaste.model.grouping import group_numbers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from gpuwaste.focus.verify_files import Batch

    UInt64s = NDArray[np.uint64]

__all__ = ["OpenCharges", "Piece", "read_piece"]

_MAX_OPEN_ROWS: Final = 262_144
_BUCKETS: Final = 64
_ORIGIN_KEY: Final = (*CHARGE_KEY, "BilledCost", "EffectiveCost", "PricingQuantity")


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """The charges of a batch.

    Attributes:
        found: broken rules of the charges that are whole in the batch.
        settled: uint64, the keys of these.
        first_row: int64, the first row in the file of each.
        unfinished: the parts of all others.
        sums: uint64, what the origins of the whole ones would look like.
        unsplit, unsplit_row: uint64 and int64, rows that are no part of a charge and may be the origin of one: what
            they look like, and their numbers.
    """

    found: list[Found]
    settled: UInt64s
    first_row: NDArray[np.int64]
    unfinished: pa.Table | None
    sums: UInt64s
    unsplit: UInt64s
    unsplit_row: NDArray[np.int64]


def read_piece(batch: Batch, ratio: pa.Array, *, exact: bool) -> Piece:
    """Judge the charges that are whole in a batch.

    The charge of the last part may go on in the next batch, so it waits.

    Args:
        batch: rows of a file.
        ratio: decimal128(38,28), the ratio of each row.
        exact: whether amounts are decimals.
    """
    table = batch.table
    part = pc.is_valid(table["AllocatedMethodId"]).to_numpy()
    rows = np.flatnonzero(part)
    unsplit, unsplit_row = _possible_origins(batch, ~part)
    nothing = np.zeros(0, np.uint64)
    if not len(rows):
        return Piece(
            found=[],
            settled=nothing,
            first_row=np.zeros(0, np.int64),
            unfinished=None,
            sums=nothing,
            unsplit=unsplit,
            unsplit_row=unsplit_row,
        )
    if len(rows) < len(table):
        table, ratio = table.take(pa.array(rows)), ratio.take(pa.array(rows))
    of, keys = _charges(table)
    table = table.append_column("row", pa.array(batch.start + rows)).append_column("ratio", ratio)
    table = table.append_column("key", pa.array(keys[of].view(np.int64)))
    parts = Parts(table, of, len(keys), exact)
    whole = parts.whole.copy()
    whole[of[-1]] = False
    judged = parts.only(whole)
    return Piece(
        found=list(judge(judged)),
        settled=keys[whole],
        first_row=table["row"].to_numpy()[parts.first[whole]],
        unfinished=_compact(table.filter(pa.array(~whole[of]))),
        sums=row_hashes(whole_charges(judged)) if judged.count else nothing,
        unsplit=unsplit,
        unsplit_row=unsplit_row,
    )


def _compact(table: pa.Table) -> pa.Table:
    """The rows with dictionaries of their own texts: those of the batch would stay in memory with them."""
    columns = {}
    for name in table.column_names:
        column = table[name]
        coded = pa.types.is_dictionary(column.type)
        columns[name] = pc.dictionary_encode(column.cast(pa.string())) if coded else column
    return pa.table(columns)


def _charges(table: pa.Table) -> tuple[NDArray[np.int64], UInt64s]:
    """The charge of each row, and the keys of the charges."""
    names = [name for name in CHARGE_KEY if name in table.column_names]
    if "x_OriginChargeId" not in table.column_names:
        return _grouped(table, names)
    own = pc.is_valid(table["x_OriginChargeId"]).to_numpy()
    if own.all():
        return _grouped(table, ["x_OriginChargeId"])
    of = np.zeros(len(table), np.int64)
    keys: list[UInt64s] = []
    for mask, columns in ((own, ["x_OriginChargeId"]), (~own, names)):
        if mask.any():
            numbers, found = _grouped(table.filter(pa.array(mask)), columns)
            of[mask] = numbers + sum(map(len, keys))
            keys.append(found)
    return of, np.concatenate(keys)


def _grouped(table: pa.Table, names: list[str]) -> tuple[NDArray[np.int64], UInt64s]:
    groups = group_numbers([column_codes(table[name]) for name in names])
    return groups.of, row_hashes(table.select(names).take(pa.array(groups.first)))


def _possible_origins(batch: Batch, whole: NDArray[np.bool_]) -> tuple[UInt64s, NDArray[np.int64]]:
    table = batch.table
    named = pc.is_valid(table["ResourceId"]).to_numpy() & pc.is_valid(table["PricingQuantity"]).to_numpy()
    rows = np.flatnonzero(whole & named)
    names = [name for name in _ORIGIN_KEY if name in table.column_names]
    return row_hashes(table.select(names).take(pa.array(rows))), batch.start + rows


@dataclass(slots=True)
class _Keys:
    """A growing set of numbers in sorted arrays, each at least twice as long as the next."""

    arrays: list[UInt64s] = field(default_factory=list)

    def add(self, keys: UInt64s) -> None:
        merged = np.sort(keys)
        while self.arrays and len(self.arrays[-1]) < 2 * len(merged):
            merged = np.sort(np.concatenate([self.arrays.pop(), merged]))
        if len(merged):
            self.arrays.append(merged)

    def holds(self, keys: UInt64s) -> NDArray[np.bool_]:
        """bool[n], which of the keys are in the set."""
        known = np.zeros(len(keys), bool)
        for array in self.arrays:
            at = np.minimum(np.searchsorted(array, keys), len(array) - 1)
            known |= array[at] == keys
        return known


@dataclass(slots=True)
class OpenCharges:
    """The charges of a file so far; `exact` as of `Parts`. Use it as a context: it may set parts aside on disk."""

    exact: bool
    _settled: _Keys = field(default_factory=_Keys)
    _sums: _Keys = field(default_factory=_Keys)
    _open: list[pa.Table] = field(default_factory=list)
    _unsplit: list[tuple[UInt64s, NDArray[np.int64]]] = field(default_factory=list)
    _set_aside: int = 0
    _stack: ExitStack = field(default_factory=ExitStack)
    _folder: Path | None = None

    def __enter__(self) -> Self:
        """Nothing is opened before it is needed."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove what was set aside."""
        self._stack.close()

    def add(self, piece: Piece) -> Iterator[Found]:
        """Take in the charges of the next batch, and answer what is broken in whole ones."""
        yield from piece.found
        for at in np.flatnonzero(self._settled.holds(piece.settled)).tolist():
            yield _again(int(piece.first_row[at]))
        self._settled.add(piece.settled)
        self._sums.add(piece.sums)
        if len(piece.unsplit):
            self._unsplit.append((piece.unsplit, piece.unsplit_row))
        if piece.unfinished is not None and len(piece.unfinished):
            self._open.append(piece.unfinished)
        if sum(map(len, self._open)) > _MAX_OPEN_ROWS:
            yield from self._settle()

    def finish(self) -> Iterator[Found]:
        """What is broken in the charges that are left."""
        if self._set_aside:
            self._put_aside(self._open)
            for bucket in range(_BUCKETS):
                yield from self._judge_rest([_read(self._path(bucket, time)) for time in range(self._set_aside)])
        elif self._open:
            yield from self._judge_rest(self._open)
        for keys, rows in self._unsplit:
            for row in rows[self._sums.holds(keys)].tolist():
                why = "the origin of a charge stands beside its parts, so that it counts twice"
                yield f"{SPLIT}-A-003-C", row, why, False

    def _parts(self, tables: list[pa.Table]) -> tuple[Parts, UInt64s]:
        table = _joined(tables)
        key = table["key"].to_numpy().view(np.uint64)
        keys, of = np.unique(key, return_inverse=True)
        return Parts(table, of, len(keys), self.exact), keys

    def _settle(self) -> Iterator[Found]:
        """Judge unfinished charges that have become whole; set the others aside where they are still many."""
        parts, keys = self._parts(self._open)
        whole = parts.whole.copy()
        whole[parts.of[-1]] = False
        yield from self._judge(parts.only(whole), keys[whole])
        rest = parts.only(~whole).table
        self._open = [rest]
        if len(rest) > _MAX_OPEN_ROWS // 2:
            self._open = []
            self._put_aside([rest])

    def _judge_rest(self, tables: list[pa.Table]) -> Iterator[Found]:
        if any(map(len, tables)):
            yield from self._judge(*self._parts(tables))

    def _judge(self, parts: Parts, keys: UInt64s) -> Iterator[Found]:
        if not parts.count:
            return
        yield from judge(parts, settled=self._settled.holds(keys))
        self._settled.add(keys)
        self._sums.add(row_hashes(whole_charges(parts)))

    def _path(self, bucket: int, time: int) -> Path:
        if self._folder is None:
            self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="gpuwaste-verify-")))
        return self._folder / f"{bucket}-{time}.arrow"

    def _put_aside(self, tables: list[pa.Table]) -> None:
        table = _joined(tables) if tables else None
        if table is None or not len(table):
            return
        number = table["key"].to_numpy().view(np.uint64) % np.uint64(_BUCKETS)
        for bucket in range(_BUCKETS):
            feather.write_feather(table.filter(pa.array(number == bucket)), self._path(bucket, self._set_aside), "zstd")
        self._set_aside += 1


def _joined(tables: list[pa.Table]) -> pa.Table:
    """Tables one below the other; amounts with the most decimals that any of them has."""
    if len(tables) == 1:
        return tables[0]
    schema = tables[0].schema
    for at, name in enumerate(schema.names):
        kinds = {table.schema.field(name).type for table in tables}
        if len(kinds) > 1:
            schema = schema.set(at, pa.field(name, max(kinds, key=lambda kind: kind.scale)))
    return pa.concat_tables([table if table.schema == schema else table.cast(schema) for table in tables])


def _read(path: Path) -> pa.Table:
    return feather.read_table(path)


def _again(row: int) -> Found:
    why = "the charge was whole before: with these parts its ratios add up to more than 1"
    return "CAU-AllocatedMethodDetailsObject-O-014-M", row, why, False
