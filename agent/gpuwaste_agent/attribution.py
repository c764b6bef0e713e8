"""Divides what a parent did among the containers on it.

SM time of a parent that one container alone used is that container's. On a shared parent with measured SM time S a
container with duty d of a sum D gets the point min(d, S·d/D); what is left stays with the device. The true value lies
in [max(0, S − (D − d)), min(S, d)]; where that is empty the readings contradict each other, the join is marked
uncertain and both ends are min(S, d). Nothing here ever adds up to more than the parent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from gpuwaste_agent.accumulate import ACTIVITY_FIGURES, BUCKETS
from gpuwaste_agent.telemetry import Origin

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gpuwaste_agent.accumulate import Epoch
    from gpuwaste_agent.holdings import ContainerKey

__all__ = ["Attribution", "Figure", "OwnerFigures", "attribute"]

_DUTY, _SM, _ENC, _DEC = (ACTIVITY_FIGURES.index(name) for name in ("duty", "sm", "enc", "dec"))


class Figure(NamedTuple):
    """An integral with its source; `low` and `high` only where the point is not measured."""

    value: int
    origin: Origin
    known_ns: int
    low: int | None = None
    high: int | None = None

    def plus(self, other: Figure) -> Figure:
        """Add another epoch's figure: an apportioned part makes the sum apportioned."""
        low = high = None
        if self.high is not None or other.high is not None:
            low = _or(self.low, self.value) + _or(other.low, other.value)
            high = _or(self.high, self.value) + _or(other.high, other.value)
        return Figure(self.value + other.value, _weaker(self, other), self.known_ns + other.known_ns, low, high)

    def part(self, index: int, parts: int) -> Figure:
        """The `index`-th of equal parts; all of them add up exactly."""

        def cut(value: int) -> int:
            return value * (index + 1) // parts - value * index // parts

        low = None if self.low is None else cut(self.low)
        high = None if self.high is None else cut(self.high)
        return Figure(cut(self.value), self.origin, self.known_ns, low, high)


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def _weaker(a: Figure, b: Figure) -> Origin:
    """The origin a sum deserves: that of the part which says something, the less direct one of two."""
    if not a.value and not a.high:
        return b.origin
    if not b.value and not b.high:
        return a.origin
    return max(a.origin, b.origin)


@dataclass(slots=True, kw_only=True)
class OwnerFigures:
    """What one container (or what no known process) did on a parent in a window.

    Attributes:
        figures: By name of ACTIVITY_FIGURES, and bytes over `pcie` and `nvlink`; absent is unmeasured.
        histogram_ns: Time by activity, or None where the container's activity is unmeasured.
        uncertain: Readings contradict each other.
        ns: Time in which the container held or used the parent; outside of it, it did nothing.
    """

    ns: int = 0
    figures: dict[str, Figure] = field(default_factory=dict)
    histogram_ns: list[int] | None = None
    uncertain: bool = False

    def merge(self, other: OwnerFigures) -> None:
        """Add another epoch."""
        self.ns += other.ns
        for name, figure in other.figures.items():
            mine = self.figures.get(name)
            self.figures[name] = figure if mine is None else mine.plus(figure)
        if other.histogram_ns is not None:
            mine_ns = self.histogram_ns or [0] * BUCKETS
            self.histogram_ns = [a + b for a, b in zip(mine_ns, other.histogram_ns, strict=True)]
        self.uncertain = self.uncertain or other.uncertain


class Attribution(NamedTuple):
    """A parent's figures in a window: its own, and those of every holder and user.

    The key None of `owners` stands for what no known process explains.
    """

    whole: OwnerFigures
    owners: dict[ContainerKey | None, OwnerFigures]


def _profiled(epoch: Epoch) -> bool:
    return epoch.origin in (Origin.GPM, Origin.DCGM_PROF)


