"""Keep the stored ledger equal to what its inputs say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuwaste.ledger.catalog import hour_file, place_of
from gpuwaste.ledger.columns import COMPUTED_FROM
from gpuwaste.ledger.days import put_hours
from gpuwaste.ledger.hour import HourRules, LedgerHour, build_hour
from gpuwaste.ledger.read import read_ledger
from gpuwaste.ledger.schema import LEDGER_SCHEMA

if TYPE_CHECKING:
    from datetime import datetime

    from gpuwaste.ledger.inputs import InputStore
    from gpuwaste.ledger.store import Store

__all__ = ["hour_file", "read_ledger", "update_hour"]


def update_hour(inputs: InputStore, store: Store, hour: datetime, rules: HourRules) -> LedgerHour | None:
    """Rewrite the ledger of an hour if its inputs or rules changed since it was written.

    Returns:
        The new hour, or None where it was up to date.
    """
    loaded, rules = inputs.load(hour, columns=COMPUTED_FROM), rules.at(hour)
    expected = {"input_hash": loaded.input_hash(), "team_rules_hash": rules.teams.hash()}
    found = place_of(store, inputs.cluster, hour)
    if found is not None and all(found[1].get(key) == value for key, value in expected.items()):
        return None
    built = build_hour(loaded, rules)
    metadata = {**(LEDGER_SCHEMA.metadata or {}), **{key.encode(): value.encode() for key, value in expected.items()}}
    put_hours(store, inputs.cluster, {hour: built.table.replace_schema_metadata(metadata)})
    return built
