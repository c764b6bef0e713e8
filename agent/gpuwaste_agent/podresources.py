"""Who holds which slice, from the kubelet's PodResources v1 API on its unix socket."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import grpc

from gpuwaste_agent.container_names import FRESH, directory_stamp
from gpuwaste_agent.device_ids import ParentIndex, is_replica
from gpuwaste_agent.holdings import ContainerKey, Holding, HoldingsSnapshot, Join, Sharing
from gpuwaste_agent.kubelet import podresources_pb2 as kubelet
from gpuwaste_agent.resource_slices import DeviceKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from gpuwaste_agent.clock import Clock
    from gpuwaste_agent.resource_slices import SliceWatcher
    from gpuwaste_agent.telemetry import GpuInfo

__all__ = ["KubeletClient", "KubeletHoldings", "PodUids", "snapshot_of"]

_SERVICE = "/v1.PodResourcesLister/"
_DRA_DRIVER = "gpu.nvidia.com"
_SECOND = 1_000_000_000
_TIMEOUT_SECONDS = 2.0
_MESSAGE_BYTES = 16 << 20


class KubeletClient:
    """The two questions the agent asks the kubelet."""

    def __init__(self, socket: Path) -> None:
        """Take the socket's path; nothing is opened before the first question."""
        options = [("grpc.max_receive_message_length", _MESSAGE_BYTES), ("grpc.enable_http_proxy", 0)]
        self._channel = grpc.insecure_channel(f"unix://{socket}", options=options)
        self._list = self._channel.unary_unary(
            _SERVICE + "List",
            request_serializer=kubelet.ListRequest.SerializeToString,
            response_deserializer=bytes,
        )
        self._allocatable = self._channel.unary_unary(
            _SERVICE + "GetAllocatableResources",
            request_serializer=kubelet.AllocatableRequest.SerializeToString,
            response_deserializer=bytes,
        )

    def ask(self) -> tuple[bytes, bytes]:
        """Return both answers as they came.

        Raises:
            grpc.RpcError: The kubelet does not answer within two seconds, or refuses.
        """
        listed: bytes = self._list(kubelet.ListRequest(), timeout=_TIMEOUT_SECONDS)
        allocatable: bytes = self._allocatable(kubelet.AllocatableRequest(), timeout=_TIMEOUT_SECONDS)
        return listed, allocatable

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


class PodUids:
    """UIDs of pods by name, from the directories of `/var/log/pods`: `<namespace>_<name>_<uid>/<container>`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stamp = FRESH
        self._uids: dict[tuple[str, str], list[str]] = {}

    def refresh(self) -> None:
        """Read the directory again where it changed."""
        try:
            stamp = directory_stamp(self._directory)
            if stamp == self._stamp != FRESH:
                return
            names = [entry.name for entry in self._directory.iterdir()]
        except FileNotFoundError:
            self._stamp, self._uids = FRESH, {}
            return
        self._stamp = stamp
        self._uids = {}
        for name in names:
            namespace, _, rest = name.partition("_")
            pod, _, uid = rest.rpartition("_")
            if namespace and pod and uid:
                self._uids.setdefault((namespace, pod), []).append(uid)

    def uid(self, namespace: str, pod: str) -> str:
        """Return the pod's UID, or an empty string where it is unknown or several pods had that name.

        A re-created pod of the same name leaves the old directory behind for a while: then the newer one is right.
        """
        found = self._uids.get((namespace, pod), [])
        if len(found) > 1:
            found = [max(found, key=lambda uid: self._age_key(namespace, pod, uid))]
        return found[0] if found else ""

    def _age_key(self, namespace: str, pod: str, uid: str) -> float:
        try:
            return (self._directory / f"{namespace}_{pod}_{uid}").stat().st_ctime
        except FileNotFoundError:
            return 0.0


class _Given(NamedTuple):
    """A slice that a container is given; `parent_id` is None where it is none of this node's GPUs."""

    resource_name: str
    slice_id: str
    parent_id: str | None
    claim: str = ""


def _given(container: kubelet.Container, index: ParentIndex, slices: SliceWatcher | None) -> Iterator[_Given]:
    for devices in container.devices:
        for device_id in devices.device_ids:
            yield _Given(devices.resource_name, device_id, index.resolve(device_id))
    for claim in container.dynamic_resources:
        for resource in claim.claim_resources:
            parent_id = _claimed_parent(resource, index, slices)
            yield _Given("", _claimed_slice(resource), parent_id, f"{claim.claim_namespace}/{claim.claim_name}")


def _claimed_parent(resource: kubelet.ClaimResource, index: ParentIndex, slices: SliceWatcher | None) -> str | None:
    """By the ResourceSlice of the device, else by the name that NVIDIA's driver gives it."""
    key = DeviceKey(resource.driver_name, resource.pool_name, resource.device_name)
    device = None if slices is None else slices.find(key)
    if device is not None:
        return index.resolve_claimed(device, resource.device_name)
    return index.resolve_dra(resource.device_name) if resource.driver_name == _DRA_DRIVER else None


def _claimed_slice(resource: kubelet.ClaimResource) -> str:
    """Slice id of a claimed device; of a share of it where the claim has only that."""
    return f"{resource.device_name}/{resource.share_id}" if resource.share_id else resource.device_name


