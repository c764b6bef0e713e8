"""Integrals of one parent over one window, kept in integer nanoseconds while readings come in.

A window is cut into *epochs*: stretches with the same holders and the same users of the parent. Attribution needs
no more than the sums of each, so a tick costs a few additions per parent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuwaste_agent.telemetry import Origin

if TYPE_CHECKING:
    from gpuwaste_agent.holdings import ContainerKey, Holding
    from gpuwaste_agent.telemetry import Activity, ParentReading

__all__ = [
    "ACTIVITY_FIGURES",
    "BUCKETS",
    "Epoch",
    "HeldSlice",
    "Memory",
    "OwnerSums",
    "ParentWindow",
    "Tenure",
    "bucket",
    "share_of",
]

# Figures that are parts of time, in the order of `Activity`.
ACTIVITY_FIGURES = ("duty", "sm", "tensor", "dram", "enc", "dec", "copy")
BUCKETS = 21
_BUCKET_PERCENT = 5


def bucket(activity: float) -> int:
    """Entry of the histogram for an activity of 0 to 1: 0 is exactly idle, i is (5(i-1), 5i] percent."""
    if activity <= 0:
        return 0
    return min(BUCKETS - 1, int(-(-activity * 100 // _BUCKET_PERCENT)))


def share_of(average: float, from_ns: int, until_ns: int) -> int:
    """The part of `average` × time that lies between two offsets of a reading's span.

    Rounds the running total, so the parts of a split span add up to the whole.
    """
    return int(average * until_ns + 0.5) - int(average * from_ns + 0.5)


class Memory:
    """Bytes × nanoseconds, their peak, and for how long they were known, and were not."""

    __slots__ = ("byte_ns", "known_ns", "peak_bytes", "unknown_ns")

    def __init__(self) -> None:
        self.byte_ns = 0
        self.known_ns = 0
        self.unknown_ns = 0
        self.peak_bytes = 0

    def add(self, amount_bytes: int | None, duration_ns: int) -> None:
        """Hold `amount_bytes` for `duration_ns`; None is not known."""
        if amount_bytes is None:
            self.unknown_ns += duration_ns
            return
        self.byte_ns += amount_bytes * duration_ns
        self.known_ns += duration_ns
        self.peak_bytes = max(self.peak_bytes, amount_bytes)


class OwnerSums:
    """One container's (or the unknown processes') part of an epoch, by process utilization."""

    __slots__ = ("dec_ns", "duty_ns", "enc_ns", "histogram_ns")

    def __init__(self) -> None:
        self.duty_ns = 0
        self.enc_ns = 0
        self.dec_ns = 0
        self.histogram_ns = [0] * BUCKETS

    def add(self, duty: float, enc: float, dec: float, from_ns: int, until_ns: int) -> None:
        """Add a span's averages between two of its offsets."""
        self.duty_ns += share_of(duty, from_ns, until_ns)
        if enc or dec:
            self.enc_ns += share_of(enc, from_ns, until_ns)
            self.dec_ns += share_of(dec, from_ns, until_ns)
        self.histogram_ns[bucket(duty)] += until_ns - from_ns


