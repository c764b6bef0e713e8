"""Keep the stored ledger equal to what its inputs say."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.ledger.columns import COMPUTED_FROM
from gpuwaste.ledger.hour import HourRules, LedgerHour, build_hour
from gpuwaste.ledger.inputs import clusters_in
from gpuwaste.ledger.schema import LEDGER_SCHEMA
from gpuwaste.ledger.store import Store, hour_folder
from gpuwaste.ledger.unprovisioned import once_over_clusters
from gpuwaste.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from gpuwaste.ledger.inputs import InputStore

__all__ = ["hour_file", "read_ledger", "update_hour"]

_PURCHASES = ("hour", "cluster", "row_kind", "parent_id", "slice_id", "owned")
_READERS = 8
"""Files read at once: they are small, and an object store answers each after a while."""


def hour_file(cluster: str, hour: datetime) -> str:
    """The one file of a ledger hour, relative to the store's root."""
    return f"{hour_folder('ledger', cluster, hour)}/part-0.parquet"


def update_hour(inputs: InputStore, store: Store, hour: datetime, rules: HourRules) -> LedgerHour | None:
    """Rewrite the ledger file of an hour if its inputs or rules changed since it was written.

    Returns:
        The new hour, or None where the file was up to date.
    """
    loaded = inputs.load(hour, columns=COMPUTED_FROM)
    expected = {b"input_hash": loaded.input_hash().encode(), b"team_rules_hash": rules.teams.hash().encode()}
    name = hour_file(inputs.cluster, hour)
    try:
        metadata = store.table_metadata(name)
    except FileNotFoundError:
        metadata = {}
    if all(metadata.get(key) == value for key, value in expected.items()):
        return None
    built = build_hour(loaded, rules)
    metadata = {**(LEDGER_SCHEMA.metadata or {}), **expected}
    store.write_table(name, built.table.replace_schema_metadata(metadata))
    return built


def read_ledger(
    store: Store,
    *,
    start: datetime,
    end: datetime,
    clusters: Iterable[str] | None = None,
    columns: Sequence[str] | None = None,
    resource: str = "",
) -> pa.Table:
    """All rows of the hours in [start, end), of all clusters or those named, in the order of the key.

    A purchase that several of the clusters know is counted once.

    Args:
        store: where the ledger lies.
        start: the first hour.
        end: the first hour that is not read.
        clusters: whose rows; None for all.
        columns: which columns, their texts encoded as dictionaries; None for all, as LEDGER_SCHEMA has them.
        resource: rows of this resource alone, where `columns` has it; empty for all.

    Raises:
        InputError: a file has other columns than the ledger.
    """
    wanted = None if clusters is None else set(clusters)
    names = [
        hour_file(cluster, hour)
        for cluster, hours in clusters_in(store, "ledger").items()
        if wanted is None or cluster in wanted
        for hour in hours
        if start <= hour < end
    ]
    wanted_columns = list(columns or LEDGER_SCHEMA.names)
    if not names:
        return LEDGER_SCHEMA.empty_table().select(wanted_columns)
    several = len({name.split("/")[1] for name in names}) > 1
    read = None if columns is None else list(dict.fromkeys([*columns, *(_PURCHASES if several else ())]))
    with ThreadPoolExecutor(_READERS, thread_name_prefix="ledger-read") as readers:
        tables = list(readers.map(lambda name: _of_resource(_read_hour(store, name, read), resource), names))
    table = pa.concat_tables(tables)
    return once_over_clusters(table).select(wanted_columns) if several else table


def _of_resource(table: pa.Table, resource: str) -> pa.Table:
    """Dropped file by file: the CPU and memory of nodes have more rows than their GPUs."""
    if not resource or "resource" not in table.schema.names:
        return table
    return table.filter(pc.equal(table["resource"], resource)).combine_chunks()


def _read_hour(store: Store, name: str, columns: Sequence[str] | None) -> pa.Table:
    texts = [column for column in columns or () if pa.types.is_string(LEDGER_SCHEMA.field(column).type)]
    table, schema = store.read_columns(name, columns, dictionaries=texts, threads=False)
    if schema != LEDGER_SCHEMA.remove_metadata():
        raise InputError("its columns are not those of the ledger", where=f"{store.root}/{name}")
    return table.replace_schema_metadata(LEDGER_SCHEMA.metadata)
