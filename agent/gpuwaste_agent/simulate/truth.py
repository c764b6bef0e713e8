"""What a perfect agent would report, computed from the scenario alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpuwaste_agent.simulate.scenario import STRATEGIES
from gpuwaste_agent.simulate.timeline import parent_timeline, processes_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpuwaste_agent.simulate.scenario import ScenarioGpu, ScenarioNode
    from gpuwaste_agent.simulate.timeline import Piece

__all__ = ["ParentTruth", "ProcessTruth", "true_gpu_energy_joules", "true_parents", "true_processes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessTruth:
    """One process between two times.

    Attributes:
        duty_s: Seconds with one of its kernels resident.
        sm_s: SM-seconds: part of the parent's SMs in use, times seconds.
        memory_byte_s: Bytes times seconds.
        energy_joules: What it adds to the board's energy at rest: SM-seconds × weight × (limit − idle power).
        enc_s: Part of the encoders' time, times seconds; `dec_s` of the decoders'.
    """

    duty_s: float
    sm_s: float
    memory_byte_s: float
    energy_joules: float
    enc_s: float
    dec_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentTruth:
    """One parent between two times; units as in `ProcessTruth`, `tensor_s` and `dram_s` like `sm_s`."""

    duty_s: float
    sm_s: float
    tensor_s: float
    dram_s: float
    memory_byte_s: float
    enc_s: float
    dec_s: float


def _parents(node: ScenarioNode) -> Iterator[tuple[ScenarioGpu, str, float, list[Piece]]]:
    for gpu in node.gpus:
        weights = {gpu.uuid: 1.0}
        for instance in gpu.mig or ():
            weights[instance.uuid] = float(gpu.facts.profile(instance.profile).weight)
        for parent in gpu.parent_ids:
            pieces = parent_timeline(processes_on(node, parent), STRATEGIES[gpu.strategy])
            yield gpu, parent, weights[parent], pieces


def _overlap(piece: Piece, from_s: float, until_s: float) -> float:
    return max(0.0, min(piece.end_s, until_s) - max(piece.start_s, from_s))


def true_processes(node: ScenarioNode, from_s: float, until_s: float) -> dict[int, ProcessTruth]:
    """Integrate every process of a node between two times of the scenario; keys are PIDs."""
    sums: dict[int, list[float]] = {}
    for gpu, _, weight, pieces in _parents(node):
        watts = gpu.facts.max_watts - gpu.facts.idle_watts
        for piece in pieces:
            seconds = _overlap(piece, from_s, until_s)
            for rate in piece.rates:
                entry = sums.setdefault(rate.pid, [0.0] * 6)
                entry[0] += rate.duty * seconds
                entry[1] += rate.sm * seconds
                entry[2] += rate.memory_bytes * seconds
                entry[3] += rate.sm * seconds * weight * watts
                entry[4] += rate.enc * seconds
                entry[5] += rate.dec * seconds
    return {
        pid: ProcessTruth(duty_s=duty, sm_s=sm, memory_byte_s=memory, energy_joules=energy, enc_s=enc, dec_s=dec)
        for pid, (duty, sm, memory, energy, enc, dec) in sums.items()
    }


def true_parents(node: ScenarioNode, from_s: float, until_s: float) -> dict[str, ParentTruth]:
    """Integrate every parent of a node between two times of the scenario; keys are parent ids."""
    found = {}
    for _, parent, _, pieces in _parents(node):
        spans = [(piece, _overlap(piece, from_s, until_s)) for piece in pieces]
        found[parent] = ParentTruth(
            duty_s=sum(piece.duty * seconds for piece, seconds in spans),
            sm_s=sum(piece.sm * seconds for piece, seconds in spans),
            tensor_s=sum(piece.tensor * seconds for piece, seconds in spans),
            dram_s=sum(piece.dram * seconds for piece, seconds in spans),
            memory_byte_s=sum(piece.memory_bytes * seconds for piece, seconds in spans),
            enc_s=sum(piece.enc * seconds for piece, seconds in spans),
            dec_s=sum(piece.dec * seconds for piece, seconds in spans),
        )
    return found


def true_gpu_energy_joules(node: ScenarioNode, from_s: float, until_s: float) -> dict[str, float]:
    """Energy of every GPU: idle power all the time, plus the SM-seconds of its parents by weight."""
    found = {gpu.uuid: gpu.facts.idle_watts * (until_s - from_s) for gpu in node.gpus}
    for gpu, _, weight, pieces in _parents(node):
        watts = gpu.facts.max_watts - gpu.facts.idle_watts
        found[gpu.uuid] += sum(p.sm * _overlap(p, from_s, until_s) * weight * watts for p in pieces)
    return found