class Epoch:
    """A parent's sums while its holders and its users stayed the same.

    Attributes:
        holders: Containers that held a slice of the parent.
        users: Those with a process on it; None stands for processes of no known container.
        ns: Length.
        listed_ns: Time for which the process list was readable.
        process_ns: Time for which every listed process's utilization was readable.
        origin: Where the parent's activity came from.
        values: Integrals by the order of ACTIVITY_FIGURES.
        known_ns: For how long each was measured.
        owners: Sums by process utilization.
        histogram_ns: Time by activity of the parent: SM where measured, else duty.
    """

    __slots__ = (
        "histogram_known_ns",
        "histogram_ns",
        "holders",
        "known_ns",
        "listed_ns",
        "ns",
        "nvlink",
        "origin",
        "owners",
        "pcie",
        "process_ns",
        "users",
        "values",
    )

    def __init__(self, holders: tuple[ContainerKey, ...], users: tuple[ContainerKey | None, ...]) -> None:
        self.holders = holders
        self.users = users
        self.ns = 0
        self.listed_ns = 0
        self.process_ns = 0
        self.origin = Origin.DEVICE
        self.values = [0] * len(ACTIVITY_FIGURES)
        self.known_ns = [0] * len(ACTIVITY_FIGURES)
        self.owners: dict[ContainerKey | None, OwnerSums] = {}
        self.histogram_ns = [0] * BUCKETS
        self.histogram_known_ns = 0
        self.pcie = [0, 0]
        self.nvlink = [0, 0]

    def add_activity(self, activity: Activity, from_ns: int, until_ns: int, span_ns: int) -> None:
        """Add what a parent did between two offsets of a reading's span."""
        part = until_ns - from_ns
        self.ns += part
        values, known = self.values, self.known_ns
        for index in range(len(ACTIVITY_FIGURES)):
            average = activity[index]
            if average is not None:
                known[index] += part
                if average:
                    values[index] += share_of(min(average, 1.0), from_ns, until_ns)
        shown = activity.sm if activity.sm is not None else activity.duty
        if shown is not None:
            self.histogram_ns[bucket(shown)] += part
            self.histogram_known_ns += part
        for counter, total in ((self.pcie, activity.pcie_bytes), (self.nvlink, activity.nvlink_bytes)):
            if total is not None:
                counter[0] += total * until_ns // span_ns - total * from_ns // span_ns
                counter[1] += part


class Tenure:
    """One container's time with one slice: since when, and when a process of it first appeared on the parent."""

    __slots__ = ("first_activity_unix_ns", "since_unix_ns")

    def __init__(self, since_unix_ns: int, first_activity_unix_ns: int | None = None) -> None:
        self.since_unix_ns = since_unix_ns
        self.first_activity_unix_ns = first_activity_unix_ns


class HeldSlice:
    """A slice and how long it was in a container's hands in the window."""

    __slots__ = ("held_ns", "holding", "tenure")

    def __init__(self, holding: Holding, tenure: Tenure) -> None:
        self.holding = holding
        self.tenure = tenure
        self.held_ns = 0


class ParentWindow:
    """Everything about one parent in the open window.

    Attributes:
        covered_ns: Time that readings cover.
        readings: Number of readings that covered it.
        source_resolution_ns: Distance between the source's own readings where that is more than ours.
        held: Slices in somebody's hands, by (container, slice id).
        memory: The parent's memory in use.
        owner_memory: Memory of each owner's processes.
        missed: Processes that ended before their last activity could be read, by owner.
        mps: Clients of an MPS server were seen on it.
    """

    __slots__ = (
        "allocatable_ns",
        "covered_ns",
        "energy_known_ns",
        "energy_mj",
        "epochs",
        "held",
        "memory",
        "missed",
        "mps",
        "owner_memory",
        "readings",
        "source_resolution_ns",
        "uncertain",
        "unhealthy_ns",
        "xids",
    )

    def __init__(self) -> None:
        self.covered_ns = 0
        self.readings = 0
        self.source_resolution_ns = 0
        self.allocatable_ns = 0
        self.unhealthy_ns = 0
        self.xids: list[int] = []
        self.energy_mj = 0
        self.energy_known_ns = 0
        self.epochs: dict[tuple[object, object], Epoch] = {}
        self.held: dict[tuple[ContainerKey, str], HeldSlice] = {}
        self.memory = Memory()
        self.owner_memory: dict[ContainerKey | None, Memory] = {}
        self.missed: dict[ContainerKey | None, int] = {}
        self.mps = False
        self.uncertain: set[ContainerKey | None] = set()

    def epoch(self, holders: tuple[ContainerKey, ...], users: tuple[ContainerKey | None, ...]) -> Epoch:
        """The epoch of these holders and users, new or gone on with."""
        key = (holders, users)
        found = self.epochs.get(key)
        if found is None:
            found = self.epochs[key] = Epoch(holders, users)
        return found

    def add_reading(self, reading: ParentReading, epoch: Epoch, from_ns: int, until_ns: int, span_ns: int) -> None:
        """Add a reading's activity between two offsets of its span to the epoch it belongs to."""
        self.covered_ns += until_ns - from_ns
        self.readings += 1
        epoch.origin = reading.origin
        self.source_resolution_ns = max(self.source_resolution_ns, reading.resolution_ns)
        epoch.add_activity(reading.activity, from_ns, until_ns, span_ns)
