"""`gpuwaste-agent`: the command line."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gpuwaste_agent import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpuwaste_agent.leaving import Handover
    from gpuwaste_agent.notices import NoticeSource
    from gpuwaste_agent.resource_slices import SliceSource
    from gpuwaste_agent.server import TlsFiles
    from gpuwaste_agent.settings import AgentSettings, Simulation, SourceSettings

__all__ = ["main"]

EXIT_REFUSED = 1
EXIT_FLAGS = 2
EXIT_UNREACHABLE = 3
# A pod does not know its address beforehand; the windows are behind mutual TLS.
_EVERY_ADDRESS = "0.0.0.0"  # noqa: S104


def _moment(text: str) -> datetime:
    """A time in RFC 3339; without a zone it is UTC."""
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"`{text}` is no time: write 2026-01-31T12:00:00Z") from None
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _simulate_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "simulate", help="make up a cluster's day and sample it into one journal a node, at full speed"
    )
    parser.add_argument("--nodes", type=int, required=True, help="number of nodes")
    parser.add_argument("--from", dest="start", type=_moment, required=True, help="start, RFC 3339")
    parser.add_argument("--to", dest="until", type=_moment, required=True, help="end, RFC 3339")
    parser.add_argument("--interval", type=float, default=60.0, metavar="SECONDS", help="time between readings")
    parser.add_argument("--window", type=int, default=60, metavar="SECONDS", help="length of a usage window")
    parser.add_argument("--journal", type=Path, required=True, metavar="DIR", help="where everything goes")
    parser.add_argument("--seed", type=int, default=1, help="of the random numbers; same seed, same bytes")
    parser.add_argument("--serve", action="store_true", help="then serve the journals on loopback until SIGTERM")
    parser.add_argument("--progress", choices=("none", "json"), default="none", help="what to say on stderr")
    parser.set_defaults(run=_simulate, parser=parser)


def _simulate(args: argparse.Namespace) -> int:
    from gpuwaste_agent.simulate import command  # noqa: PLC0415 - only this command needs the simulator

    window = args.window
    start, until = int(args.start.timestamp()), int(args.until.timestamp())
    if args.nodes < 1:
        args.parser.error("--nodes must be at least 1")
    if window < 1 or start % window or until % window or start >= until:
        args.parser.error(f"--from must lie before --to, both on multiples of --window ({window} s)")
    if not 0.25 <= args.interval <= 3600:  # noqa: PLR2004 - as documented
        args.parser.error("--interval must lie between 0.25 and 3600 seconds")
    if any((args.journal / name).exists() for name in ("scenario.json", "objects.jsonl")):
        sys.stderr.write(f"gpuwaste-agent: {args.journal} already holds a simulation; name another --journal\n")
        return EXIT_REFUSED
    cluster = command.simulate(
        nodes=args.nodes,
        start_unix_s=start,
        until_unix_s=until,
        interval_s=args.interval,
        window_s=window,
        seed=args.seed,
        directory=args.journal,
        progress=command.json_progress if args.progress == "json" else command.no_progress,
    )
    return command.serve_journals(cluster, args.journal) if args.serve else 0


def _address(text: str) -> tuple[str, int]:
    """HOST:PORT, with an IPv6 host in brackets."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004 - the last port there is
        raise argparse.ArgumentTypeError(f"`{text}` is no address: write HOST:PORT, as in 127.0.0.1:9440")
    return host.strip("[]"), int(port)


def _serving_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("serving")
    group.add_argument(
        "--listen", type=_address, default=(_EVERY_ADDRESS, 9440), help="of /v1/windows (default port 9440)"
    )
    group.add_argument(
        "--metrics-listen",
        type=_address,
        default=(_EVERY_ADDRESS, 9441),
        help="of /metrics and probes (default port 9441)",
    )
    group.add_argument("--tls-cert", type=Path, metavar="FILE", help="our certificate; without TLS loopback only")
    group.add_argument("--tls-key", type=Path, metavar="FILE", help="its key")
    group.add_argument("--tls-ca", type=Path, metavar="FILE", help="CA that signs the callers' certificates")


