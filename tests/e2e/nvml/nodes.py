"""A simulated node for tests, and NVML programs on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.sim.nvml.state import SECOND, SimState, create_state

from gpuwaste_agent.simulate.scenario import (
    ScenarioGpu,
    ScenarioInstance,
    ScenarioLoad,
    ScenarioNode,
    ScenarioProcess,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

START_NS = 1_767_225_600 * SECOND  # 2026-01-01
END_SECONDS = 20.0
WORKER = Path(__file__).with_name("worker.py")


def gpu_uuid(index: int) -> str:
    return f"GPU-00000000-0000-4000-8000-{index:012x}"


def mig_uuid(number: int) -> str:
    return f"MIG-00000000-0000-4000-8000-{number:012x}"


def a_gpu(index: int, product: str, *mig: tuple[str, int], on: bool = False, **more: Any) -> ScenarioGpu:
    """A GPU; `mig` are profiles with their starts, `on` is MIG mode without instances."""
    layout = tuple(
        ScenarioInstance(uuid=mig_uuid(16 * index + number), profile=profile, start=start)
        for number, (profile, start) in enumerate(mig)
    )
    return ScenarioGpu(uuid=gpu_uuid(index), product=product, mig=layout if layout or on else None, **more)


def a_process(pid: int, parent: str, *load: Sequence[float], **more: Any) -> ScenarioProcess:
    """A process; `load` as (at_s, duty, sm_width, memory_mib, tensor, dram)."""
    return ScenarioProcess(pid=pid, parent=parent, load=tuple(ScenarioLoad(*point) for point in load), **more)


def a_node(gpus: Sequence[ScenarioGpu], processes: Sequence[ScenarioProcess] = (), faults: Sequence[Any] = ()) -> Any:
    return ScenarioNode(name="node-a", uid="uid-a", gpus=tuple(gpus), processes=tuple(processes), faults=tuple(faults))


@dataclass
class Program:
    """A running NVML program that answers expressions."""

    child: subprocess.Popen[str]

    def ask(self, expression: str) -> Any:
        """The value, or `Refused` with NVML's number."""
        self.tell(expression)
        return self.answer()

    def tell(self, expression: str) -> None:
        """Ask, without waiting for the answer."""
        assert self.child.stdin is not None
        self.child.stdin.write(expression + "\n")
        self.child.stdin.flush()

    def answer(self) -> Any:
        assert self.child.stdout is not None
        line = self.child.stdout.readline()
        assert line, f"the program ended with {self.child.wait(timeout=10)}"
        answer = json.loads(line)
        return Refused(answer["error"]) if "error" in answer else answer["value"]


@dataclass(frozen=True)
class Refused:
    """An NVML error."""

    number: int


@dataclass
class Node:
    """A node's state file, with its clock standing still, and programs on it."""

    sim: SimState
    path: Path
    library: Path
    environment: dict[str, str] = field(default_factory=dict)
    children: list[subprocess.Popen[str]] = field(default_factory=list)

    def at(self, seconds: float) -> None:
        self.sim.set_clock(round(seconds * SECOND))

    def variables(self) -> dict[str, str]:
        return {
            **os.environ,
            "LD_LIBRARY_PATH": str(self.library),
            "GPUWASTE_SIM_STATE": str(self.path),
            **self.environment,
        }

    def start(self, *command: str, pipes: bool = False) -> subprocess.Popen[str]:
        """Start a program of the node, which ends with it at the latest."""
        pipe = subprocess.PIPE if pipes else subprocess.DEVNULL
        child = subprocess.Popen(command, env=self.variables(), text=True, stdin=pipe, stdout=pipe)
        self.children.append(child)
        return child

    def program(self, *, init: bool = True, under: Sequence[str] = ()) -> Program:
        """Start an NVML program, by the command `under` where one is given."""
        made = Program(self.start(*under, sys.executable, str(WORKER), pipes=True))
        if init:
            assert made.ask("nvmlInit()") is None
        return made

    def close(self) -> None:
        for child in self.children:
            child.kill()
            child.communicate(timeout=END_SECONDS)


def make_node(folder: Path, library: Path, node: ScenarioNode, *, at: float = 10.0, **environment: str) -> Node:
    """A node at a second of its scenario."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "nvml.state"
    made = Node(create_state(path, node, start_utc_ns=START_NS), path, library, dict(environment))
    made.at(at)
    return made
