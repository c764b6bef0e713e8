"""What `gpuwaste scan` costs on a large control plane: 1,000 nodes with 8 GPUs each and 10,000 pods.

A real API server holds the objects, a real Prometheus the readings; the scan runs as a process of its own, as a user
would run it. Prints one line a figure (`name value unit target ok|missed`), writes the same as JSON with `--out`, and
exits 1 when a target is missed. The baseline is the same lists from the same server, read and let go. `--quick` takes
a twentieth of the nodes and pods and an hour of readings.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.cluster.control_plane import running_control_plane
from tests.cluster.prometheus import blocks_from, running_prometheus
from tests.perf.ledger.bench import Figure

from gpuwaste.cluster.kinds import NAMESPACES, NODES, PODS, ResourceKind
from gpuwaste.cluster.kube import open_api

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpuwaste.cluster.api import ClusterApi

_SECONDS, _MEGABYTES = 30.0, 500.0
_GPUS = 8
_PODS_A_NODE = 10
_HOLDERS_A_NODE = 7
_EVERY_S = 300
_NAMESPACES = 20
_AT_ONCE = 24
_MODEL = "NVIDIA H100 80GB HBM3"


def node_name(number: int) -> str:
    return f"gpu-{number:04d}"


def pod_name(node: int, number: int) -> str:
    return f"{'train' if number < _HOLDERS_A_NODE else 'helper'}-{node:04d}-{number}"


def namespace_of(node: int) -> str:
    return f"team-{node % _NAMESPACES:02d}"


def node_objects(number: int, since: str) -> tuple[dict[str, Any], dict[str, Any]]:
    identity = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node_name(number)}}
    labels = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "node.kubernetes.io/instance-type": "p5.48xlarge"}
    amounts = {"cpu": "192", "memory": "2048Gi", "pods": "110", "nvidia.com/gpu": str(_GPUS)}
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": since, "lastHeartbeatTime": since}
    body = {**identity, "metadata": {"name": node_name(number), "labels": labels}}
    return body, {**identity, "status": {"capacity": amounts, "allocatable": amounts, "conditions": [ready]}}


def pod_objects(node: int, number: int, since: str) -> tuple[dict[str, Any], dict[str, Any]]:
    name = {"name": pod_name(node, number), "namespace": namespace_of(node)}
    gpu = {"nvidia.com/gpu": "1"} if number < _HOLDERS_A_NODE else {}
    container = {
        "name": "main",
        "image": "app:1",
        "env": [{"name": f"SETTING_{i}", "value": "something that a real pod carries along"} for i in range(20)],
        "resources": {"requests": {"cpu": "4", "memory": "16Gi", **gpu}, "limits": gpu},
    }
    identity = {"apiVersion": "v1", "kind": "Pod", "metadata": name}
    labels = {"app": f"app-{node % 200}", "team": namespace_of(node)}
    body = {
        **identity,
        "metadata": {**name, "labels": labels},
        "spec": {"nodeName": node_name(node), "containers": [container], "terminationGracePeriodSeconds": 0},
    }
    return body, {**identity, "status": {"phase": "Running", "startTime": since}}


async def fill(kubeconfig: Path, nodes: int, since: str) -> None:
    """Create everything."""
    api = open_api(component="bench", kubeconfig=kubeconfig)
    gate = asyncio.Semaphore(_AT_ONCE)

    async def make(kind: ResourceKind, body: dict[str, Any], status: dict[str, Any] | None) -> None:
        async with gate:
            await api.apply(kind, body, field_manager="bench")
            if status is not None:
                await api.apply_status(kind, status, field_manager="bench")

    def all_pods() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        for node in range(nodes):
            for number in range(_PODS_A_NODE):
                yield pod_objects(node, number, since)

    spaces = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace_of(i)}} for i in range(_NAMESPACES)
    ]
    await asyncio.gather(*(make(NAMESPACES, body, None) for body in spaces))
    await asyncio.gather(*(make(NODES, *node_objects(number, since)) for number in range(nodes)))
    await asyncio.gather(*(make(PODS, *pair) for pair in all_pods()))
    await api.close()


def readings(nodes: int, start_s: int, end_s: int) -> Iterator[str]:
    """dcgm-exporter's lines: seven of eight GPUs are held, at loads that differ."""
    times = range(start_s + _EVERY_S, end_s + 1, _EVERY_S)
    for node in range(nodes):
        for gpu in range(_GPUS):
            labels = f'UUID="GPU-{node:04d}-{gpu}",gpu="{gpu}",modelName="{_MODEL}",Hostname="{node_name(node)}"'
            if gpu < _HOLDERS_A_NODE:
                labels += f',namespace="{namespace_of(node)}",pod="{pod_name(node, gpu)}",container="main"'
            load = (node * 7 + gpu * 13) % 101 / 100 if gpu < _HOLDERS_A_NODE else 0.0
            for name, value in (
                ("DCGM_FI_DEV_GPU_UTIL", round(load * 100)),
                ("DCGM_FI_PROF_SM_ACTIVE", load / 2),
                ("DCGM_FI_DEV_FB_USED", 1000 + round(load * 60_000)),
            ):
                yield "".join(f"{name}{{{labels}}} {value} {at}\n" for at in times)
    yield "# EOF\n"


