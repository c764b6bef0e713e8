"""One node: a shell as first process of its own namespaces, with containerd and a kubelet below it."""

from __future__ import annotations

import json
import shlex
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.cluster.access import kubeconfig
from tests.cluster.errors import ClusterError
from tests.cluster.nodes.cgroups import cgroup_of, make_cgroups
from tests.cluster.nodes.images import PAUSE_IMAGE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.cluster.access import ControlPlane
    from tests.cluster.nodes.network import NodeNetwork
    from tests.cluster.processes import Child, Supervisor

__all__ = ["SEARCHED", "Node", "start_node"]

SEARCHED = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_KUBELET_FOLDER = Path("/var/lib/kubelet")
_CNI_PROGRAMS = Path("/usr/lib/cni")

# The kubelet wants these, and would set them for the whole machine.
_KERNEL_SETTINGS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A running node.

    Attributes:
        name: its name in the API.
        folder: where all its files lie, seen from the host.
        network: its addresses.
        init: the process that, when it ends, takes the whole node with it.
        ctr: the program that asks the node's containerd.
    """

    name: str
    folder: Path
    network: NodeNetwork
    init: Child
    ctr: Path

    @property
    def kubelet_folder(self) -> Path:
        """What the node sees as /var/lib/kubelet; sockets in it work from the host too."""
        return self.folder / "kubelet"

    @property
    def containerd_socket(self) -> Path:
        """The socket of the node's containerd."""
        return self.folder / "containerd.sock"

    @property
    def cdi_folder(self) -> Path:
        """What the node sees as /run/cdi, where drivers write what containers with their devices get."""
        return self.folder / "cdi"

    def inside(self, *argv: str | Path) -> list[str]:
        """The command that runs `argv` inside the node."""
        unshare = self.init.process.pid
        children = Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split()
        if not children:
            raise ClusterError(f"node {self.name} is gone:\n{self.init.log_tail()}")
        return ["nsenter", "--target", children[0], "--mount", "--net", "--pid", "--", *map(str, argv)]

    def import_image(self, archive: Path) -> list[str]:
        """The command that makes the images of an archive known to the node."""
        return [*_ctr(self.ctr, self.containerd_socket), "images", "import", str(archive)]


def start_node(
    number: int,
    *,
    access: ControlPlane,
    network: NodeNetwork,
    kubelet: Path,
    containerd: Path,
    archives: Sequence[Path],
    labels: Mapping[str, str],
    supervisor: Supervisor,
) -> Node:
    """Start node `number` as `gpu-node-<number>`; it registers itself with the API server of `access`.

    Args:
        number: which node.
        access: the control plane.
        network: the node's addresses.
        kubelet: the program.
        containerd: the folder of containerd's programs.
        archives: images that it has from the beginning.
        labels: of the node.
        supervisor: takes care of the node's first process.
    """
    name = f"gpu-node-{number}"
    folder = access.folder / f"n{number}"
    for part in ("kubelet", "log", "cni", "cni-state", "cdi", "kernel", "containerd"):
        (folder / part).mkdir(parents=True)
    (folder / "containerd.toml").write_text(_containerd_config(folder))
    (folder / "cni" / "10-pods.conflist").write_text(json.dumps(_cni_config(folder, network), indent=1))
    _write_kubelet_files(folder, name, number, access, network)
    for file, value in _KERNEL_SETTINGS.items():
        (folder / "kernel" / file.replace("/", ".")).write_text(value)
    flags = [f"--config={folder}/kubelet.json", f"--kubeconfig={folder}/kubeconfig", f"--hostname-override={name}"]
    flags += [f"--node-ip={network.address}"]
    flags += ["--node-labels=" + ",".join(f"{key}={value}" for key, value in labels.items())]
    lines = [f"echo 0 > {entrance}" for entrance in make_cgroups(number)]
    lines += _mount_lines(folder)
    lines += _daemon_lines(folder, ctr=containerd / "ctr", kubelet_command=[str(kubelet), *flags], archives=archives)
    script = folder / "init.sh"
    script.write_text("\n".join(["set -eu", *lines, "wait", ""]))
    # `ip netns exec` would mount /sys afresh and hide the control groups.
    argv = ["nsenter", f"--net={network.path}", "unshare", "--mount", "--pid", "--fork", "--kill-child"]
    init = supervisor.start(
        name,
        [*argv, "--mount-proc", "bash", script],
        # containerd finds its shim there; runc is the machine's.
        environment={"PATH": f"{containerd}:{SEARCHED}", "HOME": "/root"},
        folder=folder,
        # unshare holds other signals back while its child lives.
        end_by=signal.SIGKILL,
    )
    return Node(name=name, folder=folder, network=network, init=init, ctr=containerd / "ctr")


