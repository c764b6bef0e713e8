"""Runs a scenario on simulated time, as fast as it goes, into one journal per node."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from gpuwaste_agent.clock import SteppedClock
from gpuwaste_agent.journal import Journal
from gpuwaste_agent.node_agent import NodeAgent
from gpuwaste_agent.simulate.kubelet import SimulatedHoldings, SimulatedOwners
from gpuwaste_agent.simulate.nvml import SimulatedNvml

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gpuwaste_agent.simulate.scenario import ScenarioNode

__all__ = ["journal_identity", "run_node", "simulated_agent"]

_SYNC_WINDOWS = 240


def journal_identity(seed: int, node_uid: str) -> str:
    """The journal id of a simulated node: the same for the same seed."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"journal {seed} {node_uid}"))


def simulated_agent(
    node: ScenarioNode, clock: SteppedClock, journal: Journal, *, start_ns: int, interval_ns: int, window_ns: int
) -> NodeAgent:
    """An agent whose driver, kubelet and /proc follow a scenario that starts at `start_ns`."""
    return NodeAgent(
        nvml=SimulatedNvml(node, clock, start_ns),
        holdings=SimulatedHoldings(node, clock, start_ns),
        owners=SimulatedOwners(node),
        clock=clock,
        journal=journal,
        interval_ns=interval_ns,
        window_ns=window_ns,
        boot_id=str(uuid.uuid5(uuid.NAMESPACE_OID, f"boot {node.uid}")),
    )


def run_node(
    node: ScenarioNode,
    directory: Path,
    *,
    journal_id: str,
    start_ns: int,
    until_ns: int,
    interval_ns: int,
    window_ns: int,
    progress: Callable[[int], None],
) -> str:
    """Sample one node from `start_ns` to `until_ns` (nanoseconds since the epoch); returns the journal's id.

    `progress` is called with the number of windows done, every few windows.
    """
    journal = Journal(directory, journal_id=journal_id)
    clock = SteppedClock(start_ns)
    agent = simulated_agent(node, clock, journal, start_ns=start_ns, interval_ns=interval_ns, window_ns=window_ns)
    agent.tick()
    windows = 0
    next_sync = _SYNC_WINDOWS
    while clock.now_ns < until_ns:
        clock.now_ns = min(clock.now_ns + interval_ns, until_ns)
        if agent.tick():
            windows += 1
            if windows >= next_sync:
                journal.sync()
                next_sync += _SYNC_WINDOWS
                progress(windows)
    agent.flush()
    journal.close()
    progress(windows)
    return journal.journal_id
