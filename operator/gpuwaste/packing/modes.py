"""Which mode the GPUs of each machine are in, and which pod goes where, in one search.

A mode is all that mig-manager and the device plugin can be told of a machine: whether its GPUs are cut into MIG
instances of one profile (`migStrategy: single`), and how many replicas each of them has, by time-slicing or MPS. In a
mode a machine offers so many equal units, and a pod that shares takes one. Each machine is a node of the packing in
each of its modes, of which one may be used; so modes, layouts, replicas and places are chosen by the same master.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal, localcontext
from math import lcm
from typing import TYPE_CHECKING, Literal

import numpy as np

from gpuwaste.model.errors import InputError, InvariantError
from gpuwaste.packing.engine import solve
from gpuwaste.packing.instance import WHOLE_GPU_MILLI, Instance
from gpuwaste.packing.option_values import CONTEXT_MEMORY_GIB

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gpuwaste.model.gpu_products import GpuProduct, MigProfile
    from gpuwaste.packing.answer import Answer

__all__ = [
    "EXCLUSIVE",
    "Mode",
    "ModeMachine",
    "ModePod",
    "ModesAnswer",
    "SharedPlace",
    "mode_violations",
    "pack_in_modes",
]

_BOUND_PLACES = Decimal("1e-12")
_EXACT = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """What all GPUs of a machine are at a time.

    Attributes:
        profile: MIG profile that every GPU is cut into as often as it goes; empty = MIG is off.
        sharing: how each GPU or instance is shared; None = not at all.
        replicas: of each GPU or instance; 1 where it is not shared.
    """

    profile: str = ""
    sharing: Literal["timeSlicing", "mps"] | None = None
    replicas: int = 1

    def __str__(self) -> str:
        parts = [self.profile or "whole GPUs"]
        if self.sharing:
            parts.append(f"{self.replicas} replicas by {self.sharing}")
        return ", ".join(parts)

    def check(self, product: GpuProduct, where: str) -> None:
        """Refuse what the device plugin would refuse.

        Raises:
            InputError: the product has no such profile, the replicas make no sense, or MPS is asked for beside MIG.
        """
        if self.profile and all(profile.name != self.profile for profile in product.profiles):
            raise InputError(f"{product.name} has no profile {self.profile}", where=where)
        if self.sharing == "mps" and self.profile:
            raise InputError("MPS does not work on a node with MIG", where=where)
        if (self.sharing is None) != (self.replicas == 1) or self.replicas < 1:
            raise InputError(f"{self.replicas} replicas; shared devices have 2 or more, others 1", where=where)

    def instance(self, product: GpuProduct) -> MigProfile | None:
        """The profile of the product; None where MIG is off."""
        return next((profile for profile in product.profiles if profile.name == self.profile), None)

    def units(self, product: GpuProduct) -> int:
        """Units that one GPU offers."""
        cut = self.instance(product)
        return self.replicas * (1 if cut is None else cut.max_count)

    def memory_gib(self, product: GpuProduct) -> float:
        """GPU memory for one unit; replicas have no memory of their own, and are given equal parts."""
        cut = self.instance(product)
        part = 1.0 if cut is None else cut.memory_units / cut.axis_units
        return product.memory_mib / 1024 * part / self.replicas

    def milli(self, product: GpuProduct) -> int:
        """Thousandths of a GPU's compute for one unit, rounded down."""
        cut = self.instance(product)
        if cut is None:
            return WHOLE_GPU_MILLI // self.replicas
        return WHOLE_GPU_MILLI * cut.compute_slices // product.compute_slices // self.replicas


