"""A whole test cluster: a control plane with nodes."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cluster.containerd import find_containerd
from tests.cluster.control_plane import SERVICE_ADDRESS, running_control_plane, wait_for_controllers
from tests.cluster.errors import ClusterError, MissingToolsError
from tests.cluster.nodes.cgroups import remove_cgroups
from tests.cluster.nodes.commands import command
from tests.cluster.nodes.images import pause_archive
from tests.cluster.nodes.network import HOST_ADDRESS, MOST_NODES, connect, make_bridge, remove_network
from tests.cluster.nodes.node import SEARCHED, Node, start_node
from tests.cluster.processes import Supervisor, wait_until
from tests.cluster.programs import find_binaries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tests.cluster.access import ControlPlane

__all__ = ["NodeCluster", "clean", "running_nodes"]

_LOCK = Path("/run/gpuwaste-nodes.lock")
_KUBELET_FOLDER = Path("/var/lib/kubelet")  # only a place to mount on
_READY_SECONDS = 90.0
_PROGRAMS = ("runc", "ip", "iptables", "nsenter", "unshare", "sysctl", "gcc", "make")
_CNI_PROGRAMS = ("ptp", "host-local", "loopback")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCluster:
    """A control plane and its nodes."""

    access: ControlPlane
    nodes: tuple[Node, ...]
    supervisor: Supervisor

    def node(self, name: str) -> Node:
        """The node of that name."""
        return next(node for node in self.nodes if node.name == name)

    def import_image(self, archive: Path) -> None:
        """Make the images of a Docker or OCI archive known to all nodes."""
        for node in self.nodes:
            command(*node.import_image(archive), timeout_seconds=120)


@contextmanager
def running_nodes(
    *, count: int, labels: Sequence[Mapping[str, str]] = (), report: Callable[[str], None] = print
) -> Iterator[NodeCluster]:
    """A control plane and `count` nodes, all Ready; at the end nothing of them is left.

    One such cluster runs on a machine at a time. What a killed one left behind is removed first.

    Args:
        count: how many nodes, at most MOST_NODES.
        labels: labels of each node, in order; nodes beyond the end have none.
        report: is given a line where something takes long.

    Raises:
        MissingToolsError: this machine cannot run nodes; the message says why.
        ClusterError: a node did not come up, or another such cluster is running.
    """
    _check_machine(count)
    binaries = find_binaries(controllers=True, nodes=True, environment=os.environ, report=report)
    if binaries.kubelet is None:
        raise ClusterError("the kubelet is missing")
    containerd = find_containerd(environment=os.environ, report=report)
    archives = [pause_archive(os.environ)]
    with _alone():
        make_bridge()
        with running_control_plane(
            controllers=True, address=HOST_ADDRESS, await_controllers=False, report=report
        ) as access:
            supervisor = Supervisor(logs=access.folder / "logs")
            try:
                nodes = []
                for number in range(count):
                    server = access.server.removeprefix("https://")
                    network = connect(number, others=count, service=SERVICE_ADDRESS, server=server)
                    node = start_node(
                        number,
                        access=access,
                        network=network,
                        kubelet=binaries.kubelet,
                        containerd=containerd,
                        archives=archives,
                        labels=labels[number] if number < len(labels) else {},
                        supervisor=supervisor,
                    )
                    nodes.append(node)
                cluster = NodeCluster(access=access, nodes=tuple(nodes), supervisor=supervisor)
                _wait_ready(cluster)
                wait_for_controllers(access)
                yield cluster
            finally:
                supervisor.stop()
                _remove()


def clean() -> bool:
    """Remove what a killed cluster left behind; False where one is running or this user may not."""
    if os.geteuid() != 0:
        return False
    try:
        with _alone():
            return True
    except ClusterError:
        return False


def _check_machine(count: int) -> None:
    if not 0 < count <= MOST_NODES:
        raise ClusterError(f"a test cluster has 1 to {MOST_NODES} nodes, not {count}")
    if os.uname().sysname != "Linux" or os.geteuid() != 0:
        raise MissingToolsError("test nodes need root on Linux: run as root")
    missing = [name for name in _PROGRAMS if shutil.which(name, path=SEARCHED) is None]
    missing += [f"/usr/lib/cni/{name}" for name in _CNI_PROGRAMS if not Path("/usr/lib/cni", name).exists()]
    if missing:
        raise MissingToolsError(f"test nodes need {', '.join(missing)}: run `make deps`, or see tests/apt.txt")


@contextmanager
def _alone() -> Iterator[None]:
    """Be the only node cluster of the machine, with a clean start and a clean end."""
    descriptor = os.open(_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ClusterError(
                "another cluster with nodes is running on this machine: end it (`make clean-cluster`)"
            ) from None
        _remove()
        _KUBELET_FOLDER.mkdir(exist_ok=True)
        try:
            yield
        finally:
            _remove()
            with suppress(OSError):  # this machine's own kubelet uses it
                _KUBELET_FOLDER.rmdir()
    finally:
        os.close(descriptor)


def _remove() -> None:
    remove_cgroups()
    remove_network()


def _wait_ready(cluster: NodeCluster) -> None:
    def ready() -> bool:
        found = cluster.access.api().get("/api/v1/nodes")["items"]
        conditions = [c for node in found for c in node["status"].get("conditions", ()) if c["type"] == "Ready"]
        return bool(sum(condition["status"] == "True" for condition in conditions) == len(cluster.nodes))

    try:
        wait_until(
            ready,
            what=f"{len(cluster.nodes)} nodes getting Ready",
            deadline_seconds=_READY_SECONDS,
            meanwhile=cluster.supervisor.check_alive,
        )
    except ClusterError as error:
        raise ClusterError(f"{error}\n{_reasons(cluster)}") from None


def _reasons(cluster: NodeCluster) -> str:
    """The ends of the logs of the daemons, for when nodes do not come up."""
    logs = [node.folder / name for node in cluster.nodes for name in ("containerd.log", "kubelet.log")]
    ends = [f"{log}:\n{_end(log)}" for log in logs if log.exists()]
    conditions = [node["status"].get("conditions") for node in cluster.access.api().get("/api/v1/nodes")["items"]]
    return "\n".join([*ends, json.dumps(conditions)])


def _end(log: Path, lines: int = 12) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
