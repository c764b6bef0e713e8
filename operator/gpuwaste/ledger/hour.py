"""One ledger hour as a pure function of its stored inputs: equal inputs give equal rows."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.ledger.accounting import Split, split_parents
from gpuwaste.ledger.gpus import gpu_facts
from gpuwaste.ledger.join import FactIndex
from gpuwaste.ledger.labels import with_labels
from gpuwaste.ledger.missing import (
    Interval,
    MissingPart,
    ParentLayout,
    SeenHolder,
    holders_by_record,
    layouts_of,
    missing_parts,
    unseen_layouts,
)
from gpuwaste.ledger.schema import AMOUNT_COLUMNS, FREE_CATEGORIES, HOLDER_CATEGORIES, KEY_COLUMNS
from gpuwaste.ledger.stranded import mig_remainder_stranded, stranded_nodes
from gpuwaste.ledger.windows import HolderWindows, ParentWindows, holder_windows, parent_windows
from gpuwaste.model.errors import InvariantError
from gpuwaste.model.units import HOUR, NS_PER_HOUR, NS_PER_SECOND, from_unix_ns, to_unix_ns

if TYPE_CHECKING:
    from datetime import datetime

    from numpy.typing import NDArray

    from gpuwaste.ledger.inputs import HourInputs
    from gpuwaste.settings.teams import TeamRules

__all__ = ["HourRules", "LedgerHour", "build_hour"]

_ROW_KEY = ("row_kind", "node", "gpu_uuid", "parent_id", "slice_id", "pod_uid", "container", "namespace", "pod")
_STARTING_LIMIT_SECONDS = 900


@dataclass(frozen=True, slots=True, kw_only=True)
class HourRules:
    """What besides the inputs decides a ledger hour.

    Attributes:
        teams: rules that name the team of a row.
        starting_limit_seconds: how long after allocation idle time is called starting, at most.
        pool_label: a node label that names the pool before the well-known ones.
    """

    teams: TeamRules
    starting_limit_seconds: int = _STARTING_LIMIT_SECONDS
    pool_label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerHour:
    """Rows of LEDGER_SCHEMA, sorted by key, and what had to be noted while they were made."""

    table: pa.Table
    findings: tuple[str, ...]


def build_hour(inputs: HourInputs, rules: HourRules, *, through: datetime | None = None) -> LedgerHour:
    """Compute the rows of one hour.

    Args:
        inputs: windows and facts of the hour.
        rules: team rules and limits.
        through: for the running hour, the time up to which data has come in; None for a whole hour.

    Raises:
        InvariantError: the parts of a GPU do not add up to its time.
    """
    start = to_unix_ns(inputs.hour)
    end = start + NS_PER_HOUR if through is None else min(start + NS_PER_HOUR, to_unix_ns(through))
    index = FactIndex.build([*inputs.facts, *gpu_facts(inputs.windows)], start=inputs.hour, end=inputs.hour + HOUR)
    inside = pc.and_(
        pc.greater_equal(inputs.windows["window_start_ns"], start), pc.less(inputs.windows["window_start_ns"], end)
    )
    windows = inputs.windows.filter(inside)
    parents = parent_windows(windows)
    holding = holder_windows(windows, parents, starting_limit_ns=rules.starting_limit_seconds * NS_PER_SECOND)
    findings = _lost_usage(windows, holding)
    stranded = stranded_nodes(index)
    on_stranded = pc.is_in(parents.table["node"], value_set=pa.array(sorted(stranded), pa.string())).to_numpy()
    split = split_parents(parents.parents(free_stranded=np.where(on_stranded, parents.capacity, 0)), holding.holders)
    table = _holder_table(holding, split, index)
    rows = [
        table,
        _free_table(parents, split),
        _unattributed_table(parents, split),
        _mig_remainder(parents, index, stranded),
        _missing_table(table, parents, index, stranded, (start, end), whole=through is None),
    ]
    summed = _sum_rows(pa.concat_tables(rows))
    _check_gpus(summed, findings)
    labelled = with_labels(summed, inputs, index, rules.teams, pool_label=rules.pool_label)
    ordered = labelled.sort_by([(name, "ascending") for name in KEY_COLUMNS]).combine_chunks()
    return LedgerHour(table=ordered, findings=tuple(findings))


def _lost_usage(windows: pa.Table, holding: HolderWindows) -> list[str]:
    keys = ["node", "gpu_uuid", "parent_id", "window_start_ns", "slice_id", "namespace", "pod", "pod_uid", "container"]
    usage = windows.filter(pc.equal(windows["kind"], "usage")).group_by(keys).aggregate([])
    lost = usage.num_rows - holding.table.num_rows
    return [f"{lost} usage records name a device that has no device record in their window"] if lost else []


def _columns(count: int, keys: dict[str, Any], amounts: dict[str, Any], **more: Any) -> pa.Table:
    """A table of one row a key with every amount column; what is not given is 0."""
    columns: dict[str, Any] = {name: keys.get(name, [""] * count) for name in _ROW_KEY}
    for name in AMOUNT_COLUMNS:
        value = amounts.get(name)
        columns[name] = pa.array(np.zeros(count, np.int64)) if value is None else value
    columns["origin"] = more.get("origin", pa.nulls(count, pa.string()))
    columns["covered"] = more.get("covered", pa.array(np.zeros(count, np.int64)))
    return pa.table(columns, schema=_WINDOW_ROWS)


_WINDOW_ROWS = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in _ROW_KEY),
        *(pa.field(name, pa.int64()) for name in AMOUNT_COLUMNS),
        pa.field("origin", pa.string()),
        pa.field("covered", pa.int64()),
    ]
)


def _holder_table(holding: HolderWindows, split: Split, index: FactIndex) -> pa.Table:
    count, holders = holding.table.num_rows, holding.holders
    keys = {name: holding.table[name] for name in _ROW_KEY if name in holding.table.schema.names}
    keys["row_kind"] = pa.array(["holder"] * count, pa.string())
    keys["pod_uid"] = _pod_uids(holding.table, index)
    unknown = ~holders.measured
    # Scaling to capacity may have pushed the point below or above the interval it came from.
    low = np.minimum(holding.low, split.effective)
    high = np.maximum(holding.high, split.effective)
    amounts: dict[str, Any] = {
        "owned": holders.held,
        "held": holders.held,
        "duty": pa.array(holders.duty, mask=unknown),
        "effective": pa.array(split.effective, mask=unknown),
        "effective_low": pa.array(low, mask=unknown),
        "effective_high": pa.array(high, mask=unknown),
        "borrowed": split.borrowed,
        "lent": split.holder_lent,
        **{name: split.holder[name] for name in HOLDER_CATEGORIES},
    }
    return _columns(count, keys, amounts, origin=holding.table["origin_max"], covered=holding.covered)


def _pod_uids(table: pa.Table, index: FactIndex) -> pa.Array:
    """The UID of each row's pod; where the window has only the name, found by name and time, else `name:…`."""
    uids = table["pod_uid"].to_pylist()
    if "" not in uids:
        return table["pod_uid"]
    names = zip(table["namespace"].to_pylist(), table["pod"].to_pylist(), strict=True)
    for row, ((namespace, name), at) in enumerate(zip(names, table["window_start_ns"].to_pylist(), strict=True)):
        if not uids[row]:
            fact = index.find_pod(namespace=namespace, name=name, uid="", at=from_unix_ns(at))
            uids[row] = fact.uid if fact else f"name:{namespace}/{name}"
    return pa.array(uids, pa.string())


