"""An hour of a large mixed cluster as stored inputs: whole GPUs, time-slicing and MIG, all slices held."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from gpuwaste.model.facts import (
    ContainerRequest,
    Fact,
    GpuData,
    MigInstanceData,
    NamespaceData,
    NodeData,
    OwnerData,
    OwnerRef,
    PodData,
)
from gpuwaste.model.units import NS_PER_MINUTE, to_unix_ns
from gpuwaste.model.windows import WINDOW_SCHEMA

if TYPE_CHECKING:
    from gpuwaste.ledger.inputs import InputStore

HOUR = datetime(2026, 11, 2, 9, tzinfo=UTC)
BEFORE = HOUR - timedelta(days=1)
MINUTES = 60
GPUS_A_NODE = 8
_BATCH_MINUTES = 10
_TEAMS = 40
_LAYOUTS = (  # parents of a GPU, replicas of each, resource, nodes of eight
    (1, 1, "nvidia.com/gpu", 4),
    (1, 4, "nvidia.com/gpu.shared", 2),
    (7, 1, "nvidia.com/mig-1g.10gb", 2),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slices:
    """One entry a slice; all arrays have the same length.

    Attributes:
        node, gpu, parent, slice_id, pod: names, object arrays.
        weight_den: int64, the parent is 1/8 of a GPU where it is a MIG instance.
        replicas: int64, slices of the parent.
        resource: names of the extended resource.
    """

    node: np.ndarray
    gpu: np.ndarray
    parent: np.ndarray
    slice_id: np.ndarray
    pod: np.ndarray
    weight_den: np.ndarray
    replicas: np.ndarray
    resource: np.ndarray


def make_slices(count: int) -> Slices:
    """The first `count` slices of a cluster of the layouts above."""
    rows: list[tuple[str, str, str, str, str, int, int, str]] = []
    nodes = [layout for layout in _LAYOUTS for _ in range(layout[3])]
    number = 0
    while len(rows) < count:
        parents, replicas, resource, _ = nodes[number % len(nodes)]
        node = f"gpu-node-{number:05}"
        for place in range(GPUS_A_NODE):
            gpu = f"GPU-{number:08x}-{place:04x}-4000-8000-{number * 8 + place:012x}"
            for part in range(parents):
                parent = gpu if parents == 1 else f"MIG-{number:08x}-{place:04x}-5000-8000-{part:012x}"
                for replica in range(replicas):
                    slice_id = f"{parent}::{replica}" if replicas > 1 else parent
                    pod = f"worker-{number:05}-{place}-{part}-{replica}"
                    rows.append((node, gpu, parent, slice_id, pod, 1 if parents == 1 else 8, replicas, resource))
        number += 1
    columns = list(zip(*rows[:count], strict=True))
    numbers = [np.array(column, np.int64) for column in columns[5:7]]
    texts = [np.array(column, object) for column in (*columns[:5], columns[7])]
    return Slices(
        node=texts[0],
        gpu=texts[1],
        parent=texts[2],
        slice_id=texts[3],
        pod=texts[4],
        weight_den=numbers[0],
        replicas=numbers[1],
        resource=texts[5],
    )


def make_facts(slices: Slices) -> list[Fact]:
    """Nodes, GPUs, pods with their owners, and namespaces; prices are for the operator to find."""
    found: list[Fact] = []

    def add(kind, uid, data):
        found.append(Fact(kind=kind, uid=uid, valid_from=BEFORE, valid_to=None, data=data))

    for team in range(_TEAMS):
        add("namespace", f"uid-ns-{team}", NamespaceData(name=f"team-{team:02}", labels={"team": f"team-{team:02}"}))
    for node in dict.fromkeys(slices.node):
        labels = {
            "node.kubernetes.io/instance-type": "p5.48xlarge",
            "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3",
            "karpenter.sh/nodepool": "gpu",
        }
        data = NodeData(
            name=node,
            labels=labels,
            provider_id=f"aws:///us-east-1a/i-{node}",
            cpu_milli=190_000,
            memory_bytes=2_000 << 30,
            gpus={"nvidia.com/gpu": GPUS_A_NODE},
        )
        add("node", f"uid-{node}", data)
    for gpu, index in zip(*np.unique(slices.gpu, return_index=True), strict=True):
        mine = np.unique(slices.parent[slices.gpu == gpu]) if slices.weight_den[index] > 1 else ()
        data = GpuData(
            node=slices.node[index],
            node_uid=f"uid-{slices.node[index]}",
            product="H100-80GB",
            model="NVIDIA H100 80GB HBM3",
            memory_bytes=80 << 30,
            mig_enabled=bool(len(mine)),
            mig_instances=tuple(
                MigInstanceData(uuid=parent, profile="1g.10gb", start=start, weight_num=1, weight_den=8)
                for start, parent in enumerate(mine)
            ),
            replicas=int(slices.replicas[index]),
        )
        add("gpu", gpu, data)
    for number, (pod, node, resource) in enumerate(zip(slices.pod, slices.node, slices.resource, strict=True)):
        namespace, owner = f"team-{number % _TEAMS:02}", number // 4
        reference = OwnerRef(api_version="apps/v1", kind="ReplicaSet", name=f"app-{owner}-rs", uid=f"uid-rs-{owner}")
        container = ContainerRequest(name="main", cpu_milli=2_000, memory_bytes=8 << 30, gpus={resource: 1})
        data = PodData(
            namespace=namespace,
            name=pod,
            node=node,
            labels={"app": f"app-{owner}", "pod-template-hash": f"{owner:08x}"},
            owner=reference,
            containers=(container,),
        )
        add("pod", f"uid-{pod}", data)
    for owner in range(len(slices.pod) // 4 + 1):
        above = OwnerRef(api_version="apps/v1", kind="Deployment", name=f"app-{owner}", uid=f"uid-d-{owner}")
        common = {"api_version": "apps/v1", "namespace": f"team-{owner % _TEAMS:02}"}
        add("owner", f"uid-rs-{owner}", OwnerData(kind="ReplicaSet", name=f"app-{owner}-rs", owner=above, **common))
        add("owner", f"uid-d-{owner}", OwnerData(kind="Deployment", name=f"app-{owner}", **common))
    return found


def store_windows(inputs: InputStore, slices: Slices, rng: np.random.Generator) -> int:
    """Store an hour of windows in batches of some minutes, as an operator that pulls does. Returns the records."""
    _, first = np.unique(slices.parent, return_index=True)
    per_minute = len(first) + len(slices.pod)
    for start in range(0, MINUTES, _BATCH_MINUTES):
        tables = [
            _minute(slices, first, minute, minute * per_minute, rng) for minute in range(start, start + _BATCH_MINUTES)
        ]
        inputs.append_windows(pa.concat_tables(tables))
    return per_minute * MINUTES


def _minute(slices: Slices, first: np.ndarray, minute: int, sequence: int, rng: np.random.Generator) -> pa.Table:
    """Device records of every parent, then usage records of every slice; each node has a journal of its own."""
    devices, holders = len(first), len(slices.pod)
    where = np.r_[first, np.arange(holders)]
    count = devices + holders
    at = np.full(count, to_unix_ns(HOUR) + minute * NS_PER_MINUTE)
    is_usage = np.arange(count) >= devices
    duty = rng.integers(0, NS_PER_MINUTE, count)
    sm = duty * rng.integers(0, 100, count) // 100
    share = np.maximum(slices.replicas[where], 1)
    # Sharers of a parent have a part of it each, so that together they have no more than all.
    duty, sm = np.where(is_usage, duty // share, duty), np.where(is_usage, sm // share, sm)
    usage, device = ~is_usage, is_usage
    full = np.full(count, NS_PER_MINUTE)
    ppm = np.full(count, 1_000_000, np.int32)
    given = {
        "journal_id": pa.array(np.char.add("journal-", slices.node[where].astype(str))),
        "seq": pa.array(sequence + np.arange(count) + 1),
        "kind": pa.array(np.where(is_usage, "usage", "device")),
        "cluster": pa.array(["bench"] * count),
        "node": pa.array(slices.node[where], pa.string()),
        "node_uid": pa.array(np.char.add("uid-", slices.node[where].astype(str))),
        "window_start_ns": pa.array(at),
        "window_ns": pa.array(full),
        "gpu_uuid": pa.array(slices.gpu[where], pa.string()),
        "parent_id": pa.array(slices.parent[where], pa.string()),
        "weight_num": pa.array(np.ones(count, np.int32), mask=device),
        "weight_den": pa.array(slices.weight_den[where].astype(np.int32), mask=device),
        "replicas": pa.array(slices.replicas[where].astype(np.int32), mask=device),
        "sharing": pa.array(["EXCLUSIVE"] * count, mask=device),
        "allocatable_ns": pa.array(full, mask=device),
        "unhealthy_ns": pa.array(np.zeros(count, np.int64), mask=device),
        "slice_id": pa.array(slices.slice_id[where], pa.string(), mask=usage),
        "resource_name": pa.array(slices.resource[where], pa.string(), mask=usage),
        "namespace": pa.array([f"team-{i % _TEAMS:02}" for i in where], mask=usage),
        "pod": pa.array(slices.pod[where], pa.string(), mask=usage),
        "pod_uid": pa.array(np.char.add("uid-", slices.pod[where].astype(str)), mask=usage),
        "container": pa.array(["main"] * count, mask=usage),
        "join": pa.array(["EXACT"] * count, mask=usage),
        "held_ns": pa.array(full, mask=usage),
        "held_since_ns": pa.array(np.full(count, to_unix_ns(BEFORE)), mask=usage),
        "first_activity_ns": pa.array(np.full(count, to_unix_ns(BEFORE) + 1), mask=usage),
        "missed_processes": pa.array(np.zeros(count, np.int32), mask=usage),
        "memory_byte_s": pa.array(rng.integers(0, 1 << 40, count).astype(float)),
        "memory_peak_bytes": pa.array(rng.integers(0, 10 << 30, count)),
        "dram_ns": pa.array(sm // 2),
        "duty_ns": pa.array(duty),
        "sm_ns": pa.array(sm),
        "enc_ns": pa.array(np.zeros(count, np.int64)),
        "dec_ns": pa.array(np.zeros(count, np.int64)),
        "energy_mj": pa.array(rng.integers(0, 1 << 20, count), mask=is_usage),
    }
    for figure in ("duty", "sm", "dram", "enc", "dec", "memory"):
        given[f"{figure}_origin"] = pa.array(["gpm"] * count)
        given[f"{figure}_coverage_ppm"] = pa.array(ppm)
        given[f"{figure}_resolution_ms"] = pa.array(np.full(count, 1000, np.int32))
    given["sm_low"] = given["sm_high"] = pa.array(sm.astype(float))
    arrays = [given[field.name] if field.name in given else pa.nulls(count, field.type) for field in WINDOW_SCHEMA]
    return pa.table(arrays, schema=WINDOW_SCHEMA)
