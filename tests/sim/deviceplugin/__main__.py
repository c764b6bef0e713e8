"""Run the device-plugin stand-in of one node until it is asked to end."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from pathlib import Path

from tests.cluster.errors import ClusterError
from tests.sim.deviceplugin.plugin import DevicePlugin
from tests.sim.deviceplugin.service import Mount
from tests.sim.hardware import Hardware
from tests.sim.node_api import NodeApi

_STEP_SECONDS = 0.3


def main(argv: list[str]) -> int:
    """Parse the flags and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim.deviceplugin", description=__doc__)
    parser.add_argument("--node", required=True)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--kubelet-folder", type=Path, required=True, help="what the kubelet sees as /var/lib/kubelet")
    parser.add_argument("--config-map", default="gpu-operator/device-plugin-config", metavar="NAMESPACE/NAME")
    parser.add_argument("--default-config", default="", metavar="KEY")
    parser.add_argument("--mount", action="append", default=[], metavar="HOST:CONTAINER[:rw]")
    flags = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    namespace, _, name = flags.config_map.partition("/")
    plugin = DevicePlugin(
        api=NodeApi(flags.kubeconfig, flags.node),
        hardware=Hardware(),
        folder=flags.kubelet_folder / "device-plugins",
        config_map=(namespace, name),
        default=flags.default_config,
        mounts=[Mount(*mount.split(":")) for mount in flags.mount],
    )
    ending = threading.Event()
    for asked in (signal.SIGTERM, signal.SIGINT):
        signal.signal(asked, lambda *_: ending.set())
    while not ending.wait(_STEP_SECONDS):
        try:
            plugin.step()
        except ClusterError as error:
            logging.getLogger("deviceplugin").warning("%s", error)
    plugin.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
