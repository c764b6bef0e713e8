"""Settings of a running agent: a frozen value made once from flags and environment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from gpuwaste_agent.leaving import Handover
    from gpuwaste_agent.notices import NoticeSource
    from gpuwaste_agent.resource_slices import SliceSource
    from gpuwaste_agent.server import TlsFiles

__all__ = ["AgentSettings", "Simulation", "SourceSettings"]

_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """Run on a scenario instead of a node.

    Attributes:
        scenario: The scenario file.
        start_unix_ns: When its second 0 was.
        speed: Simulated seconds per second until the wall clock is reached; real time from then on.
    """

    scenario: Path
    start_unix_ns: int
    speed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSettings:
    """Where a real node's answers come from.

    Attributes:
        pod_resources: The kubelet's PodResources socket.
        proc: /proc of the host.
        pod_logs: /var/log/pods of the host; it joins names to UIDs.
        container_logs: /var/log/containers of the host; it joins names to container ids.
        processes: Attribute by process; needs the host's PID namespace.
        nvml_library: Path of libnvidia-ml.so.1 where the loader does not find it; None leaves it to the loader.
        kubelet_seconds: Time between two questions to the kubelet.
        dra: Resource claims hand the GPUs out.
        slices: Where the node's ResourceSlices are read; None knows claimed devices by their names alone.
        dcgm_url: `/metrics` of the node's own dcgm-exporter, empty if there is none to ask.
        dcgm_seconds: Time between two questions to it.
    """

    pod_resources: Path
    proc: Path
    pod_logs: Path
    container_logs: Path
    processes: bool = True
    nvml_library: Path | None = None
    kubelet_seconds: float = 5.0
    dra: bool = False
    slices: SliceSource | None = None
    dcgm_url: str = ""
    dcgm_seconds: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """Everything an agent is told.

    Attributes:
        node: Name of the node in Kubernetes.
        node_uid: Its UID, empty if not told.
        cluster: Name of the cluster, empty if not told.
        journal: The journal's directory.
        retention_hours: Windows are kept this long.
        journal_limit_bytes: Or until the journal is this large.
        interval_seconds: Time between readings, 0.25 to 60 on a real node.
        window_seconds: Length of a usage window.
        listen: Host and port of `/v1/windows`.
        metrics_listen: Host and port of `/metrics`, `/healthz` and `/readyz`.
        tls: Files of mutual TLS; None is plain HTTP, on loopback only.
        sources: Where a real node answers.
        simulation: A scenario instead of a real node.
        handovers: Who gets the records nobody has fetched when the agent leaves.
        notices: Who knows that the node is to be taken away; None asks nobody.
    """

    node: str
    journal: Path
    listen: tuple[str, int]
    metrics_listen: tuple[str, int]
    sources: SourceSettings
    node_uid: str = ""
    cluster: str = ""
    retention_hours: int = 72
    journal_limit_bytes: int = 2 << 30
    interval_seconds: float = 1.0
    window_seconds: int = 60
    tls: TlsFiles | None = None
    simulation: Simulation | None = None
    handovers: tuple[Handover, ...] = ()
    notices: NoticeSource | None = None

    @property
    def interval_ns(self) -> int:
        """Time between readings in nanoseconds."""
        return round(self.interval_seconds * _SECOND)

    @property
    def window_ns(self) -> int:
        """Length of a window in nanoseconds."""
        return self.window_seconds * _SECOND
