"""One ledger hour as a pure function of its stored inputs: equal inputs give equal rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.ledger.accounting import split_parents
from gpuwaste.ledger.columns import Texts, WindowColumns, largest_by, ranks
from gpuwaste.ledger.followed import Schedulers
from gpuwaste.ledger.hour_facts import HourFacts
from gpuwaste.ledger.namesakes import told_apart
from gpuwaste.ledger.node_rows import node_rows
from gpuwaste.ledger.rows import free_rows, holder_rows, hour_rows, sum_hour, unattributed_rows
from gpuwaste.ledger.schema import FREE_CATEGORIES, HOLDER_CATEGORIES, KEY_COLUMNS
from gpuwaste.ledger.stranded import mig_remainder_stranded
from gpuwaste.ledger.times import overlap
from gpuwaste.ledger.uncovered import uncovered_rows
from gpuwaste.ledger.unprovisioned import unprovisioned_rows
from gpuwaste.ledger.windows import HolderWindows, ParentWindows, holder_windows, parent_windows
from gpuwaste.model.apportion import mul_div
from gpuwaste.model.errors import InvariantError
from gpuwaste.model.grouping import group_numbers, sum_by
from gpuwaste.model.units import NS_PER_HOUR, NS_PER_SECOND, from_unix_ns, to_unix_ns
from gpuwaste.settings.teams import TeamHistory

if TYPE_CHECKING:
    from datetime import datetime

    from numpy.typing import NDArray

    from gpuwaste.ledger.inputs import HourInputs
    from gpuwaste.ledger.join import FactIndex
    from gpuwaste.ledger.times import FreeTimes
    from gpuwaste.settings.teams import TeamRules

__all__ = ["HourBuilder", "HourRules", "LedgerHour", "build_hour"]

_STARTING_LIMIT_SECONDS = 900


@dataclass(frozen=True, slots=True, kw_only=True)
class HourRules:
    """What besides the inputs decides a ledger hour.

    Attributes:
        teams: rules that name the team of a row, and those that hours before a change keep.
        starting_limit_seconds: how long after allocation idle time is called starting, at most.
        pool_label: a node label that names the pool before the well-known ones.
    """

    teams: TeamRules
    starting_limit_seconds: int = _STARTING_LIMIT_SECONDS
    pool_label: str = ""

    def at(self, hour: datetime) -> HourRules:
        """The rules of an hour."""
        return replace(self, teams=self.teams.at(hour)) if isinstance(self.teams, TeamHistory) else self


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerHour:
    """Rows of LEDGER_SCHEMA, sorted by key, and what had to be noted while they were made."""

    table: pa.Table
    findings: tuple[str, ...]


def build_hour(
    inputs: HourInputs, rules: HourRules, *, through: datetime | None = None, gpus_only: bool = False
) -> LedgerHour:
    """Compute the rows of one hour.

    Args:
        inputs: windows and facts of the hour.
        rules: team rules and limits.
        through: for the running hour, the time up to which data has come in; None for a whole hour.
        gpus_only: leave out the rows of CPU and memory: for whoever only looks at GPUs and stores nothing.

    Raises:
        InvariantError: the parts of a GPU do not add up to its time.
    """
    return HourBuilder(rules).build(inputs, through=through, gpus_only=gpus_only)


class HourBuilder:
    """Computes one hour after the other; what their facts have in common is worked out once.

    Args:
        rules: team rules and limits.
    """

    def __init__(self, rules: HourRules) -> None:
        self._rules = rules
        self._before: HourFacts | None = None

    def build(self, inputs: HourInputs, *, through: datetime | None = None, gpus_only: bool = False) -> LedgerHour:
        """See `build_hour`; the rows are the same."""
        rules = self._rules
        start = to_unix_ns(inputs.hour)
        end = start + NS_PER_HOUR if through is None else min(start + NS_PER_HOUR, to_unix_ns(through))
        named = told_apart(inputs)
        known = HourFacts(named, rules.teams, pool_label=rules.pool_label, before=self._before)
        self._before = known
        gpus, findings = _gpu_rows(named.windows, known, rules, (start, end), whole=through is None)
        _check_gpus(gpus, findings)
        rows = [gpus]
        if not gpus_only:
            nodes, crowded = node_rows(known.index, (start, end))
            findings += crowded
            rows.append(nodes.select(gpus.schema.names))
        labelled = known.labels.labelled(pa.concat_tables(rows), inputs)
        missing = unprovisioned_rows(inputs, known.gpus, (start, end), pool_label=rules.pool_label)
        labelled = pa.concat_tables([labelled, missing])
        ordered = labelled.sort_by([(name, "ascending") for name in KEY_COLUMNS]).combine_chunks()
        return LedgerHour(table=ordered, findings=tuple(findings))


def _gpu_rows(
    windows: pa.Table, known: HourFacts, rules: HourRules, span: tuple[int, int], *, whole: bool
) -> tuple[pa.Table, list[str]]:
    """The rows of all GPUs, one a key, and what was noted."""
    index, free = known.index, known.free_times(span)
    schedulers = Schedulers.of(index)
    parents = parent_windows(WindowColumns.of_kind(windows, "device", start=span[0], end=span[1]))
    holding = holder_windows(
        WindowColumns.of_kind(windows, "usage", start=span[0], end=span[1]),
        parents,
        schedulers,
        starting_limit_ns=rules.starting_limit_seconds * NS_PER_SECOND,
    )
    findings = []
    if holding.lost:
        findings.append(f"{holding.lost} usage records name a device that has no device record in their window")
    split = split_parents(parents.parents(free), holding.holders)
    pod_uids = _pod_uids(holding, index)
    rows = [
        holder_rows(holding, split, pod_uids),
        free_rows(parents, split),
        unattributed_rows(parents, split),
        _mig_remainder(parents, index, free),
        uncovered_rows(parents, holding, pod_uids, schedulers, free=free, span=span, whole=whole),
    ]
    return sum_hour(pa.concat_tables(rows)), findings


def _is_in(column: Texts, wanted: frozenset[str] | set[str]) -> NDArray[np.bool_]:
    known: NDArray[np.bool_] = np.array([name in wanted for name in column.names], bool)
    return known[column.codes]


def _pod_uids(holding: HolderWindows, index: FactIndex) -> Texts:
    """The UID of each row's pod; where the window has only the name, found by name and time, else `name:…`."""
    uids = holding.names["pod_uid"]
    unnamed = np.flatnonzero(uids.codes == int(np.searchsorted(uids.names, "")))
    if not len(unnamed):
        return uids
    namespaces, pods = holding.names["namespace"], holding.names["pod"]
    found = uids.names[uids.codes]
    for row in unnamed.tolist():
        namespace, name = namespaces.names[namespaces.codes[row]], pods.names[pods.codes[row]]
        at, until = (from_unix_ns(int(time)) for time in (holding.start[row], holding.start[row] + holding.window[row]))
        fact = index.find_pod(namespace=namespace, name=name, uid="", at=at, until=until)
        found[row] = fact.uid if fact else f"name:{namespace}/{name}"
    names, codes = np.unique(found, return_inverse=True)
    return Texts(codes=codes, names=names)


