"""A million pods, no two of which ask for the same: answered in seconds, checked here from the files alone."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pv

_PODS, _NODES, _GPUS = 1_000_000, 125_000, 8
_CPU, _MEMORY = 128_000, 786_432
_MOST_KIB = 2 * 1024 * 1024


def written(folder):
    random = np.random.default_rng(7)
    index = np.arange(_PODS)
    cpu, memory, milli = 1000 + index % 20_011, 1000 + index % 30_011, random.integers(1, 1001, _PODS)
    assert len(np.unique(np.stack([cpu, memory, milli]), axis=1).T) > 0.99 * _PODS
    names = [f"p{i}" for i in range(_PODS)]
    empty = np.full(_PODS, "")
    pods = {"name": names, "cpu_milli": cpu, "memory_mib": memory, "num_gpu": np.ones(_PODS, dtype=np.int64)}
    pv.write_csv(pa.table(pods | {"gpu_milli": milli, "gpu_spec": empty}), folder / "pods.csv")
    which = np.arange(_NODES)
    nodes = {
        "sn": [f"n{i}" for i in range(_NODES)],
        "cpu_milli": np.full(_NODES, _CPU),
        "memory_mib": np.full(_NODES, _MEMORY),
        "gpu": np.full(_NODES, _GPUS),
        "model": np.array(["T4", "A10", "H100"])[which % 3],
    }
    pv.write_csv(pa.table(nodes), folder / "nodes.csv")
    return cpu, memory, milli


def test_a_million_shapes_at_a_time_limit_of_zero(tmp_path):
    cpu, memory, milli = written(tmp_path)
    files = ["--nodes", str(tmp_path / "nodes.csv"), "--pods", str(tmp_path / "pods.csv")]
    command = [str(Path(sys.executable).with_name("gpuwaste")), "pack", *files, "--time-limit", "0"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "plan.json")], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < _MOST_KIB
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert 0 < plan["bound"] <= plan["cost"]
    placed = plan["placements"]
    pod = np.array([int(one["pod"][1:]) for one in placed])
    node = np.array([int(one["node"][1:]) for one in placed])
    gpu = np.array([one["gpus"][0]["index"] for one in placed])
    assert len(np.unique(pod)) == len(pod) == _PODS - len(plan["unplaced"])
    assert [one["gpus"][0]["milli"] for one in placed] == milli[pod].tolist()
    assert gpu.min() >= 0
    assert gpu.max() < _GPUS
    assert np.bincount(node * _GPUS + gpu, weights=milli[pod]).max() <= 1000
    assert np.bincount(node, weights=cpu[pod]).max() <= _CPU
    assert np.bincount(node, weights=memory[pod]).max() <= _MEMORY
    assert plan["cost"] == _GPUS * len(np.unique(node))
    # Every node is alike: what the pods need together is the least that any placement can use.
    assert plan["bound"] >= _GPUS * np.ceil(milli.sum() / 1000 / _GPUS) * 0.99