EXCLUSIVE = Mode()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeMachine:
    """A node and the modes that it may be in."""

    name: str
    product: GpuProduct
    gpus: int
    cpu: int
    memory: int
    price: Decimal
    modes: tuple[Mode, ...] = (EXCLUSIVE,)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModePod:
    """A pod.

    Attributes:
        gpus: 0 = CPU and memory only; more than 1 = whole GPUs.
        milli: what it needs of one GPU, 1 to 1000; below 1000 it may share.
        memory_gib: its peak of GPU memory; None = not measured, where its milli alone decides.
        models: GPU products it may run on; empty = any.
    """

    name: str
    cpu: int
    memory: int
    gpus: int = 1
    milli: int = WHOLE_GPU_MILLI
    memory_gib: float | None = None
    models: frozenset[str] = frozenset()

    @property
    def shares(self) -> bool:
        """Whether it needs less than a GPU."""
        return self.gpus == 1 and self.milli < WHOLE_GPU_MILLI

    def may_use(self, product: GpuProduct, mode: Mode, *, context_memory_gib: float = CONTEXT_MEMORY_GIB) -> bool:
        """Whether one unit of such a machine holds what the pod needs, its peak memory with a context among it."""
        if self.models and product.name not in self.models:
            return False
        if self.gpus == 0:
            return True
        if self.gpus > 1 or (not self.shares and self.memory_gib is None):
            return mode == EXCLUSIVE
        need = 0.0 if self.memory_gib is None else self.memory_gib + context_memory_gib
        return self.milli <= mode.milli(product) and need <= mode.memory_gib(product) + _EXACT


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedPlace:
    """Where a pod is: a machine, and for each unit it has the GPU."""

    machine: int
    gpus: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModesAnswer:
    """Modes and places.

    Attributes:
        modes: machine in use to its mode.
        places: where each pod is; None = unplaced.
        cost: price of the machines in use an hour.
        bound: no modes and places that leave no more units and pods out cost less.
        first_feasible_seconds: when the first placement was known.
        method: which step gave it.
    """

    modes: dict[int, Mode]
    places: tuple[SharedPlace | None, ...]
    cost: Decimal
    bound: Decimal
    first_feasible_seconds: float
    method: str