def _whole(epoch: Epoch) -> OwnerFigures:
    """The parent's own figures in an epoch: what it did, whoever it was."""
    origin = epoch.origin
    values, known = epoch.values, epoch.known_ns
    found = OwnerFigures()
    figures = found.figures
    for index, name in enumerate(ACTIVITY_FIGURES):
        if known[index]:
            measured = Origin.DEVICE if index in (_ENC, _DEC) else origin
            figures[name] = Figure(values[index], measured, known[index])
    for name, (value, known_ns) in (("pcie", epoch.pcie), ("nvlink", epoch.nvlink)):
        if known_ns:
            figures[name] = Figure(value, origin, known_ns)
    if not known[_DUTY] and epoch.process_ns and epoch.owners:
        summed = min(epoch.process_ns, sum(owner.duty_ns for owner in epoch.owners.values()))
        figures["duty"] = Figure(summed, Origin.PROCESS, epoch.process_ns)
    if epoch.histogram_known_ns:
        found.histogram_ns = epoch.histogram_ns
    return found


def attribute(epochs: Iterable[Epoch], *, overlapping: bool) -> Attribution:
    """Figures of a parent, and of every holder and user of it, over its epochs.

    Args:
        epochs: The parent's epochs in one window.
        overlapping: Processes may run at the same moment (MPS): their duties may add up to more than the device's.
    """
    total: OwnerFigures | None = None
    found: dict[ContainerKey | None, OwnerFigures] = {}
    for epoch in epochs:
        whole = _whole(epoch)
        owners = _attribute_epoch(epoch, whole, overlapping=overlapping)
        for owner, figures in owners.items():
            figures.ns = epoch.ns
            mine = found.get(owner)
            if mine is None:
                found[owner] = figures
            else:
                mine.merge(figures)
        if total is None:
            total = OwnerFigures(figures=dict(whole.figures), histogram_ns=whole.histogram_ns)
        else:
            total.merge(whole)
    return Attribution(total or OwnerFigures(), found)


def _attribute_epoch(
    epoch: Epoch, whole: OwnerFigures, *, overlapping: bool
) -> dict[ContainerKey | None, OwnerFigures]:
    users: tuple[ContainerKey | None, ...] = epoch.users if epoch.listed_ns == epoch.ns else epoch.holders
    owners: set[ContainerKey | None] = {*epoch.holders, *epoch.users}
    owners.discard(None)
    sole = users[0] if len(users) == 1 else None
    if sole is not None and (_profiled(epoch) or epoch.process_ns < epoch.ns):
        return _sole(epoch, whole, sole, owners)
    found: dict[ContainerKey | None, OwnerFigures] = {owner: OwnerFigures() for owner in owners}
    if users and epoch.process_ns < epoch.ns:
        _unknown_users(epoch, users, found, whole)
    else:
        _by_process(epoch, found, overlapping=overlapping)
        _complete_idle(users, found, whole)
    found[None] = _rest(epoch, whole, found, overlapping=overlapping)
    return found


def _sole(
    epoch: Epoch, whole: OwnerFigures, sole: ContainerKey, owners: set[ContainerKey | None]
) -> dict[ContainerKey | None, OwnerFigures]:
    """One container alone has processes here: what the parent did is what it did."""
    nothing = _nothing(whole)
    found: dict[ContainerKey | None, OwnerFigures] = {
        owner: OwnerFigures(figures=dict(nothing), histogram_ns=_idle(epoch) if nothing else None) for owner in owners
    }
    found[sole] = OwnerFigures(figures=dict(whole.figures), histogram_ns=whole.histogram_ns)
    found[None] = OwnerFigures(figures=nothing)
    return found


def _idle(epoch: Epoch) -> list[int]:
    return [epoch.ns, *[0] * (BUCKETS - 1)]


def _nothing(whole: OwnerFigures) -> dict[str, Figure]:
    """Measured zeros, of all that is measured of the parent."""
    return {name: Figure(0, origin, known) for name, (_, origin, known, _, _) in whole.figures.items()}


def _complete_idle(
    users: tuple[ContainerKey | None, ...], found: Mapping[ContainerKey | None, OwnerFigures], whole: OwnerFigures
) -> None:
    """Containers without a process did nothing, also where nobody can tell what each of the others did."""
    for owner, target in found.items():
        if owner not in users:
            target.figures = _nothing(whole) | target.figures


