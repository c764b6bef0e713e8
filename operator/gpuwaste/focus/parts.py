"""Divide charges: what every receiver weighs in each, and what nobody received, by kind.

Weights are nanoseconds of GPU. In every charge they add up to what is owned; on the basis `larger` also to what
holders lent, because lent time is claimed twice: by who asked for it and by who used it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.focus.grouping import Groups, group_numbers, group_rows, sum_by

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuwaste.focus.methods import Basis, Method
    from gpuwaste.focus.options import Grouping

    Int64s = NDArray[np.int64]

__all__ = ["Parts", "due_weights", "weigh"]

_RECEIVER: Final = {
    "namespace": ("cluster", "namespace"),
    "workload": ("cluster", "namespace", "workload_kind", "workload_name"),
    "team": ("cluster", "team"),
}
_NAMES: Final = ("cluster", "reason", "namespace", "workload_kind", "workload_name", "team")

# Kind of remainder -> (row kind, amount), of which the last is counted only on the basis named.
_FREE: Final = (("Unallocated", "unallocated"), ("Stranded", "stranded"), ("Unhealthy", "unhealthy"))
_HOLDER_WASTE: Final = (
    ("Unmeasured", "unmeasured"),
    ("Starting", "starting"),
    ("Idle", "idle"),
    ("Underused", "underused"),
    ("Unhealthy", "unhealthy"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of charges, sorted by charge and receiver; int64[n] each.

    Attributes:
        charge: position of the charge.
        receiver: row of `receivers`.
        weight: what the ratio is made from.
        smeared: the part of the weight that nobody received and the method gave to this receiver.
        held, borrowed, unmeasured: sums over the receiver's holders.
        duty, effective: the same; meaningless where not `measured`.
        measured: bool[n], whether any of the holders was measured.
        receivers: one row a receiver or kind of remainder: cluster, reason (empty for a receiver), namespace,
            workload_kind, workload_name and team; empty where it does not apply.
    """

    charge: Int64s
    receiver: Int64s
    weight: Int64s
    smeared: Int64s
    held: Int64s
    borrowed: Int64s
    unmeasured: Int64s
    duty: Int64s
    effective: Int64s
    measured: NDArray[np.bool_]
    receivers: pa.Table


def weigh(rows: pa.Table, charge: Int64s, charges: int, *, grouping: Grouping, method: Method) -> Parts:
    """Find the parts of charges.

    Args:
        rows: rows of the ledger's schema.
        charge: int64[n_rows], the charge that each row is a part of, or −1.
        charges: the number of charges.
        grouping: who receives.
        method: what a receiver weighs, and which remainders it carries.
    """
    inside = charge >= 0
    if not inside.all():
        rows, charge = rows.filter(pa.array(inside)), charge[inside]
    received = _received(rows, charge, grouping, method.basis)
    parts = _with_remainders(received, _remainders(rows, charge, charges, method.basis))
    return _smear(parts, charges, method.smeared) if method.smeared else parts


def due_weights(rows: pa.Table, charge: Int64s, charges: int, basis: Basis) -> Int64s:
    """int64[charges], what the weights of each charge must add up to."""
    due = sum_by(charge, _amount(rows, "owned"), charges)
    if basis == "larger":
        due += sum_by(charge, np.where(_of_kind(rows, "holder"), _amount(rows, "lent"), 0), charges)
    return due


def _amount(rows: pa.Table, name: str) -> Int64s:
    amount: Int64s = pc.fill_null(rows[name], 0).to_numpy()
    return amount


def _of_kind(rows: pa.Table, kind: str) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = pc.equal(rows["row_kind"], kind).to_numpy()
    return mask


def _received(rows: pa.Table, charge: Int64s, grouping: Grouping, basis: Basis) -> Parts:
    holds = _of_kind(rows, "holder")
    who = group_rows([rows[name] for name in _RECEIVER[grouping]])
    receiver = who.of[holds]
    charge = charge[holds]
    part = group_numbers([charge, receiver])
    count = len(part.first)

    def amount(name: str) -> Int64s:
        return _amount(rows, name)[holds]

    def total(values: Int64s) -> Int64s:
        return sum_by(part.of, values, count)

    owned, borrowed = amount("owned"), amount("borrowed")
    effective, held = amount("effective"), amount("held")
    weight = {"held": owned, "effective": effective, "larger": owned + borrowed}[basis]
    return Parts(
        charge=charge[part.first],
        receiver=receiver[part.first],
        weight=total(weight),
        smeared=np.zeros(count, np.int64),
        held=total(held),
        borrowed=total(borrowed),
        unmeasured=total(amount("unmeasured")),
        duty=total(np.minimum(amount("duty"), held)),
        effective=total(effective),
        measured=total(pc.is_valid(rows["effective"]).to_numpy()[holds].astype(np.int64)) > 0,
        receivers=_receivers(rows, who, holds, grouping),
    )


