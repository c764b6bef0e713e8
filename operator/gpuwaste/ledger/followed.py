"""Holdings as schedulers that share GPUs mean them, not as the kubelet was told.

A reservation pod of KAI holds a GPU for its tenants: in every window its time goes to those that run then, each with
the part that it asked for (those that said none divide what is left); what nobody asked for is free. Without any
tenant it stays with the reservation pod. HAMi's pods hold the GPU that their annotation names, with the part that it
names. What was measured stays where it was measured: only the holding moves, to where the container's processes were
seen. Parts that pass the whole are scaled to it later.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.ledger.holders import FIGURES, HolderRows, added_rows
from gpuwaste.ledger.schedulers import WHOLE, hami_devices, kai_groups, kai_request, kai_reserved, said_by_schedulers
from gpuwaste.model.facts import PodData
from gpuwaste.model.grouping import group_numbers
from gpuwaste.model.units import from_unix_ns, to_unix_ns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gpuwaste.ledger.columns import Int64s
    from gpuwaste.ledger.join import FactIndex
    from gpuwaste.ledger.missing import SeenHolder
    from gpuwaste.ledger.schedulers import HamiDevice, KaiRequest
    from gpuwaste.ledger.windows import ParentWindows

__all__ = ["Schedulers", "Tenant", "follow", "follow_record"]

_LATEST = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A pod behind a reservation pod, and when it ran; Unix nanoseconds."""

    uid: str
    namespace: str
    name: str
    request: KaiRequest
    start: int
    end: int


@dataclass(slots=True, kw_only=True)
class Schedulers:
    """What the pods of an hour say of shared GPUs.

    Attributes:
        index: the facts of the hour.
        reserved: by UID of a reservation pod, the GPU that it says it got.
        tenants: by UID of a reservation pod.
        devices: by UID of a pod, its devices by container.
    """

    index: FactIndex
    reserved: dict[str, str] = field(default_factory=dict)
    tenants: dict[str, list[Tenant]] = field(default_factory=dict)
    devices: dict[str, dict[str, tuple[HamiDevice, ...]]] = field(default_factory=dict)

    @classmethod
    def of(cls, index: FactIndex) -> Schedulers:
        """Read the labels and annotations of all pods of the hour."""
        found = cls(index=index)
        groups: dict[tuple[str, str], list[str]] = defaultdict(list)
        sharing: dict[tuple[str, str], list[Tenant]] = defaultdict(list)
        for uid, facts in index.pods.items():
            pod = facts[-1].data
            if not isinstance(pod, PodData) or not said_by_schedulers(pod):
                continue
            devices = hami_devices(pod)
            if devices:
                found.devices[uid] = devices
            reserved = kai_reserved(pod)
            if reserved is not None:
                found.reserved[uid] = reserved
            for group in kai_groups(pod):
                if reserved is not None:
                    groups[pod.node, group].append(uid)
                    continue
                ended = facts[-1].valid_to
                tenant = Tenant(
                    uid=uid,
                    namespace=pod.namespace,
                    name=pod.name,
                    request=kai_request(pod),
                    start=to_unix_ns(facts[0].valid_from),
                    end=_LATEST if ended is None else to_unix_ns(ended),
                )
                sharing[pod.node, group].append(tenant)
        for key, uids in groups.items():
            tenants = sorted(sharing.get(key, ()), key=lambda tenant: tenant.uid)
            for uid in uids:
                found.tenants.setdefault(uid, []).extend(tenants)
        return found

    def __bool__(self) -> bool:
        return bool(self.reserved or self.devices)

    def memory_of(self, gpu: str) -> int:
        """Bytes of a GPU's memory, 0 where nobody described it."""
        known = self.index.gpus.get(gpu)
        return known[-1][1].memory_bytes if known else 0

    def reserved_gpu(self, uid: str, node: str) -> str:
        """UUID of the GPU that a reservation pod says it got; empty where it says nothing."""
        said = self.reserved.get(uid, "")
        if not said.isdecimal():
            return said
        number = int(said)
        described = ((gpu, facts[-1][1]) for gpu, facts in self.index.gpus.items())
        return next((gpu for gpu, data in described if (data.node, data.index) == (node, number)), "")


def follow(rows: HolderRows, parents: ParentWindows, schedulers: Schedulers) -> HolderRows:
    """Move holdings to whom and where the schedulers' annotations say."""
    if not schedulers or not len(rows):
        return rows
    join = _Follower(rows, parents, schedulers)
    join.devices()
    join.reservations()
    return join.result()


