"""Ten minutes of every scenario side by side, in real time: real kubelets, real pods, the agent as it runs on a node.

Takes about thirteen minutes, so it runs only where GPUWASTE_FULL is set (`make test-full`); GPUWASTE_FULL_SECONDS
makes it shorter for trying it out. Prints a table of errors against the truth and writes it as JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.cluster.errors import ClusterError, MissingToolsError
from tests.cluster.nodes.cluster import NodeCluster, running_nodes
from tests.cluster.nodes.gpus import LOAD_IMAGE, GpuNodes
from tests.cluster.processes import wait_until
from tests.cluster.pytest_support import reporter, skip_or_fail
from tests.e2e.agent.judge import Row, Truth, judge, table
from tests.e2e.agent.sides import SIDES, Side, manifest
from tests.sim.deviceplugin.config import PluginConfig
from tests.sim.deviceplugin.offer import OfferedDevice
from tests.sim.deviceplugin.service import Mount, ResourceService
from tests.sim.nvml.state import SimState

from gpuwaste_agent.journal import Journal
from gpuwaste_agent.simulate.scenario import Scenario, ScenarioNode
from gpuwaste_agent.wire.usage_pb2 import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gpuwaste_agent.wire.usage_pb2 import Record

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
LENGTH_S = int(os.environ.get("GPUWASTE_FULL_SECONDS", "600"))
# The wall clock of one agent: 90 s forward in the first half, 20 s back in the second.
STEPS = f"{LENGTH_S * 0.4:.0f}:90,{LENGTH_S * 0.7:.0f}:-20"
ROOT = Path(__file__).parents[3]
STATE = "/run/gpuwaste-sim/nvml.state"
PODS = "/api/v1/namespaces/default/pods"


def scenario() -> Scenario:
    """All GPUs, by node."""
    nodes = [
        ScenarioNode(
            name=f"gpu-node-{number}",
            uid=f"node-{number}",
            gpus=tuple(gpu for side in SIDES if side.node == number for gpu in side.gpus),
        )
        for number in sorted({side.node for side in SIDES})
    ]
    return Scenario(nodes=tuple(nodes))


class Bench:
    """The nodes with everything on them."""

    def __init__(self, cluster: NodeCluster, folder: Path, report: Callable[[str], None]) -> None:
        self.cluster, self.folder, self.report = cluster, folder, report
        self.api = cluster.access.api()
        self.gpus = GpuNodes(cluster, scenario(), {})
        self.gpus.import_load_image()
        self.sims = [SimState(node.folder / "nvml.state") for node in cluster.nodes]
        self.services: dict[str, ResourceService] = {}
        self.agents: dict[str, subprocess.Popen[str]] = {}
        self.hosts: list[subprocess.Popen[bytes]] = []
        self.lived: dict[str, str] = {}
        self.problems: list[str] = []

    def resource(self, side: Side) -> str:
        """Extended resource of a scenario: one of its own, so that its pods get its GPU."""
        return f"gpuwaste.test/s{SIDES.index(side):02d}"

    def offer(self, side: Side, *, healthy: bool = True) -> None:
        """Let the kubelet know the scenario's slices."""
        service = self.services.get(side.name)
        if service is None:
            node = self.cluster.nodes[side.node]
            library = f"{self.gpus.driver}/libnvidia-ml.so.1"
            mounts = [Mount(library, "/usr/lib/libnvidia-ml.so.1"), Mount(f"{node.folder}/nvml.state", STATE, "rw")]
            folder = node.kubelet_folder / "device-plugins"
            service = ResourceService(folder, self.resource(side), config=PluginConfig(), mounts=mounts)
            self.services[side.name] = service
            service.start()
        service.offer([OfferedDevice(id=device, healthy=healthy) for device in side.slices])

    def start(self) -> None:
        """Plugins, claims, agents, pods; returns when every pod runs."""
        for side in SIDES:
            if side.slices:
                self.offer(side)
        claimed = [side for side in SIDES if side.claims]
        for number in sorted({side.node for side in claimed}):
            self.gpus.start_dra(self.cluster.nodes[number])
        self.cluster.access.apply(*(claim(name, uuid) for side in claimed for name, uuid in side.claims.items()))
        self._await(self._offered, "all slices being offered", 60)
        for number in range(len(self.cluster.nodes)):
            self.start_agent(f"n{number}", number)
        self.start_agent("stepped", next(side.node for side in SIDES if side.stepped), steps=STEPS)
        for side in SIDES:
            made = [self.pod(side, pod) for pod in side.pods]
            if made:
                self.cluster.access.apply(*made)
            if side.host:
                command = [self.gpus.driver / "gpuwaste-load", "--gpu", side.gpus[0].uuid, *side.host]
                self.hosts.append(subprocess.Popen(command, env=self._environment(side.node)))
        wanted = {pod.name for side in SIDES for pod in side.pods}
        try:
            self._await(lambda: wanted <= self.running(), "every pod running", 180)
        except ClusterError as error:
            raise ClusterError(f"{error}\n{self._waiting(wanted - self.running())}") from None

    def _waiting(self, names: set[str]) -> str:
        """What the API says of pods that do not run."""
        found = [pod for pod in self.api.get(PODS)["items"] if pod["metadata"]["name"] in names]
        lines = [f"{pod['metadata']['name']}: {json.dumps(pod['status'])[:600]}" for pod in found]
        return "\n".join([*lines, f"not there: {sorted(names - {pod['metadata']['name'] for pod in found})}"])

    def _await(self, condition: Callable[[], bool], what: str, seconds: float) -> None:
        alive = self.cluster.supervisor.check_alive
        wait_until(condition, what=what, deadline_seconds=seconds, meanwhile=alive)

    def pod(self, side: Side, pod: Any) -> dict[str, Any]:
        node = self.cluster.nodes[side.node]
        return manifest(side, pod, resource=self.resource(side), node=node.name, state=f"{node.folder}/nvml.state")

    def _offered(self) -> bool:
        for side in SIDES:
            node = self.api.get(f"/api/v1/nodes/gpu-node-{side.node}")
            if int(node["status"]["allocatable"].get(self.resource(side), 0)) != len(side.slices):
                return False
        return True

    def running(self) -> set[str]:
        """Names of the pods that run."""
        found = self.api.get(PODS)["items"]
        return {pod["metadata"]["name"] for pod in found if pod["status"]["phase"] == "Running"}

    def _environment(self, number: int) -> dict[str, str]:
        return {**os.environ, **self.gpus.driver_environment(self.cluster.nodes[number])}

    def start_agent(self, name: str, number: int, *, steps: str = "") -> None:
        """Start an agent of a node, as a process of the host."""
        node = self.cluster.nodes[number]
        program = [str(Path(__file__).with_name("stepped_agent.py")), steps] if steps else ["-m", "gpuwaste_agent.main"]
        flags = ["--node", node.name, "--nvml-library", f"{self.gpus.driver}/libnvidia-ml.so.1"]
        flags += ["--pod-resources", f"{node.kubelet_folder}/pod-resources/kubelet.sock"]
        flags += ["--pod-logs", f"{node.folder}/log/pods", "--container-logs", f"{node.folder}/log/containers"]
        flags += ["--journal", str(self.folder / name), "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]
        with (self.folder / f"{name}.log").open("w") as said:
            self.agents[name] = subprocess.Popen(
                [sys.executable, *program, *flags], env=self._environment(number), stderr=said, text=True
            )

    # --- while it runs

    def break_things(self, began: float) -> None:
        """Let happen what is to happen, each at its time."""
        plans: list[tuple[float, Callable[[], None]]] = []
        for side in SIDES:
            fault = side.fault
            if fault is not None:
                plans.append((_scaled(fault.after_s), lambda side=side: self._break(side)))
                bad = fault.kind == "lost" or fault.xid == 79
                if bad:
                    plans.append((_scaled(fault.after_s), lambda side=side: self.offer(side, healthy=False)))
                if bad and fault.seconds is not None:
                    plans.append((_scaled(fault.after_s) + fault.seconds, lambda side=side: self.offer(side)))
            if side.recreated:
                plans.append((LENGTH_S / 2, lambda side=side: self._recreate(side)))
        for after, act in sorted(plans, key=lambda plan: plan[0]):
            time.sleep(max(0.0, began + after - time.monotonic()))
            act()

    def _break(self, side: Side) -> None:
        sim, fault = self.sims[side.node], side.fault
        assert fault is not None
        with sim.writing():
            now = sim.now_ns()
            until = (1 << 63) - 1 if fault.seconds is None else now + int(fault.seconds * SECOND)
            gpu = "" if fault.kind == "driver-reload" else side.gpus[0].uuid
            sim.add_fault(fault.kind, gpu=gpu, from_ns=now, until_ns=until, xid=fault.xid)

    def _recreate(self, side: Side) -> None:
        (pod,) = side.pods
        self.cluster.access.kubectl("delete", "pod", pod.name, "--now", "--wait")
        self.cluster.access.apply(self.pod(side, pod))

    def churn(self, side: Side, began: float) -> None:
        """One short pod after the other; a pod ends by being deleted."""
        period = LENGTH_S / side.churn / 1.03
        node = self.cluster.nodes[side.node]
        before = ""
        for number in range(side.churn):
            time.sleep(max(0.0, began + 1 + number * period - time.monotonic()))
            name = f"short-{number}"
            limits = {self.resource(side): "1"}
            container = {"name": "main", "image": LOAD_IMAGE, "imagePullPolicy": "Never", "args": ["0.4:0.5:500"]}
            container["resources"] = {"limits": limits}
            spec = {"containers": [container], "terminationGracePeriodSeconds": 1, "restartPolicy": "Never"}
            spec["nodeSelector"] = {"kubernetes.io/hostname": node.name}
            body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
            self.api.apply(f"{PODS}/{name}", body, manager="test")
            if before:
                self._end(before)
            before = name
        time.sleep(period)
        self._end(before)

    def _end(self, name: str) -> None:
        with suppress(ClusterError):
            found = self.api.get(f"{PODS}/{name}")
            if found["status"]["phase"] == "Running":
                self.lived[found["metadata"]["uid"]] = name
        self.cluster.access.kubectl("delete", "pod", name, "--now", "--wait=false")

    def watched(self, act: Callable[[], None]) -> threading.Thread:
        """Do something beside the run; what goes wrong there is told at the end."""

        def run() -> None:
            try:
                act()
            except Exception as error:  # noqa: BLE001 - told at the end
                self.problems.append(f"{error}")

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def uids(self) -> dict[str, list[str]]:
        """UIDs of the pods by name, also of those that were made again."""
        found: dict[str, list[str]] = {}
        for pod in self.api.get(PODS)["items"]:
            found.setdefault(pod["metadata"]["name"], []).append(pod["metadata"]["uid"])
        return found

    def stop_agents(self) -> None:
        for agent in self.agents.values():
            agent.send_signal(signal.SIGTERM)
        for name, agent in self.agents.items():
            if agent.wait(timeout=20) != 0:
                self.problems.append(f"agent {name} ended with {agent.returncode}: {self.said(name)}")

    def keep(self, start_ns: int, uids: dict[str, list[str]]) -> None:
        """Write down everything that is judged, so that it can be judged again without another run."""
        for number, node in enumerate(self.cluster.nodes):
            shutil.copy(node.folder / "nvml.state", self.folder / f"n{number}.state")
        run = {"start_ns": start_ns, "end_ns": start_ns + LENGTH_S * SECOND, "uids": uids, "lived": self.lived}
        (self.folder / "run.json").write_text(json.dumps(run))

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()[-2000:]

    def close(self) -> None:
        for process in (*self.agents.values(), *self.hosts):
            process.kill()
            process.wait()
        for service in self.services.values():
            service.stop()


def _scaled(after_s: float) -> float:
    """A moment of the ten minutes in a shorter run; seconds of a fault stay as they are."""
    return after_s * min(1.0, LENGTH_S / 600)


def claim(name: str, uuid: str) -> dict[str, Any]:
    """A ResourceClaim of the one device of that UUID."""
    expression = f"device.attributes['gpu.nvidia.com'].uuid == '{uuid}'"
    kind = "mig.nvidia.com" if uuid.startswith("MIG-") else "gpu.nvidia.com"
    exactly = {"deviceClassName": kind, "count": 1, "selectors": [{"cel": {"expression": expression}}]}
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"devices": {"requests": [{"name": "gpu", "exactly": exactly}]}},
    }