def _agent_flags(parser: argparse.ArgumentParser) -> None:
    environment = os.environ
    parser.add_argument("--node", default=environment.get("NODE_NAME", ""), help="the node's name (or NODE_NAME)")
    parser.add_argument("--node-uid", default=environment.get("NODE_UID", ""), help="its UID (or NODE_UID)")
    parser.add_argument("--cluster", default=environment.get("CLUSTER_NAME", ""), help="the cluster (or CLUSTER_NAME)")
    parser.add_argument("--interval", type=float, default=1.0, metavar="SECONDS", help="between readings (default 1)")
    parser.add_argument("--window", type=int, default=60, metavar="SECONDS", help="length of a window (default 60)")
    journal = parser.add_argument_group("journal")
    journal.add_argument("--journal", type=Path, default=Path("/var/lib/gpuwaste/journal"), metavar="DIR")
    journal.add_argument("--retention-hours", type=int, default=72, help="windows are kept so long (default 72)")
    journal.add_argument("--journal-limit-mib", type=int, default=2048, help="or up to this size (default 2048)")
    _serving_flags(parser)
    node = parser.add_argument_group("a real node")
    node.add_argument(
        "--pod-resources", type=Path, default=Path("/var/lib/kubelet/pod-resources/kubelet.sock"), metavar="SOCKET"
    )
    node.add_argument("--proc", type=Path, default=Path("/proc"), metavar="DIR", help="/proc of the host")
    node.add_argument("--pod-logs", type=Path, default=Path("/var/log/pods"), metavar="DIR")
    node.add_argument("--container-logs", type=Path, default=Path("/var/log/containers"), metavar="DIR")
    node.add_argument("--no-processes", action="store_true", help="do not attribute by process (needs no hostPID)")
    node.add_argument("--dra", action="store_true", help="resource claims hand the GPUs out (seen by itself with time)")
    node.add_argument(
        "--resource-slices",
        action="store_true",
        help="read from the API server what claimed devices are (needs `list` of resourceslices)",
    )
    node.add_argument(
        "--service-account",
        type=Path,
        default=Path("/var/run/secrets/kubernetes.io/serviceaccount"),
        metavar="DIR",
        help="token and ca.crt for it",
    )
    node.add_argument("--nvml-library", type=Path, metavar="FILE", help="libnvidia-ml.so.1 where it is not found")
    node.add_argument("--dcgm-exporter", default="", metavar="URL", help="/metrics of the node's own dcgm-exporter")
    leaving = parser.add_argument_group("leaving")
    leaving.add_argument("--flush-to", metavar="URL", help="the operator's /v1/windows: POST what it has not fetched")
    leaving.add_argument(
        "--flush-name", metavar="NAME", default="", help="name in the operator's certificate (default: the URL's host)"
    )
    leaving.add_argument("--flush-put", metavar="URL", help="a pre-signed address: PUT the same there")
    leaving.add_argument(
        "--spot-notice",
        metavar="CLOUD[=URL]",
        help="aws, gcp or azure: hand over at once when its metadata service says that the node is taken away",
    )
    simulation = parser.add_argument_group("a simulated node")
    simulation.add_argument("--simulate", type=Path, metavar="SCENARIO", help="scenario file to follow")
    simulation.add_argument("--start", type=_moment, metavar="TIME", help="when its second 0 was, RFC 3339")
    simulation.add_argument("--speed", type=float, default=1.0, help="until it has caught up with the wall clock")


def _settings(args: argparse.Namespace) -> AgentSettings:
    """Check the flags together; exits with 2 where they do not fit."""
    from gpuwaste_agent.server import TlsFiles  # noqa: PLC0415 - `simulate` and `--help` do without
    from gpuwaste_agent.settings import AgentSettings  # noqa: PLC0415

    fail = args.parser.error
    if not args.node:
        fail("say which node this is: --node NAME or NODE_NAME")
    least, most = (0.25, 60) if args.simulate is None else (0.25, 3600)
    if not least <= args.interval <= most:
        fail(f"--interval must lie between {least:g} and {most:g} seconds")
    if args.window < 1 or 3600 % args.window:
        fail("--window must divide an hour")
    files = (args.tls_cert, args.tls_key, args.tls_ca)
    if any(files) and not all(files):
        fail("--tls-cert, --tls-key and --tls-ca go together")
    tls = TlsFiles(cert=args.tls_cert, key=args.tls_key, ca=args.tls_ca) if all(files) else None
    return AgentSettings(
        node=args.node,
        node_uid=args.node_uid,
        cluster=args.cluster,
        journal=args.journal,
        retention_hours=args.retention_hours,
        journal_limit_bytes=args.journal_limit_mib << 20,
        interval_seconds=args.interval,
        window_seconds=args.window,
        listen=args.listen,
        metrics_listen=args.metrics_listen,
        tls=tls,
        sources=_sources(args),
        handovers=_handovers(args, tls),
        notices=_notices(args),
        simulation=None if args.simulate is None else _simulation(args),
    )


