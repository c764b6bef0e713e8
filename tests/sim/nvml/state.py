"""A node's state file from Python: made from a scenario, and changed while programs use it."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.sim.nvml.layout import ANY, CONSTANTS, MAGIC, Compute, Fault, Instance, Point, Process, State

from gpuwaste_agent.simulate.scenario import FOREVER

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from gpuwaste_agent.simulate.scenario import (
        ScenarioFault,
        ScenarioGpu,
        ScenarioInstance,
        ScenarioLoad,
        ScenarioNode,
        ScenarioProcess,
    )

__all__ = ["SECOND", "SimState", "StateError", "create_state", "processes_of", "to_ns"]

SECOND = 1_000_000_000
_FOREVER_NS = (1 << 63) - 1
_SHARING = {"none": 0, "time-slicing": 1, "mps": 2}
_FAULTS = {
    "lost": CONSTANTS["FAULT_LOST"],
    "xid": CONSTANTS["FAULT_XID"],
    "counter-reset": CONSTANTS["FAULT_COUNTER_RESET"],
    "hang": CONSTANTS["FAULT_HANG"],
    "driver-reload": CONSTANTS["FAULT_DRIVER_RELOAD"],
}
_SPARE_POINTS = 1 << 16
_DRIVER = {"driver_version": b"580.95.05", "nvml_version": b"13.580.95.05", "cuda_version": 13000}


class StateError(Exception):
    """A state file that cannot be used, or a change it has no room for; the message says what to do."""


def to_ns(seconds: float) -> int:
    """Seconds of the scenario as nanoseconds; infinity is the file's "for ever"."""
    return _FOREVER_NS if seconds == FOREVER else round(seconds * SECOND)


def processes_of(node: ScenarioNode) -> list[ScenarioProcess]:
    """Every process of a node, in containers and on the host."""
    return [*node.processes, *(process for container in node.containers for process in container.processes)]


def create_state(path: Path, node: ScenarioNode, *, start_utc_ns: int, speed: float = 1.0) -> SimState:
    """Make a node's state file, at second 0 of its scenario, with its clock running; replaces an older file.

    Args:
        path: where; programs find it by `GPUWASTE_SIM_STATE`.
        node: the GPUs, processes and faults.
        start_utc_ns: time of second 0, nanoseconds since the epoch; whole microseconds, as NVML counts those.
        speed: seconds of the scenario in a second of the machine.
    """
    points = 1 + sum(len(process.load) for process in processes_of(node)) + _SPARE_POINTS
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("wb") as file:
        file.truncate(ctypes.sizeof(State) + points * ctypes.sizeof(Point))
    # Unprivileged programs use the driver too.
    draft.chmod(0o666)
    made = SimState(draft, fresh=True)
    state = made.state
    state.start_utc_ns = start_utc_ns // 1000 * 1000
    state.point_capacity, state.point_count = points, 1
    for name, value in _DRIVER.items():
        setattr(state, name, value)
    made.run_clock(speed=speed, from_ns=0)
    made.fill(node)
    state.magic = MAGIC
    draft.rename(path)
    return made


