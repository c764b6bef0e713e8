"""GPU time of an hour that no window covers, as rows: held as the API's record says, or free."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from gpuwaste.ledger.columns import largest_by, ranks
from gpuwaste.ledger.followed import follow_record
from gpuwaste.ledger.missing import (
    MissingPart,
    ParentLayout,
    SeenHolder,
    holders_by_record,
    layouts_of,
    missing_parts,
    unseen_layouts,
)
from gpuwaste.ledger.namesakes import shown_name
from gpuwaste.ledger.rows import hour_rows
from gpuwaste.ledger.schema import FREE_CATEGORIES
from gpuwaste.ledger.times import Interval, subtract
from gpuwaste.model.grouping import group_numbers
from gpuwaste.model.units import to_unix_ns

if TYPE_CHECKING:
    from gpuwaste.ledger.columns import Texts
    from gpuwaste.ledger.followed import Schedulers
    from gpuwaste.ledger.join import FactIndex
    from gpuwaste.ledger.times import FreeTimes
    from gpuwaste.ledger.windows import HolderWindows, ParentWindows

__all__ = ["uncovered_rows"]

_Gaps = dict[str, tuple[Interval, list[Interval]]]
"""By GPU: when it was there, and its windows."""


_Covered = dict[tuple[str, str], list[Interval]]
"""By node and GPU, when windows cover it."""


def uncovered_rows(
    parents: ParentWindows,
    holding: HolderWindows,
    pod_uids: Texts,
    schedulers: Schedulers,
    *,
    free: FreeTimes,
    span: Interval,
    whole: bool,
) -> pa.Table:
    """Rows of HOUR_ROWS for the time in which a GPU was there and no window covers it.

    Args:
        parents: the windows of all parents.
        holding: the windows of all holders.
        pod_uids: UIDs of the holders' pods.
        schedulers: what pods say of shared GPUs, and with it the facts of the hour.
        free: when what is free is no room for work.
        span: the hour, or the part of it up to which data has come in, Unix nanoseconds.
        whole: whether the hour is over; the end of a running one is not missing.
    """
    covered = _covered(parents)
    index = schedulers.index
    on_node, unseen = _places(index, covered)
    tail = max((intervals[-1][1] for intervals in covered.values()), default=span[1])
    until = span[1] if whole or not covered else tail
    missing: dict[str, _Gaps] = {}
    for node in sorted(on_node):
        there = _there(node, index, span, until)
        gaps = _gaps(node, on_node[node], covered, there, known=node in index.nodes)
        if gaps:
            missing[node] = gaps
    if not missing:  # nearly every hour: who held what, and how GPUs are divided, is then not looked up
        return _rows([])
    shown = _shown(parents, {uuid for node in missing for uuid in on_node[node] if uuid not in index.gpus})
    seen = _seen(holding, pod_uids)
    parts: list[MissingPart] = []
    for node, gaps in missing.items():
        layouts = {uuid: _layouts(uuid, index, shown, unseen) for uuid in sorted(on_node[node])}
        every = [layout for mine in layouts.values() for layout in mine]
        recorded = holders_by_record(every, index.pods_on.get(node, []), seen)
        holders = follow_record(recorded, {layout.parent_id: layout.gpu_uuid for layout in every}, schedulers)
        for uuid in sorted(gaps):
            expected, intervals = gaps[uuid]
            parts += missing_parts(
                node=node,
                gpu_uuid=uuid,
                expected=expected,
                covered=intervals,
                parents=layouts[uuid],
                seen=holders,
                index=index,
                free_times=free,
            )
    return _rows(parts)


def _covered(parents: ParentWindows) -> _Covered:
    gpu, node = parents.names["gpu_uuid"], parents.names["node"]
    groups = group_numbers([node.codes, gpu.codes, ranks(parents.start)])
    ends = largest_by(groups, parents.start + parents.window)
    starts, of, on = parents.start[groups.first], gpu.codes[groups.first], node.codes[groups.first]
    same = (of[1:] == of[:-1]) & (on[1:] == on[:-1])
    joined = np.r_[False, same & (starts[1:] == ends[:-1])] if len(of) else np.zeros(0, bool)
    heads = np.flatnonzero(~joined)
    tails = np.r_[heads[1:] - 1, len(of) - 1] if len(of) else heads
    found: _Covered = defaultdict(list)
    uuids, hosts = gpu.names[of[heads]].tolist(), node.names[on[heads]].tolist()
    for uuid, host, start, end in zip(uuids, hosts, starts[heads].tolist(), ends[tails].tolist(), strict=True):
        found[host, uuid].append((start, end))
    return dict(found)


def _shown(parents: ParentWindows, wanted: set[str]) -> dict[str, list[ParentLayout]]:
    """Parents of some GPUs as their windows show them.

    The first window of each parent says what it is; they come in the order in which they appear.
    """
    gpu, parent = parents.names["gpu_uuid"], parents.names["parent_id"]
    found: dict[str, list[ParentLayout]] = defaultdict(list)
    if not wanted:
        return found
    order = np.argsort(parents.start, kind="stable")
    pairs = group_numbers([gpu.codes[order], parent.codes[order]])
    first = np.full(len(pairs.first), len(order))
    np.minimum.at(first, pairs.of, np.arange(len(order)))
    for row in order[np.sort(first)].tolist():
        uuid = gpu.names[gpu.codes[row]]
        if uuid in wanted:
            weight = Fraction(int(parents.capacity[row]), int(parents.window[row]))
            name, replicas = parent.names[parent.codes[row]], int(parents.replicas[row])
            found[uuid].append(ParentLayout(gpu_uuid=uuid, parent_id=name, weight=weight, replicas=replicas))
    return found


def _places(index: FactIndex, covered: _Covered) -> tuple[dict[str, set[str]], dict[str, list[ParentLayout]]]:
    """The GPUs of every node, and stand-ins for those that only the record of a node tells of.

    A GPU is where its windows are from, else where it was described last; of nodes that followed one another under
    one name it may have been in each.
    """
    hosts: dict[str, list[str]] = defaultdict(list)
    for node, uuid in covered:
        hosts[uuid].append(node)
    on_node: dict[str, set[str]] = defaultdict(set)
    for uuid in {*hosts, *index.gpus}:
        described = [gpu.node for _, gpu in index.gpus.get(uuid, ())]
        last = shown_name((hosts.get(uuid) or described)[-1])
        for node in (*hosts.get(uuid, ()), *described):
            if node in hosts.get(uuid, ()) or shown_name(node) == last:
                on_node[node].add(uuid)
    unseen: dict[str, list[ParentLayout]] = {}
    for node, (_, _, data) in index.nodes.items():
        mine = unseen_layouts(data, described=node in on_node)
        unseen |= mine
        if mine:
            on_node[node].update(mine)
    return on_node, unseen


def _layouts(
    uuid: str, index: FactIndex, shown: dict[str, list[ParentLayout]], unseen: dict[str, list[ParentLayout]]
) -> list[ParentLayout]:
    """Parents of a GPU: as the node's record has to say, else as its agent described it, else as its windows show."""
    if uuid in unseen:
        return unseen[uuid]
    return layouts_of(uuid, index.gpus[uuid][-1][1]) if uuid in index.gpus else shown[uuid]