def pack_in_modes(
    machines: Sequence[ModeMachine],
    pods: Sequence[ModePod],
    *,
    time_limit_seconds: float,
    clock: Callable[[], float],
) -> ModesAnswer:
    """Choose a mode for each machine and a place for each pod so that the machines in use cost least.

    Least first: units of pods left out (a pod that shares is one, one of k GPUs is k), pods left out, cost.

    Raises:
        InputError: a mode is none that its machine can be in.
        InvariantError: the answer breaks a rule.
    """
    for machine in machines:
        if len(set(machine.modes)) != len(machine.modes) or not machine.modes:
            raise InputError("has no mode, or one twice", where=f"machine {machine.name}")
        for mode in machine.modes:
            mode.check(machine.product, f"machine {machine.name}")
    question = _Question.of(machines, pods)
    answer = solve(question.instance, time_limit_seconds=time_limit_seconds, objective="cost", clock=clock)
    found = question.read(answer)
    wrong = mode_violations(machines, pods, found)
    if wrong:
        raise InvariantError("the modes are wrong and were not written: " + "; ".join(wrong[:3]))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """The packing of units, and what its nodes are."""

    machines: Sequence[ModeMachine]
    node: tuple[tuple[int, Mode], ...]
    instance: Instance
    scale: int

    @classmethod
    def of(cls, machines: Sequence[ModeMachine], pods: Sequence[ModePod]) -> _Question:
        node = tuple((index, mode) for index, machine in enumerate(machines) for mode in machine.modes)
        units = [mode.units(machines[index].product) for index, mode in node]
        scale = lcm(*units)
        keys = [(machines[i].product.name, machines[i].price, mode) for i, mode in node]
        models = list(dict.fromkeys(keys))
        product = {machine.product.name: machine.product for machine in machines}
        needs = [(pod.gpus, pod.milli, pod.memory_gib, pod.models) for pod in pods]
        sets = {need: pod for need, pod in zip(needs, pods, strict=True)}  # noqa: C416 - the last of equals is as good
        rows = [[pod.may_use(product[name], mode) for name, _, mode in models] for pod in sets.values()]
        row = {need: number for number, need in enumerate(sets)}
        of_key = dict(zip(keys, units, strict=True))
        instance = Instance(
            pod_names=[pod.name for pod in pods],
            pod_cpu=np.array([pod.cpu for pod in pods], dtype=np.int64),
            pod_memory=np.array([pod.memory for pod in pods], dtype=np.int64),
            pod_gpus=np.array([pod.gpus for pod in pods], dtype=np.int64),
            pod_gpu_milli=np.full(len(pods), WHOLE_GPU_MILLI, dtype=np.int64),
            pod_model_set=np.array([row[need] for need in needs], dtype=np.int64),
            model_sets=np.array(rows, dtype=np.bool_).reshape(len(rows), len(models)),
            node_names=[f"{machines[index].name} in mode {mode}" for index, mode in node],
            node_cpu=np.array([machines[index].cpu for index, _ in node], dtype=np.int64),
            node_memory=np.array([machines[index].memory for index, _ in node], dtype=np.int64),
            node_gpus=np.array([machines[i].gpus * u for (i, _), u in zip(node, units, strict=True)], dtype=np.int64),
            node_model=np.array([models.index(key) for key in keys], dtype=np.int64),
            models=tuple(f"{name} at {price}, {mode}" for name, price, mode in models),
            # Times `scale`, the price of a unit is exact, whatever a GPU is divided into.
            prices=tuple(key[1] * (scale // of_key[key]) for key in models),
            node_machine=np.array([index for index, _ in node], dtype=np.int64),
        )
        return cls(machines=machines, node=node, instance=instance, scale=scale)

    def read(self, answer: Answer) -> ModesAnswer:
        placement = answer.placement
        modes: dict[int, Mode] = {}
        places: list[SharedPlace | None] = []
        for host, chosen in zip(placement.pod_node.tolist(), placement.pod_gpu_set.tolist(), strict=True):
            if host < 0:
                places.append(None)
                continue
            index, mode = self.node[host]
            modes[index] = mode
            per_gpu = mode.units(self.machines[index].product)
            places.append(
                SharedPlace(machine=index, gpus=tuple(unit // per_gpu for unit in placement.gpu_sets[chosen]))
            )
        used = (self.machines[index] for index in modes)
        with localcontext(prec=60, rounding=ROUND_FLOOR):
            bound = (answer.bound / self.scale).quantize(_BOUND_PLACES)
        return ModesAnswer(
            modes=dict(sorted(modes.items())),
            places=tuple(places),
            cost=sum((machine.price * machine.gpus for machine in used), Decimal(0)),
            bound=bound,
            first_feasible_seconds=answer.first_feasible_seconds,
            method=answer.method,
        )


def mode_violations(machines: Sequence[ModeMachine], pods: Sequence[ModePod], answer: ModesAnswer) -> list[str]:
    """Every rule an answer breaks, from the question alone; empty if it is right."""
    found = [
        f"{machines[index].name} cannot be in mode {mode}"
        for index, mode in answer.modes.items()
        if mode not in machines[index].modes
    ]
    taken: dict[tuple[int, int], int] = {}
    cpu, memory = [0] * len(machines), [0] * len(machines)
    for pod, place in zip(pods, answer.places, strict=True):
        if place is None:
            continue
        machine, mode = machines[place.machine], answer.modes.get(place.machine)
        if mode is None or not pod.may_use(machine.product, mode):
            found.append(f"pod {pod.name} cannot use what {machine.name} offers")
        if len(place.gpus) != pod.gpus or (pod.gpus > 1 and len(set(place.gpus)) != pod.gpus):
            found.append(f"pod {pod.name} has another number of GPUs than it asks for")
        for gpu in place.gpus:
            taken[place.machine, gpu] = taken.get((place.machine, gpu), 0) + 1
        cpu[place.machine] += pod.cpu
        memory[place.machine] += pod.memory
    found += _overfull(machines, answer, taken)
    found += [
        f"{machine.name} has less CPU or memory than its pods need"
        for machine, need, held in zip(machines, cpu, memory, strict=True)
        if need > machine.cpu or held > machine.memory
    ]
    cost = sum((machines[index].price * machines[index].gpus for index in answer.modes), Decimal(0))
    if cost != answer.cost or answer.bound > answer.cost:
        found.append(f"the cost is {answer.cost} and the bound {answer.bound}; counted is {cost}")
    return found


def _overfull(machines: Sequence[ModeMachine], answer: ModesAnswer, taken: dict[tuple[int, int], int]) -> list[str]:
    found = []
    for (index, gpu), count in sorted(taken.items()):
        mode = answer.modes.get(index)
        most = 0 if mode is None or not 0 <= gpu < machines[index].gpus else mode.units(machines[index].product)
        if count > most:
            found.append(f"GPU {gpu} of {machines[index].name} has {most} units and {count} pods")
    return found