def _mig_remainder(parents: ParentWindows, index: FactIndex, free: FreeTimes) -> pa.Table:
    """What the MIG instances of a GPU leave of it: unallocated where a profile fits, else stranded."""
    gpu, node = parents.names["gpu_uuid"], parents.names["node"]
    groups = group_numbers([node.codes, gpu.codes, ranks(parents.start)])
    left = largest_by(groups, parents.window) - sum_by(groups.of, parents.capacity, len(groups.first))
    if (left < 0).any():
        worst = gpu.names[gpu.codes[groups.first[int(np.argmin(left))]]]
        raise InvariantError(f"the parents of GPU {worst} weigh more than the GPU")
    some = left > 0
    first, left = groups.first[some], left[some]
    lost_gpus = {
        uuid
        for uuid in gpu.names[np.unique(gpu.codes[first])]
        if any(mig_remainder_stranded(data) for _, data in index.gpus.get(uuid, [])[-1:])
    }
    unhealthy, stranded = (
        mul_div(left, overlap(times, node.take(first), parents.start[first], window), window)[0]
        for window in [parents.window[first]]
        for times in (free.unhealthy, free.stranded)
    )
    stranded = np.where(_is_in(gpu.take(first), lost_gpus), left, stranded)
    stranded = np.minimum(stranded, left - unhealthy)
    gpus = group_numbers([node.codes[first], gpu.codes[first]])
    count, at = len(gpus.first), first[gpus.first]
    amounts = {
        name: sum_by(gpus.of, values, count)
        for name, values in (
            ("owned", left),
            ("unhealthy", unhealthy),
            ("stranded", stranded),
            ("unallocated", left - unhealthy - stranded),
        )
    }
    uuids = gpu.take(at).arrow()
    keys = {"node": node.take(at).arrow(), "gpu_uuid": uuids, "parent_id": uuids}
    keys["row_kind"] = pa.array(["free"] * count, pa.string())
    return hour_rows(count, keys, amounts)


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