def _gaps(node: str, uuids: set[str], covered: _Covered, there: Interval | None, *, known: bool) -> _Gaps:
    """The GPUs of a node that have time without a window."""
    gaps: _Gaps = {}
    for uuid in uuids:
        mine = covered.get((node, uuid), [])
        expected = there
        if not known:  # of an unknown node only what was measured counts
            expected = (mine[0][0], mine[-1][1]) if mine else None
        if expected and mine != [expected] and subtract(expected, mine):
            gaps[uuid] = (expected, mine)
    return gaps


def _there(node: str, index: FactIndex, span: Interval, until: int) -> Interval | None:
    """When a node was there within the hour; None for an unknown one."""
    known = index.nodes.get(node)
    if known is None:
        return None
    fact = known[1]
    start = max(span[0], to_unix_ns(fact.valid_from))
    end = min(span[1], until if fact.valid_to is None else min(until, to_unix_ns(fact.valid_to)))
    return (start, end) if start < end else None


def _seen(holding: HolderWindows, pod_uids: Texts) -> dict[str, list[SeenHolder]]:
    """Who held which slice in some window of the hour; use without holding is not held elsewhere either."""
    parent, slices, container = (holding.names[name] for name in ("parent_id", "slice_id", "container"))
    groups = group_numbers([parent.codes, slices.codes, pod_uids.codes, container.codes])
    seen: dict[str, list[SeenHolder]] = defaultdict(list)
    for row in groups.first.tolist():
        slice_id = slices.names[slices.codes[row]]
        if slice_id:
            holder = SeenHolder(
                parent_id=parent.names[parent.codes[row]],
                slice_id=slice_id,
                pod_uid=pod_uids.names[pod_uids.codes[row]],
                container=container.names[container.codes[row]],
                share=int(holding.share[row]),
            )
            seen[holder.parent_id].append(holder)
    return seen


def _rows(parts: list[MissingPart]) -> pa.Table:
    amount = np.array([part.amount for part in parts], np.int64)
    held = np.array([bool(part.slice_id) for part in parts], bool)
    keys: dict[str, Any] = {
        name: pa.array([getattr(part, name) for part in parts], pa.string())
        for name in ("node", "gpu_uuid", "parent_id", "slice_id", "pod_uid", "container")
    }
    keys["row_kind"] = pa.array(["holder" if part.slice_id else "free" for part in parts], pa.string())
    unknown = pa.array(np.zeros(len(parts), np.int64), mask=held)
    mine = np.where(held, amount, 0)
    amounts: dict[str, Any] = {
        "owned": amount,
        "held": mine,
        "unmeasured": mine,
        **{
            name: np.where(np.array([part.category == name for part in parts], bool), amount, 0)
            for name in FREE_CATEGORIES
        },
        **dict.fromkeys(("duty", "effective", "effective_low", "effective_high"), unknown),
    }
    return hour_rows(len(parts), keys, amounts)
