"""`gpuwaste share`: groups of pods that can share a GPU within a promise."""

from __future__ import annotations

import json
import math
from pathlib import Path

import click

__all__ = ["share"]

_SEED = 1


@click.command()
@click.option(
    "--series",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="CSV of simultaneous samples: t_s, pod, gpu_duty_pct, gpu_mem_gib.",
)
@click.option("--memory-gib", type=float, default=80.0, show_default=True, help="Memory of one GPU; a hard limit.")
@click.option(
    "--promise",
    type=float,
    default=0.01,
    show_default=True,
    help="Part of the time in which the pods of a GPU may want more than all of it.",
)
@click.option(
    "--min-hours",
    type=float,
    default=6.0,
    show_default=True,
    help="A pod with fewer hours of samples keeps its GPU.",
)
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="Where the groups go (JSON)."
)
def share(*, series: Path, memory_gib: float, promise: float, min_hours: float, out: Path) -> None:
    """Find pods that can share a GPU, from what they did at the same times.

    Peak memories of a group always fit. How often its pods would want more than the GPU is predicted from
    their simultaneous series, with the uncertainty of hours that were seen only once. Pods seen for too short
    a time, or with too many gaps, keep their GPU and are listed with the reason.
    """
    import numpy as np

    from gpuwaste.cli.files import atomic_text
    from gpuwaste.packing.headroom import share as find_groups
    from gpuwaste.packing.series_file import read_series

    for flag, value, right in (
        ("--memory-gib", memory_gib, memory_gib > 0),
        ("--promise", promise, 0 < promise < 1),
        ("--min-hours", min_hours, min_hours >= 0),
    ):
        if not (math.isfinite(value) and right):
            raise click.BadParameter(f"{value:g} is out of range", param_hint=flag)
    answer = find_groups(
        read_series(series),
        memory_gib=memory_gib,
        promise=promise,
        min_hours=min_hours,
        random=np.random.default_rng(_SEED),
    )
    body = {
        "gpus": answer.gpus,
        "promise": promise,
        "hours": round(answer.hours, 3),
        "windows": answer.windows,
        "margin_pct": answer.margin_pct,
        "confidence": answer.confidence,
        "groups": [
            {
                "pods": list(group.pods),
                "predicted_overload": round(group.predicted_overload, 6),
                "observed_overload": round(group.observed_overload, 6),
                "windows_over": group.windows_over,
                "lost_work": round(group.lost_work, 6),
                "peak_memory_gib": round(group.peak_memory_gib, 3),
            }
            for group in answer.groups
        ],
        "refused": [{"pod": refused.pod, "why": refused.why} for refused in answer.refused],
    }
    with atomic_text(out) as stream:
        stream.write(json.dumps(body, indent=1, ensure_ascii=False) + "\n")
    pods = sum(len(group.pods) for group in answer.groups)
    worst = max((group.windows_over for group in answer.groups if len(group.pods) > 1), default=0)
    seen = "" if answer.confidence != "Low" else "; less than a day was seen: the busiest hours may be missing"
    click.echo(
        f"{pods} pods on {len(answer.groups)} GPUs, {len(answer.refused)} keep their own; series cover "
        f"{answer.hours:.1f} h, confidence {answer.confidence}{seen}; of {answer.windows} samples at most {worst} "
        f"were over a GPU in a group; groups in {out}"
    )
