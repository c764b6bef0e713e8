"""Opens a node's sources once and asks the doctor about each."""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import TYPE_CHECKING

from gpuwaste_agent.clock import SteppedClock, SystemClock
from gpuwaste_agent.doctor import (
    BROKEN,
    READABLE,
    Finding,
    check_driver,
    check_gpu,
    check_health,
    check_holdings,
    check_journal,
    check_paths,
    check_sharing,
    check_slices,
    render,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpuwaste_agent.settings import AgentSettings
    from gpuwaste_agent.telemetry import Nvml

__all__ = ["examine"]

# GPM answers from two samples more than 100 ms apart.
_APART_SECONDS = 0.3
_SECOND = 1_000_000_000


def examine(settings: AgentSettings, form: str) -> int:
    """Print the findings; returns 1 where something that should work does not.

    Raises:
        NvmlUnavailableError, ScenarioError: There is nothing to ask.
    """
    findings = _simulated(settings) if settings.simulation else _real(settings)
    sys.stdout.write(render(findings, form))
    return 1 if any(finding.state == BROKEN for finding in findings) else 0


def _gpus(nvml: Nvml, refused: Mapping[str, Mapping[str, str]]) -> list[Finding]:
    findings = []
    for gpu in nvml.gpus():
        reading = nvml.read(gpu.uuid)
        findings += check_gpu(gpu, reading, refused.get(gpu.uuid, {}))
    return findings


def _simulated(settings: AgentSettings) -> list[Finding]:
    from gpuwaste_agent.simulate.kubelet import SimulatedHoldings  # noqa: PLC0415 - not on a real node
    from gpuwaste_agent.simulate.nvml import SimulatedNvml  # noqa: PLC0415
    from gpuwaste_agent.simulate.scenario_file import load_scenario  # noqa: PLC0415

    if settings.simulation is None:
        return []
    node = load_scenario(settings.simulation.scenario).node(settings.node)
    clock = SteppedClock(0)
    nvml = SimulatedNvml(node, clock, 0)
    clock.now_ns += _SECOND
    snapshot = SimulatedHoldings(node, clock, 0).poll()
    held = check_holdings(snapshot, "", settings.simulation.scenario)
    return [held, *check_sharing(snapshot), *check_driver(nvml.driver()), *_gpus(nvml, {})]


def _real(settings: AgentSettings) -> list[Finding]:
    from gpuwaste_agent.nvml import RealNvml  # noqa: PLC0415 - not in a simulation
    from gpuwaste_agent.podresources import KubeletHoldings  # noqa: PLC0415

    sources = settings.sources
    driver = RealNvml(library=sources.nvml_library, list_processes=sources.processes)
    try:
        nvml: Nvml = driver
        exporter = []
        if sources.dcgm_url:
            from gpuwaste_agent.dcgm import DcgmNvml, DcgmScraper  # noqa: PLC0415

            scraper = DcgmScraper.of_url(sources.dcgm_url, every_seconds=sources.dcgm_seconds)
            scraper.ask()
            state, why = (BROKEN, scraper.problem) if scraper.problem else (READABLE, "answers with profiling figures")
            exporter = [Finding(subject=sources.dcgm_url, figure="dcgm-exporter", state=state, why=why)]
            nvml = DcgmNvml(driver, scraper)
        for gpu in nvml.gpus():
            nvml.read(gpu.uuid)
        time.sleep(_APART_SECONDS)
        findings = [
            finding
            for gpu in driver.listed()
            for finding in check_gpu(gpu, nvml.read(gpu.uuid), driver.refusals().get(gpu.uuid, {}))
        ]
        health = driver.health()
        findings += [finding for gpu in driver.listed() for finding in check_health(gpu, health.get(gpu.uuid))]
        findings += exporter
        versions = check_driver(driver.driver())
        slices = None
        if sources.slices is not None:
            from gpuwaste_agent.resource_slices import SliceWatcher, ask_slices  # noqa: PLC0415

            slices = SliceWatcher(partial(ask_slices, sources.slices))
            slices.look()
            findings.append(check_slices(slices.problem, sources.slices.node, len(slices.devices())))
        holdings = KubeletHoldings(
            socket=sources.pod_resources,
            pod_logs=sources.pod_logs,
            gpus=driver.listed,
            clock=SystemClock(),
            every_seconds=sources.kubelet_seconds,
            dra=sources.dra,
            slices=slices,
        )
        snapshot = holdings.poll()
        held = [check_holdings(snapshot, holdings.problem, sources.pod_resources), *check_sharing(snapshot)]
        holdings.close()
    finally:
        driver.close()
    paths = check_paths(proc=sources.proc, pod_logs=sources.pod_logs, processes=sources.processes)
    journal = check_journal(settings.journal, settings.journal_limit_bytes)
    return [*held, *paths, journal, *versions, *findings]
