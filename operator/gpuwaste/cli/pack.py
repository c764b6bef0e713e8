"""`gpuwaste pack`: put pods on as few, or as cheap, GPU nodes as possible, with a proven bound."""

from __future__ import annotations

import math
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from decimal import Decimal

    from gpuwaste.packing.modes import ModeMachine, ModePod

__all__ = ["pack"]

_WRITE_SECONDS_PER_POD = 6e-6
_RESERVE_SECONDS = 0.5


@click.command()
@click.option(
    "--nodes",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="CSV of the nodes: sn, cpu_milli, memory_mib, gpu, model.",
)
@click.option(
    "--pods",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="CSV of the pods: name, cpu_milli, memory_mib, num_gpu, gpu_milli, gpu_spec. "
    "num_gpu 1 takes gpu_milli (1 to 1000) of one GPU, more take whole GPUs. "
    "An empty gpu_spec runs on any model, else on those named, joined by '|'.",
)
@click.option(
    "--prices",
    type=click.Path(path_type=Path, dir_okay=False),
    help="YAML or JSON map of GPU model to money per GPU-hour. Without it every GPU costs 1.",
)
@click.option(
    "--start",
    type=click.Path(path_type=Path, dir_okay=False),
    help="An earlier PLAN.json: the search begins there, the answer is never worse, and pods stay where they are "
    "unless moving them saves something.",
)
@click.option(
    "--rules",
    type=click.Path(path_type=Path, dir_okay=False),
    help="YAML or JSON of scheduling rules: priorities, onlyOn, resources, atMost, islands, apart, together, spread, "
    "gangs, keepFree. They speak of groups of pods (column 'group' of the pods) and of any column of the nodes.",
)
@click.option(
    "--modes",
    type=click.Path(path_type=Path, dir_okay=False),
    help="YAML or JSON list of {model, modes: [{profile, sharing, replicas}]}: what the GPUs of a node may be made. "
    "A mode is chosen for each node, pods that need less than a GPU take one unit of it, and the plan has the "
    "configuration of MIG and the device plugin. Peaks of GPU memory are read from a column gpu_mem_gib.",
)
@click.option(
    "--time-limit",
    type=float,
    default=15.0,
    show_default=True,
    help="Seconds for the whole run. 0 gives the first feasible answer and its first bound.",
)
@click.option(
    "--objective",
    type=click.Choice(["cost", "gpus"]),
    default="cost",
    show_default=True,
    help="What to make least once as few GPUs and pods as possible are left out: "
    "the price of the nodes in use, or the number of their GPUs.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="Where the plan goes (JSON).",
)
def pack(
    *,
    nodes: Path,
    pods: Path,
    prices: Path | None,
    start: Path | None,
    rules: Path | None,
    modes: Path | None,
    time_limit: float,
    objective: str,
    out: Path,
) -> None:
    """Put pods on as cheap a set of GPU nodes as possible.

    Every pod keeps its CPU, memory and exact place on a GPU. The plan says how far it can be from the best
    one there is: its cost and a proven lower bound of every other plan. It is checked once more, by code apart
    from the solver, before it is written. Pods that fit nowhere are listed as unplaced.
    """
    from gpuwaste.cli.files import atomic_text
    from gpuwaste.packing.csv_files import read_instance
    from gpuwaste.packing.engine import solve
    from gpuwaste.packing.mode_files import read_modes
    from gpuwaste.packing.plan_file import plan_text, start_nodes

    if not (math.isfinite(time_limit) and time_limit >= 0):
        raise click.BadParameter(f"{time_limit} is no number of seconds of 0 or more", param_hint="--time-limit")
    if modes is not None and (start is not None or rules is not None or objective != "cost"):
        raise click.UsageError("--modes goes with neither --start nor --rules nor --objective gpus")
    age = _process_age()
    instance, price_of = read_instance(nodes=nodes, pods=pods, prices=prices, rules=rules)
    if modes is not None:
        machines, wanted = read_modes(modes, instance, nodes=nodes, pods=pods, prices=price_of)
        _in_modes(machines, wanted, time_limit=time_limit, age=age, prices=price_of, out=out)
        return
    if start is not None:
        instance = replace(instance, current_node=start_nodes(start, instance))
    before = age()
    reserve = _RESERVE_SECONDS + _WRITE_SECONDS_PER_POD * len(instance.pod_names)
    answer = solve(
        instance,
        time_limit_seconds=max(time_limit - before - reserve, 0.0),
        objective="gpus" if objective == "gpus" else "cost",
        clock=time.monotonic,
        started_seconds=before,
    )
    with atomic_text(out) as stream:
        stream.writelines(plan_text(instance, answer, prices=price_of, elapsed=age))
    left = f"; {answer.unplaced_pods} pods unplaced" if answer.unplaced_pods else ""
    click.echo(
        f"{len(instance.pod_names) - answer.unplaced_pods} pods on {answer.nodes_used} nodes"
        f"{left}; {objective} {answer.cost.normalize():f}, proven bound {answer.bound.normalize():f}"
        f" (gap {100 * answer.gap:.3f} %); plan in {out}"
    )


def _in_modes(
    machines: list[ModeMachine],
    pods: list[ModePod],
    *,
    time_limit: float,
    age: Callable[[], float],
    prices: Mapping[str, Decimal],
    out: Path,
) -> None:
    """Choose modes and places, and write them with the configuration that makes the modes."""
    import json

    from gpuwaste.cli.files import atomic_text
    from gpuwaste.packing.mode_files import modes_body
    from gpuwaste.packing.modes import pack_in_modes
    from gpuwaste.recommend.mode_plans import configs_of_modes

    seconds = max(time_limit - age() - _RESERVE_SECONDS, 0.0)
    answer = pack_in_modes(machines, pods, time_limit_seconds=seconds, clock=time.monotonic)
    body = modes_body(machines, pods, answer)
    body["prices"] = {model: float(price) for model, price in prices.items()}
    body["configs"] = {
        product: {"mig": configs.mig, "plugin": configs.plugin, "labels": configs.labels}
        for product, configs in configs_of_modes(machines, answer).items()
    }
    body["seconds"] = round(age(), 3)
    with atomic_text(out) as stream:
        stream.write(json.dumps(body, ensure_ascii=False) + "\n")
    left = f"; {len(body['unplaced'])} pods unplaced" if body["unplaced"] else ""
    click.echo(
        f"{len(body['placements'])} pods on {body['nodes_used']} nodes{left}; cost {answer.cost.normalize():f}, "
        f"proven bound {answer.bound.normalize():f} (gap {100 * body['gap']:.3f} %); plan in {out}"
    )


def _process_age() -> Callable[[], float]:
    """A clock of wall seconds since this process began, imports included."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
        began = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        offset = time.clock_gettime(time.CLOCK_BOOTTIME) - began - time.monotonic()
    except (OSError, AttributeError, IndexError, ValueError):
        offset = -time.monotonic()
    return lambda: time.monotonic() + offset
