"""A bridge on the host, and for each node a network namespace with one leg in it.

Addresses come from the ranges set aside for documentation, so they belong to nobody: the bridge and the nodes
from 198.51.100.0/24, pods from 203.0.113.128/25. Nodes have no default route and the host does not forward:
nothing of a test cluster reaches another machine.
"""

from __future__ import annotations

import ipaddress
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.errors import ClusterError
from tests.cluster.nodes.commands import command

__all__ = ["HOST_ADDRESS", "MOST_NODES", "NodeNetwork", "connect", "make_bridge", "node_network", "remove_network"]

BRIDGE = "gpuwaste0"
HOST_ADDRESS = "198.51.100.1"
MOST_NODES = 4

_NODES = ipaddress.ip_network("198.51.100.0/24")
_PODS = ipaddress.ip_network("203.0.113.128/25")
_POD_PREFIX = 27
_PREFIX = "gpuwaste-node-"
_NAMESPACES = Path("/run/netns")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeNetwork:
    """Where one node lives in the network."""

    namespace: str
    address: str
    pods: str

    @property
    def path(self) -> Path:
        """The file that stands for the network namespace."""
        return _NAMESPACES / self.namespace


def node_network(number: int) -> NodeNetwork:
    """Addresses of node `number`, from 0 to MOST_NODES − 1."""
    pods = list(_PODS.subnets(new_prefix=_POD_PREFIX))
    return NodeNetwork(
        namespace=f"{_PREFIX}{number}", address=str(_NODES.network_address + 10 + number), pods=str(pods[number])
    )


def make_bridge() -> None:
    """Make the bridge.

    Raises:
        ClusterError: this machine uses one of the ranges.
    """
    for route in json.loads(command("ip", "-json", "route", "show", "table", "all")):
        with suppress(ValueError):  # `default`, and kinds of route that name no range
            used = ipaddress.ip_network(route["dst"])
            if used.version == 4 and (used.overlaps(_NODES) or used.overlaps(_PODS)) and used.prefixlen > 0:
                raise ClusterError(
                    f"a test node needs {_NODES} and {_PODS}, but this machine has a route to {used} over "
                    f"{route.get('dev')}: the node tests cannot run here"
                )
    command("ip", "link", "add", BRIDGE, "type", "bridge")
    command("ip", "address", "add", f"{HOST_ADDRESS}/{_NODES.prefixlen}", "dev", BRIDGE)
    command("ip", "link", "set", BRIDGE, "up")


def connect(number: int, *, others: int, service: str, server: str) -> NodeNetwork:
    """Make the network namespace of node `number`.

    Args:
        number: which node.
        others: how many nodes there are; pods reach each other across them.
        service: address of the service `kubernetes`, port 443.
        server: `address:port` of the API server, to which that service leads.
    """
    network = node_network(number)
    host_end, node_end = f"gpuwaste-h{number}", f"gpuwaste-n{number}"
    command("ip", "netns", "add", network.namespace)
    command("ip", "link", "add", host_end, "type", "veth", "peer", "name", node_end)
    command("ip", "link", "set", node_end, "netns", network.namespace)
    command("ip", "link", "set", host_end, "master", BRIDGE, "up")
    inside = ("ip", "-n", network.namespace)
    command(*inside, "link", "set", "lo", "up")
    command(*inside, "link", "set", node_end, "name", "eth0")
    command(*inside, "address", "add", f"{network.address}/{_NODES.prefixlen}", "dev", "eth0")
    command(*inside, "link", "set", "eth0", "up")
    for other in range(others):
        if other != number:
            there = node_network(other)
            command(*inside, "route", "add", there.pods, "via", there.address)
    # A host-network pod's packet needs some route before its address is translated.
    command(*inside, "route", "add", f"{service}/32", "via", HOST_ADDRESS)
    within = ("nsenter", f"--net={network.path}")
    command(*within, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
    for chain in ("PREROUTING", "OUTPUT"):
        rule = ("-d", service, "-p", "tcp", "--dport", "443", "-j", "DNAT", "--to-destination", server)
        command(*within, "iptables", "-w", "-t", "nat", "-A", chain, *rule)
    command("ip", "route", "add", network.pods, "via", network.address, "dev", BRIDGE)
    return network


def remove_network() -> None:
    """Remove the bridge, all legs and all namespaces, also those that a killed run left."""
    for file in sorted(_NAMESPACES.glob(f"{_PREFIX}*")):
        command("ip", "netns", "delete", file.name)
    for link in json.loads(command("ip", "-json", "link", "show")):
        if link["ifname"] == BRIDGE or link["ifname"].startswith("gpuwaste-h"):
            with suppress(ClusterError):  # a leg goes with its namespace, a moment later
                command("ip", "link", "delete", link["ifname"])
    # ip mounts this folder on itself for its first namespace and leaves it so.
    mounted = f" {_NAMESPACES} " in Path("/proc/self/mountinfo").read_text()
    if mounted and not any(_NAMESPACES.iterdir()):
        command("umount", _NAMESPACES)
