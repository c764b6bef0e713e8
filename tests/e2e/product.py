"""The product on a test cluster: installed by helm from images built here, its agents asked as the operator asks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from base64 import b64decode
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.cluster.images.build import REGISTRY, TAG, product_images
from tests.cluster.nodes.commands import command
from tests.cluster.nodes.gpus import a_gpu, an_instance
from tests.cluster.nodes.pods import container_pid

from gpuwaste_agent.simulate.scenario import Scenario, ScenarioNode

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cluster.nodes.cluster import NodeCluster
    from tests.cluster.nodes.gpus import GpuNodes

__all__ = ["NAMESPACE", "WINDOW_SECONDS", "agent_pod", "install", "product_scenario", "usage"]

NAMESPACE = "gpuwaste"
WINDOW_SECONDS = 5

_CHART = Path(__file__).parents[2] / "charts" / "gpuwaste"
_STATE_FOLDER = "/run/gpuwaste-sim"
_JOURNAL = "/run/gpuwaste-journal"
_AGENTS = "app.kubernetes.io/component=agent"

# One page of windows over mutual TLS, from inside the agent's own network: nothing else leads there from the host.
_ASK = """
import http.client, json, socket, ssl, sys
folder, address, after = sys.argv[1:]
tls = ssl.create_default_context(cafile=folder + "/ca.crt")
tls.load_cert_chain(folder + "/tls.crt", folder + "/tls.key")
plain = socket.create_connection((address, 9440), 10)
with tls.wrap_socket(plain, server_hostname="agent.gpuwaste.internal") as stream:
    path = f"/v1/windows?after={after}&limit=20000"
    stream.sendall(f"GET {path} HTTP/1.1\\r\\nHost: agent\\r\\nAccept: application/x-ndjson\\r\\n"
                   "Connection: close\\r\\n\\r\\n".encode())
    answer = http.client.HTTPResponse(stream)
    answer.begin()
    body = answer.read().decode()
    assert answer.status == 200, (answer.status, body)
    print(body)
"""


def product_scenario() -> Scenario:
    """Hopper on both nodes, as only from there on NVML counts SM activity: a whole one and a cut one; a shared one."""
    layout = [("3g.40gb", 0), ("2g.20gb", 4), ("1g.10gb", 6)]
    first = (a_gpu(0, 0, "H100-80GB"), a_gpu(0, 1, "H100-80GB", [an_instance(0, 1, *part) for part in layout]))
    return Scenario(
        nodes=(
            ScenarioNode(name="gpu-node-0", uid="node-0", gpus=first),
            ScenarioNode(name="gpu-node-1", uid="node-1", gpus=(a_gpu(1, 0, "H100-80GB"),)),
        )
    )


def install(cluster: NodeCluster, gpus: GpuNodes, *, report: Callable[[str], None]) -> None:
    """Install the chart and return when operator and agents are ready.

    Raises:
        MissingToolsError: the images cannot be built here.
        ClusterError: it did not become ready; the message holds what the pods say.
    """
    images = product_images(environment=os.environ, report=report)
    cluster.import_image(images.agent)
    # It is large, and runs on one node only.
    command(*cluster.nodes[0].import_image(images.operator), timeout_seconds=120)
    gpus.import_load_image()
    access = cluster.access
    access.kubectl("label", "nodes", "--all", "--overwrite", "nvidia.com/gpu.present=true")
    for node in cluster.nodes:
        # As the driver's own files, it has the same place on every node.
        state = gpus.driver_environment(node)["GPUWASTE_SIM_STATE"]
        script = f"mkdir -p {_STATE_FOLDER} && touch {_STATE_FOLDER}/nvml.state"
        command(*node.inside("sh", "-c", f"{script} && mount --bind {state} {_STATE_FOLDER}/nvml.state"))
    values = access.folder / "values.json"
    values.write_text(json.dumps(_values(gpus)))
    chart = ["gpuwaste", str(_CHART), "--namespace", NAMESPACE, "--create-namespace", "--values", str(values)]
    try:
        access.helm("install", *chart, "--wait", "--timeout", "120s", timeout_seconds=150)
    except Exception:
        for line in access.kubectl("get", "pods", "-n", NAMESPACE, "-o", "wide").splitlines():
            report(line)
        report(access.kubectl("logs", "-n", NAMESPACE, "-l", "app.kubernetes.io/name=gpuwaste", "--tail=20"))
        raise


def _values(gpus: GpuNodes) -> dict[str, Any]:
    driver = {"name": "simulated-driver", "mountPath": _STATE_FOLDER}
    return {
        "image": {"registry": REGISTRY, "pullPolicy": "Never"},
        "clusterName": "local",
        "operator": {
            "image": {"tag": TAG},
            "settings": {"agents": {"pullPeriodSeconds": 2}, "decidePeriodSeconds": 2},
            "store": {"persistence": {"enabled": False}},
            "nodeSelector": {"kubernetes.io/hostname": "gpu-node-0"},
        },
        "agent": {
            "image": {"tag": TAG},
            # One node has MIG instances, whose figures the driver tells nobody else.
            "migMonitoring": True,
            "resourceSlices": True,
            "intervalSeconds": 0.5,
            "windowSeconds": WINDOW_SECONDS,
            # A folder of the node's own: the nodes share this machine's others.
            "journal": {"hostPath": _JOURNAL},
            "driver": {"libraryPath": f"{gpus.driver}/libnvidia-ml.so.1"},
            "extraVolumes": [{"name": driver["name"], "hostPath": {"path": _STATE_FOLDER, "type": "Directory"}}],
            "extraVolumeMounts": [driver],
        },
    }


def agent_pod(cluster: NodeCluster, node: str) -> dict[str, Any]:
    """The agent's pod on a node, once it is ready; one that is being deleted is on its way out."""
    deadline = time.monotonic() + 60
    while True:
        for each in cluster.access.get("pods", "-n", NAMESPACE, "-l", _AGENTS)["items"]:
            here = each["spec"].get("nodeName") == node and "deletionTimestamp" not in each["metadata"]
            if here and any(
                c["type"] == "Ready" and c["status"] == "True" for c in each["status"].get("conditions", ())
            ):
                found: dict[str, Any] = each
                return found
        assert time.monotonic() < deadline, f"no agent is ready on {node}"
        time.sleep(0.3)