async def _listed(api: ClusterApi) -> None:
    for kind in (NODES, NAMESPACES, PODS):
        token = ""
        while True:
            page = await api.list_page(kind, limit=500, continue_token=token)
            token = page.continue_token
            if not token:
                break


def list_all(kubeconfig: Path) -> float:
    """The baseline: seconds for the same lists from the same server, read and let go."""

    async def run() -> float:
        api = open_api(component="bench", kubeconfig=kubeconfig)
        before = time.perf_counter()
        await _listed(api)
        taken = time.perf_counter() - before
        await api.close()
        return taken

    return asyncio.run(run())


def scan(url: str, kubeconfig: Path, hours: int) -> tuple[dict[str, Any], float, float, float]:
    """A scan in a process of its own: what it said, seconds, CPU seconds and peak memory in MB."""
    program = [sys.executable, "-c", "from gpuwaste.cli.main import main; main()"]
    command = [*program, "scan", "--prometheus", url, "--kubeconfig", str(kubeconfig)]
    before = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--hours", str(hours), "-o", "json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    said, wrong = process.communicate()
    seconds = time.perf_counter() - before
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise SystemExit(f"scan ended with {process.returncode}: {wrong}")
    return json.loads(said), seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1000


def measure(nodes: int, hours: int) -> list[Figure]:
    """Fill both servers and scan."""
    # An hour more than asked for, up to now: the scan takes the hours that are over when it begins, minutes from here.
    end = datetime.now(UTC)
    start = end.replace(minute=0, second=0, microsecond=0) - timedelta(hours=hours + 1)
    with (
        tempfile.TemporaryDirectory(prefix="gpuwaste-bench-") as folder,
        running_control_plane(controllers=False) as plane,
    ):
        before = time.perf_counter()
        asyncio.run(fill(plane.kubeconfig, nodes, start.strftime("%Y-%m-%dT%H:%M:%SZ")))
        filled = time.perf_counter() - before
        blocks = Path(folder) / "blocks"
        blocks_from(readings(nodes, int(start.timestamp()), int(end.timestamp())), blocks)
        with running_prometheus(data=blocks) as prometheus:
            baseline = list_all(plane.kubeconfig)
            found, seconds, cpu, megabytes = _in_child(prometheus.url, plane.kubeconfig, hours)
    if (found["nodes"], found["gpus"], found["pods"]) != (nodes, nodes * _GPUS, nodes * _HOLDERS_A_NODE):
        raise SystemExit(f"the scan saw {found['nodes']} nodes, {found['gpus']} GPUs and {found['pods']} pods")
    return [
        Figure(name="scan_nodes", value=nodes, unit="nodes"),
        Figure(name="scan_pods", value=nodes * _PODS_A_NODE, unit="pods"),
        Figure(name="scan_window", value=found["window_seconds"], unit="s"),
        Figure(name="scan_fill", value=filled, unit="s"),
        Figure(name="scan_lists", value=baseline, unit="s"),
        Figure(name="scan", value=seconds, unit="s", target=_SECONDS),
        Figure(name="scan_cpu", value=cpu, unit="s"),
        Figure(name="scan_ratio", value=seconds / baseline, unit="of_lists"),
        Figure(name="scan_memory", value=megabytes, unit="MB", target=_MEGABYTES),
    ]


def _in_child(url: str, kubeconfig: Path, hours: int) -> tuple[dict[str, Any], float, float, float]:
    """Scan from a process whose only child it is: peak memory is told of the largest child."""
    command = [sys.executable, "-m", "tests.perf.scan.bench", "--scan", url, str(kubeconfig), str(hours)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ)
    found, seconds, cpu, megabytes = json.loads(done.stdout)
    return found, seconds, cpu, megabytes


def main() -> int:
    """Measure, print, and say whether every target was met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a twentieth of it")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--hours", type=int, default=24)
    parser.add_argument("--scan", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.scan:
        url, kubeconfig, hours = arguments.scan
        print(json.dumps(scan(url, Path(kubeconfig), int(hours))))
        return 0
    figures = measure(*((50, 1) if arguments.quick else (arguments.nodes, arguments.hours)))
    for figure in figures:
        print(figure, flush=True)
    if arguments.out:
        text = json.dumps(
            [{"name": f.name, "value": f.value, "unit": f.unit, "target": f.target} for f in figures], indent=2
        )
        arguments.out.write_text(text + "\n")
    return 0 if all(figure.met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
