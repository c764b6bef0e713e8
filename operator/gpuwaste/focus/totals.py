"""What each receiver is charged in a period, summed exactly while its rows stream by, and how two periods differ."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.focus.manifest import ReceiverTotal
from gpuwaste.model.grouping import group_rows
from gpuwaste.model.money import EXACT, exact

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Totals", "differences"]

_KEY: Final = {
    "currency": "BillingCurrency",
    "receiver_id": "AllocatedResourceId",
    "receiver_name": "AllocatedResourceName",
    "remainder_reason": "x_RemainderReason",
    "cluster": "x_ClusterName",
    "namespace": "x_Namespace",
    "team": "x_Team",
    "workload_kind": "x_WorkloadKind",
    "workload_name": "x_WorkloadName",
    "tags": "AllocatedTags",
}
_COSTS: Final = {
    "billed_cost": "BilledCost",
    "contracted_cost": "ContractedCost",
    "effective_cost": "EffectiveCost",
    "list_cost": "ListCost",
}
_IDENTITY: Final = ("currency", "receiver_id", "remainder_reason", "cluster")
"""What makes two rows one receiver; the other columns are its labels."""
_DIGITS: Final = 76

_Key = tuple[str | None, ...]


@dataclass(slots=True)
class Totals:
    """Sums by receiver; its memory is that of the receivers, however many rows there are."""

    _sums: dict[_Key, list[Decimal]] = field(default_factory=dict)
    _labels: dict[_Key, dict[str, str | None]] = field(default_factory=dict)
    rows: int = 0

    def add(self, rows: pa.Table) -> None:
        """Take in FOCUS rows.

        Args:
            rows: with the FOCUS columns of costs and receivers; texts may be dictionaries.
        """
        self.rows += len(rows)
        if not len(rows):
            return
        keys = {name: _texts(rows, column) for name, column in _KEY.items()}
        groups = group_rows([keys[name] for name in _IDENTITY])
        amounts = {name: _wide(rows[column]) for name, column in _COSTS.items()}
        numbered = pa.table({"group": pa.array(groups.of), **amounts})
        summed = numbered.group_by("group").aggregate([(name, "sum") for name in _COSTS]).sort_by("group")
        first = pa.table(keys).take(pa.array(groups.first)).to_pylist()
        sums = summed.select([f"{name}_sum" for name in _COSTS]).to_pylist()
        with exact():
            for labels, values in zip(first, sums, strict=True):
                key = tuple(labels[name] for name in _IDENTITY)
                known = self._sums.setdefault(key, [Decimal(0)] * len(_COSTS))
                self._sums[key] = [old + (new or 0) for old, new in zip(known, values.values(), strict=True)]
                self._labels.setdefault(key, labels)

    def by_receiver(self) -> tuple[ReceiverTotal, ...]:
        """One total a receiver, in the order of currency, cluster and id; remainders behind."""
        return tuple(self._total(key) for key in sorted(self._sums, key=_order))

    def _total(self, key: _Key) -> ReceiverTotal:
        costs = dict(zip(_COSTS, map(_plain, self._sums[key]), strict=True))
        return ReceiverTotal.model_validate({**self._labels[key], **costs})


def differences(before: Iterable[ReceiverTotal], after: Iterable[ReceiverTotal]) -> tuple[ReceiverTotal, ...]:
    """What each receiver owes more (or, below zero, less) after a restatement; who owes the same is left out."""
    old = {_identity(row): row for row in before}
    new = {_identity(row): row for row in after}
    found = []
    with exact():
        for key in sorted(old.keys() | new.keys(), key=_order):
            was, now = old.get(key), new.get(key)
            change = {name: _plain(_cost(now, name) - _cost(was, name)) for name in _COSTS}
            row = now or was
            if row is not None and any(change.values()):
                found.append(row.model_copy(update=change))
    return tuple(found)


def _cost(row: ReceiverTotal | None, name: str) -> Decimal:
    amount: Decimal = Decimal(0) if row is None else getattr(row, name)
    return amount


def _identity(row: ReceiverTotal) -> _Key:
    return tuple(getattr(row, name) for name in _IDENTITY)


def _order(key: _Key) -> tuple[str, ...]:
    currency, receiver, reason, cluster = key
    return (currency or "", cluster or "", "~" if receiver is None else receiver, reason or "")


def _plain(amount: Decimal) -> Decimal:
    """Without trailing zeros, so that the same amount has one text."""
    return EXACT.add(amount.normalize(EXACT), Decimal(0))  # no minus zero


def _texts(rows: pa.Table, column: str) -> pa.ChunkedArray:
    if column not in rows.column_names:
        return pa.chunked_array([pa.nulls(len(rows), pa.string())])
    return rows[column].cast(pa.string())


def _wide(amounts: pa.ChunkedArray) -> pa.ChunkedArray:
    # A sum of many amounts may have more than the ten digits before the point that one amount has.
    return pc.fill_null(amounts, 0).cast(pa.decimal256(_DIGITS, amounts.type.scale))
