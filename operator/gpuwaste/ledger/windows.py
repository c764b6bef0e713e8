"""Usage windows as the arrays that the accounting takes: parents with their capacity, holders with their shares."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.ledger.accounting import Holders, Parents
from gpuwaste.ledger.columns import Texts, largest_by, ranks, smallest_by, sum_known_by
from gpuwaste.ledger.followed import follow
from gpuwaste.ledger.holders import HolderRows
from gpuwaste.ledger.schedulers import WHOLE
from gpuwaste.ledger.times import overlap
from gpuwaste.model.apportion import apportion_groups, mul_div
from gpuwaste.model.grouping import group_numbers, sum_by

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from gpuwaste.ledger.columns import Int64s, WindowColumns
    from gpuwaste.ledger.followed import Schedulers
    from gpuwaste.ledger.times import FreeTimes, Interval
    from gpuwaste.model.grouping import Groups

__all__ = ["HolderWindows", "ParentWindows", "holder_windows", "parent_windows"]

_PPM = 1_000_000
_LATEST = np.iinfo(np.int64).max
_PARENT = ("node", "gpu_uuid", "parent_id")
_HOLDER = ("slice_id", "namespace", "pod", "pod_uid", "container")
_REPLICA = re.compile(r"::(\d{1,9})$")


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentWindows:
    """One row a parent and window, sorted by node, gpu_uuid, parent_id and start.

    Attributes:
        names: the columns node, gpu_uuid and parent_id.
        start: int64[n], when the window starts, Unix nanoseconds.
        window: int64[n], length of the window.
        replicas: int64[n], slices that the parent is cut into.
        capacity: int64[n], slice weight × window.
        unattributed: int64[n], as a part of capacity.
        unhealthy: int64[n], as a part of capacity.
        not_allocatable: int64[n], as a part of capacity.
        device_duty: int64[n], the parent's own duty in its own time; −1 where unmeasured.
    """

    names: dict[str, Texts]
    start: Int64s
    window: Int64s
    replicas: Int64s
    capacity: Int64s
    unattributed: Int64s
    unhealthy: Int64s
    not_allocatable: Int64s
    device_duty: Int64s

    def parents(self, free: FreeTimes) -> Parents:
        """The accounting's input."""

        def part(times: Mapping[str, Sequence[Interval]]) -> Int64s:
            inside = overlap(times, self.names["node"], self.start, self.window)
            return _part(inside, window=self.window, capacity=self.capacity)

        unready = part(free.unhealthy)
        return Parents(
            capacity=self.capacity,
            unattributed=self.unattributed,
            free_unhealthy=np.maximum(np.maximum(self.unhealthy, self.not_allocatable), unready),
            free_stranded=part(free.stranded),
            unhealthy=self.unhealthy,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HolderWindows:
    """One row a parent, slice and container in a window.

    Attributes:
        names: the columns of the parent's key, of the holder's, and `origin`.
        start: int64[m], when the window starts, Unix nanoseconds.
        window: int64[m], length of the window.
        holders: the accounting's input.
        low: int64[m], least effective; 0 where unmeasured.
        high: int64[m], most effective.
        covered: int64[m], held × the part of the window that readings cover.
        share: int64[m], billionths of the parent that a scheduler's annotation says it holds, else −1.
        lost: records that name a device without a device record in their window; they are not among the rows.
    """

    names: dict[str, Texts]
    start: Int64s
    window: Int64s
    holders: Holders
    low: Int64s
    high: Int64s
    covered: Int64s
    share: Int64s
    lost: int


def _part(own_time: Int64s, *, window: Int64s, capacity: Int64s) -> Int64s:
    """Time of the parent's own as a part of its capacity; below 0 counts as 0, above the window as the window."""
    return mul_div(np.clip(own_time, 0, window), capacity, np.maximum(window, 1))[0]


def parent_windows(devices: WindowColumns) -> ParentWindows:
    """Join the device records of every parent and window; two halves of a window (a restart) add up."""
    texts = {name: devices.texts(name) for name in _PARENT}
    start = devices.ints("window_start_ns")
    groups = devices.group(texts, _PARENT, start)
    most, added = partial(largest_by, groups), partial(sum_known_by, groups)
    window = most(devices.ints("window_ns"))
    capacity = window * most(devices.ints("weight_num")) // np.maximum(most(devices.ints("weight_den", 1)), 1)
    part = partial(_part, window=window, capacity=capacity)
    unattributed = added(devices.ints("unattributed_sm_ns", -1))
    unattributed = np.where(unattributed >= 0, unattributed, added(devices.ints("unattributed_duty_ns", -1)))
    allocatable = np.maximum(added(devices.ints("allocatable_ns", -1)), 0)
    return ParentWindows(
        names={name: column.take(groups.first) for name, column in texts.items()},
        start=start[groups.first],
        window=window,
        replicas=np.maximum(most(devices.ints("replicas", 1)), 1),
        capacity=capacity,
        unattributed=part(unattributed),
        unhealthy=part(added(devices.ints("unhealthy_ns", -1))),
        not_allocatable=part(window - np.minimum(allocatable, window)),
        device_duty=added(devices.ints("duty_ns", -1)),
    )


def holder_windows(
    usage: WindowColumns, parents: ParentWindows, schedulers: Schedulers, *, starting_limit_ns: int
) -> HolderWindows:
    """Join the usage records of every holder, find its parent, and turn its figures into parts of capacity.

    Usage of a parent without a device record in that window is left out here, and counted. What schedulers say
    on pods of who holds what is followed.
    """
    found, lost = _holder_rows(usage, parents)
    rows = follow(found, parents, schedulers)
    numbers, names = rows.numbers, rows.names
    parent = numbers["parent"]
    figures = _Figures(
        sm=numbers["sm"],
        duty=numbers["duty"],
        sm_low=numbers["sm_low"],
        sm_high=numbers["sm_high"],
        coverage_ppm=numbers["coverage_ppm"],
    )
    held = _held(rows, parents)
    starting = _starting(
        numbers["start"], numbers["since"], numbers["first"], parents.window[parent], starting_limit_ns
    )
    holders, low, high = _weighed(figures, parent, parents, held=held, starting=starting)
    ppm = np.where(holders.measured, figures.coverage_ppm, 0)
    return HolderWindows(
        names=names,
        start=numbers["start"],
        window=parents.window[parent],
        holders=holders,
        low=low,
        high=high,
        covered=mul_div(held, ppm, np.full(len(held), _PPM))[0],
        share=numbers["share"],
        lost=lost,
    )


def _holder_rows(usage: WindowColumns, parents: ParentWindows) -> tuple[HolderRows, int]:
    """The records of every holder and window joined, and how many have no parent."""
    texts = {name: usage.texts(name) for name in (*_PARENT, *_HOLDER)}
    start = usage.ints("window_start_ns")
    groups = usage.group(texts, (*_PARENT, *_HOLDER), start)
    keys = {name: column.take(groups.first) for name, column in texts.items()}
    parent = _find_parents(keys, start[groups.first], parents)
    known = parent >= 0

    def added(values: Int64s) -> Int64s:
        return sum_known_by(groups, values)[known]

    names = {name: column.take(known) for name, column in keys.items()}
    names["origin"] = _origin(usage, groups).take(known)
    numbers = {
        "parent": parent[known],
        "start": start[groups.first][known],
        "held": np.maximum(added(usage.ints("held_ns", -1)), 0),
        "since": smallest_by(groups, usage.ints("held_since_ns", _LATEST))[known],
        "first": smallest_by(groups, usage.ints("first_activity_ns", _LATEST))[known],
        "share": np.full(int(known.sum()), -1),
        "sm": added(usage.ints("sm_ns", -1)),
        "duty": added(usage.ints("duty_ns", -1)),
        "sm_low": added(usage.rounded("sm_low")),
        "sm_high": added(usage.rounded("sm_high")),
        "coverage_ppm": _coverage(usage, groups)[known],
    }
    return HolderRows(names=names, numbers=numbers), int((~known).sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Figures:
    """What was read of each holder in the parent's own time, int64[m]; −1 is unmeasured."""

    sm: Int64s
    duty: Int64s
    sm_low: Int64s
    sm_high: Int64s
    coverage_ppm: Int64s


def _weighed(
    figures: _Figures, parent: Int64s, parents: ParentWindows, *, held: Int64s, starting: Int64s
) -> tuple[Holders, Int64s, Int64s]:
    """The accounting's input, and the least and most that each holder's effective time can be."""
    window, capacity = parents.window[parent], parents.capacity[parent]
    part = partial(_part, window=window, capacity=capacity)
    has_sm = figures.sm >= 0
    effective = part(np.where(has_sm, figures.sm, _fitted_duty(figures.duty, parent, parents)))
    low = np.where(has_sm, figures.sm_low, 0)
    high = np.where(has_sm, figures.sm_high, figures.duty)
    holders = Holders(
        parent=parent,
        held=held,
        duty=np.maximum(part(figures.duty), effective),
        effective=effective,
        measured=has_sm | (figures.duty >= 0),
        starting_limit=mul_div(held, starting, np.maximum(window, 1))[0],
    )
    least = np.minimum(np.where(low >= 0, part(low), effective), effective)
    most = np.maximum(np.where(high >= 0, part(high), effective), effective)
    return holders, least, most


def _coverage(usage: WindowColumns, groups: Groups) -> Int64s:
    """The part of the window that readings of SM time cover, else those of duty; in millionths."""
    of_sm = largest_by(groups, usage.ints("sm_coverage_ppm", -1))
    return np.where(of_sm >= 0, of_sm, largest_by(groups, usage.ints("duty_coverage_ppm", 0)))


def _origin(usage: WindowColumns, groups: Groups) -> Texts:
    """How each holder's activity was measured: of SM time, else of duty; empty where neither is known."""
    sm, duty = usage.texts("sm_origin"), usage.texts("duty_origin")
    names, place = np.unique(np.concatenate([sm.names, duty.names, [""]]).astype(object), return_inverse=True)
    of_sm, of_duty = place[: len(sm.names)][sm.codes], place[len(sm.names) : -1][duty.codes]
    codes = np.where(usage.ints("sm_ns", -1) >= 0, of_sm, np.where(usage.ints("duty_ns", -1) >= 0, of_duty, place[-1]))
    return Texts(codes=largest_by(groups, codes), names=names)


def _find_parents(keys: dict[str, Texts], start: Int64s, parents: ParentWindows) -> Int64s:
    """Index of each usage row's parent, −1 where there is none. Both sides number texts alike."""
    count = len(parents.start)
    columns = [np.r_[parents.names[name].codes, keys[name].codes] for name in _PARENT]
    numbers = group_numbers([*columns, ranks(np.r_[parents.start, start])]).of
    place = np.full(int(numbers.max(initial=-1)) + 1, -1)
    place[numbers[:count]] = np.arange(count)
    found: Int64s = place[numbers[count:]]
    return found


def _slice_numbers(names: dict[str, Texts], replicas: Int64s) -> Int64s:
    """Which of N replicas each row's slice is: its `::k`, else its rank among the parent's slices of the hour."""
    slices = names["slice_id"]
    suffix = np.array([int(found[1]) if (found := _REPLICA.search(name)) else -1 for name in slices.names], np.int64)
    number = suffix[slices.codes]
    missing = (number < 0) | (number >= replicas)
    if (missing & (replicas > 1)).any():
        groups = group_numbers([names["parent_id"].codes, slices.codes])
        of_parent = names["parent_id"].codes[groups.first]
        rank = np.arange(len(groups.first)) - np.searchsorted(of_parent, of_parent)
        number = np.where(missing, rank[groups.of] % np.maximum(replicas, 1), number)
    return np.where(replicas > 1, number, 0)


def _held(rows: HolderRows, parents: ParentWindows) -> Int64s:
    """By slices, and where a scheduler says the part of it, by parts, which have what slices leave at most."""
    share = rows.numbers["share"]
    said = share >= 0
    if not said.any():
        return _held_slices(rows, parents)
    held = np.zeros(len(rows), np.int64)
    held[~said] = _held_slices(rows.take(~said), parents)
    parent, count = rows.numbers["parent"], len(parents.capacity)
    left = parents.capacity - sum_by(parent, held, count)
    of = parent[said]
    window = np.maximum(parents.window[of], 1)
    part = mul_div(share[said], np.minimum(rows.numbers["held"][said], window), window)[0]
    wanted = np.minimum(sum_by(of, part, count), WHOLE)
    together = np.minimum(mul_div(parents.capacity, wanted, np.full(count, WHOLE))[0], left)
    held[said] = apportion_groups(together, part, of)
    return held


def _held_slices(rows: HolderRows, parents: ParentWindows) -> Int64s:
    """Replica k of N holds ⌊(k+1)C/N⌋ − ⌊kC/N⌋; sharers of one slice divide it by the time they held it."""
    parent = rows.numbers["parent"]
    replicas = parents.replicas[parent]
    capacity, window = parents.capacity[parent], np.maximum(parents.window[parent], 1)
    number = _slice_numbers(rows.names, replicas)
    whole = (number + 1) * capacity // replicas - number * capacity // replicas
    time = np.minimum(rows.numbers["held"], window)
    held, _ = mul_div(whole, time, window)
    groups = group_numbers([parent, number])
    group, count = groups.of, len(groups.first)
    if count == len(parent):  # no slice is shared
        return held
    total = sum_by(group, time, count)
    first_whole = np.zeros(count, np.int64)
    first_whole[group] = whole
    window_of = np.ones(count, np.int64)
    window_of[group] = window
    crowded = total > window_of
    shared = apportion_groups(np.where(crowded, first_whole, 0), time, group)
    return np.where(crowded[group], shared, held)


def _fitted_duty(duty: Int64s, parent: Int64s, parents: ParentWindows) -> Int64s:
    """Where only duty is known its upper end stands for effective, scaled by min(1, device duty / Σ duty)."""
    own = np.maximum(duty, 0)
    total = sum_by(parent, own, len(parents.capacity))
    above = (parents.device_duty >= 0) & (total > parents.device_duty)
    if not above.any():
        return own
    fitted = apportion_groups(np.where(above, np.maximum(parents.device_duty, 0), 0), own, parent)
    return np.where(above[parent], fitted, own)


def _starting(start: Int64s, since: Int64s, first_activity: Int64s, window: Int64s, limit_ns: int) -> Int64s:
    """The part of each window between allocation and first activity, at most `limit_ns` after allocation."""
    known = (since > 0) & (since < _LATEST)
    since = np.where(known, since, 0)
    until = np.minimum(first_activity, since + limit_ns)
    overlap = np.clip(np.minimum(until, start + window) - np.maximum(since, start), 0, window)
    started: NDArray[np.int64] = np.where(known, overlap, 0)
    return started
