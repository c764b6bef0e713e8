"""Cases of the packing benchmark beside the repack: drains, MIG, options of workloads, sharing."""

from __future__ import annotations

import csv
import math
import time
from dataclasses import dataclass, replace

import numpy as np

from gpuwaste.model.gpu_products import PRODUCTS
from gpuwaste.packing.answer import Placement
from gpuwaste.packing.drain import drain
from gpuwaste.packing.drain_question import DrainQuestion, node_costs
from gpuwaste.packing.free_room import FreeRoom
from gpuwaste.packing.linear import warm_up
from gpuwaste.packing.mig import fewest_gpus
from gpuwaste.packing.option_values import Option, Workload
from gpuwaste.packing.options import best_profile, choose_options

PARVA = {1: "1g.10gb", 2: "2g.20gb", 3: "3g.40gb", 4: "4g.40gb", 7: "7g.80gb"}
MISO = {"1g": "1g.5gb", "2g": "2g.10gb", "3g": "3g.20gb", "4g": "4g.20gb", "7g": "7g.40gb"}


@dataclass(frozen=True)
class Figure:
    """One line of the result; `most` and `least` are the accepted range, None for what is only shown."""

    name: str
    value: float
    unit: str
    most: float | None = None
    least: float | None = None

    @property
    def ok(self):
        return (self.most is None or self.value <= self.most) and (self.least is None or self.value >= self.least)

    def __str__(self):
        target = f"<={self.most:g}" if self.most is not None else f">={self.least:g}" if self.least is not None else "-"
        return f"{self.name} {self.value:.4g} {self.unit} {target} {'ok' if self.ok else 'missed'}"


def mig_figures(*, most=None, products=("H100-80GB",), seeds=1):
    """Slowest search and widest gap over products and demands, the loaded solver not counted."""
    warm_up()
    for count in (100, 1_000, 10_000, 100_000):
        slowest, gap = 0.0, 0
        for name in products:
            product = PRODUCTS[name]
            names = [profile.name for profile in product.profiles]
            for seed in range(seeds):
                random = np.random.default_rng(seed * 7 + count)
                parts = random.dirichlet(np.ones(len(names)))
                asked = [name for name in names if seed == 0 or random.random() < 0.6] or names[:1]
                demand = {name: int(part * count) + 1 for name, part in zip(names, parts, strict=True) if name in asked}
                started = time.process_time()
                answer = fewest_gpus(product, demand, time_limit_seconds=5, clock=time.monotonic)
                slowest = max(slowest, 1000 * (time.process_time() - started))
                gap = max(gap, answer.gpus - answer.bound)
        yield Figure(f"mig-{count}.milliseconds", slowest, "ms", most=most)
        yield Figure(f"mig-{count}.gap", gap, "GPUs", most=0)


def first_fit(instance, seed):
    """Pods in random order, each on the first node of the list that has room."""
    pods = len(instance.pod_names)
    nowhere = Placement(pod_node=np.full(pods, -1), pod_gpu_set=np.zeros(pods, dtype=np.int64), gpu_sets=((),))
    room, nodes = FreeRoom(instance, nowhere), np.arange(len(instance.node_names))
    node, gpu_set, sets = nowhere.pod_node.copy(), nowhere.pod_gpu_set.copy(), {(): 0}
    for pod in np.random.default_rng(seed).permutation(pods).tolist():
        able = room.able(pod, nodes)
        if able.any():
            node[pod] = int(able.argmax())
            gpus = room.gpus_for(pod, int(node[pod]))
            room.take(pod, (int(node[pod]), gpus))
            gpu_set[pod] = sets.setdefault(gpus, len(sets))
    return Placement(pod_node=node, pod_gpu_set=gpu_set, gpu_sets=tuple(sets))


def drain_questions(everything, sampled, *, seed):
    """(name, instance, placement): a sample placed by first fit, so on the cheapest nodes first, and the whole list
    after most of it has left.
    """
    sample = sampled(everything, 0.6, seed)
    yield f"first-fit-seed-{seed}", sample, first_fit(sample, seed)
    cheapest = np.argsort([float(cost) for cost in node_costs(sample)], kind="stable")
    ordered = sample.part(np.arange(len(sample.pod_names)), cheapest)
    yield f"cheapest-first-seed-{seed}", ordered, first_fit(ordered, seed)
    full = first_fit(everything, seed)
    count = len(everything.pod_names)
    stays = np.sort(np.random.default_rng(seed + 99).permutation(count)[: round(0.6 * count)])
    left = everything.part(stays, np.arange(len(everything.node_names)))
    here = Placement(pod_node=full.pod_node[stays], pod_gpu_set=full.pod_gpu_set[stays], gpu_sets=full.gpu_sets)
    yield f"after-leaving-seed-{seed}", left, here


