"""Modes that a packing chose, as the configuration that makes them so."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from gpuwaste.model.errors import InvariantError
from gpuwaste.recommend.node_config import MigStrategy, NodePlan, Sharing, SharingMode, node_configs, offered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpuwaste.model.gpu_products import GpuProduct
    from gpuwaste.packing.modes import Mode, ModeMachine, ModesAnswer
    from gpuwaste.recommend.node_config import NodeConfigs

__all__ = ["configs_of_modes", "plan_of_mode"]

_GPU = "nvidia.com/gpu"


def plan_of_mode(machine: ModeMachine, mode: Mode) -> NodePlan:
    """What mig-manager and the device plugin are told of a machine in a mode."""
    cut = mode.instance(machine.product)
    layout = None if cut is None else (cut.name,) * cut.max_count
    return NodePlan(
        node=machine.name,
        strategy=MigStrategy.NONE if cut is None else MigStrategy.SINGLE,
        gpus=(layout,) * machine.gpus,
        mode=None if mode.sharing is None else SharingMode(mode.sharing),
        sharing=() if mode.sharing is None else (Sharing(resource=_GPU, replicas=mode.replicas),),
    )


def configs_of_modes(machines: Sequence[ModeMachine], answer: ModesAnswer) -> dict[str, NodeConfigs]:
    """Product to the ConfigMaps for its machines in use, read back and held against what the pods take.

    Raises:
        InvariantError: a configuration would not offer what the answer places.
    """
    taken: Counter[int] = Counter()
    for place in answer.places:
        if place is not None:
            taken[place.machine] += len(place.gpus)
    plans: dict[str, list[NodePlan]] = defaultdict(list)
    products: dict[str, GpuProduct] = {}
    for index, mode in answer.modes.items():
        machine = machines[index]
        plan = plan_of_mode(machine, mode)
        have = offered(machine.product, plan).get(_GPU, 0)
        if taken[index] > have:
            raise InvariantError(f"node {machine.name} would offer {have} of {_GPU}, its pods take {taken[index]}")
        plans[machine.product.name].append(plan)
        products[machine.product.name] = machine.product
    return {name: node_configs(products[name], mine) for name, mine in sorted(plans.items())}
