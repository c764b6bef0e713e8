"""From a gateway's files to one FOCUS file: the rows given, those of a provider's tokens divided, and token rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gpuwaste.focus.columns import schema_of
from gpuwaste.focus.files import open_sink
from gpuwaste.focus.options import Finding
from gpuwaste.focus.token_bill import BilledTokens
from gpuwaste.focus.token_rows import count_tokens, token_rows
from gpuwaste.focus.token_table import read_tokens
from gpuwaste.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from gpuwaste.focus.columns import Version
    from gpuwaste.focus.options import Grain
    from gpuwaste.focus.token_prices import TokenPrices

__all__ = ["TokenSummary", "export_tokens"]

_BATCH_ROWS: Final = 131_072


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSummary:
    """What was written: token rows, parts of a bill's rows, rows kept as they were, and what was left out."""

    rows: int
    divided: int
    kept: int
    findings: tuple[Finding, ...]


def export_tokens(
    usage: Iterable[Path], prices: TokenPrices, beside: Path | None, out: Path, *, grain: Grain, version: Version
) -> TokenSummary:
    """Write one FOCUS file.

    Args:
        usage: files of calls.
        prices: what tokens cost, and which providers stand in `beside`.
        beside: a FOCUS Parquet file of the same version whose rows come first; None for none.
        out: a `.parquet` or `.csv` file; it appears when it is whole.
        grain: how much time a token row covers.
        version: of FOCUS.

    Raises:
        InputError: a file cannot be read, or does not fit to the others.
    """
    calls = read_tokens(usage, grain=grain)
    schema = schema_of(version) if beside is None else _schema(beside, version)
    if beside is not None:
        prices = _with_bills(prices, beside)
    charges = count_tokens(calls, prices, grain=grain)
    billed = BilledTokens.of(charges.billed, prices)
    own = token_rows(charges.counts, prices, grain=grain, version=version)
    kept = divided = 0
    with open_sink(out, schema) as sink:
        for batch in _batches(beside):
            rows = billed.divide(batch)
            kept += len(batch)
            divided += len(rows) - len(batch)
            sink.write(rows)
        sink.write(_as(own, schema))
    parts, origins = divided + billed.origins, billed.origins
    return TokenSummary(
        rows=len(own), divided=parts, kept=kept - origins, findings=(*charges.findings, *_about(billed, beside))
    )


def _with_bills(prices: TokenPrices, beside: Path) -> TokenPrices:
    """The prices with every provider marked as billed whose tokens have rows of their own in the file, flag or not."""
    names: set[str] = set()
    skus = {
        sku
        for one in prices.providers.values()
        for model in one.models.values()
        for several in model.skus.values()
        for sku in several
    }
    for batch in _batches(beside, _TELLING):
        sold = pc.is_in(batch["SkuId"], value_set=pa.array(sorted(skus), pa.string()))
        for unit in ("PricingUnit", "ConsumedUnit"):
            sold = pc.or_(sold, pc.fill_null(pc.match_substring_regex(batch[unit], "Tokens?$"), fill_value=False))
        usage = pc.and_(pc.equal(batch["ChargeCategory"], "Usage"), pc.is_null(batch["AllocatedMethodId"]))
        names.update(pc.unique(batch.filter(pc.and_(usage, sold))["ServiceProviderName"]).drop_null().to_pylist())
    providers = {
        key: one.model_copy(update={"billed": one.billed or (not one.in_cluster and one.name in names)})
        for key, one in prices.providers.items()
    }
    return prices.model_copy(update={"providers": providers})


_TELLING: Final = [
    "ServiceProviderName",
    "ChargeCategory",
    "AllocatedMethodId",
    "SkuId",
    "PricingUnit",
    "ConsumedUnit",
]


def _schema(path: Path, version: Version) -> pa.Schema:
    if not path.is_file():
        raise InputError("there is no such file", where=str(path))
    try:
        found = pq.read_schema(path)
    except pa.ArrowInvalid:
        raise InputError("is no Parquet file", where=str(path), fix="export it as .parquet") from None
    wanted = schema_of(version)
    missing = [name for name in wanted.names if name not in found.names]
    if missing:
        raise InputError(
            f"is no FOCUS {version} file of gpuwaste: column {missing[0]} is missing",
            where=str(path),
            fix="make it with `gpuwaste focus export`, which also takes a provider's bill",
        )
    return pa.schema([pa.field(one.name, _plain(one.type)) for one in found])


def _plain(kind: pa.DataType) -> pa.DataType:
    """Texts as texts; an engine may have stored them as a dictionary."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _batches(path: Path | None, columns: list[str] | None = None) -> Iterator[pa.Table]:
    if path is None:
        return
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
            table = pa.Table.from_batches([batch])
            yield table.cast(pa.schema([pa.field(one.name, _plain(one.type)) for one in table.schema]))


def _as(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        rows[one.name].cast(one.type) if one.name in rows.column_names else pa.nulls(len(rows), one.type)
        for one in schema
    ]
    return pa.table(columns, schema=schema)


def _about(billed: BilledTokens, beside: Path | None) -> Iterator[Finding]:
    where = "bill" if beside is None else str(beside)
    name_it = "name it under `skus` of its model in the price file"
    for (provider, sku), rows in sorted(billed.unmatched.items()):
        if rows:
            what = f"{rows} rows of {provider} have SkuId {sku or '(none)'}, which no model names; kept as they came"
            yield Finding(where=where, what=what, fix=name_it)
    for (provider, model), tokens in sorted(billed.uncounted.items()):
        what = f"{tokens} tokens of {model} divide no row of the bill: the price file names no SKU of theirs"
        yield Finding(where=provider, what=what, fix="name it under `skus`")
    for (provider, sku), rows in sorted(billed.unseen.items()):
        yield Finding(where=where, what=f"{rows} rows of {provider} {sku} lie in time without calls; kept as they came")
    for (provider, sku), tokens in sorted(billed.beyond().items()):
        what = f"{tokens} tokens of {sku} lie in time that no row of the bill charges; they are charged nowhere"
        yield Finding(where=provider, what=what, fix="give the bill of that time with --with")
