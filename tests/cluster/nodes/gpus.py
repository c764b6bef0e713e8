"""Simulated GPUs for the nodes of a test cluster: one scenario file, and each node's driver and daemons."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cluster.nodes.images import archive
from tests.cluster.processes import wait_until
from tests.sim.deviceplugin.config import parse_config
from tests.sim.deviceplugin.offer import offer
from tests.sim.dra.slices import device_classes
from tests.sim.nvml.build import built
from tests.sim.nvml.state import create_state

from gpuwaste_agent.simulate.scenario import ScenarioGpu, ScenarioInstance
from gpuwaste_agent.simulate.scenario_file import dump_scenario

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.cluster.nodes.cluster import NodeCluster
    from tests.cluster.nodes.node import Node
    from tests.cluster.processes import Child

    from gpuwaste_agent.simulate.scenario import Scenario

__all__ = ["LOAD_IMAGE", "GpuNodes", "a_gpu", "an_instance"]

CONFIG_MAP = ("gpu-operator", "device-plugin-config")

LOAD_IMAGE = "images.invalid/gpuwaste/load:1"

_LIBRARY = "libnvidia-ml.so.1"
_STATE = "/run/gpuwaste-sim/nvml.state"  # where the library looks by itself
_CONFIGS = {"default": "version: v1\nflags: {migStrategy: mixed}\n"}
_DAEMONS = ("device-plugin", "gpu-feature-discovery", "dcgm-exporter", "dcgm")
_ROOT = Path(__file__).parents[3]
_READY_SECONDS = 30.0


def a_gpu(node: int, index: int, product: str, mig: Sequence[ScenarioInstance] | None = None) -> ScenarioGpu:
    """A GPU whose UUID tells which it is."""
    uuid = f"GPU-{node:08x}-0000-4000-8000-{index:012x}"
    return ScenarioGpu(uuid=uuid, product=product, mig=None if mig is None else tuple(mig))


def an_instance(node: int, index: int, profile: str, start: int) -> ScenarioInstance:
    """A MIG instance whose UUID tells on which GPU and from which memory unit."""
    return ScenarioInstance(uuid=f"MIG-{node:08x}-0000-4000-8000-{index:08x}{start:04x}", profile=profile, start=start)


class GpuNodes:
    """The stand-ins of a cluster's nodes, all on one scenario file.

    Args:
        cluster: the running cluster.
        scenario: the GPUs; its nodes bear the cluster's names.
        configs: what the device plugin's ConfigMap holds, by key; `default` holds without a label.
        mig_config: mig-parted's configuration file; without it mig-manager makes one up.
    """

    def __init__(
        self,
        cluster: NodeCluster,
        scenario: Scenario,
        configs: Mapping[str, str],
        *,
        mig_config: str | None = None,
    ) -> None:
        config = parse_config({**_CONFIGS, **configs}["default"])
        self._expected = {
            node.name: {name: len(devices) for name, devices in offer(node.gpus, config).items()}
            for node in scenario.nodes
        }
        self._cluster = cluster
        self.driver = built()
        self._api = cluster.access.api()
        self._children: dict[str, Child] = {}
        self.scenario = cluster.access.folder / "scenario.json"
        self.scenario.write_text(dump_scenario(scenario))
        for node in cluster.nodes:
            self._start_driver(node, scenario)
        namespace, name = CONFIG_MAP
        cluster.access.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": name, "namespace": namespace},
                "data": {**_CONFIGS, **configs},
            },
        )
        if mig_config is not None:
            metadata = {"name": "mig-parted-config", "namespace": namespace}
            data = {"config.yaml": mig_config}
            cluster.access.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})

    def start(self) -> None:
        """Start a device plugin and a mig-manager for each node, and return when every GPU is offered."""
        for node in self._cluster.nodes:
            self.start_plugin(node)
            self.start_mig_manager(node)
        # As NVIDIA's operator labels GPU nodes; mig-manager pauses daemons by these.
        deployed = [f"nvidia.com/gpu.deploy.{daemon}=true" for daemon in _DAEMONS]
        self._cluster.access.kubectl("label", "nodes", "--all", "--overwrite", *deployed)
        wait_until(
            lambda: all(self.allocatable(node) == devices for node, devices in self._expected.items()),
            what=f"nodes offering {self._expected}",
            deadline_seconds=_READY_SECONDS,
            meanwhile=self._cluster.supervisor.check_alive,
        )

    def start_plugin(self, node: Node) -> None:
        """Start the device plugin of one node."""
        flags = ["--kubelet-folder", str(node.kubelet_folder), "--default-config", "default"]
        self._start("deviceplugin", node, *flags, *self._mounts(node))

    def start_mig_manager(self, node: Node, *, wait_seconds: float = 300.0, with_reboot: bool = False) -> None:
        """Start the mig-manager of one node; daemons have `wait_seconds` to go before it gives up."""
        more = ["--with-reboot"] if with_reboot else []
        self._start(
            "migmanager", node, "--kubelet-folder", node.kubelet_folder, "--wait-seconds", str(wait_seconds), *more
        )

    def start_dra(self, node: Node, *, named: str = "") -> None:
        """Start the DRA driver of one node, beside or instead of its device plugin.

        With `named` its devices are called so and numbered, and only its ResourceSlice tells what they are.
        """
        self._cluster.access.apply(*device_classes())
        flags = ["--kubelet-folder", str(node.kubelet_folder), "--cdi-folder", str(node.cdi_folder), "--named", named]
        self._start("dra", node, *flags, *self._mounts(node))

    def _mounts(self, node: Node) -> list[str]:
        """What containers with a GPU of the node find: the driver's library, and its GPUs."""
        return [
            f"--mount={self.driver}/{_LIBRARY}:/usr/lib/x86_64-linux-gnu/{_LIBRARY}",
            f"--mount={_state_of(node)}:{_STATE}:rw",
        ]

    def driver_environment(self, node: Node) -> dict[str, str]:
        """What a program on the host needs in its environment so that NVML answers for a node."""
        return {"LD_LIBRARY_PATH": str(self.driver), "GPUWASTE_SIM_STATE": str(_state_of(node))}

    def gpus(self, node: Node) -> tuple[ScenarioGpu, ...]:
        """A node's GPUs and their MIG instances, as NVML has them now."""
        environment = {**os.environ, **self.driver_environment(node)}
        argv = [sys.executable, "-m", "tests.sim.hardware"]
        done = subprocess.run(argv, cwd=_ROOT, env=environment, capture_output=True, text=True, timeout=30, check=True)
        return tuple(
            ScenarioGpu(
                uuid=gpu["uuid"],
                product=gpu["product"],
                mig=None if gpu["mig"] is None else tuple(ScenarioInstance(**each) for each in gpu["mig"]),
            )
            for gpu in json.loads(done.stdout)
        )

    def control_driver(self, node: Node, *args: str) -> None:
        """Change what a node's driver says, as `python -m tests.sim.nvml.control` does."""
        environment = {**os.environ, **self.driver_environment(node)}
        argv = [sys.executable, "-m", "tests.sim.nvml.control", *args]
        subprocess.run(argv, cwd=_ROOT, env=environment, capture_output=True, timeout=30, check=True)

    def import_load_image(self) -> None:
        """Make LOAD_IMAGE known to all nodes: it puts the load that its arguments say on the GPUs it is given."""
        image = self.scenario.with_name("load.tar")
        archive(image, image=LOAD_IMAGE, program=self.driver / "gpuwaste-load")
        self._cluster.import_image(image)

    def _start_driver(self, node: Node, scenario: Scenario) -> None:
        """Make the state of a node's driver, and keep it as the scenario file says."""
        now_ns = int(datetime.now(UTC).timestamp() * 1_000_000) * 1000
        create_state(_state_of(node), scenario.node(node.name), start_utc_ns=now_ns)
        access = self._cluster.access
        argv = [sys.executable, "-m", "tests.sim.nvml.control", "--state", str(_state_of(node)), "follow"]
        argv += ["--scenario", str(self.scenario), "--node", node.name]
        environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(access.folder / "home")}
        self._cluster.supervisor.start(f"driver-{node.name}", argv, environment=environment, folder=_ROOT)

    def stop(self, program: str, node: Node) -> None:
        """End the `deviceplugin`, `migmanager` or `dra` of one node."""
        self._cluster.supervisor.stop_one(self._children.pop(f"{program}-{node.name}"))

    def allocatable(self, node: str) -> dict[str, int]:
        """What a node offers of NVIDIA's resources, as far as it offers any."""
        found = self._api.get(f"/api/v1/nodes/{node}")["status"]["allocatable"]
        return {name: int(count) for name, count in found.items() if name.startswith("nvidia.com/") and int(count)}

    def _start(self, program: str, node: Node, *flags: str | Path) -> None:
        name = f"{program}-{node.name}"
        access = self._cluster.access
        argv = [sys.executable, "-m", f"tests.sim.{program}", "--node", node.name]
        argv += ["--kubeconfig", str(access.kubeconfig), *map(str, flags)]
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(access.folder / "home"),
            **self.driver_environment(node),
        }
        self._children[name] = self._cluster.supervisor.start(name, argv, environment=environment, folder=_ROOT)


def _state_of(node: Node) -> Path:
    return node.folder / "nvml.state"
