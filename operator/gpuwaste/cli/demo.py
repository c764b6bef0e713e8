"""`gpuwaste demo`: one simulated day through every stage, on one machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpuwaste.model.errors import InputError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress, TaskID

    from gpuwaste.runtime.rehearse import Rehearsal

__all__ = ["demo"]

_NODES, _SEED, _INTERVAL_SECONDS = 12, 1, 60
_CLUSTER = "demo"
_WIDTH = 100
"""Columns where stdout is no terminal."""
_AGENT_DEADLINE_SECONDS = 120
_OURS = ("inputs", "ledger", "plans", "focus", "plan.json", "report.html", "agents", "gpuwaste.jsonl")
_ABOUT = (
    "A simulated day of {nodes} mixed GPU nodes: whole GPUs, time-slicing and MIG, read every {interval} s. The load "
    "follows what public studies report: most GPUs are held and idle, a few are busy, serving has its daily cycle."
)


@click.command()
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for the results.  [default: new]")
@click.option("--nodes", type=click.IntRange(1, 500), default=_NODES, show_default=True, help="Simulated nodes.")
@click.option("--seed", type=int, default=_SEED, show_default=True, help="Of the simulated load.")
def demo(out: Path | None, nodes: int, seed: int) -> None:
    """Show what gpuwaste does, without a cluster, a GPU or a network.

    Simulates a day of a GPU cluster, then runs every stage on it as in production: usage windows, hourly ledger,
    waste by team, GPUWaste objects, a packing plan with its proven bound, FOCUS records and an HTML report.
    """
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else _WIDTH, highlight=False)
    folder, replaced = _prepare(out)
    if replaced:
        console.print(f"The earlier demo in {folder} is replaced.", soft_wrap=True)
    console.print(_ABOUT.format(nodes=nodes, interval=_INTERVAL_SECONDS), soft_wrap=False)
    end = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    started = time.monotonic()
    with _bars(console) as bars, _agents(folder, nodes=nodes, seed=seed, end=end, bars=bars) as endpoints:
        rehearsal = asyncio.run(_rehearse(folder, endpoints, end, bars))
        _finish(folder, rehearsal, end, bars)
    shutil.rmtree(folder / "agents")
    from gpuwaste.cli.demo_summary import print_summary

    print_summary(console, rehearsal, folder)
    console.print(f"\nDone in {time.monotonic() - started:.0f} s. Everything lies in {folder}")


def _prepare(out: Path | None) -> tuple[Path, bool]:
    """The output folder, and whether an earlier demo was removed from it.

    Raises:
        InputError: there is anything else in the folder.
    """
    if out is None:
        return Path(tempfile.mkdtemp(prefix="gpuwaste-demo-")), False
    folder, replaced = out.absolute(), False
    if folder.is_dir():
        foreign = sorted(path.name for path in folder.iterdir() if path.name not in _OURS)
        if foreign:
            raise InputError(
                f"holds other files ({', '.join(foreign[:3])})", where=str(folder), fix="give a new folder"
            )
        replaced = any(folder.iterdir())
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder, replaced


@contextlib.contextmanager
def _bars(console: Any) -> Iterator[Progress]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<28}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as bars:
        yield bars


@dataclass(frozen=True, slots=True)
class _Bar:
    bars: Progress
    task: TaskID

    @classmethod
    def start(cls, bars: Progress, text: str) -> _Bar:
        return cls(bars, bars.add_task(text, total=1.0))

    def at(self, part: float) -> None:
        self.bars.update(self.task, completed=part)


@contextlib.contextmanager
def _agents(folder: Path, *, nodes: int, seed: int, end: datetime, bars: Progress) -> Iterator[list[str]]:
    """A child that simulates the nodes' agents and serves their journals on loopback, until the block ends."""
    directory = folder / "agents"
    start = end - timedelta(days=1)
    command = [
        *_agent_program(),
        "simulate",
        *("--nodes", str(nodes), "--seed", str(seed), "--interval", str(_INTERVAL_SECONDS)),
        *("--from", start.isoformat(), "--to", end.isoformat(), "--journal", str(directory)),
        *("--serve", "--progress", "json"),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        try:
            _follow(child, directory / "endpoints.json", _Bar.start(bars, "Simulating agents"))
            listed = json.loads((directory / "endpoints.json").read_text(encoding="utf-8"))
            yield [entry["url"] for entry in listed]
        finally:
            child.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=5)
            child.kill()


