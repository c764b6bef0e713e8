"""Usage windows as the arrays that the accounting takes: parents with their capacity, holders with their shares."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.ledger.accounting import Holders, Parents
from gpuwaste.model.apportion import apportion_groups, mul_div

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Int64s = NDArray[np.int64]

__all__ = ["HolderWindows", "ParentWindows", "holder_windows", "parent_windows"]

_PPM = 1_000_000
_PARENT = ("node", "gpu_uuid", "parent_id", "window_start_ns")
_HOLDER = ("slice_id", "namespace", "pod", "pod_uid", "container")


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentWindows:
    """One row a parent and window, sorted by `table`'s key columns node, gpu_uuid, parent_id, window_start_ns.

    Attributes:
        table: the keys and `replicas`.
        window: int64[n], length of the window.
        capacity: int64[n], slice weight × window.
        unattributed: int64[n], as a part of capacity.
        unhealthy: int64[n], as a part of capacity.
        not_allocatable: int64[n], as a part of capacity.
        device_duty: int64[n], the parent's own duty in its own time; −1 where unmeasured.
    """

    table: pa.Table
    window: Int64s
    capacity: Int64s
    unattributed: Int64s
    unhealthy: Int64s
    not_allocatable: Int64s
    device_duty: Int64s

    def parents(self, *, free_stranded: Int64s) -> Parents:
        """The accounting's input; `free_stranded` is int64[n]."""
        return Parents(
            capacity=self.capacity,
            unattributed=self.unattributed,
            free_unhealthy=np.maximum(self.unhealthy, self.not_allocatable),
            free_stranded=free_stranded,
            unhealthy=self.unhealthy,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HolderWindows:
    """One row a parent, slice and container in a window.

    Attributes:
        table: the parent's keys, the holder's, and `origin`.
        holders: the accounting's input.
        low: int64[m], least effective; 0 where unmeasured.
        high: int64[m], most effective.
        covered: int64[m], held × the part of the window that readings cover.
    """

    table: pa.Table
    holders: Holders
    low: Int64s
    high: Int64s
    covered: Int64s


def _ints(column: pa.ChunkedArray, absent: int = 0) -> Int64s:
    values: Int64s = pc.fill_null(column, absent).to_numpy().astype(np.int64)
    return values


def _part(own_time: Int64s, *, window: Int64s, capacity: Int64s) -> Int64s:
    """Time of the parent's own as a part of its capacity; below 0 counts as 0, above the window as the window."""
    return mul_div(np.clip(own_time, 0, window), capacity, np.maximum(window, 1))[0]


def parent_windows(windows: pa.Table) -> ParentWindows:
    """Join the device records of every parent and window; two halves of a window (a restart) add up."""
    devices = windows.filter(pc.equal(windows["kind"], "device"))
    table = devices.group_by(list(_PARENT), use_threads=False).aggregate(
        [
            ("window_ns", "max"),
            ("weight_num", "max"),
            ("weight_den", "max"),
            ("replicas", "max"),
            ("allocatable_ns", "sum"),
            ("unhealthy_ns", "sum"),
            ("duty_ns", "sum"),
            ("unattributed_sm_ns", "sum"),
            ("unattributed_duty_ns", "sum"),
        ]
    )
    table = table.sort_by([(name, "ascending") for name in _PARENT])
    window = _ints(table["window_ns_max"])
    capacity = window * _ints(table["weight_num_max"]) // np.maximum(_ints(table["weight_den_max"], 1), 1)
    part = partial(_part, window=window, capacity=capacity)

    unattributed = pc.coalesce(table["unattributed_sm_ns_sum"], table["unattributed_duty_ns_sum"])
    return ParentWindows(
        table=table.select([*_PARENT]).append_column("replicas", table["replicas_max"]),
        window=window,
        capacity=capacity,
        unattributed=part(_ints(unattributed)),
        unhealthy=part(_ints(table["unhealthy_ns_sum"])),
        not_allocatable=part(window - np.minimum(_ints(table["allocatable_ns_sum"]), window)),
        device_duty=_ints(table["duty_ns_sum"], -1),
    )


def holder_windows(windows: pa.Table, parents: ParentWindows, *, starting_limit_ns: int) -> HolderWindows:
    """Join the usage records of every holder, find its parent, and turn its figures into parts of capacity.

    Usage of a parent without a device record in that window is left out here; the caller reports it.
    """
    table = _usage_rows(windows)
    parent, known = _find_parents(table, parents)
    table, parent = table.filter(pa.array(known)), parent[known]
    window, capacity = parents.window[parent], parents.capacity[parent]
    held = _held(table, parent, parents)
    part = partial(_part, window=window, capacity=capacity)

    duty, sm = _ints(table["duty_ns_sum"], -1), _ints(table["sm_ns_sum"], -1)
    measured = (sm >= 0) | (duty >= 0)
    point = np.where(sm >= 0, sm, _fitted_duty(duty, parent, parents))
    low = np.where(sm >= 0, _ints(_rounded(table["sm_low_sum"]), -1), 0)
    high = np.where(sm >= 0, _ints(_rounded(table["sm_high_sum"]), -1), duty)
    effective = part(point)
    holders = Holders(
        parent=parent,
        held=held,
        duty=np.maximum(part(duty), effective),
        effective=effective,
        measured=measured,
        starting_limit=_starting(table, held, window, starting_limit_ns),
    )
    coverage = pc.coalesce(table["sm_coverage_ppm_max"], table["duty_coverage_ppm_max"], pa.scalar(0, pa.int32()))
    return HolderWindows(
        table=table,
        holders=holders,
        low=np.minimum(np.where(low >= 0, part(low), effective), effective),
        high=np.maximum(np.where(high >= 0, part(high), effective), effective),
        covered=mul_div(held, np.where(measured, _ints(coverage), 0), np.full(len(held), _PPM))[0],
    )


def _usage_rows(windows: pa.Table) -> pa.Table:
    usage = windows.filter(pc.equal(windows["kind"], "usage"))
    origin = pc.if_else(pc.is_valid(usage["sm_ns"]), usage["sm_origin"], usage["duty_origin"])
    origin = pc.if_else(pc.or_(pc.is_valid(usage["sm_ns"]), pc.is_valid(usage["duty_ns"])), origin, None)
    usage = usage.append_column("origin", origin)
    figures = ("held_ns", "duty_ns", "sm_ns", "sm_low", "sm_high")
    table = usage.group_by([*_PARENT, *_HOLDER], use_threads=False).aggregate(
        [
            *((name, "sum") for name in figures),
            ("held_since_ns", "min"),
            ("first_activity_ns", "min"),
            ("sm_coverage_ppm", "max"),
            ("duty_coverage_ppm", "max"),
            ("origin", "max"),
        ]
    )
    return table.sort_by([(name, "ascending") for name in (*_PARENT, *_HOLDER)])


def _rounded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.cast(pc.round(column), pa.int64())


def _find_parents(table: pa.Table, parents: ParentWindows) -> tuple[Int64s, NDArray[np.bool_]]:
    """Index of each usage row's parent, and whether there is one. Both tables are encoded with one dictionary."""
    count = parents.table.num_rows
    key = np.zeros(count + table.num_rows, np.int64)
    for name in _PARENT:
        both = pa.chunked_array(parents.table[name].chunks + table[name].chunks, type=parents.table[name].type)
        codes = np.asarray(both.combine_chunks().dictionary_encode().indices, dtype=np.int64)
        key = key * (int(codes.max(initial=0)) + 1) + codes
    order = np.argsort(key[:count], kind="stable")
    place = np.minimum(np.searchsorted(key[:count], key[count:], sorter=order), max(count - 1, 0))
    if not count:
        return np.zeros(table.num_rows, np.int64), np.zeros(table.num_rows, bool)
    parent = order[place]
    return parent, key[:count][parent] == key[count:]


def _slice_numbers(table: pa.Table, replicas: Int64s) -> Int64s:
    """Which of N replicas each row's slice is: its `::k`, else its rank among the parent's slices of the hour."""
    suffix = pc.struct_field(pc.extract_regex(table["slice_id"], r"::(?P<k>\d{1,9})$"), "k")
    number = _ints(pc.cast(suffix, pa.int64()), -1)
    missing = (number < 0) | (number >= replicas)
    if (missing & (replicas > 1)).any():
        names = np.array(
            [f"{p}\0{s}" for p, s in zip(*(table[c].to_pylist() for c in ("parent_id", "slice_id")), strict=True)]
        )
        _, first, code = np.unique(names, return_index=True, return_inverse=True)
        of_parent = np.array(table["parent_id"].to_pylist())[first]
        rank = np.arange(len(first)) - np.searchsorted(of_parent, of_parent)
        number = np.where(missing, rank[code] % np.maximum(replicas, 1), number)
    return np.where(replicas > 1, number, 0)


def _held(table: pa.Table, parent: Int64s, parents: ParentWindows) -> Int64s:
    """Replica k of N holds ⌊(k+1)C/N⌋ − ⌊kC/N⌋; sharers of one slice divide it by the time they held it."""
    replicas = np.maximum(_ints(parents.table["replicas"], 1), 1)[parent]
    capacity, window = parents.capacity[parent], np.maximum(parents.window[parent], 1)
    number = _slice_numbers(table, replicas)
    whole = (number + 1) * capacity // replicas - number * capacity // replicas
    time = np.minimum(_ints(table["held_ns_sum"]), window)
    slot = parent * (int(replicas.max(initial=1)) + 1) + number
    _, group = np.unique(slot, return_inverse=True)
    total = np.zeros(int(group.max(initial=-1)) + 1, np.int64)
    np.add.at(total, group, time)
    held, _ = mul_div(whole, time, window)
    first_whole = np.zeros(len(total), np.int64)
    first_whole[group] = whole
    window_of = np.ones(len(total), np.int64)
    window_of[group] = window
    crowded = total > window_of
    shared = apportion_groups(np.where(crowded, first_whole, 0), time, group)
    return np.where(crowded[group], shared, held)


def _fitted_duty(duty: Int64s, parent: Int64s, parents: ParentWindows) -> Int64s:
    """Where only duty is known its upper end stands for effective, scaled by min(1, device duty / Σ duty)."""
    own = np.maximum(duty, 0)
    total = np.zeros(len(parents.capacity), np.int64)
    np.add.at(total, parent, own)
    above = (parents.device_duty >= 0) & (total > parents.device_duty)
    fitted = apportion_groups(np.where(above, np.maximum(parents.device_duty, 0), 0), own, parent)
    return np.where(above[parent], fitted, own)


def _starting(table: pa.Table, held: Int64s, window: Int64s, limit_ns: int) -> Int64s:
    """The part of held between allocation and first activity, at most `limit_ns` after allocation."""
    start = _ints(table["window_start_ns"])
    since = _ints(table["held_since_ns_min"])
    until = np.minimum(_ints(table["first_activity_ns_min"], np.iinfo(np.int64).max), since + limit_ns)
    overlap = np.clip(np.minimum(until, start + window) - np.maximum(since, start), 0, window)
    return np.where(since > 0, mul_div(held, overlap, np.maximum(window, 1))[0], 0)
