"""Benchmark of the packing: gap to the proven bound, and schedulers' rules on the same pods as ratios.

    python -m tests.perf.packing.bench [--quick] [--json FILE] [--traces DIR]

Prints `name value unit target ok|missed`, one line a figure; exits 1 when an accepted range is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from decimal import Decimal
from functools import partial
from pathlib import Path

import numpy as np
from tests.perf.packing.cases import Figure, drain_figures, mig_figures, miso_figures, parva_figures

from gpuwaste.model.gpu_products import PRODUCTS
from gpuwaste.packing.baselines import decreasing_order, place_in_order
from gpuwaste.packing.csv_files import read_instance
from gpuwaste.packing.engine import solve
from gpuwaste.packing.instance import WHOLE_GPU_MILLI
from gpuwaste.packing.shapes import group

MIG_PRODUCTS = tuple(name for name, product in PRODUCTS.items() if product.mig_capable)
PRICES = {"T4": "0.35", "A10": "0.75", "P100": "0.80", "G2": "1.1", "V100M16": "1.5", "V100M32": "1.9", "G3": "2.6"}
DRAIN_BUDGETS = (50, 100, 200, 400, 800)
TRACES = Path(__file__).resolve().parents[4] / "shared" / "traces"


def sampled(instance, part, seed):
    """A part of the pods, drawn by a generator of ours so that it needs no other library."""
    count = round(part * len(instance.pod_names))
    keep = np.sort(np.random.default_rng(seed).permutation(len(instance.pod_names))[:count])
    return of_pods(instance, keep)


def of_pods(instance, keep):
    names = list(instance.pod_names)
    return replace(
        instance,
        pod_names=[names[i] for i in keep],
        pod_cpu=instance.pod_cpu[keep],
        pod_memory=instance.pod_memory[keep],
        pod_gpus=instance.pod_gpus[keep],
        pod_gpu_milli=instance.pod_gpu_milli[keep],
        pod_model_set=instance.pod_model_set[keep],
    )


def constrained(instance, seed):
    """A third of the pods may use one or two models only, drawn by how many GPUs have them."""
    random = np.random.default_rng(seed)
    gpus = np.bincount(instance.node_model, weights=instance.node_gpus, minlength=len(instance.models))
    sets = [np.ones(len(instance.models), dtype=np.bool_)]
    chosen = np.zeros(len(instance.pod_names), dtype=np.int64)
    for pod in np.flatnonzero(random.random(len(chosen)) < 1 / 3):
        allowed = np.zeros(len(instance.models), dtype=np.bool_)
        allowed[random.choice(len(gpus), size=random.integers(1, 3), replace=False, p=gpus / gpus.sum())] = True
        sets.append(allowed)
        chosen[pod] = len(sets) - 1
    distinct, index = np.unique(np.stack(sets), axis=0, return_inverse=True)
    return replace(instance, model_sets=distinct, pod_model_set=index.reshape(-1)[chosen].astype(np.int64))


def distinct(instance, seed):
    """Every request gets a size of its own."""
    random = np.random.default_rng(seed)
    scale = random.uniform(0.8, 1.0, (2, len(instance.pod_names)))
    return replace(
        instance,
        pod_cpu=np.maximum((instance.pod_cpu * scale[0]).astype(np.int64), 1),
        pod_memory=np.maximum((instance.pod_memory * scale[1]).astype(np.int64), 1),
    )


def distinct_shares(instance, seed):
    """Every request gets CPU, memory and, where it has one, a share of a GPU of its own."""
    scale = np.random.default_rng(seed + 1000).uniform(0.8, 1.0, len(instance.pod_names))
    shared = (instance.pod_gpus == 1) & (instance.pod_gpu_milli < WHOLE_GPU_MILLI)
    milli = np.where(shared, np.maximum((instance.pod_gpu_milli * scale).astype(np.int64), 1), instance.pod_gpu_milli)
    return replace(distinct(instance, seed), pod_gpu_milli=milli)


def times(instance, factor):
    """The whole list, pods and nodes, so many times over."""
    pods = np.tile(np.arange(len(instance.pod_names)), factor)
    many = of_pods(instance, pods)
    return replace(
        many,
        pod_names=[f"pod-{i}" for i in range(len(pods))],
        node_names=[f"node-{i}" for i in range(len(instance.node_names) * factor)],
        node_cpu=np.tile(instance.node_cpu, factor),
        node_memory=np.tile(instance.node_memory, factor),
        node_gpus=np.tile(instance.node_gpus, factor),
        node_model=np.tile(instance.node_model, factor),
    )


def baselines(name, instance, answer):
    """Cost of the schedulers' rules over ours, those that place as much; else the pods they leave out."""
    problem = group(instance, objective="cost")
    dearness = problem.cost / np.maximum(problem.type_gpus, 1)
    kinds = problem.type_of_node[np.argsort(dearness[problem.type_of_node], kind="stable")]
    shuffled = np.random.default_rng(1).permutation(problem.shape_of_pod)
    decreasing = decreasing_order(problem, problem.demand)
    for label, order, rule in (
        ("first-fit", shuffled, "first"),
        ("best-fit", shuffled, "best"),
        ("first-fit-decreasing", decreasing, "first"),
        ("dot-product", shuffled, "dot"),
        ("fgd", shuffled, "fragmentation"),
    ):
        nodes = place_in_order(problem, order, kinds, rule=rule)
        left = len(order) - int(nodes.sum())
        if left > answer.unplaced_pods:
            yield Figure(f"{name}.{label}.left_out", left, "pods")
        else:
            cost = float(problem.cost[kinds[nodes.any(axis=1)]].sum())
            yield Figure(f"{name}.{label}.ratio", cost / float(answer.cost), "x", least=1.0)