def follow_record(
    holders: Mapping[str, Sequence[SeenHolder]], gpu_of: Mapping[str, str], schedulers: Schedulers
) -> Mapping[str, Sequence[SeenHolder]]:
    """The same for time without windows: who held by the API's record, by parent.

    Args:
        holders: by parent, those that windows of the hour showed (already followed) and those of the record.
        gpu_of: the GPU of each parent.
        schedulers: of the hour.
    """
    if not schedulers:
        return holders
    found: dict[str, dict[tuple[str, str, str], SeenHolder]] = {parent: {} for parent in holders}
    given: dict[tuple[str, str], int] = defaultdict(int)
    for mine in holders.values():
        for holder in mine:
            for one in _meant(holder, gpu_of, schedulers, given):
                to = one if one.parent_id in found else holder
                found[to.parent_id].setdefault((to.slice_id, to.pod_uid, to.container), to)
    return {parent: list(mine.values()) for parent, mine in found.items()}


def _meant(
    holder: SeenHolder, gpu_of: Mapping[str, str], schedulers: Schedulers, given: dict[tuple[str, str], int]
) -> Sequence[SeenHolder]:
    tenants = schedulers.tenants.get(holder.pod_uid)
    memory = schedulers.memory_of(gpu_of.get(holder.parent_id, ""))
    if tenants:
        lasted = np.ones((len(tenants), 1), np.int64)
        shares = _shares([tenant.request.part(memory) for tenant in tenants], lasted)[:, 0].tolist()
        return [
            replace(holder, pod_uid=tenant.uid, container=tenant.request.container, share=share)
            for tenant, share in zip(tenants, shares, strict=True)
        ]
    devices = schedulers.devices.get(holder.pod_uid, {}).get(holder.container, ())
    place = given[holder.pod_uid, holder.container]
    if holder.share >= 0 or place >= len(devices) or not devices[place].parent:
        return [holder]
    given[holder.pod_uid, holder.container] += 1
    device = devices[place]
    part = device.part(schedulers.memory_of(device.gpu))
    return [replace(holder, parent_id=device.parent, share=-1 if part is None else part)]


@dataclass(frozen=True, slots=True)
class _Held:
    """One slice in the hands of one container: its rows, one a window."""

    rows: Int64s
    node: str
    gpu: str
    parent: str
    uid: str
    container: str


