"""The agent's process: loop, servers and signals."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import uuid
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gpuwaste_agent.clock import SteppedClock, SystemClock
from gpuwaste_agent.journal import Journal, JournalError
from gpuwaste_agent.metrics import Metrics
from gpuwaste_agent.node_agent import NodeAgent
from gpuwaste_agent.notices import NoticeWatcher, ask_notice
from gpuwaste_agent.pacing import RealPacer, SimulatedPacer
from gpuwaste_agent.server import Identity, PlainServer, WindowsServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpuwaste_agent.holdings import HoldingSource, ProcessOwners
    from gpuwaste_agent.leaving import Handover
    from gpuwaste_agent.pacing import Pacer
    from gpuwaste_agent.settings import AgentSettings
    from gpuwaste_agent.telemetry import Nvml

__all__ = ["run"]

_SECOND = 1_000_000_000
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_SYNC_SECONDS = 0.25
_LATE_INTERVALS = 10
_LATE_SECONDS = 60
# The driver is let go within a second of SIGTERM: somebody may be waiting to change the GPUs.
_CLOSE_SECONDS = 0.8
# After a notice that the node is taken away, what was measured since is handed over again so often.
_AGAIN_SECONDS = 10


@dataclass(slots=True)
class _Parts:
    """What the loop works with; `problems` answer with what is wrong now, or with nothing."""

    agent: NodeAgent
    nvml: Nvml
    pacer: Pacer
    problems: tuple[Callable[[], str], ...] = ()
    departure: _Departure | None = None


def _boot_id(node: str) -> str:
    """The kernel's boot id, so that a reader can tell a restart of the agent from one of the node."""
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else str(uuid.uuid5(uuid.NAMESPACE_DNS, node))


def _simulated(settings: AgentSettings, journal: Journal, metrics: Metrics) -> _Parts:
    from gpuwaste_agent.simulate.kubelet import SimulatedHoldings, SimulatedOwners  # noqa: PLC0415 - not on a real node
    from gpuwaste_agent.simulate.nvml import SimulatedNvml  # noqa: PLC0415
    from gpuwaste_agent.simulate.scenario_file import load_scenario  # noqa: PLC0415

    simulation = settings.simulation
    if simulation is None:
        raise ValueError("no simulation is set")
    node = load_scenario(simulation.scenario).node(settings.node)
    start_ns = simulation.start_unix_ns
    clock = SteppedClock(max(start_ns, journal.newest_window_end_ns or 0))
    nvml = SimulatedNvml(node, clock, start_ns)
    owners = SimulatedOwners(node)
    holdings = SimulatedHoldings(node, clock, start_ns)
    pacer = SimulatedPacer(clock, SystemClock(), interval_ns=settings.interval_ns, speed=simulation.speed)
    agent = _node_agent(settings, journal, metrics, (nvml, holdings, owners, clock))
    return _Parts(agent, nvml, pacer, (lambda: agent.problem,))


def _node_agent(
    settings: AgentSettings,
    journal: Journal,
    metrics: Metrics,
    sources: tuple[Nvml, HoldingSource, ProcessOwners, SystemClock | SteppedClock],
) -> NodeAgent:
    nvml, holdings, owners, clock = sources
    return NodeAgent(
        nvml=nvml,
        holdings=holdings,
        owners=owners,
        clock=clock,
        journal=journal,
        interval_ns=settings.interval_ns,
        window_ns=settings.window_ns,
        boot_id=_boot_id(settings.node),
        told=metrics.add,
    )