def packed(name, instance, *, limit, gap):
    problem = group(instance, objective="cost")
    nowhere = int(problem.demand[~problem.fits.any(axis=1)].sum())
    started = time.perf_counter()
    answer = solve(instance, time_limit_seconds=limit, objective="cost", clock=time.monotonic)
    yield Figure(f"{name}.gap", 100 * answer.gap, "%", most=gap)
    yield Figure(f"{name}.unplaced", answer.unplaced_pods, "pods", most=nowhere)
    yield Figure(f"{name}.seconds", time.perf_counter() - started, "s")
    yield Figure(f"{name}.first_feasible", answer.first_feasible_seconds, "s")
    yield from baselines(name, instance, answer) if len(instance.pod_names) < 10_000 else ()


def fleet(instance, *, limit):
    answer = solve(instance, time_limit_seconds=limit, objective="cost", clock=time.monotonic)
    total = int(instance.pod_total_milli.sum()) - answer.unplaced_milli
    yield Figure("all-pods.allocated", 100 * total / (1000 * int(instance.node_gpus.sum())), "%", least=96.5)


def figures(traces, *, quick, only):
    everything, _ = read_instance(
        nodes=traces / "openb_node_list_gpu_node.csv", pods=traces / "openb_pod_list_default.csv", prices=None
    )
    everything = replace(everything, prices=tuple(Decimal(PRICES[model]) for model in everything.models))
    if quick:
        yield from mig_figures()
        yield from parva_figures(traces / "parvagpu")
        yield from miso_figures(traces / "miso")
        yield from drain_figures(everything, sampled, seeds=(7,), budgets=(200,), limit=6)
        yield from packed("openb-25", sampled(everything, 0.25, 7), limit=12, gap=0.5)
        return
    half = sampled(everything, 0.6, 7)
    cases = {
        "mig": lambda: mig_figures(most=50.0, products=MIG_PRODUCTS, seeds=6),
        "parvagpu": lambda: parva_figures(traces / "parvagpu"),
        "miso": lambda: miso_figures(traces / "miso"),
        "drain": lambda: drain_figures(everything, sampled, seeds=(7, 8), budgets=DRAIN_BUDGETS, limit=20),
        "replace": lambda: drain_figures(
            everything, sampled, seeds=(7, 8), budgets=DRAIN_BUDGETS, limit=20, opens=True
        ),
        **{
            f"openb-{part}-seed-{seed}": partial(
                lambda part, seed, name: packed(name, sampled(everything, part / 100, seed), limit=14, gap=0.25),
                part,
                seed,
                f"openb-{part}-seed-{seed}",
            )
            for part in (10, 25, 60, 80, 95)
            for seed in (7, 8)
        },
        "openb-x100": lambda: packed("openb-x100", times(half, 100), limit=13, gap=0.05),
        "all-pods": lambda: fleet(everything, limit=30),
        **{
            f"constrained-{seed}": partial(
                lambda seed: packed(f"constrained-{seed}", constrained(half, seed), limit=58, gap=1.0), seed
            )
            for seed in (7, 8, 9)
        },
        **{
            f"distinct-{seed}": partial(
                lambda seed: packed(f"distinct-{seed}", distinct(half, seed), limit=58, gap=1.25), seed
            )
            for seed in (7, 8)
        },
        **{
            f"distinct-shares-{seed}": partial(
                lambda seed: packed(f"distinct-shares-{seed}", distinct_shares(half, seed), limit=58, gap=1.25), seed
            )
            for seed in (7, 8)
        },
    }
    for name, case in cases.items():
        if only is None or name.startswith(only):
            yield from case()


def noted(path, found):
    """The figures with those of earlier runs that were not measured again."""
    body = [
        {"name": f.name, "value": f.value, "unit": f.unit, "most": f.most, "least": f.least, "ok": bool(f.ok)}
        for f in found
    ]
    again = {one["name"] for one in body}
    earlier = json.loads(path.read_text(encoding="utf-8")) if path is not None and path.exists() else []
    return [one for one in earlier if one["name"] not in again] + body


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="at most 30 s")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    parser.add_argument("--only", help="cases whose name begins so; with --json the others stay as they are")
    parser.add_argument("--traces", type=Path, default=TRACES, help="folder of the openb lists")
    options = parser.parse_args()
    if not options.traces.is_dir():
        print(f"SKIPPED: no traces in {options.traces}")
        return 0
    found = []
    for figure in figures(options.traces, quick=options.quick, only=options.only):
        print(figure, flush=True)
        found.append(figure)
    if options.json:
        body = noted(options.json if options.only else None, found)
        options.json.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    return 0 if all(figure.ok for figure in found) else 1


if __name__ == "__main__":
    sys.exit(main())