def _free_table(parents: ParentWindows, split: Split) -> pa.Table:
    count = parents.table.num_rows
    keys = {name: parents.table[name] for name in ("node", "gpu_uuid", "parent_id")}
    keys["row_kind"] = pa.array(["free"] * count, pa.string())
    gross = sum((split.free_gross[name] for name in FREE_CATEGORIES), np.zeros(count, np.int64))
    amounts = {"owned": gross, "lent": split.free_lent, **split.free}
    rows = _columns(count, keys, amounts)
    return rows.filter(pa.array(gross > 0))


def _unattributed_table(parents: ParentWindows, split: Split) -> pa.Table:
    count, ran = parents.table.num_rows, split.unattributed
    keys = {name: parents.table[name] for name in ("node", "gpu_uuid", "parent_id")}
    keys["row_kind"] = pa.array(["unattributed"] * count, pa.string())
    same = ("duty", "effective", "effective_low", "effective_high", "borrowed")
    return _columns(count, keys, dict.fromkeys(same, ran)).filter(pa.array(ran > 0))


def _mig_remainder(parents: ParentWindows, index: FactIndex, stranded: frozenset[str]) -> pa.Table:
    """What the MIG instances of a GPU leave of it: unallocated where a profile fits, else stranded."""
    with_parts = parents.table.append_column("window", pa.array(parents.window)).append_column(
        "capacity", pa.array(parents.capacity)
    )
    gpus = with_parts.group_by(["node", "gpu_uuid", "window_start_ns"], use_threads=False).aggregate(
        [("window", "max"), ("capacity", "sum")]
    )
    left = gpus["window_max"].to_numpy() - gpus["capacity_sum"].to_numpy()
    if (left < 0).any():
        raise InvariantError(f"the parents of GPU {gpus['gpu_uuid'][int(np.argmin(left))]} weigh more than the GPU")
    gpus, left = gpus.filter(pa.array(left > 0)), left[left > 0]
    lost = {
        uuid
        for uuid in pc.unique(gpus["gpu_uuid"]).to_pylist()
        if any(gpu.node in stranded or mig_remainder_stranded(gpu) for _, gpu in index.gpus.get(uuid, [])[-1:])
    }
    is_lost = pc.is_in(gpus["gpu_uuid"], value_set=pa.array(sorted(lost), pa.string())).to_numpy()
    keys = {"node": gpus["node"], "gpu_uuid": gpus["gpu_uuid"], "parent_id": gpus["gpu_uuid"]}
    keys["row_kind"] = pa.array(["free"] * len(left), pa.string())
    amounts = {"owned": left, "stranded": np.where(is_lost, left, 0), "unallocated": np.where(is_lost, 0, left)}
    return _columns(len(left), keys, amounts)


