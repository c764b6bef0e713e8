"""`gpuwaste mig`: fewest GPUs whose MIG layouts meet a demand, or serve workloads."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gpuwaste.model.gpu_products import GpuProduct
    from gpuwaste.packing.mig import Layout

__all__ = ["mig"]

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.option("--list", "show_list", is_flag=True, help="Print the GPUs with MIG and their profiles, and end.")
@click.option("--gpu", help="GPU as `--list` prints it, for example H100-80GB.")
@click.option(
    "--demand",
    help="How many instances of each profile: 1g.10gb=37,3g.40gb=11. Profiles as NVIDIA prints them.",
)
@click.option(
    "--current",
    type=_FILE,
    help="With --demand: the GPUs there are (JSON). As few as possible are cut anew, none with a holder.",
)
@click.option("--allow-holders", is_flag=True, help="With --current: GPUs with a holder may be cut anew too.")
@click.option(
    "--workloads",
    type=_FILE,
    help="Instead of --demand: CSV of what to serve: workload, rate (requests a second), slo_s (may be empty).",
)
@click.option(
    "--options",
    type=_FILE,
    help="With --workloads: CSV of measured ways to run each: workload, profile, processes, batch, throughput "
    "(of one process), latency_s, memory_gib (peak of one process). Empty = not measured.",
)
@click.option("--uniform", is_flag=True, help="With --workloads: one profile a GPU, as `migStrategy: single` needs it.")
@click.option(
    "--time-limit",
    type=float,
    default=5.0,
    show_default=True,
    help="Seconds for the search. 0 gives a greedy answer with its bound.",
)
@click.option("--out", type=_FILE, help="Where the layouts go (JSON).")
def mig(
    *,
    show_list: bool,
    gpu: str | None,
    demand: str | None,
    current: Path | None,
    allow_holders: bool,
    workloads: Path | None,
    options: Path | None,
    uniform: bool,
    time_limit: float,
    out: Path | None,
) -> None:
    """Cut as few GPUs as possible into the MIG instances that are asked for.

    Only layouts that NVIDIA's MIG manager accepts are used, mixed as they fit best; every instance that is
    asked for is there, and none more. The answer says the proven smallest number of GPUs beside its own.

    With --workloads, profile, number of instances and processes of each workload are chosen as well, so that every
    rate is served within its latency objective.
    """
    from gpuwaste.model.errors import InputError
    from gpuwaste.model.gpu_products import PRODUCTS, find_product

    if show_list:
        for known in PRODUCTS.values():
            if known.mig_capable:
                click.echo(f"{known.name}: {', '.join(profile.name for profile in known.profiles)}")
        return
    _check_flags(gpu=gpu, demand=demand, current=current, workloads=workloads, options=options, out=out)
    if not (math.isfinite(time_limit) and time_limit >= 0):
        raise click.BadParameter(f"{time_limit} is no number of seconds of 0 or more", param_hint="--time-limit")
    product = find_product(gpu or "")
    if product is None:
        raise InputError(f"'{gpu}' is not known", where="--gpu", fix="see `gpuwaste mig --list`")
    path = out or Path()
    if workloads is not None and options is not None:
        body, said = _serve(product, workloads, options, uniform=uniform, time_limit=time_limit)
    elif current is not None:
        body, said = _change(product, demand or "", current, allow_holders=allow_holders, time_limit=time_limit)
    else:
        body, said = _cut(product, demand or "", time_limit=time_limit)
    _write(path, body)
    click.echo(f"{said}; layouts in {path}")


def _check_flags(
    *,
    gpu: str | None,
    demand: str | None,
    current: Path | None,
    workloads: Path | None,
    options: Path | None,
    out: Path | None,
) -> None:
    for name, value in (("--gpu", gpu), ("--out", out)):
        if value is None:
            raise click.UsageError(f"Missing option '{name}'.")
    if demand is not None and workloads is not None:
        raise click.UsageError("Give either --demand or --workloads.")
    if demand is None and workloads is None:
        raise click.UsageError("Missing option '--demand', or --workloads with --options.")
    if (workloads is None) != (options is None):
        raise click.UsageError("--workloads and --options belong together.")
    if current is not None and demand is None:
        raise click.UsageError("--current belongs to --demand.")


def _write(path: Path, body: dict[str, Any]) -> None:
    from gpuwaste.cli.files import atomic_text

    with atomic_text(path) as stream:
        stream.write(json.dumps(body, indent=1, ensure_ascii=False) + "\n")


def _layouts(layouts: Iterable[Layout]) -> list[dict[str, Any]]:
    return [{"count": layout.count, "instances": _instances(layout.instances)} for layout in layouts]


def _instances(instances: Iterable[tuple[str, int]]) -> list[dict[str, Any]]:
    return [{"profile": name, "start": start} for name, start in instances]


def _proven(gpus: int, bound: int) -> str:
    return "the fewest there are" if gpus == bound else f"proven bound {bound}"


def _seconds(started: float) -> float:
    return round(time.perf_counter() - started, 4)


def _cut(product: GpuProduct, demand: str, *, time_limit: float) -> tuple[dict[str, Any], str]:
    from gpuwaste.packing.mig import fewest_gpus, needed

    wanted = _parse_demand(demand)
    needed(product, wanted)
    if time_limit > 0:
        # Loading the solver takes half a second, once; what is told is the search.
        from gpuwaste.packing.linear import warm_up

        warm_up()
    started = time.perf_counter()
    answer = fewest_gpus(product, wanted, time_limit_seconds=time_limit, clock=time.monotonic)
    body = {
        "gpus": answer.gpus,
        "bound": answer.bound,
        "seconds": _seconds(started),
        "layouts": _layouts(answer.layouts),
    }
    return body, f"{sum(wanted.values())} instances on {answer.gpus} GPUs ({_proven(answer.gpus, answer.bound)})"


def _change(
    product: GpuProduct, demand: str, current: Path, *, allow_holders: bool, time_limit: float
) -> tuple[dict[str, Any], str]:
    from gpuwaste.packing.mig_current import change_layouts
    from gpuwaste.packing.option_files import read_current

    gpus = read_current(current)
    started = time.perf_counter()
    change = change_layouts(
        product,
        _parse_demand(demand),
        gpus,
        allow_holders=allow_holders,
        time_limit_seconds=time_limit,
        clock=time.monotonic,
    )
    kept = set(change.kept)
    layouts: dict[tuple[tuple[str, int], ...], int] = {}
    for instances in (
        *(gpu.instances for gpu in gpus if gpu.name in kept),
        *(instances for _, instances in change.reshaped),
        *(layout.instances for layout in change.added for _ in range(layout.count)),
    ):
        layouts[instances] = layouts.get(instances, 0) + 1
    body = {
        "gpus": change.gpus,
        "bound": change.bound,
        "seconds": _seconds(started),
        "layouts": [{"count": count, "instances": _instances(one)} for one, count in layouts.items()],
        "disturbed": change.disturbed,
        "fewest_disturbed": change.fewest_reshaped,
        "kept": list(change.kept),
        "reshaped": [{"gpu": name, "instances": _instances(one)} for name, one in change.reshaped],
        "added": _layouts(change.added),
        "freed": list(change.freed),
    }
    said = (
        f"{change.gpus} GPUs ({_proven(change.gpus, change.bound)}): {len(change.kept)} stay, "
        f"{len(change.reshaped)} are cut anew, {change.disturbed - len(change.reshaped)} are added, "
        f"{len(change.freed)} are freed"
    )
    return body, said


def _serve(
    product: GpuProduct, workloads: Path, options: Path, *, uniform: bool, time_limit: float
) -> tuple[dict[str, Any], str]:
    from gpuwaste.packing.option_files import read_options, read_workloads
    from gpuwaste.packing.options import choose_options

    asked = read_workloads(workloads)
    measured = read_options(options, known={one.name for one in asked})
    started = time.perf_counter()
    answer = choose_options(product, asked, measured, time_limit_seconds=time_limit, uniform=uniform)
    rates = {one.name: one.rate for one in asked}
    body = {
        "gpus": answer.gpus,
        "bound": answer.bound,
        "seconds": _seconds(started),
        "layouts": _layouts(answer.layouts),
        "workloads": [
            {
                "workload": one.option.workload,
                "rate": rates[one.option.workload],
                "profile": one.option.profile,
                "instances": one.count,
                "processes": one.option.processes,
                "batch": one.option.batch,
                "throughput": round(one.count * one.option.total_throughput, 6),
                "latency_s": one.option.latency_seconds,
                "memory_measured": one.option.memory_gib is not None,
            }
            for one in answer.chosen
        ],
        "refused": [{"workload": name, "why": why} for name, why in answer.refused],
        "unusable": [
            {"workload": one.option.workload, "profile": one.option.profile, "why": one.why} for one in answer.unusable
        ],
    }
    left = f", {len(answer.refused)} refused" if answer.refused else ""
    served = len(asked) - len(answer.refused)
    return body, f"{served} workloads on {answer.gpus} GPUs ({_proven(answer.gpus, answer.bound)}){left}"


def _parse_demand(text: str) -> dict[str, int]:
    from gpuwaste.model.errors import InputError

    demand: dict[str, int] = {}
    for part in text.split(","):
        name, equals, count = (piece.strip() for piece in part.partition("="))
        if not equals or not name or not count.isdecimal():
            raise InputError(f"'{part}' is no profile=count", where="--demand", fix="write it as 1g.10gb=37,3g.40gb=11")
        if name in demand:
            raise InputError(f"{name} stands twice", where="--demand", fix="add the two counts up")
        demand[name] = int(count)
    return demand
