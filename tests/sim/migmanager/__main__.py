"""Run the mig-manager stand-in of one node until it is asked to end."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
import time
from pathlib import Path

from tests.cluster.errors import ClusterError
from tests.sim.hardware import Hardware
from tests.sim.migmanager.manager import MigManager
from tests.sim.node_api import NodeApi

_STEP_SECONDS = 0.3

# The ids that gpu-operator's own filters name.
_PCI_DEVICES = {
    "A100-40GB": ("0x20B0", "0x20B1", "0x20F1", "0x20F6"),
    "A100-80GB": ("0x20B2", "0x20B5", "0x20F3", "0x20F5"),
    "A30-24GB": ("0x20B7",),
    "H100-80GB": ("0x2330", "0x2331", "0x2322", "0x2324"),
    "H100-NVL-94GB": ("0x2321", "0x233A"),
    "H200-141GB": ("0x2335", "0x233B"),
    "B200-180GB": ("0x2901",),
    "GB200-186GB": ("0x2941",),
    "RTX-PRO-6000-96GB": ("0x2BB5",),
}


def main(argv: list[str]) -> int:
    """Parse the flags and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim.migmanager", description=__doc__)
    parser.add_argument("--node", required=True)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--kubelet-folder", type=Path, required=True, help="what the kubelet sees as /var/lib/kubelet")
    parser.add_argument("--config-map", default="gpu-operator/mig-parted-config", metavar="NAMESPACE/NAME")
    parser.add_argument("--wait-seconds", type=float, default=300.0, help="how long daemons have to go")
    parser.add_argument("--with-reboot", action="store_true")
    flags = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    namespace, _, name = flags.config_map.partition("/")
    sockets = flags.kubelet_folder / "device-plugins"
    api = NodeApi(flags.kubeconfig, flags.node)
    manager = MigManager(
        api=api,
        hardware=Hardware(),
        config_map=(namespace, name),
        plugin_gone=lambda: not any(sockets.glob("nvidia.com-*.sock")),
        pci_devices=_PCI_DEVICES,
        wait_seconds=flags.wait_seconds,
        with_reboot=flags.with_reboot,
        clock_seconds=time.monotonic,
    )
    ending = threading.Event()
    for asked in (signal.SIGTERM, signal.SIGINT):
        signal.signal(asked, lambda *_: ending.set())
    while not ending.wait(_STEP_SECONDS):
        try:
            manager.step()
        except ClusterError as error:
            logging.getLogger("migmanager").warning("%s", error)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
