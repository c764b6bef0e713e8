"""Who holds which slice, and which container a process belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ContainerKey",
    "Holding",
    "HoldingSource",
    "HoldingsSnapshot",
    "Join",
    "ProcessOwner",
    "ProcessOwners",
    "Sharing",
]


class Join(IntEnum):
    """How a container was found; the numbers are those of the usage message."""

    EXACT = 1
    LOG_DIR = 2
    NAME = 3
    PROCESS = 4
    NONE = 5


class Sharing(IntEnum):
    """How slices of one parent share it; the numbers are those of the usage message."""

    EXCLUSIVE = 1
    TIME_SLICING = 2
    MPS = 3


class ContainerKey(NamedTuple):
    """A container: by names from the kubelet, by `pod_uid` and `container_id` from cgroups, or by both."""

    namespace: str
    pod: str
    pod_uid: str
    container: str
    container_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """One slice in the hands of one container.

    Attributes:
        container: Its names, and its pod's UID where the log directory told it.
        parent_id: The GPU or MIG instance the slice is cut from.
        slice_id: As the device plugin or DRA names it.
        resource_name: Extended resource, empty for a DRA claim.
        claim: `namespace/name` of the DRA claim, else empty.
        join: LOG_DIR where the UID is known, else NAME.
    """

    container: ContainerKey
    parent_id: str
    slice_id: str
    resource_name: str
    claim: str = ""
    join: Join = Join.NAME


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldingsSnapshot:
    """Everything the kubelet says about GPU slices at one moment.

    Attributes:
        holdings: Slices in use.
        replicas: Allocatable slices of each parent; a parent the kubelet could not hand out is absent.
        sharing: Sharing mode of each parent; absent means EXCLUSIVE.
    """

    holdings: tuple[Holding, ...]
    replicas: Mapping[str, int]
    sharing: Mapping[str, Sharing]


class ProcessOwner(NamedTuple):
    """What a process's cgroup says: its pod's UID and its container; empty where it is in no pod."""

    pod_uid: str
    container_id: str
    container: str = ""


class HoldingSource(Protocol):
    """The kubelet, or the scenario."""

    def poll(self) -> HoldingsSnapshot | None:
        """Return who holds what now, or None where it cannot be told."""

    def hint(self) -> None:
        """Something has changed that the source may not have told yet: look again at the next poll."""


class ProcessOwners(Protocol):
    """Resolves host PIDs to containers."""

    def owner(self, pid: int) -> ProcessOwner | None:
        """Return the owner of a process, or None for a process outside of every pod or already gone."""

    def forget(self, pid: int) -> None:
        """Drop what is remembered about a process that ended."""
