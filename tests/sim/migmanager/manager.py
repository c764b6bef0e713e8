"""The manager of one node: pauses NVIDIA's daemons, cuts up the GPUs, lets the daemons come back."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tests.sim.hardware import InUseError
from tests.sim.migmanager.config import ConfigError, generated, parse_config, wanted_layouts
from tests.sim.migmanager.layout import orders

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tests.sim.hardware import Hardware

    from gpuwaste_agent.simulate.scenario import ScenarioGpu

__all__ = ["CONFIG_LABEL", "PAUSED", "STATE_LABEL", "WEDGE_ANNOTATION", "MigManager", "NodeView"]

CONFIG_LABEL = "nvidia.com/mig.config"
STATE_LABEL = "nvidia.com/mig.config.state"
PAUSED = "paused-for-mig-change"
WEDGE_ANNOTATION = "sim.gpuwaste.dev/wedge-mig-manager"

_DEPLOY = "nvidia.com/gpu.deploy."
_DAEMONS = ("device-plugin", "gpu-feature-discovery", "dcgm-exporter", "dcgm", "nvsm")
_CLIENT = f"{_DEPLOY}client"
_APPS = ("nvidia-device-plugin-daemonset", "gpu-feature-discovery", "nvidia-dcgm-exporter", "nvidia-dcgm")
_CONFIG_KEY = "config.yaml"

_log = logging.getLogger("migmanager")


class NodeView(Protocol):
    """What the manager needs of the API."""

    def node_object(self) -> dict[str, Any]:
        """The node."""
        ...

    def patch_labels(self, labels: Mapping[str, str | None]) -> None:
        """Set labels of the node."""
        ...

    def config_map(self, namespace: str, name: str) -> dict[str, str] | None:
        """Data of a ConfigMap."""
        ...

    def pods(self) -> list[dict[str, Any]]:
        """The node's pods."""
        ...

    def apply(self, path: str, content: dict[str, Any], *, manager: str) -> None:
        """Create or change the object at a path."""
        ...


@dataclass(slots=True)
class _Change:
    """A change under way."""

    name: str
    wanted: dict[str, Counter[str] | None]
    deadline_seconds: float
    wedged: bool


