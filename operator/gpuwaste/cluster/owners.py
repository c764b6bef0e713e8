"""From a pod up to what it belongs to, through any kind, by owner references."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuwaste.model.facts import OwnerRef

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpuwaste.model.facts import OwnerData, PodData

__all__ = ["missing_owner", "owner_chain", "workload_of"]


def owner_chain(owner: OwnerRef | None, owners: Mapping[str, OwnerData]) -> tuple[OwnerRef, ...]:
    """The references from the nearest owner to the top one.

    A parent that is not among `owners` (by uid) ends the chain: its reference still tells kind, name and uid.
    A chain that bites its own tail ends before it repeats.
    """
    chain: list[OwnerRef] = []
    seen: set[str] = set()
    while owner is not None and owner.uid not in seen:
        chain.append(owner)
        seen.add(owner.uid)
        known = owners.get(owner.uid)
        owner = None if known is None else known.owner
    return tuple(chain)


def workload_of(pod_uid: str, pod: PodData, owners: Mapping[str, OwnerData]) -> OwnerRef:
    """The top owner of a pod; a pod that nothing owns is its own workload."""
    chain = owner_chain(pod.owner, owners)
    return chain[-1] if chain else OwnerRef(api_version="v1", kind="Pod", name=pod.name, uid=pod_uid)


def missing_owner(owner: OwnerRef | None, owners: Mapping[str, OwnerData]) -> OwnerRef | None:
    """The reference at which the chain ends because its object is not known; None where it reaches its top."""
    chain = owner_chain(owner, owners)
    return chain[-1] if chain and chain[-1].uid not in owners else None
