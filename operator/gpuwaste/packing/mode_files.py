"""Reads the modes of `gpuwaste pack --modes`, and forms the plan that has them."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import yaml

from gpuwaste.model.errors import InputError
from gpuwaste.model.gpu_products import find_product
from gpuwaste.packing.csv_table import CsvTable
from gpuwaste.packing.instance import WHOLE_GPU_MILLI
from gpuwaste.packing.modes import EXCLUSIVE, Mode, ModeMachine, ModePod

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from gpuwaste.model.gpu_products import GpuProduct
    from gpuwaste.packing.instance import Instance
    from gpuwaste.packing.modes import ModesAnswer

__all__ = ["modes_body", "read_modes"]

_MEMORY = "gpu_mem_gib"
_SHAPE = "write a list of {model: H100-80GB, modes: [{sharing: mps, replicas: 4}, {profile: 1g.10gb}]}"


def read_modes(
    path: Path, instance: Instance, *, nodes: Path, pods: Path, prices: Mapping[str, Decimal]
) -> tuple[list[ModeMachine], list[ModePod]]:
    """The machines of an instance with the modes that a file gives them, and its pods.

    Args:
        path: a YAML or JSON list of `{model, modes: [{profile, sharing, replicas}]}`; every machine may leave its GPUs
            as they are, too, and one of a model that is not in the list has no other mode.
        instance: what `read_instance` read.
        nodes: its nodes file, for messages.
        pods: its pods file; a column `gpu_mem_gib` is the peak of GPU memory of a pod, empty = not measured.
        prices: of each model.

    Raises:
        InputError: the file is no such list, or a model is no GPU product that is known.
    """
    of_model = _modes_of_models(path, {model for model in instance.models if model})
    machines = []
    for name, cpu, memory, gpus, model in zip(
        instance.node_names,
        instance.node_cpu.tolist(),
        instance.node_memory.tolist(),
        instance.node_gpus.tolist(),
        (instance.models[index] for index in instance.node_model.tolist()),
        strict=True,
    ):
        product = find_product(model) if model else None
        if product is None:
            raise InputError(f"'{model}' is no GPU product that is known", where=f"{nodes}, node {name}, field model")
        machines.append(
            ModeMachine(
                name=name,
                product=product,
                gpus=gpus,
                cpu=cpu,
                memory=memory,
                price=prices.get(model, Decimal(1)),
                modes=(EXCLUSIVE, *of_model.get(model, ())),
            )
        )
    peak = CsvTable(pods, ("name",), others=True)
    measured = peak.measured(_MEMORY).tolist() if peak.has(_MEMORY) else [None] * len(instance.pod_names)
    products = [find_product(model) for model in instance.models]
    allowed = [
        frozenset()
        if row.all()
        else frozenset(p.name for p, yes in zip(products, row.tolist(), strict=True) if p and yes)
        for row in instance.model_sets
    ]
    return machines, [
        ModePod(
            name=name,
            cpu=cpu,
            memory=memory,
            gpus=gpus,
            milli=milli if gpus == 1 else WHOLE_GPU_MILLI,
            memory_gib=None if gib is None or gib != gib else gib,  # noqa: PLR0124 - NaN is not measured
            models=allowed[row],
        )
        for name, cpu, memory, gpus, milli, gib, row in zip(
            instance.pod_names,
            instance.pod_cpu.tolist(),
            instance.pod_memory.tolist(),
            instance.pod_gpus.tolist(),
            instance.pod_gpu_milli.tolist(),
            measured,
            instance.pod_model_set.tolist(),
            strict=True,
        )
    ]


def _modes_of_models(path: Path, models: set[str]) -> dict[str, tuple[Mode, ...]]:
    try:
        body = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"cannot be read ({' '.join(str(error).split())})", where=str(path)) from error
    if not isinstance(body, list):
        raise InputError("is no list of models with their modes", where=str(path), fix=_SHAPE)
    found: dict[str, tuple[Mode, ...]] = {}
    for number, item in enumerate(body, start=1):
        where = f"{path}, entry {number}"
        if not isinstance(item, dict) or set(item) != {"model", "modes"} or not isinstance(item["modes"], list):
            raise InputError("has no model and list of modes", where=where, fix=_SHAPE)
        model = item["model"]
        if model not in models:
            raise InputError(f"'{model}' is a GPU model of no node", where=where)
        if model in found:
            raise InputError(f"'{model}' stands twice", where=where)
        product = find_product(model)
        if product is None:
            raise InputError(f"'{model}' is no GPU product that is known", where=where)
        modes = tuple(_mode(one, product, where) for one in item["modes"])
        found[model] = tuple(dict.fromkeys(mode for mode in modes if mode != EXCLUSIVE))
    return found


def _mode(item: Any, product: GpuProduct, where: str) -> Mode:
    if not isinstance(item, dict) or set(item) - {"profile", "sharing", "replicas"}:
        raise InputError("a mode has profile, sharing and replicas", where=where, fix=_SHAPE)
    profile, sharing, replicas = item.get("profile", ""), item.get("sharing"), item.get("replicas", 1)
    if sharing not in (None, "timeSlicing", "mps"):
        raise InputError(f"'{sharing}' is not timeSlicing or mps", where=where)
    if not isinstance(profile, str) or not isinstance(replicas, int) or isinstance(replicas, bool):
        raise InputError("profile is a text and replicas a whole number", where=where, fix=_SHAPE)
    mode = Mode(profile=profile, sharing=sharing, replicas=replicas)
    mode.check(product, where)
    return mode


def modes_body(machines: Sequence[ModeMachine], pods: Sequence[ModePod], answer: ModesAnswer) -> dict[str, Any]:
    """The plan as JSON has it, without its configuration: as `pack` writes it, with `modes`."""
    placed = [(pod, place) for pod, place in zip(pods, answer.places, strict=True) if place is not None]
    left = [pod for pod, place in zip(pods, answer.places, strict=True) if place is None]
    gap = float(answer.cost - answer.bound) / max(float(answer.bound), 1e-9)
    return {
        "objective": "cost",
        "cost": float(answer.cost),
        "bound": float(answer.bound),
        "gap": gap,
        "nodes_used": len(answer.modes),
        "gpus_used": len({(place.machine, gpu) for _, place in placed for gpu in place.gpus}),
        "first_feasible_seconds": round(answer.first_feasible_seconds, 3),
        "unplaced": [pod.name for pod in left],
        "unplaced_gpu_milli": sum(pod.milli * pod.gpus for pod in left),
        "modes": [
            {
                "node": machines[index].name,
                "profile": mode.profile or None,
                "sharing": mode.sharing,
                "replicas": mode.replicas,
                "units": machines[index].gpus * mode.units(machines[index].product),
            }
            for index, mode in answer.modes.items()
        ],
        "placements": [
            {
                "pod": pod.name,
                "node": machines[place.machine].name,
                "gpus": [{"index": gpu, "milli": pod.milli} for gpu in place.gpus],
            }
            for pod, place in placed
        ],
    }
