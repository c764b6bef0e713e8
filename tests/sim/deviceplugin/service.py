"""The plugin's side of the kubelet's device-plugin API, one service a resource."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
from tests.sim.deviceplugin.offer import parent_of, preferred
from tests.sim.kubelet_api import deviceplugin_pb2 as api

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.sim.deviceplugin.config import PluginConfig
    from tests.sim.deviceplugin.offer import OfferedDevice

__all__ = ["Mount", "ResourceService"]

_SERVICE = "v1beta1.DevicePlugin"
_WATCHERS = 8
_CALL_SECONDS = 5.0


class Mount(NamedTuple):
    """A file or folder of the host with its place in a container; `rw` as mode lets it be written."""

    outside: str
    inside: str
    mode: str = "ro"


class ResourceService:
    """Serves one resource on a socket of its own in the kubelet's folder of device plugins.

    Args:
        folder: that folder, with the kubelet's own socket `kubelet.sock`.
        resource: the resource's name.
        config: the plugin's configuration.
        mounts: what every container that gets a device finds.
    """

    def __init__(self, folder: Path, resource: str, *, config: PluginConfig, mounts: Sequence[Mount]) -> None:
        self.resource = resource
        self.config = config
        self._kubelet = folder / "kubelet.sock"
        self._socket = folder / (resource.replace("/", "-") + ".sock")
        self._mounts = mounts
        self._changed = threading.Condition()
        self._devices: tuple[OfferedDevice, ...] = ()
        self._stopped = False
        self._server: grpc.Server | None = None

    def offer(self, devices: Sequence[OfferedDevice]) -> None:
        """Say what there is now; the kubelet is told if it differs."""
        with self._changed:
            if self._devices != tuple(devices):
                self._devices = tuple(devices)
                self._changed.notify_all()

    def start(self) -> None:
        """Listen, and register with the kubelet.

        Raises:
            grpc.RpcError: the kubelet does not answer.
        """
        self._socket.unlink(missing_ok=True)
        server = grpc.server(ThreadPoolExecutor(_WATCHERS))
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, self._handlers()),))
        server.add_insecure_port(f"unix:{self._socket}")
        server.start()
        self._server = server
        request = api.Registration(
            version="v1beta1",
            endpoint=self._socket.name,
            resource_name=self.resource,
            options=api.Options(preferred_allocation=True),
        )
        with grpc.insecure_channel(f"unix:{self._kubelet}") as channel:
            register = channel.unary_unary(
                "/v1beta1.Registration/Register",
                request_serializer=api.Registration.SerializeToString,
                response_deserializer=api.Nothing.FromString,
            )
            register(request, timeout=_CALL_SECONDS, wait_for_ready=True)

    def stop(self) -> None:
        """Stop listening, after which the kubelet takes all devices for gone."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._server is not None:
            self._server.stop(grace=0.5).wait()
        self._socket.unlink(missing_ok=True)

    def _handlers(self) -> dict[str, Any]:
        unary = grpc.unary_unary_rpc_method_handler
        return {
            "GetDevicePluginOptions": unary(
                lambda _request, _context: api.Options(preferred_allocation=True),
                api.Nothing.FromString,
                api.Options.SerializeToString,
            ),
            "ListAndWatch": grpc.unary_stream_rpc_method_handler(
                self._list_and_watch, api.Nothing.FromString, api.Devices.SerializeToString
            ),
            "GetPreferredAllocation": unary(self._prefer, api.Preference.FromString, api.Preferred.SerializeToString),
            "Allocate": unary(self._allocate, api.Allocation.FromString, api.Allocated.SerializeToString),
        }

    def _list_and_watch(self, _request: api.Nothing, context: grpc.ServicerContext) -> Iterator[api.Devices]:
        told: tuple[OfferedDevice, ...] | None = None

        def wake() -> None:
            with self._changed:
                self._changed.notify_all()

        context.add_callback(wake)
        while (devices := self._after(told, context)) is not None:
            told = devices
            yield api.Devices(
                devices=[
                    api.Device(id=device.id, health="Healthy" if device.healthy else "Unhealthy") for device in told
                ]
            )

    def _after(
        self, told: tuple[OfferedDevice, ...] | None, context: grpc.ServicerContext
    ) -> tuple[OfferedDevice, ...] | None:
        """Wait until there is something else than `told` to say; None when there is nobody to say it to."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended(context) or self._devices != told)
            return None if self._ended(context) else self._devices

    def _ended(self, context: grpc.ServicerContext) -> bool:
        return self._stopped or not context.is_active()

    def _prefer(self, request: api.Preference, _context: grpc.ServicerContext) -> api.Preferred:
        chosen = [
            preferred(list(c.available), list(c.must_include), c.count, packed=self.config.packed)
            for c in request.containers
        ]
        return api.Preferred(containers=[api.Preferred.Container(ids=ids) for ids in chosen])

    def _allocate(self, request: api.Allocation, context: grpc.ServicerContext) -> api.Allocated:
        answer = api.Allocated()
        with self._changed:
            known = {device.id for device in self._devices}
        for container in request.containers:
            ids = list(container.ids)
            unknown = sorted(set(ids) - known)
            if unknown:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"no such device: {', '.join(unknown)}")
            if self.config.refuse_many and len(ids) > 1 and any("::" in device for device in ids):
                context.abort(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    f"request for `{self.resource}: {len(ids)}` is too large: shared devices are given one at a time",
                )
            visible = ",".join(dict.fromkeys(map(parent_of, ids)))
            answer.containers.append(
                api.Allocated.Container(
                    environment={"NVIDIA_VISIBLE_DEVICES": visible},
                    mounts=[
                        api.Mount(container_path=mount.inside, host_path=mount.outside, read_only=mount.mode != "rw")
                        for mount in self._mounts
                    ],
                )
            )
        return answer