def _holdings(
    listed: kubelet.ListResponse, index: ParentIndex, uid: Callable[[str, str], str], slices: SliceWatcher | None
) -> Iterator[Holding]:
    for pod in listed.pods:
        for container in pod.containers:
            pod_uid = uid(pod.namespace, pod.name)
            key = ContainerKey(pod.namespace, pod.name, pod_uid, container.name)
            # Two requests, or two claims, may lead to one device: it is held once.
            seen: set[tuple[str, str]] = set()
            for given in _given(container, index, slices):
                if given.parent_id is None or (given.parent_id, given.slice_id) in seen:
                    continue
                seen.add((given.parent_id, given.slice_id))
                yield Holding(
                    container=key,
                    parent_id=given.parent_id,
                    slice_id=given.slice_id,
                    resource_name=given.resource_name,
                    claim=given.claim,
                    join=Join.LOG_DIR if pod_uid else Join.NAME,
                )


def snapshot_of(
    listed: kubelet.ListResponse,
    allocatable: kubelet.AllocatableResponse,
    gpus: Sequence[GpuInfo],
    uid: Callable[[str, str], str],
    *,
    dra: bool = False,
    slices: SliceWatcher | None = None,
) -> HoldingsSnapshot:
    """Turn the kubelet's answers into who holds what.

    Device ids do not tell MPS from time-slicing: replicas count as time-slicing until an MPS server is seen.

    Args:
        listed: Answer of List.
        allocatable: Answer of GetAllocatableResources.
        gpus: The node's GPUs, to resolve device ids.
        uid: UID of a pod by namespace and name; empty where unknown.
        dra: Claims hand this node's GPUs out: the kubelet does not list those among what is allocatable, so every
            parent that no plugin offers counts as one slice that can be claimed.
        slices: What the ResourceSlices say of the devices; without them the names of devices do. With them, what
            they offer is what counts as one slice that can be claimed.
    """
    index = ParentIndex(gpus)
    replicas: dict[str, int] = {}
    sharing: dict[str, Sharing] = {}
    seen: set[str] = set()
    for devices in allocatable.devices:
        for device_id in devices.device_ids:
            parent_id = index.resolve(device_id)
            if parent_id is None or device_id in seen:
                continue
            seen.add(device_id)
            replicas[parent_id] = replicas.get(parent_id, 0) + 1
            if is_replica(device_id, parent_id):
                sharing[parent_id] = Sharing.TIME_SLICING
    holdings = tuple(_holdings(listed, index, uid, slices))
    claimed = dict.fromkeys(holding.parent_id for holding in holdings if holding.claim)
    for parent_id in (*claimed, *(_claimable(gpus, index, slices) if dra else ())):
        replicas.setdefault(parent_id, 1)
    return HoldingsSnapshot(holdings=holdings, replicas=replicas, sharing=sharing)


def _claimable(gpus: Sequence[GpuInfo], index: ParentIndex, slices: SliceWatcher | None) -> Iterator[str]:
    """Parents that a claim may get: those that ResourceSlices offer, or all where nobody reads them."""
    if slices is None or not slices.devices():
        yield from (parent.parent_id for gpu in gpus for parent in gpu.parents)
        return
    for key, device in slices.devices().items():
        parent_id = None if device.tainted else index.resolve_claimed(device, key.device)
        if parent_id is not None:
            yield parent_id


class KubeletHoldings:
    """Asks the kubelet every few seconds; an unchanged answer gives the same snapshot object again."""

    def __init__(
        self,
        *,
        socket: Path,
        pod_logs: Path,
        gpus: Callable[[], Sequence[GpuInfo]],
        clock: Clock,
        every_seconds: float,
        dra: bool = False,
        slices: SliceWatcher | None = None,
    ) -> None:
        """Take the kubelet's socket, the log directory, how to list GPUs, and how often to ask.

        That claims hand the GPUs out can be said (`dra`), and is remembered once a claim was seen. What claimed
        devices are is read from ResourceSlices where there are any (`slices`).
        """
        self._client = KubeletClient(socket)
        self._uids = PodUids(pod_logs)
        self._gpus = gpus
        self._clock = clock
        self._every_ns = round(every_seconds * _SECOND)
        self._dra = dra
        self._slices = slices
        self._asked_ns: int | None = None
        self._snapshot: HoldingsSnapshot | None = None
        self.problem = ""

    def poll(self) -> HoldingsSnapshot | None:
        """Return who holds what; None after the kubelet could not be asked for the first time."""
        now = self._clock.monotonic_ns()
        if self._asked_ns is not None and now - self._asked_ns < self._every_ns:
            return self._snapshot
        self._asked_ns = now
        try:
            listed, allocatable = self._client.ask()
        except grpc.RpcError as error:
            self.problem = f"the kubelet's PodResources do not answer: {error.code().name}"
            return self._snapshot
        self.problem = ""
        self._uids.refresh()
        snapshot = snapshot_of(
            kubelet.ListResponse.FromString(listed),
            kubelet.AllocatableResponse.FromString(allocatable),
            self._gpus(),
            self._uids.uid,
            dra=self._dra,
            slices=self._slices,
        )
        if not self._dra and any(holding.claim for holding in snapshot.holdings):
            self._dra, self._asked_ns = True, None
        if snapshot != self._snapshot:
            self._snapshot = snapshot
        return self._snapshot

    def hint(self) -> None:
        """Ask again at the next poll."""
        self._asked_ns = None

    def close(self) -> None:
        """Close the channel, and ask for no more slices."""
        self._client.close()
        if self._slices is not None:
            self._slices.close()
