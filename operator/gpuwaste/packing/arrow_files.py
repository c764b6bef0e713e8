"""Instance and answer as Arrow IPC files, for the packing that runs in a process of its own."""

from __future__ import annotations

import json
from dataclasses import fields
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from gpuwaste.packing.answer import Answer, Placement
from gpuwaste.packing.group_rules import Apart, Gang, GroupRule, Spread, Together
from gpuwaste.packing.instance import Instance

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_answer", "read_instance_file", "write_answer", "write_instance"]

_POD_ARRAYS = ("pod_cpu", "pod_memory", "pod_gpus", "pod_gpu_milli", "pod_model_set")
_OPTIONAL_ARRAYS = ("current_node", "pod_priority", "node_island_gpus", "pod_island", "node_machine")
_RULES: dict[str, type[GroupRule]] = {kind.__name__: kind for kind in (Gang, Spread, Together, Apart)}
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
    if instance.exclusions:
        columns["exclusions"] = pa.array([list(instance.exclusions)], pa.list_(pa.string()))
        columns["pod_sides"] = _row(instance.sides.reshape(-1))
    for name in _OPTIONAL_ARRAYS:
        values = getattr(instance, name)
        if values is not None:
            columns[name] = _row(values)
    if instance.group_rules:
        columns["group_rules"] = pa.array([json.dumps([_plain_rule(rule) for rule in instance.group_rules])])
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
    exclusions = tuple(batch["exclusions"][0].as_py()) if "exclusions" in names else ()
    optional = {name: _values(batch, name) for name in _OPTIONAL_ARRAYS if name in names}
    if "pod_island" in optional:
        optional["pod_island"] = optional["pod_island"].astype(np.bool_)
    rules = json.loads(batch["group_rules"][0].as_py()) if "group_rules" in names else []
    return Instance(
        pod_names=batch["pod_names"][0].as_py(),
        node_names=batch["node_names"][0].as_py(),
        models=models,
        prices=tuple(Decimal(price) for price in batch["prices"][0].as_py()),
        model_sets=_values(batch, "model_sets").reshape(-1, len(models)).astype(np.bool_),
        resources=resources,
        pod_resources=amounts["pod_resources"],
        node_resources=amounts["node_resources"],
        exclusions=exclusions,
        pod_sides=_values(batch, "pod_sides").reshape(-1, len(exclusions)) if exclusions else None,
        group_rules=tuple(_rule_of(plain) for plain in rules),
        **arrays,
        **optional,
    )


def _plain_rule(rule: GroupRule) -> dict[str, Any]:
    values = {field.name: getattr(rule, field.name) for field in fields(rule)}
    return {"kind": type(rule).__name__} | {
        name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items()
    }


def _rule_of(plain: dict[str, Any]) -> GroupRule:
    kind: Any = _RULES[plain.pop("kind")]
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}
    if "domain" in values:
        values["domain"] = np.array(values["domain"], dtype=np.int64)
    rule: GroupRule = kind(**values)
    return rule


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
