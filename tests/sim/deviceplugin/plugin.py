"""The whole plugin of one node: which configuration holds, which resources are served, how the node is labelled."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

import grpc
from tests.sim.deviceplugin.config import ConfigError, PluginConfig, parse_config
from tests.sim.deviceplugin.offer import labels, offer
from tests.sim.deviceplugin.service import Mount, ResourceService

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.sim.deviceplugin.offer import OfferedDevice
    from tests.sim.hardware import Hardware

__all__ = ["CONFIG_LABEL", "DEPLOY_LABEL", "DevicePlugin", "NodeLabels"]

CONFIG_LABEL = "nvidia.com/device-plugin.config"
DEPLOY_LABEL = "nvidia.com/gpu.deploy.device-plugin"

_OWN_PREFIXES = ("nvidia.com/gpu.", "nvidia.com/mig")
_FOREIGN_PREFIXES = ("nvidia.com/gpu.deploy.", "nvidia.com/mig.config")

_log = logging.getLogger("deviceplugin")


class NodeLabels(Protocol):
    """What the plugin needs of the API."""

    def labels(self) -> dict[str, str]:
        """The node's labels."""
        ...

    def patch_labels(self, labels: Mapping[str, str | None]) -> None:
        """Set labels; None takes one away."""
        ...

    def config_map(self, namespace: str, name: str) -> dict[str, str] | None:
        """Data of a ConfigMap."""
        ...


class DevicePlugin:
    """Call `step` again and again; `stop` at the end.

    As NVIDIA's config-manager, it reads a configuration only when the node's label changes: a key that is edited
    in place is not noticed, an unknown key changes nothing, and without the label the default holds.

    Args:
        api: the node's labels and the ConfigMap.
        hardware: the node's GPUs.
        folder: the kubelet's folder of device plugins.
        config_map: namespace and name of the ConfigMap; each key is a configuration.
        default: the key that holds without a label; empty means no sharing and no MIG.
        mounts: what every container that gets a device finds.
    """

    def __init__(
        self,
        *,
        api: NodeLabels,
        hardware: Hardware,
        folder: Path,
        config_map: tuple[str, str],
        default: str,
        mounts: Sequence[Mount],
    ) -> None:
        self._api = api
        self._hardware = hardware
        self._folder = folder
        self._config_map = config_map
        self._default = default
        self._mounts = mounts
        self._key: str | None = None
        # None: refused. NVIDIA's plugin then ends, again and again, and offers nothing meanwhile.
        self._config: PluginConfig | None = PluginConfig()
        self._services: dict[str, ResourceService] = {}
        self._kubelet_socket = (0, 0)

    def step(self) -> None:
        """Look at labels, GPUs and the kubelet once, and do what has become necessary."""
        found = self._api.labels()
        if found.get(DEPLOY_LABEL, "true") != "true":
            self.stop()
            return
        changed = self._take_config(found.get(CONFIG_LABEL) or self._default)
        if self._kubelet_restarted() or changed:
            self.stop()
        if self._config is None:
            return
        self._hardware.open()
        gpus = self._hardware.gpus()
        self._serve(offer(gpus, self._config, self._hardware.unhealthy()), self._config)
        self._label(found, labels(gpus, self._config))

    def stop(self) -> None:
        """Let the driver go, and withdraw all resources."""
        self._hardware.close()
        for service in self._services.values():
            service.stop()
        self._services.clear()

    def _take_config(self, key: str) -> bool:
        """Read the configuration of that key if it is another than before; say whether it holds now."""
        if key == self._key:
            return False
        self._key = key
        if not key:
            self._config = PluginConfig()
            return True
        text = (self._api.config_map(*self._config_map) or {}).get(key)
        if text is None:
            _log.error("ConfigMap %s/%s has no key %s: the configuration stays", *self._config_map, key)
            return False
        try:
            self._config = parse_config(text)
        except ConfigError as error:
            _log.error("configuration %s is refused: %s", key, error)
            self._config = None
        return True

    def _kubelet_restarted(self) -> bool:
        """Whether the kubelet has a new socket, and so has forgotten this plugin."""
        try:
            status = (self._folder / "kubelet.sock").stat()
        except FileNotFoundError:
            return False
        # The number alone may be used again for the next socket.
        made = (status.st_ino, status.st_ctime_ns)
        changed, self._kubelet_socket = made != self._kubelet_socket, made
        return changed

    def _serve(self, offered: Mapping[str, tuple[OfferedDevice, ...]], config: PluginConfig) -> None:
        for resource in set(self._services) - set(offered):
            self._services.pop(resource).stop()
        for resource, devices in offered.items():
            service = self._services.get(resource)
            if service is not None:
                service.offer(devices)
                continue
            service = ResourceService(self._folder, resource, config=config, mounts=self._mounts)
            service.offer(devices)
            try:
                service.start()
            except grpc.RpcError as error:
                service.stop()
                _log.warning("the kubelet does not take %s yet: %s", resource, error.code())
            else:
                self._services[resource] = service
                _log.info("registered %s with %d devices", resource, len(devices))

    def _label(self, found: Mapping[str, str], wanted: Mapping[str, str]) -> None:
        own = {name for name in found if name.startswith(_OWN_PREFIXES) and not name.startswith(_FOREIGN_PREFIXES)}
        changes: dict[str, str | None] = dict.fromkeys(own - set(wanted))
        changes |= {name: value for name, value in wanted.items() if found.get(name) != value}
        if changes:
            self._api.patch_labels(changes)
