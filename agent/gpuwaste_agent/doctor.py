"""`gpuwaste-agent doctor`: what can be read on this node, why not, and what to set."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from gpuwaste_agent.holdings import Sharing
from gpuwaste_agent.products import PRODUCTS
from gpuwaste_agent.telemetry import Origin

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from gpuwaste_agent.holdings import HoldingsSnapshot
    from gpuwaste_agent.telemetry import DriverFacts, GpuHealth, GpuInfo, GpuReading, ParentReading

__all__ = [
    "Finding",
    "check_driver",
    "check_gpu",
    "check_health",
    "check_holdings",
    "check_journal",
    "check_paths",
    "check_sharing",
    "check_slices",
    "render",
]

_LEAST_FREE_BYTES = 64 << 20
READABLE, UNREADABLE, BROKEN = "readable", "not readable", "broken"
_ACTIVITY = ("duty", "sm", "tensor", "dram", "enc", "dec", "copy", "pcie_bytes", "nvlink_bytes")
_MIG_PRIVILEGE = (
    "give the agent CAP_SYS_ADMIN and NVIDIA_MIG_MONITOR_DEVICES=all (value `agent.migMonitoring` of the chart)"
)
_EXPORTER = "name the node's dcgm-exporter with --dcgm-exporter and let it collect DCGM_FI_PROF_"
_COLLECT = dict.fromkeys(("duty", "sm", "tensor", "dram"), "SM_ACTIVE") | {
    "pcie_bytes": "PCIE_TX_BYTES and DCGM_FI_PROF_PCIE_RX_BYTES",
    "nvlink_bytes": "NVLINK_TX_BYTES and DCGM_FI_PROF_NVLINK_RX_BYTES",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: A path, or a GPU or MIG instance.
        figure: What was looked for.
        state: `readable`, `not readable` (the hardware or a setting), or `broken` (should work and does not).
        why: The source where it is readable, else the reason.
        fix: What to set; empty where nothing helps or nothing is needed.
    """

    subject: str
    figure: str
    state: str
    why: str
    fix: str = ""


def _why_not(figure: str, gpu: GpuInfo, refused: Mapping[str, str]) -> tuple[str, str]:
    """Why a figure of a parent is not there, and what helps."""
    denied = next((reason for reason in refused.values() if "ermission" in reason), "")
    product = PRODUCTS.get(gpu.product)
    gpm = product is not None and product.gpm
    why, fix = "the driver gave no answer", ""
    if denied and gpu.mig_enabled:
        why, fix = f"the driver refuses: {denied}", _MIG_PRIVILEGE
    elif figure == "copy":
        why = "NVML has no figure for the copy engines"
    elif figure in ("enc", "dec"):
        why = "NVML has no encoder or decoder use under MIG" if gpu.mig_enabled else "the driver does not support it"
    elif gpm and figure in ("pcie_bytes", "nvlink_bytes"):
        why = "the GPU reports none"
    elif not gpm:
        why = "NVML measures it with GPM only, from Hopper on"
        fix = _EXPORTER + _COLLECT[figure]
        if figure not in ("pcie_bytes", "nvlink_bytes"):
            why += "; before that MIG has no activity figure at all" if gpu.mig_enabled else ""
    return why, fix


def check_gpu(gpu: GpuInfo, reading: GpuReading, refused: Mapping[str, str]) -> list[Finding]:
    """Every figure of a GPU's parents, by one reading that had another one before it."""
    if not reading.parents:
        why = "the GPU is lost: it answers no call" if reading.unhealthy else "MIG is on and there are no instances"
        return [Finding(subject=gpu.uuid, figure="all", state=BROKEN if reading.unhealthy else UNREADABLE, why=why)]
    findings = []
    for parent in reading.parents:
        findings += _check_parent(gpu, parent, refused)
    source = "NVML energy counter, of the whole GPU"
    missing = refused.get("energy", "the driver has no energy counter for it")
    state = UNREADABLE if reading.energy_mj is None else READABLE
    findings.append(
        Finding(subject=gpu.uuid, figure="energy", state=state, why=missing if reading.energy_mj is None else source)
    )
    return findings


