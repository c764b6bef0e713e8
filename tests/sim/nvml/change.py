"""Changes to a running node, and its history as a scenario: so that truth can be computed for what really ran."""

from __future__ import annotations

import fcntl
import struct
from typing import TYPE_CHECKING

from tests.sim.nvml.layout import ANY, CONSTANTS
from tests.sim.nvml.state import SECOND, StateError, processes_of, to_ns

from gpuwaste_agent.products import PRODUCTS
from gpuwaste_agent.simulate.scenario import (
    FOREVER,
    ScenarioGpu,
    ScenarioInstance,
    ScenarioLoad,
    ScenarioNode,
    ScenarioProcess,
)

if TYPE_CHECKING:
    from tests.sim.nvml.state import SimState

__all__ = ["apply_node", "clear_faults", "clients", "history", "register", "reset_gpu", "unregister"]

_FOREVER_NS = (1 << 63) - 1
_STRATEGIES = {0: "none", 1: "time-slicing", 2: "mps"}
_FLOCK = "hhqqi4x"  # struct flock of 64-bit Linux
_NO_PID = 1 << 22  # Linux gives no process such a number


def _seconds(ns: int) -> float:
    return FOREVER if ns == _FOREVER_NS else ns / SECOND


# --- processes


def register(sim: SimState, pid: int, parent: str, load: ScenarioLoad, *, until_s: float = FOREVER) -> int:
    """Put a process on a parent from now on, under the PID given; returns its slot."""
    now = sim.now_ns()
    process = ScenarioProcess(pid=pid, parent=parent, load=(load._replace(at_s=now / SECOND),), until_s=until_s)
    with sim.writing():
        return sim.add_process(process, from_ns=now)


def _running(sim: SimState, pid: int) -> list[int]:
    now = sim.now_ns()
    return [
        slot
        for slot, process in enumerate(sim.state.processes[: sim.state.process_count])
        if process.published and process.pid == pid and process.until_ns > now
    ]


def unregister(sim: SimState, pid: int) -> None:
    """End a process now, on every parent.

    Raises:
        StateError: none of that PID runs.
    """
    slots = _running(sim, pid)
    if not slots:
        raise StateError(f"no process {pid} runs here")
    with sim.writing() as state:
        for slot in slots:
            state.processes[slot].until_ns = sim.now_ns()


# --- faults, clients, reset


def clear_faults(sim: SimState, *, gpu: str = "", kind: int = 0) -> int:
    """End, now, the faults that are on, of one GPU or of all; returns how many."""
    index = sim.gpu_index(gpu) if gpu else ANY
    ended = 0
    with sim.writing() as state:
        now = sim.now_ns()
        for fault in state.faults[: state.fault_count]:
            if fault.until_ns > now and index in (ANY, fault.gpu) and kind in (0, fault.kind):
                fault.until_ns = max(now, fault.from_ns)
                ended += 1
    return ended


def _holder(sim: SimState, byte: int) -> int | None:
    """PID of the process that holds a lock on a byte (0: not visible from here), or None for nobody."""
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, 0, byte, 1, 0)
    kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(sim.descriptor, fcntl.F_GETLK, asked))
    return None if kind == fcntl.F_UNLCK else int(pid)


def clients(sim: SimState) -> int:
    """How many other processes hold the driver open."""
    first = CONSTANTS["LOCK_CLIENTS"]
    return sum(_holder(sim, first + slot) is not None for slot in range(CONSTANTS["MAX_CLIENTS"]))


def _live_pids(sim: SimState) -> dict[int, int]:
    """PIDs, by slot, of processes that attached themselves; the entries of dead ones are ended."""
    found = {}
    for slot, process in enumerate(sim.state.processes[: sim.state.process_count]):
        if process.origin != CONSTANTS["ORIGIN_LIVE"] or process.until_ns != _FOREVER_NS:
            continue
        pid = _holder(sim, CONSTANTS["LOCK_PROCESSES"] + slot)
        if pid is not None:
            found[slot] = pid
            continue
        with sim.writing():
            process.until_ns = min(process.until_ns, sim.now_ns())
    return found


