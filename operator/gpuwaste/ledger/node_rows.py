"""CPU and memory of GPU nodes: what each pod holds of them by its requests, and what is free.

A price of a node may be divided between its GPUs and the rest (`nodePriceWeights`), so both are in the ledger. What a
pod does with the CPU and memory that it holds is not measured here: duty and effective are null.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from gpuwaste.ledger.rows import hour_rows
from gpuwaste.ledger.times import clipped
from gpuwaste.model.apportion import apportion_exact
from gpuwaste.model.facts import PodData, requested

if TYPE_CHECKING:
    from gpuwaste.ledger.join import FactIndex
    from gpuwaste.ledger.times import Interval
    from gpuwaste.model.facts import Fact

__all__ = ["NODE_RESOURCES", "node_rows"]

NODE_RESOURCES: Final = {"cpu": 1_000_000, "memory": 1_000_000_000}
"""Resource to the nanoseconds of its unit of time: milli-core-milliseconds and byte-seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """Of one node and resource: what a pod holds, or with an empty UID what is free."""

    node: str
    resource: str
    pod_uid: str
    amount: int


def node_rows(index: FactIndex, span: Interval) -> tuple[pa.Table, list[str]]:
    """Rows of HOUR_ROWS for CPU (milli-core-ms) and memory (byte-s) of every node with GPUs, and what was noted.

    Per node and resource Σ owned is what the node offers times how long it was there. Where pods ask for more than
    that, which the scheduler does not let happen, each has its share of what there is.

    Args:
        index: facts of the hour.
        span: the hour, or the part of it up to which data has come in, Unix nanoseconds.
    """
    rows: list[_Row] = []
    crowded: list[str] = []
    with_gpus = {data.node for pairs in index.gpus.values() for _, data in pairs}
    for name, (_, fact, node) in sorted(index.nodes.items()):
        present = clipped(fact, span)
        if present is None or not (any(node.gpus.values()) or name in with_gpus):
            continue
        held = _held(index.pods_on.get(name, []), present)
        for resource, unit in NODE_RESOURCES.items():
            offered = node.cpu_milli if resource == "cpu" else node.memory_bytes
            amounts = {uid: asked[resource] for uid, asked in held.items() if asked[resource]}
            rows += _of_resource(name, resource, offered * (present[1] - present[0]) // unit, amounts, crowded)
    findings = [f"pods ask for more CPU or memory than there is on {', '.join(crowded)}"] if crowded else []
    return _table(rows), findings


def _of_resource(node: str, resource: str, capacity: int, held: dict[str, int], crowded: list[str]) -> list[_Row]:
    total = sum(held.values())
    if capacity and total > capacity:
        crowded.append(f"{node} ({resource})")
        held = dict(zip(held, apportion_exact(capacity, list(held.values())), strict=True))
        total = capacity
    rows = [_Row(node=node, resource=resource, pod_uid=uid, amount=amount) for uid, amount in sorted(held.items())]
    # Of a node that does not say what it offers, only what is held is known.
    free = capacity - total if capacity else 0
    return [*rows, _Row(node=node, resource=resource, pod_uid="", amount=free)] if free else rows


def _held(facts: list[Fact], present: Interval) -> dict[str, dict[str, int]]:
    """By pod UID, what it holds of each resource while the node is there."""
    held: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(NODE_RESOURCES, 0))
    for fact in facts:
        ran = clipped(fact, present)
        if ran is None or not isinstance(fact.data, PodData):
            continue
        asked = requested(fact.data)
        for resource, unit in NODE_RESOURCES.items():
            amount = asked.cpu_milli if resource == "cpu" else asked.memory_bytes
            held[fact.uid][resource] += amount * (ran[1] - ran[0]) // unit
    return held


def _table(rows: list[_Row]) -> pa.Table:
    amount = np.array([row.amount for row in rows], np.int64)
    is_held = np.array([bool(row.pod_uid) for row in rows], bool)
    keys: dict[str, Any] = {
        name: pa.array([getattr(row, name) for row in rows], pa.string()) for name in ("node", "resource", "pod_uid")
    }
    keys["row_kind"] = pa.array(["holder" if row.pod_uid else "free" for row in rows], pa.string())
    mine = np.where(is_held, amount, 0)
    unknown = pa.array(np.zeros(len(rows), np.int64), mask=is_held)
    amounts: dict[str, Any] = {
        "owned": amount,
        "held": mine,
        "unmeasured": mine,
        "unallocated": np.where(is_held, 0, amount),
        **dict.fromkeys(("duty", "effective", "effective_low", "effective_high"), unknown),
    }
    return hour_rows(len(rows), keys, amounts)