def _check_parent(gpu: GpuInfo, parent: ParentReading, refused: Mapping[str, str]) -> list[Finding]:
    findings = []
    sources = {Origin.GPM: "GPM", Origin.DCGM_PROF: "dcgm-exporter", Origin.DEVICE: "device utilization"}
    subject = parent.parent_id
    for figure in _ACTIVITY:
        name = figure.removesuffix("_bytes")
        if getattr(parent.activity, figure) is not None:
            source = "NVML" if figure in ("enc", "dec") else sources[parent.origin]
            findings.append(Finding(subject=subject, figure=name, state=READABLE, why=source))
        else:
            why, fix = _why_not(figure, gpu, refused)
            findings.append(Finding(subject=subject, figure=name, state=UNREADABLE, why=why, fix=fix))
    if parent.memory_bytes is None:
        reason = refused.get("memory", "the driver gave no answer")
        findings.append(Finding(subject=subject, figure="memory", state=UNREADABLE, why=reason))
    else:
        findings.append(Finding(subject=subject, figure="memory", state=READABLE, why="NVML"))
    findings.append(_check_processes(gpu, parent, refused))
    return findings


def _check_processes(gpu: GpuInfo, parent: ParentReading, refused: Mapping[str, str]) -> Finding:
    subject = parent.parent_id
    if parent.processes is None:
        why = refused.get("processes", "switched off by --no-processes")
        fix = _MIG_PRIVILEGE if gpu.mig_enabled and "processes" in refused else ""
        return Finding(subject=subject, figure="processes", state=UNREADABLE, why=why, fix=fix)
    if gpu.mig_enabled:
        why = "listed; under MIG without utilization: containers that share an instance are told apart by memory alone"
    elif "process utilization" in refused:
        why = f"listed; their utilization is refused: {refused['process utilization']}"
    else:
        why = "listed, with utilization"
    return Finding(subject=subject, figure="processes", state=READABLE, why=why)


def check_driver(driver: DriverFacts) -> list[Finding]:
    """Versions of the driver, and whether it tells how the GPUs are connected."""
    why = f"driver {driver.driver_version}, NVML {driver.nvml_version}, CUDA {driver.cuda_version}"
    findings = [Finding(subject="driver", figure="versions", state=READABLE, why=why)]
    for uuid, entry in json.loads(driver.topology_json or "{}").items():
        told = ", ".join(f"{name.replace('_', ' ')} {entry[name]}" for name in sorted(entry) if entry[name] != 0)
        state = READABLE if told else UNREADABLE
        findings.append(Finding(subject=uuid, figure="topology", state=state, why=told or "the driver tells nothing"))
    return findings


def check_health(gpu: GpuInfo, health: GpuHealth | None) -> list[Finding]:
    """Memory errors and throttling of a GPU."""
    if health is None:
        return []
    found = []
    if health.ecc_enabled is None:
        found.append(Finding(subject=gpu.uuid, figure="ecc", state=UNREADABLE, why="the product has no ECC to tell of"))
    else:
        errors = health.ecc_uncorrected
        why = f"{'on' if health.ecc_enabled else 'off'}, uncorrected errors {'not told' if errors is None else errors}"
        fix = "drain the node and reset the GPU: rows wait to be remapped" if health.remap_pending else ""
        fix = "have the board replaced: no spare row is left" if health.remap_failed else fix
        found.append(Finding(subject=gpu.uuid, figure="ecc", state=BROKEN if fix else READABLE, why=why, fix=fix))
    if health.throttle is None:
        found.append(
            Finding(subject=gpu.uuid, figure="throttling", state=UNREADABLE, why="the driver does not tell it")
        )
    else:
        why = ", ".join(health.throttle) or "none now"
        found.append(Finding(subject=gpu.uuid, figure="throttling", state=READABLE, why=why))
    return found


def check_sharing(snapshot: HoldingsSnapshot | None) -> list[Finding]:
    """How each parent is shared, as far as device ids tell."""
    if snapshot is None:
        return []
    return [
        Finding(
            subject=parent,
            figure="sharing",
            state=READABLE,
            why=f"{snapshot.sharing.get(parent, Sharing.EXCLUSIVE).name.lower().replace('_', '-')}, {count} slices",
        )
        for parent, count in snapshot.replicas.items()
    ]


