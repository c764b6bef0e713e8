"""Makes and changes a simulated node's driver state while programs use it.

python -m tests.sim.nvml.control create --scenario scenario.json --node node-a
python -m tests.sim.nvml.control fault xid --gpu GPU-… --xid 48
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tests.sim.nvml.change import apply_node, clear_faults, clients, history, register, reset_gpu, unregister
from tests.sim.nvml.state import SECOND, SimState, StateError, create_state, to_ns

from gpuwaste_agent.simulate.scenario import FOREVER, ScenarioLoad
from gpuwaste_agent.simulate.scenario_file import ScenarioError, load_scenario
from gpuwaste_agent.simulate.truth import true_gpu_energy_joules, true_parents, true_processes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gpuwaste_agent.simulate.scenario import ScenarioNode

__all__ = ["main"]

_DEFAULT = "/run/gpuwaste-sim/nvml.state"
_FOLLOW_SECONDS = 0.2


def _moment(text: str) -> datetime:
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"`{text}` is no time: write 2026-01-31T12:00:00Z") from None
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _load(text: str) -> ScenarioLoad:
    """`DUTY:SM_WIDTH:MEMORY_MIB[:TENSOR:DRAM[:ENC:DEC]]`."""
    try:
        numbers = [float(part) for part in text.split(":")]
        point = ScenarioLoad(0.0, *numbers)
    except (TypeError, ValueError):
        raise argparse.ArgumentTypeError(
            f"`{text}` is no load: write DUTY:SM_WIDTH:MEMORY_MIB[:TENSOR:DRAM[:ENC:DEC]]"
        ) from None
    if not all(0 <= part <= 1 for part in (point.duty, point.sm_width, *point[4:])) or point.memory_mib < 0:
        raise argparse.ArgumentTypeError(f"`{text}`: memory must not be negative, the other parts lie between 0 and 1")
    return point


def _node(args: argparse.Namespace) -> ScenarioNode:
    scenario = load_scenario(args.scenario)
    try:
        return scenario.node(args.node)
    except KeyError as error:
        raise StateError(f"{args.scenario}: {error.args[0]}") from None


def _create(args: argparse.Namespace) -> int:
    scenario = load_scenario(args.scenario)
    start = args.start or (datetime.fromisoformat(scenario.start) if scenario.start else datetime.now(UTC))
    # Whole microseconds, without a float in between.
    start_utc_ns = round(start.timestamp() * 1_000_000) * 1000
    args.state.parent.mkdir(parents=True, exist_ok=True)
    sim = create_state(args.state, _node(args), start_utc_ns=start_utc_ns, speed=args.speed)
    if args.at is not None:
        sim.set_clock(to_ns(args.at))
    return 0


def _clock(args: argparse.Namespace) -> int:
    sim = SimState(args.state)
    if args.run is not None:
        sim.run_clock(speed=args.run)
    elif args.set is not None:
        sim.set_clock(to_ns(args.set))
    elif args.advance is not None:
        sim.set_clock(sim.now_ns() + to_ns(args.advance))
    sys.stdout.write(f"{sim.now_ns() / SECOND:.6f}\n")
    return 0


def _fault(args: argparse.Namespace) -> int:
    sim = SimState(args.state)
    if args.kind == "xid" and not args.xid:
        args.parser.error("--xid NUMBER is needed")
    if args.kind in ("lost", "xid", "counter-reset") and not args.gpu:
        args.parser.error("--gpu UUID is needed")
    with sim.writing():
        now = sim.now_ns()
        until = to_ns(FOREVER) if args.seconds is None else now + to_ns(args.seconds)
        sim.add_fault(args.kind, gpu=args.gpu, from_ns=now, until_ns=until, xid=args.xid, call=args.call)
    return 0


def _clear(args: argparse.Namespace) -> int:
    sys.stdout.write(f"{clear_faults(SimState(args.state), gpu=args.gpu)}\n")
    return 0


def _register(args: argparse.Namespace) -> int:
    register(SimState(args.state), args.pid, args.parent, args.load)
    return 0


def _unregister(args: argparse.Namespace) -> int:
    unregister(SimState(args.state), args.pid)
    return 0


def _reload(args: argparse.Namespace) -> int:
    apply_node(SimState(args.state), _node(args))
    return 0


def _follow(args: argparse.Namespace) -> int:
    """Apply the scenario file again whenever another one stands in its place, until killed."""
    sim = SimState(args.state)
    seen: tuple[int, int] | None = None
    parent = os.getppid()
    while os.getppid() == parent:
        try:
            found = args.scenario.stat()
            if (found.st_ino, found.st_mtime_ns) != seen:
                seen = (found.st_ino, found.st_mtime_ns)
                apply_node(sim, _node(args))
        except (OSError, ScenarioError, StateError) as error:
            sys.stderr.write(f"{error}\n")
        time.sleep(_FOLLOW_SECONDS)
    return 0


def _reset(args: argparse.Namespace) -> int:
    reset_gpu(SimState(args.state), args.gpu)
    return 0


def _show(args: argparse.Namespace) -> int:
    sim = SimState(args.state)
    node = history(sim, name="", uid="")
    now_s = sim.now_ns() / SECOND
    faults = [
        {"kind": fault.kind, "gpu": fault.gpu, "xid": fault.xid, "from_s": fault.from_ns / SECOND}
        for fault in sim.state.faults[: sim.state.fault_count]
        if fault.from_ns <= sim.now_ns() < fault.until_ns
    ]
    running = [asdict(p) for p in node.processes if p.from_s <= now_s < p.until_s]
    value = {"now_s": now_s, "clients": clients(sim), "faults": faults, "processes": running}
    value["gpus"] = [{"uuid": gpu.uuid, "product": gpu.product, "mig": gpu.mig is not None} for gpu in node.gpus]
    sys.stdout.write(json.dumps(value, indent=1, default=str) + "\n")
    return 0


def _truth(args: argparse.Namespace) -> int:
    sim = SimState(args.state)
    until = sim.now_ns() / SECOND if args.until is None else args.until
    node = history(sim, name="", uid="")
    value = {
        "from_s": args.since,
        "until_s": until,
        "processes": {pid: asdict(truth) for pid, truth in true_processes(node, args.since, until).items()},
        "parents": {uuid: asdict(truth) for uuid, truth in true_parents(node, args.since, until).items()},
        "gpu_joules": true_gpu_energy_joules(node, args.since, until),
    }
    sys.stdout.write(json.dumps(value, indent=1) + "\n")
    return 0


def _scenario_flags(parser: argparse.ArgumentParser) -> None:
    scenario, node = os.environ.get("GPUWASTE_SIM_SCENARIO"), os.environ.get("GPUWASTE_SIM_NODE")
    parser.add_argument("--scenario", type=Path, default=scenario and Path(scenario), required=not scenario)
    parser.add_argument("--node", default=node, required=not node, help="the node's name in the scenario")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.nvml.control", description=__doc__)
    default = Path(os.environ.get("GPUWASTE_SIM_STATE") or _DEFAULT)
    parser.add_argument("--state", type=Path, default=default, help="the state file (GPUWASTE_SIM_STATE)")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text)
        made.set_defaults(act=run, parser=made)
        return made

    create = command("create", _create, "make a node's state file from a scenario")
    _scenario_flags(create)
    create.add_argument("--start", type=_moment, help="time of second 0; else the scenario's, else now")
    create.add_argument("--speed", type=float, default=1.0, help="seconds of the scenario in a real second")
    create.add_argument("--at", type=float, metavar="SECONDS", help="let the clock stand at this second")
    clock = command("clock", _clock, "stop, set or run the clock, and print the second of the scenario")
    which = clock.add_mutually_exclusive_group()
    which.add_argument("--set", type=float, metavar="SECONDS")
    which.add_argument("--advance", type=float, metavar="SECONDS")
    which.add_argument("--run", type=float, metavar="SPEED")
    fault = command("fault", _fault, "let something go wrong from now on")
    fault.add_argument("kind", choices=("lost", "xid", "counter-reset", "hang", "driver-reload"))
    fault.add_argument("--gpu", default="", metavar="UUID")
    fault.add_argument("--xid", type=int, default=0)
    fault.add_argument("--call", default="", help="hang: only this function")
    fault.add_argument("--for", dest="seconds", type=float, metavar="SECONDS", help="of the scenario; else for ever")
    command("clear", _clear, "end the faults that are on").add_argument("--gpu", default="", metavar="UUID")
    registering = command("register", _register, "put a process under a given PID on a GPU or MIG device")
    registering.add_argument("--pid", type=int, required=True)
    registering.add_argument("--parent", required=True, metavar="UUID")
    registering.add_argument(
        "--load", type=_load, required=True, metavar="DUTY:SM_WIDTH:MEMORY_MIB[:TENSOR:DRAM[:ENC:DEC]]"
    )
    command("unregister", _unregister, "end that process").add_argument("--pid", type=int, required=True)
    _scenario_flags(command("reload", _reload, "make the node what a changed scenario says"))
    _scenario_flags(command("follow", _follow, "do so whenever the file changes, until killed"))
    command("reset", _reset, "reset a GPU that nobody uses").add_argument("--gpu", required=True, metavar="UUID")
    command("show", _show, "print clock, GPUs, clients, faults and processes as JSON")
    truth = command("truth", _truth, "print what a perfect agent would have measured, as JSON")
    truth.add_argument("--from", dest="since", type=float, default=0.0, metavar="SECONDS")
    truth.add_argument("--to", dest="until", type=float, metavar="SECONDS", help="default: now")
    return parser


def main(argv: Sequence[str]) -> int:
    """Run a command; returns 0, or 1 with one line on stderr where it is refused."""
    args = _parser().parse_args(argv)
    try:
        return int(args.act(args))
    except (ScenarioError, StateError) as error:
        sys.stderr.write(f"{error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
