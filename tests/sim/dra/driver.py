"""The driver of one node: two sockets for the kubelet, and a ResourceSlice for the scheduler."""

from __future__ import annotations

import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

import grpc
from tests.sim.dra.cdi import CDI_KIND, cdi_name, cdi_spec
from tests.sim.dra.slices import DRIVER, devices, resource_slice
from tests.sim.kubelet_api import dra_pb2, registration_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.sim.deviceplugin.service import Mount
    from tests.sim.hardware import Hardware

__all__ = ["ClaimApi", "DraDriver"]

_SERVICE = "k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin"
_REGISTRATION = "pluginregistration.Registration"
_SLICES = "/apis/resource.k8s.io/v1/resourceslices"
_KUBELET_FOLDER = "/var/lib/kubelet"
_CALLS = 8

_log = logging.getLogger("dra")


class ClaimApi(Protocol):
    """What the driver needs of the API."""

    node: str

    def node_object(self) -> dict[str, Any]:
        """The node."""
        ...

    def claim(self, namespace: str, name: str) -> dict[str, Any] | None:
        """A ResourceClaim."""
        ...

    def get(self, path: str) -> dict[str, Any] | None:
        """The object at a path."""
        ...

    def apply(self, path: str, content: dict[str, Any], *, manager: str) -> None:
        """Create or change the object at a path."""
        ...