class _Follower:
    def __init__(self, rows: HolderRows, parents: ParentWindows, schedulers: Schedulers) -> None:
        self._rows, self._parents, self._schedulers = rows, parents, schedulers
        self._numbers = {name: column.copy() for name, column in rows.numbers.items()}
        self._more: list[tuple[dict[str, str], HolderRows]] = []
        self._left = np.zeros(len(rows), bool)
        self._parent_rows: dict[tuple[str, str], Int64s] = {}
        self._held = self._slices()

    def _text(self, name: str, row: int) -> str:
        column = self._rows.names[name]
        return str(column.names[column.codes[row]])

    def _slices(self) -> list[_Held]:
        """The slices held by pods that a scheduler says something of."""
        names = self._rows.names
        keys = ("node", "gpu_uuid", "parent_id", "slice_id", "namespace", "pod", "pod_uid", "container")
        groups = group_numbers([names[name].codes for name in keys])
        order = np.argsort(groups.of, kind="stable")
        bounds = np.searchsorted(groups.of[order], np.arange(len(groups.first) + 1))
        found = []
        for number, row in enumerate(groups.first.tolist()):
            if not self._text("slice_id", row):
                continue
            uid = self._text("pod_uid", row) or self._named(row)
            if uid in self._schedulers.reserved or uid in self._schedulers.devices:
                mine = order[bounds[number] : bounds[number + 1]]
                node, gpu, parent = (self._text(name, row) for name in keys[:3])
                found.append(_Held(mine, node, gpu, parent, uid, self._text("container", row)))
        return found

    def _named(self, row: int) -> str:
        start = int(self._rows.numbers["start"][row])
        window = int(self._parents.window[self._rows.numbers["parent"][row]])
        fact = self._schedulers.index.find_pod(
            namespace=self._text("namespace", row),
            name=self._text("pod", row),
            uid="",
            at=from_unix_ns(start),
            until=from_unix_ns(start + window),
        )
        return fact.uid if fact else ""

    def _windows_of(self, node: str, parent: str, starts: Int64s) -> Int64s:
        """Index of a parent's windows that start then, −1 where it has none."""
        known = self._parent_rows.get((node, parent))
        if known is None:
            names = self._parents.names
            mine = [names[name].codes == _code(names[name].names, text) for name, text in _places(node, parent)]
            known = self._parent_rows[node, parent] = np.flatnonzero(mine[0] & mine[1])
        at = self._parents.start[known]
        place = np.minimum(np.searchsorted(at, starts), max(len(known) - 1, 0))
        if not len(known):
            return np.full(len(starts), -1)
        return np.where(at[place] == starts, known[place], -1)

    def _give(self, rows: Int64s, numbers: dict[str, Int64s], names: dict[str, str], *, keep_figures: bool) -> None:
        """Add rows like `rows` but for these numbers and names; the old ones hold nothing any more."""
        source = self._rows.take(rows)
        if not keep_figures:
            zeros = {name: np.where(source.numbers[name] >= 0, 0, -1) for name in FIGURES if name != "coverage_ppm"}
            source = source.with_numbers(**zeros)
        self._more.append((names, source.with_numbers(**numbers)))
        self._left[rows] = True

    # --- HAMi

    def devices(self) -> None:
        """Containers of HAMi's pods hold the parts that their annotation names, where it names them."""
        by_container: dict[tuple[str, str], list[_Held]] = defaultdict(list)
        for held in self._held:
            if held.container in self._schedulers.devices.get(held.uid, ()):
                by_container[held.uid, held.container].append(held)
        for (uid, container), slices in by_container.items():
            left = list(self._schedulers.devices[uid][container])
            elsewhere = []
            for held in slices:
                here = next((one for one in left if one.parent == held.parent or one.gpu == held.gpu), None)
                if here is None:
                    elsewhere.append(held)
                    continue
                left.remove(here)
                if here.parent == held.parent:
                    self._numbers["share"][held.rows] = self._part(here)
            for held, device in zip(elsewhere, [one for one in left if one.parent], strict=False):
                self._move(held, device)

    def _part(self, device: HamiDevice) -> int:
        part = device.part(self._schedulers.memory_of(device.gpu))
        return -1 if part is None else part

    def _move(self, held: _Held, device: HamiDevice) -> None:
        """Let a container hold its part of another GPU of the node, in those windows that the other one has."""
        places = self._windows_of(held.node, device.parent, self._rows.numbers["start"][held.rows])
        there = places >= 0
        rows = held.rows[there]
        if not len(rows):
            return
        numbers = {"parent": places[there], "share": np.full(len(rows), self._part(device))}
        self._give(rows, numbers, {"gpu_uuid": device.gpu, "parent_id": device.parent}, keep_figures=False)

    # --- KAI

    def reservations(self) -> None:
        """What a reservation pod holds goes to its tenants."""
        for held in self._held:
            tenants = self._schedulers.tenants.get(held.uid)
            if held.uid in self._schedulers.reserved and tenants:
                self._hand_over(held, tenants)

    def _hand_over(self, held: _Held, tenants: list[Tenant]) -> None:
        start, time = (self._rows.numbers[name][held.rows] for name in ("start", "held"))
        parent, names = self._rows.numbers["parent"][held.rows], {}
        said = self._schedulers.reserved_gpu(held.uid, held.node)
        if said not in ("", held.parent, held.gpu):
            places = self._windows_of(held.node, said, start)
            if (places >= 0).all():
                parent, names = places, {"gpu_uuid": said, "parent_id": said}
        window = self._parents.window[parent]
        ran = np.array([_overlap(start, start + window, tenant) for tenant in tenants])
        ran = np.minimum(ran, time)
        memory = self._schedulers.memory_of(names.get("gpu_uuid", held.gpu))
        share = _shares([tenant.request.part(memory) for tenant in tenants], ran)
        alone = (ran > 0).sum(axis=0) == 1
        for number, tenant in enumerate(tenants):
            for mine, keep in ((ran[number] > 0) & alone, True), ((ran[number] > 0) & ~alone, False):
                if mine.any():
                    numbers = {
                        "parent": parent[mine],
                        "held": ran[number][mine],
                        "share": share[number][mine],
                        "since": np.full(int(mine.sum()), tenant.start),
                    }
                    who = {"namespace": tenant.namespace, "pod": tenant.name, "pod_uid": tenant.uid}
                    who |= {"container": tenant.request.container, **names}
                    self._give(held.rows[mine], numbers, who, keep_figures=keep and not names)
                    if keep and not names:
                        self._forget(held.rows[mine])

    def _forget(self, rows: Int64s) -> None:
        """A reservation pod does nothing: what it is said to have done alone was its only tenant."""
        for name in FIGURES:
            self._numbers[name][rows] = -1 if name != "coverage_ppm" else 0

    # --- both

    def result(self) -> HolderRows:
        """The rows, each container with what it did where it holds."""
        held = np.where(self._left, 0, self._numbers["held"])
        rows = self._rows.with_numbers(**{**self._numbers, "held": held})
        if not self._more:
            return rows
        did = np.maximum(rows.numbers["sm"], rows.numbers["duty"]) > 0
        count = int((~self._left | did).sum())
        joined = added_rows(rows.take(np.flatnonzero(~self._left | did)), self._more)
        return _with_use(joined, count)


