"""What every receiver had of every node in every hour: the ratios by which a provider's own charges are divided."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.focus.charges import carriers
from gpuwaste.focus.parts import Parts, concat, gather
from gpuwaste.focus.purchases import purchases_of
from gpuwaste.focus.rest import node_cells, rest_rows
from gpuwaste.focus.weights import weigh
from gpuwaste.model.grouping import Groups, group_rows, only

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gpuwaste.focus.options import ExportOptions

__all__ = ["NODE_COLUMNS", "NodeHours", "NodeNames", "collect_hours", "find_nodes"]

NODE_COLUMNS: Final = ("row_kind", "cluster", "node", "node_uid", "provider_id")
"""The columns of the ledger that name nodes."""
_NODE_HOUR: Final = ("cluster", "node_uid", "hour")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeNames:
    """A node as a bill may name it."""

    cluster: str
    node: str
    node_uid: str
    provider_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeHours:
    """Parts of node hours.

    Attributes:
        parts: `charge` is the position of a node hour.
        cell: (cluster, node uid, hours since 1970) -> position of the node hour.
        first, last: the oldest and the newest hour of all, since 1970.
        nodes: every node of the ledger.
    """

    parts: Parts
    cell: dict[tuple[str, str, int], int]
    first: int
    last: int
    nodes: tuple[NodeNames, ...]


def collect_hours(days: Iterable[pa.Table], options: ExportOptions) -> NodeHours | None:
    """Weigh a ledger by node and hour, whatever the GPUs cost: the bill says what the node costs.

    Args:
        days: ledger tables of whole hours; each is let go before the next is read.
        options: grouping and method.

    Returns:
        None where there is no ledger at all.
    """
    found: list[Parts] = []
    cell: dict[tuple[str, str, int], int] = {}
    nodes: dict[tuple[str, str], NodeNames] = {}
    for day in days:
        rows = carriers(day)
        rows = only(rows, pc.not_equal(rows["row_kind"], "unprovisioned"))
        groups = group_rows([rows[name] for name in _NODE_HOUR])
        count = len(groups.first)
        if not count:
            continue
        parts = _weigh_nodes(day, rows, groups, options)
        found.append(replace(parts, charge=parts.charge + len(cell)))
        first = rows.take(pa.array(groups.first))
        names = [first[name].to_pylist() for name in ("cluster", "node", "node_uid", "provider_id")]
        hours = first["hour"].cast(pa.timestamp("us")).to_numpy().astype("M8[h]").astype(np.int64).tolist()
        for cluster, node, uid, provider, hour in zip(*names, hours, strict=True):
            cell[cluster, uid, hour] = len(cell)
            nodes[cluster, uid] = NodeNames(cluster=cluster, node=node, node_uid=uid, provider_id=provider)
    if not found:
        return None
    times = [hour for _, _, hour in cell]
    return NodeHours(parts=concat(found), cell=cell, first=min(times), last=max(times), nodes=tuple(nodes.values()))


def _weigh_nodes(day: pa.Table, rows: pa.Table, node_hours: Groups, options: ExportOptions) -> Parts:
    """The parts of each node's hour; capacity that was bought for somebody is weighed by itself where that matters."""
    owners, cells = None, node_hours
    if options.method.owned:
        bought = purchases_of(day, rows)
        keys = [bought["owner_namespace"], bought["owner_team"]]
        cells = group_rows([*(rows[name] for name in _NODE_HOUR), *map(pa.chunked_array, zip(keys, strict=True))])
        at = pa.array(cells.first)
        columns = {"cluster": rows["cluster"].take(at), "namespace": keys[0].take(at), "team": keys[1].take(at)}
        owners = pa.table(columns)
    rest = rest_rows(day)
    of = np.concatenate([cells.of, node_cells(rows, cells.of, rest)]) if len(rest) else cells.of
    both = pa.concat_tables([rows, rest]) if len(rest) else rows
    count = len(cells.first)
    parts = weigh(both, of, count, grouping=options.grouping, method=options.method, owners=owners)
    return parts if owners is None else gather(parts, np.arange(count), node_hours.of[cells.first])


def find_nodes(days: Iterable[pa.Table]) -> tuple[NodeNames, ...]:
    """Every node that a ledger names.

    Args:
        days: tables of NODE_COLUMNS; each is let go before the next is read.
    """
    nodes: dict[tuple[str, str], NodeNames] = {}
    for day in days:
        rows = only(day, pc.not_equal(day["row_kind"], "unprovisioned"))
        groups = group_rows([rows[name] for name in NODE_COLUMNS[1:]])
        for cluster, node, uid, provider in zip(
            *(rows[name].take(pa.array(groups.first)).to_pylist() for name in NODE_COLUMNS[1:]), strict=True
        ):
            nodes[cluster, uid] = NodeNames(cluster=cluster, node=node, node_uid=uid, provider_id=provider)
    return tuple(nodes.values())
