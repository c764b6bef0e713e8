"""Divide charges: what every receiver weighs in each, and what nobody received, by kind.

Weights are nanoseconds of GPU, and those of a charge add up to what is owned in it. On the basis `larger` what holders
lent is claimed twice, by who asked for it and by who used it; there all claims of a charge are scaled in proportion.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.focus.parts import NAMES, REST_SUMS, SUMS, Parts, concat, gather, take
from gpuwaste.focus.rest import REST, budgets
from gpuwaste.model.errors import InvariantError
from gpuwaste.model.grouping import Groups, group_numbers, group_rows, sum_by

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuwaste.focus.methods import Basis, Method
    from gpuwaste.focus.options import Grouping

    Int64s = NDArray[np.int64]

__all__ = ["weigh"]

_RECEIVER: Final = {
    "namespace": ("cluster", "namespace"),
    "workload": ("cluster", "namespace", "workload_kind", "workload_name"),
    "team": ("cluster", "team"),
}
_BYTES_PER_MIB: Final = 1 << 20

# Kinds of remainder, and the amount of free rows and of holders that each is the sum of.
_FREE: Final = (("Unallocated", "unallocated"), ("Stranded", "stranded"), ("Unhealthy", "unhealthy"))
_HOLDER_WASTE: Final = (
    ("Unmeasured", "unmeasured"),
    ("Starting", "starting"),
    ("Idle", "idle"),
    ("Underused", "underused"),
    ("Unhealthy", "unhealthy"),
)


def weigh(
    rows: pa.Table,
    charge: Int64s,
    charges: int,
    *,
    grouping: Grouping,
    method: Method,
    owners: pa.Table | None = None,
) -> Parts:
    """Find the parts of charges.

    Args:
        rows: rows of the ledger's schema, of GPUs, and of CPU and memory where these cost something.
        charge: int64[n_rows], the charge (at most an hour of a node) that each row is a part of, or −1.
        charges: the number of charges.
        grouping: who receives.
        method: what a receiver weighs, and which remainders it carries.
        owners: for each charge the cluster and, where its capacity was bought for somebody, that namespace and team;
            None where nobody knows. Where a method charges owners, theirs is what the method says.

    Raises:
        InvariantError: the rows of a charge break the law of the accounting.
    """
    inside = charge >= 0
    if not inside.all():
        rows, charge = rows.filter(pa.array(inside)), charge[inside]
    of_gpu = pc.equal(rows["resource"], "gpu").to_numpy()
    if of_gpu.all():
        parts, _ = _weigh_gpus(rows, charge, charges, grouping, method)
    else:
        parts, owned = _weigh_gpus(rows.filter(pa.array(of_gpu)), charge[of_gpu], charges, grouping, method)
        parts = _with_rest(parts, rows, charge, owned, grouping)
    if method.owned and owners is not None:
        parts = _to_owners(parts, owners, method.owned, grouping)
    return _smear(parts, charges, method.smeared) if method.smeared else parts


def _weigh_gpus(
    rows: pa.Table, charge: Int64s, charges: int, grouping: Grouping, method: Method
) -> tuple[Parts, Int64s]:
    """The parts of GPUs, and what is owned in each charge."""
    received = _received(rows, charge, grouping, method.basis)
    parts = _with_remainders(received, _remainders(rows, charge, charges, method.basis))
    owned = sum_by(charge, _amount(rows, "owned"), charges)
    claimed = sum_by(parts.charge, parts.weight, charges)
    if method.basis == "larger":
        lent = sum_by(charge, np.where(_of_kind(rows, "holder"), _amount(rows, "lent"), 0), charges)
        _check_whole(claimed, owned + lent)
        parts = replace(parts, weight=_shares(owned, parts.weight, parts.charge))
    else:
        _check_whole(claimed, owned)
    return replace(parts, gpu=parts.weight), owned


def _with_rest(parts: Parts, rows: pa.Table, charge: Int64s, owned: Int64s, grouping: Grouping) -> Parts:
    """The parts of GPUs, scaled to what of each charge they cost, and those of CPU and memory."""
    charges = len(owned)
    budget = budgets(rows, charge, owned)
    pieces = [replace(parts, weight=_shares(budget["gpu"], parts.weight, parts.charge))]
    for name in REST:
        mine = pc.equal(rows["resource"], name).to_numpy()
        if not mine.any():
            continue
        of = charge[mine]
        received = _received(rows.filter(pa.array(mine)), of, grouping, "held")
        free = mine & _of_kind(rows, "free")
        nobody = {"Unallocated": sum_by(charge[free], _amount(rows, "owned")[free], charges)}
        held = _with_remainders(received, nobody)
        unit = _BYTES_PER_MIB if name == "memory" else 1
        blank = np.zeros(len(held.weight), np.int64)
        figures: dict[str, Int64s] = dict.fromkeys(SUMS, blank)
        figures["weight"] = figures[name] = _shares(budget[name], held.weight, held.charge)
        figures[f"{name}_held"] = held.weight // unit
        pieces.append(replace(held, **figures, measured=np.zeros(len(blank), bool)))
    joined = concat(pieces)
    order = np.argsort(joined.charge, kind="stable")
    every = np.arange(charges)
    whole = gather(take(joined, order), every, every)
    _check_whole(sum_by(whole.charge, whole.weight, charges), owned)
    return whole


def _check_whole(claimed: Int64s, due: Int64s) -> None:
    if not np.array_equal(claimed, due):
        wrong = int(np.flatnonzero(claimed != due)[0])
        raise InvariantError(
            f"a node's hour in the ledger has parts of {claimed[wrong]} ns and must have {due[wrong]} ns; the ledger"
            " breaks the law of the accounting, and nothing was written"
        )


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
    blank = np.zeros(count, np.int64)
    on_mig = pc.and_(pc.not_equal(rows["parent_id"], rows["gpu_uuid"]), pc.not_equal(rows["parent_id"], "")).to_numpy()
    is_replica = pc.match_substring(rows["slice_id"], "::").to_numpy()
    return Parts(
        charge=charge[part.first],
        receiver=receiver[part.first],
        weight=total(weight),
        **dict.fromkeys(("smeared", "gpu", *REST_SUMS), blank),
        held=total(held),
        mig=total(np.where(on_mig[holds], held, 0)),
        shared=total(np.where(is_replica[holds], held, 0)),
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
    columns = {name: named[name].combine_chunks() if name in key else empty for name in NAMES if name != "reason"}
    if grouping != "team":
        of, teams = who.of[holds], group_rows([rows["team"]]).of[holds]
        pairs = group_numbers([of, teams])
        single = np.bincount(of[pairs.first], minlength=count) == 1
        columns["team"] = pc.if_else(pa.array(single), named["team"].combine_chunks(), "")
    unnamed = pc.equal(columns["team" if grouping == "team" else "namespace"], "")
    columns["reason"] = pc.if_else(unnamed, "Unidentified", "")
    return pa.table({name: columns[name] for name in NAMES})


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
    nobody = pa.table({name: pa.array(reasons) if name == "reason" else empty for name in NAMES})
    added = {"charge": charge, "receiver": known + kind, "weight": weight[charge, kind]}
    order = np.lexsort((np.concatenate([parts.receiver, added["receiver"]]), np.concatenate([parts.charge, charge])))
    columns = {
        name: np.concatenate([getattr(parts, name), added.get(name, blank)])[order]
        for name in ("charge", "receiver", *SUMS)
    }
    measured = np.concatenate([parts.measured, np.ones(count, bool)])[order]
    return Parts(**columns, measured=measured, receivers=pa.concat_tables([parts.receivers, nobody]).combine_chunks())


def _to_owners(parts: Parts, owners: pa.Table, kinds: tuple[str, ...], grouping: Grouping) -> Parts:
    """Charge some kinds of remainder to the owner of the capacity that they lie in, where it has one.

    An owner is a namespace or a team: by workload it is a receiver without a workload.
    """
    of_owner = ("namespace", "team") if grouping == "workload" else (grouping,)
    named = np.any([pc.not_equal(owners[name], "").to_numpy() for name in of_owner], axis=0)
    reason = pc.is_in(parts.receivers["reason"], value_set=pa.array(kinds)).to_numpy()[parts.receiver]
    theirs = reason & named[parts.charge]
    if not theirs.any():
        return parts
    who = group_rows([owners[name] for name in ("cluster", *of_owner)])
    first = owners.take(pa.array(who.first))
    empty = pa.repeat("", len(first))
    columns = {name: first[name] if name in {"cluster", *of_owner} else empty for name in NAMES}
    if grouping == "namespace":
        columns["team"] = first["team"]
    moved = take(parts, theirs)
    moved = replace(
        moved,
        receiver=who.of[moved.charge],
        smeared=moved.weight,
        gpu=np.zeros(len(moved.gpu), np.int64),
        measured=np.zeros(len(moved.gpu), bool),
        receivers=pa.table(columns).combine_chunks(),
    )
    joined = concat([take(parts, ~theirs), moved])
    every = np.arange(len(owners))
    return gather(take(joined, np.argsort(joined.charge, kind="stable")), every, every)


def _smear(parts: Parts, charges: int, kinds: tuple[str, ...]) -> Parts:
    """Give some kinds of remainder to the receivers in proportion to their weights, to the nanosecond.

    A charge in which no receiver weighs anything keeps its remainders.
    """
    reason = parts.receivers["reason"]
    receives = pc.equal(reason, "").to_numpy()[parts.receiver]
    spread = pc.is_in(reason, value_set=pa.array(kinds)).to_numpy()[parts.receiver]
    base = sum_by(parts.charge[receives], parts.weight[receives], charges)
    spread &= base[parts.charge] > 0
    given = sum_by(parts.charge[spread], parts.weight[spread], charges)
    at = np.flatnonzero(receives & (base[parts.charge] > 0))
    smeared = np.zeros(len(parts.weight), np.int64)
    smeared[at] = _shares(given, parts.weight[at], parts.charge[at])
    return take(replace(parts, weight=parts.weight + smeared, smeared=parts.smeared + smeared), ~spread)


def _shares(amount: Int64s, weight: Int64s, group: Int64s) -> Int64s:
    """Divide each group's amount in proportion to the weights: floors, and what is left to the largest remainders.

    As `gpuwaste.model.apportion.apportion_groups`, but for amounts of any size: the products of two sums over a day
    need a hundred bits, which Python's integers have.
    """
    count = len(amount)
    total = sum_by(group, weight, count)[group]
    product = amount[group].astype(object) * weight
    quota = (product // total).astype(np.int64)
    rest = (product % total).astype(np.int64)
    left = amount - sum_by(group, quota, count)
    order = np.lexsort((-rest, group))
    of = group[order]
    rank = np.arange(len(of)) - np.searchsorted(of, of, side="left")
    quota[order] += rank < left[of]
    return quota
