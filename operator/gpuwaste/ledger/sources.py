"""Windows of several sources of one node: an agent's count, and a Prometheus fills what it leaves open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from gpuwaste.ledger.columns import coded
from gpuwaste.model.windows import PROMETHEUS_JOURNAL

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SOURCE_COLUMNS", "prefer_agents"]

SOURCE_COLUMNS: Final = ("journal_id", "node", "kind", "window_start_ns", "window_ns")
"""What `prefer_agents` looks at."""


def prefer_agents(windows: pa.Table) -> pa.Table:
    """Leave out windows from Prometheus wherever they overlap those of the node's agent.

    Both may be stored: an operator that starts late reads from Prometheus what agents still hold in their journals.
    Counting time twice would break the ledger, and an agent knows more.

    Args:
        windows: rows of WINDOW_SCHEMA, of one hour; of its columns at least SOURCE_COLUMNS.
    """
    journals = coded(windows["journal_id"])
    foreign = np.array([name.startswith(PROMETHEUS_JOURNAL) for name in journals.names], bool)
    if not foreign.any() or foreign.all():
        return windows
    other, nodes, kinds = foreign[journals.codes], coded(windows["node"]).codes, coded(windows["kind"])
    measured = np.array([name in ("device", "usage") for name in kinds.names], bool)[kinds.codes]
    start = windows["window_start_ns"].to_numpy()
    end = start + windows["window_ns"].to_numpy()
    keep = np.ones(windows.num_rows, bool)
    for node in np.unique(nodes[other]):
        mine = nodes == node
        agent, given = mine & measured & ~other, mine & measured & other
        if agent.any():
            keep[given] = ~_touched(start[given], end[given], start[agent], end[agent])
            keep[mine & other & ~measured] = keep[given].any()
    return windows if keep.all() else windows.filter(pa.array(keep)).combine_chunks()


def _touched(
    start: NDArray[np.int64], end: NDArray[np.int64], others_start: NDArray[np.int64], others_end: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether each stretch overlaps any of the others; those of one agent do not overlap each other but by copies."""
    first, last = np.unique(others_start), np.unique(others_end)
    began = np.searchsorted(first, end, side="left")
    over = np.searchsorted(last, start, side="right")
    touched: NDArray[np.bool_] = began > over
    return touched