def _real(settings: AgentSettings, journal: Journal, metrics: Metrics) -> _Parts:
    from gpuwaste_agent.cgroups import CgroupOwners, NoOwners  # noqa: PLC0415 - not in a simulation
    from gpuwaste_agent.container_names import ContainerNames  # noqa: PLC0415
    from gpuwaste_agent.nvml import RealNvml  # noqa: PLC0415
    from gpuwaste_agent.podresources import KubeletHoldings  # noqa: PLC0415

    sources = settings.sources
    clock = SystemClock()
    driver = RealNvml(library=sources.nvml_library, list_processes=sources.processes)
    nvml: Nvml = driver
    scraper = None
    if sources.dcgm_url:
        from gpuwaste_agent.dcgm import DcgmNvml, DcgmScraper  # noqa: PLC0415 - only where there is an exporter

        scraper = DcgmScraper.of_url(sources.dcgm_url, every_seconds=sources.dcgm_seconds)
        scraper.start()
        nvml = DcgmNvml(driver, scraper)
    slices = None
    if sources.slices is not None:
        from gpuwaste_agent.resource_slices import SliceWatcher, ask_slices  # noqa: PLC0415 - only where it is on

        slices = SliceWatcher(partial(ask_slices, sources.slices))
        slices.start()
    names = ContainerNames(sources.container_logs)
    owners: ProcessOwners = CgroupOwners(sources.proc, names) if sources.processes else NoOwners()
    holdings = KubeletHoldings(
        socket=sources.pod_resources,
        pod_logs=sources.pod_logs,
        gpus=driver.listed,
        clock=clock,
        every_seconds=sources.kubelet_seconds,
        dra=sources.dra,
        slices=slices,
    )
    agent = _node_agent(settings, journal, metrics, (nvml, holdings, owners, clock))
    problems = [lambda: agent.problem, lambda: driver.problem, lambda: holdings.problem]
    if scraper is not None:
        problems.append(lambda: scraper.problem)
    if slices is not None:
        problems.append(lambda: slices.problem)
    return _Parts(agent, nvml, RealPacer(clock, settings.interval_ns), tuple(problems))


class _Health:
    """Whether the loop still turns; read by the probes."""

    def __init__(self, settings: AgentSettings) -> None:
        self._limit = max(_LATE_SECONDS, _LATE_INTERVALS * settings.interval_seconds)
        self._ticked = time.monotonic()
        self.ready = False

    def tick(self) -> None:
        self._ticked = time.monotonic()
        self.ready = True

    def healthy(self) -> str:
        late = time.monotonic() - self._ticked
        return f"no reading for {late:.0f} s (limit {self._limit:.0f} s)" if late > self._limit else ""

    def readiness(self) -> str:
        return "" if self.ready else "no reading yet"


def run(settings: AgentSettings) -> int:
    """Sample and serve until SIGTERM or SIGINT; then close the open window as it is and let the driver go.

    Raises:
        ServerError, JournalError, NvmlUnavailableError, ScenarioError: Something needed does not work.
    """
    stop = threading.Event()
    _await_signals(stop)
    journal = Journal(
        settings.journal, retention_hours=settings.retention_hours, limit_bytes=settings.journal_limit_bytes
    )
    if not journal.writable:
        raise JournalError(f"{settings.journal}: another agent writes this journal; stop it or name another --journal")
    metrics = Metrics(journal)
    health = _Health(settings)
    identity = Identity(node=settings.node, node_uid=settings.node_uid, cluster=settings.cluster)
    parts = (_simulated if settings.simulation else _real)(settings, journal, metrics)
    try:
        windows = WindowsServer(settings.listen, journal=journal, identity=identity, tls=settings.tls)
        plain = PlainServer(
            settings.metrics_listen, metrics=metrics.render, healthy=health.healthy, ready=health.readiness
        )
    except BaseException:
        parts.nvml.close()
        raise
    if settings.notices is not None:
        watcher = NoticeWatcher(partial(ask_notice, settings.notices))
        watcher.start(stop)
        parts.problems = (*parts.problems, lambda: watcher.problem)
        parts.departure = _Departure(watcher, lambda: _leave(settings, journal, identity, windows.acknowledged))
    leaver = _Leaver(lambda: _finish(parts, journal, settings, identity, windows))
    threading.Thread(target=leaver.watch, args=(stop, parts.nvml), name="leaving", daemon=True).start()
    windows.start("windows")
    plain.start("metrics")
    sys.stderr.write(f"gpuwaste-agent: {settings.node}: windows on port {windows.port}, metrics on port {plain.port}\n")
    sys.stderr.flush()
    try:
        _loop(parts, journal, health, metrics, stop)
    finally:
        stop.set()
        parts.nvml.close()
        leaver.leave()
        plain.stop()
    return 0


def _await_signals(stop: threading.Event) -> None:
    """Let a thread of its own take SIGTERM and SIGINT.

    Python runs signal handlers in the main thread, between two of its own instructions: never, while a call of the
    driver does not return.
    """
    numbers = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)

    def wait() -> None:
        signal.sigwait(numbers)
        stop.set()

    threading.Thread(target=wait, name="signals", daemon=True).start()