def _receivers(rows: pa.Table, who: Groups, holds: NDArray[np.bool_], grouping: Grouping) -> pa.Table:
    """Names of the receivers; the team of a namespace or workload only where all its holders have the same."""
    key = _RECEIVER[grouping]
    count = len(who.first)
    named = rows.select([*dict.fromkeys((*key, "team"))]).take(pa.array(who.first))
    empty = pa.repeat("", count)
    columns = {name: named[name].combine_chunks() if name in key else empty for name in _NAMES if name != "reason"}
    if grouping != "team":
        of, teams = who.of[holds], group_rows([rows["team"]]).of[holds]
        pairs = group_numbers([of, teams])
        single = np.bincount(of[pairs.first], minlength=count) == 1
        columns["team"] = pc.if_else(pa.array(single), named["team"].combine_chunks(), "")
    unnamed = pc.equal(columns["team" if grouping == "team" else "namespace"], "")
    columns["reason"] = pc.if_else(unnamed, "Unidentified", "")
    return pa.table({name: columns[name] for name in _NAMES})


def _remainders(rows: pa.Table, charge: Int64s, charges: int, basis: Basis) -> dict[str, Int64s]:
    """int64[charges] for each kind of remainder that the basis knows."""

    def total(kind: str, amount: str) -> Int64s:
        chosen = _of_kind(rows, kind)
        return sum_by(charge[chosen], _amount(rows, amount)[chosen], charges)

    found = {reason: total("free", amount) for reason, amount in _FREE}
    found["Unprovisioned"] = total("unprovisioned", "owned")
    if basis == "held":
        found["Lent"] = total("free", "lent")
    else:
        found["Unattributed"] = total("unattributed", "effective")
    if basis == "effective":
        for reason, amount in _HOLDER_WASTE:
            found[reason] = found.get(reason, 0) + total("holder", amount)
    return found


def _with_remainders(parts: Parts, remainders: dict[str, Int64s]) -> Parts:
    reasons = sorted(remainders)
    weight = np.stack([remainders[reason] for reason in reasons], axis=1)
    charge, kind = np.nonzero(weight)
    count = len(charge)
    blank = np.zeros(count, np.int64)
    known = len(parts.receivers)
    empty = pa.repeat("", len(reasons))
    nobody = pa.table({name: pa.array(reasons) if name == "reason" else empty for name in _NAMES})
    added = {"charge": charge, "receiver": known + kind, "weight": weight[charge, kind]}
    order = np.lexsort((np.concatenate([parts.receiver, added["receiver"]]), np.concatenate([parts.charge, charge])))
    columns = {
        name: np.concatenate([getattr(parts, name), added.get(name, blank)])[order]
        for name in ("charge", "receiver", "weight", "smeared", "held", "borrowed", "unmeasured", "duty", "effective")
    }
    measured = np.concatenate([parts.measured, np.ones(count, bool)])[order]
    return Parts(**columns, measured=measured, receivers=pa.concat_tables([parts.receivers, nobody]).combine_chunks())


def _smear(parts: Parts, charges: int, kinds: tuple[str, ...]) -> Parts:
    """Give some kinds of remainder to the receivers in proportion to their weights, to the nanosecond.

    Quotas are floored and what is left goes to the largest remainders. A charge in which no receiver weighs anything
    keeps its remainders.
    """
    reason = parts.receivers["reason"]
    receives = pc.equal(reason, "").to_numpy()[parts.receiver]
    spread = pc.is_in(reason, value_set=pa.array(kinds)).to_numpy()[parts.receiver]
    base = sum_by(parts.charge[receives], parts.weight[receives], charges)
    spread &= base[parts.charge] > 0
    given = sum_by(parts.charge[spread], parts.weight[spread], charges)
    at = np.flatnonzero(receives & (base[parts.charge] > 0))
    of = parts.charge[at]
    # Products of two such counts need a hundred bits: Python's integers have them.
    product = given[of].astype(object) * parts.weight[at]
    quota = (product // base[of]).astype(np.int64)
    rest = (product % base[of]).astype(np.int64)
    left = given - sum_by(of, quota, charges)
    order = np.lexsort((-rest, of))
    rank = np.arange(len(of)) - np.searchsorted(of[order], of[order], side="left")
    quota[order] += rank < left[of[order]]
    smeared = np.zeros(len(parts.weight), np.int64)
    smeared[at] = quota
    keep = ~spread
    columns = {
        name: getattr(parts, name)[keep]
        for name in ("charge", "receiver", "held", "borrowed", "unmeasured", "duty", "effective", "measured")
    }
    return replace(parts, **columns, weight=(parts.weight + smeared)[keep], smeared=smeared[keep])