def _code(names: np.ndarray, text: str) -> int:
    place = int(np.searchsorted(names, text))
    return place if place < len(names) and names[place] == text else -1


def _places(node: str, parent: str) -> tuple[tuple[str, str], tuple[str, str]]:
    return ("node", node), ("parent_id", parent)


def _overlap(start: Int64s, end: Int64s, tenant: Tenant) -> Int64s:
    lasted: Int64s = np.maximum(np.minimum(end, tenant.end) - np.maximum(start, tenant.start), 0)
    return lasted


def _shares(parts: list[int | None], ran: Int64s) -> Int64s:
    """Billionths by tenant and window: what each asked for; those that did not say divide what is left equally.

    Args:
        parts: what each tenant asked for.
        ran: int64[n_tenants, n_windows], how long each ran.
    """
    said = np.array([-1 if part is None else part for part in parts], np.int64)[:, None]
    there = ran > 0
    left = np.maximum(WHOLE - np.where(there & (said >= 0), said, 0).sum(axis=0), 0)
    silent = there & (said < 0)
    count = np.maximum(silent.sum(axis=0), 1)
    place = np.cumsum(silent, axis=0) - 1
    equal = left * (place + 1) // count - left * place // count
    shares: Int64s = np.where(said >= 0, said, np.where(silent, equal, 0))
    return shares


def _with_use(rows: HolderRows, count: int) -> HolderRows:
    """Join rows of pure use, the first `count` being those that there were, with the holdings added behind them.

    They meet by parent-window, pod and container; a use without a container's name is that of the pod's only holding.
    """
    numbers, uids, containers = rows.numbers, rows.names["pod_uid"], rows.names["container"]
    slices = rows.names["slice_id"]
    unheld = slices.codes[:count] == _code(slices.names, "")
    use = np.flatnonzero(unheld & np.isin(uids.codes[:count], uids.codes[count:]))
    if not len(use):
        return rows
    holdings: dict[tuple[int, int], dict[int, int]] = defaultdict(dict)
    for row in range(count, len(rows)):
        holdings[int(numbers["parent"][row]), int(uids.codes[row])].setdefault(int(containers.codes[row]), row)
    unnamed = _code(containers.names, "")
    pairs = []
    for row in use.tolist():
        mine = holdings.get((int(numbers["parent"][row]), int(uids.codes[row])), {})
        code = int(containers.codes[row])
        target = mine.get(code) if code != unnamed or len(mine) != 1 else next(iter(mine.values()))
        if target is not None:
            pairs.append((row, target))
    if not pairs:
        return rows
    source, target = np.array(pairs, np.int64).T
    changed = {name: column.copy() for name, column in numbers.items()}
    _take_figures(changed, source, target)
    origin = rows.names["origin"]
    codes = origin.codes.copy()
    measured = np.maximum(changed["sm"][source], changed["duty"][source]) >= 0
    codes[target[measured]] = origin.codes[source[measured]]
    kept = np.ones(len(rows), bool)
    kept[source] = False
    names = {**rows.names, "origin": type(origin)(codes=codes, names=origin.names)}
    return HolderRows(names=names, numbers=changed).take(np.flatnonzero(kept))


def _take_figures(numbers: dict[str, Int64s], source: Int64s, target: Int64s) -> None:
    """Add what a container was seen to do to what its holding is said to have done.

    A use that nobody measured is no measured zero: where the holding only said nothing was done, it is unknown now.
    """
    for end in ("sm_low", "sm_high"):
        point = np.where(numbers[end] >= 0, numbers[end], numbers["sm"])
        numbers[end][target] = _together(point[source], point[target])
    for name in ("sm", "duty"):
        numbers[name][target] = _together(numbers[name][source], numbers[name][target])
    numbers["coverage_ppm"][target] = numbers["coverage_ppm"][source]
    active = np.maximum(numbers["sm"][source], numbers["duty"][source]) > 0
    np.minimum.at(numbers["first"], target[active], numbers["start"][source[active]])


def _together(use: Int64s, said: Int64s) -> Int64s:
    both: Int64s = np.where(use < 0, np.where(said > 0, said, -1), use + np.maximum(said, 0))
    return both
