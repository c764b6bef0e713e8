"""A local Kubernetes for a person: `python -m tests.cluster up` (`--nodes`, `--detach`) and `down`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cluster.control_plane import running_control_plane
from tests.cluster.errors import ClusterError
from tests.cluster.standing import Standing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cluster.access import ControlPlane

_ROOT = Path(__file__).parents[2]


def main(argv: list[str]) -> int:
    """Run one command and return its exit status: 0, 1 for a failure, 2 for wrong flags."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    parser.add_argument("--state", type=Path, default=_ROOT / ".cluster", metavar="DIR", help="where its state lies")
    up = commands.add_parser("up", help="start etcd, API server, controller-manager and scheduler")
    up.add_argument("--nodes", action="store_true", help="with two GPU nodes (simulated GPUs); needs root on Linux")
    up.add_argument("--detach", action="store_true", help="leave it running; `down` ends it")
    commands.add_parser("down", help="end it, and remove what killed ones left behind")
    commands.add_parser("prepare", help="build and fetch into your cache what the tests start")
    arguments = parser.parse_args(argv)
    standing = Standing(arguments.state.absolute())
    # However this process is asked to end, it stops what it started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if arguments.command == "down":
            _down(standing)
        elif arguments.command == "prepare":
            _prepare()
        elif arguments.detach:
            command = [sys.executable, "-m", "tests.cluster", "--state", str(standing.folder), "up"]
            command += ["--nodes"] if arguments.nodes else []
            _announce(standing.detached(command, working_folder=_ROOT, report=_say))
        else:
            _hold(standing, nodes=arguments.nodes)
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _hold(standing: Standing, *, nodes: bool) -> None:
    """Run a cluster until somebody ends this process."""
    running = _with_nodes() if nodes else running_control_plane(controllers=True, report=_say)
    with standing.claimed(), running as access:
        _say(f"kubectl and helm lie in {access.kubectl_program.parent}")
        _announce(standing.publish(access.kubeconfig))
        try:
            signal.pause()
        except KeyboardInterrupt:
            _say("stopping …")


@contextmanager
def _with_nodes() -> Iterator[ControlPlane]:
    # Imported here: a control plane alone needs nothing of the agent.
    from tests.cluster.nodes.cluster import running_nodes
    from tests.cluster.nodes.example import example_scenario, example_workloads
    from tests.cluster.nodes.gpus import GpuNodes

    with running_nodes(count=2, report=_say) as cluster:
        gpus = GpuNodes(cluster, example_scenario(), {})
        gpus.start()
        gpus.import_load_image()
        cluster.access.apply(*example_workloads())
        _say(f"its GPUs are those of {gpus.scenario} and change with it")
        yield cluster.access


def _down(standing: Standing) -> None:
    stopped = standing.stop()
    if os.geteuid() == 0:
        from tests.cluster.nodes.cluster import clean

        clean()
    print("the local cluster is stopped" if stopped else "no local cluster is running")


def _prepare() -> None:
    """Everything that is made once per machine, so that no test waits for it; what cannot be made here is said."""
    from tests.cluster.containerd import find_containerd
    from tests.cluster.images.build import product_images
    from tests.cluster.kwok import find_kwok
    from tests.cluster.nodes.images import pause_archive
    from tests.cluster.programs import find_binaries, find_clients
    from tests.sim.nvml.build import BuildError, built

    environment = os.environ
    steps: dict[str, Callable[[], object]] = {
        "kubectl and helm": lambda: find_clients(environment, _say),
        "Kubernetes": lambda: find_binaries(controllers=True, nodes=True, environment=environment, report=_say),
        "containerd": lambda: find_containerd(environment=environment, report=_say),
        "the image of test pods": lambda: pause_archive(environment),
        "the simulated driver": built,
        "the images of agent and operator": lambda: product_images(environment=environment, report=_say),
        "kwok": lambda: find_kwok(environment=environment, report=_say),
    }
    failed = []
    for name, make in steps.items():
        try:
            make()
        except (ClusterError, BuildError) as error:
            failed.append(f"{name}: {error}")
    if failed:
        raise ClusterError("not made, and tests that need it will say so:\n" + "\n".join(failed))
    _say("all that the tests start is in your cache")


def _announce(kubeconfig: Path) -> None:
    _say(f"the local cluster is ready; its kubeconfig is {kubeconfig}")
    print(f"export KUBECONFIG={kubeconfig}", flush=True)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