def _sources(args: argparse.Namespace) -> SourceSettings:
    from gpuwaste_agent.settings import SourceSettings  # noqa: PLC0415

    return SourceSettings(
        pod_resources=args.pod_resources,
        proc=args.proc,
        pod_logs=args.pod_logs,
        container_logs=args.container_logs,
        processes=not args.no_processes,
        dra=args.dra or args.resource_slices,
        slices=_slices(args),
        nvml_library=args.nvml_library,
        dcgm_url=args.dcgm_exporter,
    )


def _slices(args: argparse.Namespace) -> SliceSource | None:
    from gpuwaste_agent.resource_slices import SlicesError, SliceSource  # noqa: PLC0415 - only where it is switched on

    if not args.resource_slices:
        return None
    try:
        return SliceSource.in_cluster(args.node, args.service_account)
    except SlicesError as error:
        args.parser.error(f"--resource-slices: {error}")
    return None


def _simulation(args: argparse.Namespace) -> Simulation:
    from gpuwaste_agent.settings import Simulation  # noqa: PLC0415

    if args.speed <= 0:
        args.parser.error("--speed must be above 0")
    start = args.start or _scenario_start(args)
    start_unix_ns = round(start.timestamp() * 1000) * 1_000_000
    return Simulation(scenario=args.simulate, start_unix_ns=start_unix_ns, speed=args.speed)


def _handovers(args: argparse.Namespace, tls: TlsFiles | None) -> tuple[Handover, ...]:
    from gpuwaste_agent.leaving import Handover  # noqa: PLC0415

    found = []
    for url, method, files in ((args.flush_to, "POST", tls), (args.flush_put, "PUT", None)):
        if not url:
            continue
        parts = urlsplit(url)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost")):
            args.parser.error(f"`{url}` must be an https address: windows do not travel in the clear")
        found.append(Handover(method=method, url=url, tls=files, name=args.flush_name if method == "POST" else ""))
    return tuple(found)


def _notices(args: argparse.Namespace) -> NoticeSource | None:
    from gpuwaste_agent.notices import CLOUDS, NoticeSource  # noqa: PLC0415

    if not args.spot_notice:
        return None
    cloud, given, url = args.spot_notice.partition("=")
    parts = urlsplit(url)
    if cloud not in CLOUDS or (given and (parts.scheme != "http" or not parts.hostname)):
        args.parser.error(
            f"`{args.spot_notice}` names no metadata service: write {', '.join(CLOUDS)}, or CLOUD=http://ADDRESS"
        )
    return NoticeSource(cloud=cloud, url=url) if given else NoticeSource(cloud=cloud)


def _scenario_start(args: argparse.Namespace) -> datetime:
    from gpuwaste_agent.simulate.scenario_file import load_scenario  # noqa: PLC0415

    start = load_scenario(args.simulate).start
    if not start:
        args.parser.error("the scenario has no `start`: say when its second 0 was with --start")
    return _moment(start)


def _run(args: argparse.Namespace) -> int:
    from gpuwaste_agent.running import run  # noqa: PLC0415

    return run(_settings(args))


def _doctor(args: argparse.Namespace) -> int:
    from gpuwaste_agent.examine import examine  # noqa: PLC0415

    args.node = args.node or platform.node()
    return examine(_settings(args), args.output)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpuwaste-agent", description="Measures who holds a node's GPUs and who uses them."
    )
    parser.add_argument("--version", action="version", version=__version__)
    _agent_flags(parser)
    parser.set_defaults(run=_run, parser=parser)
    commands = parser.add_subparsers(dest="command")
    _simulate_parser(commands)
    doctor = commands.add_parser("doctor", help="say for each figure whether it can be read, why not, and what to set")
    _agent_flags(doctor)
    doctor.add_argument("-o", "--output", choices=("table", "json"), default="table")
    doctor.set_defaults(run=_doctor, parser=doctor)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0, 1 (refused), 2 (wrong flags) or 3 (something needed is unreachable)."""
    from gpuwaste_agent.journal import JournalError  # noqa: PLC0415 - after the flags are known to be right
    from gpuwaste_agent.server import ServerError  # noqa: PLC0415
    from gpuwaste_agent.simulate.scenario_file import ScenarioError  # noqa: PLC0415
    from gpuwaste_agent.telemetry import NvmlUnavailableError  # noqa: PLC0415

    args = _parser().parse_args(argv)
    try:
        return int(args.run(args))
    except ScenarioError as error:
        sys.stderr.write(f"gpuwaste-agent: {error}\n")
        return EXIT_REFUSED
    except (JournalError, ServerError, NvmlUnavailableError, OSError) as error:
        sys.stderr.write(f"gpuwaste-agent: {error}\n")
        return EXIT_UNREACHABLE


if __name__ == "__main__":
    sys.exit(main())
