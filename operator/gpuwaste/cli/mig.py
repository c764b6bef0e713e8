"""`gpuwaste mig`: fewest GPUs whose MIG layouts meet a demand of instances."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import click

__all__ = ["mig"]


@click.command()
@click.option("--list", "show_list", is_flag=True, help="Print the GPUs with MIG and their profiles, and end.")
@click.option("--gpu", help="GPU as `--list` prints it, for example H100-80GB.")
@click.option(
    "--demand",
    help="How many instances of each profile: 1g.10gb=37,3g.40gb=11. Profiles as NVIDIA prints them.",
)
@click.option(
    "--time-limit",
    type=float,
    default=5.0,
    show_default=True,
    help="Seconds for the search. 0 gives a greedy answer with its bound.",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Where the layouts go (JSON).")
def mig(*, show_list: bool, gpu: str | None, demand: str | None, time_limit: float, out: Path | None) -> None:
    """Cut as few GPUs as possible into the MIG instances that are asked for.

    Only layouts that NVIDIA's MIG manager accepts are used, mixed as they fit best; every instance that is
    asked for is there, and none more. The answer says the proven smallest number of GPUs beside its own.
    """
    from gpuwaste.cli.files import atomic_text
    from gpuwaste.model.errors import InputError
    from gpuwaste.model.gpu_products import PRODUCTS, find_product
    from gpuwaste.packing.mig import fewest_gpus

    if show_list:
        for known in PRODUCTS.values():
            if known.mig_capable:
                click.echo(f"{known.name}: {', '.join(profile.name for profile in known.profiles)}")
        return
    for name, value in (("--gpu", gpu), ("--demand", demand), ("--out", out)):
        if value is None:
            raise click.UsageError(f"Missing option '{name}'.")
    if not (math.isfinite(time_limit) and time_limit >= 0):
        raise click.BadParameter(f"{time_limit} is no number of seconds of 0 or more", param_hint="--time-limit")
    product = find_product(gpu or "")
    if product is None:
        raise InputError(f"'{gpu}' is not known", where="--gpu", fix="see `gpuwaste mig --list`")
    wanted = _parse_demand(demand or "")
    started = time.perf_counter()
    answer = fewest_gpus(product, wanted, time_limit_seconds=time_limit, clock=time.monotonic)
    body = {
        "gpus": answer.gpus,
        "bound": answer.bound,
        "seconds": round(time.perf_counter() - started, 4),
        "layouts": [
            {
                "count": layout.count,
                "instances": [{"profile": name, "start": start} for name, start in layout.instances],
            }
            for layout in answer.layouts
        ],
    }
    path = out or Path()
    with atomic_text(path) as stream:
        stream.write(json.dumps(body, indent=1) + "\n")
    proven = "the fewest there are" if answer.gpus == answer.bound else f"proven bound {answer.bound}"
    click.echo(f"{sum(wanted.values())} instances on {answer.gpus} GPUs ({proven}); layouts in {path}")


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