def _unknown_users(
    epoch: Epoch,
    users: tuple[ContainerKey | None, ...],
    found: Mapping[ContainerKey | None, OwnerFigures],
    whole: OwnerFigures,
) -> None:
    """Several users and no utilization by process: nobody can tell them apart; the others were idle."""
    _complete_idle(users, found, whole)
    for target in found.values():
        if target.figures:
            target.histogram_ns = _idle(epoch)


def _scaled_duties(epoch: Epoch, *, overlapping: bool) -> dict[ContainerKey | None, int]:
    """Duty by owner; taking turns, together never more than the device's own duty where that is known as well."""
    duties = {owner: min(sums.duty_ns, epoch.ns) for owner, sums in epoch.owners.items()}
    if epoch.known_ns[_DUTY] < epoch.ns:
        return duties
    device = epoch.values[_DUTY]
    if overlapping:
        return {owner: min(duty, device) for owner, duty in duties.items()}
    return _fitted(duties, device)


def _fitted(parts: dict[ContainerKey | None, int], whole: int) -> dict[ContainerKey | None, int]:
    """Parts that add up to no more than the whole: the driver rounds those of processes to whole percents."""
    asked = sum(parts.values())
    return parts if asked <= whole else {owner: part * whole // asked for owner, part in parts.items()}


def _by_process(epoch: Epoch, found: dict[ContainerKey | None, OwnerFigures], *, overlapping: bool) -> None:
    """Duty is measured by process; SM time, where the device's is measured, is apportioned by it."""
    duties = _scaled_duties(epoch, overlapping=overlapping)
    total = sum(duties.values())
    known, values, length = epoch.known_ns, epoch.values, epoch.ns
    measured_sm = known[_SM] == length
    encoder = _fitted({owner: sums.enc_ns for owner, sums in epoch.owners.items()}, values[_ENC])
    decoder = _fitted({owner: sums.dec_ns for owner, sums in epoch.owners.items()}, values[_DEC])
    for owner, target in found.items():
        duty = duties.get(owner, 0)
        sums = epoch.owners.get(owner)
        figures = target.figures
        figures["duty"] = Figure(duty, Origin.PROCESS, length)
        if known[_ENC]:
            figures["enc"] = Figure(encoder.get(owner, 0), Origin.PROCESS, length)
        if known[_DEC]:
            figures["dec"] = Figure(decoder.get(owner, 0), Origin.PROCESS, length)
        target.histogram_ns = sums.histogram_ns if sums else _idle(epoch)
        if measured_sm:
            figures["sm"], target.uncertain = _apportion(values[_SM], duty, total, length)


def _apportion(sm_ns: int, duty_ns: int, total_duty_ns: int, known_ns: int) -> tuple[Figure, bool]:
    high = min(sm_ns, duty_ns)
    low = max(0, sm_ns - (total_duty_ns - duty_ns))
    if low > high:
        return Figure(high, Origin.APPORTIONED, known_ns, high, high), True
    point = min(duty_ns, sm_ns * duty_ns // total_duty_ns) if total_duty_ns else 0
    return Figure(point, Origin.APPORTIONED, known_ns, low, high), False


def _rest(
    epoch: Epoch,
    whole: OwnerFigures,
    found: Mapping[ContainerKey | None, OwnerFigures],
    *,
    overlapping: bool,
) -> OwnerFigures:
    """What the containers' figures leave of the parent's; a figure no container has stays unmeasured."""
    rest = OwnerFigures()
    unknown = epoch.owners.get(None)
    for name, (value, origin, known_ns, _, _) in whole.figures.items():
        parts = [figures.figures[name].value for figures in found.values() if name in figures.figures]
        if name not in ("duty", "sm") and len(parts) < len(found):
            continue
        left = max(0, value - sum(parts))
        if overlapping and name == "duty" and unknown is not None:
            left = max(left, min(unknown.duty_ns, value))
        rest.figures[name] = Figure(left, Origin.APPORTIONED if name == "sm" and parts else origin, known_ns)
    return rest
