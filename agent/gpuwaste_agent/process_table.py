"""The processes on each parent, grouped by the container they belong to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gpuwaste_agent.holdings import ContainerKey

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from gpuwaste_agent.accumulate import ParentWindow
    from gpuwaste_agent.holdings import ProcessOwners
    from gpuwaste_agent.telemetry import ParentReading, ProcessSample

__all__ = ["ParentProcesses", "ProcessTable", "Use", "Uses"]


class Use:
    """What the processes of one container do: averages over the span (they may pass 1 together), and bytes now.

    `memory_bytes` is None where the driver does not tell the memory of one of them.
    """

    __slots__ = ("dec", "duty", "enc", "memory_bytes")

    def __init__(self) -> None:
        self.duty = 0.0
        self.enc = 0.0
        self.dec = 0.0
        self.memory_bytes: int | None = 0

    def add(self, sample: ProcessSample) -> None:
        """Add a process."""
        self.duty += sample.duty or 0.0
        self.enc += sample.enc or 0.0
        self.dec += sample.dec or 0.0
        if self.memory_bytes is not None:
            self.memory_bytes = None if sample.memory_bytes is None else self.memory_bytes + sample.memory_bytes


@dataclass(slots=True)
class Uses:
    """The users of a parent at one reading.

    Attributes:
        by_owner: By container; None stands for processes of no known container.
        readable: Every process's own utilization is known.
        mps: Clients of an MPS server run there, so processes may overlap in time.
    """

    by_owner: dict[ContainerKey | None, Use] = field(default_factory=dict)
    readable: bool = True
    mps: bool = False


@dataclass(slots=True)
class ParentProcesses:
    """Owners of the processes seen on a parent at its last reading, and among which holders they were found."""

    owners: dict[int, ContainerKey | None] = field(default_factory=dict)
    holders: tuple[ContainerKey, ...] = ()


class ProcessTable:
    """Finds the container of every process, once as long as it lives and its parent's holders stay the same.

    Attributes:
        container_ids: Container ids that processes told, by the holder they belong to.
    """

    def __init__(self, owners: ProcessOwners, hint: Callable[[], None]) -> None:
        """Take the resolver, and whom to tell that a container without a known holding has appeared."""
        self._owners = owners
        self._hint = hint
        self.container_ids: dict[ContainerKey, str] = {}

    def keep(self, containers: Container[ContainerKey]) -> None:
        """Forget the ids of all other containers."""
        self.container_ids = {key: value for key, value in self.container_ids.items() if key in containers}

    def uses(
        self, seen: ParentProcesses, reading: ParentReading, holders: tuple[ContainerKey, ...], window: ParentWindow
    ) -> Uses | None:
        """Group a reading's processes; None where the list is not readable."""
        if reading.processes is None:
            return None
        found = Uses()
        owners: dict[int, ContainerKey | None] = {}
        known = seen.owners if holders == seen.holders else {}
        server_duty = 0.0
        found.mps = reading.mps
        for sample in reading.processes:
            pid = sample.pid
            if sample.duty is None:
                found.readable = False
            if pid in reading.mps_servers:
                server_duty += sample.duty or 0.0
                continue
            # Who was not found is looked for again: his name may not have been written down yet.
            owner = known.get(pid) or self._resolve(pid, holders, window)
            owners[pid] = owner
            use = found.by_owner.get(owner)
            if use is None:
                use = found.by_owner[owner] = Use()
            use.add(sample)
        if server_duty > 0 and not any(use.duty for use in found.by_owner.values()):
            # The server's clients are seen as one: nobody can tell them apart.
            found.readable = False
        self.ended(seen, window, still=owners)
        seen.owners, seen.holders = owners, holders
        return found

    def ended(self, seen: ParentProcesses, window: ParentWindow, still: Container[int] = ()) -> None:
        """Count processes that ended since the last reading, and forget them: the kernel uses their numbers again."""
        for pid, owner in seen.owners.items():
            if pid not in still:
                window.missed[owner] = window.missed.get(owner, 0) + 1
                self._owners.forget(pid)
        seen.owners = {}

    def _resolve(self, pid: int, holders: tuple[ContainerKey, ...], window: ParentWindow) -> ContainerKey | None:
        """The holder a process belongs to; a container that holds nothing is named by its UID and id alone."""
        owner = self._owners.owner(pid)
        pod = [] if owner is None else [key for key in holders if key.pod_uid and key.pod_uid == owner.pod_uid]
        if owner is None or not owner.pod_uid:
            return None
        if not pod:
            self._hint()
            return ContainerKey("", "", owner.pod_uid, owner.container, owner.container_id)
        matches = pod
        if len(pod) > 1:
            named = [key for key in pod if key.container == owner.container]
            matches = named or [key for key in pod if self.container_ids.get(key) == owner.container_id]
        if len(matches) == 1:
            # The work of an init container, which the kubelet does not list, is its pod's; the id is not the holder's.
            if owner.container in ("", matches[0].container):
                self.container_ids[matches[0]] = owner.container_id
            return matches[0]
        window.uncertain.update(pod)
        return None