def drain_figures(everything, sampled, *, seeds, budgets, limit, least=99.0, opens=False):
    """Saving of each drain as a part of the most that any direct drain could save."""
    for seed in seeds:
        for name, instance, here in drain_questions(everything, sampled, seed=seed):
            question = DrainQuestion(
                instance=instance,
                current=here,
                node_cost=node_costs(instance),
                max_moves=0,
                movable=np.ones(len(instance.pod_names), dtype=np.bool_),
                open_nodes=opens,
            )
            for moves in budgets:
                started = time.process_time()
                answer = drain(replace(question, max_moves=moves), time_limit_seconds=limit, clock=time.process_time)
                case = f"{'replace' if opens else 'drain'}-{name}-{moves}"
                # The bound is loose by what fillings of opened nodes lose; of a drain that saves next to nothing, much.
                weak = opens and name.startswith("cheapest-first")
                yield Figure(f"{case}.of_bound", 100 * answer.part_of_bound, "%", least=None if weak else least)
                yield Figure(f"{case}.moves", answer.moves, "pods", most=moves)
                yield Figure(f"{case}.saved", float(answer.saved), "money")
                yield Figure(f"{case}.cpu_seconds", time.process_time() - started, "s")


def parva_figures(folder):
    """GPUs for the three published scenarios, every rate and latency kept; the published number is the range."""
    options = []
    for path in sorted(folder.glob("*.csv")):
        if not path.stem.startswith("SLO"):
            options += [
                Option(
                    workload=path.stem,
                    profile=PARVA[int(row["Mig instance"])],
                    processes=int(row["Workload Number"]),
                    batch=int(row["Batch size"]),
                    throughput=float(row["Throughput"]),
                    latency_seconds=float(row["Latency"]),
                )
                for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines())
            ]
    names = sorted({one.workload for one in options})
    rates, latencies = (
        [line.split(",") for line in (folder / f"SLO_{kind}.csv").read_text(encoding="utf-8").split()]
        for kind in ("req_rate", "latency")
    )
    for number in (1, 2, 3):
        workloads = [
            Workload(name=name, rate=float(rate), latency_seconds=float(latency) / 1000)
            for name, rate, latency in zip(names, rates[number - 1], latencies[number - 1], strict=True)
            if rate != "N/A"
        ]
        text = (folder / f"SLO{number}_ParvaGPU_deploy.csv").read_text(encoding="utf-8")
        rows = list(csv.DictReader(text.splitlines()))
        answer = choose_options(PRODUCTS["A100-80GB"], workloads, options, time_limit_seconds=10)
        slices = sum(int(one.option.profile[0]) * one.count for one in answer.chosen)
        theirs = len({row["Num GPU"] for row in rows})
        yield Figure(f"parvagpu-{number}.gpus", answer.gpus, "GPUs", most=theirs)
        yield Figure(f"parvagpu-{number}.gap", answer.gpus - answer.bound, "GPUs", most=0)
        yield Figure(f"parvagpu-{number}.slices", slices, "slices", most=sum(int(row["Instance size"]) for row in rows))


def miso_figures(folder):
    """Pairs whose profile is the one with most steps a second of a whole GPU."""
    product = PRODUCTS["A100-40GB"]
    most = {profile.name: profile.max_count for profile in product.profiles}
    right = pairs = 0
    for row in csv.DictReader((folder / "mig_step_seconds.csv").read_text(encoding="utf-8").splitlines()):
        pair = Workload(name=f"{row['model']}-{row['batch']}", rate=1.0)
        options = [
            Option(workload=pair.name, profile=name, throughput=1 / float(row[short]) if row[short] else None)
            for short, name in MISO.items()
        ]
        rates = {one.profile: most[one.profile] * (one.throughput or -math.inf) for one in options}
        best = best_profile(product, pair, options)
        pairs += 1
        right += best is not None and rates[best.profile] == max(rates.values())
    yield Figure("miso.best_profile", 100 * right / max(pairs, 1), "%", least=100.0)
