"""Verify a FOCUS Cost and Usage file: every row by itself, and the parts of each charge against each other.

The file is read in batches. What has to hold over all parts of a charge is gathered in one row a charge, so memory
grows with the number of charges and not with the rows.
"""

# ruff: noqa: S608 - every piece of SQL here is a constant of this package; no text of a file enters a query
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from gpuwaste.focus.columns import AMOUNT_TYPE, DIMENSIONS, METRICS, SUMMABLE, TIME_TYPE, UNIT_PRICES, columns_of
from gpuwaste.focus.rules import MISSING_COLUMN, row_rules
from gpuwaste.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gpuwaste.focus.columns import Version

__all__ = ["Violation", "verify"]

_BATCH_ROWS: Final = 131_072
_SPLIT: Final = "DataGeneratorCalculatedSplitCostAllocationHandling"
_RATIO: Final = "CAU-AllocatedMethodDetailsObject-O-014-M"
_MAX_EXAMPLES: Final = 20
_ORIGIN_KEY: Final = (
    "ResourceId",
    "ChargePeriodStart",
    "ChargePeriodEnd",
    "SkuPriceId",
    "ChargeCategory",
    "ChargeClass",
    "InvoiceId",
    "BillingCurrency",
)
_JSON: Final = ("AllocatedMethodDetails", "AllocatedTags", "SkuPriceDetails", "Tags")
_KEY: Final = (
    "coalesce({origin}, concat_ws('|', ResourceId, ChargePeriodStart, ChargePeriodEnd, SkuPriceId, ChargeCategory,"
    " ChargeClass, InvoiceId, CommitmentDiscountId, CapacityReservationId, ListUnitPrice))"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A broken rule: its id, the row or the charge where it is broken, and why."""

    rule: str
    where: str
    why: str

    def __str__(self) -> str:
        return f"{self.rule} {self.where}: {self.why}"


def verify(path: Path, *, version: Version = "1.3", origin: Path | None = None) -> Iterator[Violation]:
    """Find every broken rule of a file, at most 20 examples a rule.

    Args:
        path: a Parquet or CSV file of any engine.
        version: the FOCUS version that it should follow.
        origin: the bill that was split; without it a charge is compared with the sum of its own parts.

    Raises:
        InputError: a file cannot be read, or holds amounts that are no numbers.
    """
    names = _column_names(path)
    expected = [column.name for column in columns_of(version)]
    missing = [name for name in expected if name not in names]
    for name in missing:
        yield Violation(rule=MISSING_COLUMN, where="file", why=f"column {name} is missing")
    if missing:
        return
    with duckdb.connect() as connection:
        yield from _verify_rows(connection, path, version)
        yield from _verify_groups(connection)
        yield from _verify_products(connection, path, version)
        if origin is not None:
            yield from _verify_origin(connection, path, origin)


def _column_names(path: Path) -> list[str]:
    if not path.is_file():
        raise InputError("there is no such file", where=str(path))
    try:
        if path.suffix == ".csv":
            with pa_csv.open_csv(path) as reader:
                return list(reader.schema.names)
        return list(pq.read_schema(path).names)
    except pa.ArrowInvalid as error:
        raise InputError(f"not readable as Parquet or CSV: {error}", where=str(path)) from None


def _batches(path: Path, columns: list[str]) -> Iterator[tuple[int, pa.Table]]:
    """Pieces of a file with the row number at which each begins; amounts and times in the types of this project."""
    start = 0
    if path.suffix == ".csv":
        texts = dict.fromkeys(_column_names(path), pa.string())
        options = pa_csv.ConvertOptions(
            column_types=texts,
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=[""],
            include_columns=columns,
        )
        source: Any = pa_csv.open_csv(path, convert_options=options)
    else:
        source = pq.ParquetFile(path).iter_batches(batch_size=_BATCH_ROWS, columns=columns)
    for batch in source:
        table = pa.Table.from_batches([batch])
        yield start, _typed(table, path)
        start += len(table)


def _typed(table: pa.Table, path: Path) -> pa.Table:
    for position, name in enumerate(table.column_names):
        column = table[name]
        wanted = AMOUNT_TYPE if name in METRICS else TIME_TYPE if name.endswith(("PeriodEnd", "PeriodStart")) else None
        wanted = wanted or (pa.string() if column.type != pa.string() else None)
        if wanted is None or column.type == wanted:
            continue
        try:
            table = table.set_column(position, name, column.cast(wanted))
        except pa.ArrowInvalid as error:
            raise InputError(f"not of type {wanted}: {error}", where=f"{path}, column {name}") from None
    return table


def _row_view(table: pa.Table, start: int) -> pa.Table:
    """The batch for DuckDB: times without a zone (they are UTC), and the number of each row."""
    for position, field in enumerate(table.schema):
        if field.type == TIME_TYPE:
            table = table.set_column(position, field.name, table[field.name].cast(pa.timestamp("us")))
    return table.append_column("row_number", pa.array(range(start, start + len(table)), pa.int64()))


def _verify_rows(connection: duckdb.DuckDBPyConnection, path: Path, version: Version) -> Iterator[Violation]:
    columns = [column.name for column in columns_of(version)]
    has_origin = "x_OriginChargeId" in _column_names(path)
    rules = row_rules(version)
    seen = dict.fromkeys(range(len(rules)), 0)
    for start, table in _batches(path, [*columns, *(["x_OriginChargeId"] if has_origin else [])]):
        connection.register("batch", _row_view(table, start))
        connection.execute(f"CREATE OR REPLACE TEMP TABLE piece AS {_piece_query(has_origin=has_origin)}")
        counts = connection.execute(
            "SELECT " + ", ".join(f"count(*) FILTER (WHERE {rule.broken})" for rule in rules) + " FROM piece"
        ).fetchone()
        for index, count in enumerate(counts or ()):
            if count and seen[index] < _MAX_EXAMPLES:
                seen[index] += count
                yield from _examples(connection, rules[index].id, rules[index].broken, rules[index].why)
        _gather(connection, version)


def _piece_query(*, has_origin: bool) -> str:
    origin = "x_OriginChargeId" if has_origin else "CAST(NULL AS VARCHAR)"
    valid = ", ".join(f"CASE WHEN json_valid({name}) THEN {name} END AS valid_{name}" for name in _JSON)
    ratios = "json_extract_string(valid_AllocatedMethodDetails, '$.Elements[*].AllocatedRatio')"
    ratio = (
        f"CASE WHEN len({ratios}) = json_array_length(valid_AllocatedMethodDetails, '$.Elements')"
        f" THEN list_sum([TRY_CAST(x AS DECIMAL(38, 28)) FOR x IN {ratios}]) END"
    )
    return f"SELECT *, {_KEY.format(origin=origin)} AS origin_key, {ratio} AS ratio FROM (SELECT *, {valid} FROM batch)"


def _examples(connection: duckdb.DuckDBPyConnection, rule: str, broken: str, why: str) -> Iterator[Violation]:
    found = connection.execute(
        f"SELECT row_number FROM piece WHERE {broken} ORDER BY row_number LIMIT {_MAX_EXAMPLES}"
    ).fetchall()
    for (number,) in found:
        yield Violation(rule=rule, where=f"row {number + 1}", why=why)


def _gather(connection: duckdb.DuckDBPyConnection, version: Version) -> None:
    """Add a batch's parts to the table of charges."""
    names = {column.name for column in columns_of(version)}
    common = [name for name in (*DIMENSIONS, *UNIT_PRICES) if name in names and name not in {"Tags", "ContractApplied"}]
    sums = ", ".join(f"sum({name}) AS {name}" for name in SUMMABLE)
    query = f"""
        SELECT origin_key, min(row_number) AS first_row, count(*) AS parts, sum(ratio) AS ratio,
            count(*) FILTER (WHERE ratio IS NULL) AS without_ratio,
            min(hash({", ".join(common)})) AS low, max(hash({", ".join(common)})) AS high,
            min(coalesce(Tags, '')) AS low_tags, max(coalesce(Tags, '')) AS high_tags,
            min(AllocatedMethodId) AS low_method, max(AllocatedMethodId) AS high_method, {sums}
        FROM piece WHERE AllocatedMethodId IS NOT NULL GROUP BY origin_key"""
    duplicates = """
        SELECT origin_key, AllocatedResourceId AS receiver, count(*) AS rows, max(row_number) AS last_row
        FROM piece WHERE AllocatedMethodId IS NOT NULL AND AllocatedResourceId IS NOT NULL GROUP BY ALL"""
    exists = connection.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'gathered'").fetchone()
    verb = "INSERT INTO {} {}" if exists and exists[0] else "CREATE TEMP TABLE {} AS {}"
    connection.execute(verb.format("gathered", query))
    connection.execute(verb.format("receivers", duplicates))


def _verify_groups(connection: duckdb.DuckDBPyConnection) -> Iterator[Violation]:
    sums = ", ".join(f"sum({name}) AS {name}" for name in SUMMABLE)
    connection.execute(
        f"""CREATE TEMP TABLE charges AS SELECT origin_key, min(first_row) AS first_row, sum(ratio) AS ratio,
            sum(without_ratio) AS without_ratio, min(low) AS low, max(high) AS high, min(low_tags) AS low_tags,
            max(high_tags) AS high_tags, min(low_method) AS low_method, max(high_method) AS high_method, {sums}
            FROM gathered GROUP BY origin_key"""
    )
    checks = (
        (
            _RATIO,
            "without_ratio = 0 AND ratio <> 1",
            "'the ratios of its parts add up to ' || ratio || ' and not to 1'",
        ),
        (f"{_SPLIT}-A-004-C", "low <> high", "'a dimension or unit price differs between its parts'"),
        (f"{_SPLIT}-A-005-C", "low_tags <> high_tags", "'Tags differ between its parts'"),
        ("CAU-AllocatedMethodId-C-006-M", "low_method <> high_method", "'its parts name several methods'"),
    )
    for rule, broken, why in checks:
        found = connection.execute(
            f"SELECT first_row, origin_key, {why} FROM charges WHERE {broken} ORDER BY first_row LIMIT {_MAX_EXAMPLES}"
        ).fetchall()
        for first_row, key, text in found:
            yield Violation(rule=rule, where=f"row {first_row + 1}, charge {key}", why=text)
    doubles = connection.execute(
        f"""SELECT origin_key, receiver, max(last_row) FROM receivers GROUP BY ALL
            HAVING sum(rows) > 1 ORDER BY 3 LIMIT {_MAX_EXAMPLES}"""
    ).fetchall()
    for key, receiver, row in doubles:
        yield Violation(
            rule="CAU-AllocatedResourceId-C-008-O",
            where=f"row {row + 1}, charge {key}",
            why=f"{receiver} receives more than one part of it",
        )


def _verify_products(connection: duckdb.DuckDBPyConnection, path: Path, version: Version) -> Iterator[Violation]:
    """Price × quantity on every row, and ratio × the charge's sum on every part, in exact decimals."""
    columns = [column.name for column in columns_of(version)]
    extra = ["x_OriginChargeId"] if "x_OriginChargeId" in _column_names(path) else []
    seen: dict[str, int] = {}
    for start, table in _batches(path, [*columns, *extra]):
        for cost, price, rule in (
            ("ListCost", "ListUnitPrice", "CAU-ListCost-C-009-C"),
            ("ContractedCost", "ContractedUnitPrice", "CAU-ContractedUnitPrice-C-011-C"),
        ):
            counted = pc.invert(pc.fill_null(pc.equal(table["ChargeClass"], "Correction"), fill_value=False))
            broken = pc.and_kleene(counted, _differs(table[price], table["PricingQuantity"], table[cost]))
            yield from _broken_rows(broken, start, rule, f"{cost} is not {price} × PricingQuantity", seen)
        connection.register("batch", _row_view(table, start))
        joined = connection.sql(
            f"""SELECT p.row_number, p.ratio, {", ".join(f"p.{n} AS part_{n}, c.{n} AS sum_{n}" for n in SUMMABLE)}
                FROM ({_piece_query(has_origin=bool(extra))}) p LEFT JOIN charges c
                ON p.origin_key = c.origin_key AND p.AllocatedMethodId IS NOT NULL ORDER BY p.row_number"""
        ).to_arrow_table()
        ratio = joined["ratio"].cast(pa.decimal128(38, 28))
        for name in SUMMABLE:
            broken = _differs(joined[f"sum_{name}"], ratio, joined[f"part_{name}"])
            why = f"{name} is not AllocatedRatio × the sum of its charge"
            yield from _broken_rows(broken, start, f"{_SPLIT}-A-003-C", why, seen)


def _differs(left: pa.ChunkedArray, right: pa.ChunkedArray, product: pa.ChunkedArray) -> pa.ChunkedArray:
    wide = pc.multiply(left.cast(pa.decimal256(38, 28)), right.cast(pa.decimal256(37, 28)))
    return pc.fill_null(pc.not_equal(wide, product.cast(pa.decimal256(38, 28))), fill_value=False)


def _broken_rows(broken: pa.ChunkedArray, start: int, rule: str, why: str, seen: dict[str, int]) -> Iterator[Violation]:
    room = _MAX_EXAMPLES - seen.get(rule, 0)
    rows = pc.indices_nonzero(broken)[: max(room, 0)].to_pylist()
    seen[rule] = seen.get(rule, 0) + len(rows)
    for row in rows:
        yield Violation(rule=rule, where=f"row {start + row + 1}", why=why)


def _verify_origin(connection: duckdb.DuckDBPyConnection, path: Path, origin: Path) -> Iterator[Violation]:
    """The sums of the file against those of the bill, for each charge of the bill."""
    keys = [name for name in _ORIGIN_KEY if name in _column_names(origin)]
    metrics = [name for name in SUMMABLE if name in _column_names(origin)]
    if len(keys) + len(metrics) == 0:
        raise InputError("holds no FOCUS column", where=str(origin))
    key = ", ".join(keys)
    sums = ", ".join(f"sum({name}) AS {name}" for name in metrics)
    for side, file in (("ours", path), ("bill", origin)):
        verb = f"CREATE TEMP TABLE {side} AS"
        for start, table in _batches(file, [*keys, *metrics]):
            connection.register("batch", _row_view(table, start))
            connection.execute(f"{verb} SELECT {key}, {sums}, min(row_number) AS first_row FROM batch GROUP BY {key}")
            verb = f"INSERT INTO {side}"
        connection.execute(
            f"CREATE TEMP TABLE {side}_sums AS"
            f" SELECT {key}, {sums}, min(first_row) AS first_row FROM {side} GROUP BY {key}"
        )
    same = " AND ".join(f"o.{name} IS NOT DISTINCT FROM b.{name}" for name in keys)
    for name in metrics:
        found = connection.execute(
            f"""SELECT b.first_row, o.first_row, o.{name}, b.{name} FROM bill_sums b FULL JOIN ours_sums o ON {same}
                WHERE o.{name} IS DISTINCT FROM b.{name} ORDER BY 1, 2 LIMIT {_MAX_EXAMPLES}"""
        ).fetchall()
        for bill_row, our_row, ours, theirs in found:
            where = f"bill row {bill_row + 1}" if bill_row is not None else f"row {our_row + 1}"
            why = f"{name} adds up to {ours} and is {theirs} in the bill"
            yield Violation(rule=f"{_SPLIT}-A-003-C", where=where, why=why)
