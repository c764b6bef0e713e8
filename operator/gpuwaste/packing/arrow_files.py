"""Instance and answer as Arrow IPC files, for the packing that runs in a process of its own."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from gpuwaste.packing.answer import Answer, Placement
from gpuwaste.packing.instance import Instance

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_answer", "read_instance_file", "write_answer", "write_instance"]

_POD_ARRAYS = ("pod_cpu", "pod_memory", "pod_gpus", "pod_gpu_milli", "pod_model_set")
_NODE_ARRAYS = ("node_cpu", "node_memory", "node_gpus", "node_model")


def write_instance(path: Path, instance: Instance) -> None:
    """One record batch whose columns are lists: pods, nodes and models have different lengths."""
    columns: dict[str, pa.Array] = {
        "pod_names": pa.array([list(instance.pod_names)], pa.list_(pa.string())),
        "node_names": pa.array([list(instance.node_names)], pa.list_(pa.string())),
        "models": pa.array([list(instance.models)], pa.list_(pa.string())),
        "prices": pa.array([[str(price) for price in instance.prices]], pa.list_(pa.string())),
        "model_sets": _row(instance.model_sets.astype(np.int64).reshape(-1)),
    }
    for name in (*_POD_ARRAYS, *_NODE_ARRAYS):
        columns[name] = _row(getattr(instance, name))
    if instance.resources:
        columns["resources"] = pa.array([list(instance.resources)], pa.list_(pa.string()))
        columns["pod_resources"] = _row(instance.needs.reshape(-1))
        columns["node_resources"] = _row(instance.rooms.reshape(-1))
    if instance.current_node is not None:
        columns["current_node"] = _row(instance.current_node)
    _write(path, pa.record_batch(columns))


def read_instance_file(path: Path) -> Instance:
    """The inverse of `write_instance`."""
    batch = _read(path)
    names = set(batch.schema.names)
    models = tuple(batch["models"][0].as_py())
    arrays = {name: _values(batch, name) for name in (*_POD_ARRAYS, *_NODE_ARRAYS)}
    resources = tuple(batch["resources"][0].as_py()) if "resources" in names else ()
    amounts: dict[str, np.ndarray | None] = {
        name: _values(batch, name).reshape(-1, len(resources)) if resources else None
        for name in ("pod_resources", "node_resources")
    }
    return Instance(
        pod_names=batch["pod_names"][0].as_py(),
        node_names=batch["node_names"][0].as_py(),
        models=models,
        prices=tuple(Decimal(price) for price in batch["prices"][0].as_py()),
        model_sets=_values(batch, "model_sets").reshape(-1, len(models)).astype(np.bool_),
        resources=resources,
        pod_resources=amounts["pod_resources"],
        node_resources=amounts["node_resources"],
        current_node=_values(batch, "current_node") if "current_node" in names else None,
        **arrays,
    )


_FIGURES = ("unplaced_milli", "unplaced_pods", "nodes_used", "gpus_used", "first_feasible_seconds", "method")


def write_answer(path: Path, answer: Answer) -> None:
    """One record batch: the placement as lists, the figures as JSON."""
    figures = {name: getattr(answer, name) for name in _FIGURES} | {
        "objective": answer.objective,
        "cost": str(answer.cost),
        "bound": str(answer.bound),
    }
    placement = answer.placement
    columns = {
        "pod_node": _row(placement.pod_node),
        "pod_gpu_set": _row(placement.pod_gpu_set),
        "gpu_sets": pa.array([[list(gpus) for gpus in placement.gpu_sets]], pa.list_(pa.list_(pa.int64()))),
        "figures": pa.array([json.dumps(figures)]),
    }
    _write(path, pa.record_batch(columns))


def read_answer(path: Path) -> Answer:
    """The inverse of `write_answer`."""
    batch = _read(path)
    figures = json.loads(batch["figures"][0].as_py())
    return Answer(
        objective=figures["objective"],
        cost=Decimal(figures["cost"]),
        bound=Decimal(figures["bound"]),
        placement=Placement(
            pod_node=_values(batch, "pod_node"),
            pod_gpu_set=_values(batch, "pod_gpu_set"),
            gpu_sets=tuple(tuple(gpus) for gpus in batch["gpu_sets"][0].as_py()),
        ),
        **{name: figures[name] for name in _FIGURES},
    )


def _row(values: np.ndarray) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), pa.array(values, pa.int64()))


def _values(batch: pa.RecordBatch, name: str) -> np.ndarray:
    values: np.ndarray = batch[name][0].values.to_numpy(zero_copy_only=False).astype(np.int64)
    return values


def _write(path: Path, batch: pa.RecordBatch) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


def _read(path: Path) -> pa.RecordBatch:
    with pa.OSFile(str(path), "rb") as source:
        return pa.ipc.open_file(source).get_batch(0)
