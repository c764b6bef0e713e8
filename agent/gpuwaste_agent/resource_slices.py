"""What the devices of claims are, from the ResourceSlices (`resource.k8s.io/v1`) of this node.

The kubelet tells of a claim's device its driver, its pool and its name. The slices say what is behind the name: UUID
and type of a GPU; UUID, parent, profile and place of a MIG instance. A MIG instance that the driver makes only when
it is claimed has no UUID in the slices, so it is found by parent, profile and place. Names are the slices' own, so
drivers other than NVIDIA's are understood too if they write a UUID that the node's driver knows.

It is the only question the agent asks of the API server, and it is asked only where it is switched on.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import ssl
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

__all__ = ["ClaimedDevice", "DeviceKey", "SliceSource", "SliceWatcher", "SlicesError", "ask_slices", "read_slices"]

_PATH = "/apis/resource.k8s.io/v1/resourceslices?resourceVersion=0&fieldSelector=spec.nodeName%3D"
_ANSWER_BYTES = 16 << 20
_TIMEOUT_SECONDS = 5.0
_EVERY_SECONDS = 300.0
# A claim names a device that is not known: its driver may have published it meanwhile.
_SOON_SECONDS = 10.0
_MEMORY_SLICE = re.compile(r"^memory-?slice-?(\d+)$", re.IGNORECASE)
_KINDS = ("gpu", "mig")
_CLOSED = ("NoSchedule", "NoExecute")


class SlicesError(Exception):
    """The ResourceSlices cannot be read; the message says why and what to do."""


class DeviceKey(NamedTuple):
    """A device as the kubelet names it."""

    driver: str
    pool: str
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedDevice:
    """What a ResourceSlice says of a device.

    Attributes:
        kind: `gpu`, `mig`, or empty for anything else.
        uuid: Of the GPU or MIG instance; empty where the instance is made only when it is claimed.
        parent_uuid: GPU of a MIG instance.
        profile: MIG profile as NVIDIA prints it.
        start: First memory unit of a MIG instance; None where the slice does not tell.
        tainted: Its driver, or an administrator, keeps it from being given out.
    """

    kind: str
    uuid: str = ""
    parent_uuid: str = ""
    profile: str = ""
    start: int | None = None
    tainted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceSource:
    """Where the slices are asked for.

    Attributes:
        node: Name of this node: no slices of others are asked for.
        host: Of the API server.
        port: Of the API server.
        account: Folder with `token` and `ca.crt` of a service account that may list ResourceSlices.
    """

    node: str
    host: str
    port: int
    account: Path

    @classmethod
    def in_cluster(cls, node: str, account: Path) -> SliceSource:
        """The API server that every pod is told of.

        Raises:
            SlicesError: The process is in no pod.
        """
        host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "")
        if not host or not port.isdecimal():
            raise SlicesError("KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT do not say where the API server is")
        return cls(node=node, host=host, port=int(port), account=account)


def _text(attributes: Mapping[str, Any], driver: str, name: str) -> str:
    """A text attribute by its short name or by the driver's domain."""
    value = attributes.get(name) or attributes.get(f"{driver}/{name}") or {}
    return str(value.get("string") or "")


def _start(device: Mapping[str, Any]) -> int | None:
    """First memory unit: of the capacity of an instance that is there, or of what one takes of its GPU's counters."""
    names = [str(name).rpartition("/")[2] for name in device.get("capacity") or {}]
    for consumed in device.get("consumesCounters") or ():
        names += consumed.get("counters") or {}
    return min((int(found[1]) for name in names if (found := _MEMORY_SLICE.match(name))), default=None)


def _claimed(driver: str, device: Mapping[str, Any]) -> ClaimedDevice:
    attributes = device.get("attributes") or {}
    kind = _text(attributes, driver, "type")
    parent = _text(attributes, driver, "parentUUID")
    return ClaimedDevice(
        kind=kind if kind in _KINDS else "",
        uuid=_text(attributes, driver, "uuid"),
        parent_uuid=parent,
        profile=_text(attributes, driver, "profile"),
        start=_start(device) if parent else None,
        tainted=any(taint.get("effect") in _CLOSED for taint in device.get("taints") or ()),
    )


