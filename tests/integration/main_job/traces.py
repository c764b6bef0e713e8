"""The public traces that the world of these tests is made from."""

import csv
import gzip
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

TRACES = Path(__file__).parents[3] / ".." / "shared" / "traces"
PRODUCTS = {"G2": "A10-24GB", "G3": "A100-80GB", "V100M32": "A30-24GB", "T4": "T4-16GB"}
NODES_A_MODEL = 2
PODS = 70
REPLICAS = 10
SERIES_SECONDS = 3 * 3600


@dataclass(frozen=True)
class TraceNode:
    name: str
    model: str
    cpu_milli: int
    memory_mib: int
    gpus: int

    @property
    def product(self):
        return PRODUCTS[self.model]


@dataclass(frozen=True)
class TracePod:
    name: str
    cpu_milli: int
    memory_mib: int
    node: str
    parts: tuple[tuple[int, int], ...]  # (GPU index, tenths of it)


def require_traces():
    if not TRACES.is_dir():
        pytest.skip("the shared traces are not here: the main job cannot be run on real input")


def read(name):
    with (TRACES / name).open(newline="") as file:
        return list(csv.DictReader(file))


def choose_nodes():
    """The first two nodes of each model, as the trace lists them."""
    chosen = []
    for model in PRODUCTS:
        rows = [row for row in read("openb_node_list_gpu_node.csv") if row["model"] == model][:NODES_A_MODEL]
        chosen += [
            TraceNode(row["sn"], model, int(row["cpu_milli"]), int(row["memory_mib"]), int(row["gpu"])) for row in rows
        ]
    return chosen


def place_pods(nodes, folder):
    """Running GPU pods of the trace, placed on the nodes by `gpuwaste pack`; shares as tenths, rounded up."""
    rows = [r for r in read("openb_pod_list_default.csv") if r["pod_phase"] == "Running" and r["num_gpu"] != "0"]
    known = {node.model for node in nodes}
    rows = [r for r in rows if not r["gpu_spec"] or known & set(r["gpu_spec"].split("|"))]
    shares = [r for r in rows if int(r["gpu_milli"]) < 1000]
    whole = [r for r in rows if int(r["gpu_milli"]) == 1000]
    picked = shares[: PODS * 2 // 3] + whole[: PODS // 3]
    nodes_csv, pods_csv, plan = folder / "nodes.csv", folder / "pods.csv", folder / "placement.json"
    with nodes_csv.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sn", "cpu_milli", "memory_mib", "gpu", "model"])
        writer.writerows([n.name, n.cpu_milli, n.memory_mib, n.gpus, n.model] for n in nodes)
    with pods_csv.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli", "gpu_spec"])
        for row in picked:
            milli = 100 * math.ceil(int(row["gpu_milli"]) / 100)
            writer.writerow([row["name"], row["cpu_milli"], row["memory_mib"], row["num_gpu"], milli, row["gpu_spec"]])
    command = [sys.executable, "-c", "from gpuwaste.cli.main import main; main()", "pack"]
    command += ["--nodes", str(nodes_csv), "--pods", str(pods_csv), "--time-limit", "5", "--out", str(plan)]
    subprocess.run(command, check=True, timeout=60, capture_output=True, text=True)
    return picked, plan


def load_series():
    """Duty 0 to 1 and memory GiB of each GenTD26 pod over the first three hours: {pod: [(second, duty, gib)]}."""
    series = {}
    with gzip.open(TRACES / "genai2026" / "gentd26_gpu_series_part.csv.gz", "rt", newline="") as file:
        for row in csv.DictReader(file):
            if int(row["t_s"]) < SERIES_SECONDS and row["gpu_duty_pct"] and row["gpu_mem_gib"]:
                point = (int(row["t_s"]), float(row["gpu_duty_pct"]) / 100, float(row["gpu_mem_gib"]))
                series.setdefault(int(row["pod"]), [(0, 0.0, point[2])] if point[0] else []).append(point)
    return series
