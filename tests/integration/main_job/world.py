"""A cluster on the real API server, the scenario its agents follow, and the agents and operator as processes."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
import yaml
from tests.builders import make_namespace
from tests.cluster.ports import free_port

from gpuwaste.cluster.kinds import DEPLOYMENTS, NAMESPACES, NODES, PODS, REPLICA_SETS
from gpuwaste.cluster.kube import open_api
from gpuwaste.model.gpu_products import PRODUCTS as KNOWN
from gpuwaste.model.units import format_time
from gpuwaste.settings.operator import AGENT_TLS_NAME

from .traces import REPLICAS, choose_nodes, load_series, place_pods

SPEED = 600
BACK = timedelta(hours=3)
NAMESPACES_USED = ("team-search", "team-ads", "team-vision")
WIDTHS = (0.25, 0.6, 0.95)
MIG_NODES = {
    "mig-h100": ("H100-80GB", [("3g.40gb", 0), ("2g.20gb", 4), ("1g.10gb", 6)]),
    "mig-a100": ("A100-80GB", [("3g.40gb", 0), ("3g.40gb", 4)]),
}
PROGRAM = [sys.executable, "-c"]


@dataclass
class World:
    """What was made, and what runs."""

    folder: Path
    start: datetime
    nodes: dict[str, dict] = field(default_factory=dict)
    pods: list[dict] = field(default_factory=list)
    workloads: set[tuple[str, str, str]] = field(default_factory=set)
    processes: list[subprocess.Popen] = field(default_factory=list)
    endpoints: list[str] = field(default_factory=list)

    def stop(self):
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=5)


def node_object(name, product, gpus, cpu_milli, memory_mib, *, mig=False):
    nvml = KNOWN[product].nvml_names[0].replace(" ", "-")
    labels = {
        "nvidia.com/gpu.product": nvml,
        "nvidia.com/gpu.count": str(gpus),
        "kubernetes.io/hostname": name,
        "karpenter.sh/nodepool": "mig" if mig else "shared",
    }
    if not mig:
        labels |= {"nvidia.com/gpu.replicas": str(REPLICAS), "nvidia.com/gpu.sharing-strategy": "time-slicing"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {"providerID": f"test:///zone-a/{name}"},
    }


def node_status(name, since, resources, cpu_milli, memory_mib):
    capacity = {"cpu": f"{cpu_milli}m", "memory": f"{memory_mib}Mi", "pods": "110"} | resources
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": "ready",
        "lastHeartbeatTime": format_time(since),
        "lastTransitionTime": format_time(since),
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "status": {"capacity": capacity, "allocatable": capacity, "conditions": [ready]},
    }


def pod_object(name, namespace, node, owner, resources, cpu_milli, memory_mib):
    requests = {"cpu": f"{cpu_milli}m", "memory": f"{memory_mib}Mi"} | resources
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "ownerReferences": [owner]},
        "spec": {
            "nodeName": node,
            "containers": [
                {"name": "main", "image": "example", "resources": {"requests": requests, "limits": resources}}
            ],
        },
    }


def pod_status(name, namespace, since):
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "status": {
            "phase": "Running",
            "startTime": format_time(since),
            "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": format_time(since)}],
        },
    }


async def build(control_plane, folder):
    """Create all objects and write the scenario. Times lie in the status, three hours back."""
    start = (datetime.now(UTC) - BACK).replace(second=0, microsecond=0)
    world = World(folder=folder, start=start)
    nodes = choose_nodes()
    picked, plan = place_pods(nodes, folder)
    placements = {p["pod"]: p for p in json.loads(plan.read_text())["placements"]}
    api = open_api(component="test", kubeconfig=control_plane.kubeconfig)
    try:
        for name in NAMESPACES_USED:
            await api.apply(NAMESPACES, make_namespace(name).obj(uid=None), field_manager="test")
        for node in nodes:
            await _add_node(api, world, node.name, node.product, node.gpus, node.cpu_milli, node.memory_mib)
        for name, (product, layout) in MIG_NODES.items():
            await _add_node(api, world, name, product, 1, 64_000, 524_288, layout=layout)
        by_name = {row["name"]: row for row in picked}
        series = sorted(load_series().items())
        free = {}
        for number, (pod, placement) in enumerate(sorted(placements.items())):
            row = by_name[pod]
            devices = []
            for part in placement["gpus"]:
                at = free.setdefault((placement["node"], part["index"]), 0)
                tenths = part["milli"] // 100
                devices.append((part["index"], at, tenths))
                free[placement["node"], part["index"]] = at + tenths
            load = series[number % len(series)][1]
            await _add_pod(api, world, number, pod, placement["node"], row, devices, load)
        for number, (name, (_, layout)) in enumerate(MIG_NODES.items(), start=1000):
            for index in range(len(layout)):
                load = series[(number + 7 * index) % len(series)][1]
                await _add_mig_pod(api, world, number + 10 * index, name, index, load)
    finally:
        await api.close()
    scenario = {"version": 1, "nodes": list(world.nodes.values())}
    (folder / "scenario.json").write_text(json.dumps(scenario))
    return world


async def _add_node(api, world, name, product, gpus, cpu_milli, memory_mib, layout=None):
    since = world.start - timedelta(hours=1)
    body = node_object(name, product, gpus, cpu_milli, memory_mib, mig=layout is not None)
    made = await api.apply(NODES, body, field_manager="test")
    if layout is None:
        resources = {"nvidia.com/gpu.shared": str(gpus * REPLICAS)}
    else:
        resources = {f"nvidia.com/mig-{p}": str(sum(q == p for q, _ in layout)) for p, _ in layout}
    await api.apply_status(NODES, node_status(name, since, resources, cpu_milli, memory_mib), field_manager="test")
    described = []
    for index in range(gpus):
        uuid = f"GPU-{name}-{index}"
        gpu = {"uuid": uuid, "product": product}
        if layout is None:
            gpu["sharing"] = {"strategy": "time-slicing", "replicas": REPLICAS}
        else:
            gpu["mig"] = [{"uuid": f"MIG-{name}-{i}", "profile": p, "start": s} for i, (p, s) in enumerate(layout)]
        described.append(gpu)
    world.nodes[name] = {"name": name, "uid": made["metadata"]["uid"], "gpus": described, "containers": []}


async def _owner(api, world, number, name):
    """Every third pod shares a Deployment with its neighbours; each has a ReplicaSet between."""
    namespace = NAMESPACES_USED[number % len(NAMESPACES_USED)]
    workload = f"app-{number // 9}"
    labels = {"app": workload}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "main", "image": "example"}]},
    }
    spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}
    deployment = await api.apply(
        DEPLOYMENTS,
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": workload, "namespace": namespace},
            "spec": spec,
        },
        field_manager="test",
    )
    above = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": workload,
        "uid": deployment["metadata"]["uid"],
        "controller": True,
    }
    body = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": f"{workload}-rs", "namespace": namespace, "ownerReferences": [above]},
        "spec": spec,
    }
    replica_set = await api.apply(REPLICA_SETS, body, field_manager="test")
    world.workloads.add((namespace, "Deployment", workload))
    meta = replica_set["metadata"]
    return namespace, {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
    }


async def _pod(api, world, number, name, node, resources, cpu_milli, memory_mib):
    namespace, owner = await _owner(api, world, number, name)
    body = pod_object(name, namespace, node, owner, resources, cpu_milli, memory_mib)
    made = await api.apply(PODS, body, field_manager="test")
    await api.apply_status(PODS, pod_status(name, namespace, world.start - timedelta(minutes=10)), field_manager="test")
    return namespace, made["metadata"]["uid"]


async def _add_pod(api, world, number, name, node, row, devices, load):
    tenths = sum(count for _, _, count in devices)
    namespace, uid = await _pod(
        api,
        world,
        number,
        name,
        node,
        {"nvidia.com/gpu.shared": str(tenths)},
        int(row["cpu_milli"]),
        int(row["memory_mib"]),
    )
    processes = []
    for place, (index, _, count) in enumerate(devices):
        processes.append(
            {
                "pid": 10_000 + 10 * number + place,
                "parent": f"GPU-{node}-{index}",
                "load": [[t, duty, WIDTHS[number % 3], round(min(gib, 1.2 * count) * 1024)] for t, duty, gib in load],
            }
        )
    world.nodes[node]["containers"].append(
        {
            "namespace": namespace,
            "pod": name,
            "pod_uid": uid,
            "container": "main",
            "container_id": f"{number:064x}",
            "resource": "nvidia.com/gpu.shared",
            "devices": [f"GPU-{node}-{index}::{at + k}" for index, at, count in devices for k in range(count)],
            "processes": processes,
        }
    )


async def _add_mig_pod(api, world, number, node, index, load):
    parent = f"MIG-{node}-{index}"
    profile = world.nodes[node]["gpus"][0]["mig"][index]["profile"]
    resource = f"nvidia.com/mig-{profile}"
    name = f"mig-pod-{number}"
    namespace, uid = await _pod(api, world, number, name, node, {resource: "1"}, 4000, 16384)
    world.nodes[node]["containers"].append(
        {
            "namespace": namespace,
            "pod": name,
            "pod_uid": uid,
            "container": "main",
            "container_id": f"{number:064x}",
            "resource": resource,
            "devices": [parent],
            "processes": [
                {
                    "pid": 90_000 + number,
                    "parent": parent,
                    "load": [[t, d, 0.5, round(min(g, 8) * 1024)] for t, d, g in load],
                }
            ],
        }
    )


def write_certificates(folder):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for name, identity in (("agent", AGENT_TLS_NAME), ("operator", "gpuwaste-operator.gpuwaste.internal")):
        issued = authority.issue_cert(identity)
        issued.private_key_pem.write_to_path(folder / f"{name}.key")
        issued.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")


def start_agents(world):
    """One agent process a node, three hours back and 600 times as fast until it has caught up."""
    write_certificates(world.folder)
    for name, node in world.nodes.items():
        port, metrics = free_port(), free_port()
        command = [*PROGRAM, "from gpuwaste_agent.main import main; main()"]
        command += ["--simulate", str(world.folder / "scenario.json"), "--node", name, "--node-uid", node["uid"]]
        command += ["--start", format_time(world.start), "--speed", str(SPEED), "--interval", "30"]
        command += ["--journal", str(world.folder / "journals" / name)]
        command += ["--listen", f"127.0.0.1:{port}", "--metrics-listen", f"127.0.0.1:{metrics}"]
        for option, file in (("cert", "agent.pem"), ("key", "agent.key"), ("ca", "ca.pem")):
            command += [f"--tls-{option}", str(world.folder / file)]
        with (world.folder / f"agent-{name}.log").open("w") as log:
            world.processes.append(subprocess.Popen(command, stdout=log, stderr=log))
        world.endpoints.append(f"https://127.0.0.1:{port}")


def operator_config(world, store):
    """Settings for an operator with a store of its own; nobody knows a price of the A30."""
    config = {
        "clusterName": "openb",
        "store": str(store),
        "agents": {
            "endpoints": world.endpoints,
            "pullPeriodSeconds": 1,
            "tls": {
                "ca": str(world.folder / "ca.pem"),
                "certificate": str(world.folder / "operator.pem"),
                "key": str(world.folder / "operator.key"),
            },
        },
        "decidePeriodSeconds": 1,
        "writesPerSecond": 200,
        "plan": {"periodSeconds": 3600, "timeLimitSeconds": 5},
        "livenessPort": 0,
        "metricsPort": 0,
    }
    path = world.folder / f"operator-{Path(store).name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def start_operator(world, control_plane, store):
    command = [*PROGRAM, "from gpuwaste.cli.main import main; main()", "operator"]
    command += ["--config", str(operator_config(world, store)), "--kubeconfig", str(control_plane.kubeconfig)]
    with (world.folder / f"operator-{Path(store).name}.log").open("a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    world.processes.append(process)
    return process


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=10)


def wait_for(what, check, *, seconds):
    """Ask until `check` gives something, or say what was waited for."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = check()
        if found:
            return found
        time.sleep(0.5)
    raise AssertionError(f"after {seconds} s still not: {what}")


def run(coroutine):
    return asyncio.run(coroutine)