def records_of(directory: Path) -> list[Record]:
    """All records of a journal."""
    journal = Journal(directory)
    after, found = 0, []
    while True:
        page = journal.read(after, 20_000)
        found += Batch.FromString(page.payload).records
        after = page.next_seq - 1
        if not page.more:
            journal.close()
            return found


def judge_stepped(records: list[Record], side: Side) -> Row:
    """The agent whose wall clock was stepped: no window is filled twice, and every second counts once.

    Args:
        records: its records from when the load ran.
        side: the scenario.
    """
    row = Row(name=side.name, containers=1)
    covered: dict[int, float] = {}
    duty = length = 0.0
    for record in records:
        if record.WhichOneof("body") == "device" and record.device.parent_id == side.gpus[0].uuid:
            figures = record.device.figures
            seconds = figures.duty_quality.coverage_ppm / 1e6 * record.window_ns / SECOND
            covered[record.window_start_unix_ns] = covered.get(record.window_start_unix_ns, 0.0) + seconds
            duty, length = duty + figures.duty_ns / SECOND, length + seconds
    row.true_duty_s = 0.6 * length
    row.duty_error = row.sm_error = abs(duty - row.true_duty_s) / row.true_duty_s
    gaps = [(r.gap.to_unix_ns - r.gap.from_unix_ns) / SECOND for r in records if r.WhichOneof("body") == "gap"]
    row.notes.append(f"90 s forward, 20 s back; gaps told {[round(gap, 1) for gap in gaps]} s, covered {length:.0f} s")
    if row.duty_error > 0.01:
        row.wrong.append("duty is off")
    if max(covered.values()) > 60.01:
        row.wrong.append("a window is filled twice")
    if len(gaps) != 1 or abs(gaps[0] - 90) > 1:
        row.wrong.append("the step forward is no gap")
    return row


