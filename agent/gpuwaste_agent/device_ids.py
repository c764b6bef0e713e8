"""Device ids as device plugins and DRA drivers write them, resolved to the parent a slice is cut from.

Forms: `GPU-<uuid>`, `MIG-<uuid>`, the old `MIG-GPU-<uuid>/<gi>/<ci>`, each with `::<n>` for a replica (HAMi's plugin
writes `-<n>`); on GKE `nvidia<minor>`, `nvidia<minor>/gi<gi>`, each with `/vgpu<n>`; DRA devices `gpu-<minor>` and
`gpu-<minor>-mig-<profile>-<gi profile>-<start>`, where the profile is written without dots and with `-` for `+`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gpuwaste_agent.resource_slices import ClaimedDevice
    from gpuwaste_agent.telemetry import GpuInfo, ParentInfo

__all__ = ["ParentIndex", "is_replica"]

_REPLICA = re.compile(r"::\d+$")
_HAMI = re.compile(r"^((?:GPU|MIG)-.+)-\d+$")
_SHARE = re.compile(r"::\d+$|/vgpu\d+$")
_OLD_MIG = re.compile(r"^MIG-(GPU-[0-9a-f-]+)/(\d+)/(\d+)$")
_GKE = re.compile(r"^nvidia(\d+)(?:/gi(\d+))?(?:/vgpu\d+)?$")
_DRA_MIG = re.compile(r"^gpu-(\d+)-mig-(.+)-(\d+)-(\d+)$")
_DRA_GPU = re.compile(r"^gpu-(\d+)$")


class ParentIndex:
    """The parents of a node by every name a device id may use for them."""

    def __init__(self, gpus: Iterable[GpuInfo]) -> None:
        self._parents: set[str] = set()
        self._by_gpu: dict[str, GpuInfo] = {}
        self._by_minor: dict[int, GpuInfo] = {}
        for gpu in gpus:
            self._by_gpu[gpu.uuid] = gpu
            self._by_minor[gpu.minor] = gpu
            self._parents.update(parent.parent_id for parent in gpu.parents)

    def resolve(self, device_id: str) -> str | None:
        """Return the parent id behind a device plugin's id, or None where the node has no such device."""
        bare = _REPLICA.sub("", device_id)
        for known in (bare, _HAMI.sub(r"\1", bare)):
            if known in self._parents:
                return known
        old = _OLD_MIG.match(bare)
        if old:
            gpu = self._by_gpu.get(old[1])
            return None if gpu is None else _instance(gpu.parents, int(old[2]), int(old[3]))
        gke = _GKE.match(bare)
        if gke:
            gpu = self._by_minor.get(int(gke[1]))
            if gpu is None:
                return None
            if gke[2] is None:
                return gpu.uuid if gpu.uuid in self._parents else None
            return _instance(gpu.parents, int(gke[2]), None)
        return None

    def resolve_dra(self, device_name: str) -> str | None:
        """Return the parent id behind a device of NVIDIA's DRA driver by its name alone, or None."""
        whole = _DRA_GPU.match(device_name)
        if whole:
            gpu = self._by_minor.get(int(whole[1]))
            return gpu.uuid if gpu is not None and gpu.uuid in self._parents else None
        mig = _DRA_MIG.match(device_name)
        gpu = self._by_minor.get(int(mig[1])) if mig else None
        if mig is None or gpu is None:
            return None
        return _placed([p for p in gpu.parents if _plain(p.profile) == mig[2]], int(mig[4]))

    def resolve_claimed(self, device: ClaimedDevice, name: str) -> str | None:
        """Return the parent id behind a device as its ResourceSlice describes it, or None.

        Args:
            device: What the slice says of it.
            name: Its name, which tells the place of a MIG instance where nothing else does.
        """
        if device.uuid:
            return device.uuid if device.uuid in self._parents else None
        gpu = self._by_gpu.get(device.parent_uuid)
        if gpu is None or not device.profile:
            return None
        named = _DRA_MIG.match(name)
        start = device.start if device.start is not None else int(named[4]) if named else None
        return _placed([p for p in gpu.parents if _plain(p.profile) == _plain(device.profile)], start)


def _plain(profile: str) -> str:
    """A MIG profile as names of devices have it."""
    return profile.replace(".", "").replace("+", "-")


def _placed(alike: Sequence[ParentInfo], start: int | None) -> str | None:
    """The instance at a place; where either side does not tell places, only one that has no twin is known for sure."""
    if len(alike) == 1 and None in (start, alike[0].start):
        return alike[0].parent_id
    return next((parent.parent_id for parent in alike if start is not None and parent.start == start), None)


def is_replica(device_id: str, parent_id: str) -> bool:
    """Whether a device plugin's id names one of several shares of its parent, not all of it."""
    return bool(_SHARE.search(device_id)) or (device_id != parent_id and device_id.startswith(f"{parent_id}-"))


def _instance(parents: Iterable[ParentInfo], gi: int, ci: int | None) -> str | None:
    for parent in parents:
        if parent.gi_id == gi and ci in (None, parent.ci_id):
            return parent.parent_id
    return None