def _agent_program() -> list[str]:
    """The agent beside this program, else as a module of this interpreter."""
    beside = Path(sys.argv[0]).with_name("gpuwaste-agent")
    return [str(beside)] if beside.is_file() else [sys.executable, "-m", "gpuwaste_agent.main"]


def _follow(child: subprocess.Popen[str], ready: Path, bar: _Bar) -> None:
    """Show the child's progress until its journals are served."""
    said: list[str] = []

    def listen() -> None:
        for line in child.stderr or ():
            try:
                progress = json.loads(line)
                bar.at(progress["done"] / max(progress["total"], 1))
            except (ValueError, KeyError, TypeError):
                said.append(line.strip())

    listener = threading.Thread(target=listen, name="agent-progress", daemon=True)
    listener.start()
    deadline = time.monotonic() + _AGENT_DEADLINE_SECONDS
    while not ready.exists():
        if child.poll() is not None or time.monotonic() > deadline:
            raise UnreachableError(f"the simulated agents did not start: {' '.join(said[-3:]) or 'no message'}")
        time.sleep(0.02)
    bar.at(1.0)


async def _rehearse(folder: Path, endpoints: list[str], end: datetime, bars: Progress) -> Rehearsal:
    from gpuwaste.cluster.files import load_objects
    from gpuwaste.runtime.rehearse import rehearse
    from gpuwaste.settings.operator import AgentSettings, OperatorSettings, PlanSettings
    from gpuwaste.settings.teams import TeamRule, TeamRules

    settings = OperatorSettings(
        cluster_name=_CLUSTER,
        store=str(folder),
        agents=AgentSettings(endpoints=tuple(endpoints), batch_records=20_000),
        team_rules=TeamRules(rules=(TeamRule(source="namespaceLabel", key="team"),)),
        writes_per_second=1000,
        plan=PlanSettings(time_limit_seconds=5),
    )
    bar = _Bar.start(bars, "Ledger, objects and plan")
    found = await rehearse(
        settings,
        load_objects(folder / "agents" / "objects.jsonl"),
        end=end,
        progress=lambda _, part: bar.at(0.9 * part),
    )
    bar.at(1.0)
    return found


def _finish(folder: Path, rehearsal: Rehearsal, end: datetime, bars: Progress) -> None:
    """The files that people take away: plan, FOCUS records, report, objects."""
    from gpuwaste import __version__
    from gpuwaste.cluster.kinds import GPU_POOLS, GPU_WASTES
    from gpuwaste.focus.export import export
    from gpuwaste.focus.ledger_days import ledger_days
    from gpuwaste.focus.options import ExportOptions
    from gpuwaste.ledger.store import open_store
    from gpuwaste.report.html import render_report
    from gpuwaste.report.summary import summarize

    bar = _Bar.start(bars, "FOCUS records and report")
    if rehearsal.plan is not None:
        _write(folder / "plan.json", json.dumps(rehearsal.plan.to_json(), indent=2, ensure_ascii=False))
    day = (end - timedelta(days=1)).date()
    export(
        ledger_days(open_store(str(folder)), day, day),
        ExportOptions(),
        folder / "focus",
        now=end,
        generator_version=__version__,
    )
    bar.at(0.5)
    objects = [body for kind in (GPU_WASTES, GPU_POOLS) for body in rehearsal.cluster.objects(kind)]
    _write(folder / "gpuwaste.jsonl", "".join(f"{json.dumps(body, ensure_ascii=False)}\n" for body in objects))
    advice = {
        (body["metadata"]["namespace"], body["spec"]["workloadRef"]["kind"], body["spec"]["workloadRef"]["name"]): body[
            "status"
        ]["summary"]["advice"]
        for body in rehearsal.cluster.objects(GPU_WASTES)
    }
    page = render_report(
        summarize(rehearsal.rows),
        title=f"GPU report of the {_CLUSTER} cluster",
        generated_at=end,
        plan=rehearsal.plan.to_json() if rehearsal.plan else None,
        advice=advice,
        notes=("This day is simulated: no GPU was measured.",),
    )
    _write(folder / "report.html", page)
    bar.at(1.0)


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