def check_journal(directory: Path, limit_bytes: int) -> Finding:
    """Whether windows can be kept, and whether the volume has room for them."""
    subject, existing = str(directory), directory
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not os.access(existing, os.W_OK):
        fix = f"mount a volume of the node that uid {os.getuid()} may write at {directory}"
        return Finding(subject=subject, figure="journal", state=BROKEN, why=f"{existing} is not writable", fix=fix)
    free = shutil.disk_usage(existing).free
    why = f"{free >> 20} MiB free, up to {limit_bytes >> 20} MiB are kept"
    fix = (
        ""
        if free > _LEAST_FREE_BYTES
        else "make room, or lower --journal-limit-mib: the oldest windows will be dropped"
    )
    return Finding(subject=subject, figure="journal", state=BROKEN if fix else READABLE, why=why, fix=fix)


def check_holdings(snapshot: HoldingsSnapshot | None, problem: str, socket: Path) -> Finding:
    """Whether the kubelet tells who holds what."""
    if snapshot is None or problem:
        fix = f"mount the kubelet's pod-resources folder so that {socket} exists, and run as uid 0"
        return Finding(subject=str(socket), figure="held", state=BROKEN, why=problem or "no answer", fix=fix)
    named = sum(1 for holding in snapshot.holdings if holding.container.pod_uid)
    why = f"{len(snapshot.holdings)} slices held, {sum(snapshot.replicas.values())} allocatable, {named} with a UID"
    return Finding(subject=str(socket), figure="held", state=READABLE, why=why)


def check_slices(problem: str, node: str, devices: int) -> Finding:
    """Whether the API server tells what claimed devices are."""
    subject, figure = f"ResourceSlices of {node}", "claims"
    if problem:
        fix = "allow it by the chart's value agent.resourceSlices, or leave --resource-slices out: names tell then"
        return Finding(subject=subject, figure=figure, state=BROKEN, why=problem, fix=fix)
    return Finding(subject=subject, figure=figure, state=READABLE, why=f"{devices} devices")


def check_paths(*, proc: Path, pod_logs: Path, processes: bool) -> list[Finding]:
    """Whether the host's processes and log folders are visible."""
    findings = []
    if pod_logs.is_dir():
        findings.append(Finding(subject=str(pod_logs), figure="join", state=READABLE, why="names meet UIDs here"))
    else:
        fix = f"mount the host's /var/log/pods read-only at {pod_logs}"
        why = "without it windows carry names or UIDs, and the operator joins them"
        findings.append(Finding(subject=str(pod_logs), figure="join", state=UNREADABLE, why=why, fix=fix))
    if not processes:
        return findings
    try:
        host = (proc / "1" / "comm").read_text().strip() in ("systemd", "init")
    except OSError as error:
        return [*findings, Finding(subject=str(proc), figure="owners", state=BROKEN, why=str(error), fix=_HOST_PID)]
    if host:
        findings.append(Finding(subject=str(proc), figure="owners", state=READABLE, why="the host's processes"))
    else:
        why = "process 1 is no init of a host: these may be only the container's own processes"
        findings.append(Finding(subject=str(proc), figure="owners", state=UNREADABLE, why=why, fix=_HOST_PID))
    return findings


_HOST_PID = "run the agent's pod with hostPID, or switch attribution by process off with --no-processes"


def render(findings: Sequence[Finding], form: str) -> str:
    """The findings as a table, or as JSON."""
    if form == "json":
        return json.dumps([asdict(finding) for finding in findings], indent=1) + "\n"
    rows = [("SUBJECT", "FIGURE", "STATE", "WHY"), *_rows(findings)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "".join(f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:<{widths[2]}}  {row[3]}\n" for row in rows)


def _rows(findings: Iterable[Finding]) -> Iterable[tuple[str, str, str, str]]:
    """One row for all subjects of which the same is true."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for finding in findings:
        why = finding.why + (f" -> {finding.fix}" if finding.fix else "")
        groups.setdefault((finding.figure, finding.state, why), []).append(finding.subject)
    for (figure, state, why), subjects in groups.items():
        more = f" and {len(subjects) - 1} more" if len(subjects) > 1 else ""
        yield subjects[0] + more, figure, state, why
