"""What the agent costs on a full node: CPU and memory, measured on the real process.

Eight H100 in seven MIG instances each, 56 containers with one process each, mutual TLS on, pulled every ten seconds,
`/metrics` scraped every fifteen. The agent runs as on a node: NVML's bindings on the simulated driver library, the
kubelet's API on a unix socket, a /proc. CPU time inside NVML calls, the bindings included, is counted apart by the
agent. Prints one line a figure, writes the same as JSON, exits 1 when a target is missed.

Run it as a module from the root: `python -m tests.perf.agent.bench`.
"""

from __future__ import annotations

import argparse
import json
import os
import pstats
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from pathlib import Path

import trustme
from tests.integration.agent.test_podresources import Kubelet
from tests.sim.nvml.build import built
from tests.sim.nvml.state import create_state

from gpuwaste_agent.simulate.scenario import (
    Scenario,
    ScenarioContainer,
    ScenarioGpu,
    ScenarioInstance,
    ScenarioLoad,
    ScenarioNode,
    ScenarioProcess,
)
from gpuwaste_agent.wire.usage_pb2 import Batch

NAME = "agent.gpuwaste.internal"
PULL_SECONDS = 10
SCRAPE_SECONDS = 15
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
# Figure, unit, target by interval.
CPU_TARGETS = {1.0: 1.0, 0.25: 3.0}
RSS_TARGET_MIB = 64.0


def scenario() -> Scenario:
    """Eight GPUs of seven instances, a container on each whose load changes every few seconds."""
    gpus, containers = [], []
    for number in range(8):
        instances = tuple(
            ScenarioInstance(uuid=f"MIG-{number}-{start}", profile="1g.10gb", start=start) for start in range(7)
        )
        gpus.append(ScenarioGpu(uuid=f"GPU-{number}", product="H100-80GB", mig=instances))
        for start, instance in enumerate(instances):
            index = number * 7 + start
            load = tuple(ScenarioLoad(i * 3.7, ((index + i) % 10) / 10, 0.5, 4000 + i, 0.2, 0.3) for i in range(300))
            process = ScenarioProcess(pid=1000 + index, parent=instance.uuid, load=load)
            containers.append(
                ScenarioContainer(
                    namespace="bench",
                    pod=f"pod-{index}",
                    pod_uid=str(uuid.uuid5(uuid.NAMESPACE_OID, str(index))),
                    container="main",
                    container_id=f"{index:064x}",
                    resource="nvidia.com/mig-1g.10gb",
                    devices=(instance.uuid,),
                    processes=(process,),
                )
            )
    node = ScenarioNode(
        name="bench", uid=str(uuid.uuid5(uuid.NAMESPACE_OID, "n")), gpus=tuple(gpus), containers=tuple(containers)
    )
    return Scenario(nodes=(node,))


def a_node(directory: Path) -> tuple[list[str], Kubelet]:
    """Everything on a node but the agent; returns the agent's flags and the kubelet, which is to be stopped."""
    (node,) = scenario().nodes
    create_state(directory / "nvml.state", node, start_utc_ns=time.time_ns())
    kubelet = Kubelet(directory / "kubelet.sock")
    kubelet.allocatable = {"nvidia.com/mig-1g.10gb": [c.devices[0] for c in node.containers]}
    for container in node.containers:
        kubelet.give(container.pod, container.resource, *container.devices)
        (directory / "pods" / f"ns_{container.pod}_{container.pod_uid}").mkdir(parents=True)
        proc = directory / "proc" / str(container.processes[0].pid)
        proc.mkdir(parents=True)
        (proc / "cgroup").write_text(f"0::/kubepods/burstable/pod{container.pod_uid}/{container.container_id}\n")
    flags = ["--node", "bench", "--nvml-library", built() / "libnvidia-ml.so.1"]
    flags += ["--pod-resources", kubelet.socket, "--proc", directory / "proc", "--pod-logs", directory / "pods"]
    return [str(flag) for flag in flags], kubelet


