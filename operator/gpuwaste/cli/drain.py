"""`gpuwaste drain`: which nodes to empty within a number of moves, step by step, with a proven bound."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from gpuwaste.packing.drain_question import DrainAnswer, DrainQuestion

__all__ = ["drain"]

_FILE = click.Path(path_type=Path, dir_okay=False)
_REPACK_PART = 0.4


@click.command()
@click.option("--nodes", type=_FILE, required=True, help="CSV of the nodes, as for `gpuwaste pack`.")
@click.option("--pods", type=_FILE, required=True, help="CSV of the pods, as for `gpuwaste pack`.")
@click.option(
    "--prices", type=_FILE, help="YAML or JSON map of GPU model to money per GPU-hour; else every GPU costs 1."
)
@click.option(
    "--current",
    type=_FILE,
    required=True,
    help="Where the pods are now: a plan of `gpuwaste pack`, or its `placements`.",
)
@click.option("--max-moves", type=click.IntRange(min=0), required=True, help="How many pods may be moved in all.")
@click.option(
    "--open-nodes",
    is_flag=True,
    help="Pods may also go to nodes that nothing is on yet, so that dear nodes are replaced by cheaper ones. "
    "Else they only go to nodes in use.",
)
@click.option(
    "--budgets",
    type=_FILE,
    help="Disruption budgets, a YAML list of {name, pods: [names], disruptionsAllowed}. 0 lets no pod of it move.",
)
@click.option(
    "--rules",
    type=_FILE,
    help="Scheduling rules, as for `gpuwaste pack`. Pods that a rule over zones names stay in the zone they are in.",
)
@click.option(
    "--time-limit", type=float, default=15.0, show_default=True, help="Seconds for the search. 0 gives a greedy answer."
)
@click.option("--out", type=_FILE, required=True, help="Where the steps go (JSON).")
def drain(
    *,
    nodes: Path,
    pods: Path,
    prices: Path | None,
    current: Path,
    max_moves: int,
    open_nodes: bool,
    budgets: Path | None,
    rules: Path | None,
    time_limit: float,
    out: Path,
) -> None:
    """Empty the dearest set of nodes with at most so many moves.

    A pod moves once, off a node that goes, into room that is free now on a node in use (with --open-nodes also on
    others): every step can be carried out in the order given, and within the disruption budgets. `bound` is proven:
    no such drain within the moves leaves less cost. If a full repack would be cheaper than the drain, that is said,
    with the order of its moves.
    """
    import numpy as np

    from gpuwaste.cli.files import atomic_text
    from gpuwaste.packing.csv_files import read_instance
    from gpuwaste.packing.drain import drain as solve_drain
    from gpuwaste.packing.drain_files import drain_body, read_budgets, read_placement
    from gpuwaste.packing.drain_question import DrainQuestion, node_costs
    from gpuwaste.packing.drain_rules import within_domains

    if not (math.isfinite(time_limit) and time_limit >= 0):
        raise click.BadParameter(f"{time_limit} is no number of seconds of 0 or more", param_hint="--time-limit")
    started = time.perf_counter()
    instance, _ = read_instance(nodes=nodes, pods=pods, prices=prices, rules=rules)
    placed = read_placement(current, instance)
    instance = instance if rules is None else within_domains(instance, placed, where=str(rules))
    question = DrainQuestion(
        instance=instance,
        current=placed,
        node_cost=node_costs(instance),
        max_moves=max_moves,
        movable=np.ones(len(instance.pod_names), dtype=np.bool_),
        budgets=() if budgets is None else read_budgets(budgets, instance),
        open_nodes=open_nodes,
    )
    answer = solve_drain(question, time_limit_seconds=(1 - _REPACK_PART) * time_limit, clock=time.monotonic)
    body = drain_body(question, answer)
    body["repack"] = _repack(question, answer, seconds=_REPACK_PART * time_limit)
    body["seconds"] = round(time.perf_counter() - started, 3)
    with atomic_text(out) as stream:
        stream.write(json.dumps(body, ensure_ascii=False) + "\n")
    now, then = (f"{cost.normalize():f}" for cost in (answer.current_cost, answer.planned_cost))
    click.echo(
        f"{len(answer.released)} nodes emptied{_opened(answer)} with {answer.moves} moves: "
        f"cost {now} now, {then} then; "
        f"{100 * answer.part_of_bound:.2f} % of what any drain {_asked(question)} could save"
        f"{_said(body['repack'])}; steps in {out}"
    )


def _opened(answer: DrainAnswer) -> str:
    return f" and {len(answer.opened)} opened" if answer.opened else ""


def _asked(question: DrainQuestion) -> str:
    return "that may open nodes" if question.open_nodes else "into nodes in use"


def _repack(question: DrainQuestion, answer: DrainAnswer, *, seconds: float) -> dict[str, Any] | None:
    """What a full repack of the same pods would cost, with its moves in order; None if it is no better."""
    from dataclasses import replace

    from gpuwaste.packing.drain_files import migration_body
    from gpuwaste.packing.engine import solve
    from gpuwaste.packing.migration import migration_order

    if seconds <= 0:
        return None
    here = replace(question.instance, current_node=question.current.pod_node)
    packed = solve(here, time_limit_seconds=seconds, objective="cost", clock=time.monotonic)
    nowhere = int((question.current.pod_node < 0).sum())
    if packed.cost >= answer.planned_cost or packed.unplaced_pods > nowhere:
        return None
    return {
        "cost": float(packed.cost),
        "bound": float(packed.bound),
        **migration_body(question, migration_order(question, packed.placement.pod_node)),
    }


def _said(repack: dict[str, Any] | None) -> str:
    return "" if repack is None else f"; a full repack would cost {repack['cost']:g} with {repack['moves']} moves"
