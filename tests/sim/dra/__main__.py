"""Run the DRA stand-in of one node until it is asked to end."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from pathlib import Path

from tests.cluster.errors import ClusterError
from tests.sim.deviceplugin.service import Mount
from tests.sim.dra.driver import DraDriver
from tests.sim.hardware import Hardware
from tests.sim.node_api import NodeApi

_STEP_SECONDS = 0.3


def main(argv: list[str]) -> int:
    """Parse the flags and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim.dra", description=__doc__)
    parser.add_argument("--node", required=True)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--kubelet-folder", type=Path, required=True, help="what the kubelet sees as /var/lib/kubelet")
    parser.add_argument("--cdi-folder", type=Path, required=True, help="what the container runtime sees as /run/cdi")
    parser.add_argument("--mount", action="append", default=[], metavar="HOST:CONTAINER[:rw]")
    parser.add_argument("--named", default="", help="what devices are called, where not as NVIDIA's driver does")
    flags = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    driver = DraDriver(
        api=NodeApi(flags.kubeconfig, flags.node),
        hardware=Hardware(),
        kubelet_folder=flags.kubelet_folder,
        cdi_folder=flags.cdi_folder,
        mounts=[Mount(*mount.split(":")) for mount in flags.mount],
        named=flags.named,
    )
    ending = threading.Event()
    for asked in (signal.SIGTERM, signal.SIGINT):
        signal.signal(asked, lambda *_: ending.set())
    driver.start()
    while not ending.wait(_STEP_SECONDS):
        try:
            driver.step()
        except ClusterError as error:
            logging.getLogger("dra").warning("%s", error)
    driver.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