class DraDriver:
    """`start`, then `step` again and again, then `stop`.

    Args:
        api: the node, claims and slices.
        hardware: the node's GPUs.
        kubelet_folder: what the kubelet sees as /var/lib/kubelet.
        cdi_folder: what the container runtime sees as /run/cdi.
        mounts: what every container with a claim finds.
        named: what devices are called, where not as NVIDIA's driver does.
    """

    def __init__(
        self,
        *,
        api: ClaimApi,
        hardware: Hardware,
        kubelet_folder: Path,
        cdi_folder: Path,
        mounts: Sequence[Mount],
        named: str = "",
    ) -> None:
        self._named = named
        self._api = api
        self._cdi_folder = cdi_folder
        self._mounts = mounts
        self._hardware = hardware
        self._plugin_socket = kubelet_folder / "plugins" / DRIVER / "dra.sock"
        self._registration_socket = kubelet_folder / "plugins_registry" / f"{DRIVER}-reg.sock"
        self._servers: list[grpc.Server] = []
        self._registered = threading.Event()
        self._generation = 0

    def start(self) -> None:
        """Connect to the driver and listen; the kubelet notices the socket and asks who is there."""
        self._hardware.open()
        unary = grpc.unary_unary_rpc_method_handler
        claims, prepared, unprepared = dra_pb2.Claims, dra_pb2.Prepared, dra_pb2.Unprepared
        service = {
            "NodePrepareResources": unary(self._prepare, claims.FromString, prepared.SerializeToString),
            "NodeUnprepareResources": unary(self._unprepare, claims.FromString, unprepared.SerializeToString),
        }
        nothing, plugin = registration_pb2.Nothing, registration_pb2.Plugin
        registration = {
            "GetInfo": unary(self._info, nothing.FromString, plugin.SerializeToString),
            "NotifyRegistrationStatus": unary(
                self._take_outcome, registration_pb2.Outcome.FromString, nothing.SerializeToString
            ),
        }
        self._serve(self._plugin_socket, _SERVICE, service)
        self._serve(self._registration_socket, _REGISTRATION, registration)

    def step(self) -> None:
        """Publish the slice where it is missing or tells of other devices."""
        if not self._registered.is_set():
            return
        found = devices(self._hardware.gpus(), self._hardware.unhealthy(), named=self._named)
        path = f"{_SLICES}/{self._api.node}-{DRIVER}"
        published = self._api.get(path)
        if published is not None:
            self._generation = max(self._generation, published["spec"]["pool"]["generation"])
            if published["spec"].get("devices", []) == found:
                return
        self._generation += 1
        self._api.apply(path, resource_slice(self._api.node_object(), found, self._generation), manager=DRIVER)
        _log.info("published %d devices as generation %d", len(found), self._generation)

    def stop(self) -> None:
        """Stop listening; half a minute later the kubelet takes the slice away."""
        for server in self._servers:
            server.stop(grace=0.5).wait()
        self._hardware.close()
        for socket in (self._registration_socket, self._plugin_socket):
            socket.unlink(missing_ok=True)

    def _serve(self, socket: Path, name: str, handlers: dict[str, Any]) -> None:
        socket.parent.mkdir(parents=True, exist_ok=True)
        socket.unlink(missing_ok=True)
        server = grpc.server(ThreadPoolExecutor(_CALLS))
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
        server.add_insecure_port(f"unix:{socket}")
        server.start()
        self._servers.append(server)

    def _info(self, _request: registration_pb2.Nothing, _context: grpc.ServicerContext) -> registration_pb2.Plugin:
        endpoint = f"{_KUBELET_FOLDER}/plugins/{DRIVER}/dra.sock"  # as the kubelet sees it
        return registration_pb2.Plugin(type="DRAPlugin", name=DRIVER, endpoint=endpoint, versions=["v1.DRAPlugin"])

    def _take_outcome(
        self, request: registration_pb2.Outcome, _context: grpc.ServicerContext
    ) -> registration_pb2.Nothing:
        if request.registered:
            self._registered.set()
        else:
            _log.error("the kubelet refuses the driver: %s", request.error)
        return registration_pb2.Nothing()

    def _prepare(self, request: dra_pb2.Claims, _context: grpc.ServicerContext) -> dra_pb2.Prepared:
        return dra_pb2.Prepared(claims={claim.uid: self._prepared(claim) for claim in request.claims})

    def _prepared(self, wanted: dra_pb2.Claim) -> dra_pb2.Prepared.Result:
        claim = self._api.claim(wanted.namespace, wanted.name)
        if claim is None or claim["metadata"]["uid"] != wanted.uid:
            return dra_pb2.Prepared.Result(error=f"claim {wanted.namespace}/{wanted.name} is gone or another")
        there = {device["name"]: device for device in devices(self._hardware.gpus(), named=self._named)}
        results = claim.get("status", {}).get("allocation", {}).get("devices", {}).get("results", ())
        own = [result for result in results if result["driver"] == DRIVER]
        missing = sorted({result["device"] for result in own} - there.keys())
        if missing:
            return dra_pb2.Prepared.Result(error=f"no such device here: {', '.join(missing)}")
        uuids = {result["device"]: there[result["device"]]["attributes"]["uuid"]["string"] for result in own}
        # Renamed into place: the runtime watches the folder.
        draft = self._cdi_folder / f".{wanted.uid}"
        draft.write_text(json.dumps(cdi_spec(wanted.uid, uuids, self._mounts)))
        draft.rename(self._cdi_file(wanted.uid))
        return dra_pb2.Prepared.Result(
            devices=[
                dra_pb2.Device(
                    requests=[result["request"]],
                    pool=result["pool"],
                    device=result["device"],
                    cdi_ids=[f"{CDI_KIND}={cdi_name(wanted.uid, result['device'])}"],
                )
                for result in own
            ]
        )

    def _unprepare(self, request: dra_pb2.Claims, _context: grpc.ServicerContext) -> dra_pb2.Unprepared:
        for claim in request.claims:
            self._cdi_file(claim.uid).unlink(missing_ok=True)
        return dra_pb2.Unprepared(claims={claim.uid: dra_pb2.Unprepared.Result() for claim in request.claims})

    def _cdi_file(self, claim_uid: str) -> Path:
        return self._cdi_folder / f"{CDI_KIND.replace('/', '-')}_{claim_uid}.json"