class MigManager:
    """Call `step` again and again.

    Only a change of the label starts anything. Pods that use the GPUs are not drained: a process on an instance
    that would go makes the change fail. Where the new instances do not fit, their GPU stays cleared. Of all
    daemons it waits for NVIDIA's own and for DaemonSets that select the label `nvidia.com/gpu.deploy.client`.
    While the node bears WEDGE_ANNOTATION, a change stops half-way with the state `pending` and the daemons
    paused, until the label changes once more.

    Args:
        api: the node and its pods.
        hardware: the node's GPUs.
        config_map: namespace and name of the ConfigMap with mig-parted's file; without it one is made from the node's
            GPUs and published as `<node>-mig-config` in the same namespace.
        plugin_gone: whether the device plugin has withdrawn its resources.
        pci_devices: PCI device ids by product, for device filters.
        wait_seconds: how long daemons have to go.
        with_reboot: whether the node is rebooted where MIG mode cannot be changed.
        clock_seconds: a clock that does not jump.
    """

    def __init__(
        self,
        *,
        api: NodeView,
        hardware: Hardware,
        config_map: tuple[str, str],
        plugin_gone: Callable[[], bool],
        pci_devices: Mapping[str, Sequence[str]],
        wait_seconds: float,
        with_reboot: bool,
        clock_seconds: Callable[[], float],
    ) -> None:
        self._api = api
        self._hardware = hardware
        self._config_map = config_map
        self._plugin_gone = plugin_gone
        self._pci_devices = pci_devices
        self._wait_seconds = wait_seconds
        self._with_reboot = with_reboot
        self._clock_seconds = clock_seconds
        self._seen = ""
        self._looked_for_file = False
        self._change: _Change | None = None

    def step(self) -> None:
        """Look at the node once and take the next step of a change, if one is under way or wanted."""
        node = self._api.node_object()
        labels = node["metadata"].get("labels", {})
        name = labels.get(CONFIG_LABEL, "")
        if not self._looked_for_file:
            self._publish_made_file(node["metadata"]["name"])
            self._looked_for_file = True
        if name and name != self._seen and (self._change is None or self._change.wedged):
            self._seen = name
            self._begin(name, node)
        elif self._change is not None and not self._change.wedged:
            self._go_on(self._change)

    def _given(self) -> str:
        """The configuration file that people gave, or nothing."""
        return (self._api.config_map(*self._config_map) or {}).get(_CONFIG_KEY, "")

    def _publish_made_file(self, node: str) -> None:
        """Tell people which names there are where they gave no file."""
        with self._hardware.opened() as hardware:
            made = _made_file(hardware.gpus())
        if self._given() or not made:
            return
        namespace, name = self._config_map[0], f"{node}-mig-config"
        metadata = {"name": name, "namespace": namespace, "labels": {"nvidia.com/node-name": node}}
        content = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {_CONFIG_KEY: made}}
        self._api.apply(f"/api/v1/namespaces/{namespace}/configmaps/{name}", content, manager="mig-manager")

    def _begin(self, name: str, node: dict[str, Any]) -> None:
        self._change = None
        with self._hardware.opened() as hardware:
            gpus = hardware.gpus()
        try:
            configs = parse_config(self._given() or _made_file(gpus))
            wanted = wanted_layouts(configs[name], gpus, self._pci_devices)
        except (ConfigError, KeyError) as error:
            _log.error("configuration %s cannot be used: %s", name, error)
            self._api.patch_labels({STATE_LABEL: "failed"})
            return
        by_uuid = {gpu.uuid: gpu for gpu in gpus}
        if all(_layout(by_uuid[uuid]) == layout for uuid, layout in wanted.items()):
            self._api.patch_labels({STATE_LABEL: "success"})
            return
        labels = node["metadata"].get("labels", {})
        deployed = [f"{_DEPLOY}{daemon}" for daemon in _DAEMONS]
        pausing = {label: PAUSED for label in [*deployed, _CLIENT] if labels.get(label) not in {None, "false"}}
        self._api.patch_labels({STATE_LABEL: "pending", **pausing})
        wedged = WEDGE_ANNOTATION in node["metadata"].get("annotations", {})
        self._change = _Change(name, wanted, self._clock_seconds() + self._wait_seconds, wedged)

    def _go_on(self, change: _Change) -> None:
        """Wait for the daemons; when they are gone, cut up the GPUs."""
        staying = [pod["metadata"]["name"] for pod in self._api.pods() if _is_waited_for(pod)]
        if staying or not self._plugin_gone():
            if self._clock_seconds() > change.deadline_seconds:
                names = ", ".join(staying) or "the device plugin"
                _log.error("still there after %.0f s: %s", self._wait_seconds, names)
                self._end("failed")
            return
        try:
            with self._hardware.opened() as hardware:
                gpus = {gpu.uuid: gpu for gpu in hardware.gpus()}
                fits = [self._cut(gpus[uuid], layout) for uuid, layout in change.wanted.items()]
        except _ModeError as error:
            _log.error("%s", error)
            if self._with_reboot:
                self._api.patch_labels({STATE_LABEL: "rebooting"})
                return  # the node comes back without the processes that were in the way, and this is done again
            self._end("failed")
        except (InUseError, KeyError) as error:
            _log.error("configuration %s is not applied: %s", change.name, error)
            self._end("failed")
        else:
            self._end("success" if all(fits) else "failed")

    def _cut(self, gpu: ScenarioGpu, wanted: Counter[str] | None) -> bool:
        """Give one GPU its instances; False where they do not fit, which leaves it without any."""
        if _layout(gpu) == wanted:
            return True
        if wanted is not None and not gpu.facts.mig_capable:
            raise KeyError(f"{gpu.product} has no MIG")
        if gpu.mig:
            self._hardware.clear(gpu.uuid)
        if (gpu.mig is None) != (wanted is None):
            try:
                self._hardware.set_mode(gpu.uuid, enabled=wanted is not None)
            except InUseError as error:
                raise _ModeError(str(error)) from None
        for order in orders(wanted or Counter()):
            if self._hardware.create(gpu.uuid, order):
                return True
            self._hardware.clear(gpu.uuid)
        _log.error("%s do not fit on %s: it is left without instances", dict(wanted or {}), gpu.uuid)
        return False

    def _end(self, state: str) -> None:
        labels = self._api.node_object()["metadata"].get("labels", {})
        paused = {label: "true" for label, value in labels.items() if label.startswith(_DEPLOY) and value == PAUSED}
        self._api.patch_labels({STATE_LABEL: state, **paused})
        self._change = None


class _ModeError(Exception):
    """MIG mode cannot be turned on or off now."""


def _made_file(gpus: Sequence[ScenarioGpu]) -> str:
    """The configuration file made from what a node has; empty where no GPU has MIG."""
    products = [gpu.facts for gpu in gpus if gpu.facts.mig_capable]
    return generated(products) if products else ""


def _layout(gpu: ScenarioGpu) -> Counter[str] | None:
    return None if gpu.mig is None else Counter(instance.profile for instance in gpu.mig)


def _is_waited_for(pod: Mapping[str, Any]) -> bool:
    owners = pod["metadata"].get("ownerReferences", ())
    if not any(owner["kind"] == "DaemonSet" for owner in owners):
        return False
    app = pod["metadata"].get("labels", {}).get("app")
    return app in _APPS or _CLIENT in pod["spec"].get("nodeSelector", {})