def _missing_table(
    holders: pa.Table,
    parents: ParentWindows,
    index: FactIndex,
    stranded: frozenset[str],
    span: Interval,
    *,
    whole: bool,
) -> pa.Table:
    covered = _covered(parents)
    layouts, node_of = _layouts(index, covered)
    seen = _seen(holders)
    parts: list[MissingPart] = []
    tail = max((windows[-1][1] for _, windows, _ in covered.values()), default=span[1])
    holders_on = {
        node: holders_by_record(
            [layout for uuid in sorted(layouts) if node_of[uuid] == node for layout in layouts[uuid]],
            index.pods_on.get(node, []),
            seen,
        )
        for node in sorted(set(node_of.values()))
    }
    for uuid in sorted(layouts):
        node = node_of[uuid]
        mine = covered[uuid][1] if uuid in covered else []
        expected = _expected(node, index, span, mine, span[1] if whole or not covered else tail)
        if expected:
            parts += missing_parts(
                node=node,
                gpu_uuid=uuid,
                expected=expected,
                covered=mine,
                parents=layouts[uuid],
                seen=holders_on[node],
                index=index,
            )
    return _missing_rows(parts, stranded)


def _seen(holders: pa.Table) -> dict[str, list[SeenHolder]]:
    """Who held which slice in some window of the hour; use without holding is not held elsewhere either."""
    names = ("parent_id", "slice_id", "pod_uid", "container")
    held = holders.filter(pc.not_equal(holders["slice_id"], ""))
    distinct = held.group_by(list(names), use_threads=False).aggregate([])
    seen: dict[str, list[SeenHolder]] = defaultdict(list)
    for row in distinct.sort_by([(name, "ascending") for name in names]).to_pylist():
        seen[row["parent_id"]].append(SeenHolder(**row))
    return seen


def _layouts(
    index: FactIndex, covered: dict[str, tuple[str, list[Interval], list[ParentLayout]]]
) -> tuple[dict[str, list[ParentLayout]], dict[str, str]]:
    """Parents and node of every GPU: as its agent described it, else as its windows show, else as the node says."""
    layouts: dict[str, list[ParentLayout]] = {}
    node_of: dict[str, str] = {}
    for uuid, pairs in index.gpus.items():
        layouts[uuid], node_of[uuid] = layouts_of(uuid, pairs[-1][1]), pairs[-1][1].node
    for uuid, (node, _, shown) in covered.items():
        layouts.setdefault(uuid, shown)
        node_of[uuid] = node
    described = set(node_of.values())
    for node, (_, _, data) in index.nodes.items():
        for layout in unseen_layouts(data) if node not in described else ():
            layouts[layout.gpu_uuid], node_of[layout.gpu_uuid] = [layout], node
    return layouts, node_of