def records(cluster: NodeCluster, node: str, *, after: int = 0) -> list[dict[str, Any]]:
    """Records of a node's agent, asked with the operator's certificate."""
    folder = cluster.access.folder / "operator-tls"
    if not folder.is_dir():
        folder.mkdir(mode=0o700)
        secret = cluster.access.get("secret", "gpuwaste-operator-tls", "-n", NAMESPACE)
        for name, text in secret["data"].items():
            (folder / name).write_bytes(b64decode(text))
    running = agent_pod(cluster, node)
    argv = ["nsenter", "--target", str(container_pid(running)), "--net", "--", sys.executable, "-c", _ASK]
    argv += [str(folder), running["status"]["podIP"], str(after)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.strip()]


def usage(
    cluster: NodeCluster, node: str, pod: str, *, since_ns: int, windows: int = 2, deadline_seconds: float = 60.0
) -> list[dict[str, Any]]:
    """A pod's first windows that were measured from end to end, the oldest first, once there are so many.

    They begin at `since_ns` at the earliest, when its load runs: the start of it is no part of any truth.
    """
    deadline = time.monotonic() + deadline_seconds
    while True:
        found = records(cluster, node)
        whole = [each for each in found if int(each["window_start_unix_ns"]) >= since_ns and _is_whole(each, pod)]
        starts = sorted({int(each["window_start_unix_ns"]) for each in whole})[:windows]
        if len(starts) == windows:
            return [each["usage"] for each in whole if int(each["window_start_unix_ns"]) in starts]
        if time.monotonic() > deadline:
            seen = [each["usage"] for each in found if "usage" in each]
            raise AssertionError(f"only {len(starts)} whole windows of {pod}; the last: {seen[-1:]}")
        time.sleep(1)


def _is_whole(record: dict[str, Any], pod: str) -> bool:
    used = record.get("usage", {})
    if used.get("pod") != pod or int(used.get("held_ns", 0)) != int(record["window_ns"]):
        return False
    quality = used["figures"].get("duty_quality", {})
    return bool(quality.get("coverage_ppm") == 1_000_000)
