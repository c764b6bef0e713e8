"""What really runs on a parent at every moment of a scenario: demands turned into rates that fit the device.

This is the one place that says how processes get in each other's way; the simulated driver and the truth both
integrate these rates, each in its own way.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

from gpuwaste_agent.holdings import Sharing
from gpuwaste_agent.simulate.scenario import FOREVER

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gpuwaste_agent.simulate.scenario import ScenarioLoad, ScenarioNode, ScenarioProcess

__all__ = ["Piece", "Rate", "parent_timeline", "processes_on"]

_MIB = 1 << 20


class Rate(NamedTuple):
    """What one process does: parts of its parent's time and SMs, and bytes."""

    pid: int
    duty: float
    sm: float
    tensor: float
    dram: float
    memory_bytes: int
    enc: float
    dec: float


class Piece(NamedTuple):
    """A stretch of constant load of one parent, in seconds of the scenario; `end_s` may be infinite."""

    start_s: float
    end_s: float
    rates: tuple[Rate, ...]
    duty: float
    sm: float
    tensor: float
    dram: float
    memory_bytes: int
    enc: float
    dec: float


def processes_on(node: ScenarioNode, parent: str) -> list[ScenarioProcess]:
    """Every process that ever runs on a parent, in containers and on the host."""
    found = [process for container in node.containers for process in container.processes]
    return [process for process in (*found, *node.processes) if process.parent == parent]


def parent_timeline(processes: Iterable[ScenarioProcess], sharing: Sharing) -> list[Piece]:
    """Cut a parent's time into pieces of constant load, from 0 to infinity.

    Processes take turns unless MPS lets them overlap: turns that ask for more than all the time are scaled down
    together; under MPS the SMs are scaled, and the device is busy while any of them runs (independent processes).
    """
    members = list(processes)
    cuts = {0.0, FOREVER}
    for process in members:
        cuts |= {process.from_s, process.until_s}
        cuts |= {p.at_s for p in process.load if process.from_s < p.at_s < process.until_s}
    edges = sorted(cut for cut in cuts if cut >= 0)
    running: dict[int, int] = {}
    pieces = []
    for start, end in itertools.pairwise(edges):
        demands = []
        for index, process in enumerate(members):
            if process.from_s <= start < process.until_s:
                point = _advance(process.load, running.get(index, 0), start)
                running[index] = point
                demands.append((process.pid, process.load[point]))
        pieces.append(_piece(start, end, demands, sharing))
    return pieces


def _advance(load: Sequence[ScenarioLoad], index: int, at_s: float) -> int:
    while index + 1 < len(load) and load[index + 1].at_s <= at_s:
        index += 1
    return index


def _piece(start: float, end: float, demands: list[tuple[int, ScenarioLoad]], sharing: Sharing) -> Piece:
    idle = 1.0
    for _, load in demands:
        idle *= 1.0 - load.duty
    if sharing is Sharing.MPS:
        duty_scale, device_duty = 1.0, 1.0 - idle
        sm_scale = 1.0 / max(1.0, sum(load.duty * load.sm_width for _, load in demands))
    else:
        asked = sum(load.duty for _, load in demands)
        duty_scale = sm_scale = 1.0 / max(1.0, asked)
        device_duty = min(1.0, asked)
    enc_scale = 1.0 / max(1.0, sum(load.enc for _, load in demands))
    dec_scale = 1.0 / max(1.0, sum(load.dec for _, load in demands))
    rates = tuple(
        Rate(
            pid,
            load.duty * duty_scale,
            load.duty * load.sm_width * sm_scale,
            load.duty * load.tensor * sm_scale,
            load.duty * load.dram * sm_scale,
            int(load.memory_mib * _MIB),
            load.enc * enc_scale,
            load.dec * dec_scale,
        )
        for pid, load in demands
    )
    return Piece(
        start,
        end,
        rates,
        device_duty,
        min(1.0, sum(rate.sm for rate in rates)),
        min(1.0, sum(rate.tensor for rate in rates)),
        min(1.0, sum(rate.dram for rate in rates)),
        sum(rate.memory_bytes for rate in rates),
        min(1.0, sum(rate.enc for rate in rates)),
        min(1.0, sum(rate.dec for rate in rates)),
    )
