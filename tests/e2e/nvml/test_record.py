"""The recorder, which is for real GPUs, run on the simulated driver."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from tests.e2e.nvml.nodes import a_gpu, a_node, a_process, gpu_uuid, mig_uuid

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.nvml.nodes import Node

ROOT = Path(__file__).parents[3]


def record(node: Node, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.sim.record", "--out", str(out), *more]
    return subprocess.run(command, env=node.variables(), cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_answer_with_its_time(node_of: Callable[..., Node], tmp_path: Path):
    gpus = [a_gpu(0, "H100-80GB"), a_gpu(1, "H100-80GB", ("3g.40gb", 0)), a_gpu(2, "T4-16GB")]
    processes = [a_process(5, gpu_uuid(0), (0, 0.6, 0.5, 100)), a_process(6, mig_uuid(16), (0, 1.0, 0.5, 100))]
    node = node_of(a_node(gpus, processes))
    node.sim.run_clock(speed=1.0)
    out = tmp_path / "recording.jsonl"
    load = f"0.2:0.5:{node.library}/gpuwaste-load --gpu {gpu_uuid(2)} 0.5:1:300"
    done = record(node, out, "--seconds", "1.3", "--interval", "0.3", "--load", load)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    calls = [line for line in lines if "call" in line]
    assert {line["target"] for line in calls} == {"system", "gpu0", "gpu1", "gpu1/mig0", "gpu2"}
    assert all(("value" in line) != ("error" in line) and line["took_ns"] > 0 for line in calls)
    assert [line["at_s"] for line in lines] == sorted(line["at_s"] for line in lines)
    events = [line for line in lines if "load" in line]
    assert [(line["event"], line.get("status")) for line in events] == [("begins", None), ("ends", 0)]
    running = [line["value"] for line in calls if line["call"] == "nvmlDeviceGetComputeRunningProcesses"]
    assert any(found and found[0]["pid"] == events[0]["pid"] for found in running)
    metrics = [line["value"] for line in calls if (line["call"], line["target"]) == ("nvmlGpmMetricsGet", "gpu1/mig0")]
    assert metrics
    assert all([round(value) for number, error, value in found if number in (1, 2)] == [100, 50] for found in metrics)
    errors = Counter(line["error"] for line in calls if line["target"] == "gpu1" and "error" in line)
    assert errors[3] > 0  # utilization under MIG, for one


def test_no_driver(node_of: Callable[..., Node], tmp_path: Path):
    node = node_of(a_node([a_gpu(0, "T4-16GB")]))
    node.path = tmp_path / "none"
    done = record(node, tmp_path / "recording.jsonl")
    assert done.returncode == 3
    assert "run this where a GPU's driver is loaded" in done.stderr
    assert list(tmp_path.glob("*.jsonl*")) == []