def _covered(parents: ParentWindows) -> dict[str, tuple[str, list[Interval], list[ParentLayout]]]:
    """Node, windows and parents of every GPU that has device records."""
    found: dict[str, tuple[str, list[Interval], list[ParentLayout]]] = {}
    starts = parents.table["window_start_ns"].to_numpy()
    nodes, gpus = parents.table["node"].to_pylist(), parents.table["gpu_uuid"].to_pylist()
    ends = starts + parents.window
    names, replicas = parents.table["parent_id"].to_pylist(), parents.table["replicas"].to_pylist()
    order = np.argsort(starts, kind="stable")
    last: dict[str, int] = {}
    shown: set[str] = set()
    for row in order.tolist():
        uuid, start = gpus[row], int(starts[row])
        _, intervals, layout = found.setdefault(uuid, (nodes[row], [], []))
        if names[row] not in shown:
            shown.add(names[row])
            weight = Fraction(int(parents.capacity[row]), int(parents.window[row]))
            layout.append(ParentLayout(gpu_uuid=uuid, parent_id=names[row], weight=weight, replicas=replicas[row]))
        if last.get(uuid) == start:
            continue
        last[uuid] = start
        if intervals and intervals[-1][1] == start:
            intervals[-1] = (intervals[-1][0], int(ends[row]))
        else:
            intervals.append((start, int(ends[row])))
    return found


def _expected(node: str, index: FactIndex, span: Interval, covered: list[Interval], until: int) -> Interval | None:
    """When the GPUs of a node were there within the hour; of an unknown node only what was measured counts."""
    known = index.nodes.get(node)
    if known is None:
        return (covered[0][0], covered[-1][1]) if covered else None
    fact = known[1]
    start = max(span[0], to_unix_ns(fact.valid_from))
    end = min(span[1], until if fact.valid_to is None else min(until, to_unix_ns(fact.valid_to)))
    return (start, end) if start < end else None


def _missing_rows(parts: list[MissingPart], stranded: frozenset[str]) -> pa.Table:
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
    return _columns(len(parts), keys, amounts)


def _sum_rows(rows: pa.Table) -> pa.Table:
    """Windows to hours. A sum over windows of which none was measured stays null."""
    keys = ["row_kind", "node", "gpu_uuid", "parent_id", "slice_id", "pod_uid", "container"]
    table = rows.group_by(keys, use_threads=False).aggregate(
        [
            *((name, "sum") for name in (*AMOUNT_COLUMNS, "covered")),
            *((name, "max") for name in ("namespace", "pod", "origin")),
        ]
    )
    names = [name.removesuffix("_sum").removesuffix("_max") for name in table.schema.names]
    return table.rename_columns(names)


def _check_gpus(rows: pa.Table, findings: list[str]) -> None:
    """Per GPU, Σ owned = Σ effective + Σ net waste; a gap is a bug and nothing may be written."""
    waste = [name for name in (*FREE_CATEGORIES, *HOLDER_CATEGORIES) if name != "unhealthy"]
    sums = rows.group_by(["gpu_uuid"]).aggregate(
        [(name, "sum") for name in ("owned", "effective", "unhealthy", *waste)]
    )

    def column(name: str) -> NDArray[np.int64]:
        values: NDArray[np.int64] = pc.fill_null(sums[f"{name}_sum"], 0).to_numpy()
        return values

    gap = column("owned") - column("effective") - column("unhealthy") - sum(column(name) for name in waste)
    if gap.any():
        row = int(np.argmax(gap != 0))
        raise InvariantError(f"GPU {sums['gpu_uuid'][row]}: owned differs from its parts by {int(gap[row])} ns")
    too_long = column("owned") > NS_PER_HOUR
    if too_long.any():
        uuids = sums["gpu_uuid"].filter(pa.array(too_long)).to_pylist()
        findings.append(f"windows of {', '.join(sorted(uuids))} cover more than the hour; do two agents report it?")