def judged(folder: Path) -> list[Row]:
    """Every scenario's row, from what a run left in a folder: journals, drivers' states and what the API said."""
    run = json.loads((folder / "run.json").read_text())
    start_ns, end_ns = run["start_ns"], run["end_ns"]
    truths, records = [], []
    for number in range(len({side.node for side in SIDES})):
        sim = SimState(folder / f"n{number}.state")
        offset = sim.state.start_utc_ns
        truths.append(Truth(sim, (start_ns - offset) / SECOND, (end_ns - offset) / SECOND))
        told = records_of(folder / f"n{number}")
        records.append([r for r in told if start_ns <= r.window_start_unix_ns < end_ns])
    return [
        judge_stepped([r for r in records_of(folder / "stepped") if r.window_start_unix_ns >= start_ns], side)
        if side.stepped
        else judge(side, records[side.node], truths[side.node], run["uids"], run["lived"])
        for side in SIDES
    ]


@pytest.fixture
def bench(pytestconfig: pytest.Config, tmp_path: Path) -> Iterator[Bench]:
    if not os.environ.get("GPUWASTE_FULL"):
        pytest.skip("takes thirteen minutes: set GPUWASTE_FULL=1, or run `make test-full`")
    report = reporter(pytestconfig)
    made: Bench | None = None
    try:
        with running_nodes(count=4, report=report) as cluster:
            made = Bench(cluster, tmp_path, report)
            try:
                yield made
            finally:
                made.close()
    except MissingToolsError as error:
        skip_or_fail(str(error))