def reset_gpu(sim: SimState, uuid: str) -> None:
    """Reset a GPU as `nvidia-smi --gpu-reset` does: a pending MIG mode takes effect, instances are gone.

    Raises:
        StateError: a program holds the driver open, or a process runs on the GPU.
    """
    index = sim.gpu_index(uuid)
    holders = clients(sim)
    if holders:
        raise StateError(f"{uuid} cannot be reset: {holders} program(s) hold the driver open")
    with sim.writing() as state:
        now = sim.now_ns()
        for process in state.processes[: state.process_count]:
            if process.gpu == index and process.from_ns <= now < process.until_ns:
                raise StateError(f"{uuid} cannot be reset: process {process.pid} runs on it")
        for compute in state.computes[: state.compute_count]:
            if state.instances[compute.instance].gpu == index:
                compute.until_ns = min(compute.until_ns, now)
        for instance in state.instances[: state.instance_count]:
            if instance.gpu == index:
                instance.until_ns = min(instance.until_ns, now)
        state.gpus[index].mig_mode = state.gpus[index].mig_pending


# --- the scenario


def apply_node(sim: SimState, node: ScenarioNode) -> None:
    """Make the node what a changed scenario says, from now on: MIG layouts, sharing, processes, faults.

    Processes that registered themselves stay, and so do faults that were added by hand. A process whose load
    changed goes on with the new one.

    Raises:
        StateError: the node has other GPUs, or a process that registered itself is on an instance that goes.
    """
    known = [gpu.uuid.decode() for gpu in sim.state.gpus[: sim.state.gpu_count]]
    if [gpu.uuid for gpu in node.gpus] != known:
        raise StateError("the scenario's GPUs are others than the node's: make its state anew with `create`")
    with sim.writing():
        now = sim.now_ns()
        wanted = {(process.pid, process.parent): process for process in processes_of(node)}
        _end_processes(sim, wanted, now)
        for index, gpu in enumerate(node.gpus):
            _apply_gpu(sim, index, gpu, now)
        for process in wanted.values():
            if to_ns(process.until_s) > now:
                sim.add_process(process, from_ns=max(now, to_ns(process.from_s)))
        old = {(f.kind, f.gpu, f.xid, f.from_ns) for f in sim.state.faults[: sim.state.fault_count]}
        for fault in node.faults:
            before = sim.state.fault_count
            sim.add_scenario_fault(fault)
            for f in sim.state.faults[before : sim.state.fault_count]:
                if (f.kind, f.gpu, f.xid, f.from_ns) in old:
                    sim.state.fault_count = before


def _end_processes(sim: SimState, wanted: dict[tuple[int, str], ScenarioProcess], now: int) -> None:
    """End those that the scenario has no more or otherwise; take from `wanted` those that go on."""
    for slot, entry in enumerate(sim.state.processes[: sim.state.process_count]):
        if entry.origin != CONSTANTS["ORIGIN_GIVEN"] or entry.until_ns <= now:
            continue
        parent = _parent_uuid(sim, slot)
        process = wanted.get((entry.pid, parent))
        same = process is not None and _from(_load(sim, slot), now) == _from(process.load, now)
        if process is not None and same:
            entry.until_ns = to_ns(process.until_s)
            del wanted[(entry.pid, parent)]
        else:
            entry.until_ns = max(now, entry.from_ns)


def _from(load: tuple[ScenarioLoad, ...], now: int) -> list[ScenarioLoad]:
    """The load that holds now, and what comes after it."""
    past = [index for index, point in enumerate(load) if to_ns(point.at_s) <= now]
    kept = list(load[past[-1] if past else 0 :])
    return [kept[0]._replace(at_s=0.0), *kept[1:]]


