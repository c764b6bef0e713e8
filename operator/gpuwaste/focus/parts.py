"""The parts of charges as columns: what every receiver weighs in each, and the time that it held and used."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.model.grouping import group_numbers, group_rows, sum_by

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Int64s = NDArray[np.int64]

__all__ = ["NAMES", "REST_SUMS", "SUMS", "Parts", "concat", "gather", "take"]

REST_SUMS: Final = ("cpu", "memory", "cpu_held", "memory_held")
SUMS: Final = (
    "weight",
    "smeared",
    "gpu",
    "held",
    "mig",
    "shared",
    "borrowed",
    "unmeasured",
    "duty",
    "effective",
    *REST_SUMS,
)
"""The attributes of `Parts` that are sums."""
_COLUMNS: Final = ("charge", "receiver", *SUMS, "measured")
NAMES: Final = ("cluster", "reason", "namespace", "workload_kind", "workload_name", "team")
"""The columns of `Parts.receivers`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of charges, sorted by charge and receiver; int64[n] each.

    Attributes:
        charge: position of the charge.
        receiver: row of `receivers`.
        weight: what the ratio is made from.
        smeared: the part of the weight that nobody held and the method gave to this receiver.
        gpu: nanoseconds of GPU, which `weight` is where neither CPU nor memory costs anything.
        cpu, memory: the parts of the weight for CPU and memory.
        cpu_held: milli-core-milliseconds behind `cpu`.
        memory_held: MiB-seconds behind `memory`.
        held, borrowed, unmeasured: sums over the receiver's holders.
        mig: what of the held time is of MIG instances, by their slice weight.
        shared: what of it is of replicas and of devices that several share, by their part.
        duty, effective: the same; meaningless where not `measured`.
        measured: bool[n], whether any of the holders was measured.
        receivers: one row a receiver or kind of remainder: cluster, reason (empty for a receiver), namespace,
            workload_kind, workload_name and team; empty where it does not apply.
    """

    charge: Int64s
    receiver: Int64s
    weight: Int64s
    smeared: Int64s
    gpu: Int64s
    cpu: Int64s
    memory: Int64s
    cpu_held: Int64s
    memory_held: Int64s
    held: Int64s
    mig: Int64s
    shared: Int64s
    borrowed: Int64s
    unmeasured: Int64s
    duty: Int64s
    effective: Int64s
    measured: NDArray[np.bool_]
    receivers: pa.Table


def take(parts: Parts, rows: Int64s | NDArray[np.bool_]) -> Parts:
    """Some of the parts, by position or by mask."""
    columns = {name: getattr(parts, name)[rows] for name in _COLUMNS}
    return replace(parts, **columns)


def gather(parts: Parts, cell: Int64s, charge: Int64s) -> Parts:
    """Sum the parts of cells to the parts of the charges that they belong to.

    Because the parts of a cell weigh what is owned in it, the ratio of a charge that follows is the mean of its
    cells' ratios, each weighted by what its cell cost: Σ cost × ratio / Σ cost, for one price.

    Args:
        parts: of cells (hours of a node), as `weigh` answers, sorted by cell in `charge`.
        cell: int64[m], cells that belong to a charge; one cell may belong to several.
        charge: int64[m], the charge of each.
    """
    first = np.searchsorted(parts.charge, cell, side="left")
    size = np.searchsorted(parts.charge, cell, side="right") - first
    start = np.cumsum(size) - size
    row = np.repeat(first - start, size) + np.arange(int(size.sum()))
    groups = group_numbers([np.repeat(charge, size), parts.receiver[row]])
    count = len(groups.first)
    sums = {name: sum_by(groups.of, getattr(parts, name)[row], count) for name in SUMS}
    return Parts(
        charge=np.repeat(charge, size)[groups.first],
        receiver=parts.receiver[row][groups.first],
        measured=sum_by(groups.of, parts.measured[row].astype(np.int64), count) > 0,
        receivers=parts.receivers,
        **sums,
    )


def concat(pieces: list[Parts]) -> Parts:
    """The parts of charges that follow each other, with one table of receivers."""
    start = np.cumsum([0, *(len(piece.receivers) for piece in pieces)])
    receivers = pa.concat_tables([piece.receivers for piece in pieces]).combine_chunks()
    key = [receivers[name] for name in ("reason", *NAMES) if name != "team"]
    # By team the names are empty and the team is the key; else it is a label that may differ from day to day.
    by_team = pc.and_(pc.equal(receivers["namespace"], ""), pc.equal(receivers["reason"], ""))
    groups = group_rows([*key, pc.if_else(by_team, receivers["team"], "")])
    teams = group_numbers([groups.of, group_rows([receivers["team"]]).of])
    single = np.bincount(groups.of[teams.first], minlength=len(groups.first)) == 1
    named = receivers.take(pa.array(groups.first))
    team = pc.if_else(pa.array(single), named["team"].combine_chunks(), "")
    receivers = named.set_column(named.column_names.index("team"), "team", team)
    columns = {name: np.concatenate([getattr(piece, name) for piece in pieces]) for name in _COLUMNS}
    columns["receiver"] = groups.of[
        np.concatenate([piece.receiver + first for piece, first in zip(pieces, start[:-1], strict=True)])
    ]
    return Parts(**columns, receivers=receivers)