def _ctr(program: Path, socket: Path) -> list[str]:
    return [str(program), "--address", str(socket), "--namespace", "k8s.io"]


def _containerd_config(folder: Path) -> str:
    images, runtime = (f'plugins."io.containerd.cri.v1.{part}"' for part in ("images", "runtime"))
    return f"""version = 3
root = "{folder}/containerd/root"
state = "{folder}/containerd/state"
[grpc]
address = "{folder}/containerd.sock"
[{images}]
snapshotter = "overlayfs"
[{images}.pinned_images]
sandbox = "{PAUSE_IMAGE}"
[{runtime}]
# Lowering a score needs CAP_SYS_RESOURCE, which a container or a small machine may not give.
restrict_oom_score_adj = true
[{runtime}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[{runtime}.cni]
bin_dirs = ["{_CNI_PROGRAMS}"]
conf_dir = "{folder}/cni"
"""


def _cni_config(folder: Path, network: NodeNetwork) -> dict[str, Any]:
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": network.pods}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": f"{folder}/cni-state",
    }
    plugin = {"type": "ptp", "ipMasq": False, "ipam": addresses}
    return {"cniVersion": "0.4.0", "name": network.namespace, "plugins": [plugin]}


def _write_kubelet_files(folder: Path, name: str, number: int, access: ControlPlane, network: NodeNetwork) -> None:
    client = access.authority.issue(f"{name}-client", common_name=f"system:node:{name}", group="system:nodes")
    serving = access.authority.issue(f"{name}-serving", common_name=name, hosts=[name, network.address])
    config = kubeconfig(
        server=access.server,
        certificate_authority=access.certificate_authority,
        client=(client.certificate, client.key),
    )
    (folder / "kubeconfig").write_text(config)
    content = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": network.address,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(access.certificate_authority)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(serving.certificate),
        "tlsPrivateKeyFile": str(serving.key),
        "containerRuntimeEndpoint": f"unix://{folder}/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup_of(number),
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        "makeIPTablesUtilChains": False,
        "oomScoreAdj": 0,
        "resolvConf": "",
        "healthzPort": 0,
        # A full disk or a busy machine is no subject of these tests.
        "evictionHard": {"memory.available": "10Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        # New devices are offered after a second, and changed ConfigMaps reach pods after a few.
        "nodeStatusUpdateFrequency": "1s",
        "syncFrequency": "3s",
    }
    (folder / "kubelet.json").write_text(json.dumps(content, indent=1))


def _mount_lines(folder: Path) -> list[str]:
    """Shell commands that give the node its own places where programs insist on fixed paths."""
    bound = [(folder / "kubelet", _KUBELET_FOLDER), (folder / "log", Path("/var/log"))]
    bound += [(folder / "kernel" / file.replace("/", "."), Path("/proc/sys") / file) for file in _KERNEL_SETTINGS]
    return [
        # What containers mount has to be seen by containers started later, and by nobody outside.
        "mount --make-rshared /",
        *(shlex.join(["mount", "--bind", str(source), str(target)]) for source, target in bound),
        # Hides the sockets of the host's own daemons too.
        "mount -t tmpfs tmpfs /run",
        "mkdir -p /run/netns /run/containerd /run/cdi /run/nri /run/lock",
        # The DRA driver stands outside the node.
        shlex.join(["mount", "--bind", str(folder / "cdi"), "/run/cdi"]),
    ]


def _daemon_lines(folder: Path, *, ctr: Path, kubelet_command: Sequence[str], archives: Sequence[Path]) -> list[str]:
    """Shell commands that start the daemons; one that ends is started again, as systemd would."""

    def kept_running(argv: Sequence[str], log: str) -> str:
        return f"(while true; do {shlex.join(argv)} || true; sleep 1; done > {shlex.quote(f'{folder}/{log}')} 2>&1) &"

    ask = shlex.join(_ctr(ctr, folder / "containerd.sock"))
    return [
        kept_running(["containerd", "--config", f"{folder}/containerd.toml"], "containerd.log"),
        f"for attempt in $(seq 200); do {ask} version > /dev/null 2>&1 && break; sleep 0.05; done",
        *(f"{ask} images import {shlex.quote(str(file))}" for file in archives),
        kept_running(kubelet_command, "kubelet.log"),
    ]
