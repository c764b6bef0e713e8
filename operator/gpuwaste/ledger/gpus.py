"""GPUs as agents describe them in the node facts among the stored windows."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from gpuwaste.model.facts import Fact, GpuData, MigInstanceData
from gpuwaste.model.gpu_products import find_product
from gpuwaste.model.units import from_unix_ns

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Described", "described_gpus", "gpu_facts"]

Described = tuple[str, str, int, str]
"""Node, its UID, when it was described, and its description."""


def gpu_facts(windows: pa.Table) -> list[Fact]:
    """One fact a GPU and description, valid from the window that the description stands in.

    Args:
        windows: rows of WINDOW_SCHEMA; only those of kind `node_facts` are read.
    """
    found = []
    for node, node_uid, start_ns, body_json in described_gpus(windows):
        since = from_unix_ns(start_ns)
        found += [
            Fact(kind="gpu", uid=uid, valid_from=since, valid_to=None, data=data)
            for uid, data in _described(body_json, node, node_uid)
        ]
    return sorted(found, key=lambda fact: fact.key)


def described_gpus(windows: pa.Table, *, since_ns: int = 0) -> list[Described]:
    """What the facts of `gpu_facts` are made of; times count from `since_ns`."""
    rows = windows.filter(pc.equal(windows["kind"], "node_facts"))
    starts = pc.subtract(rows["window_start_ns"], since_ns).to_pylist()
    texts = (rows[name].to_pylist() for name in ("node", "node_uid", "body_json"))
    return [(node, uid, at, body) for node, uid, body, at in zip(*texts, starts, strict=True)]


@lru_cache(maxsize=4096)
def _described(body_json: str, node: str, node_uid: str) -> tuple[tuple[str, GpuData], ...]:
    """UUID and description of each GPU. A node says the same every hour, so it is read once."""
    found = json.loads(body_json).get("gpus", [])
    return tuple((str(gpu.get("uuid", "")), _gpu(gpu, node=node, node_uid=node_uid)) for gpu in found)


def _gpu(gpu: dict[str, Any], *, node: str, node_uid: str) -> GpuData:
    model = str(gpu.get("model", ""))
    product = str(gpu.get("product", ""))
    known = find_product(product or model)
    instances = [
        MigInstanceData(
            uuid=str(instance.get("uuid", "")),
            profile=str(instance.get("profile", "")),
            start=None if instance.get("place_unknown") else int(instance.get("start", 0)),
            weight_num=int(instance.get("weight_num", 0)),
            weight_den=int(instance.get("weight_den", 1)),
        )
        for instance in gpu.get("mig_instances", [])
    ]
    return GpuData(
        node=node,
        node_uid=node_uid,
        product=known.name if known else product,
        model=model,
        memory_bytes=int(gpu.get("memory_bytes", 0)),
        index=int(gpu.get("index", 0)),
        mig_enabled=bool(gpu.get("mig_enabled", False)),
        mig_instances=tuple(sorted(instances, key=lambda instance: (instance.start or 0, instance.uuid))),
        replicas=max(int(gpu.get("replicas", 1)), 1),
        sharing=str(gpu.get("sharing", "EXCLUSIVE")),
    )