class SimState:
    """A mapped state file. Not closed before its process ends: that would drop the process's locks on it.

    Args:
        path: the file.
        fresh: it is being made and says nothing yet.

    Raises:
        StateError: it is missing, or of another layout.
    """

    def __init__(self, path: Path, *, fresh: bool = False) -> None:
        try:
            self.descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise StateError(f"{path}: {error.strerror}; make it with `create`") from None
        self._map = mmap.mmap(self.descriptor, 0)
        if len(self._map) < ctypes.sizeof(State):
            raise StateError(f"{path}: is no state file; make it anew with `create`")
        self.state = State.from_buffer(self._map)
        if not fresh and self.state.magic != MAGIC:
            raise StateError(f"{path}: is of another build of the simulator; make it anew with `create`")
        capacity = (len(self._map) - ctypes.sizeof(State)) // ctypes.sizeof(Point)
        self.points = (Point * capacity).from_buffer(self._map, ctypes.sizeof(State))
        self._thread = threading.Lock()

    @contextmanager
    def writing(self) -> Iterator[State]:
        """Exclude every other writer on the machine."""
        with self._thread:
            fcntl.lockf(self.descriptor, fcntl.LOCK_EX, 1, CONSTANTS["LOCK_WRITER"])
            try:
                yield self.state
            finally:
                fcntl.lockf(self.descriptor, fcntl.LOCK_UN, 1, CONSTANTS["LOCK_WRITER"])

    # --- clock

    def now_ns(self) -> int:
        """Nanoseconds of the scenario now."""
        clock = self.state.clocks[self.state.clock_slot & 1]
        if clock.mode == CONSTANTS["CLOCK_SET"]:
            return int(clock.base_ns)
        return int(clock.base_ns + int((time.monotonic_ns() - clock.base_monotonic_ns) * clock.speed))

    def set_clock(self, at_ns: int) -> None:
        """Stop the clock at a time of the scenario."""
        self._new_clock(at_ns, mode=CONSTANTS["CLOCK_SET"], speed=0.0)

    def run_clock(self, *, speed: float, from_ns: int | None = None) -> None:
        """Let the clock run, from now or from the time said."""
        self._new_clock(self.now_ns() if from_ns is None else from_ns, mode=CONSTANTS["CLOCK_RUNNING"], speed=speed)

    def _new_clock(self, base_ns: int, *, mode: int, speed: float) -> None:
        with self.writing() as state:
            other = 1 - (state.clock_slot & 1)
            clock = state.clocks[other]
            clock.base_ns, clock.base_monotonic_ns, clock.speed, clock.mode = base_ns, time.monotonic_ns(), speed, mode
            state.clock_slot = other

    # --- what there is

    def fill(self, node: ScenarioNode) -> None:
        """Write a node's GPUs, instances, processes and faults into a fresh file."""
        if len(node.gpus) > CONSTANTS["MAX_GPUS"]:
            raise StateError(f"node {node.name} has {len(node.gpus)} GPUs; the simulator holds {CONSTANTS['MAX_GPUS']}")
        with self.writing() as state:
            for index, gpu in enumerate(node.gpus):
                entry = state.gpus[index]
                entry.uuid, entry.product = gpu.uuid.encode(), gpu.product.encode()
                entry.mig_mode = entry.mig_pending = int(gpu.mig is not None)
                entry.sharing = _SHARING[gpu.strategy]
                entry.accounting_since_ns = -1
                entry.accounting_cleared_ns = -1
            state.gpu_count = len(node.gpus)
            for index, gpu in enumerate(node.gpus):
                for instance in gpu.mig or ():
                    self.add_instance(index, gpu, instance, 0)
            for process in processes_of(node):
                self.add_process(process)
            for fault in node.faults:
                self.add_scenario_fault(fault)

    def gpu_index(self, uuid: str) -> int:
        """Number of the GPU of that UUID.

        Raises:
            StateError: there is none.
        """
        known = [gpu.uuid.decode() for gpu in self.state.gpus[: self.state.gpu_count]]
        if uuid not in known:
            raise StateError(f"no GPU `{uuid}` here (there are: {', '.join(known)})")
        return known.index(uuid)

    def parent(self, uuid: str) -> tuple[int, int]:
        """GPU and compute instance (ANY: the whole GPU) of a parent's UUID.

        Raises:
            StateError: there is none now.
        """
        for index, compute in enumerate(self.state.computes[: self.state.compute_count]):
            if compute.published and compute.until_ns == _FOREVER_NS and compute.uuid.decode() == uuid:
                return int(self.state.instances[compute.instance].gpu), index
        return self.gpu_index(uuid), ANY

    # --- changes; the caller holds `writing`

    def add_instance(self, index: int, gpu: ScenarioGpu, instance: ScenarioInstance, at_ns: int) -> None:
        """Put a GPU instance, with a compute instance as large, on a GPU."""
        profile = gpu.facts.profile(instance.profile)
        gi, ci = self.state.instance_count, self.state.compute_count
        if gi >= CONSTANTS["MAX_INSTANCES"] or ci >= CONSTANTS["MAX_COMPUTES"]:
            raise StateError("the state file has no room for another MIG instance: make it anew with `create`")
        self.state.instances[gi] = Instance(
            created_ns=at_ns,
            until_ns=_FOREVER_NS,
            gpu=index,
            gi_id=profile.axis_units // profile.memory_units - 1 + instance.start // profile.memory_units,
            profile_id=profile.gi_profile_id,
            start=instance.start,
            size=profile.memory_units,
            published=0,
        )
        self.state.computes[ci] = Compute(
            uuid=instance.uuid.encode(),
            created_ns=at_ns,
            until_ns=_FOREVER_NS,
            instance=gi,
            ci_id=0,
            slices=profile.compute_slices,
            start=0,
            published=0,
        )
        self.state.instance_count, self.state.compute_count = gi + 1, ci + 1
        self.state.instances[gi].published = 1
        self.state.computes[ci].published = 1

    def add_process(self, process: ScenarioProcess, *, from_ns: int | None = None) -> int:
        """Put a process with its whole load on its parent; returns its slot."""
        slot = self.state.process_count
        if slot >= CONSTANTS["MAX_PROCESSES"]:
            raise StateError("the state file has no room for another process: make it anew with `create`")
        gpu, compute = self.parent(process.parent)
        first, last = self._add_points(process.load)
        self.state.processes[slot] = Process(
            from_ns=to_ns(process.from_s) if from_ns is None else from_ns,
            until_ns=to_ns(process.until_s),
            pid=process.pid,
            gpu=gpu,
            compute=compute,
            first=first,
            last=last,
            origin=CONSTANTS["ORIGIN_GIVEN"],
            kind=CONSTANTS["KIND_COMPUTE"],
            published=0,
        )
        self.state.process_count = slot + 1
        self.state.processes[slot].published = 1
        return int(slot)

    def _add_points(self, load: Iterable[ScenarioLoad]) -> tuple[int, int]:
        first = last = 0
        for point in load:
            index = self.state.point_count
            if index >= self.state.point_capacity:
                raise StateError("the state file has no room for more load: make it anew with `create`")
            self.points[index] = Point(
                at_ns=to_ns(point.at_s),
                duty=point.duty,
                sm_width=point.sm_width,
                memory_mib=point.memory_mib,
                tensor=point.tensor,
                dram=point.dram,
                enc=point.enc,
                dec=point.dec,
                next=0,
            )
            self.state.point_count = index + 1
            if last:
                self.points[last].next = index
            first, last = first or index, index
        return first, last

    def add_load(self, slot: int, load: ScenarioLoad) -> None:
        """Let a process ask for something else from `load.at_s` on, which must not lie before its last change."""
        process = self.state.processes[slot]
        first, last = self._add_points([load])
        self.points[process.last].next = first
        process.last = last

    def add_scenario_fault(self, fault: ScenarioFault) -> None:
        """Add a scenario's fault; a stepped node clock is none of the driver's."""
        if fault.kind in _FAULTS:
            self.add_fault(
                fault.kind, gpu=fault.gpu, from_ns=to_ns(fault.from_s), until_ns=to_ns(fault.until_s), xid=fault.xid
            )

    def add_fault(
        self, kind: str, *, gpu: str = "", from_ns: int, until_ns: int = _FOREVER_NS, xid: int = 0, call: str = ""
    ) -> None:
        """Let something go wrong; an empty `gpu` is every GPU, an empty `call` every call."""
        index = self.state.fault_count
        if index >= CONSTANTS["MAX_FAULTS"]:
            raise StateError("the state file has no room for another fault: make it anew with `create`")
        self.state.faults[index] = Fault(
            from_ns=from_ns,
            until_ns=until_ns,
            kind=_FAULTS[kind],
            gpu=self.gpu_index(gpu) if gpu else ANY,
            xid=xid,
            published=0,
            call=call.encode(),
        )
        self.state.fault_count = index + 1
        self.state.faults[index].published = 1
