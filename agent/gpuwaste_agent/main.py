"""`gpuwaste-agent`: the command line."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from gpuwaste_agent import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

EXIT_REFUSED = 1
EXIT_FLAGS = 2
EXIT_UNREACHABLE = 3


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpuwaste-agent", description="Measures who holds a node's GPUs and who uses them."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command")
    _simulate_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0, 1 (refused), 2 (wrong flags) or 3 (something needed is unreachable)."""
    from gpuwaste_agent.journal import JournalError  # noqa: PLC0415 - after the flags are known to be right
    from gpuwaste_agent.server import ServerError  # noqa: PLC0415

    args = _parser().parse_args(argv)
    try:
        return int(args.run(args))
    except (JournalError, ServerError, OSError) as error:
        sys.stderr.write(f"gpuwaste-agent: {error}\n")
        return EXIT_UNREACHABLE


if __name__ == "__main__":
    sys.exit(main())