def read_slices(slices: Iterable[Mapping[str, Any]]) -> dict[DeviceKey, ClaimedDevice]:
    """The devices of a node's ResourceSlices; of each pool only its newest generation counts.

    Raises:
        SlicesError: An object is no ResourceSlice of `resource.k8s.io/v1`.
    """
    newest: dict[tuple[str, str], int] = {}
    found: dict[tuple[str, str], dict[DeviceKey, ClaimedDevice]] = {}
    try:
        for one in slices:
            spec = one["spec"]
            driver, pool = str(spec["driver"]), spec["pool"]
            name, generation = str(pool["name"]), int(pool["generation"])
            if generation < newest.get((driver, name), generation):
                continue
            if generation > newest.get((driver, name), -1):
                newest[driver, name], found[driver, name] = generation, {}
            found[driver, name] |= {
                DeviceKey(driver, name, str(device["name"])): _claimed(driver, device)
                for device in spec.get("devices") or ()
            }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SlicesError(f"no ResourceSlice of resource.k8s.io/v1: {error!r}") from error
    return {key: device for devices in found.values() for key, device in devices.items()}


def ask_slices(source: SliceSource) -> dict[DeviceKey, ClaimedDevice]:
    """Ask once; the token is read anew, for it is replaced while the agent runs.

    Raises:
        SlicesError: The API server does not answer, or refuses.
    """
    where = f"{source.host}:{source.port}"
    try:
        token = (source.account / "token").read_text().strip()
        context = ssl.create_default_context(cafile=str(source.account / "ca.crt"))
        connection = http.client.HTTPSConnection(source.host, source.port, timeout=_TIMEOUT_SECONDS, context=context)
        try:
            headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
            connection.request("GET", _PATH + quote(source.node, safe=""), headers=headers)
            answer = connection.getresponse()
            status, body = answer.status, answer.read(_ANSWER_BYTES)
        finally:
            connection.close()
    except (OSError, http.client.HTTPException) as error:
        raise SlicesError(f"the API server at {where} does not answer for ResourceSlices: {error}") from error
    if status in (http.client.FORBIDDEN, http.client.UNAUTHORIZED):
        raise SlicesError(
            f"the API server at {where} refuses ResourceSlices ({status}): the agent's service account needs `list` of "
            "resourceslices in resource.k8s.io (value `agent.resourceSlices` of the chart)"
        )
    if status == http.client.NOT_FOUND:
        raise SlicesError(f"the API server at {where} has no resource.k8s.io/v1: it came with Kubernetes 1.34")
    if status != http.client.OK:
        raise SlicesError(f"the API server at {where} answers {status} for ResourceSlices")
    try:
        return read_slices(json.loads(body).get("items") or ())
    except (ValueError, AttributeError) as error:
        raise SlicesError(f"the API server at {where} answers something else for ResourceSlices: {error}") from error


class SliceWatcher:
    """Asks every five minutes in a thread of its own, and soon after a claim named an unknown device.

    Attributes:
        problem: Why the slices cannot be read; empty where they can.
    """

    def __init__(
        self,
        ask: Callable[[], dict[DeviceKey, ClaimedDevice]],
        *,
        every_seconds: float = _EVERY_SECONDS,
        soon_seconds: float = _SOON_SECONDS,
    ) -> None:
        """Take how to ask, how often, and how long to wait at least."""
        self._ask = ask
        self._every_seconds, self._soon_seconds = every_seconds, soon_seconds
        self._wanted = threading.Event()
        self._stopped = False
        self._devices: dict[DeviceKey, ClaimedDevice] = {}
        self.problem = ""

    def find(self, key: DeviceKey) -> ClaimedDevice | None:
        """The device, or None where no slice that was read has it; then they are read again soon."""
        device = self._devices.get(key)
        if device is None:
            self._wanted.set()
        return device

    def devices(self) -> Mapping[DeviceKey, ClaimedDevice]:
        """All devices of this node, as they were read last."""
        return self._devices

    def look(self) -> None:
        """Ask once; what was known stays known where nobody answers."""
        try:
            self._devices = self._ask()
        except SlicesError as error:
            self.problem = str(error)
        else:
            self.problem = ""

    def start(self) -> None:
        """Ask now, and go on in a thread until `close`."""
        self.look()
        threading.Thread(target=self._run, name="resource-slices", daemon=True).start()

    def _run(self) -> None:
        asked = time.monotonic()
        while True:
            self._wanted.wait(self._every_seconds)
            # Not for every claim of a driver that publishes nothing.
            time.sleep(max(0.0, asked + self._soon_seconds - time.monotonic()))
            if self._stopped:
                return
            self._wanted.clear()
            self.look()
            asked = time.monotonic()

    def close(self) -> None:
        """Ask no more."""
        self._stopped = True
        self._wanted.set()