def _apply_gpu(sim: SimState, index: int, gpu: ScenarioGpu, now: int) -> None:
    state = sim.state
    entry = state.gpus[index]
    wanted = {instance.uuid: instance for instance in gpu.mig or ()}
    for number, compute in enumerate(state.computes[: state.compute_count]):
        if compute.until_ns != _FOREVER_NS or state.instances[compute.instance].gpu != index:
            continue
        if wanted.pop(compute.uuid.decode(), None) is not None:
            continue
        for process in state.processes[: state.process_count]:
            if process.compute == number and process.from_ns <= now < process.until_ns:
                raise StateError(
                    f"process {process.pid} runs on {compute.uuid.decode()}, which the scenario has no more"
                )
        compute.until_ns = now
        state.instances[compute.instance].until_ns = now
    entry.mig_mode = entry.mig_pending = int(gpu.mig is not None)
    entry.sharing = {name: number for number, name in _STRATEGIES.items()}[gpu.strategy]
    for instance in wanted.values():
        sim.add_instance(index, gpu, instance, now)


# --- history


def _parent_uuid(sim: SimState, slot: int) -> str:
    process = sim.state.processes[slot]
    if process.compute == ANY:
        return str(sim.state.gpus[process.gpu].uuid.decode())
    return str(sim.state.computes[process.compute].uuid.decode())


def _load(sim: SimState, slot: int) -> tuple[ScenarioLoad, ...]:
    found, index = [], sim.state.processes[slot].first
    while index:
        point = sim.points[index]
        numbers = (point.duty, point.sm_width, point.memory_mib, point.tensor, point.dram, point.enc, point.dec)
        found.append(ScenarioLoad(point.at_ns / SECOND, *numbers))
        index = point.next
    return tuple(found)


def _history_gpu(sim: SimState, index: int) -> ScenarioGpu:
    entry = sim.state.gpus[index]
    product = PRODUCTS[entry.product.decode()]
    names = {profile.gi_profile_id: profile.name for profile in product.profiles}
    instances = []
    for compute in sim.state.computes[: sim.state.compute_count]:
        instance = sim.state.instances[compute.instance]
        if compute.published and instance.published and instance.gpu == index:
            profile = names[instance.profile_id]
            instances.append(ScenarioInstance(uuid=compute.uuid.decode(), profile=profile, start=instance.start))
    return ScenarioGpu(
        uuid=entry.uuid.decode(),
        product=product.name,
        mig=tuple(instances) if entry.mig_mode else None,
        strategy=_STRATEGIES[entry.sharing],
        replicas=1 if not entry.sharing else CONSTANTS["MAX_PROCESSES"],
    )


def history(sim: SimState, *, name: str, uid: str, by_slot: bool = False) -> ScenarioNode:
    """What ran on the node, as a scenario: every process that was there with its load, those that have ended too.

    A process that attached itself has its PID while it lives; after that, where another has the number that it saw
    itself, it has one above four million. The agent's `simulate.truth` computes from the node what a perfect agent
    would have reported: exact while a GPU's MIG mode and sharing stay as they are, and for compute instances that
    fill their GPU instance.

    Args:
        sim: the state.
        name: of the node.
        uid: of the node.
        by_slot: give each process the number of its entry plus one instead of a PID.
    """
    live = _live_pids(sim)
    taken: dict[int, tuple[bool, bytes]] = {}
    processes = []
    for slot, entry in enumerate(sim.state.processes[: sim.state.process_count]):
        if not entry.published or entry.until_ns <= entry.from_ns:
            continue
        pid = live.get(slot) or entry.pid
        identity = (slot in live, entry.name)
        if taken.setdefault(pid, identity) != identity:
            pid = _NO_PID + slot
        pid = slot + 1 if by_slot else pid
        processes.append(
            ScenarioProcess(
                pid=pid,
                parent=_parent_uuid(sim, slot),
                load=_load(sim, slot),
                from_s=entry.from_ns / SECOND,
                until_s=_seconds(entry.until_ns),
            )
        )
    gpus = tuple(_history_gpu(sim, index) for index in range(sim.state.gpu_count))
    return ScenarioNode(name=name, uid=uid, gpus=gpus, processes=tuple(processes))
