"""Remove stored inputs that are old, and that no open period and no missing ledger hour needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuwaste.ledger.catalog import ledger_hours
from gpuwaste.ledger.store import hour_folder
from gpuwaste.model.units import HOUR

if TYPE_CHECKING:
    from datetime import datetime

    from gpuwaste.ledger.inputs import InputStore
    from gpuwaste.ledger.store import Store

__all__ = ["remove_inputs"]


def remove_inputs(inputs: InputStore, store: Store, *, before: datetime) -> list[datetime]:
    """Remove the inputs of hours that ended before a time and whose ledger is stored, oldest first.

    A kill leaves hours as they are, or one of them without some of its files; the next run removes the rest. Hours
    that were asked for here must not be computed again: see `Books.update`.

    Args:
        inputs: what is stored of the cluster.
        store: where its ledger lies.
        before: the time.

    Returns:
        The hours.

    Raises:
        UnreachableError: the store did not answer.
    """
    written = set(ledger_hours(store).get(inputs.cluster, ()))
    old = [hour for hour in inputs.hours() if hour + HOUR <= before and hour in written]
    for hour in old:
        inputs.store.delete_folder(hour_folder("inputs", inputs.cluster, hour))
    return old
