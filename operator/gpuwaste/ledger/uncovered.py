"""GPU time of an hour that no window covers, as rows: held as the API's record says, or free."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from gpuwaste.ledger.columns import largest_by, ranks
from gpuwaste.ledger.missing import (
    Interval,
    MissingPart,
    ParentLayout,
    SeenHolder,
    holders_by_record,
    layouts_of,
    missing_parts,
    subtract,
    unseen_layouts,
)
from gpuwaste.ledger.rows import hour_rows
from gpuwaste.model.grouping import group_numbers
from gpuwaste.model.units import to_unix_ns

if TYPE_CHECKING:
    from gpuwaste.ledger.columns import Texts
    from gpuwaste.ledger.join import FactIndex
    from gpuwaste.ledger.windows import HolderWindows, ParentWindows

__all__ = ["uncovered_rows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Covered:
    """What the windows show of one GPU: its node, when they cover it, and its parents as they appear."""

    node: str
    intervals: list[Interval]
    layouts: list[ParentLayout]


def uncovered_rows(
    parents: ParentWindows,
    holding: HolderWindows,
    pod_uids: Texts,
    index: FactIndex,
    *,
    stranded: frozenset[str],
    span: Interval,
    whole: bool,
) -> pa.Table:
    """Rows of HOUR_ROWS for the time in which a GPU was there and no window covers it.

    Args:
        parents: the windows of all parents.
        holding: the windows of all holders.
        pod_uids: UIDs of the holders' pods.
        index: facts of the hour.
        stranded: nodes whose free GPUs nobody could use.
        span: the hour, or the part of it up to which data has come in, Unix nanoseconds.
        whole: whether the hour is over; the end of a running one is not missing.
    """
    covered = _covered(parents)
    layouts, node_of = _layouts(index, covered)
    on_node: dict[str, list[str]] = defaultdict(list)
    for uuid in sorted(layouts):
        on_node[node_of[uuid]].append(uuid)
    tail = max((found.intervals[-1][1] for found in covered.values()), default=span[1])
    until = span[1] if whole or not covered else tail
    seen: dict[str, list[SeenHolder]] | None = None
    parts: list[MissingPart] = []
    for node in sorted(on_node):
        missing = {}
        for uuid in on_node[node]:
            mine = covered[uuid].intervals if uuid in covered else []
            expected = _expected(node, index, span, mine, until)
            if expected and subtract(expected, mine):
                missing[uuid] = (expected, mine)
        if not missing:
            continue
        seen = _seen(holding, pod_uids) if seen is None else seen
        all_layouts = [layout for uuid in on_node[node] for layout in layouts[uuid]]
        holders = holders_by_record(all_layouts, index.pods_on.get(node, []), seen)
        for uuid, (expected, mine) in missing.items():
            parts += missing_parts(
                node=node,
                gpu_uuid=uuid,
                expected=expected,
                covered=mine,
                parents=layouts[uuid],
                seen=holders,
                index=index,
            )
    return _rows(parts, stranded)


def _covered(parents: ParentWindows) -> dict[str, _Covered]:
    """Node, windows and parents of every GPU that has device records."""
    gpu, node, parent = (parents.names[name] for name in ("gpu_uuid", "node", "parent_id"))
    groups = group_numbers([gpu.codes, ranks(parents.start)])
    ends = largest_by(groups, parents.start + parents.window)
    starts, of = parents.start[groups.first], gpu.codes[groups.first]
    joined = np.r_[False, (of[1:] == of[:-1]) & (starts[1:] == ends[:-1])] if len(of) else np.zeros(0, bool)
    heads = np.flatnonzero(~joined)
    tails = np.r_[heads[1:] - 1, len(of) - 1] if len(of) else heads
    found: dict[str, _Covered] = {}
    hosts = node.codes[groups.first]
    for head, last in zip(heads.tolist(), tails.tolist(), strict=True):
        mine = found.setdefault(gpu.names[of[head]], _Covered(node=node.names[hosts[head]], intervals=[], layouts=[]))
        mine.intervals.append((int(starts[head]), int(ends[last])))
    # The first window of each parent says what it is; they come in the order in which they appear.
    order = np.argsort(parents.start, kind="stable")
    pairs = group_numbers([gpu.codes[order], parent.codes[order]])
    first = np.full(len(pairs.first), len(order))
    np.minimum.at(first, pairs.of, np.arange(len(order)))
    for row in order[np.sort(first)].tolist():
        uuid = gpu.names[gpu.codes[row]]
        weight = Fraction(int(parents.capacity[row]), int(parents.window[row]))
        name, replicas = parent.names[parent.codes[row]], int(parents.replicas[row])
        found[uuid].layouts.append(ParentLayout(gpu_uuid=uuid, parent_id=name, weight=weight, replicas=replicas))
    return found


def _layouts(index: FactIndex, covered: dict[str, _Covered]) -> tuple[dict[str, list[ParentLayout]], dict[str, str]]:
    """Parents and node of every GPU: as its agent described it, else as its windows show, else as the node says."""
    layouts: dict[str, list[ParentLayout]] = {}
    node_of: dict[str, str] = {}
    for uuid, pairs in index.gpus.items():
        layouts[uuid], node_of[uuid] = layouts_of(uuid, pairs[-1][1]), pairs[-1][1].node
    for uuid, shown in covered.items():
        layouts.setdefault(uuid, shown.layouts)
        node_of[uuid] = shown.node
    described = set(node_of.values())
    for node, (_, _, data) in index.nodes.items():
        for layout in unseen_layouts(data, described=node in described):
            layouts[layout.gpu_uuid], node_of[layout.gpu_uuid] = [layout], node
    return layouts, node_of


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
            )
            seen[holder.parent_id].append(holder)
    return seen


def _expected(node: str, index: FactIndex, span: Interval, covered: list[Interval], until: int) -> Interval | None:
    """When the GPUs of a node were there within the hour; of an unknown node only what was measured counts."""
    known = index.nodes.get(node)
    if known is None:
        return (covered[0][0], covered[-1][1]) if covered else None
    fact = known[1]
    start = max(span[0], to_unix_ns(fact.valid_from))
    end = min(span[1], until if fact.valid_to is None else min(until, to_unix_ns(fact.valid_to)))
    return (start, end) if start < end else None


def _rows(parts: list[MissingPart], stranded: frozenset[str]) -> pa.Table:
    amount = np.array([part.amount for part in parts], np.int64)
    held = np.array([bool(part.slice_id) for part in parts], bool)
    lost = np.array([part.node in stranded for part in parts], bool) & ~held
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
        "stranded": np.where(lost, amount, 0),
        "unallocated": np.where(held | lost, 0, amount),
        **dict.fromkeys(("duty", "effective", "effective_low", "effective_high"), unknown),
    }
    return hour_rows(len(parts), keys, amounts)