class _Departure:
    """Hands over as soon as a notice says that the node is taken away, and again and again until it is.

    Nobody promises that the agent is told to stop before the node is gone.
    """

    def __init__(self, watcher: NoticeWatcher, hand_over: Callable[[], None]) -> None:
        self._watcher = watcher
        self._hand_over = hand_over
        self._handed = -float(_AGAIN_SECONDS)
        self._thread: threading.Thread | None = None

    def due(self) -> bool:
        """Whether what there is should be handed over now."""
        if not self._watcher.notice or (self._thread is not None and self._thread.is_alive()):
            return False
        return time.monotonic() - self._handed >= _AGAIN_SECONDS

    def hand_over(self) -> None:
        """Hand over beside the readings, which go on."""
        if self._thread is None:
            sys.stderr.write(f"gpuwaste-agent: this node is taken away: {self._watcher.notice}\n")
            sys.stderr.flush()
        self._handed = time.monotonic()
        self._thread = threading.Thread(target=self._hand_over, name="departure", daemon=True)
        self._thread.start()


class _Leaver:
    """Lets the driver go as soon as the agent is told to stop, whatever the loop is busy with, and leaves once."""

    def __init__(self, finish: Callable[[], None]) -> None:
        self._finish = finish
        self._lock = threading.Lock()
        self._left = False

    def watch(self, stop: threading.Event, nvml: Nvml) -> None:
        """Wait for the stop; where a call of the driver does not return, leave without the loop.

        The driver then goes with the process, and the last window is kept all the same.
        """
        stop.wait()
        if not nvml.close(_CLOSE_SECONDS):
            sys.stderr.write("gpuwaste-agent: a call of the driver does not return; leaving without it\n")
            sys.stderr.flush()
            self.leave()
            os._exit(0)

    def leave(self) -> None:
        """Keep and hand over what there is; a second call waits for the first."""
        with self._lock:
            if not self._left:
                self._left = True
                self._finish()


def _finish(
    parts: _Parts, journal: Journal, settings: AgentSettings, identity: Identity, windows: WindowsServer
) -> None:
    """Close the open window as it is, make it durable, and hand it over."""
    parts.agent.flush()
    _made_durable(journal)
    _leave(settings, journal, identity, windows.acknowledged)
    windows.stop()
    with contextlib.suppress(OSError):  # said above
        journal.close()


def _leave(settings: AgentSettings, journal: Journal, identity: Identity, acknowledged: int) -> None:
    """Hand over what nobody has fetched; what cannot be handed over stays in the journal."""
    for target in settings.handovers:
        said: list[str] = []
        thread = threading.Thread(
            target=_hand_over, args=(target, journal, identity, acknowledged, said), name="handover", daemon=True
        )
        thread.start()
        # A look-up of a name knows no time limit of its own.
        thread.join(target.seconds + 1)
        text = said[0] if said else f"not handed over: {target.method} did not end in {target.seconds:g} s"
        sys.stderr.write(f"gpuwaste-agent: {text}\n")


def _hand_over(target: Handover, journal: Journal, identity: Identity, acknowledged: int, said: list[str]) -> None:
    from gpuwaste_agent.leaving import HandoverError, hand_over  # noqa: PLC0415 - only at the very end

    try:
        sent = hand_over(target, journal, identity, acknowledged)
    except HandoverError as error:
        said.append(f"not handed over: {error}")
    else:
        said.append(f"handed over {sent} bytes by {target.method}")


def _say_changes(before: list[str], now: list[str]) -> list[str]:
    """One line for every problem that came or went."""
    for old, new in zip(before, now, strict=True):
        if old != new:
            sys.stderr.write(f"gpuwaste-agent: {new or 'again in order, after: ' + old}\n")
            sys.stderr.flush()
    return now


def _made_durable(journal: Journal) -> bool:
    """Make new windows durable; where the disk fails they wait, unserved, for the next attempt."""
    try:
        journal.sync()
    except OSError as error:
        sys.stderr.write(f"gpuwaste-agent: windows are not durable yet: {error}\n")
        return False
    return True


def _loop(parts: _Parts, journal: Journal, health: _Health, metrics: Metrics, stop: threading.Event) -> None:
    """Tick when due; make new windows durable at once, in a fast simulation a few times a second."""
    unsynced = 0
    synced = 0.0
    said = [""] * len(parts.problems)
    while True:
        began = time.monotonic()
        unsynced += parts.agent.tick()
        if unsynced and began - synced >= _SYNC_SECONDS:
            if _made_durable(journal):
                unsynced = 0
            synced = began
        if parts.departure is not None and parts.departure.due():
            parts.agent.flush()
            if _made_durable(journal):
                unsynced = 0
            parts.departure.hand_over()
        said = _say_changes(said, [problem() for problem in parts.problems])
        health.tick()
        metrics.tick(time.monotonic() - began, parts.nvml.cpu_ns)
        if not parts.pacer.wait(stop.wait):
            return
