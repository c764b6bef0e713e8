"""The rules of single rows, checked once for all rows that are alike."""

# ruff: noqa: S608 - every piece of SQL here is a constant of this package; no text of a file enters a query
from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.focus.columns import ALLOWED_VALUES, METRICS, TIME_TYPE, columns_of
from gpuwaste.focus.pair_rules import PAIR_COLUMNS, pair_keys, pair_problem
from gpuwaste.focus.rules import PLACEHOLDERS, row_rules
from gpuwaste.model.grouping import group_numbers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from gpuwaste.focus.columns import Version
    from gpuwaste.focus.verify_files import Batch

    Int64s = NDArray[np.int64]

__all__ = ["broken_pairs", "broken_rows", "column_codes", "sample_rows"]

_MAX_EXAMPLES: Final = 20
_PLAIN: Final = {TIME_TYPE: pa.timestamp("us"), pa.dictionary(pa.int32(), pa.string()): pa.string()}

_BY_VALUE: Final = (
    *ALLOWED_VALUES,
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ServiceSubcategory",
)
"""Columns whose values the rules look at; of all others they ask whether they are null, blank or a placeholder."""


def column_codes(column: pa.ChunkedArray | pa.Array) -> Int64s:
    """Numbers that are equal where the values are; the highest is null."""
    coded = column if pa.types.is_dictionary(column.type) else pc.dictionary_encode(column)
    if isinstance(coded, pa.ChunkedArray):
        coded = coded.unify_dictionaries().combine_chunks()
    codes: Int64s = pc.fill_null(coded.indices, len(coded.dictionary)).to_numpy(zero_copy_only=False).astype(np.int64)
    return codes


def sample_rows(batch: Batch, version: Version) -> pa.Table:
    """One row for all rows of a batch that the rules of single rows cannot tell apart.

    Columns: those of the version, times without a zone (they are UTC), `row_number` of the first of the rows in the
    file, and `alike`, their count.
    """
    table = batch.table
    groups = group_numbers(_alike(table))
    wanted = {column.name for column in columns_of(version)} & set(table.column_names)
    seen = [name for name in table.column_names if name in wanted]
    columns = {name: table[name].take(pa.array(groups.first)) for name in seen}
    columns = {name: values.cast(_PLAIN.get(values.type, values.type)) for name, values in columns.items()}
    counts = {"row_number": batch.start + groups.first, "alike": np.bincount(groups.of, minlength=len(groups.first))}
    return pa.table(columns | counts)


def broken_rows(samples: Sequence[pa.Table], version: Version) -> list[tuple[str, int, str]]:
    """Each broken rule of single rows: its id, the number of a row that breaks it, and why."""
    if not samples:
        return []
    sample = _joined(samples)
    rules = [rule for rule in row_rules(version) if set(rule.columns) <= set(sample.column_names)]
    found: list[tuple[str, int, str]] = []
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("sample", sample)
        counts = connection.sql(
            "SELECT " + ", ".join(f"count(*) FILTER (WHERE {rule.broken})" for rule in rules) + " FROM sample"
        ).fetchall()
        for rule, count in zip(rules, counts[0] if counts else (), strict=True):
            if not count:
                continue
            rows = connection.sql(
                f"SELECT row_number, alike FROM sample WHERE {rule.broken} ORDER BY row_number LIMIT {_MAX_EXAMPLES}"
            ).fetchall()
            for number, alike in rows:
                others = f", as on {alike - 1} rows like it" if alike > 1 else ""
                found.append((rule.id, number, f"{rule.why}{others}"))
    return found


def _joined(samples: Sequence[pa.Table]) -> pa.Table:
    """All samples; of amounts only the sign matters, which a floating point number keeps."""
    first = samples[0]
    kinds = [pa.float64() if name in METRICS else first.schema.field(name).type for name in first.column_names]
    schema = pa.schema(list(zip(first.column_names, kinds, strict=True)))
    return pa.concat_tables([sample.cast(schema) for sample in samples])


def _alike(table: pa.Table) -> list[Int64s]:
    """Keys that are equal where the rules of single rows cannot tell two rows apart."""
    keys: list[Int64s] = []
    if not len(table):
        return [np.zeros(0, np.int64)]
    for name in table.column_names:
        column = table[name]
        if name in METRICS:
            # 0 null, 1 negative, 2 not negative
            sign = pc.if_else(pc.less(column, pa.scalar(Decimal(0), column.type)), 1, 2)
            state: Int64s = pc.fill_null(sign, 0).to_numpy()
        elif name in _BY_VALUE:
            keys.append(column_codes(column))
            continue
        elif name.startswith("x_"):
            continue
        else:
            state = _text_state(column)
        if not (state == state[0]).all():
            keys.append(state)
    return keys or [np.zeros(len(table), np.int64)]


def _text_state(column: pa.ChunkedArray) -> Int64s:
    """0 null, 1 blank, 2 filled, 3 and on: one of the placeholders."""
    if not pa.types.is_dictionary(column.type):
        filled = pc.if_else(pc.equal(pc.binary_length(column), 0), 1, 2)
        state: Int64s = pc.fill_null(filled, 0).to_numpy()
        return state
    coded = column.unify_dictionaries().combine_chunks()
    words = coded.dictionary.to_pylist()
    states = [1 if not word.strip() else 3 + PLACEHOLDERS.index(word) if word in PLACEHOLDERS else 2 for word in words]
    return np.array([*states, 0], np.int64)[column_codes(coded)]


def broken_pairs(table: pa.Table) -> Iterator[tuple[str, Int64s, str]]:
    """Each broken rule of key-value columns: its id, the rows of the table that break it, and why."""
    known: dict[str, tuple[Int64s, list[str]]] = {}
    for name in PAIR_COLUMNS:
        if name not in table.column_names:
            continue
        coded = table[name].unify_dictionaries().combine_chunks()
        texts = coded.dictionary.to_pylist()
        codes = column_codes(coded)
        known[name] = codes, texts
        for code, text in enumerate(texts):
            problem = pair_problem(text)
            if problem and (rows := np.flatnonzero(codes == code)).size:
                yield problem[0], rows, f"{name} {problem[1]}"
    if "Tags" in known and "AllocatedTags" in known:
        yield from _shared_keys(*known["Tags"], *known["AllocatedTags"])


def _shared_keys(
    tags: Int64s, tag_texts: list[str], allocated: Int64s, allocated_texts: list[str]
) -> Iterator[tuple[str, Int64s, str]]:
    of_tags = [pair_keys(text) for text in tag_texts] + [frozenset()]
    of_allocated = [pair_keys(text) for text in allocated_texts] + [frozenset()]
    pairs = group_numbers([tags, allocated])
    for group, row in enumerate(pairs.first.tolist()):
        shared = of_tags[tags[row]] & of_allocated[allocated[row]]
        if shared:
            why = f"AllocatedTags must not repeat key {min(shared)!r} of Tags"
            yield "CAU-AllocatedTags-C-006-M", np.flatnonzero(pairs.of == group), why