@pytest.mark.timeout(1200, func_only=True)
def test_all_scenarios_side_by_side(bench: Bench) -> None:
    began = time.monotonic()
    bench.start()
    now_ns = time.time_ns()
    # A kubelet is asked every five seconds: then the agents know all pods.
    start_ns = (now_ns + 8 * SECOND) // MINUTE * MINUTE + MINUTE
    bench.report(f"all pods run after {time.monotonic() - began:.0f} s; ten minutes begin")
    time.sleep((start_ns - time.time_ns()) / SECOND)
    run = time.monotonic()
    before = bench.uids()
    threads = [bench.watched(lambda side=side: bench.churn(side, run)) for side in SIDES if side.churn]
    threads.append(bench.watched(lambda: bench.break_things(run)))
    time.sleep(max(0.0, run + LENGTH_S - time.monotonic()))
    for thread in threads:
        thread.join(60)
    time.sleep(2)
    after = bench.uids()
    uids = {name: sorted({*before.get(name, ()), *after.get(name, ())}) for name in before | after}
    bench.stop_agents()
    bench.keep(start_ns, uids)
    rows = judged(bench.folder)
    bench.report(table(rows))
    _write_evidence(rows)
    wrong = [f"{row.name}: {what}" for row in rows for what in row.wrong]
    assert not bench.problems
    assert not wrong, "\n".join(wrong)
    assert len(rows) >= 20


def _write_evidence(rows: list[Row]) -> None:
    """Keep the figures of a whole run."""
    if LENGTH_S < 600:
        return
    path = ROOT / "docs" / "evidence" / "agent-side-by-side.json"
    path.parent.mkdir(exist_ok=True)
    found = [
        {
            "scenario": row.name,
            "containers": row.containers,
            "true_duty_seconds": round(row.true_duty_s, 3),
            "duty_error": None if row.duty_error is None else round(row.duty_error, 6),
            "sm_error": None if row.sm_error is None else round(row.sm_error, 6),
            "interval_seconds": None if row.width is None else round(row.width, 3),
            "notes": row.notes,
            "wrong": row.wrong,
        }
        for row in rows
    ]
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({"seconds": LENGTH_S, "scenarios": found}, indent=1) + "\n")
    temporary.replace(path)