def certificates(directory: Path) -> tuple[list[str], ssl.SSLContext]:
    """Flags of the agent, and the context of a caller."""
    ca = trustme.CA()
    cert = ca.issue_cert(NAME)
    paths = {name: directory / name for name in ("cert", "key", "ca")}
    paths["cert"].write_bytes(b"".join(blob.bytes() for blob in cert.cert_chain_pems))
    paths["key"].write_bytes(cert.private_key_pem.bytes())
    ca.cert_pem.write_to_path(paths["ca"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca.configure_trust(context)
    ca.issue_cert("operator.gpuwaste.internal").configure_cert(context)
    return [text for name, path in paths.items() for text in (f"--tls-{name}", str(path))], context


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def pull(port: int, context: ssl.SSLContext, after: int) -> int:
    """Fetch what is new; returns where to go on."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname=NAME) as secured,
    ):
        request = f"GET /v1/windows?after={after}&limit=20000 HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n"
        secured.sendall(request.encode())
        answer = b""
        while chunk := secured.recv(1 << 16):
            answer += chunk
    return Batch.FromString(answer.split(b"\r\n\r\n", 1)[1]).next_seq - 1


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND


def rss_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("the kernel gives no VmRSS")


def metric(text: str, name: str) -> float:
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(name + " "))


def measure(interval: float, seconds: float, window: int) -> dict[str, float]:
    """Run the agent for so long and measure it after the first five seconds."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        node, kubelet = a_node(directory)
        flags, context = certificates(directory)
        port, plain = free_port(), free_port()
        command = [sys.executable, "-m", "gpuwaste_agent.main", *node, "--interval", str(interval)]
        command += ["--window", str(window), "--journal", str(directory / "journal"), "--listen", f"127.0.0.1:{port}"]
        command += ["--metrics-listen", f"127.0.0.1:{plain}", *flags]
        environment = {**os.environ, "GPUWASTE_SIM_STATE": str(directory / "nvml.state")}
        agent = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        try:
            if agent.stderr is None or "windows on port" not in (first := agent.stderr.readline()):
                raise RuntimeError(f"the agent did not start: {first}")
            return _watch(agent.pid, (port, plain), context, seconds)
        finally:
            agent.terminate()
            agent.communicate(timeout=20)
            kubelet.server.stop(None).wait()


def scrape(plain: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{plain}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def _watch(pid: int, ports: tuple[int, int], context: ssl.SSLContext, seconds: float) -> dict[str, float]:
    port, plain = ports
    time.sleep(5)
    text = scrape(plain)
    began, cpu, driver = time.monotonic(), cpu_seconds(pid), metric(text, "gpuwaste_agent_driver_cpu_seconds_total")
    ticks = metric(text, "gpuwaste_agent_ticks_total")
    peak, after, step = 0.0, 0, 0
    while (elapsed := time.monotonic() - began) < seconds:
        time.sleep(min(1.0, seconds - elapsed))
        step += 1
        peak = max(peak, rss_mib(pid))
        if step % PULL_SECONDS == 0:
            after = pull(port, context, after)
        if step % SCRAPE_SECONDS == 0:
            text = scrape(plain)
    wall = time.monotonic() - began
    text = scrape(plain)
    spent = cpu_seconds(pid) - cpu
    inside = metric(text, "gpuwaste_agent_driver_cpu_seconds_total") - driver
    return {
        "cpu_percent": 100 * (spent - inside) / wall,
        "driver_cpu_percent": 100 * inside / wall,
        "rss_mib": peak,
        "ticks_a_second": (metric(text, "gpuwaste_agent_ticks_total") - ticks) / wall,
        "records_pulled": float(after),
    }


def import_costs() -> list[str]:
    """The dearest imports of the agent, to look at when a target is missed."""
    code = "import gpuwaste_agent.main, gpuwaste_agent.running, gpuwaste_agent.podresources, gpuwaste_agent.nvml"
    found = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=True
    ).stderr.splitlines()
    costs = []
    for line in found[1:]:
        own, total, name = line.removeprefix("import time:").split("|")
        costs.append((int(own), int(total), name.strip()))
    return [
        f"  import {name} own {own / 1000:.1f} ms, with what it imports {total / 1000:.1f} ms"
        for own, total, name in sorted(costs, reverse=True)[:12]
    ]


# What the agent does, by the files that do it; what is in none of them is named by itself.
STAGES = {
    "driver's calls and bindings": ("pynvml.py", "/nvml.py", "/nvml_devices.py", "/gpm.py", "/health.py"),
    "accumulation": ("/sampler.py", "/accumulate.py", "/spans.py", "/process_table.py"),
    "who holds, whose process": ("/podresources.py", "/device_ids.py", "/cgroups.py", "/container_names.py", "grpc"),
    "windows: attribution and records": ("/attribution.py", "/records.py", "/energy.py", "/node_agent.py"),
    "journal": ("/journal.py", "/journal_frames.py"),
    "metrics": ("/metrics.py", "prometheus_client"),
    "serving": ("/server.py", "socketserver.py", "http/", "ssl.py", "email/", "socket.py"),
    "waiting and the loop": ("/running.py", "/pacing.py", "threading.py"),
}
PROFILED_SECONDS = 25.0
PROFILED = """
import cProfile, signal, sys, threading
from gpuwaste_agent import running
target, loop = sys.argv.pop(1), running._loop
def profiled(*args):
    profile = cProfile.Profile()
    try:
        profile.runcall(loop, *args)
    finally:
        profile.dump_stats(target)
running._loop = profiled
from gpuwaste_agent.main import main
sys.exit(main())
"""


def stage_costs(interval: float, window: int) -> list[str]:
    """CPU of the loop by stage, from a short run under the interpreter's profiler, which slows all of them."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        node, kubelet = a_node(directory)
        target = directory / "profile"
        flags = [*node, "--interval", str(interval), "--window", str(min(window, 10))]
        flags += ["--journal", str(directory / "journal"), "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]
        environment = {**os.environ, "GPUWASTE_SIM_STATE": str(directory / "nvml.state")}
        agent = subprocess.Popen([sys.executable, "-c", PROFILED, str(target), *flags], env=environment)
        time.sleep(PROFILED_SECONDS)
        agent.terminate()
        agent.wait(timeout=20)
        kubelet.server.stop(None).wait()
        found = pstats.Stats(str(target)).stats  # type: ignore[attr-defined]
    seconds: dict[str, float] = {}
    for (file, _, name), (_, _, own, _, _) in found.items():
        if name == "<method 'acquire' of '_thread.lock' objects>":
            continue  # waiting is no work
        stage = next((stage for stage, files in STAGES.items() if any(part in file for part in files)), "built-ins")
        seconds[stage] = seconds.get(stage, 0.0) + own
    total = sum(seconds.values())
    return [
        f"  stage {stage}: {100 * own / total:.0f} % of the loop's time"
        for stage, own in sorted(seconds.items(), key=lambda item: -item[1])
    ]


def calibration() -> float:
    """Seconds of CPU for a fixed amount of pure Python: the same run's yardstick for the machine."""
    began = time.process_time()
    total = 0
    for number in range(3_000_000):
        total += number & 7
    return time.process_time() - began


def main() -> int:
    """Measure at 1 s and 0.25 s and print a line a figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300.0, help="how long each interval is measured")
    parser.add_argument("--intervals", type=float, nargs="+", default=[1.0, 0.25])
    parser.add_argument("--window", type=int, default=60, help="window length; shorter ones make short runs honest")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument("--quick", action="store_true", help="25 s at 1 s, with windows of 10 s: for CI")
    args = parser.parse_args()
    if args.quick:
        args.seconds, args.intervals, args.window = 18.0, [1.0], 10
    figures = [
        {"name": "python_loop_3m", "value": round(calibration(), 3), "unit": "s", "target": None, "state": "baseline"}
    ]
    for interval in args.intervals:
        found = measure(interval, args.seconds, args.window)
        suffix = f"_at_{interval:g}s"
        targets = {"cpu_percent": CPU_TARGETS.get(interval), "rss_mib": RSS_TARGET_MIB}
        units = {"cpu_percent": "%", "driver_cpu_percent": "%", "rss_mib": "MiB", "ticks_a_second": "1/s"}
        for name, value in found.items():
            target = targets.get(name)
            state = "info" if target is None else "ok" if value <= target else "missed"
            unit = units.get(name, "records")
            figures.append(
                {"name": name + suffix, "value": round(value, 3), "unit": unit, "target": target, "state": state}
            )
    for figure in figures:
        target = "-" if figure["target"] is None else f"<={figure['target']:g}"
        sys.stdout.write(f"{figure['name']} {figure['value']} {figure['unit']} {target} {figure['state']}\n")
    missed = any(figure["state"] == "missed" for figure in figures)
    if missed:
        sys.stdout.write("\n".join([*stage_costs(args.intervals[-1], args.window), *import_costs()]) + "\n")
    if args.json:
        temporary = args.json.with_suffix(".tmp")
        temporary.write_text(json.dumps({"figures": figures}, indent=1) + "\n")
        temporary.replace(args.json)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
