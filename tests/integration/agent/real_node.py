"""A node as the agent finds it: the simulated driver with NVML's ABI, the kubelet's socket, /proc, log directories."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager

from tests.integration.agent.test_podresources import Kubelet
from tests.sim.nvml.state import create_state
from tests.unit.agent.builders import a_node, process

CONTAINER = "ab" * 32


def a_mixed_node():
    return (
        a_node()
        .gpu("H100-80GB", strategy="time-slicing", replicas=2)
        .gpu("H100-80GB", mig=(("3g.40gb", 0), ("1g.10gb", 4)))
        .gpu("T4-16GB")
        .gpu("A100-80GB", mig=(("3g.40gb", 4),))
        .pod("busy", process(101, 0.7, 0.5), devices=["GPU-0::0"])
        .pod("light", process(102, 0.2, 0.25), devices=["GPU-0::1"])
        .pod("mig", process(103, 0.4, 0.5, parent="MIG-1-0"), devices=["MIG-1-0"])
        .pod("t4", process(104, 0.3, parent="GPU-2"), devices=["GPU-2"])
        .pod("a100", process(105, 0.3, parent="MIG-3-0"), devices=["MIG-3-0"])
        .on_host(process(106, 0.1, parent="GPU-2"))
        .obj()
    )


@contextmanager
def standing_node(library, folder):
    """Everything a node has but the agent; yields flags, environment and the driver's state."""
    scenario = a_mixed_node()
    state = create_state(folder / "nvml.state", scenario, start_utc_ns=time.time_ns())
    kubelet = Kubelet(folder / "kubelet.sock")
    kubelet.allocatable = {"nvidia.com/gpu": [slice_ for gpu in scenario.gpus for slice_ in gpu.slice_ids()]}
    (folder / "proc" / "106").mkdir(parents=True)
    (folder / "proc" / "106" / "cgroup").write_text("0::/system.slice/host.service\n")
    (folder / "proc" / "1").mkdir()
    (folder / "proc" / "1" / "comm").write_text("pause\n")
    for container in scenario.containers:
        kubelet.give(container.pod, "nvidia.com/gpu", *container.devices, container="c")
        (folder / "pods" / f"ns_{container.pod}_{container.pod_uid}").mkdir(parents=True)
        for one in container.processes:
            (folder / "proc" / str(one.pid)).mkdir()
            path = f"0::/kubepods/burstable/pod{container.pod_uid}/{CONTAINER}\n"
            (folder / "proc" / str(one.pid) / "cgroup").write_text(path)
    flags = ["--nvml-library", library, "--pod-resources", kubelet.socket, "--proc", folder / "proc"]
    flags += ["--pod-logs", folder / "pods", "--interval", "0.25", "--window", "1", "--node", "n"]
    flags += ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--journal", folder / "journal"]
    environment = {**os.environ, "GPUWASTE_SIM_STATE": str(folder / "nvml.state")}
    try:
        yield flags, environment, state, scenario, kubelet
    finally:
        kubelet.server.stop(None).wait()


def start(node, *command):
    flags, environment, *_ = node
    words = [sys.executable, "-m", "gpuwaste_agent.main", *command, *map(str, flags)]
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
