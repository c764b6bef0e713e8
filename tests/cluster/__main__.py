"""The local control plane for a person: `python -m tests.cluster up | down`."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from tests.cluster.control_plane import running_control_plane
from tests.cluster.errors import ClusterError
from tests.cluster.standing import Standing

_ROOT = Path(__file__).parents[2]


def main(argv: list[str]) -> int:
    """Run one command and return its exit status: 0, 1 for a failure, 2 for wrong flags."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    parser.add_argument("--state", type=Path, default=_ROOT / ".cluster", metavar="DIR", help="where its state lies")
    up = commands.add_parser("up", help="start etcd, API server, controller-manager and scheduler")
    up.add_argument("--detach", action="store_true", help="leave it running; `down` ends it")
    commands.add_parser("down", help="end it, and remove what killed ones left behind")
    arguments = parser.parse_args(argv)
    standing = Standing(arguments.state.absolute())
    # However this process is asked to end, it stops what it started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if arguments.command == "down":
            print("the local cluster is stopped" if standing.stop() else "no local cluster is running")
        elif arguments.detach:
            command = [sys.executable, "-m", "tests.cluster", "--state", str(standing.folder), "up"]
            _announce(standing.detached(command, working_folder=_ROOT, report=_say))
        else:
            _hold(standing)
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _hold(standing: Standing) -> None:
    """Run a control plane until somebody ends this process."""
    with standing.claimed(), running_control_plane(controllers=True, report=_say) as access:
        _announce(standing.publish(access.kubeconfig))
        try:
            signal.pause()
        except KeyboardInterrupt:
            _say("stopping …")


def _announce(kubeconfig: Path) -> None:
    _say(f"the local control plane is ready; its kubeconfig is {kubeconfig}")
    print(f"export KUBECONFIG={kubeconfig}", flush=True)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
