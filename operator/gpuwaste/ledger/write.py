"""Keep the stored ledger equal to what its inputs say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from gpuwaste.ledger.hour import HourRules, LedgerHour, build_hour
from gpuwaste.ledger.inputs import clusters_in
from gpuwaste.ledger.schema import LEDGER_SCHEMA
from gpuwaste.ledger.store import Store, hour_folder
from gpuwaste.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from gpuwaste.ledger.inputs import InputStore

__all__ = ["hour_file", "read_ledger", "update_hour"]


def hour_file(cluster: str, hour: datetime) -> str:
    """The one file of a ledger hour, relative to the store's root."""
    return f"{hour_folder('ledger', cluster, hour)}/part-0.parquet"


def update_hour(inputs: InputStore, store: Store, hour: datetime, rules: HourRules) -> LedgerHour | None:
    """Rewrite the ledger file of an hour if its inputs or rules changed since it was written.

    Returns:
        The new hour, or None where the file was up to date.
    """
    loaded = inputs.load(hour)
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


def read_ledger(store: Store, *, start: datetime, end: datetime, clusters: Iterable[str] | None = None) -> pa.Table:
    """All rows of the hours in [start, end), of all clusters or those named, in the order of the key.

    Raises:
        InputError: a file has other columns than the ledger.
    """
    wanted = None if clusters is None else set(clusters)
    tables = []
    for cluster, hours in clusters_in(store, "ledger").items():
        if wanted is not None and cluster not in wanted:
            continue
        for hour in hours:
            if start <= hour < end:
                name = hour_file(cluster, hour)
                table = store.read_table(name).replace_schema_metadata(LEDGER_SCHEMA.metadata)
                if table.schema != LEDGER_SCHEMA:
                    raise InputError("its columns are not those of the ledger", where=f"{store.root}/{name}")
                tables.append(table)
    return pa.concat_tables(tables) if tables else LEDGER_SCHEMA.empty_table()
